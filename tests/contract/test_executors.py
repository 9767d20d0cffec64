"""One contract for whatever drives a Worker: the threads of the server and the virtual ones of the simulation."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from support.virtual import VirtualClock, VirtualExecutors, VirtualLoop, run_virtual
from turnout.backends.threads import ThreadExecutors
from turnout.core.batching import Decision, Entry
from turnout.runtime.ports import Executors

RUN_S = 0.2  # of a virtual run; a real one takes as long as its meeting


class Numbers:
    """A Worker over a queue of numbers; each decision takes one. `meet` is called inside each run."""

    def __init__(self, executors: Executors, meet: Callable[[], object]) -> None:
        self.queue: deque[int] = deque()
        self.delivered: list[int] = []
        self.executors_used: set[int] = set()
        self._executors = executors
        self._meet = meet

    def offer(self, *numbers: int) -> None:
        for number in numbers:
            with self._executors.lock:
                self.queue.append(number)
                self._executors.notify()

    def poll(self, now_ns: int, executor: int) -> Decision[int]:
        return Decision((Entry(self.queue.popleft(), 1, 0, "", None, now_ns),)) if self.queue else Decision()

    def waiting(self) -> bool:
        return bool(self.queue)

    def execute(self, executor: int, decision: Decision[int]) -> list[int]:
        self.executors_used.add(executor)
        self._meet()
        return [entry.item for entry in decision.batch]

    def deliver(self, report: Any) -> None:
        self.delivered += report


class Case:
    """One kind of executors: how to make them, and how to let n runs meet."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def run(self, test: Callable[[Numbers, Executors], Any], count: int, meeting: int = 1) -> Numbers:
        """Runs `test(worker)` with `count` executors; every run waits until `meeting` runs are under way."""

        async def main(loop: Any) -> Numbers:
            if isinstance(loop, VirtualLoop):
                clock = VirtualClock(loop)
                executors: Executors = VirtualExecutors(loop, clock)
                worker = Numbers(executors, lambda: clock.spend(int(RUN_S * 1e9)))
            else:
                barrier = threading.Barrier(meeting)
                executors = ThreadExecutors("c", asyncio.get_running_loop(), time.monotonic_ns)
                worker = Numbers(executors, lambda: barrier.wait(20))
            executors.start(worker, count)
            await test(worker, executors)
            return worker

        if self.kind == "virtual":
            return run_virtual(main)
        return asyncio.run(asyncio.wait_for(main(None), 60))


@pytest.fixture(params=["threads", "virtual"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_every_number_is_delivered_once_and_stop_waits_for_all_of_them(case: Case) -> None:
    async def test(worker: Numbers, executors: Executors) -> None:
        for number in range(30):
            worker.offer(number)
            if number % 7 == 0:
                await asyncio.sleep(0)
        await executors.stop()

    worker = case.run(test, count=3)
    assert sorted(worker.delivered) == list(range(30))


def test_a_burst_runs_side_by_side_on_all_executors(case: Case) -> None:
    """On threads, each run waits for the three others: a lost wake-up would break the barrier."""

    async def test(worker: Numbers, executors: Executors) -> None:
        started = asyncio.get_running_loop().time()
        worker.offer(1, 2, 3, 4)
        await executors.stop()
        if case.kind == "virtual":
            assert asyncio.get_running_loop().time() - started == pytest.approx(RUN_S)

    worker = case.run(test, count=4, meeting=4)
    assert sorted(worker.delivered) == [1, 2, 3, 4]
    assert worker.executors_used == {0, 1, 2, 3}


def test_what_is_offered_while_all_executors_run_is_taken_without_another_wake_up(case: Case) -> None:
    async def test(worker: Numbers, executors: Executors) -> None:
        worker.offer(1)
        await asyncio.sleep(0)
        worker.offer(2, 3)
        await executors.stop()

    assert case.run(test, count=1).delivered == [1, 2, 3]


def test_stop_without_work_ends_at_once(case: Case) -> None:
    async def test(worker: Numbers, executors: Executors) -> None:
        await executors.stop()

    assert case.run(test, count=2).delivered == []
