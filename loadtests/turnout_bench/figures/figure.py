"""What a figure is, and the arithmetic that several of them share."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from turnout_bench.bench import Bench
from turnout_bench.ratios import Estimate, estimate, paired
from turnout_bench.results import Run


@dataclass(frozen=True, slots=True)
class Measured:
    """What measuring a figure gave.

    Attributes:
        absolute: the figures behind the value, in units that their names end with.
        rounds: everything that was measured, raw, for the file beside bench.json.
        doubts: why not to trust it: runs of the generator that are void, and the like.
    """

    estimate: Estimate
    absolute: Mapping[str, Any]
    rounds: Any = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that `make bench` reports.

    Attributes:
        better: which way is better; what a comparison goes by.
        target: at least (higher is better) or at most; None: it is only reported.
        needs: a program that must be there; the figure is skipped without it.
    """

    name: str
    what: str
    better: Literal["lower", "higher"]
    target: float | None
    measure: Callable[[Bench], Awaitable[Measured]]
    needs: str = ""
    unit: str = "ratio"

    def met(self, value: float) -> bool | None:
        """Whether a value meets the target; None without one."""
        if self.target is None:
            return None
        return value <= self.target if self.better == "lower" else value >= self.target


def cpu_over(runs: Mapping[str, Sequence[Run]], over: str, under: str) -> Measured:
    """CPU time per request of one contestant over that of another, round by round."""
    ratios = paired([run.cpu_us for run in runs[over]], [run.cpu_us for run in runs[under]])
    return Measured(estimate(ratios), medians(runs), {"ratios": ratios, **raw(runs)})


def medians(runs: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, float | None]]:
    """Of each contestant's rounds. A peer that gave no right answer has none."""
    return {name: medians_of(each) for name, each in runs.items()}


def raw(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[dict[str, Any]]]:
    return {name: [run.as_json() for run in each] for name, each in runs.items()}


def doubts(runs: Mapping[str, Sequence[Run]]) -> tuple[str, ...]:
    """Peers' failures, and runs that measured the generator."""
    said = []
    for name, each in runs.items():
        for run in each:
            if void := run.void():
                said.append(f"{name}: {void}")
            if run.ok != run.sent:
                said.append(f"{name}: {dict(run.statuses)}")
    return tuple(said)


def medians_of(runs: Sequence[Run]) -> dict[str, float | None]:
    answered = [run for run in runs if run.ok]
    if not answered:
        return {"answers_per_second": 0.0}
    known = [run.cpu_us for run in answered if run.cpu_s is not None]
    return {
        "cpu_us": statistics.median(known) if known else None,
        "answers_per_second": statistics.median(run.per_second for run in answered),
        "p50_ms": statistics.median(run.latency.percentile_us(50) for run in answered) / 1e3,
        "p99_ms": statistics.median(run.latency.percentile_us(99) for run in answered) / 1e3,
    }
