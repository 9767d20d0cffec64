"""A verification around models of our own: batch sizes, what cannot be measured, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import pytest

from turnout.core.ids import Revision
from turnout.core.model import Artefact, Execution, OpenArtefact
from turnout.core.tensors import ANY, Signature, Tensors, TensorSpec
from turnout.core.variants import Budget
from turnout.runtime.ports import Loaded
from turnout.variants.recipes import QuantizeError
from turnout.variants.verifying import Candidate, Check, Memory, SampleSet, Verification, verify
from turnout_wire.tensors import Array, DataType


class Doubling:
    """y = 2 x, or as many times as its version says."""

    def __init__(self, factor: int) -> None:
        self._factor = factor

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        return [inputs["x"] * np.float32(self._factor)]


class Backend:
    def __init__(self, shape: tuple[int, ...], place: str = "cpu", more: Sequence[TensorSpec] = ()) -> None:
        self._shape, self._place, self._more = shape, place, more

    def load(self, artefact: Artefact, execution: Execution) -> Loaded:
        x, y = (TensorSpec(name, DataType.FP32, self._shape) for name in "xy")
        return Loaded(Signature((x, *self._more), (y,)), (Doubling(artefact.revision.version),), (self._place,))


class Quiet:
    def stage(self, what: str, total: int | None = None) -> None: ...
    def advance(self, count: int) -> None: ...
    def note(self, text: str) -> None: ...


def candidate(version: int) -> Candidate:
    opened = OpenArtefact("model.onnx", {})
    revision = Revision("m", version, "", str(version) * 64)
    return Candidate(Artefact(revision, lambda: nullcontext(opened), size_bytes=10 * version), Execution())


def measured(revision: Revision, inputs: Mapping[int, Tensors]) -> Memory:
    return Memory(revision.version, dict.fromkeys(inputs, 7))


def verified(
    backend: Backend, inputs: Tensors, versions: tuple[int, int] = (2, 2), memory: object = measured
) -> Verification:
    ticks = iter(range(10**9))
    check = Check(SampleSet(inputs, None, "samples"), Budget(), time_ns=1)
    first, other = map(candidate, versions)
    return verify(first, other, check, backend, lambda: next(ticks), memory, Quiet(), "now")  # type: ignore[arg-type]


X = np.arange(24, dtype=np.float32).reshape(8, 3)


def test_an_open_batch_is_measured_at_three_sizes() -> None:
    found = verified(Backend((ANY, 3)), {"x": X})
    assert [point.rows for point in found.latency] == [1, 8, 32]
    assert found.candidate.memory == Memory(2, {1: 7, 8: 7, 32: 7})
    assert found.failures == () and found.notes == () and found.rows == 8


def test_a_fixed_batch_is_measured_at_that_size() -> None:
    assert [point.rows for point in verified(Backend((4, 3)), {"x": X}).latency] == [4]


def test_inputs_of_different_length_are_one_run_that_is_not_timed() -> None:
    other = TensorSpec("other", DataType.FP32, (ANY,))
    found = verified(Backend((ANY, 3), more=[other]), {"x": X, "other": np.zeros(3, np.float32)})
    assert found.latency == () and found.candidate.memory is None
    assert found.notes == ("latency was not measured: the models take no batch size in common",)


def test_memory_of_a_device_is_not_the_models_own() -> None:
    found = verified(Backend((ANY, 3), "cuda:0"), {"x": X})
    assert found.candidate.memory is None and found.candidate.place == "cuda:0"
    assert found.notes == ("memory was not measured: it is a device's, which other processes share",)


def test_memory_that_cannot_be_measured_is_a_note() -> None:
    def refused(*_: object) -> Memory:
        raise QuantizeError("it ran out")

    found = verified(Backend((ANY, 3)), {"x": X}, memory=refused)
    assert found.latency and found.notes == ("memory was not measured: it ran out",)


def test_values_are_judged_by_their_largest_error() -> None:
    rows = X[:, :1]
    (output,) = verified(Backend((ANY, 1)), {"x": rows}, versions=(2, 3)).outputs
    assert output.kind.value == "values" and output.error_max == pytest.approx(21)
    (failure,) = verified(Backend((ANY, 1)), {"x": rows}, versions=(2, 3)).failures
    assert "the largest error is 0.5 of the largest element, the limit is 0.05" in failure
