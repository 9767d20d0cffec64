"""Waits until an exact time on the event loop. Loop timers are too coarse for that (uvloop's count milliseconds), so
Linux's timerfd is used where it is there; `time.monotonic_ns` and the timer are the same clock."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from typing import Protocol

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1


class Pacer(Protocol):
    """Waits until a time of the run's clock."""

    async def until(self, due_ns: int) -> None: ...
    def close(self) -> None: ...


class LoopPacer:
    """By a timer of the loop."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns

    async def until(self, due_ns: int) -> None:
        await asyncio.sleep(max(due_ns - self._clock_ns(), 0) / 1e9)

    def close(self) -> None:
        """Nothing is held."""


class TimerPacer:
    """By a timerfd that the loop watches: accurate to some 50 us, and costs nothing while it waits."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = int(self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._waiting: asyncio.Future[None] | None = None
        asyncio.get_running_loop().add_reader(self._fd, self._fire)

    async def until(self, due_ns: int) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        seconds, nanoseconds = divmod(max(due_ns, 1), 10**9)
        setting = (ctypes.c_long * 4)(0, 0, seconds, nanoseconds)  # struct itimerspec: no interval, then the time
        self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, setting, None)
        await self._waiting

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _fire(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(None)


def new_pacer(clock_ns: Callable[[], int]) -> Pacer:
    """The best pacer of this platform, on the running loop. `clock_ns` must be `time.monotonic_ns` for a timerfd."""
    return TimerPacer() if sys.platform == "linux" else LoopPacer(clock_ns)
