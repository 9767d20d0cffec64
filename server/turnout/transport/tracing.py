"""What the tracer is told of inference calls: W3C headers read by hand, and gRPC's view of how a request ended.

Most requests are not traced: they pay for a look at their metadata and one comparison at their end, and make nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from turnout.core.errors import ServingError
from turnout.core.tensors import InferenceRequest, InferenceResponse
from turnout.core.tracing import FAULTS, TraceContext
from turnout.runtime.ports import ClockNs, Tracer
from turnout.runtime.tracing import EndedRequest
from turnout.transport.calls import EARLY_NS
from turnout.transport.status import StatusTable

TRACE_PARENT = "traceparent"  # request metadata
Metadata = Sequence[tuple[str, str | bytes]]


class Traces:
    """Used on the loop thread only."""

    def __init__(self, tracer: Tracer, clock_ns: ClockNs, table: StatusTable) -> None:
        self._tracer = tracer
        self._clock_ns = clock_ns
        self._table = table

    def begin(self, metadata: Metadata) -> TraceContext | None:
        """A request comes: its span, if it is traced. For a tracer that is on."""
        return self._tracer.begin(*_headers(metadata))

    def ended(
        self,
        method: str,
        started_ns: int,
        metadata: Metadata,
        trace: TraceContext | None,
        request: InferenceRequest | None,
        outcome: InferenceResponse | ServingError | None,
    ) -> None:
        """A request has ended. `request` None: it was not understood; `outcome` None: its client has left."""
        now_ns = self._clock_ns()
        slow = now_ns - started_ns >= self._tracer.slow_ns
        if not (slow or trace is not None) and isinstance(outcome, InferenceResponse):
            return
        if not self._tracer.on:
            return
        late = outcome is None and request is not None and _is_past(request.deadline_ns, now_ns)
        captured = ""
        if trace is None:
            failed = late or (isinstance(outcome, ServingError) and outcome.reason in FAULTS)
            if not (failed or slow) or (trace := self._tracer.capture(*_headers(metadata))) is None:
                return
            captured = "failed" if failed else "slow"
        status = "CANCELLED"
        if isinstance(outcome, ServingError):
            status = self._table[outcome.reason].name
        elif outcome is not None:
            status = "OK"
        elif late:
            status = "DEADLINE_EXCEEDED"
        self._tracer.request_ended(EndedRequest(trace, method, started_ns, now_ns, request, outcome, status, captured))


def _is_past(deadline_ns: int | None, now_ns: int) -> bool:
    """gRPC cancels a call whose deadline has passed as if its client had left."""
    return deadline_ns is not None and now_ns >= deadline_ns - EARLY_NS


def _headers(metadata: Metadata) -> tuple[str | None, str]:
    """traceparent and tracestate. A traceparent that comes twice is none: nobody can say which is meant."""
    parent: str | None = None
    states: list[str] | None = None
    for name, value in metadata:
        if name == TRACE_PARENT:
            parent = "" if parent is not None or not isinstance(value, str) else value
        elif name == "tracestate" and isinstance(value, str):
            states = [*(states or ()), value]
    return parent, ",".join(states) if states else ""
