"""Spans of requests, batches and copies, made when they have ended, from the times that were recorded on their way.

Nothing exists of a request that is not traced. Exporting happens on the SDK's own thread, behind its bounded queue.

What is exported is built at once: a span of the SDK, which could still change, costs the loop eight times as much.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import structlog
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from turnout import __version__
from turnout.core.assignment import Assignment, Choice
from turnout.core.errors import ServingError
from turnout.core.tensors import InferenceResponse, Timings
from turnout.core.tracing import Allowance, Draw, Sampling, TraceContext, captured, child, root
from turnout.runtime.ports import ClockNs
from turnout.runtime.tracing import EndedBatch, EndedCopy, EndedRequest
from turnout.telemetry import names
from turnout.telemetry.instruments import MODEL, REVISION, SLOT

Attributes = dict[str, str | int | float | bool]

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SAMPLED_HERE = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)  # a trace that begins here has such an id
# As OpenTelemetry's conventions for servers have it; a client's own mistake is no error of the span.
_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_REASONS = {
    Choice.PIN: "targeting_match",
    Choice.SPLIT: "split",
    Choice.ONLY: "static",
    Choice.FALLBACK: "error",
}
_UNSET = Status(StatusCode.UNSET)
_LINKS_MAX = 128
_S = 1e-9


class SpanTracer:
    """The runtime's Tracer. All but `root` on the loop thread.

    Args:
        processors: that export; what comes here is decided. Limits are the environment's.
        w3c: whether callers' headers are read.
        time_ns: the time of day.
    """

    on = True

    def __init__(
        self,
        processors: Sequence[SpanProcessor],
        resource: Resource,
        sampling: Sampling,
        w3c: bool,
        slow_ns: int,
        captures: Allowance,
        clock_ns: ClockNs,
        time_ns: Callable[[], int],
        draw: Draw,
    ) -> None:
        self.slow_ns = slow_ns
        self._processors = tuple(processors)
        self._resource = resource
        self._limits = SpanLimits()
        self._scope = InstrumentationScope(names.SCOPE, __version__, names.SCHEMA_URL)
        self._sampling = sampling
        self._w3c = w3c
        self._captures = captures
        self._clock_ns = clock_ns
        self._time_ns = time_ns
        self._draw = draw
        self._has_failed = False
        self._log = structlog.get_logger()

    def begin(self, traceparent: str | None, state: str) -> TraceContext | None:
        return self._sampling.begin(traceparent if self._w3c else None, state, self._draw)

    def capture(self, traceparent: str | None, state: str) -> TraceContext | None:
        if not self._captures.take(self._clock_ns()):
            return None
        return captured(traceparent if self._w3c else None, state, self._draw)

    def root(self) -> TraceContext:
        return root(self._draw(64), self._draw)

    def request_ended(self, ended: EndedRequest) -> None:
        with self._kept_apart():
            self._request(ended)

    def batch_ended(self, ended: EndedBatch) -> None:
        with self._kept_apart():
            self._batch(ended)

    def copy_ended(self, ended: EndedCopy) -> None:
        with self._kept_apart():
            self._copy(ended)

    @contextlib.contextmanager
    def _kept_apart(self) -> Iterator[None]:
        """A fault here, or the SDK's, costs a span, and not an answer. The first is logged."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            if not self._has_failed:
                self._has_failed = True
                self._log.error("a span could not be made, others may be missing too", exc_info=error, export=False)

    def _request(self, ended: EndedRequest) -> None:
        trace, outcome = ended.trace, ended.outcome
        method = ended.method if "/" in ended.method else names.SERVICE + ended.method
        attributes: Attributes = {
            names.RPC_SYSTEM: "grpc",
            names.RPC_METHOD: method,
            names.RPC_STATUS: ended.status,
        }
        if ended.request is not None:
            attributes[MODEL] = ended.request.model
            attributes[names.INFERENCE_ID] = ended.request.inference_id
        if ended.status != "OK":
            attributes[names.ERROR_TYPE] = ended.status
        if ended.captured:
            attributes[names.CAPTURE] = ended.captured
        if (assignment := _assignment(outcome)) is not None:
            attributes |= _of_assignment(assignment)
        error = ""
        if ended.status in _ERRORS:
            error = outcome.message if isinstance(outcome, ServingError) else ended.status
        timings = outcome.timings if isinstance(outcome, InferenceResponse) else None
        if timings is not None:
            attributes[names.BATCH_ROWS] = timings.batch_rows
        offset_ns = self._time_ns() - self._clock_ns()
        start_ns, end_ns = ended.started_ns + offset_ns, ended.ended_ns + offset_ns
        self._span(method, trace, start_ns, end_ns, attributes, kind=SpanKind.SERVER, remote=True, error=error)
        if timings is not None:
            self._stages(trace, timings, offset_ns)

    def _batch(self, ended: EndedBatch) -> None:
        offset_ns = self._time_ns() - self._clock_ns()
        attributes: Attributes = {
            MODEL: ended.revision.model,
            REVISION: str(ended.revision),
            names.BATCH_ROWS: ended.rows,
            names.BATCH_REQUESTS: ended.requests,
        }
        if ended.timings is not None:
            attributes |= _of_compute(ended.timings)
        links = [Link(_place(trace), {names.LINK_KIND: "batch_of"}) for trace in ended.links[:_LINKS_MAX]]
        start_ns, end_ns = ended.started_ns + offset_ns, ended.ended_ns + offset_ns
        error = "" if ended.timings is not None else "the model run failed"
        self._span(names.BATCH_SPAN, ended.trace, start_ns, end_ns, attributes, links, error=error)

    def _copy(self, ended: EndedCopy) -> None:
        copy, side = ended.pair.copy, ended.pair.shadow
        attributes: Attributes = {
            MODEL: side.revision.model,
            SLOT: side.slot,
            REVISION: str(side.revision),
            names.INFERENCE_ID: copy.request.inference_id,
            names.COMPARISON_KIND: copy.kind.value,
        }
        if ended.result is not None:
            attributes[names.COMPARISON_RESULT] = ended.result.value
        if side.reason is not None:
            attributes[names.ERROR_TYPE] = side.reason.name.lower()
        if side.timings is not None:
            attributes[names.BATCH_ROWS] = side.timings.batch_rows
        links = []
        if (live := copy.request.trace) is not None:
            kind = f"{copy.kind.value}_of"
            links = [Link(_place(live), {names.LINK_KIND: kind, names.INFERENCE_ID: copy.request.inference_id})]
        offset_ns = self._time_ns() - self._clock_ns()
        start_ns, end_ns = ended.pair.started_ns + offset_ns, ended.pair.ended_ns + offset_ns
        error = "the copy was not answered" if side.reason is not None else ""
        self._span(names.SHADOW_SPAN, ended.trace, start_ns, end_ns, attributes, links, error=error)
        if side.timings is not None:
            self._stages(ended.trace, side.timings, offset_ns)

    def _stages(self, trace: TraceContext, timings: Timings, offset_ns: int) -> None:
        """The parts of a request or copy that was answered: its wait, and its batch's run."""
        started_ns = timings.started_ns + offset_ns
        compute_ns = timings.compute_input_ns + timings.compute_infer_ns + timings.compute_output_ns
        queue = child(trace, self._draw)
        self._span(names.QUEUE_SPAN, queue, started_ns - timings.queue_ns, started_ns, {})
        links = [Link(_place(timings.batch), {names.LINK_KIND: "in_batch"})] if timings.batch is not None else []
        attributes = _of_compute(timings)
        compute = child(trace, self._draw)
        self._span(names.COMPUTE_SPAN, compute, started_ns, started_ns + compute_ns, attributes, links)

    def _span(
        self,
        name: str,
        trace: TraceContext,
        start_ns: int,
        end_ns: int,
        attributes: Attributes,
        links: Sequence[Link] = (),
        kind: SpanKind = SpanKind.INTERNAL,
        remote: bool = False,
        error: str = "",
    ) -> None:
        state = _state(trace)
        parent = SpanContext(trace.trace_id, trace.parent_id, remote, _SAMPLED, state) if trace.parent_id else None
        limits = self._limits
        span = ReadableSpan(
            name,
            SpanContext(trace.trace_id, trace.span_id, False, _SAMPLED if trace.parent_id else _SAMPLED_HERE, state),
            parent,
            self._resource,
            _bounded(attributes, limits.max_span_attributes, limits.max_span_attribute_length),
            links=self._links(links) if links else (),
            kind=kind,
            status=Status(StatusCode.ERROR, error) if error else _UNSET,
            start_time=start_ns,
            end_time=end_ns,
            instrumentation_scope=self._scope,
        )
        for processor in self._processors:
            processor.on_end(span)

    def _links(self, links: Sequence[Link]) -> Sequence[Link]:
        limits = self._limits
        most, longest = limits.max_link_attributes, limits.max_attribute_length
        bounded = [Link(link.context, _bounded(link.attributes or {}, most, longest)) for link in links]
        return bounded if limits.max_links is None else BoundedList.from_seq(limits.max_links, bounded)


