"""Variants of digits on a real server: one that stands on its way to all traffic and back, and what is refused, forced,
caught by the shadow, and still there after a restart."""

from __future__ import annotations

import functools
import json
import re
import shutil
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as triton

from support.server import Server, address_of, process, run, until
from support.variants import manifest_of, quantized, rounded
from turnout_wire.admin import SlotServiceStub, error_info
from turnout_wire.gen import grpc_service_pb2 as inference
from turnout_wire.gen import slots_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceStub
from turnout_wire.tensors import Array
from zoo.samples import DIGITS, heldout

CALL_S = 30
COUNT = 600


@functools.cache
def images() -> Array:
    return heldout(2000)[0]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 2, with variants that stand (int8), are over budget (int8-coarse) and have no report (int8-plain)."""
    root = tmp_path_factory.mktemp("variants") / "models"
    shutil.copytree(DIGITS / "2", root / "digits" / "2")
    (root / "digits" / "config.pbtxt").write_text("max_batch_size: 32\n")
    model = root / "digits" / "2" / "model.onnx"
    quantized(model, "int8", images())
    quantized(model, "int8-coarse", images(), levels=1)
    rounded(model, "int8-plain")
    return root


@dataclass
class Serving:
    server: Server
    slots: SlotServiceStub
    infer: GRPCInferenceServiceStub

    def load(self, slot: str, variant: str, force: bool = False, reason: str = "") -> pb.SlotStatus:
        request = pb.LoadSlotRequest(model="digits", slot=slot, wait=True, force=force)
        request.revision.version, request.revision.variant = 2, variant
        request.mutation.reason = reason
        self.slots.LoadSlot(request, timeout=CALL_S)
        return self.slot(slot)

    def refused(self, slot: str, variant: str, **how: object) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self.load(slot, variant, **how)  # type: ignore[arg-type]
        info = error_info(caught.value)
        assert info is not None
        return info.reason, caught.value.details()  # type: ignore[attr-defined]

    def model(self) -> pb.Model:
        return self.slots.GetModel(pb.GetModelRequest(model="digits"), timeout=CALL_S).model

    def slot(self, name: str) -> pb.SlotStatus:
        return next(slot for slot in self.model().slots if slot.name == name)

    def shadow(self, slot: str) -> None:
        rule = pb.ShadowRule(slot=slot, sample_bp=10_000, queue_max=COUNT)
        self.slots.SetShadow(pb.SetShadowRequest(model="digits", rule=rule), timeout=CALL_S)

    def agreement(self, slot: str, offered: int) -> pb.ShadowSummary:
        """Once each copy is compared or dropped."""
        found: list[pb.ShadowSummary] = []

        def all_there() -> bool:
            call = self.slots.WatchComparisons(pb.WatchComparisonsRequest(model="digits", slot=slot), timeout=CALL_S)
            found[:] = [next(call).summary]
            call.cancel()
            return found[0].total.pair_count + sum(found[0].dropped.values()) >= offered

        until(all_there, 60)
        return found[0]

    def ask(self, number: int, variant: str = "") -> str:
        """Which revision has answered."""
        request = inference.ModelInferRequest(model_name="digits")
        request.inputs.add(name="image", datatype="FP32", shape=[1, 64])
        request.raw_input_contents.append(images()[number : number + 1].tobytes())
        metadata = [("turnout-variant", variant)] if variant else []
        answer = self.infer.ModelInfer(request, timeout=CALL_S, metadata=metadata)
        return str(answer.parameters["turnout_revision"].string_param)

    def ask_all(self, count: int = COUNT) -> set[str]:
        with ThreadPoolExecutor(4) as clients:
            return set(clients.map(self.ask, range(count)))


@contextmanager
def serving(repository: Path, *flags: str) -> Iterator[Serving]:
    with (
        process(repository, "--preflight=off", *flags) as server,
        grpc.insecure_channel(address_of(server, "admin")) as admin,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield Serving(server, SlotServiceStub(admin), GRPCInferenceServiceStub(channel))


def test_a_variant_that_stands_goes_all_the_way(repository: Path) -> None:
    with serving(repository) as one:
        status = one.load("green", "int8")
        assert status.digest == manifest_of(repository / "digits" / "2" / "model.onnx", "int8").digest
        assert "agreement" in next(gate.message for gate in status.gates if gate.gate == "report")
        assert {gate.verdict for gate in status.gates if gate.gate == "golden"} == {pb.VERDICT_PASS}
        assert (one.ask(0), one.ask(0, "int8"), one.ask(0, "none")) == ("digits/2", "digits/2@int8", "digits/2")
        one.shadow("green")
        assert one.ask_all() == {"digits/2"}
        told = one.agreement("green", COUNT)
        assert told.shadow_revision.variant == "int8"
        assert told.total.rate > 0.98 and told.verdict != pb.VERDICT_FAIL
        split = [pb.SlotWeight(slot="blue", weight_bp=5000), pb.SlotWeight(slot="green", weight_bp=5000)]
        one.slots.SetWeights(pb.SetWeightsRequest(model="digits", weights=split), timeout=CALL_S)
        assert one.ask_all(100) == {"digits/2", "digits/2@int8"}
        one.slots.SwapSlots(pb.SwapSlotsRequest(model="digits", slot="green"), timeout=CALL_S)
        assert one.ask_all(20) == {"digits/2@int8"}
        _check_clients_see_it(one)
        one.slots.RollbackModel(pb.RollbackModelRequest(model="digits"), timeout=CALL_S)


def _check_clients_see_it(one: Serving) -> None:
    client = triton.InferenceServerClient(one.server.address)
    config = client.get_model_config("digits").config
    told = {each["revision"]: each for each in json.loads(config.parameters["turnout_variants"].string_value)}
    assert told["digits/2@int8"]["slots"] == ["green"] and told["digits/2@int8"]["stands"]
    assert not told["digits/2@int8-plain"]["stands"]
    rows = {row.reason: (row.version, row.state) for row in client.get_model_repository_index().models}
    assert rows["variant int8 in slot 'green'"] == ("2", "READY")
    assert any("int8-plain (refused: there is no report" in reason for reason in rows)
    with urllib.request.urlopen(f"http://{address_of(one.server, 'ops')}/metrics", timeout=CALL_S) as answer:
        assert 'revision="digits/2@int8"' in answer.read().decode()


def test_what_has_not_proved_itself_is_refused_then_forced_and_caught(repository: Path, tmp_path: Path) -> None:
    state = f"--state-dir={tmp_path / 'state'}"
    with serving(repository, state) as one:
        reason, said = one.refused("green", "int8-plain")
        assert reason == "VARIANT_REFUSED"
        assert re.search(r"no report 'model\.int8-plain\.json'.*`turnout quantize digits/2`.*`turnout verify", said)
        reason, said = one.refused("green", "int8-coarse")
        assert reason == "VARIANT_REFUSED"
        assert re.search(r"top-1 agreement is 0\.\d+, the limit is 0\.99", said)
        assert one.refused("green", "int8-coarse", force=True) == (
            "INVALID_SPEC",
            "force needs a reason, which the journal keeps: say why digits/2@int8-coarse must be loaded",
        )
        assert "there is nothing to force" in one.refused("green", "", force=True, reason="x")[1]
        status = one.load("green", "int8-coarse", force=True, reason="to see what the shadow says")
        assert "top-1 agreement" in status.forced and "forced: " in status.message
        line = next(line for line in _journal(one) if line.cause == "force")
        assert (line.object, line.reason) == ("slots/green", "to see what the shadow says")
        assert re.fullmatch(r"LOADING digits/2@int8-coarse, forced: .*top-1 agreement is .*", line.to_state)
        assert line.actor
        one.shadow("green")
        one.ask_all()
        told = one.agreement("green", COUNT)
        assert told.total.rate < 0.9 and told.verdict == pb.VERDICT_FAIL
    with serving(repository, state) as one:
        status = one.slot("green")
        assert (status.state, status.revision.variant) == (pb.SLOT_STATE_READY, "int8-coarse")
        assert "top-1 agreement" in status.forced
        assert one.ask(0, "int8-coarse") == "digits/2@int8-coarse"
    moved = tmp_path / "models"
    shutil.copytree(repository, moved)
    rounded(moved / "digits" / "2" / "model.onnx", "int8-coarse", levels=2)
    with serving(moved, state) as one:
        status = one.slot("green")
        assert status.state == pb.SLOT_STATE_FAILED
        assert "the journal says" in status.message


def _journal(one: Serving) -> Sequence[pb.Transition]:
    return one.slots.ListTransitions(pb.ListTransitionsRequest(model="digits"), timeout=CALL_S).transitions


def test_a_server_takes_the_variant_it_is_told_to_if_that_stands(repository: Path) -> None:
    with serving(repository, "--variant=int8") as one:
        assert re.search(r"^digits +blue +digits/2@int8 +READY", one.server.stdout, re.MULTILINE)
        assert "--variant int8: digits/2@int8 (agreement" in one.server.stdout
        assert one.ask(0) == "digits/2@int8"
    with serving(repository, "--variant=int8-coarse") as one:
        assert re.search(r"^digits +blue +digits/2 +READY", one.server.stdout, re.MULTILINE)
        assert re.search(r"its own file is used, int8-coarse: .*top-1 agreement", one.server.stdout)


def test_the_manifest_lists_variants_with_their_doubts(repository: Path) -> None:
    done = run("manifest", f"--model-repository={repository}")
    assert done.returncode == 0, done.stderr
    found = {entry.get("variant", ""): entry for entry in json.loads(done.stdout)}
    assert list(found) == ["", "int8", "int8-coarse", "int8-plain"]
    assert found["int8"]["doubts"] == [] and "no report" in found["int8-plain"]["doubts"][0]
    assert [file["name"] for file in found[""]["files"]] == ["model.onnx"]
    assert [file["name"] for file in found["int8"]["files"]] == ["model.int8.onnx"]
