"""What a tracer is told of requests, batches and copies when they have ended, and the tracer of a server that traces
none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from turnout.core.copies import Pair
from turnout.core.errors import ServingError
from turnout.core.ids import Revision
from turnout.core.pairs import Result
from turnout.core.tensors import InferenceRequest, InferenceResponse, Timings
from turnout.core.tracing import TraceContext


@dataclass(frozen=True, slots=True)
class EndedRequest:
    """A request that was traced, or is kept because of how it ended. Times are monotonic.

    Attributes:
        method: of the protocol's service; of another one, with that.
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


@dataclass(frozen=True, slots=True)
class EndedCopy:
    """What another slot, or the same one again, made of a request that was answered. `result`: what comparing them came
    to; None: it failed."""

    trace: TraceContext
    pair: Pair
    result: Result | None


class NoTracer:
    """The Tracer of a server that traces none."""

    on = False
    slow_ns = 1 << 63  # nothing takes so long

    def begin(self, traceparent: str | None, state: str) -> TraceContext | None:
        return None

    def capture(self, traceparent: str | None, state: str) -> TraceContext | None:
        return None

    def root(self) -> TraceContext:
        return TraceContext(1, 1, sampled=False)

    def request_ended(self, ended: EndedRequest) -> None:
        pass

    def batch_ended(self, ended: EndedBatch) -> None:
        pass

    def copy_ended(self, ended: EndedCopy) -> None:
        pass


NO_TRACER = NoTracer()
