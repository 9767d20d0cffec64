"""Opening a repository: slots, states, warm-up, the proof that a model batches, and models that cannot be used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from support.virtual import VirtualLoop, virtual
from support.world import DECLARED, SyntheticSource, World, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.errors import Reason, ServingError
from turnout.core.slots import SlotState
from turnout.core.tensors import ANY, Signature, Tensors, TensorSpec
from turnout.runtime.fleet import Fleet, Model
from turnout.runtime.slot import Slot
from turnout_wire.tensors import Array, DataType


@virtual
async def test_versions_go_through_the_states_into_their_slots(loop: VirtualLoop) -> None:
    world = await World.open(loop, {"m": SyntheticModel(DECLARED)}, [SyntheticSource("m", versions=(2, 1))])
    assert world.seen.states == [
        ("m", slot, state, "")
        for slot in ("blue", "v1")
        for state in (SlotState.LOADING, SlotState.WARMING, SlotState.READY)
    ]
    route = world.fleet.model("m").route
    assert route is not None
    assert route.generation == 1
    assert [(t.slot, str(t.revision), route.weight_bp(t)) for t in route.targets] == [
        ("blue", "m/2", 10_000),
        ("v1", "m/1", 0),
    ]


@virtual
async def test_warm_up_runs_every_bucket_and_keeps_its_time(loop: VirtualLoop) -> None:
    world = World(loop)
    model = SyntheticModel(DECLARED, wait=lambda rows: world.clock.spend(1000 + 10 * rows))
    await world.load({"m": model}, [SyntheticSource("m", rows_max=6)])
    cargo = world.fleet.model("m").slots["blue"].cargo
    assert cargo is not None
    assert cargo.profile_ns == {1: 1010, 2: 1020, 4: 1040, 6: 1060}
    assert model.runs == [1] * 6 + [6] + [1, 1, 2, 2, 4, 4, 6, 6], (
        "each row alone and all together, then each bucket cold and measured"
    )
    assert cargo.opening_ns >= sum(1000 + 10 * rows for rows in model.runs)


@virtual
async def test_a_model_that_fails_to_load_stops_no_other(loop: VirtualLoop) -> None:
    models = {"bad": SyntheticModel(DECLARED, load_error="it is broken"), "good": SyntheticModel(DECLARED)}
    world = await World.open(loop, models)
    bad = world.fleet.model("bad").slots["blue"]
    assert (bad.state, bad.message) == (SlotState.FAILED, "it is broken")
    with pytest.raises(ServingError, match=r"no ready version .*it is broken") as caught:
        world.infer(request(model="bad"))
    assert caught.value.reason is Reason.NOT_FOUND
    outcome = world.infer(request(model="good"))
    await world.after(1)
    assert outcome.response


@virtual
async def test_a_model_with_a_problem_has_no_slots_and_says_why(loop: VirtualLoop) -> None:
    @dataclass
    class Broken(SyntheticSource):
        @property
        def artefacts(self) -> list:  # type: ignore[type-arg, override]
            return []

    world = await World.open(loop, {}, [Broken("m", problem="config.pbtxt: nonsense")])
    with pytest.raises(ServingError, match=r"config\.pbtxt: nonsense") as caught:
        world.infer(request())
    assert caught.value.reason is Reason.NOT_FOUND


def signature(datatype: DataType, *tail: int) -> Signature:
    return Signature((TensorSpec("x", datatype, (ANY, *tail)),), (TensorSpec("y", datatype, (ANY, *tail)),))


@dataclass
class Odd:
    """A model that does not treat rows one by one, or fails."""

    kind: str
    declared: Signature = DECLARED
    load_error: str = ""
    runs: list[int] = field(default_factory=list)

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        x = inputs["x"]
        self.runs.append(len(x))
        match self.kind:
            case "sum":
                return [x.sum(axis=0, keepdims=True)]
            case "neighbour":
                return [x - x.min(axis=0, keepdims=True)]
            case "running sum":
                return [np.cumsum(x, axis=0)]
            case "look ahead":
                return [np.concatenate([x[1:], x[-1:]]) + x]
            case "faint":
                return [(x * 1e-4 + x.mean(axis=0, keepdims=True) * 1e-5).astype(x.dtype)]
            case "rounding":
                return [x * np.float32(1 + 1e-5 * len(x))]
            case "not finite":
                return [np.where(x > 0, np.inf, np.where(x < -1, np.nan, x)).astype(x.dtype)]
            case "only zero" | "only zero, floats" if (x != 0).any():
                raise RuntimeError("index out of range")
            case "one row" if len(x) > 1:
                raise RuntimeError("initial_h is for one row")
            case "two rows" if len(x) > 2:
                raise RuntimeError("two at most")
            case "divides":
                return [np.floor_divide(6, x) if x.all() else 1 / 0]
            case "fails":
                raise RuntimeError("kernel at 0x7f: no")
            case _:
                return [x * 2]


MIXERS = {
    "sum": r"output 'y' has shape \[1, 4\] for 8 row",
    "neighbour": "of a row changes when 8 rows run together",
    "running sum": "of a row changes when 8 rows run together",
    "look ahead": "of a row changes when 8 rows run together",
}


@pytest.mark.parametrize("datatype", [DataType.FP32, DataType.INT64, DataType.UINT8])
@pytest.mark.parametrize("kind", list(MIXERS))
@virtual
async def test_a_model_that_was_guessed_to_batch_and_does_not_is_served_row_by_row(
    loop: VirtualLoop, kind: str, datatype: DataType
) -> None:
    model = Odd(kind, signature(datatype, 4))
    world = await World.open(loop, {"m": model}, [SyntheticSource("m", inferred=True)])
    slot = world.fleet.model("m").slots["blue"]
    assert slot.ready().spec.signature.rows_max == 0
    assert re.search(MIXERS[kind], slot.warnings[0])
    assert "set max_batch_size" in slot.warnings[0]


@pytest.mark.parametrize("kind", list(MIXERS))
@virtual
async def test_a_model_that_is_configured_to_batch_is_believed_where_that_is_possible(
    loop: VirtualLoop, kind: str
) -> None:
    world = await World.open(loop, {"m": Odd(kind)}, [SyntheticSource("m")])
    slot = world.fleet.model("m").slots["blue"]
    if kind == "sum":
        assert slot.state is SlotState.FAILED
        assert re.search(f"max_batch_size is 8, but {MIXERS[kind]}", slot.message)
    else:
        assert slot.ready().spec.signature.rows_max == 8
        assert re.search(f"max_batch_size is 8, but .*{MIXERS[kind]}", slot.warnings[0])


@pytest.mark.parametrize(("kind", "batched"), [("only zero", False), ("only zero, floats", True), ("plain", True)])
@virtual
async def test_what_cannot_be_shown_is_not_guessed(loop: VirtualLoop, kind: str, batched: bool) -> None:
    """A model that refuses every integer but zero (an index, say): rows that are all alike prove nothing."""
    floats = (TensorSpec("f", DataType.FP32, (ANY, 4)),) if "floats" in kind else ()
    declared = signature(DataType.INT64, 4)
    declared = Signature((*declared.inputs, *floats), declared.outputs)
    world = await World.open(loop, {"m": Odd(kind, declared)}, [SyntheticSource("m", inferred=True)])
    slot = world.fleet.model("m").slots["blue"]
    assert (slot.ready().spec.signature.rows_max > 0) is batched
    assert any("rows differ" in warning for warning in slot.warnings) is not batched


@virtual
async def test_a_model_that_cannot_run_fails_without_its_words(loop: VirtualLoop) -> None:
    for rows_max in (8, 1):
        world = await World.open(loop, {"m": Odd("fails")}, [SyntheticSource("m", rows_max=rows_max)])
        slot = world.fleet.model("m").slots["blue"]
        assert slot.state is SlotState.FAILED
        assert "0x7f" not in slot.message
        assert "0x7f" in str(world.seen.causes[-1])


@virtual
async def test_a_model_that_runs_one_row_only_is_served_row_by_row_or_refused(loop: VirtualLoop) -> None:
    """Such as a recurrent network whose initial state was exported for a batch of one."""
    guessed = await World.open(loop, {"m": Odd("one row")}, [SyntheticSource("m", inferred=True)])
    slot = guessed.fleet.model("m").slots["blue"]
    assert slot.ready().spec.signature.rows_max == 0
    assert "runs one row and fails to run 8 together" in slot.warnings[0]
    configured = await World.open(loop, {"m": Odd("one row")}, [SyntheticSource("m")])
    assert "fails to run 8 together" in configured.fleet.model("m").slots["blue"].message


@virtual
async def test_no_more_rows_are_tried_than_the_model_is_to_take(loop: VirtualLoop) -> None:
    world = await World.open(loop, {"m": Odd("two rows")}, [SyntheticSource("m", rows_max=2)])
    slot = world.fleet.model("m").slots["blue"]
    assert slot.ready().spec.signature.rows_max == 2
    assert slot.warnings == ()


@virtual
async def test_a_model_that_refuses_zeros_is_warmed_with_ones(loop: VirtualLoop) -> None:
    world = await World.open(loop, {"m": Odd("divides", signature(DataType.INT64, 4))}, [SyntheticSource("m")])
    assert world.fleet.model("m").slots["blue"].ready().profile_ns.keys() == {1, 2, 4, 8}


@virtual
async def test_a_model_that_refuses_all_generated_integers_is_served_cold(loop: VirtualLoop) -> None:
    world = await World.open(loop, {"m": Odd("fails", signature(DataType.INT64, 4))}, [SyntheticSource("m")])
    slot = world.fleet.model("m").slots["blue"]
    assert slot.ready().profile_ns == {}
    assert "not warmed" in slot.warnings[-1]


@pytest.mark.parametrize("datatype", [DataType.FP16, DataType.FP32])
@virtual
async def test_mixing_is_seen_at_the_scale_of_the_output(loop: VirtualLoop, datatype: DataType) -> None:
    """Probabilities of a thousand classes are near 0.001: an absolute tolerance would see nothing in them."""
    model = Odd("faint", signature(datatype, 4))
    world = await World.open(loop, {"m": model}, [SyntheticSource("m", inferred=True)])
    assert world.fleet.model("m").slots["blue"].ready().spec.signature.rows_max == 0


@pytest.mark.parametrize("kind", ["rounding", "not finite"])
@virtual
async def test_rounding_and_equal_non_finite_numbers_are_no_mixing(loop: VirtualLoop, kind: str) -> None:
    world = await World.open(loop, {"m": Odd(kind)}, [SyntheticSource("m", inferred=True)])
    slot = world.fleet.model("m").slots["blue"]
    assert slot.ready().spec.signature.rows_max == 8
    assert slot.warnings == ()


@virtual
async def test_a_scalar_is_warmed_as_a_scalar(loop: VirtualLoop) -> None:
    shapes: list[tuple[int, ...]] = []

    class Scalar(Odd):
        def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
            shapes.append(inputs["x"].shape)
            return [inputs["x"]]

    spec = TensorSpec("x", DataType.FP32, (1,), ())
    declared = Signature((spec,), (TensorSpec("y", DataType.FP32, (1,), ()),))
    world = await World.open(loop, {"m": Scalar("plain", declared)}, [SyntheticSource("m", rows_max=0)])
    assert world.fleet.model("m").slots["blue"].state is SlotState.READY
    assert set(shapes) == {()}


@virtual
async def test_open_dimensions_that_take_no_generated_data_leave_the_model_cold(loop: VirtualLoop) -> None:
    declared = Signature((TensorSpec("x", DataType.FP32, (ANY, ANY)),), (TensorSpec("y", DataType.FP32, (ANY, ANY)),))
    model = Odd("fails", declared=declared)
    world = await World.open(loop, {"m": model}, [SyntheticSource("m")])
    slot = world.fleet.model("m").slots["blue"]
    assert slot.state is SlotState.READY
    assert "it does not take generated data" in slot.warnings[0]
    assert "not warmed" in slot.warnings[1]
    assert slot.cargo is not None
    assert slot.cargo.profile_ns == {}


@pytest.mark.parametrize("datatype", list(DataType))
@virtual
async def test_every_datatype_can_be_warmed(loop: VirtualLoop, datatype: DataType) -> None:
    declared = Signature((TensorSpec("x", datatype, (ANY, 2)),), (TensorSpec("y", datatype, (ANY, 2)),))
    world = await World.open(loop, {"m": SyntheticModel(declared)}, [SyntheticSource("m")])
    assert world.fleet.model("m").slots["blue"].state is SlotState.READY


@virtual
async def test_while_a_model_loads_the_client_is_told_to_retry(loop: VirtualLoop) -> None:
    world = await World.open(loop, {"m": SyntheticModel(DECLARED)})
    fleet = Fleet()
    model = Model("m")
    slot = Slot("m", "blue", world.seen)
    model.slots["blue"] = slot
    fleet.add(model)
    slot.revision = world.fleet.model("m").slots["blue"].revision
    slot.move(SlotState.LOADING)
    with pytest.raises(ServingError, match="is loading") as caught:
        model.lease(request(), 0)
    assert caught.value.reason is Reason.NOT_READY


@virtual
async def test_a_pinned_version_that_failed_is_unavailable_not_unknown(loop: VirtualLoop) -> None:
    world = await World.open(loop, {"m": SyntheticModel(DECLARED)}, [SyntheticSource("m", versions=(1,))])
    model = world.fleet.model("m")
    broken = Slot("m", "v2", world.seen)
    broken.revision = type(model.slots["blue"].revision)("m", 2, "", "d")  # type: ignore[misc, call-arg]
    broken.move(SlotState.LOADING)
    broken.move(SlotState.FAILED, "no such kernel")
    model.slots["v2"] = broken
    with pytest.raises(ServingError, match="slot 'v2' of model 'm' is FAILED: no such kernel") as caught:
        world.infer(request(version=2))
    assert caught.value.reason is Reason.NOT_READY
    with pytest.raises(ServingError) as unknown:
        world.infer(request(version=3))
    assert unknown.value.reason is Reason.NOT_FOUND
