"""What a run of a generator measured, whether it may be used, and how it is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from turnout_bench.hdr import Histogram
from turnout_bench.schedules import Schedule

OK = "OK"
WRONG_ANSWER = "WRONG_ANSWER"
UNANSWERED = "UNANSWERED"  # when the run ended
NOT_SENT = "NOT_SENT"  # the generator's own bound on requests under way was met

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
LAG_SHARE_MAX = 0.1  # of the median latency: notes on measuring, "a run is void if ..."
# Below a median of 2.5 ms a tenth of it is less than what one event loop can keep: two requests that are due within the
# 0.1 to 0.2 ms that sending one takes cannot both be on time. Latencies count from the intended time, so lag makes them
# longer, never shorter; up to this floor it is accepted, and the report says by how much they may be too long.
LAG_FLOOR_US = 250.0


class BenchError(Exception):
    """The measurement cannot go on or may not be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Trace:
    """When each request of an open loop was due, left and was over, by the run's clock, and how it ended."""

    due_ns: Schedule
    sent_ns: Schedule
    done_ns: Schedule  # the same as due_ns where it was not over
    outcomes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the open or closed loop, warm-up left out.

    Attributes:
        seconds: of the measured window.
        statuses: requests by outcome: OK, WRONG_ANSWER, UNANSWERED, NOT_SENT or the name of a gRPC status.
        latency: of the requests that were answered OK; in the open loop from the intended send time.
        lag: actual send after intended send; None in a closed loop, which intends nothing.
        rate: intended requests per second; None in a closed loop.
        clients: of a closed loop.
        cpu_s: that the server used in the window; None where it is not known.
        sent_ns: of an open loop, when each request of the schedule really left, from the start; not written down.
        trace: of an open loop, each request of the schedule, warm-up included; not written down.
    """

    seconds: float
    statuses: Mapping[str, int]
    latency: Histogram
    lag: Histogram | None = None
    rate: float | None = None
    clients: int | None = None
    cpu_s: float | None = None
    sent_ns: Schedule | None = None
    trace: Trace | None = None

    @property
    def ok(self) -> int:
        return self.statuses.get(OK, 0)

    @property
    def sent(self) -> int:
        return sum(self.statuses.values())

    @property
    def per_second(self) -> float:
        return self.ok / self.seconds

    @property
    def cpu_us(self) -> float:
        """The server's CPU time for each answer; nan where it is not known."""
        return self.cpu_s / self.ok * 1e6 if self.cpu_s is not None and self.ok else float("nan")

    def goodput(self, objective_us: int) -> float:
        """Right answers within the objective, per second."""
        return self.latency.count_within(objective_us) / self.seconds

    def void(self) -> str:
        """Why this run says nothing about the server: the generator was the bottleneck. Empty: it was not."""
        if missed := self.statuses.get(NOT_SENT, 0):
            return f"{missed} requests were not sent: too many were under way"
        if self.lag is None or not self.latency.total:
            return ""
        lag_us, allowed_us = self.lag.percentile_us(99), lag_us_max(self.latency.percentile_us(50))
        if lag_us <= allowed_us:
            return ""
        return (
            f"the generator's own lag p99 is {lag_us / 1e3:.2f} ms, more than the {allowed_us / 1e3:.2f} ms that a "
            f"median of {self.latency.percentile_us(50) / 1e3:.2f} ms allows: it measured itself; lower the rate, or "
            "give it a core of its own"
        )

    def refuse_failures(self, what: str) -> Run:
        """This run, of which every answer must have been right.

        Raises:
            BenchError: one was not.
        """
        if self.ok != self.sent or not self.ok:
            raise BenchError(f"{what}: not every answer was right: {dict(self.statuses)}")
        return self

    def as_json(self) -> dict[str, Any]:
        """Everything, with the histograms in HdrHistogram's own encoding."""
        return {
            "void": self.void() or None,
            "seconds": self.seconds,
            "rate_intended": self.rate,
            "clients": self.clients,
            "statuses": dict(self.statuses),
            "per_second": self.per_second,
            "cpu_us": self.cpu_us if self.cpu_s is not None else None,
            "latency_ms": _summary(self.latency),
            "latency_hdr_us": self.latency.encode(),
            "lag_ms": None if self.lag is None else _summary(self.lag),
            "lag_hdr_us": None if self.lag is None else self.lag.encode(),
        }


def lag_us_max(median_us: float) -> float:
    """How far behind its schedule a generator may be at its 99th percentile."""
    return max(LAG_SHARE_MAX * median_us, LAG_FLOOR_US)


def print_run(run: Run, console: Console) -> None:
    """The table of one run."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("", *(f"p{percent:g}" for percent in PERCENTILES), "max", "mean"):
        table.add_column(heading, justify="left" if not heading else "right")
    rows = [("latency ms", run.latency)] + ([("own lag ms", run.lag)] if run.lag is not None else [])
    for name, histogram in rows:
        figures = [*_percentiles_us(histogram), histogram.mean_us()]
        table.add_row(name, *(f"{value / 1e3:.2f}" for value in figures))
    console.print(table)
    intended = f", {run.rate:.1f}/s intended" if run.rate is not None else f", {run.clients} clients"
    statuses = ", ".join(f"{name} {count}" for name, count in sorted(run.statuses.items()))
    console.print(f"{run.per_second:.1f} answers/s in {run.seconds:.1f} s{intended}; {statuses}", highlight=False)


def _percentiles_us(histogram: Histogram) -> list[float]:
    return [histogram.percentile_us(percent) for percent in (*PERCENTILES, 100)]


def _summary(histogram: Histogram) -> dict[str, float | None]:
    if not histogram.total:
        return {}
    names = [*(f"p{percent:g}" for percent in PERCENTILES), "max"]
    summary = {name: value / 1e3 for name, value in zip(names, _percentiles_us(histogram), strict=True)}
    return {**summary, "mean": histogram.mean_us() / 1e3}
