"""The batch queue: decides which waiting requests run together, and when. Pure: the caller passes the time, holds
the lock and does the waiting.

Requests join a batch only when their non-batch shapes are equal; they are taken by priority, then in order of arrival,
and never split. What is expired or cancelled is dropped when a batch is formed, so that nothing runs for a client that
has left. Without a delay the queue is work-conserving: an executor that is free takes all that fits, at once, unless
what `core/gathering` has learned says that more will come in a moment.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Generic, TypeVar

from turnout.core.batch_policy import BatchPolicy
from turnout.core.frozen import frozen
from turnout.core.gathering import Gather
from turnout.core.profile import CostProfile

T = TypeVar("T")

_LANES_MAX = 64  # that one poll looks at while batches are held back: the lock is held meanwhile


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """One queued request: what it weighs, how long it may wait, and the caller's own `item`."""

    item: T
    rows: int
    bytes: int
    shape_key: Hashable
    deadline_ns: int | None
    enqueued_ns: int
    level: int = 0
    delay_ns: int | None = None  # from this time on it lets the others of its level go first
    rank: int = 0  # its turn: by level, and behind the others of the level once it stepped back


@frozen
class Decision(Generic[T]):
    """What an executor is to do now: run `batch` and tell `expired` so. With neither: wait for the next offer, or until
    `hold_ns` where that is set."""

    batch: tuple[Entry[T], ...] = ()
    expired: tuple[Entry[T], ...] = ()
    hold_ns: int | None = None

    def __bool__(self) -> bool:
        return bool(self.batch or self.expired)


class BatchQueue(Generic[T]):
    """Requests of one slot, bounded in rows and bytes.

    Args:
        rows_max: rows of the largest batch.
        queue_rows_max, queue_bytes_max: bounds of what may wait; a request that would cross one is not taken.
        gather: what is learned of runs and clients; without it nothing is, and nothing is held back for it.
        padded_rows: sizes up to which batches are filled, in order; none: batches run as they are.
    """

    def __init__(
        self,
        rows_max: int,
        queue_rows_max: int,
        queue_bytes_max: int,
        policy: BatchPolicy | None = None,
        gather: Gather | None = None,
        padded_rows: Sequence[int] = (),
    ) -> None:
        self.rows = 0
        self.bytes = 0
        self.flushing = False  # nothing is held back any more
        self._rows_max = rows_max
        self._queue_rows_max = queue_rows_max
        self._queue_bytes_max = queue_bytes_max
        self._policy = policy or BatchPolicy()
        self._gather = gather or Gather(CostProfile({}), rows_max)
        self._padded_rows = tuple(padded_rows)
        levels = self._policy.priority_levels + 1
        self._delays = any(queue.delays for queue in (self._policy.queue, *self._policy.queue_by_level.values()))
        self._preferred = frozenset(self._policy.preferred_rows)
        self._preferred_max = max((rows for rows in self._preferred if rows <= rows_max), default=rows_max)
        self._held_rows = 0  # of the queue, at which a hold for more ends early; 0: there is none
        self._held_deadline_ns = 0  # an earlier deadline than this ends it too
        self._arrivals: _Line[T] = _Line()
        self._lanes: dict[Hashable, _Line[T]] = {}  # by shape
        self._requests_max = [self._policy.queue_of(level).requests_max for level in range(levels)]
        self._waiting = [0] * levels  # requests by level

    def __len__(self) -> int:
        return len(self._arrivals)

    def offer(self, entry: Entry[T]) -> str:
        """Take the entry and return "", or return the bound that keeps it out. An empty queue takes any entry."""
        requests_max = self._requests_max[entry.level]
        if requests_max and self._waiting[entry.level] >= requests_max:
            return f"{requests_max} requests" + (f" of priority {entry.level}" if self._policy.priority_levels else "")
        if self.rows:
            if self.rows + entry.rows > self._queue_rows_max:
                return f"{self._queue_rows_max} rows"
            if self.bytes + entry.bytes > self._queue_bytes_max:
                return f"{self._queue_bytes_max} bytes"
        entry.rank = 2 * entry.level
        self._put(entry)
        self._gather.arrived(entry.rows, entry.enqueued_ns)
        return ""

    def awaits(self, entry: Entry[T]) -> bool:
        """Whether an executor holds a batch back and this entry, just taken, is no reason to look again before the
        hold ends."""
        if self.rows >= self._held_rows:
            return False
        return entry.deadline_ns is None or entry.deadline_ns >= self._held_deadline_ns

    def cancel(self, entry: Entry[T]) -> bool:
        """Drop a waiting entry; False when it is no longer waiting (it runs, ended, or was never taken)."""
        if entry not in self._arrivals:
            return False
        self._remove(entry)
        return True

    def poll(self, now_ns: int, executor: int = 0) -> Decision[T]:
        """Form the next batch for an executor that is free, or say how long to hold it back."""
        self._gather.free(executor, self.rows, now_ns)
        self._held_rows = 0
        expired: list[Entry[T]] = []
        hold_ns: int | None = None
        held: _Line[T] | None = None
        for lane in self._lanes_in_turn():
            batch, release_ns = self._form(lane, now_ns, expired)
            if batch and held is not None:
                # The executor runs now in any case: those whose turn it is go, or others could pass them for ever.
                batch, _ = self._form(held, now_ns, expired, holds=False)
            if batch:
                rows = waited_ns = 0
                for entry in batch:
                    self._remove(entry)
                    rows += entry.rows
                    waited_ns += entry.rows * (now_ns - entry.enqueued_ns)
                self._held_rows = 0
                self._gather.started(executor, rows, waited_ns, now_ns, self._padded(rows))
                return Decision(tuple(batch), tuple(expired))
            if release_ns is not None:
                if held is None and not self._policy.delay_ns_max:
                    held = lane
                hold_ns = release_ns if hold_ns is None else min(hold_ns, release_ns)
        return Decision((), tuple(expired), hold_ns)

    def _lanes_in_turn(self) -> Iterator[_Line[T]]:
        """The lane whose turn it is, then others by their first entries, as far as the bound goes. Where nothing is
        held back, a lane that is not sent has been emptied."""
        if not self._policy.delay_ns_max and not self._gather.kappa:
            while self._arrivals:
                yield self._lanes[next(iter(self._arrivals)).shape_key]
        elif self._arrivals:
            first = self._lanes[next(iter(self._arrivals)).shape_key]
            yield first
            yield from sorted((one for one in islice(self._lanes.values(), _LANES_MAX) if one is not first), key=_turn)

    def _form(
        self, lane: _Line[T], now_ns: int, expired: list[Entry[T]], *, holds: bool = True
    ) -> tuple[list[Entry[T]], int | None]:
        """The lane's next batch; or none yet, and when at the latest. Triton's rule: at a preferred size, else when
        full, else when the oldest has waited for the delay."""
        if self._delays:
            self._step_back(lane, now_ns)
        batch: list[Entry[T]] = []
        gone: list[Entry[T]] = []
        rows = preferred = 0
        full = False
        for entry in lane:
            if entry.deadline_ns is not None and entry.deadline_ns <= now_ns:
                gone.append(entry)
                continue
            if rows + entry.rows > self._preferred_max and batch and not preferred:
                preferred = len(batch)
            if rows + entry.rows > self._rows_max and batch:
                full = True
                break
            batch.append(entry)
            rows += entry.rows
            if rows in self._preferred:
                preferred = len(batch)
            if rows >= self._rows_max:
                break
        for entry in gone:
            self._remove(entry)
        expired += gone
        if not batch:
            return [], None
        due_ns = self._due_ns(batch, rows) if holds else None
        due = due_ns is not None and due_ns <= now_ns
        if self._preferred and preferred and not due:
            return batch[:preferred], None
        if full or rows >= self._preferred_max or due or due_ns is None:
            return self._cut(batch, rows, now_ns), None
        return [], due_ns

    def _due_ns(self, batch: Sequence[Entry[T]], rows: int) -> int | None:
        """When a batch that could grow is sent at the latest; None: now."""
        if self.flushing:
            return None
        if self._policy.delay_ns_max:
            return min(entry.enqueued_ns for entry in batch) + self._policy.delay_ns_max
        if not self._gather.kappa or not (missing := self._gather.missing(rows)):
            return None
        oldest_ns = min(entry.enqueued_ns for entry in batch)
        deadline_ns = min((e.deadline_ns for e in batch if e.deadline_ns is not None), default=None)
        due_ns = self._gather.release_ns(rows, oldest_ns, deadline_ns)
        self._held_rows = self.rows + missing
        self._held_deadline_ns = due_ns + self._gather.notice_ns(self._rows_max)
        return due_ns

    def _cut(self, batch: list[Entry[T]], rows: int, now_ns: int) -> list[Entry[T]]:
        """Where batches are padded: the batch, or only as much of it as fills a smaller size, where a row then costs
        less, those at hand are answered sooner in the mean, and none of them misses its deadline."""
        below = [size for size in self._padded_rows if size < rows]
        if not below or rows in self._padded_rows:
            return batch
        count = taken = 0
        while count + batch[taken].rows <= below[-1]:
            count += batch[taken].rows
            taken += 1
        if not taken:
            return batch
        profile = self._gather.profile
        whole_ns, first_ns = profile.mean_ns(self._padded(rows)), profile.mean_ns(self._padded(count))
        rest_ns = first_ns + profile.mean_ns(self._padded(rows - count))
        later = any(e.deadline_ns is not None and e.deadline_ns < now_ns + rest_ns for e in batch[taken:])
        cheaper = first_ns * rows < whole_ns * count
        sooner = first_ns * count + rest_ns * (rows - count) < whole_ns * rows
        return batch[:taken] if cheaper and sooner and not later else batch

    def _padded(self, rows: int) -> int:
        """The rows that a batch of `rows` runs with."""
        return next((size for size in self._padded_rows if size >= rows), rows)

    def _step_back(self, lane: _Line[T], now_ns: int) -> None:
        """Let those whose timeout says so go behind the others of their level, once."""
        for entry in [e for e in lane if e.delay_ns is not None and not e.rank & 1 and e.delay_ns <= now_ns]:
            for line in (self._arrivals, lane):
                line.remove(entry)
            entry.rank += 1
            for line in (self._arrivals, lane):
                line.add(entry)

    def _put(self, entry: Entry[T]) -> None:
        self._arrivals.add(entry)
        lane = self._lanes.get(entry.shape_key)
        if lane is None:
            lane = self._lanes[entry.shape_key] = _Line()
        lane.add(entry)
        self._waiting[entry.level] += 1
        self.rows += entry.rows
        self.bytes += entry.bytes

    def _remove(self, entry: Entry[T]) -> None:
        self._arrivals.remove(entry)
        lane = self._lanes[entry.shape_key]
        lane.remove(entry)
        if not lane:
            del self._lanes[entry.shape_key]
        self._waiting[entry.level] -= 1
        self.rows -= entry.rows
        self.bytes -= entry.bytes


