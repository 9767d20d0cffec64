"""How many live requests are under way, for work that can wait until there are none: on one core, or for want of the
interpreter, whatever runs beside a request is what that waits for."""

from __future__ import annotations

import asyncio

_QUIET_TURNS = 4  # of the loop after the last answer, which leaves in them


class UnderWay:
    """Used on the loop thread only; `count` may be read anywhere."""

    __slots__ = ("_waiting", "count")

    def __init__(self) -> None:
        self.count = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def begin(self) -> None:
        self.count += 1

    def end(self) -> None:
        self.count -= 1
        if not self.count and self._waiting:
            for future in self._waiting:
                _settle(future)
            self._waiting.clear()

    async def pause(self, until_s: float) -> bool:
        """Until no live request is under way, at the latest until then, by the loop's clock. Returns whether none is.
        Whatever is ready in the loop goes first in any case."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        while self.count and loop.time() < until_s:
            future = loop.create_future()
            timer = loop.call_at(until_s, _settle, future)
            self._waiting.add(future)
            await future
            timer.cancel()
            self._waiting.discard(future)
            for _ in range(_QUIET_TURNS):
                await asyncio.sleep(0)
        return not self.count


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
