"""How long runs of two revisions take, measured in turns, so that whatever else the machine does meets both alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.tensors import Tensors
from turnout.runtime.ports import ClockNs, Session
from turnout_wire.tensors import Array

WARM_RUNS = 2
ROUNDS_MIN, ROUNDS_MAX = 10, 2000


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one revision's runs at one batch size, in nanoseconds."""

    p50_ns: int
    p99_ns: int
    rows_per_s: float


@dataclass(frozen=True, slots=True)
class Point:
    """Both at one batch size. `speedup`: the median of the rounds' ratios, reference over candidate."""

    rows: int
    rounds: int
    reference: Latency
    candidate: Latency
    speedup: float


@dataclass(frozen=True, slots=True)
class Runs:
    """What is timed: a session, and the outputs that it is asked for."""

    session: Session
    outputs: Sequence[str]


def measure(
    reference: Runs,
    candidate: Runs,
    inputs: Mapping[int, Tensors],
    clock_ns: ClockNs,
    budget_ns: int,
    tell: Callable[[int], None] = lambda _: None,
) -> tuple[Point, ...]:
    """Run both in turns for about `budget_ns` at each batch size, who is first alternating.

    Args:
        inputs: of each batch size, by rows.
        tell: is called after each batch size.
    """
    points = []
    for rows, batch in inputs.items():
        points.append(_point(reference, candidate, rows, batch, clock_ns, budget_ns))
        tell(1)
    return tuple(points)


def batches(inputs: Tensors, count: int, sizes: Sequence[int]) -> dict[int, Tensors]:
    """Inputs of each size, made of `count` sample rows, from the first on, as often as it takes."""
    return {
        size: {name: np.take(array, np.arange(size) % count, axis=0) for name, array in inputs.items()}
        for size in sizes
    }


def _point(reference: Runs, candidate: Runs, rows: int, inputs: Tensors, clock_ns: ClockNs, budget_ns: int) -> Point:
    times: tuple[list[int], list[int]] = ([], [])
    sides = reference, candidate
    for _ in range(WARM_RUNS):
        for side in sides:
            side.session.run(inputs, side.outputs)
    started_ns = clock_ns()
    while len(times[0]) < ROUNDS_MAX and (len(times[0]) < ROUNDS_MIN or clock_ns() - started_ns < budget_ns):
        first = len(times[0]) % 2
        for number in (first, 1 - first):
            begun_ns = clock_ns()
            sides[number].session.run(inputs, sides[number].outputs)
            times[number].append(max(clock_ns() - begun_ns, 1))
    ours, theirs = np.asarray(times[0], "f8"), np.asarray(times[1], "f8")
    return Point(rows, len(ours), _latency(ours, rows), _latency(theirs, rows), float(np.median(ours / theirs)))


def _latency(times_ns: Array, rows: int) -> Latency:
    p50, p99 = np.quantile(times_ns, (0.5, 0.99)).tolist()
    return Latency(round(p50), round(p99), rows * 1e9 / float(times_ns.mean()))
