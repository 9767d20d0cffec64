"""The signals that end a server: the first says how, the second says at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any


class StopSignals:
    """SIGTERM asks for the drain delay; SIGINT comes from a person at a terminal, who does not want to wait."""

    def __init__(self, drain_delay_s: float) -> None:
        self._drain_delay_s = drain_delay_s
        self._delay_s: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._second = asyncio.Event()

    def received(self, number: signal.Signals) -> None:
        if self._delay_s.done():
            self._second.set()
        else:
            self._delay_s.set_result(self._drain_delay_s if number is signal.SIGTERM else 0)

    async def first(self) -> float:
        """Waits for a signal; returns the seconds to go on serving."""
        return await asyncio.shield(self._delay_s)  # whoever stops waiting leaves it to the next

    def second(self) -> bool:
        return self._second.is_set()

    async def second_or(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._second.wait(), seconds)


def stop_signals(drain_delay_s: float) -> StopSignals:
    stop = StopSignals(drain_delay_s)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.received, number)
    return stop


async def unless_stopped(opening: Coroutine[Any, Any, None], stop: StopSignals) -> bool:
    """False when a signal comes first. What loads then goes on in its thread, and ends with us."""
    opened = asyncio.ensure_future(opening)
    stopped = asyncio.ensure_future(stop.first())
    await asyncio.wait({opened, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for task in (opened, stopped):
        if not task.done():
            task.cancel()
    if not opened.done() or opened.cancelled():
        return False
    await opened
    return True
