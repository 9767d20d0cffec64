"""What is counted of one load of a revision into a slot: plain integers and logarithmic bins, written on the loop
thread only, read by ModelStatistics, the admin service and telemetry. It counts; it decides nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from turnout.core.errors import Reason
from turnout.core.ids import Revision
from turnout.core.sketch import Sketch
from turnout.core.tensors import Timings
from turnout.core.tracing import TraceContext

CLOSED_MAX = 256  # of what is loaded no more: a reader that comes now and then still sees its last counts

# Of durations: those of OpenTelemetry's RPC conventions, and finer ones below: small models answer in less than 1 ms.
BOUNDS_NS = (
    *(250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 75_000_000, 100_000_000),
    *(250_000_000, 500_000_000, 750_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000, 7_500_000_000),
    10_000_000_000,
)


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


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One request that was traced: how long it took, and when it ended on the monotonic clock."""

    duration_ns: int
    trace: TraceContext
    ended_ns: int


@dataclass(slots=True)
class Tally:
    """Requests that ended in one outcome. Sums over requests; a request's compute time is its whole batch's. The
    sketches are of nanoseconds: from arrival to answer, and in the queue (of successes only). `exemplars` has the last
    traced request of each bucket of BOUNDS_NS."""

    requests: int = 0
    rows: int = 0
    duration_ns: int = 0
    queue_ns: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0
    durations: Sketch = field(default_factory=Sketch)
    queueing: Sketch = field(default_factory=Sketch)
    exemplars: dict[int, Exemplar] = field(default_factory=dict)

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
            _last({**self.exemplars}, other.exemplars),
        )


def _last(ours: dict[int, Exemplar], theirs: dict[int, Exemplar]) -> dict[int, Exemplar]:
    for bucket, exemplar in theirs.items():
        if bucket not in ours or ours[bucket].ended_ns < exemplar.ended_ns:
            ours[bucket] = exemplar
    return ours


@dataclass(slots=True)
class BatchTally:
    """Model runs of one batch size."""

    runs: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0

    def plus(self, other: BatchTally) -> BatchTally:
        return BatchTally(
            self.runs + other.runs,
            self.compute_input_ns + other.compute_input_ns,
            self.compute_infer_ns + other.compute_infer_ns,
            self.compute_output_ns + other.compute_output_ns,
        )


def _tallies() -> dict[Outcome, Tally]:
    return {outcome: Tally() for outcome in Outcome}


@dataclass(slots=True)
class Account:
    """Everything counted for one revision in one slot since it was loaded.

    Attributes:
        routed: requests that weights, a sticky key or chance sent here.
        pinned: requests that said who shall answer, or were answered in another slot's place, apart: no comparison of
            slots may count them.
        runs: nanoseconds of the model runs.
    """

    routed: dict[Outcome, Tally] = field(default_factory=_tallies)
    pinned: dict[Outcome, Tally] = field(default_factory=_tallies)
    batches: dict[int, BatchTally] = field(default_factory=dict)  # by rows: bounded by the largest batch
    runs: Sketch = field(default_factory=Sketch)
    last_success_ns: int | None = None

    def record_request(
        self,
        outcome: Outcome,
        rows: int,
        duration_ns: int,
        timings: Timings | None = None,
        pinned: bool = False,
        trace: TraceContext | None = None,
        ended_ns: int = 0,
    ) -> None:
        """`trace`: of a request that is traced, with the time of its end; it becomes its bucket's exemplar."""
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
        if trace is not None:
            tally.exemplars[bisect_left(BOUNDS_NS, duration_ns)] = Exemplar(duration_ns, trace, ended_ns)

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

    def plus(self, other: Account) -> Account:
        """Both together."""
        batches = dict(self.batches)
        for rows, tally in other.batches.items():
            batches[rows] = batches.get(rows, BatchTally()).plus(tally)
        successes = [ns for ns in (self.last_success_ns, other.last_success_ns) if ns is not None]
        return Account(
            {outcome: self.routed[outcome].plus(other.routed[outcome]) for outcome in Outcome},
            {outcome: self.pinned[outcome].plus(other.pinned[outcome]) for outcome in Outcome},
            batches,
            self.runs.merged(other.runs),
            max(successes, default=None),
        )


@dataclass(frozen=True, slots=True)
class Loading:
    """Loads of a revision into a slot, and what was counted of them."""

    slot: str
    revision: Revision
    account: Account


_Key: TypeAlias = tuple[str, str, str]


class Accounts:
    """The accounts of all loads. Those of what is loaded no more are added up by slot and revision, so that the sums of
    each only grow; where there are too many, the one that ended first is forgotten, as a whole."""

    def __init__(self, closed_max: int = CLOSED_MAX) -> None:
        self._open: dict[tuple[str, str], Loading] = {}
        self._closed: dict[_Key, Loading] = {}  # what ended first comes first
        self._closed_max = closed_max

    def open(self, slot: str, revision: Revision) -> Account:
        """A new account, for what is loaded now; the one before it of this slot takes no more."""
        place = (revision.model, slot)
        before = self._open.get(place)
        self._open[place] = Loading(slot, revision, Account())
        if before is not None:
            self._close(before)
        return self._open[place].account

    def close(self, model: str, slot: str) -> None:
        """What was loaded there is loaded no more."""
        load = self._open.pop((model, slot), None)
        if load is not None:
            self._close(load)

    def __iter__(self) -> Iterator[Loading]:
        yield from self._closed.values()
        yield from self._open.values()

    def _close(self, load: Loading) -> None:
        earlier = self._closed.pop(_key(load), None)
        account = load.account if earlier is None else earlier.account.plus(load.account)
        self._closed[_key(load)] = Loading(load.slot, load.revision, account)
        if len(self._closed) > self._closed_max:
            loaded = {_key(load) for load in self._open.values()}  # what these have counted before must not go
            oldest = next((key for key in self._closed if key not in loaded), None)
            if oldest is not None:
                del self._closed[oldest]


def _key(load: Loading) -> _Key:
    return load.revision.model, load.slot, str(load.revision)
