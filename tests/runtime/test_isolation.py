"""What is wrong with one request stays with it: poison rows, values that are not finite, classifications."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from support.virtual import VirtualLoop, virtual
from support.world import DECLARED, SyntheticSource, World, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.errors import Reason
from turnout.core.tensors import InferenceRequest, Signature, Tensors, TensorSpec
from turnout.runtime.jobs import SlotLimits
from turnout_wire.tensors import Array, DataType


async def open_world(
    loop: VirtualLoop, model: SyntheticModel, limits: SlotLimits | None = None, **more: object
) -> World:
    source = SyntheticSource("m", rows_max=32, **more)  # type: ignore[arg-type]
    world = await World.open(loop, {"m": model}, [source], limits)
    model.wait = lambda rows: world.clock.spend(1000)
    model.runs.clear()
    return world


@pytest.mark.parametrize("poisoned", range(1, 33))
@virtual
async def test_poison_at_random_places_of_a_batch_of_32_fails_alone(loop: VirtualLoop, poisoned: int) -> None:
    model = SyntheticModel(DECLARED, poison=1e6)
    world = await open_world(loop, model)
    at = set(random.Random(poisoned).sample(range(32), poisoned))
    outcomes = [world.infer(request(1e6 if i in at else i)) for i in range(32)]
    await world.after(1)
    assert model.runs[0] == 32
    assert len(model.runs) <= 63
    for i, outcome in enumerate(outcomes):
        assert outcome.calls == 1
        if i in at:
            assert outcome.error.reason is Reason.EXECUTION_FAILED
        else:
            assert (outcome.response.outputs[0][1] == np.float32(i) * 2).all(), "equal to what it gives alone"


@virtual
async def test_isolation_is_bounded_in_runs_and_says_so_to_those_it_did_not_reach(loop: VirtualLoop) -> None:
    model = SyntheticModel(DECLARED, poison=1e6)
    world = await open_world(loop, model, SlotLimits(1000, 1 << 30, isolation_runs_max=4))
    outcomes = [world.infer(request(1e6 if i in (0, 31) else i)) for i in range(32)]
    await world.after(1)
    assert len(model.runs) == 5
    reasons = [o.error.reason if not hasattr(o.answer, "outputs") else None for o in outcomes]
    unresolved = [o for o, reason in zip(outcomes, reasons, strict=True) if reason is Reason.NOT_READY]
    assert unresolved
    assert unresolved[0].error.message.endswith("4 further runs did not show which requests are at fault: retry")
    assert world.fleet.model("m").slots["blue"].leases == 0
    after = world.infer(request())
    await world.after(1)
    assert after.response, "the next batch has a bound of its own"


@virtual
async def test_isolation_can_be_switched_off(loop: VirtualLoop) -> None:
    model = SyntheticModel(DECLARED, poison=1e6)
    world = await open_world(loop, model, SlotLimits(1000, 1 << 30, isolation_runs_max=0))
    outcomes = [world.infer(request(value)) for value in (1e6, 1)]
    await world.after(1)
    assert model.runs == [2]
    assert [o.error.reason for o in outcomes] == [Reason.NOT_READY] * 2


@pytest.mark.parametrize("check", [True, False])
@virtual
async def test_a_value_that_is_not_finite_fails_its_own_request_only(loop: VirtualLoop, check: bool) -> None:
    model = SyntheticModel(DECLARED)
    world = await open_world(loop, model, refuse_nonfinite=check)
    bad = np.ones((3, 4), np.float32)
    bad[1, 2] = np.inf
    outcomes = [world.infer(request(1)), world.infer(InferenceRequest("m", {"x": bad})), world.infer(request(np.nan))]
    await world.after(1)
    assert model.runs == [5], "no further run: the others' rows are known to be good"
    assert outcomes[0].response
    if check:
        assert outcomes[1].error.reason is Reason.EXECUTION_FAILED
        assert outcomes[1].error.message == "model 'm' answered a value that is not finite: output 'y' in row 1"
        assert outcomes[2].error.message.endswith("output 'y' in row 0")
    else:
        assert outcomes[1].response.outputs[0][1][1, 2] == np.inf


@pytest.mark.parametrize("datatype", [DataType.FP16, DataType.BF16, DataType.FP64, DataType.INT32, DataType.BYTES])
@virtual
async def test_every_datatype_passes_the_check_that_is_finite(loop: VirtualLoop, datatype: DataType) -> None:
    declared = Signature((TensorSpec("x", datatype, (-1, 2)),), (TensorSpec("y", datatype, (-1, 2)),))
    world = await open_world(loop, SyntheticModel(declared), refuse_nonfinite=True)
    array: Array = np.zeros((1, 2), datatype.dtype)
    if datatype is DataType.BYTES:
        array[:] = "text"
    good = world.infer(InferenceRequest("m", {"x": array}))
    await world.after(1)
    assert good.response
    if datatype in (DataType.FP16, DataType.BF16, DataType.FP64):
        bad = world.infer(InferenceRequest("m", {"x": np.full((1, 2), np.nan, datatype.dtype)}))
        await world.after(1)
        assert "not finite" in bad.error.message


@virtual
async def test_classification_is_each_request_s_own(loop: VirtualLoop) -> None:
    world = await open_world(
        loop,
        SyntheticModel(DECLARED),
        SlotLimits(1000, 1 << 30, classification_elements_max=3),
        labels={"y": ("a", "b")},
    )
    x = np.float32([[1, 4, 3, 2]])
    outcomes = [
        world.infer(InferenceRequest("m", {"x": x}, ("y",), classes={"y": 2})),
        world.infer(InferenceRequest("m", {"x": x}, ("y",))),
        world.infer(InferenceRequest("m", {"x": x}, ("y",), classes={"y": 4})),
    ]
    await world.after(1)
    ((spec, array),) = outcomes[0].response.outputs
    assert (spec.datatype, array.tolist()) == (DataType.BYTES, [["8.000000:1:b", "6.000000:2"]])
    assert outcomes[1].response.outputs[0][1].tolist() == [[2, 8, 6, 4]]
    assert outcomes[2].error.reason is Reason.INVALID_REQUEST
    assert "asks for 4 elements, the limit is 3" in outcomes[2].error.message


class TwoOutputs:
    """a = x, b = NaN."""

    declared = Signature(DECLARED.inputs, tuple(TensorSpec(name, DataType.FP32, (-1, 4)) for name in "ab"))
    load_error = ""

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        values = {"a": inputs["x"], "b": np.full_like(inputs["x"], np.nan)}
        return [values[name] for name in outputs]


@virtual
async def test_an_output_that_only_a_neighbour_wants_is_nothing_to_a_request(loop: VirtualLoop) -> None:
    source = SyntheticSource("m", rows_max=8, refuse_nonfinite=True)
    world = await World.open(loop, {"m": TwoOutputs()}, [source])
    outcomes = [world.infer(request(outputs=("a",))), world.infer(request())]
    await world.after(1)
    assert [spec.name for spec, _ in outcomes[0].response.outputs] == ["a"]
    assert "output 'b'" in outcomes[1].error.message


@virtual
async def test_classified_outputs_of_a_request_share_one_bound(loop: VirtualLoop) -> None:
    limits = SlotLimits(1000, 1 << 30, classification_elements_max=5)
    world = await World.open(loop, {"m": TwoOutputs()}, limits=limits)
    inputs = {"x": np.float32([[1, 2, 3, 4]])}
    good = world.infer(InferenceRequest("m", inputs, classes={"a": 3, "b": 2}))
    bad = world.infer(InferenceRequest("m", inputs, classes={"a": 3, "b": 3}))
    await world.after(1)
    assert [array.shape for _, array in good.response.outputs] == [(1, 3), (1, 2)]
    assert "asks for 3 elements, the limit is 2" in bad.error.message


class Optional:
    """A model with an input that it has a default for: y = x + (bias or 1)."""

    declared = Signature(
        (TensorSpec("x", DataType.FP32, (2,)), TensorSpec("bias", DataType.FP32, (2,), optional=True)),
        (TensorSpec("y", DataType.FP32, (2,)),),
    )
    load_error = ""

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        return [inputs["x"] + inputs.get("bias", np.float32(1))]


@virtual
async def test_an_optional_input_may_be_left_out(loop: VirtualLoop) -> None:
    world = await World.open(loop, {"m": Optional()}, [SyntheticSource("m", rows_max=0)])
    x, bias = np.float32([1, 2]), np.float32([10, 20])
    outcomes = [
        world.infer(InferenceRequest("m", {"x": x})),
        world.infer(InferenceRequest("m", {"x": x, "bias": bias})),
    ]
    await world.after(1)
    assert [o.response.outputs[0][1].tolist() for o in outcomes] == [[2, 3], [11, 22]]