def _bounded(attributes: Mapping[str, Any], most: int | None, longest: int | None) -> Mapping[str, Any]:
    """As it is, where the SDK's limits do not cut it."""
    if longest is None and (most is None or len(attributes) <= most):
        return attributes
    return BoundedAttributes(most, attributes, True, longest)


def _assignment(outcome: InferenceResponse | ServingError | None) -> Assignment | None:
    if isinstance(outcome, InferenceResponse):
        return Assignment(outcome.slot, outcome.revision, outcome.generation, outcome.choice)
    return outcome.assignment if outcome is not None else None


def _of_assignment(assignment: Assignment) -> Attributes:
    """As a feature flag's evaluation: which revision the model's name came to mean for this request, and why."""
    revision = assignment.revision
    return {
        names.FLAG_KEY: revision.model,
        names.FLAG_PROVIDER: names.SCOPE,
        names.FLAG_VARIANT: str(revision).removeprefix(f"{revision.model}/"),
        names.FLAG_REASON: _REASONS[assignment.choice],
        names.FLAG_VERSION: str(assignment.generation),
        REVISION: str(revision),
        SLOT: assignment.slot,
    }


def _of_compute(timings: Timings) -> Attributes:
    return {
        names.COMPUTE_INPUT: timings.compute_input_ns * _S,
        names.COMPUTE_INFER: timings.compute_infer_ns * _S,
        names.COMPUTE_OUTPUT: timings.compute_output_ns * _S,
    }


def _place(trace: TraceContext) -> SpanContext:
    return SpanContext(trace.trace_id, trace.span_id, False, _SAMPLED, _state(trace))


def _state(trace: TraceContext) -> TraceState | None:
    return TraceState.from_header([trace.state]) if trace.state else None
