"""The calls under way, from their headers until gRPC has sent their answer: how many, and what their answers hold.

A client that sends or reads too slowly gives its place back. One timer looks after all calls, because a timer for each
would cost every request.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from turnout.core.errors import Reason, ServingError
from turnout.runtime.ports import ClockNs
from turnout.runtime.under_way import UnderWay
from turnout.transport.status import Context

# By so much a client may end a call at its deadline before ours, which is counted from when the call arrived.
EARLY_NS = 50_000_000
_RETRY_MS = 100


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What calls may hold before their request is known and after it is answered; each has its flag in config.py.

    Attributes:
        calls_max: calls and streams under way. One more is refused, whatever it asks.
        transfer_timeout_s: how long a request may take to arrive, and an answer of ModelInfer to leave.
        answer_bytes_max: answers that clients have not read yet. Beyond it, new requests are refused.
    """

    calls_max: int
    transfer_timeout_s: float
    answer_bytes_max: int = 1 << 31


class Calls:
    """All calls of this server that run models. Those of one request are `under_way` from before it is read."""

    def __init__(self, limits: CallLimits, clock_ns: ClockNs, under_way: UnderWay) -> None:
        self.count = 0
        self.answer_bytes = 0
        self.ended_ns = 0  # when one last ended
        self._limits = limits
        self._clock_ns = clock_ns
        self._under_way = under_way
        self._transfers: dict[Call, float] = {}  # since when, in order
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, context: Context) -> Call:
        """Count a call until gRPC is done with it."""
        call = Call(self, context)
        self.count += 1
        context.add_done_callback(call.end)
        return call

    def refuse_beyond_bounds(self) -> None:
        """Raises:
        ServingError: QUEUE_FULL.
        """
        bound = ""
        if self.count > self._limits.calls_max:
            bound = f"{self._limits.calls_max} calls"
        elif self.answer_bytes > self._limits.answer_bytes_max:
            bound = f"{self._limits.answer_bytes_max} bytes of answers that were not read"
        if bound:
            raise ServingError(Reason.QUEUE_FULL, f"this server is full (limit: {bound}), retry later", _RETRY_MS)

    async def receive(self, call: Call, context: Context) -> bytes:
        """The request of a call of one.

        Raises:
            ServingError: DEADLINE_EXCEEDED when it takes too long, INVALID_REQUEST when the client sends none.
        """
        call.single = True
        self._under_way.begin()
        self._watch(call)
        try:
            raw = await context.read()
        except asyncio.CancelledError:
            if not call.late:
                raise
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            raise ServingError(
                Reason.DEADLINE_EXCEEDED,
                f"the request took longer than {self._limits.transfer_timeout_s} s to arrive: send it faster",
            ) from None
        finally:
            self._transfers.pop(call, None)
        if not isinstance(raw, bytes):
            raise ServingError(Reason.INVALID_REQUEST, "the call has no request message")
        return raw

    def answered(self, call: Call, answer: bytes) -> bytes:
        """The answer of a call of one request: it is on its way from here on."""
        call.hold(len(answer))
        self._watch(call)
        return answer

    def ended(self, call: Call) -> None:
        self.count -= 1
        self.ended_ns = self._clock_ns()
        if call.single:
            self._under_way.end()
        self._transfers.pop(call, None)

    def _watch(self, call: Call) -> None:
        loop = asyncio.get_running_loop()
        self._transfers[call] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._limits.transfer_timeout_s, self._end_late)

    def _end_late(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._transfers:
            call, since = next(iter(self._transfers.items()))
            late_at = since + self._limits.transfer_timeout_s
            if late_at > loop.time():
                self._timer = loop.call_at(late_at, self._end_late)
                return
            del self._transfers[call]
            call.late = True
            if call.context is not None:
                call.context.cancel()


class Call:
    """One call, and the bytes of answers that it holds."""

    __slots__ = ("_bytes", "_calls", "context", "late", "single")

    def __init__(self, calls: Calls, context: Context) -> None:
        self.context: Context | None = context
        self.late = False
        self.single = False  # it has been asked for its only request
        self._calls = calls
        self._bytes = 0

    def hold(self, size: int) -> None:
        self._bytes += size
        self._calls.answer_bytes += size

    def let_go(self, size: int) -> None:
        self._bytes -= size
        self._calls.answer_bytes -= size

    def end(self, _: Any) -> None:
        self.let_go(self._bytes)
        self._calls.ended(self)
        self.context = None  # a cycle: what they hold would wait to be collected
