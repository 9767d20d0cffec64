"""ModelInfer, ModelStreamInfer and what models' own services have in their place: bytes in, bytes out, by way of a
dialect and the dispatcher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from google.protobuf.message import DecodeError

from turnout.core.errors import Reason, ServingError
from turnout.core.tensors import InferenceRequest, InferenceResponse
from turnout.core.tracing import TraceContext
from turnout.runtime.counts import OTHER, Counts
from turnout.runtime.dispatcher import Dispatcher, OnDone, Ticket
from turnout.runtime.ports import ClockNs, Observer, Tracer
from turnout.runtime.tracing import NO_TRACER
from turnout.transport import codec
from turnout.transport.calls import Call, CallLimits, Calls
from turnout.transport.dialects import Dialect, OpenInference
from turnout.transport.status import STATUS, Context, StatusTable, as_refusal
from turnout.transport.streams import Order, Streamed, StreamError
from turnout.transport.tracing import Metadata, Traces

SLOT_PIN = "turnout-slot"  # request metadata
_TIMER_SLACK_S = 0.002  # loops may fire this much early, and an early hint is lost
_END_ON_ERROR = "triton_grpc_error"  # request metadata of a stream
_QUIET_S = 0.1  # a client that was answered sends its next request well within this
_TICK_S = 0.01
_NO_SLOT = frozenset({Reason.NOT_FOUND, Reason.NOT_READY})  # of the dispatcher's refusals: by the route, not by a slot


class InferenceHandlers:
    """The RPCs that run models: one request, or a stream of them, in the dialect that is given, or the protocol's.

    Args:
        limits: what of a request is decoded at all.
        identity: whether answers say which slot and revision gave them.
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
        tracer: Tracer = NO_TRACER,
        table: StatusTable = STATUS,
    ) -> None:
        self._dispatcher = dispatcher
        self._clock_ns = clock_ns
        self._observer = observer
        self._protocol = OpenInference(limits)
        self._id_characters_max = limits.id_characters_max
        self._identity = identity
        self._stream_inflight_max = stream_inflight_max
        self._readers: set[asyncio.Task[None]] = set()
        self._closed = False
        self._closed_ns = 0
        self._calls = Calls(call_limits, clock_ns)
        self._counts = counts
        self._table = table
        self._traces = Traces(tracer, clock_ns, table)

    @property
    def calls(self) -> int:
        """Calls and streams under way."""
        return self._calls.count

    @property
    def answer_bytes(self) -> int:
        """Of answers that gRPC has not sent yet."""
        return self._calls.answer_bytes

    def close(self) -> None:
        """Refuse new requests as UNAVAILABLE, and read no further one from any stream. What was read is answered."""
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
        started_ns = self._clock_ns()
        call = self._calls.begin(context)
        metadata = _metadata(context)
        trace = self._traces.begin(metadata)
        model, request = "", None
        try:
            self._refuse_when_closed()
            self._calls.refuse_beyond_bounds()
            raw = await self._calls.receive(call, context)
            received = dialect.read(raw)
            model = received.plan.model
            request = self._decode(received, metadata, context, trace)
            del raw, received  # what the request does not hold is not kept while it waits
            response = await self._answer(request)
            answer = dialect.encode(request, response, identity=self._identity)
        except asyncio.CancelledError:
            self._traces.ended(dialect.unary, started_ns, metadata, trace, request, None)
            raise
        except Exception as error:  # noqa: BLE001 - raised again, as what the client may know of it
            raise self._failed(dialect.unary, started_ns, metadata, trace, model, request, error) from None
        self._traces.ended(dialect.unary, started_ns, metadata, trace, request, response)
        return self._calls.answered(call, answer)

    async def stream(self, raws: AsyncIterator[bytes], context: Context, dialect: Dialect | None = None) -> None:
        """Requests run side by side, answers leave in order. An error is an answer: the stream goes on, unless the
        client asked for `triton_grpc_error`. When the client leaves, all of its requests do."""
        if dialect is None:
            dialect = self._protocol
        call = self._calls.begin(context)
        self._calls.refuse_beyond_bounds()
        metadata = _metadata(context)
        end_on_error = _value(metadata, _END_ON_ERROR) == "true"
        order = Order(self._stream_inflight_max)
        reader = asyncio.ensure_future(self._read(raws, context, call, dialect, metadata, order))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        reader.add_done_callback(lambda _: order.finish())  # however it ends: even before it began
        if self._closed:
            reader.cancel()
        try:
            while (answer := await order.next()) is not None:
                if isinstance(answer, StreamError):
                    if end_on_error:
                        raise answer.error
                    code = self._table[answer.error.reason].name
                    answer = dialect.encode_stream_error(answer.asked, answer.error, code)
                    call.hold(len(answer))
                await context.write(answer)
                call.let_go(len(answer))
                order.sent()
            if reader.cancelled():
                raise ServingError(Reason.NOT_READY, "the server stops: open a stream to another one")
            reader.result()
        finally:
            reader.cancel()
            order.abandon(lambda streamed: self._left(streamed, dialect, metadata))
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(
        self,
        raws: AsyncIterator[bytes],
        context: Context,
        call: Call,
        dialect: Dialect,
        metadata: Metadata,
        order: Order,
    ) -> None:
        await order.place()
        async for raw in raws:
            self._begin_streamed(raw, context, call, dialect, metadata, order)
            await order.place()

    def _begin_streamed(
        self, raw: bytes, context: Context, call: Call, dialect: Dialect, metadata: Metadata, order: Order
    ) -> None:
        """Send a request of a stream on its way."""
        streamed = order.add(self._clock_ns(), self._traces.begin(metadata))
        model = ""
        try:
            received = dialect.read(raw)
            model = received.plan.model
            streamed.asked = codec.Asked.of(received, self._id_characters_max)
            self._calls.refuse_beyond_bounds()
            streamed.request = request = self._decode(received, metadata, context, streamed.trace)
            del raw, received  # what the request does not hold is not kept while it waits
            ticket = self._submit(request, partial(self._settle, streamed, call, dialect, metadata))
        except Exception as error:  # noqa: BLE001 - it belongs to this request, not to the stream
            self._fail(streamed, dialect, metadata, model, error)
            return
        if streamed.answer is None:
            streamed.ticket = ticket
            streamed.timer = self._timer(ticket)

    def _settle(
        self,
        streamed: Streamed,
        call: Call,
        dialect: Dialect,
        metadata: Metadata,
        outcome: InferenceResponse | ServingError,
    ) -> None:
        request = streamed.request
        assert request is not None
        if isinstance(outcome, ServingError):
            self._fail(streamed, dialect, metadata, request.model, outcome)
            return
        try:
            answer = dialect.encode(request, outcome, identity=self._identity, streamed=True)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(streamed, dialect, metadata, request.model, error)
            return
        self._traces.ended(dialect.stream, streamed.started_ns, metadata, streamed.trace, request, outcome)
        call.hold(len(answer))
        streamed.settle(answer)

    def _fail(self, streamed: Streamed, dialect: Dialect, metadata: Metadata, model: str, error: Exception) -> None:
        started_ns, trace, request = streamed.started_ns, streamed.trace, streamed.request
        refusal = self._failed(dialect.stream, started_ns, metadata, trace, model, request, error)
        # Its traceback would hold our frames, and the request in them.
        streamed.settle(StreamError(streamed.asked, refusal.with_traceback(None)))

    def _left(self, streamed: Streamed, dialect: Dialect, metadata: Metadata) -> None:
        """The client has left before the answer."""
        started_ns, trace = streamed.started_ns, streamed.trace
        self._traces.ended(dialect.stream, started_ns, metadata, trace, streamed.request, None)

    def _failed(
        self,
        method: str,
        started_ns: int,
        metadata: Metadata,
        trace: TraceContext | None,
        model: str,
        request: InferenceRequest | None,
        error: Exception,
    ) -> ServingError:
        """What the client may know of an error, once it has been logged, traced, and counted where no slot has seen the
        request: what a slot refuses is in its account."""
        refusal = as_refusal(error, method, self._observer, trace)
        if request is None and isinstance(error, ServingError | DecodeError):
            self._count_refusal(model, refusal)
        self._traces.ended(method, started_ns, metadata, trace, request, refusal)
        return refusal

    def _count_refusal(self, model: str, refusal: ServingError) -> None:
        self._counts.refuse(model if self._dispatcher.knows(model) else OTHER, refusal.reason.name.lower())

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise ServingError(Reason.NOT_READY, "the server stops: send the request to another one")

    def _decode(
        self, received: codec.Received, metadata: Metadata, context: Context, trace: TraceContext | None
    ) -> InferenceRequest:
        """The request, checked in Triton's order: whether there is anybody to ask comes before what is asked."""
        version = codec.version_of(received.plan.model_version)
        slot = _value(metadata, SLOT_PIN)
        route = self._dispatcher.find(received.plan.model, version, slot)
        sticky_key = None
        if route is not None and slot is None and version is None:
            slot = next((pin.slot for pin in route.pins if _value(metadata, pin.metadata) == pin.value), None)
            if slot is None:
                sticky = route.sticky
                key = _value(metadata, sticky.metadata) if sticky.metadata else None
                sticky_key = codec.read_sticky_key(received.plan, key, sticky.parameter)
        remaining_s = context.time_remaining()
        deadline_ns = None if remaining_s is None else self._clock_ns() + int(remaining_s * 1e9)
        return received.request(deadline_ns, version, slot, sticky_key, trace)

    async def _answer(self, request: InferenceRequest) -> InferenceResponse:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[InferenceResponse | ServingError] = loop.create_future()

        def settle(outcome: InferenceResponse | ServingError) -> None:
            # A cancelled task cancels its future at once, but gets to say so here only at its next step.
            if not future.done():
                future.set_result(outcome)

        ticket = self._submit(request, settle)
        timer = self._timer(ticket)
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

    def _submit(self, request: InferenceRequest, on_done: OnDone) -> Ticket:
        """Raises:
        ServingError: refused at once.
        """
        try:
            return self._dispatcher.infer(request, on_done)
        except ServingError as refusal:
            if refusal.reason in _NO_SLOT:
                self._count_refusal(request.model, refusal)
            raise

    def _timer(self, ticket: Ticket) -> asyncio.TimerHandle | None:
        if ticket.deadline_ns is None:
            return None
        delay_s = (ticket.deadline_ns - self._clock_ns()) / 1e9 + _TIMER_SLACK_S
        return asyncio.get_running_loop().call_later(delay_s, ticket.expire)


def _metadata(context: Context) -> Metadata:
    return context.invocation_metadata() or ()


def _value(metadata: Metadata, key: str) -> str | None:
    for name, value in metadata:
        if name == key:
            return value if isinstance(value, str) else value.decode(errors="replace")
    return None
