"""Every reason that the admin API names has a next step."""

from __future__ import annotations

import re
from pathlib import Path

from turnout.core.errors import Refusal
from turnout_client.ctl.advice import NEXT_STEPS, next_step
from turnout_client.errors import AdminError
from turnout_wire.gen import slots_pb2 as pb

PROTO = Path(__file__).parents[2] / "proto/turnout/admin/v1/slots.proto"
# Codes of gRPC, states, and what else is written in capitals in the comments of the service.
NO_REASONS = {
    "OK", "ABORTED", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS", "RESOURCE_EXHAUSTED",
    "UNAVAILABLE", "OUT_OF_RANGE", "LOADING", "READY", "FAILED", "EMPTY", "DRAINING", "DEGRADED", "SYNCED", "INITIAL",
    "SHA256SUMS", "RPC", "A",
}  # fmt: skip


def test_the_table_has_each_reason_of_the_proto_and_of_the_server() -> None:
    service = PROTO.read_text().split("// What every request that changes something")[0]
    comments = " ".join(re.findall(r"//(.*)", service))
    named = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", comments)) - NO_REASONS
    assert len(named) > 15
    assert named <= set(NEXT_STEPS)
    assert {refusal.name for refusal in Refusal} == set(NEXT_STEPS)


def test_names_that_are_known_are_filled_in_and_others_are_placeholders() -> None:
    error = AdminError("NOT_FOUND", "", "SLOT_NOT_READY", {"model": "digits"})
    assert "turnoutctl load digits SLOT REVISION" in next_step(error)
    assert "turnoutctl load digits green REVISION" in next_step(error, slot="green")
    for reason in NEXT_STEPS:
        assert "{" not in next_step(AdminError("ABORTED", "", reason))


def test_a_held_slot_and_a_routed_one_are_told_apart() -> None:
    held = AdminError("FAILED_PRECONDITION", "", "SLOT_ROUTED", {"bake_until_ns": "1"})
    assert "--end-bake" in next_step(held) and "swap" not in next_step(held)
    shadow = AdminError("FAILED_PRECONDITION", "", "SLOT_ROUTED", {"sample_bp": "1", "model": "m", "slot": "green"})
    assert "`turnoutctl shadow clear m green`" in next_step(shadow)


def test_errors_that_are_not_turnouts_own() -> None:
    assert "admin port" in next_step(AdminError("UNAVAILABLE", "refused"))
    assert "admin port" in next_step(AdminError("UNIMPLEMENTED", "Method not found!"))
    assert next_step(AdminError("DEADLINE_EXCEEDED", "")) and next_step(AdminError("UNKNOWN", "")) == ""
    assert next_step(AdminError("ABORTED", "", "A_REASON_FROM_THE_FUTURE")) == ""


def test_the_enumerations_have_the_names_that_the_shapes_cut_their_prefixes_from() -> None:
    for enum, prefix in ((pb.SlotState, "SLOT_STATE_"), (pb.Health, "HEALTH_"), (pb.Verdict, "VERDICT_")):
        names: list[str] = enum.keys()
        assert all(name.startswith(prefix) for name in names)
