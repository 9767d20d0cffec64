"""What all instruments show at one moment, as plain values: what both exporters are given.

Taken on the loop thread, because that is where counters are written; it copies and adds up, and formats nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from turnout.core.buckets import BASIS_POINTS
from turnout.core.sketch import Sketch
from turnout.core.slots import SlotState
from turnout.runtime.account import Account, Accounts, Exemplar, Outcome, Tally
from turnout.runtime.fleet import Fleet, Model
from turnout.runtime.views import memory_of
from turnout.telemetry import instruments as i
from turnout.telemetry.instruments import Instrument

Attributes: TypeAlias = tuple[str | bool, ...]  # in the order of the instrument's
_NS = 1e-9


def time_of_day_ns(then_ns: int) -> int:
    """Of a moment on the monotonic clock."""
    return time.time_ns() - time.monotonic_ns() + then_ns


@dataclass(frozen=True, slots=True)
class Value:
    """Of a counter or a gauge, in the instrument's unit."""

    attributes: Attributes
    value: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of a histogram: how often each value came, and the sum of all in the instrument's unit.

    Attributes:
        seen: in the instrument's unit and in order; or a sketch of parts of it, which is put in order only when it is
            asked for, away from the loop thread.
        exemplars: traced requests among them.
        part: one of a sketch, in the instrument's unit; by default it is of nanoseconds.
    """

    attributes: Attributes
    seen: tuple[tuple[float, int], ...] | Sketch
    total: float
    exemplars: tuple[Exemplar, ...] = ()
    part: float = _NS

    @property
    def counts(self) -> tuple[tuple[float, int], ...]:
        """Values in the instrument's unit and in order, and how often they came."""
        if isinstance(self.seen, Sketch):
            return tuple((each * self.part, count) for each, count in self.seen.counts())
        return self.seen

    def buckets(self, bounds: Iterable[float]) -> list[int]:
        """How many fell into each bucket that `bounds` end, upper bounds being inclusive, and how many lie beyond."""
        found, ends = [0], list(bounds)
        for value, count in self.counts:
            while len(found) <= len(ends) and value > ends[len(found) - 1]:
                found.append(0)
            found[-1] += count
        return found + [0] * (len(ends) + 1 - len(found))


@dataclass(frozen=True, slots=True)
class Reading:
    """One instrument's values."""

    instrument: Instrument
    points: tuple[Value, ...] | tuple[Distribution, ...]


Source: TypeAlias = Callable[[], Iterable[Reading]]


class Readings:
    """Asks each source in turn.

    Args:
        sources: are read on the loop thread.
        slow_sources: wait for the system, so that they are read on another one.
    """

    def __init__(self, sources: Sequence[Source], slow_sources: Sequence[Source] = ()) -> None:
        self._sources = list(sources)
        self._slow_sources = list(slow_sources)

    def add(self, source: Source) -> None:
        """One that is there only now. On the loop thread."""
        self._sources.append(source)

    def add_slow(self, source: Source) -> None:
        self._slow_sources.append(source)

    def take(self) -> list[Reading]:
        """On the loop thread."""
        return [reading for source in self._sources for reading in source()]

    def take_slow(self) -> list[Reading]:
        """On any other thread."""
        return [reading for source in self._slow_sources for reading in source()]


class ServingReadings:
    """Of models, slots and the requests that they answered."""

    def __init__(self, fleet: Fleet, accounts: Accounts, queue_rows_max: int) -> None:
        self._fleet = fleet
        self._accounts = accounts
        self._queue_rows_max = queue_rows_max

    def __call__(self) -> Iterator[Reading]:
        accounts: dict[tuple[str, str, str], list[Account]] = {}
        for load in self._accounts:
            accounts.setdefault((load.revision.model, load.slot, str(load.revision)), []).append(load.account)
        yield from _of_requests(accounts)
        yield from _of_batches(accounts)
        yield from _of_slots(self._fleet)
        yield Reading(i.QUEUE_LIMIT, (Value((), self._queue_rows_max),))
        routes = [(model.name, model.route.generation) for model in self._fleet if model.route is not None]
        yield Reading(i.ROUTE_GENERATION, tuple(Value((name,), generation) for name, generation in routes))
        yield Reading(i.ROUTE_WEIGHT, tuple(value for model in self._fleet for value in _weights(model)))


