"""An exchange: one request of a client and its answer, whether in a call of its own or in a stream of many."""

from __future__ import annotations

import asyncio

from google.protobuf.message import DecodeError

from turnout.core.errors import Reason, ServingError
from turnout.core.tensors import InferenceRequest, InferenceResponse
from turnout.core.tracing import TraceContext
from turnout.runtime.counts import OTHER, Counts
from turnout.runtime.dispatcher import Dispatcher, OnDone, Ticket
from turnout.runtime.ports import ClockNs, Observer, Tracer
from turnout.transport import codec
from turnout.transport.plan import Plan
from turnout.transport.status import Context, StatusTable, as_refusal
from turnout.transport.tracing import TRACE_PARENT, Metadata, Traces

SLOT_PIN = "turnout-slot"  # request metadata
VARIANT_PIN = "turnout-variant"  # request metadata
_TIMER_SLACK_S = 0.002  # loops may fire this much early, and an early hint is lost
_NO_SLOT = frozenset({Reason.NOT_FOUND, Reason.NOT_READY})  # of the dispatcher's refusals: by the route, not by a slot


class Headers:
    """The metadata of a call, read once: all requests of a stream have the same.

    Attributes:
        traced: its caller has a trace.
    """

    __slots__ = ("_first", "metadata", "slot", "traced", "variant")

    def __init__(self, context: Context) -> None:
        self.metadata: Metadata = tuple(context.invocation_metadata() or ())
        self._first = first = dict(reversed(self.metadata))  # of a name that comes twice, the first value counts
        self.traced = TRACE_PARENT in first
        self.slot = self.value(SLOT_PIN) if SLOT_PIN in first else None
        self.variant = self.value(VARIANT_PIN) if VARIANT_PIN in first else None

    def value(self, name: str) -> str | None:
        value = self._first.get(name)
        return value.decode(errors="replace") if isinstance(value, bytes) else value


class Exchange:
    """One request, from when it comes until its client has the answer, or has left.

    Attributes:
        plan: what its message says beside its data, once that is read.
        request: once it is decoded, until it has ended.
    """

    __slots__ = ("headers", "method", "plan", "request", "request_id", "started_ns", "trace")

    def __init__(self, method: str, headers: Headers) -> None:
        self.method = method
        self.headers = headers
        self.started_ns = 0
        self.trace: TraceContext | None = None
        self.plan: Plan | None = None
        self.request_id = ""
        self.request: InferenceRequest | None = None


class Exchanges:
    """What calls and streams do with each request."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        clock_ns: ClockNs,
        observer: Observer,
        counts: Counts,
        tracer: Tracer,
        table: StatusTable,
    ) -> None:
        self._dispatcher = dispatcher
        self._tracer = tracer
        self._clock_ns = clock_ns
        self._observer = observer
        self._counts = counts
        self._traces = Traces(tracer, clock_ns, table)

    def begin(self, exchange: Exchange) -> None:
        """Its time starts, and its span if it is traced."""
        exchange.started_ns = self._clock_ns()
        if self._tracer.on:
            headers = exchange.headers
            exchange.trace = self._traces.begin(headers.metadata) if headers.traced else self._tracer.begin(None, "")

    def deadline_ns(self, context: Context) -> int | None:
        """Until when the client waits, monotonic; None: for ever."""
        remaining_s = context.time_remaining()
        return None if remaining_s is None else self._clock_ns() + int(remaining_s * 1e9)

    def decode(self, exchange: Exchange, received: codec.Received, deadline_ns: int | None) -> InferenceRequest:
        """The request, checked in Triton's order: whether there is anybody to ask comes before what is asked.

        Raises:
            ServingError: it cannot be served, or nobody serves it.
        """
        headers = exchange.headers
        plan = exchange.plan = received.plan
        version = codec.version_of(plan.model_version)
        slot = headers.slot
        variant = codec.read_variant(plan, headers.variant)
        sticky_key = None
        try:
            if slot is None and version is None and variant is None:
                slot, sticky_key = self._by_rule(plan, headers)
            request = received.request(deadline_ns, version, slot, sticky_key, exchange.trace, variant)
        except ServingError:
            self._dispatcher.find(plan.model, version, headers.slot, variant)
            raise
        exchange.request = request
        return request

    def _by_rule(self, plan: Plan, headers: Headers) -> tuple[str | None, str | None]:
        """Of a request without a pin of its own: the slot that a pin rule sends it to, else its sticky key."""
        route = self._dispatcher.route(plan.model)
        if route is None:
            return None, None
        for pin in route.pins:
            if headers.value(pin.metadata) == pin.value:
                return pin.slot, None
        sticky = route.sticky
        key = headers.value(sticky.metadata) if sticky.metadata else None
        if key is None and not plan.texts:
            return None, None
        return None, codec.read_sticky_key(plan, key, sticky.parameter)

    def send(self, request: InferenceRequest, on_done: OnDone) -> Ticket:
        """Raises:
        ServingError: refused at once; `on_done` is then never called.
        """
        try:
            return self._dispatcher.infer(request, on_done)
        except ServingError as refusal:
            if refusal.reason in _NO_SLOT:
                self._count_refusal(request.model, refusal)
            raise

    def expire_in_time(self, ticket: Ticket, loop: asyncio.AbstractEventLoop) -> asyncio.TimerHandle | None:
        """The timer that answers the request once its deadline has passed while it waits; None: it has none."""
        deadline_ns = ticket.deadline_ns
        if deadline_ns is None:
            return None
        return loop.call_later((deadline_ns - self._clock_ns()) / 1e9 + _TIMER_SLACK_S, ticket.expire)

    def ended(self, exchange: Exchange, response: InferenceResponse | None) -> None:
        """It was answered; None: its client has left."""
        if self._tracer.on:
            self._trace(exchange, response)

    def failed(self, exchange: Exchange, error: Exception) -> ServingError:
        """What the client may know of an error, once it has been logged, traced, and counted where no slot has seen the
        request: what a slot refuses is in its account."""
        refusal = as_refusal(error, exchange.method, self._observer, exchange.trace)
        if exchange.request is None and isinstance(error, ServingError | DecodeError):
            self._count_refusal(exchange.plan.model if exchange.plan is not None else "", refusal)
        self._trace(exchange, refusal)
        return refusal

    def _trace(self, exchange: Exchange, outcome: InferenceResponse | ServingError | None) -> None:
        metadata = exchange.headers.metadata
        self._traces.ended(exchange.method, exchange.started_ns, metadata, exchange.trace, exchange.request, outcome)

    def _count_refusal(self, model: str, refusal: ServingError) -> None:
        self._counts.refuse(model if self._dispatcher.knows(model) else OTHER, refusal.reason.name.lower())
