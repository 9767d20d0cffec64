"""ModelInfer, ModelStreamInfer and what models' own services have in their place: bytes in, bytes out, by way of a
dialect and the dispatcher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from turnout.core.errors import Reason, ServingError
from turnout.core.tensors import InferenceRequest, InferenceResponse
from turnout.runtime.counts import Counts
from turnout.runtime.dispatcher import Dispatcher
from turnout.runtime.ports import ClockNs, Observer, Tracer
from turnout.runtime.tracing import NO_TRACER
from turnout.runtime.under_way import UnderWay
from turnout.transport import codec
from turnout.transport.calls import CallLimits, Calls
from turnout.transport.dialects import Dialect, OpenInference
from turnout.transport.exchanges import Exchange, Exchanges, Headers
from turnout.transport.status import STATUS, Context, StatusTable
from turnout.transport.streaming import Conversation

_QUIET_S = 0.1  # a client that was answered sends its next request well within this
_TICK_S = 0.01


class InferenceHandlers:
    """The RPCs that run models: one request, or a stream of them, in the dialect that is given, or the protocol's.

    Args:
        limits: what of a request is decoded at all.
        identity: whether answers say which slot and revision gave them.
        under_way: counts calls too.
        stream_inflight_max: requests of one stream that may be on their way; at the bound it is not read further.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        clock_ns: ClockNs,
        observer: Observer,
        limits: codec.DecodeLimits,
        call_limits: CallLimits,
        identity: bool,
        stream_inflight_max: int,
        counts: Counts,
        under_way: UnderWay,
        tracer: Tracer = NO_TRACER,
        table: StatusTable = STATUS,
    ) -> None:
        self._clock_ns = clock_ns
        self._protocol = OpenInference(limits)
        self._id_characters_max = limits.id_characters_max
        self._identity = identity
        self._stream_inflight_max = stream_inflight_max
        self._readers: set[asyncio.Task[None]] = set()
        self._closed = False
        self._closed_ns = 0
        self._calls = Calls(call_limits, clock_ns, under_way)
        self._table = table
        self._exchanges = Exchanges(dispatcher, clock_ns, observer, counts, tracer, table)

    @property
    def calls(self) -> int:
        """Calls and streams under way."""
        return self._calls.count

    @property
    def answer_bytes(self) -> int:
        """Of answers that gRPC has not sent yet."""
        return self._calls.answer_bytes

    def close(self) -> None:
        """Refuse new requests as UNAVAILABLE, and take no further one from any stream. Those taken are answered."""
        self._closed = True
        self._closed_ns = self._clock_ns()
        for reader in self._readers:
            reader.cancel()

    async def quiet(self, seconds_max: float) -> None:
        """Once closed: until no request is under way and none has come for a while, at most `seconds_max`. gRPC, when
        it stops, cancels what arrives before clients have heard of it, and a cancelled call is nothing to retry."""
        end_ns = self._clock_ns() + int(seconds_max * 1e9)
        while (now_ns := self._clock_ns()) < end_ns:
            if not self.calls and now_ns >= max(self._closed_ns, self._calls.ended_ns) + int(_QUIET_S * 1e9):
                return
            await asyncio.sleep(_TICK_S)

    async def infer(self, _: object, context: Context, dialect: Dialect | None = None) -> bytes:
        """One request, one answer. A client that leaves takes its request out of the queue."""
        if dialect is None:
            dialect = self._protocol
        call = self._calls.begin(context)
        exchange = Exchange(dialect.unary, Headers(context))
        self._exchanges.begin(exchange)
        try:
            if self._closed:
                raise ServingError(Reason.NOT_READY, "the server stops: send the request to another one")
            self._calls.refuse_beyond_bounds()
            # The message has no name here: what the request does not hold of it is not kept while that waits.
            request = self._exchanges.decode(
                exchange, dialect.read(await self._calls.receive(call, context)), self._exchanges.deadline_ns(context)
            )
            response = await self._answer(request)
            answer = dialect.encode(request, response, identity=self._identity)
        except asyncio.CancelledError:
            self._exchanges.ended(exchange, None)
            raise
        except Exception as error:  # noqa: BLE001 - raised again, as what the client may know of it
            raise self._exchanges.failed(exchange, error) from None
        self._exchanges.ended(exchange, response)
        return self._calls.answered(call, answer)

    async def stream(
        self, raws: AsyncIterator[bytes], context: Context, dialect: Dialect | None = None, packed: bool = False
    ) -> None:
        """Many requests, and as many answers in their order; `packed`: any number of them in a message."""
        call = self._calls.begin(context)
        self._calls.refuse_beyond_bounds()
        conversation = Conversation(
            self._exchanges,
            self._calls,
            dialect or self._protocol,
            context,
            call,
            self._table,
            packed=packed,
            identity=self._identity,
            inflight_max=self._stream_inflight_max,
            id_characters_max=self._id_characters_max,
        )
        reader = asyncio.get_running_loop().create_task(conversation.read(raws))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        if self._closed:
            reader.cancel()
        await conversation.answer(reader)

    async def _answer(self, request: InferenceRequest) -> InferenceResponse:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[InferenceResponse | ServingError] = loop.create_future()

        def settle(outcome: InferenceResponse | ServingError) -> None:
            # A cancelled task cancels its future at once, but gets to say so here only at its next step.
            if not future.done():
                future.set_result(outcome)

        ticket = self._exchanges.send(request, settle)
        timer = self._exchanges.expire_in_time(ticket, loop)
        try:
            outcome = await future
        except asyncio.CancelledError:
            ticket.cancel()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome
