"""The batch queue: decides which waiting requests run together, and when. Pure: the caller passes the time, holds
the lock and does the waiting.

Policy `eager` (work-conserving): an executor that is free takes all that is queued and fits, at once. Requests join
a batch only when their non-batch shapes are equal; they are taken in order of arrival and never split. What is
expired or cancelled is dropped when a batch is formed, so that nothing runs for a client that has left.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """One queued request: what it weighs, how long it may wait, and the caller's own `item`."""

    item: T
    rows: int
    bytes: int
    shape_key: Hashable
    deadline_ns: int | None
    enqueued_ns: int


@dataclass(frozen=True, slots=True)
class Decision(Generic[T]):
    """What an executor is to do now: run `batch` (empty: wait for the next offer), and tell `expired` so."""

    batch: tuple[Entry[T], ...] = ()
    expired: tuple[Entry[T], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.batch or self.expired)


class BatchQueue(Generic[T]):
    """Requests of one slot, in order of arrival, bounded in rows and bytes.

    Args:
        rows_max: rows of the largest batch.
        queue_rows_max, queue_bytes_max: bounds of what may wait; a request that would cross one is not taken.
    """

    def __init__(self, rows_max: int, queue_rows_max: int, queue_bytes_max: int) -> None:
        self.rows = 0
        self.bytes = 0
        self._rows_max = rows_max
        self._queue_rows_max = queue_rows_max
        self._queue_bytes_max = queue_bytes_max
        # Ordered dicts give first-in-first-out and removal of a cancelled entry, both in constant time.
        self._arrivals: OrderedDict[Entry[T], None] = OrderedDict()
        self._lanes: dict[Hashable, OrderedDict[Entry[T], None]] = {}

    def __len__(self) -> int:
        return len(self._arrivals)

    def offer(self, entry: Entry[T]) -> bool:
        """Take the entry, or return False when the queue is at a bound. An empty queue takes any entry."""
        if self._arrivals and (
            self.rows + entry.rows > self._queue_rows_max or self.bytes + entry.bytes > self._queue_bytes_max
        ):
            return False
        self._arrivals[entry] = None
        self._lanes.setdefault(entry.shape_key, OrderedDict())[entry] = None
        self.rows += entry.rows
        self.bytes += entry.bytes
        return True

    def cancel(self, entry: Entry[T]) -> bool:
        """Drop a waiting entry; False when it is no longer waiting (it runs, ended, or was never taken)."""
        if entry not in self._arrivals:
            return False
        self._remove(entry)
        return True

    def poll(self, now_ns: int) -> Decision[T]:
        """Form the next batch: the oldest live request, and those of its shape behind it that fit."""
        expired: list[Entry[T]] = []
        batch: list[Entry[T]] = []
        rows = 0
        while self._arrivals and not batch:
            lane = self._lanes[next(iter(self._arrivals)).shape_key]
            while lane and rows < self._rows_max:
                entry = next(iter(lane))
                if entry.deadline_ns is not None and entry.deadline_ns <= now_ns:
                    expired.append(entry)
                elif rows and rows + entry.rows > self._rows_max:
                    break
                else:
                    batch.append(entry)
                    rows += entry.rows
                self._remove(entry)
        return Decision(tuple(batch), tuple(expired))

    def _remove(self, entry: Entry[T]) -> None:
        del self._arrivals[entry]
        lane = self._lanes[entry.shape_key]
        del lane[entry]
        if not lane:
            del self._lanes[entry.shape_key]
        self.rows -= entry.rows
        self.bytes -= entry.bytes
