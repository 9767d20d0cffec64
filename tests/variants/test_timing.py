"""Latency in turns, on a clock that only the sessions move; memory, as a process tells it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from turnout.core.tensors import Signature, Tensors, TensorSpec
from turnout.runtime.ports import Loaded
from turnout.variants import memory, timing
from turnout.variants.recipes import QuantizeError
from turnout.variants.timing import Runs
from turnout_wire.tensors import Array, DataType


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0
        self.order = ""

    def __call__(self) -> int:
        return self.now_ns


class Model:
    """Takes so many nanoseconds for a row."""

    def __init__(self, clock: Clock, name: str, row_ns: int) -> None:
        self._clock, self._name, self._row_ns = clock, name, row_ns

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        self._clock.order += self._name
        self._clock.now_ns += self._row_ns * len(inputs["x"])
        return []


def measured(budget_ns: int, sizes: Sequence[int] = (1, 8)) -> tuple[Clock, tuple[timing.Point, ...]]:
    clock = Clock()
    inputs = timing.batches({"x": np.arange(3)}, 3, sizes)
    pair = [Runs(Model(clock, name, row_ns), ["y"]) for name, row_ns in (("a", 300), ("b", 100))]
    return clock, timing.measure(pair[0], pair[1], inputs, clock, budget_ns)


def test_both_take_turns_and_neither_is_always_first() -> None:
    clock, _ = measured(0, sizes=[1])
    warm = "abab"
    assert clock.order == warm + "abba" * 5  # ROUNDS_MIN rounds


def test_the_figures_are_those_of_the_runs() -> None:
    _, (one, eight) = measured(0)
    assert (one.rows, eight.rows, one.rounds) == (1, 8, timing.ROUNDS_MIN)
    assert (one.reference.p50_ns, one.candidate.p99_ns) == (300, 100)
    assert (eight.reference.p50_ns, eight.candidate.p50_ns) == (2400, 800)
    assert one.speedup == eight.speedup == pytest.approx(3)
    assert eight.candidate.rows_per_s == pytest.approx(1e7)


@pytest.mark.parametrize(("budget_ns", "rounds"), [(0, 10), (8_000, 20), (10**9, timing.ROUNDS_MAX)])
def test_rounds_follow_the_time_within_bounds(budget_ns: int, rounds: int) -> None:
    _, (point,) = measured(budget_ns, sizes=[1])
    assert point.rounds == rounds


def test_batches_repeat_the_samples_in_order() -> None:
    made = timing.batches({"x": np.array([[1], [2], [3]])}, 3, (1, 5))
    assert made[1]["x"].tolist() == [[1]]
    assert made[5]["x"].tolist() == [[1], [2], [3], [1], [2]]


class Process:
    """A folder like /proc/self, whose figures the model moves."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tell(100, 100)
        (folder / "clear_refs").write_text("")

    def tell(self, resident_kb: int, peak_kb: int) -> None:
        (self._folder / "status").write_text(f"Name:\tpython\nVmHWM:\t{peak_kb} kB\nVmRSS:\t{resident_kb} kB\n")

    def load(self) -> Loaded:
        self.tell(150, 180)
        spec = TensorSpec("y", DataType.FP32, (-1,))
        return Loaded(Signature((), (spec,)), (self,), ("cpu",))

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        assert (self._folder / "clear_refs").read_text() == "5"
        self.tell(150, 160 + len(inputs["x"]))
        return []


def test_memory_is_what_came_on_top_of_what_was_there(tmp_path: Path) -> None:
    process = Process(tmp_path)
    found = memory.measure(process.load, {8: {"x": np.zeros(8)}, 1: {"x": np.zeros(1)}}, tmp_path)
    assert found.loaded_bytes == 50 * 1024
    assert found.peak_bytes == {1: 61 * 1024, 8: 68 * 1024}


@pytest.mark.parametrize(("missing", "said"), [("status", "VmRSS"), ("clear_refs", "forget its peak")])
def test_a_system_that_does_not_tell(tmp_path: Path, missing: str, said: str) -> None:
    process = Process(tmp_path)
    (tmp_path / missing).unlink()
    if missing == "clear_refs":
        (tmp_path / missing).mkdir()
    with pytest.raises(QuantizeError, match=said):
        memory.measure(process.load, {1: {"x": np.zeros(1)}}, tmp_path)
