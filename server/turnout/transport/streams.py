"""The requests of one stream: side by side they wait for their answers, which leave in the order of the requests.

Nothing here is a task: a message of a stream costs a fraction of a call, and a task for each would be much of that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from turnout.core.errors import ServingError
from turnout.core.tensors import InferenceRequest
from turnout.core.tracing import TraceContext
from turnout.runtime.dispatcher import Ticket
from turnout.transport.codec import Asked


class StreamError:
    """A request of a stream that failed, and why."""

    __slots__ = ("asked", "error")

    def __init__(self, asked: Asked, error: ServingError) -> None:
        self.asked = asked
        self.error = error


StreamAnswer = bytes | StreamError


class Streamed:
    """One request of a stream, and its answer once there is one. What it holds of the request it lets go then."""

    __slots__ = ("_order", "answer", "asked", "request", "started_ns", "ticket", "timer", "trace")

    def __init__(self, order: Order, started_ns: int, trace: TraceContext | None) -> None:
        self._order = order
        self.started_ns = started_ns
        self.trace = trace
        self.asked = Asked()
        self.request: InferenceRequest | None = None
        self.ticket: Ticket | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.answer: StreamAnswer | None = None

    def settle(self, answer: StreamAnswer) -> None:
        self.answer = answer
        self.request = self.ticket = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self._order.settled(self)


class Cancelled(Protocol):
    """Is told of each request that nobody waits for any more."""

    def __call__(self, streamed: Streamed) -> None: ...


class Order:
    """The requests under way, oldest first; at most `places_max`."""

    def __init__(self, places_max: int) -> None:
        self._places = asyncio.Semaphore(places_max)
        self._waiting: deque[Streamed] = deque()
        self._wake = asyncio.Event()
        self._finished = False

    async def place(self) -> None:
        """Until one more request may be read."""
        await self._places.acquire()

    def add(self, started_ns: int, trace: TraceContext | None) -> Streamed:
        """A request for a place that was waited for."""
        streamed = Streamed(self, started_ns, trace)
        self._waiting.append(streamed)
        return streamed

    def settled(self, streamed: Streamed) -> None:
        if self._waiting and self._waiting[0] is streamed:
            self._wake.set()

    def finish(self) -> None:
        """No further request will come."""
        self._finished = True
        self._wake.set()

    async def next(self) -> StreamAnswer | None:
        """The next answer that is due; None: there is none any more. Its place is free once it has been sent."""
        while True:
            if self._waiting:
                answer = self._waiting[0].answer
                if answer is not None:
                    self._waiting.popleft()
                    return answer
            elif self._finished:
                return None
            self._wake.clear()
            await self._wake.wait()

    def sent(self) -> None:
        self._places.release()

    def abandon(self, cancelled: Cancelled) -> None:
        """Nobody waits for what is under way: it is taken out of its queue."""
        while self._waiting:
            streamed = self._waiting.popleft()
            if streamed.answer is not None:
                continue
            cancelled(streamed)
            if streamed.timer is not None:
                streamed.timer.cancel()
            if streamed.ticket is not None:
                streamed.ticket.cancel()
                streamed.ticket = None  # each knows the other: without this, both would wait to be collected
