"""The one accumulator per slot, revision and outcome: plain integers, written on the loop thread only, read by
ModelStatistics (and by any exporter that comes later). It counts; it decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from turnout.core.errors import Reason
from turnout.core.sketch import Sketch
from turnout.core.tensors import Timings


class Outcome(Enum):
    """How a request ended, as far as its slot is concerned."""

    SUCCESS = "success"
    INVALID = "invalid"  # the client's fault
    REJECTED = "rejected"  # the queue was full
    EXPIRED = "expired"  # its deadline passed while it waited
    CANCELLED = "cancelled"  # the client left
    FAILED = "failed"  # the model run failed


OUTCOME_OF: dict[Reason, Outcome] = {
    Reason.INVALID_REQUEST: Outcome.INVALID,
    Reason.QUEUE_FULL: Outcome.REJECTED,
    Reason.DEADLINE_EXCEEDED: Outcome.EXPIRED,
    Reason.EXECUTION_FAILED: Outcome.FAILED,
}


@dataclass(slots=True)
class Tally:
    """Requests that ended in one outcome. Sums over requests; a request's compute time is its whole batch's."""

    requests: int = 0
    rows: int = 0
    duration_ns: int = 0
    queue_ns: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0


@dataclass(slots=True)
class BatchTally:
    """Model runs of one batch size."""

    runs: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0


@dataclass(slots=True)
class Account:
    """Everything counted for one revision in one slot.

    Attributes:
        tallies: of all requests. `pinned` has how many of them were pinned: they were not chosen by chance, so no
            comparison of slots may count them.
        latencies: of successes, from arrival to answer in nanoseconds: those that were routed, and those pinned.
    """

    tallies: dict[Outcome, Tally] = field(default_factory=lambda: {outcome: Tally() for outcome in Outcome})
    pinned: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    latencies: tuple[Sketch, Sketch] = field(default_factory=lambda: (Sketch(), Sketch()))
    batches: dict[int, BatchTally] = field(default_factory=dict)  # by rows: bounded by the largest batch
    last_success_ns: int | None = None

    def record_request(
        self, outcome: Outcome, rows: int, duration_ns: int, timings: Timings | None = None, pinned: bool = False
    ) -> None:
        tally = self.tallies[outcome]
        if pinned:
            self.pinned[outcome] += 1
        if outcome is Outcome.SUCCESS:
            self.latencies[pinned].observe(duration_ns)
        tally.requests += 1
        tally.rows += rows
        tally.duration_ns += duration_ns
        if timings is not None:
            tally.queue_ns += timings.queue_ns
            tally.compute_input_ns += timings.compute_input_ns
            tally.compute_infer_ns += timings.compute_infer_ns
            tally.compute_output_ns += timings.compute_output_ns

    def ended(self, outcome: Outcome, pinned: bool) -> int:
        """Requests that ended so, of those that were pinned or of those that were routed."""
        return self.pinned[outcome] if pinned else self.tallies[outcome].requests - self.pinned[outcome]

    def record_run(self, timings: Timings) -> None:
        tally = self.batches.setdefault(timings.batch_rows, BatchTally())
        tally.runs += 1
        tally.compute_input_ns += timings.compute_input_ns
        tally.compute_infer_ns += timings.compute_infer_ns
        tally.compute_output_ns += timings.compute_output_ns