def _of_requests(accounts: Mapping[tuple[str, str, str], list[Account]]) -> Iterator[Reading]:
    durations, queueing, rows, stages = [], [], [], []
    for key, parts in accounts.items():
        done: list[Tally] = []
        for pinned in (False, True):
            for outcome in Outcome:
                tally = _sum([(part.pinned if pinned else part.routed)[outcome] for part in parts])
                if not tally.requests:
                    continue
                exemplars = tuple(tally.exemplars.values())
                attributes = (*key, outcome.value, pinned)
                durations.append(sketched(attributes, tally.durations, tally.duration_ns, exemplars))
                if outcome is Outcome.SUCCESS:
                    queueing.append(sketched((*key, pinned), tally.queueing, tally.queue_ns))
                    done.append(tally)
        rows.append(Value(key, sum(tally.rows for tally in done)))
        for stage in ("queue", "compute_input", "compute_infer", "compute_output"):
            stages.append(Value((*key, stage), sum(getattr(tally, f"{stage}_ns") for tally in done) * _NS))
    yield Reading(i.REQUEST_DURATION, tuple(durations))
    yield Reading(i.QUEUE_DURATION, tuple(queueing))
    yield Reading(i.REQUEST_ROWS, tuple(rows))
    yield Reading(i.STAGE_TIME, tuple(stages))


def _of_batches(accounts: Mapping[tuple[str, str, str], list[Account]]) -> Iterator[Reading]:
    sizes, runs = [], []
    for key, parts in accounts.items():
        by_rows: dict[int, int] = {}
        infer_ns, sketch = 0, Sketch()
        for part in parts:
            sketch = sketch.merged(part.runs)
            for size, batch in part.batches.items():
                by_rows[size] = by_rows.get(size, 0) + batch.runs
                infer_ns += batch.compute_infer_ns
        if by_rows:
            counts = tuple((float(size), count) for size, count in sorted(by_rows.items()))
            sizes.append(Distribution(key, counts, sum(size * count for size, count in counts)))
            runs.append(sketched(key, sketch, infer_ns))
    yield Reading(i.BATCH_SIZE, tuple(sizes))
    yield Reading(i.EXECUTION_DURATION, tuple(runs))


def _of_slots(fleet: Fleet) -> Iterator[Reading]:
    slots = [slot for model in fleet for slot in model.slots.values()]
    states = [Value((s.model, s.name, state.value), float(s.state is state)) for s in slots for state in SlotState]
    yield Reading(i.SLOT_STATE, tuple(states))
    loaded = [((s.model, s.name, str(s.cargo.revision)), s, s.cargo) for s in slots if s.cargo is not None]
    yield Reading(i.REQUEST_ACTIVE, tuple(Value(key, slot.leases) for key, slot, _ in loaded))
    yield Reading(i.QUEUE_DEPTH, tuple(Value(key, cargo.batcher.queued_rows) for key, _, cargo in loaded))
    yield Reading(i.SLOT_MEMORY, tuple(Value(key, memory_of(slot)) for key, slot, _ in loaded))
    limits = [Value(key, max(cargo.spec.signature.rows_max, 1)) for key, _, cargo in loaded]
    yield Reading(i.BATCH_LIMIT, tuple(limits))


def _weights(model: Model) -> Iterator[Value]:
    wanted = model.route.weights if model.route is not None else {}
    for slot, weight_bp in wanted.items():
        yield Value((model.name, slot, "desired"), weight_bp / BASIS_POINTS)
    if total := sum(model.routed.values()):
        for slot in dict.fromkeys((*wanted, *model.routed)):
            yield Value((model.name, slot, "actual"), model.routed.get(slot, 0) / total)


def _sum(tallies: list[Tally]) -> Tally:
    total = tallies[0]
    for tally in tallies[1:]:
        total = total.plus(tally)
    return total


def sketched(
    attributes: Attributes, sketch: Sketch, total_ns: int, exemplars: tuple[Exemplar, ...] = ()
) -> Distribution:
    """As it is now: the sketch goes on to be written."""
    return Distribution(attributes, Sketch(sketch.bins), total_ns * _NS, exemplars)
