"""What a tracer is told of requests and batches when they have ended, and the tracer of a server that traces none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from turnout.core.errors import ServingError
from turnout.core.ids import Revision
from turnout.core.tensors import InferenceRequest, InferenceResponse, Timings
from turnout.core.tracing import TraceContext


@dataclass(frozen=True, slots=True)
class EndedRequest:
    """A request that was traced, or is kept because of how it ended. Times are monotonic.

    Attributes:
        request: None: it ended before it was understood.
        outcome: None: its client left.
        status: the name of its gRPC status.
        captured: "": it was sampled; otherwise why it is kept: "slow" or "failed".
    """

    trace: TraceContext
    method: str
    started_ns: int
    ended_ns: int
    request: InferenceRequest | None
    outcome: InferenceResponse | ServingError | None
    status: str
    captured: str = ""


@dataclass(slots=True)
class EndedBatch:
    """One model run with requests in it that are traced: theirs are `links`. `timings` are None where it failed."""

    trace: TraceContext
    revision: Revision
    links: Sequence[TraceContext]
    requests: int
    rows: int
    started_ns: int
    ended_ns: int = 0
    timings: Timings | None = None


class NoTracer:
    """The Tracer of a server that traces none."""

    on = False
    slow_ns = 1 << 63  # nothing takes so long

    def begin(self, traceparent: str | None, state: str) -> TraceContext | None:
        return None

    def capture(self, traceparent: str | None, state: str) -> TraceContext | None:
        return None

    def batch(self) -> TraceContext:
        return TraceContext(1, 1, sampled=False)

    def request_ended(self, ended: EndedRequest) -> None:
        pass

    def batch_ended(self, ended: EndedBatch) -> None:
        pass


NO_TRACER = NoTracer()
