"""Threads on a real loop: each report comes once, on the loop thread; stop ends them when the queue is empty."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import Any

import pytest

from turnout.backends.threads import ThreadExecutors, offload
from turnout.core.batching import Decision, Entry


class Counting:
    """A Worker over a deque of numbers; each decision takes one."""

    def __init__(self, executors: ThreadExecutors) -> None:
        self.waiting_numbers: deque[int] = deque()
        self.delivered: list[int] = []
        self.ran_on: set[str] = set()
        self.delivered_on: set[threading.Thread] = set()
        self.gate = threading.Event()
        self.gate.set()
        self._executors = executors

    def offer(self, *numbers: int) -> None:
        with self._executors.lock:
            self.waiting_numbers.extend(numbers)
            self._executors.notify()

    def poll(self, now_ns: int, executor: int) -> Decision[int]:
        assert now_ns > 0
        return (
            Decision((Entry(self.waiting_numbers.popleft(), 1, 0, "", None, 0),))
            if self.waiting_numbers
            else Decision()
        )

    def waiting(self) -> bool:
        return bool(self.waiting_numbers)

    def execute(self, executor: int, decision: Decision[int]) -> list[int]:
        assert self.gate.wait(10)
        self.ran_on.add(threading.current_thread().name)
        return [entry.item for entry in decision.batch]

    def deliver(self, report: Any) -> None:
        self.delivered += report
        self.delivered_on.add(threading.current_thread())


async def test_all_work_is_reported_on_the_loop_thread() -> None:
    executors = ThreadExecutors("t", asyncio.get_running_loop(), time.monotonic_ns)
    worker = Counting(executors)
    executors.start(worker, 3)
    for number in range(100):
        worker.offer(number)
        if number % 7 == 0:
            await asyncio.sleep(0)
    await executors.stop()
    assert sorted(worker.delivered) == list(range(100))
    assert worker.delivered_on == {threading.current_thread()}
    assert worker.ran_on <= {"t-0", "t-1", "t-2"}


async def test_a_batch_costs_one_hop_to_the_loop() -> None:
    """Invariant 4."""
    loop = asyncio.get_running_loop()
    hops: list[Any] = []

    class Counted:
        def call_soon(self, callback: Any) -> None:
            loop.call_soon(callback)

        def call_soon_threadsafe(self, callback: Any, *args: Any) -> None:
            hops.append(callback)
            loop.call_soon_threadsafe(callback, *args)

    executors = ThreadExecutors("t", Counted(), time.monotonic_ns)  # type: ignore[arg-type]

    class Whole(Counting):
        def poll(self, now_ns: int, executor: int) -> Decision[int]:
            batch = tuple(Entry(number, 1, 0, "", None, 0) for number in self.waiting_numbers)
            self.waiting_numbers.clear()
            return Decision(batch)

    worker = Whole(executors)
    executors.start(worker, 1)
    worker.offer(*range(50))
    while len(worker.delivered) < 50:
        await asyncio.sleep(0)
    assert hops == [worker.deliver]
    await executors.stop()


async def test_stop_finishes_what_is_queued_and_running() -> None:
    executors = ThreadExecutors("t", asyncio.get_running_loop(), time.monotonic_ns)
    worker = Counting(executors)
    worker.gate.clear()
    executors.start(worker, 1)
    worker.offer(1, 2, 3)
    stopping = asyncio.ensure_future(executors.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    worker.gate.set()
    await asyncio.wait_for(stopping, 10)
    assert worker.delivered == [1, 2, 3]


async def test_a_wake_up_waits_for_the_callbacks_that_are_ready() -> None:
    """What one turn of the loop offers is seen as a whole by the executor that it wakes."""
    executors = ThreadExecutors("t", asyncio.get_running_loop(), time.monotonic_ns)
    seen: list[int] = []

    class Whole(Counting):
        polled = False

        def poll(self, now_ns: int, executor: int) -> Decision[int]:
            self.polled = True
            if self.waiting_numbers:
                seen.append(len(self.waiting_numbers))
                self.waiting_numbers.clear()
                return Decision((Entry(0, 1, 0, "", None, 0),))
            return Decision()

    worker = Whole(executors)
    executors.start(worker, 1)
    while not worker.polled:  # from then on it holds the lock, or waits to be woken
        await asyncio.sleep(0)
    for number in range(5):
        worker.offer(number)
    await executors.stop()
    assert seen == [5]


async def test_offload_returns_or_raises_what_the_call_did() -> None:
    def fail(text: str) -> None:
        raise LookupError(text)

    assert await offload(divmod, 7, 2) == (3, 1)
    with pytest.raises(LookupError, match="gone"):
        await offload(fail, "gone")


def test_a_loop_that_ends_does_not_wait_for_an_offloaded_call() -> None:
    release, finished = threading.Event(), threading.Event()

    def hang() -> None:
        release.wait(30)
        finished.set()

    async def main() -> None:
        waiting = asyncio.ensure_future(offload(hang))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(main())
    assert not finished.is_set()
    release.set()
    assert finished.wait(30)
