"""ModelInfer, ModelStreamInfer and what models' own services have in their place: bytes in, bytes out, by way of a
dialect and the dispatcher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from google.protobuf.message import DecodeError

from turnout.core.errors import Reason, ServingError
from turnout.core.tensors import InferenceRequest, InferenceResponse
from turnout.core.tracing import TraceContext
from turnout.runtime.counts import OTHER, Counts
from turnout.runtime.dispatcher import Dispatcher
from turnout.runtime.ports import ClockNs, Observer, Tracer
from turnout.runtime.tracing import NO_TRACER
from turnout.runtime.under_way import UnderWay
from turnout.transport import codec
from turnout.transport.calls import Call, CallLimits, Calls
from turnout.transport.dialects import Dialect, OpenInference
from turnout.transport.status import STATUS, Context, StatusTable, as_refusal
from turnout.transport.tracing import Metadata, Traces

SLOT_PIN = "turnout-slot"  # request metadata
VARIANT_PIN = "turnout-variant"  # request metadata
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
        self._calls = Calls(call_limits, clock_ns, under_way)
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
        answers: asyncio.Queue[asyncio.Task[bytes | _StreamError] | None] = asyncio.Queue()
        places = asyncio.Semaphore(self._stream_inflight_max)
        async with _Tasks() as tasks:
            reader = tasks.start(self._read(raws, context, call, dialect, metadata, places, answers, tasks))
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)
            reader.add_done_callback(lambda _: answers.put_nowait(None))  # however it ends: even before it began
            if self._closed:
                reader.cancel()
            while (task := await answers.get()) is not None:
                answer = await task
                if isinstance(answer, _StreamError):
                    if end_on_error:
                        raise answer.error
                    code = self._table[answer.error.reason].name
                    answer = dialect.encode_stream_error(answer.asked, answer.error, code)
                    call.hold(len(answer))
                await context.write(answer)
                call.let_go(len(answer))
                places.release()
            if reader.cancelled():
                raise ServingError(Reason.NOT_READY, "the server stops: open a stream to another one")
            reader.result()

    async def _read(
        self,
        raws: AsyncIterator[bytes],
        context: Context,
        call: Call,
        dialect: Dialect,
        metadata: Metadata,
        places: asyncio.Semaphore,
        answers: asyncio.Queue[asyncio.Task[bytes | _StreamError] | None],
        tasks: _Tasks,
    ) -> None:
        await places.acquire()
        async for raw in raws:
            answers.put_nowait(tasks.start(self._answer_streamed(raw, context, call, dialect, metadata)))
            await places.acquire()

    async def _answer_streamed(
        self, raw: bytes, context: Context, call: Call, dialect: Dialect, metadata: Metadata
    ) -> bytes | _StreamError:
        started_ns = self._clock_ns()
        trace = self._traces.begin(metadata)
        model, request = "", None
        asked = codec.Asked()
        try:
            received = dialect.read(raw)
            model = received.plan.model
            asked = codec.Asked.of(received, self._id_characters_max)
            self._calls.refuse_beyond_bounds()
            request = self._decode(received, metadata, context, trace)
            del raw, received  # as above
            response = await self._answer(request)
            answer = dialect.encode(request, response, identity=self._identity, streamed=True)
        except asyncio.CancelledError:
            self._traces.ended(dialect.stream, started_ns, metadata, trace, request, None)
            raise
        except Exception as error:  # noqa: BLE001 - it belongs to this request, not to the stream
            # No name for it here: with its traceback it would hold this frame, and the request in it.
            return _StreamError(asked, self._failed(dialect.stream, started_ns, metadata, trace, model, request, error))
        self._traces.ended(dialect.stream, started_ns, metadata, trace, request, response)
        call.hold(len(answer))
        return answer

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
        variant = codec.read_variant(received.plan, _value(metadata, VARIANT_PIN))
        route = self._dispatcher.find(received.plan.model, version, slot, variant)
        sticky_key = None
        if route is not None and slot is None and version is None and variant is None:
            slot = next((pin.slot for pin in route.pins if _value(metadata, pin.metadata) == pin.value), None)
            if slot is None:
                sticky = route.sticky
                key = _value(metadata, sticky.metadata) if sticky.metadata else None
                sticky_key = codec.read_sticky_key(received.plan, key, sticky.parameter)
        remaining_s = context.time_remaining()
        deadline_ns = None if remaining_s is None else self._clock_ns() + int(remaining_s * 1e9)
        return received.request(deadline_ns, version, slot, sticky_key, trace, variant)

    async def _answer(self, request: InferenceRequest) -> InferenceResponse:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[InferenceResponse | ServingError] = loop.create_future()

        def settle(outcome: InferenceResponse | ServingError) -> None:
            # A cancelled task cancels its future at once, but gets to say so here only at its next step.
            if not future.done():
                future.set_result(outcome)

        try:
            ticket = self._dispatcher.infer(request, settle)
        except ServingError as refusal:
            if refusal.reason in _NO_SLOT:
                self._count_refusal(request.model, refusal)
            raise
        timer = None
        if ticket.deadline_ns is not None:
            timer = loop.call_later((ticket.deadline_ns - self._clock_ns()) / 1e9 + _TIMER_SLACK_S, ticket.expire)
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


class _StreamError:
    """A request of a stream that failed, and why."""

    __slots__ = ("asked", "error")

    def __init__(self, asked: codec.Asked, error: ServingError) -> None:
        self.asked = asked
        self.error = error


class _Tasks:
    """The tasks of one stream: cancelled and awaited when it ends, however it ends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def __aenter__(self) -> _Tasks:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _metadata(context: Context) -> Metadata:
    return context.invocation_metadata() or ()


def _value(metadata: Metadata, key: str) -> str | None:
    for name, value in metadata:
        if name == key:
            return value if isinstance(value, str) else value.decode(errors="replace")
    return None
