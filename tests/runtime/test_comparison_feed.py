"""Who watches comparisons gets what was asked for, in order, and holds up nobody."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cache

from support.shadows import confused, report, told
from support.virtual import VirtualLoop, virtual
from turnout.core.records import Compared, ShadowReport
from turnout.core.sampling import Export
from turnout.runtime.comparison_feed import PAIRS_MAX, ComparisonFeed, Event


@dataclass
class Other:
    """The ComparisonSink port."""

    events: list[Event] = field(default_factory=list)

    def compared(self, told: Export[Compared]) -> None:
        self.events.append(told)

    def summarised(self, report: ShadowReport) -> None:
        self.events.append(report)


@cache
def pair(number: int = 0, slot: str = "green", model: str = "m") -> Export[Compared]:
    return told(confused(slot, model, f"id-{number}").without_tensors())


@virtual
async def test_others_are_told_of_everything(loop: VirtualLoop) -> None:
    others = Other(), Other()
    feed = ComparisonFeed(*others)
    events = [pair(1), report("red"), pair(2, "red", "n")]
    with feed.watch("x", None):
        feed.compared(events[0])  # type: ignore[arg-type]
        feed.summarised(events[1])  # type: ignore[arg-type]
        feed.compared(events[2])  # type: ignore[arg-type]
    assert others[0].events == others[1].events == events


@virtual
async def test_a_watcher_gets_what_it_asked_for_and_only_from_then_on(loop: VirtualLoop) -> None:
    feed = ComparisonFeed()
    feed.compared(pair(0))
    feed.summarised(report())
    with feed.watch("m", "green") as mine, feed.watch(None, "green") as slot, feed.watch(None, None) as all_:
        for event in (pair(1), pair(2, "red"), pair(3, "green", "n")):
            feed.compared(event)
        feed.summarised(report("red"))
        feed.summarised(report("green"))
        assert await mine.next() == pair(1)
        assert await mine.next() == report()
        assert [await slot.next() for _ in range(3)] == [pair(1), pair(3, "green", "n"), report()]
        assert [await all_.next() for _ in range(5)][-2:] == [report("red"), report()]


@virtual
async def test_a_watcher_waits_until_something_comes(loop: VirtualLoop) -> None:
    feed = ComparisonFeed()
    with feed.watch(None, None) as watcher:
        for event in (pair(1), pair(2)):
            waiting = asyncio.ensure_future(watcher.next())
            await asyncio.sleep(1)
            assert not waiting.done()
            feed.compared(event)
            assert await asyncio.wait_for(waiting, 1) == event
        waiting = asyncio.ensure_future(watcher.next())
        feed.summarised(report())
        assert await asyncio.wait_for(waiting, 1) == report()


@virtual
async def test_a_slow_watcher_holds_a_bounded_number(loop: VirtualLoop) -> None:
    feed = ComparisonFeed()
    reports, red = [report(pairs=pairs) for pairs in range(1, 6)], report("red")
    with feed.watch("m", None) as slow, feed.watch("m", None) as quick:
        for number in range(2 * PAIRS_MAX):
            feed.compared(pair(number))
            feed.summarised(reports[number % 5])
            feed.summarised(red)
            assert await quick.next() == pair(number)
        got = [await slow.next() for _ in range(PAIRS_MAX + 2)]
        assert got[0] == pair(PAIRS_MAX), "the oldest are missed"
        assert got[PAIRS_MAX - 1] == pair(2 * PAIRS_MAX - 1)
        assert got[PAIRS_MAX:] == [reports[(2 * PAIRS_MAX - 1) % 5], red], "the last of each slot"
        assert not (slow._pairs or slow._reports)


@virtual
async def test_who_leaves_is_forgotten(loop: VirtualLoop) -> None:
    feed = ComparisonFeed()
    with feed.watch(None, None) as watcher:
        assert feed._watchers == {watcher}
    assert not feed._watchers
    feed.compared(pair())
    assert not watcher._pairs
