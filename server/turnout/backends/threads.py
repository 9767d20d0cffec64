"""Threads. Executors: each pulls a decision under the lock, runs it, and reports it to the loop in one hop. And
`offload`, for a blocking call now and then. All are daemons: what hangs in a model cannot keep the process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from threading import Condition, Thread
from typing import ParamSpec, TypeVar

from turnout.runtime.ports import ClockNs, Worker

# An executor wakes up once the loop has gone so many turns without a new request, or after this time: a wake-up costs
# as much CPU as several requests, which shows where batches are small. mlp_small, 32 clients, server on one core: woken
# at each turn 950 us of CPU a request (1.7 rows a batch), so 580 us (8.5 rows).
_QUIET_TURNS = 4
_LINGER_NS_MAX = 5_000_000

P = ParamSpec("P")
T = TypeVar("T")


class ThreadExecutors:
    """The executor threads of one slot."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, clock_ns: ClockNs) -> None:
        self._name = name
        self._loop = loop
        self._clock_ns = clock_ns
        self._condition = Condition()
        self._stopping = False
        self._kick_pending = False
        self._offered = False  # since the last turn of the loop
        self._quiet_turns = 0
        self._linger_until_ns = 0
        self._running = 0
        self._ended = asyncio.Event()

    @property
    def lock(self) -> Condition:
        return self._condition

    def start(self, worker: Worker, count: int) -> None:
        self._running = count
        for index in range(count):
            Thread(target=self._drive, args=(worker, index), name=f"{self._name}-{index}", daemon=True).start()

    def notify(self) -> None:
        """Wakes an executor not now but when the loop has nothing more to offer: what comes meanwhile joins."""
        self._offered = True
        if not self._kick_pending:
            self._kick_pending = True
            self._linger_until_ns = self._clock_ns() + _LINGER_NS_MAX
            self._loop.call_soon(self._kick)

    def _kick(self) -> None:
        self._quiet_turns = 0 if self._offered else self._quiet_turns + 1
        self._offered = False
        if self._quiet_turns < _QUIET_TURNS and self._clock_ns() < self._linger_until_ns:
            self._loop.call_soon(self._kick)
            return
        self._kick_pending = False
        with self._condition:
            self._condition.notify()

    async def stop(self) -> None:
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        await self._ended.wait()

    def _drive(self, worker: Worker, index: int) -> None:
        while True:
            with self._condition:
                while not (decision := worker.poll(self._clock_ns(), index)):
                    if self._stopping and not worker.waiting():
                        self._loop.call_soon_threadsafe(self._end)
                        return
                    self._condition.wait(self._hold_s(decision.hold_ns))
                if worker.waiting():
                    self._condition.notify()  # one wake-up stands for all that a turn of the loop offered
            report = worker.execute(index, decision)
            self._loop.call_soon_threadsafe(worker.deliver, report)
            del decision, report  # the next wait may be long, and these hold request and answer buffers

    def _hold_s(self, until_ns: int | None) -> float | None:
        """A timed wait of the thread is finer than a timer of the loop."""
        return None if until_ns is None else max(until_ns - self._clock_ns(), 0) / 1e9

    def _end(self) -> None:
        self._running -= 1
        if self._running == 0:
            self._ended.set()


async def offload(blocking: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call on a thread of its own. Unlike `asyncio.to_thread`, a loop that ends does not wait for it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result, error = blocking(*args, **kwargs), None
        except BaseException as raised:  # noqa: BLE001 - it is raised again where it is awaited
            result, error = None, raised
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    Thread(target=run, name="offload", daemon=True).start()
    return await future
