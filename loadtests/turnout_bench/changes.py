"""Changes of traffic in time: which requests were due around one, which were routed after one and before the next,
and a ratio of percentiles with an interval. Pure; all instants are nanoseconds of one clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from turnout_bench.ratios import Estimate

Nanoseconds = NDArray[np.int64]

_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Change:
    """All traffic to one revision. `done_ns`: its answer was here, so it was in force."""

    kind: str
    revision: str
    sent_ns: int
    done_ns: int


def around(due_ns: Nanoseconds, changes: Sequence[Change], margin_ns: int) -> tuple[NDArray[np.bool_], Nanoseconds]:
    """Whether each request was due from `margin_ns` before a change was sent to `margin_ns` after it was done, and
    which change it belongs to: that one, or else the last before it (the first, if there is none)."""
    sent = np.asarray([change.sent_ns for change in changes], np.int64) - margin_ns
    done = np.asarray([change.done_ns for change in changes], np.int64) + margin_ns
    belongs = np.maximum(np.searchsorted(sent, due_ns, side="right") - 1, 0)
    return (due_ns >= sent[belongs]) & (due_ns <= done[belongs]), belongs.astype(np.int64)


def strayed(sent_ns: Nanoseconds, answered_ns: Nanoseconds, named: Sequence[str], changes: Sequence[Change]) -> int:
    """Requests that left after a change was done, were answered before the next was sent, and by another revision.
    `named`: what each answer names; empty where there was none."""
    done = np.asarray([change.done_ns for change in changes], np.int64)
    last = np.searchsorted(done, sent_ns, side="left") - 1
    found = 0
    for name, which, answered in zip(named, last.tolist(), answered_ns.tolist(), strict=True):
        if not name or which < 0 or name == changes[which].revision:
            continue
        found += which + 1 == len(changes) or answered < changes[which + 1].sent_ns
    return found


def percentile_ratio(
    values: NDArray[np.float64], inside: NDArray[np.bool_], belongs: Nanoseconds, percent: float = 99, seed: int = 0
) -> Estimate:
    """A percentile of the values inside windows over that of those outside, with its 95 % interval. Neighbours in time
    are alike, so whole changes with what belongs to them are drawn (a block bootstrap; Künsch 1989). nan where a side
    is empty."""

    def ratio(chosen: NDArray[np.float64], of_inside: NDArray[np.bool_]) -> float:
        if not of_inside.any() or of_inside.all():
            return float("nan")
        over, under = (np.percentile(chosen[side], percent) for side in (of_inside, ~of_inside))
        return float(over / under)

    blocks = [np.flatnonzero(belongs == which) for which in np.unique(belongs)]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(_RESAMPLES):
        rows = np.concatenate([blocks[which] for which in rng.integers(0, len(blocks), len(blocks))])
        drawn.append(ratio(values[rows], inside[rows]))
    value = ratio(values, inside)
    low, high = np.nanpercentile(drawn, [2.5, 97.5]) if np.isfinite(drawn).any() else (value, value)
    return Estimate(value, min(float(low), value), max(float(high), value), len(blocks))