def _turn(lane: _Line[T]) -> tuple[int, int]:
    first = next(iter(lane))
    return first.rank, first.enqueued_ns


class _Line(Generic[T]):
    """Entries by rank, within a rank in order of arrival. Ordered dicts give first-in-first-out and removal of a
    cancelled entry, both in constant time."""

    __slots__ = ("_ranks",)

    def __init__(self) -> None:
        self._ranks: dict[int, OrderedDict[Entry[T], None]] = {}  # in order, none empty

    def __len__(self) -> int:
        return sum(map(len, self._ranks.values()))

    def __bool__(self) -> bool:
        return bool(self._ranks)

    def __iter__(self) -> Iterator[Entry[T]]:
        return chain.from_iterable(self._ranks.values())

    def __contains__(self, entry: Entry[T]) -> bool:
        return entry in self._ranks.get(entry.rank, ())

    def add(self, entry: Entry[T]) -> None:
        rank = self._ranks.get(entry.rank)
        if rank is not None:
            rank[entry] = None
            return
        self._ranks[entry.rank] = OrderedDict(((entry, None),))
        if len(self._ranks) > 1:
            self._ranks = dict(sorted(self._ranks.items()))

    def remove(self, entry: Entry[T]) -> None:
        rank = self._ranks[entry.rank]
        del rank[entry]
        if not rank:
            del self._ranks[entry.rank]
