"""What is counted of one load of a revision into a slot: plain integers and logarithmic bins, written on the loop
thread only, read by ModelStatistics, the admin service and telemetry. It counts; it decides nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from turnout.core.errors import Reason
from turnout.core.ids import Revision
from turnout.core.sketch import Sketch
from turnout.core.tensors import Timings

_CLOSED_MAX = 256  # accounts of what is loaded no more: a reader that comes now and then still sees their last counts


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
    """Requests that ended in one outcome. Sums over requests; a request's compute time is its whole batch's. The
    sketches are of nanoseconds: from arrival to answer, and in the queue (of successes only)."""

    requests: int = 0
    rows: int = 0
    duration_ns: int = 0
    queue_ns: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0
    durations: Sketch = field(default_factory=Sketch)
    queueing: Sketch = field(default_factory=Sketch)

    def plus(self, other: Tally) -> Tally:
        return Tally(
            self.requests + other.requests,
            self.rows + other.rows,
            self.duration_ns + other.duration_ns,
            self.queue_ns + other.queue_ns,
            self.compute_input_ns + other.compute_input_ns,
            self.compute_infer_ns + other.compute_infer_ns,
            self.compute_output_ns + other.compute_output_ns,
            self.durations.merged(other.durations),
            self.queueing.merged(other.queueing),
        )


@dataclass(slots=True)
class BatchTally:
    """Model runs of one batch size."""

    runs: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0


def _tallies() -> dict[Outcome, Tally]:
    return {outcome: Tally() for outcome in Outcome}


@dataclass(slots=True)
class Account:
    """Everything counted for one revision in one slot since it was loaded.

    Attributes:
        routed: requests that weights, a sticky key or chance sent here.
        pinned: requests that said who shall answer, apart: no comparison of slots may count them.
        runs: nanoseconds of the model runs.
    """

    routed: dict[Outcome, Tally] = field(default_factory=_tallies)
    pinned: dict[Outcome, Tally] = field(default_factory=_tallies)
    batches: dict[int, BatchTally] = field(default_factory=dict)  # by rows: bounded by the largest batch
    runs: Sketch = field(default_factory=Sketch)
    last_success_ns: int | None = None

    def record_request(
        self, outcome: Outcome, rows: int, duration_ns: int, timings: Timings | None = None, pinned: bool = False
    ) -> None:
        tally = (self.pinned if pinned else self.routed)[outcome]
        tally.requests += 1
        tally.rows += rows
        tally.duration_ns += duration_ns
        tally.durations.observe(duration_ns)
        if timings is not None:
            tally.queue_ns += timings.queue_ns
            tally.queueing.observe(timings.queue_ns)
            tally.compute_input_ns += timings.compute_input_ns
            tally.compute_infer_ns += timings.compute_infer_ns
            tally.compute_output_ns += timings.compute_output_ns

    def tally(self, outcome: Outcome) -> Tally:
        """Of all requests that ended so, routed and pinned."""
        return self.routed[outcome].plus(self.pinned[outcome])

    def record_run(self, timings: Timings) -> None:
        tally = self.batches.setdefault(timings.batch_rows, BatchTally())
        tally.runs += 1
        tally.compute_input_ns += timings.compute_input_ns
        tally.compute_infer_ns += timings.compute_infer_ns
        tally.compute_output_ns += timings.compute_output_ns
        self.runs.observe(timings.compute_infer_ns)


@dataclass(frozen=True, slots=True)
class Loading:
    """One load of a revision into a slot, and what was counted of it."""

    slot: str
    revision: Revision
    account: Account


class Accounts:
    """The accounts of all loads, also of what was unloaded meanwhile, as far back as there is room. Whoever adds up
    those of one slot and revision gets counts that only grow, until the oldest are forgotten."""

    def __init__(self, closed_max: int = _CLOSED_MAX) -> None:
        self._open: dict[tuple[str, str], Loading] = {}
        self._closed: deque[Loading] = deque(maxlen=closed_max)

    def open(self, slot: str, revision: Revision) -> Account:
        """A new account, for what is loaded now; the one before it of this slot takes no more."""
        place = (revision.model, slot)
        if (before := self._open.get(place)) is not None:
            self._closed.append(before)
        self._open[place] = Loading(slot, revision, Account())
        return self._open[place].account

    def __iter__(self) -> Iterator[Loading]:
        yield from self._closed
        yield from self._open.values()
