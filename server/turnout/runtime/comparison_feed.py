"""Comparisons and summaries as they come, for those who watch: a ComparisonSink that hands on, and waits for nobody."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from turnout.core.records import Compared, ShadowReport
from turnout.core.sampling import Export
from turnout.runtime.ports import ComparisonSink

PAIRS_MAX = 1024  # that a watcher may lag behind; then it misses the oldest
Event = Export[Compared] | ShadowReport


class ComparisonFeed:
    """Used on the loop thread only.

    Args:
        others: are told of everything too.
    """

    def __init__(self, *others: ComparisonSink) -> None:
        self._others = others
        self._watchers: set[Watcher] = set()

    def compared(self, told: Export[Compared]) -> None:
        pair = told.record.pair
        for watcher in self._watchers:
            watcher.put(told, pair.copy.request.model, pair.shadow.slot)
        for other in self._others:
            other.compared(told)

    def summarised(self, report: ShadowReport) -> None:
        for watcher in self._watchers:
            watcher.put_report(report)
        for other in self._others:
            other.summarised(report)

    @contextmanager
    def watch(self, model: str | None, slot: str | None) -> Iterator[Watcher]:
        """What comes from now on, of a model and a shadow slot (None: of all)."""
        watcher = Watcher(model, slot)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)


class Watcher:
    """Who is slow misses pairs; of summaries of one slot, the last stands for those before it, because it counts what
    they did."""

    def __init__(self, model: str | None, slot: str | None) -> None:
        self._model = model
        self._slot = slot
        self._pairs: deque[Export[Compared]] = deque(maxlen=PAIRS_MAX)
        self._reports: dict[tuple[str, str], ShadowReport] = {}
        self._come = asyncio.Event()

    def put(self, told: Export[Compared], model: str, slot: str) -> None:
        if self._wants(model, slot):
            self._pairs.append(told)
            self._come.set()

    def put_report(self, report: ShadowReport) -> None:
        if self._wants(report.model, report.shadow_slot):
            self._reports[report.model, report.shadow_slot] = report
            self._come.set()

    async def next(self) -> Event:
        """Waits for it."""
        while not self._pairs and not self._reports:
            self._come.clear()
            await self._come.wait()
        if self._pairs:
            return self._pairs.popleft()
        return self._reports.pop(next(iter(self._reports)))

    def _wants(self, model: str, slot: str) -> bool:
        return self._model in (None, model) and self._slot in (None, slot)
