"""Variants in slots: refused, forced, kept over restarts, taken by themselves, pinned, compared by their kind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support.control import ALICE, Control, Shelf
from support.virtual import VirtualLoop, virtual
from support.world import DECLARED
from turnout.backends.synthetic import SyntheticModel
from turnout.core.comparators import Precision
from turnout.core.errors import ControlError, Refusal, ServingError
from turnout.core.gates import Golden, Verdict
from turnout.core.offers import Hardware
from turnout.core.slots import SlotState
from turnout.core.tensors import Signature, Tensors, TensorSpec
from turnout.runtime.requests import Ask
from turnout_wire.tensors import Array, DataType

WHY = Ask("alice", "the demo needs it")
DOUBT = "there is no report 'model.int8.json' beside it"


class Off(SyntheticModel):
    """Answers with something else by so much."""

    def __init__(self, by: float) -> None:
        super().__init__(DECLARED)
        self._by = by

    def run(self, inputs: Tensors, outputs: Any) -> list[Array]:
        return [array + np.float32(self._by) for array in super().run(inputs, outputs)]


def shelf(**variants: str) -> Shelf:
    """Variants of version 2 by name, each with what speaks against it ("": nothing)."""
    doubts = {(2, name): ((doubt,) if doubt else ()) for name, doubt in variants.items()}
    return Shelf(variants=doubts)


async def refused(work: Any) -> ControlError:
    with pytest.raises(ControlError) as caught:
        await work
    return caught.value


@virtual
async def test_what_has_no_report_is_refused_with_what_to_do(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=shelf(int8=DOUBT))
    error = await refused(control.load("green", 2, variant="int8"))
    assert error.refusal is Refusal.VARIANT_REFUSED
    assert error.metadata["revision"] == "m/2@int8" and error.metadata["gate"] == "report"
    for words in (DOUBT, "`turnout quantize m/2`", "`turnout verify m/2 m/2@int8`", "force it"):
        assert words in error.message
    assert control.state("green") == "-", "nothing was changed"


@virtual
async def test_what_stands_is_loaded_and_says_so(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=shelf(int8=""))
    await control.load("green", 2, variant="int8")
    assert control.state("green") == "READY m/2@int8"
    await control.load("red", 2, variant="int8", force=True, ask=WHY)
    assert control.state("red") == "READY m/2@int8, forced", "who forces has said so, whatever there was to override"


@virtual
@pytest.mark.parametrize(
    ("variant", "ask", "field"), [("int8", ALICE, "mutation.reason"), ("", WHY, "force")], ids=["reason", "variant"]
)  # fmt: skip
async def test_a_force_needs_a_reason_and_a_variant(loop: VirtualLoop, variant: str, ask: Ask, field: str) -> None:
    control = await Control.open(loop, shelf=shelf(int8=DOUBT))
    error = await refused(control.load("green", 2, variant=variant, force=True, ask=ask))
    assert (error.refusal, error.field) == (Refusal.INVALID_SPEC, field)


@virtual
async def test_a_force_stands_in_the_journal_and_outlives_a_restart(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=shelf(int8=DOUBT))
    await control.load("green", 2, variant="int8", force=True, ask=WHY)
    lines = {line.to_state: line for line in control.journal.lines("m", 10)}
    line = lines[f"LOADING m/2@int8, forced: {DOUBT}"]
    assert (line.actor, line.reason, line.cause) == ("alice", "the demo needs it", "force")
    assert lines["READY m/2@int8, forced"].cause == "load"
    (view,) = [slot for slot in control.controller.view("m").slots if slot.record.name == "green"]
    assert view.message == f"forced: {DOUBT}"
    later = await control.restarted()
    assert later.state("green") == "READY m/2@int8, forced"
    later.shelf.edition = 2
    again = await later.restarted()
    assert again.state("green").startswith("FAILED m/2@int8")
    assert "put the old files back" in again.controller.desk("m").state.slots["green"].message


@virtual
async def test_what_served_goes_on_when_its_report_is_gone(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=shelf(int8=""))
    await control.load("green", 2, variant="int8")
    control.shelf.variants[2, "int8"] = (DOUBT,)
    later = await control.restarted()
    assert later.state("green") == "READY m/2@int8"
    (view,) = [slot for slot in later.controller.view("m").slots if slot.record.name == "green"]
    assert view.message == f"it serves as before, and would not be loaded now: {DOUBT}"


@virtual
@pytest.mark.parametrize("forced", [False, True])
async def test_a_load_that_a_restart_begins_again_is_held_to_the_same(loop: VirtualLoop, forced: bool) -> None:
    control = await Control.open(loop, shelf=shelf(int8=DOUBT if forced else ""))
    control.shelf.load_s = 1000.0
    await control.load("green", 2, variant="int8", force=forced, ask=WHY, wait=False)
    control.shelf.load_s = 0.0
    control.shelf.variants[2, "int8"] = (DOUBT,)
    later = await control.restarted()
    assert later.state("green") == ("READY m/2@int8, forced" if forced else "FAILED m/2@int8")


@virtual
async def test_a_rollback_loads_again_what_served_before(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=shelf(int8=DOUBT))
    await control.load("green", 2, variant="int8", force=True, ask=WHY)
    await control.swap("green")
    await control.swap("blue", bake_ns=0)
    await control.unload("green")
    await control.roll_back(allow_reload=True)
    assert control.state("green") == "READY m/2@int8, forced"
    assert control.in_force == {"green": 10_000}


@virtual
async def test_a_rollback_loads_again_what_was_forced_past_its_samples(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=shelf(far=""))
    x = np.random.default_rng(1).normal(size=(6, 4)).astype("f4")
    control.shelf.golden = {2: Golden({"x": x}, {"y": 2 * x})}
    control.shelf.variant_models = {"far": Flipped(DECLARED)}
    await control.load("green", 2, variant="far", force=True, ask=WHY)
    await control.swap("green")
    await control.swap("blue", bake_ns=0)
    await control.unload("green")
    await control.roll_back(allow_reload=True)
    assert control.state("green") == "READY m/2@far, forced"
    assert control.in_force == {"green": 10_000}
    assert (await control.restarted()).state("green") == "READY m/2@far, forced"


@virtual
async def test_a_rollback_forces_nothing_that_stands(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=shelf(int8=""))
    await control.load("green", 2, variant="int8")
    await control.swap("green")
    await control.swap("blue", bake_ns=0)
    await control.unload("green")
    await control.roll_back(allow_reload=True)
    assert control.state("green") == "READY m/2@int8"


@virtual
async def test_golden_samples_of_the_version_may_be_missed_by_the_budget(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=shelf(near="", far=""))
    x = np.random.default_rng(1).normal(size=(6, 4)).astype("f4")
    control.shelf.golden = {2: Golden({"x": x}, {"y": 2 * x})}
    control.shelf.variant_models = {"near": Off(0.01), "far": Flipped(DECLARED)}
    await control.load("near", 2, variant="near")
    error = await refused(control.load("far", 2, variant="far"))
    assert (error.refusal, error.metadata["gate"]) == (Refusal.GATE_FAILED, "golden")
    assert "has another class in 6 of 6 rows" in error.message
    await control.load("far", 2, variant="far", force=True, ask=WHY)
    slot = control.admin.fleet.model("m").slots["far"]
    assert slot.gates is not None
    golden = next(result for result in slot.gates.results if result.gate.value == "golden")
    assert golden.verdict is Verdict.INCONCLUSIVE and golden.message.startswith("in spite of this: output 'y'")


class Flipped(SyntheticModel):
    def run(self, inputs: Tensors, outputs: Any) -> list[Array]:
        return [-array for array in super().run(inputs, outputs)]


@virtual
async def test_what_is_not_finite_is_refused_also_by_force(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=shelf(int8=DOUBT))
    x = np.ones((2, 4), "f4")
    control.shelf.golden = {2: Golden({"x": x}, {"y": 2 * x})}
    control.shelf.variant_models = {"int8": Off(float("nan"))}
    error = await refused(control.load("green", 2, variant="int8", force=True, ask=WHY))
    assert (error.refusal, error.metadata["gate"]) == (Refusal.GATE_FAILED, "finite")


@virtual
async def test_what_a_server_takes_by_itself(loop: VirtualLoop) -> None:
    async def started(wanted: str, stands: bool = True, fails: bool = False) -> Control:
        control = Control(loop, shelf=shelf(int8="" if stands else DOUBT))
        if fails:
            control.shelf.variant_models = {"int8": SyntheticModel(Signature((), ()))}
        opener = control.controller.works.opener
        taking = replace(opener, variant=wanted, hardware=lambda: Hardware(gpu=False, vnni=True))
        control.controller.works.opener = taking
        await control.admin.start([control.shelf.source(2)])
        return control

    assert (await started("none")).state("blue") == "READY m/2"
    for wanted in ("auto", "int8"):
        control = await started(wanted)
        assert control.state("blue") == "READY m/2@int8"
        assert control.admin.fleet.model("m").slots["blue"].warnings[-1].startswith(f"--variant {wanted}: m/2@int8")
    control = await started("auto", stands=False)
    assert control.state("blue") == "READY m/2"
    assert control.seen.notices == [f"m/2: --variant auto: its own file is used, int8: {DOUBT}"]
    later = await (await started("auto")).restarted(versions=(2,))
    assert later.state("blue") == "READY m/2@int8", "the journal goes before --variant"


@virtual
async def test_one_that_fails_at_start_leaves_the_place_to_its_version(loop: VirtualLoop) -> None:
    control = Control(loop, shelf=shelf(int8=""))
    x = np.ones((2, 4), "f4")
    control.shelf.golden = {2: Golden({"x": x}, {"y": 2 * x})}
    control.shelf.variant_models = {"int8": Off(float("inf"))}
    control.controller.works.opener = replace(control.controller.works.opener, variant="int8")
    await control.admin.start([control.shelf.source(2)])
    assert control.state("blue") == "READY m/2"
    (note,) = control.seen.notices
    assert "m/2@int8 failed: output 'y' holds a NaN or an infinity" in note


@virtual
async def test_the_newest_is_loaded_as_the_variant_that_is_wanted(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=Shelf(variants={(3, "int8"): ()}))
    control.controller.works.opener = replace(control.controller.works.opener, variant="int8")
    await control.operations.load_newest("m", 0, ALICE)
    assert control.state("green") == "READY m/3@int8"
    await control.operations.load_newest("m", 0, ALICE)
    assert control.in_force == {"green": 10_000}


@virtual
async def test_the_newest_is_its_own_file_where_its_variant_fails(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=Shelf(variants={(3, "int8"): ()}))
    x = np.ones((2, 4), "f4")
    control.shelf.golden = {3: Golden({"x": x}, {"y": 2 * x})}
    control.shelf.variant_models = {"int8": Off(float("inf"))}
    control.controller.works.opener = replace(control.controller.works.opener, variant="int8")
    for _ in range(2):
        await control.operations.load_newest("m", 0, ALICE)
        assert control.state("green") == "READY m/3" and control.in_force == {"green": 10_000}
    assert "m/3: --variant int8: its own file is used, m/3@int8 failed to load" in control.seen.notices[0]


@virtual
async def test_a_request_pins_a_variant_of_those_that_are_loaded(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=shelf(int8=""))
    await control.load("green", 2, variant="int8")

    async def answered(**pins: Any) -> str:
        outcome = control.infer(**pins)
        await asyncio.sleep(1)
        assert outcome.response is not None
        return f"{outcome.response.revision} {outcome.response.slot} {outcome.response.choice.name}"

    assert await answered() == "m/1 blue ONLY"
    assert await answered(variant="int8") == "m/2@int8 green PIN"
    assert await answered(variant="none") == "m/1 blue PIN"
    assert await answered(variant="int8", version=2, slot="green") == "m/2@int8 green PIN"
    for pins in ({"variant": "fp16"}, {"variant": "int8", "version": 1}, {"variant": "int8", "slot": "blue"}):
        with pytest.raises(ServingError, match=r"ready are m/1 in slot 'blue', m/2@int8 in slot 'green'"):
            control.infer(**pins)
    assert (await control.operations.look("m"))[2].revision.variant == "int8"
    assert [each.revision.variant for each in control.admin.fleet.model("m").variants] == ["int8"]
    cargo = control.admin.fleet.model("m").slots["green"].cargo
    assert cargo is not None and cargo.precision is Precision.QUANTIZED
    assert control.admin.fleet.model("m").slots["green"].state is SlotState.READY


@virtual
async def test_a_version_pin_is_answered_by_its_own_file_whatever_was_loaded_last(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=shelf(int8=DOUBT))
    await control.load("v2", 2)
    await control.load("green", 2, variant="int8", force=True, ask=WHY)
    await control.load("v2", 2, replace=True)
    outcome = control.infer(version=2)
    await asyncio.sleep(1)
    assert outcome.response is not None and str(outcome.response.revision) == "m/2"


@virtual
async def test_rows_of_a_variant_may_round_each_other(loop: VirtualLoop) -> None:
    """As dynamic quantization does, which scales a batch as a whole."""

    class Rounding(SyntheticModel):
        def run(self, inputs: Tensors, outputs: Any) -> list[Array]:
            return [
                np.round(array / (scale := np.abs(array).max() / 127)) * scale for array in super().run(inputs, outputs)
            ]

    x = (TensorSpec("x", DataType.FP32, (-1, 4)),)
    control = await Control.open(loop, shelf=shelf(int8=""))
    control.shelf.inferred = True
    control.shelf.variant_models = {"int8": Rounding(Signature(x, DECLARED.outputs))}
    control.shelf.models[2] = Rounding(Signature(x, DECLARED.outputs))
    await control.load("green", 2, variant="int8")
    error = await refused(control.load("red", 2))
    assert error.refusal is Refusal.SIGNATURE_MISMATCH, "a version's own file is taken for one that mixes its rows"
