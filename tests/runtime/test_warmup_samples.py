"""Warm-up with a model's own samples: run before READY, on every session, and what fails on them does not serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from support.virtual import VirtualExecutors, VirtualLoop, inline, virtual
from support.world import DECLARED, SyntheticSource, World
from turnout.backends.synthetic import SyntheticBackend, SyntheticModel
from turnout.core.batch_policy import BatchPolicy
from turnout.core.errors import LoadError
from turnout.core.model import Artefact, Execution, ModelSpec, WarmupSample
from turnout.core.slots import SlotState
from turnout.core.tensors import ANY, Signature, Tensors, TensorSpec
from turnout.runtime.opening import Opener
from turnout.runtime.ports import Loaded
from turnout.runtime.warmup import doubt_batching, warm
from turnout_wire.tensors import Array, DataType


@dataclass
class Sampled(SyntheticSource):
    """A source whose configuration has samples."""

    samples: Sequence[WarmupSample] = ()

    def complete(self, version: int, declared: Signature, batch: bool = True) -> ModelSpec:
        return replace(super().complete(version, declared, batch), warmup=tuple(self.samples))


@dataclass
class Picky:
    """Takes whatever `accepts` says, and remembers the shapes."""

    accepts: float
    declared: Signature = DECLARED
    load_error: str = ""
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        self.shapes.append(inputs["x"].shape)
        if (inputs["x"] != self.accepts).any():
            raise RuntimeError("kernel at 0x7f: no")
        return [inputs["x"] for _ in outputs]


def sample(value: float, rows: int = 3, count: int = 1, name: str = "model_warmup 'w'") -> WarmupSample:
    return WarmupSample(name, {"x": np.full((rows, 4), value, np.float32)}, count)


def no_time() -> int:
    return 0


@virtual
async def test_samples_run_as_often_as_they_say_before_the_buckets(loop: VirtualLoop) -> None:
    model = SyntheticModel(DECLARED)
    source = Sampled("m", rows_max=4, samples=[sample(7, rows=3, count=2), sample(8, rows=2)])
    world = await World.open(loop, {"m": model}, [source])
    slot = world.fleet.model("m").slots["blue"]
    assert model.runs == [1, 1, 1, 1, 4, 3, 3, 2, 1, 1, 2, 2, 4, 4], "the proof of batching, samples, buckets"
    assert (slot.state, slot.warnings) == (SlotState.READY, ())
    assert set(slot.ready().profile_ns) == {1, 2, 4}, "measured all the same"
    assert slot.ready().spec.warmup == (), "not kept"


@virtual
async def test_a_sample_that_fails_fails_the_slot_by_name(loop: VirtualLoop) -> None:
    source = Sampled("m", samples=[sample(7), sample(1, name="model_warmup 'second'")])
    world = await World.open(loop, {"m": Picky(7)}, [source])
    slot = world.fleet.model("m").slots["blue"]
    assert (slot.state, slot.message) == (SlotState.FAILED, "the model fails to run on its model_warmup 'second'")
    assert "0x7f" in str(world.seen.causes[-1]), "the log has the model's words"


@virtual
async def test_samples_may_be_all_that_a_model_takes(loop: VirtualLoop) -> None:
    """Without them it would count as broken: noise of its own fixed shapes fails."""
    world = await World.open(loop, {"m": Picky(7)}, [Sampled("m", samples=[sample(7)])])
    slot = world.fleet.model("m").slots["blue"]
    assert slot.state is SlotState.READY
    assert set(slot.ready().profile_ns) == {1, 2, 4, 8}, "its row, repeated, warms every bucket"
    assert slot.warnings == ("max_batch_size is 8, but it does not take generated data",)
    without = await World.open(loop, {"m": Picky(7)}, [SyntheticSource("m")])
    assert without.fleet.model("m").slots["blue"].state is SlotState.FAILED


@virtual
async def test_a_sample_that_runs_only_as_it_is_leaves_the_buckets_cold(loop: VirtualLoop) -> None:
    class Whole(Picky):
        def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
            if len(inputs["x"]) != 3:
                raise RuntimeError
            return super().run(inputs, outputs)

    world = await World.open(loop, {"m": Whole(7)}, [Sampled("m", samples=[sample(7, rows=3)])])
    slot = world.fleet.model("m").slots["blue"]
    assert slot.ready().profile_ns == {}
    assert slot.warnings[-1] == "warmed with its samples only: it does not take their rows repeated"


def test_generated_inputs_are_bounded() -> None:
    """A row of 4 floats is 16 bytes."""
    model = SyntheticModel(DECLARED)
    signature = Signature(DECLARED.inputs, DECLARED.outputs, 4096)
    profile_ns, notes = warm(signature, Loaded(DECLARED, (model,), ("cpu",)), no_time, bytes_max=16 * 64)
    assert max(profile_ns) == max(model.runs) == 64
    assert notes == ("warmed up to 64 rows: inputs of larger batches take more than 1024 bytes (--warmup-bytes-max)",)
    model.runs.clear()
    doubt = doubt_batching(signature, model, True, bytes_max=127)
    assert doubt is not None
    assert doubt.why == "8 rows take more than 127 bytes (--warmup-bytes-max): too large to be tested"
    assert model.runs == []
    assert doubt_batching(signature, model, True, bytes_max=128) is None


def test_every_session_runs_every_sample() -> None:
    signature = Signature(DECLARED.inputs, DECLARED.outputs, 4)
    first, second = Picky(7), Picky(7)
    loaded = Loaded(DECLARED, (first, second, first), ("cuda:0", "cuda:1"))
    warm(signature, loaded, no_time, [sample(7, rows=3, count=2)])
    assert first.shapes[:2] == second.shapes[:2] == [(3, 4)] * 2
    assert (3, 4) not in first.shapes[2:]


def test_samples_are_given_as_clients_send_them() -> None:
    spec = TensorSpec("x", DataType.FP32, (ANY, 4), (ANY, 2, 2))
    model = Picky(7)
    warm(Signature((spec,), DECLARED.outputs, 4), Loaded(DECLARED, (model,), ("cpu",)), no_time, [sample(7)])
    assert model.shapes[0] == (3, 2, 2)


def test_optional_inputs_are_warmed_only_by_samples_that_have_them() -> None:
    seen: list[frozenset[str]] = []

    class Keys:
        def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
            seen.append(frozenset(inputs))
            return []

    x, k = (TensorSpec(name, DataType.FP32, (1,), optional=name == "k") for name in "xk")
    one = np.ones(1, np.float32)
    samples = [WarmupSample("a", {"x": one}), WarmupSample("b", {"x": one, "k": one})]
    warm(Signature((x, k), ()), Loaded(DECLARED, (Keys(),), ("cpu",)), no_time, samples)
    assert seen == [{"x"}, {"x", "k"}, {"x"}, {"x"}]


@dataclass
class Contradictory(SyntheticSource):
    """Can be completed with batches only."""

    def complete(self, version: int, declared: Signature, batch: bool = True) -> ModelSpec:
        if not batch:
            raise LoadError("preferred_batch_size names 4, but max_batch_size is 0")
        return super().complete(version, declared, batch)


@virtual
async def test_a_configuration_that_needs_batches_for_a_model_that_has_none(loop: VirtualLoop) -> None:
    class Sum(Picky):
        def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
            return [inputs["x"].sum(axis=0, keepdims=True)]

    source = Contradictory("m", inferred=True, policy=BatchPolicy(preferred_rows=(4,)))
    world = await World.open(loop, {"m": Sum(0)}, [source])
    slot = world.fleet.model("m").slots["blue"]
    assert slot.state is SlotState.FAILED
    assert "preferred_batch_size names 4, but max_batch_size is 0 (it is not batched: output 'y'" in slot.message


@virtual
async def test_what_has_no_effect_where_a_model_runs_is_shown_with_its_slot(loop: VirtualLoop) -> None:
    class OnCpu(SyntheticBackend):
        def load(self, artefact: Artefact, execution: Execution) -> Loaded:
            return replace(super().load(artefact, execution), warnings=("options of cuda, the model runs on the CPU",))

    world = World(loop)
    opener = Opener(
        backend=OnCpu({"m": SyntheticModel(DECLARED)}),
        new_executors=lambda name: VirtualExecutors(loop, world.clock),
        limits=world.limits,
        budget=world.budget,
        clock_ns=world.clock,
        offload=inline,
        observer=world.seen,
    )
    fleet = await opener.open([SyntheticSource("m")])
    assert fleet.model("m").slots["blue"].warnings == ("options of cuda, the model runs on the CPU",)


@pytest.mark.parametrize("rows_max", [0, 8])
def test_a_broken_sample_fails_even_where_generated_data_would_do(rows_max: int) -> None:
    declared = Signature(DECLARED.inputs, DECLARED.outputs, rows_max)
    model = SyntheticModel(DECLARED, poison=9.0)
    with pytest.raises(LoadError, match="the model fails to run on its model_warmup 'w'"):
        warm(declared, Loaded(DECLARED, (model,), ("cpu",)), no_time, [sample(9, rows=1)])
