"""Virtual time: an event loop whose clock jumps to the next timer, and executors that run on it.

A test on this loop takes no real time, never sleeps, and ends with an error when nothing is left to wait for.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext
from typing import Any, TypeVar

from turnout.runtime.ports import Worker

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time starts at 1000 s, so that a forgotten 0 shows."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now_s


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("virtual time: every task waits, and no timer is set")
        self._loop.now_s += timeout
        return super().select(0)


class VirtualClock:
    """Monotonic nanoseconds of the running virtual loop. Inside a model run, `spend` moves the executor's own time
    ahead; the loop catches up when the executor reports."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.ahead_ns = 0

    def __call__(self) -> int:
        return round(self._loop.now_s * 1e9) + self.ahead_ns

    def spend(self, ns: int) -> None:
        self.ahead_ns += ns


class VirtualExecutors:
    """The Executors port on virtual time: a run takes what the model spends on the clock."""

    def __init__(self, loop: VirtualLoop, clock: VirtualClock) -> None:
        self.lock = nullcontext()
        self._loop = loop
        self._clock = clock
        self._idle: list[int] = []
        self._count = 0
        self._worker: Worker | None = None
        self._all_idle = asyncio.Event()

    def start(self, worker: Worker, count: int) -> None:
        self._worker = worker
        self._idle = list(range(count))
        self._count = count
        self._all_idle.set()

    def notify(self) -> None:
        self._loop.call_soon(self._pull)

    async def stop(self) -> None:
        self._pull()
        await self._all_idle.wait()

    def _pull(self) -> None:
        assert self._worker is not None
        while self._idle:
            decision = self._worker.poll(self._clock(), self._idle[0])
            if not decision:
                if decision.hold_ns is not None:
                    self._loop.call_at(decision.hold_ns / 1e9, self._pull)
                return
            executor = self._idle.pop(0)
            self._all_idle.clear()
            report = self._worker.execute(executor, decision)
            spent_ns, self._clock.ahead_ns = self._clock.ahead_ns, 0
            self._loop.call_later(spent_ns / 1e9, self._finish, executor, report)

    def _finish(self, executor: int, report: Any) -> None:
        assert self._worker is not None
        self._worker.deliver(report)
        self._idle.append(executor)
        self._pull()
        if len(self._idle) == self._count:
            self._all_idle.set()


async def inline(blocking: Callable[..., T], *args: Any) -> T:
    """The Offload port without a thread."""
    return blocking(*args)


def run_virtual(main: Callable[[VirtualLoop], Awaitable[T]]) -> T:
    """Run `main(loop)` on a fresh virtual loop."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test coroutine on virtual time; its first argument is the loop, the others are pytest's."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtual(lambda loop: test(loop, *args, **kwargs))

    signature = inspect.signature(test)
    run.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return run
