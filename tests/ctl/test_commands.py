"""Each command against a fake server: what it asks, what it prints, its exit status."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.command import turnoutctl
from support.fake_admin import FakeAdmin, revision
from support.server import until
from turnout.core.commands import Load, SetWeights
from turnout.core.errors import ControlError, Refusal
from turnout_wire.gen import slots_pb2 as pb

NOBODY = "127.0.0.1:1"


def asked(fake: FakeAdmin, rpc: str) -> Any:
    """The last request of that RPC."""
    return [request for name, request in fake.asked if name == rpc][-1]


def test_status_shows_slots_weights_rates_and_latencies(fake: FakeAdmin) -> None:
    fake.do("digits", Load("green", revision("digits", 2, "int8")))
    fake.do("digits", SetWeights({"blue": 9000, "green": 1000}))
    fake.requests["digits", "blue"] = 7
    done = turnoutctl("status", "--interval", "0")
    assert (done.status, done.stderr) == (0, "")
    assert re.search(r"digits +HEALTHY +generation 2 +stable blue", done.stdout)
    assert re.search(r"^blue +1 +READY +90 % +- +- +1\.5 ms +12\.0 ms +0 +\d+$", done.stdout, re.MULTILINE)
    assert re.search(r"^green +2@int8 +READY +10 %", done.stdout, re.MULTILINE)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_status_computes_requests_per_second_from_two_readings(fake: FakeAdmin) -> None:
    fake.step_ns = 2 * 10**9
    growing = iter(range(100, 200, 50))
    plain = fake.model

    def model(name: str) -> pb.Model:
        fake.requests["digits", "blue"] = next(growing)
        return plain(name)

    fake.model = model  # type: ignore[method-assign]
    slot = turnoutctl("status", "digits", "--interval", "0.01", "--json").json["replicas"][0]["result"]["models"][0][
        "slots"
    ][0]
    assert (slot["name"], slot["requests_per_s"]) == ("blue", 25.0)


def test_status_as_json_has_a_stable_shape(fake: FakeAdmin) -> None:
    document = turnoutctl("status", "--interval", "0", "--json").json
    assert list(document) == ["command", "ok", "exit_status", "replicas"]
    (replica,) = document["replicas"]
    assert list(replica) == ["endpoint", "ok", "elapsed_ms", "result"]
    (model,) = replica["result"]["models"]
    assert set(model) == {
        "name", "health", "message", "stable_slot", "candidate_slot", "previous_slot", "bake_until", "read_time",
        "route", "slots",
    }  # fmt: skip
    assert set(model["route"]) == {"generation", "etag", "weights", "sticky_key", "pins", "shadows"}
    assert set(model["slots"][0]) == {
        "name", "state", "revision", "digest", "weight_bp", "observed_bp", "held", "etag", "message", "memory_bytes",
        "leases", "queued_rows", "providers", "state_time", "routed", "pinned", "gates", "requests_per_s", "forced",
    }  # fmt: skip


def test_status_lists_the_models_of_every_page(fake: FakeAdmin) -> None:
    fake.versions["words"] = 1
    fake.do("words", Load("blue", revision("words", 1)))
    assert re.findall(r"^(digits|words) ", turnoutctl("status", "--interval", "0").stdout, re.MULTILINE) == [
        "digits",
        "words",
    ]


def test_load_waits_and_says_what_the_slot_holds(fake: FakeAdmin) -> None:
    done = turnoutctl("load", "digits", "green", "digits/2@int8", "--reason", "try it", "--etag", "0")
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith("digits: green is READY digits/2@int8, in ")
    request = asked(fake, "LoadSlot")
    assert request.wait and (request.revision.version, request.revision.variant) == (2, "int8")
    assert (request.mutation.reason, request.mutation.etag) == ("try it", "0")
    assert len(request.mutation.request_id) == 36


def test_the_flags_of_load_reach_the_server(fake: FakeAdmin) -> None:
    flags = ("--no-wait", "--replace", "--allow-signature-change", "--accept-outage", "--end-bake", "--dry-run")
    done = turnoutctl("load", "digits", "blue", "2", *flags, "--digest", "ab", "--request-id", "me")
    request = asked(fake, "LoadSlot")
    assert done.status == 0 and "would cost 100 % of the traffic for about 1.5 s" in done.stdout
    assert not request.wait and request.replace and request.allow_signature_change and request.accept_outage
    assert request.end_bake and request.digest == "ab" and request.mutation.validate_only
    assert request.mutation.request_id == "me"
    assert str(fake.states["digits"].slots["blue"].revision) == "digits/1"


def test_a_load_that_fails_is_the_error_of_the_command(fake: FakeAdmin) -> None:
    fake.broken.add(2)
    done = turnoutctl("load", "digits", "green", "2")
    assert done.status == 1 and done.stdout == ""
    assert "GATE_FAILED: it is broken" in done.stderr and "next: the revision is not fit to serve" in done.stderr


def test_unload_swap_and_rollback(fake: FakeAdmin) -> None:
    fake.do("digits", Load("green", revision("digits", 2)))
    done = turnoutctl("swap", "digits", "green", "--bake", "15m", "--etag", "1")
    assert done.status == 0 and done.stdout.startswith("digits: green 100 %, generation 2, in ")
    assert asked(fake, "SwapSlots").bake.seconds == 900
    held = turnoutctl("unload", "digits", "blue")
    assert held.status == 1 and "--end-bake" in held.stderr
    assert turnoutctl("rollback", "digits").stdout.startswith("digits: blue 100 %, generation 3")
    assert asked(fake, "RollbackModel").mutation.etag == ""
    assert turnoutctl("unload", "digits", "green").stdout.startswith("digits: green is EMPTY")


def test_a_rollback_takes_no_etag(fake: FakeAdmin) -> None:
    assert turnoutctl("rollback", "digits", "--etag", "1").status == 2


def test_a_swap_without_bake_leaves_it_to_the_server_and_zero_means_none(fake: FakeAdmin) -> None:
    fake.do("digits", Load("green", revision("digits", 2)))
    turnoutctl("swap", "digits", "green", "--dry-run")
    assert not asked(fake, "SwapSlots").HasField("bake")
    turnoutctl("swap", "digits", "green", "--bake", "0", "--dry-run")
    assert asked(fake, "SwapSlots").HasField("bake")


def test_weights_take_percent_basis_points_and_the_rest(fake: FakeAdmin) -> None:
    fake.do("digits", Load("green", revision("digits", 2)))
    for shares in (("green=10%", "blue=rest"), ("green=1000", "blue=9000bp"), ("blue=90%", "green=10.00%")):
        assert turnoutctl("weights", "digits", *shares).status == 0
        sent = {weight.slot: weight.weight_bp for weight in asked(fake, "SetWeights").weights}
        assert sent == {"green": 1000, "blue": 9000}


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (("green=50%",), "add up to 50 %"),
        (("green=rest", "blue=rest"), "only one slot"),
        (("green=110%", "blue=rest"), "add up to 110 %"),
        (("green=0.5", "blue=rest"), "is no share"),
        (("green",), "no SLOT=SHARE"),
        (("green=1%", "green=99%"), "named twice"),
        ((), "nothing to set"),
    ],
)
def test_shares_that_cannot_be_are_wrong_usage(fake: FakeAdmin, shares: tuple[str, ...], said: str) -> None:
    done = turnoutctl("weights", "digits", *shares)
    assert done.status == 2 and said in " ".join(done.stderr.split()) and not fake.asked


def test_sticky_keys_and_pins(fake: FakeAdmin) -> None:
    def sticky() -> tuple[str, str, str]:
        key = fake.states["digits"].route.sticky  # type: ignore[union-attr]
        return key.metadata, key.parameter, key.salt

    turnoutctl("weights", "digits", "--sticky-metadata", "x-user")
    assert sticky() == ("x-user", "", "")
    turnoutctl("weights", "digits", "--salt", "s2")
    assert sticky() == ("x-user", "", "s2")
    turnoutctl("weights", "digits", "--sticky-parameter", "user", "--pin", "x-team=qa:blue", "--pin", "x-team=a=b:blue")
    assert sticky() == ("", "user", "s2")
    assert [(pin.metadata, pin.value) for pin in fake.states["digits"].route.pins] == [
        ("x-team", "qa"),
        ("x-team", "a=b"),
    ]  # type: ignore[union-attr]
    assert "pins: x-team=qa:blue, x-team=a=b:blue" in turnoutctl("status", "--interval", "0").stdout
    turnoutctl("weights", "digits", "--sticky-default", "--no-pins")
    assert sticky() == ("turnout-sticky-key", "sticky_key", "")
    assert fake.states["digits"].route.pins == ()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "flags",
    [
        ("--sticky-metadata", "a", "--sticky-parameter", "b"),
        ("--pin", "x=y:blue", "--no-pins"),
        ("--pin", "nonsense"),
    ],
)
def test_sticky_keys_and_pins_that_cannot_be(fake: FakeAdmin, flags: tuple[str, ...]) -> None:
    assert turnoutctl("weights", "digits", *flags).status == 2


def test_history_is_newest_first_over_all_pages_and_filtered(fake: FakeAdmin) -> None:
    for number in (9000, 8000, 7000):
        fake.do("digits", Load("green", revision("digits", 2)))
        fake.do("digits", SetWeights({"blue": number, "green": 10000 - number}), "operator", "step")
    lines = turnoutctl("history", "digits").stdout.splitlines()
    assert [int(line.split()[0]) for line in lines[::2]] == [5, 4, 3, 2, 1]
    assert "route  blue=8000 green=2000 → blue=7000 green=3000" in lines[0]
    assert lines[1].strip() == "weights by operator, generation 4: step"

    def seqs(*flags: str) -> list[int]:
        found = turnoutctl("history", *flags, "--json").json["replicas"][0]["result"]["transitions"]
        return [each["seq"] for each in found]

    assert seqs("--slot", "green") == [2, 1] and seqs("--route") == [5, 4, 3]
    assert seqs("-n", "2") == [5, 4] and seqs("--since", "3") == [5, 4] and seqs("--cause", "load") == [2, 1]


def test_a_stale_etag_is_refused_with_what_to_do(fake: FakeAdmin) -> None:
    done = turnoutctl("weights", "digits", "blue=100%", "--etag", "7", "--json")
    assert done.status == 1
    (replica,) = done.json["replicas"]
    error = replica["error"]
    assert (error["code"], error["reason"], error["metadata"]["current_etag"]) == ("ABORTED", "ETAG_MISMATCH", "1")
    assert "turnoutctl status digits" in error["next_step"]


def test_fields_at_fault_are_named(fake: FakeAdmin) -> None:
    fake.refusals["SetWeights"] = ControlError(Refusal.INVALID_SPEC, "no", "weights[0].slot")
    assert "weights[0].slot: weights[0].slot is wrong" in turnoutctl("weights", "digits", "blue=100%").stderr


def test_nobody_there_is_status_3(fake: FakeAdmin) -> None:
    done = turnoutctl("status", "-e", NOBODY)
    assert done.status == 3 and "no connection: Connection refused" in done.stderr and "next: " in done.stderr


def test_no_answer_in_time_is_status_3_and_names_the_request_id(fake: FakeAdmin) -> None:
    fake.slow_s = 2.0
    done = turnoutctl("load", "digits", "green", "2", "--timeout", "0.2", "--request-id", "abc")
    assert done.status == 3 and "--request-id abc does nothing twice" in done.stderr


def test_the_journal_that_cannot_be_written_is_a_refusal_although_unavailable(fake: FakeAdmin) -> None:
    fake.refusals["SwapSlots"] = ControlError(Refusal.STATE_STORE, "disk full")
    assert turnoutctl("swap", "digits", "blue").status == 1


def test_several_servers_are_one_table_and_a_partial_failure_is_status_4(fake: FakeAdmin, second: FakeAdmin) -> None:
    endpoints = ("-e", fake.address, "-e", second.address)
    both = turnoutctl("load", "digits", "green", "2", *endpoints)
    assert both.status == 0 and both.stdout.count("green is READY digits/2") == 2
    done = turnoutctl("swap", "digits", "green", *endpoints, "-e", NOBODY)
    assert done.status == 4 and done.stdout.count("green 100 %") == 2
    assert re.search(rf"^{NOBODY} +no answer", done.stdout, re.MULTILINE) and NOBODY in done.stderr
    second.refusals["SwapSlots"] = ControlError(Refusal.STATE_STORE, "disk full")
    document = turnoutctl("swap", "digits", "blue", "--json", *endpoints).json
    assert (document["ok"], document["exit_status"]) == (False, 4)
    assert [replica["ok"] for replica in document["replicas"]] == [True, False]
    assert turnoutctl("swap", "digits", "nope", *endpoints).status == 1
    assert turnoutctl("status", "-e", NOBODY, "-e", "127.0.0.1:2").status == 3


def test_endpoints_come_from_before_or_after_the_command_or_the_environment(
    fake: FakeAdmin, second: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (("-e", second.address, "export"), ("export", "-e", second.address)):
        second.asked.clear()
        assert turnoutctl(*arguments).status == 0 and second.asked
    monkeypatch.setenv("TURNOUTCTL_ENDPOINT", f"{fake.address},{second.address}")
    assert len(turnoutctl("history", "--json").json["replicas"]) == 2
    monkeypatch.setenv("TURNOUTCTL_ENDPOINT", "nonsense")
    assert turnoutctl("history").status == 2
    assert turnoutctl("history", "-e", "host:99999").status == 2


@pytest.mark.parametrize(
    "arguments",
    [(), ("nonsense",), ("load", "digits"), ("status", "--nonsense"), ("load", "digits", "green", "two"),
     ("load", "digits", "green", "words/2"), ("swap", "digits", "green", "--bake", "soon"),
     ("--timeout", "0", "status"), ("history", "--slot", "a", "--route")],
)  # fmt: skip
def test_wrong_usage_is_status_2(fake: FakeAdmin, arguments: tuple[str, ...]) -> None:
    assert turnoutctl(*arguments).status == 2 and not fake.asked


def test_what_a_server_says_cannot_act_on_the_terminal(fake: FakeAdmin) -> None:
    fake.refusals["SwapSlots"] = ControlError(Refusal.STATE_STORE, "x")
    fake.do("digits", SetWeights(pins=(), weights={"blue": 10000}), "a", "b")
    fake.refusals["ListTransitions"] = ControlError(Refusal.INTERNAL, "\x1b[2J gone")
    assert "\\x1b" in turnoutctl("history").stderr


@pytest.mark.parametrize("servers", [1, 2])
def test_ctrl_c_ends_a_load_that_waits(fake: FakeAdmin, second: FakeAdmin, servers: int) -> None:
    fake.slow_s = second.slow_s = 20.0
    endpoints = [flag for each in (fake, second)[:servers] for flag in ("-e", each.address)]
    with subprocess.Popen(
        [sys.executable, "-m", "turnout_client.ctl", "load", "digits", "green", "2", *endpoints],
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        until(lambda: fake.asked)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=15)
    assert process.returncode == 130 and "Traceback" not in said and said.strip().startswith("turnoutctl: interrupted")


def test_details_that_cannot_be_read_are_left_out(fake: FakeAdmin) -> None:
    def refuse(_: object, context: Any) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.ABORTED, "busy")

    fake._SwapSlots = refuse  # type: ignore[assignment, method-assign]
    done = turnoutctl("swap", "digits", "blue")
    assert done.status == 1 and "ABORTED: busy" in done.stderr


def test_a_bug_is_one_line_and_status_70(fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnout_client.admin.AdminClient.models", lambda _: 1 / 0)
    done = turnoutctl("status")
    assert done.status == 70 and done.stderr.count("\n") == 1 and "ZeroDivisionError" in done.stderr


def test_a_variant_is_forced_with_a_reason_and_listed(fake: FakeAdmin) -> None:
    fake.doubts["digits/2@int4"] = "there is no report"
    load = ("load", "digits", "green", "2@int4")
    done = turnoutctl(*load)
    assert done.status == 1 and "there is no report" in done.stderr
    assert "turnoutctl revisions digits" in done.stderr and "--force --reason WHY" in done.stderr
    done = turnoutctl(*load, "--force")
    assert done.status == 2 and "--force needs --reason" in done.stderr
    assert turnoutctl(*load, "--force", "--reason", "a look").status == 0
    history = turnoutctl("history", "digits", "--cause", "force").stdout
    assert "forced: there is no report" in " ".join(history.split()) and "a look" in history
    turnoutctl("load", "digits", "red", "2@int8")
    done = turnoutctl("revisions", "digits")
    assert re.search(r"digits/2@int4 +green +1\.00 +- +- +refused: there is no", done.stdout), done.stdout
    assert re.search(r"digits/2@int8 +red +1\.00 +99\.73 % +3\.75 x +stands", done.stdout)
    (replica,) = json.loads(turnoutctl("revisions", "digits", "--json").stdout)["replicas"]
    found = {each["revision"]: each for each in replica["result"]["revisions"]}
    assert found["digits/2@int4"]["doubts"] == ["there is no report"] and found["digits/1"]["slots"] == ["blue"]
    assert found["digits/2@int8"]["report"]["agreement"] == 0.9973


def test_apply_forces_variants_only(fake: FakeAdmin, tmp_path: Path) -> None:
    fake.doubts["digits/2@int4"] = "there is no report"
    (tmp_path / "f.yaml").write_text("models: {digits: {slots: {green: 2@int4, red: 3}}}")
    apply = ("apply", "-f", str(tmp_path / "f.yaml"), "--yes")
    assert turnoutctl(*apply).status == 1
    assert turnoutctl(*apply, "--force").status == 2
    assert turnoutctl(*apply, "--force", "--reason", "a look").status == 0
    loads = {request.slot: request for name, request in fake.asked if name == "LoadSlot"}
    assert loads["green"].force and loads["green"].mutation.reason == "a look" and not loads["red"].force
