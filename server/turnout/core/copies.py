"""The nouns of shadowing: a copy of a request that was answered, the two sides that are compared, and why a copy is
dropped instead."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from turnout.core.errors import Reason
from turnout.core.ids import Revision
from turnout.core.tensors import InferenceRequest, Tensors, Timings
from turnout.core.tracing import TraceContext


class PairKind(Enum):
    SHADOW = "shadow"  # two revisions
    NOISE = "noise"  # the live revision with itself


class Drop(Enum):
    """Why a copy was not compared."""

    QUEUE_FULL = "queue_full"
    BUDGET = "budget"  # the bytes that waiting copies may hold
    PAYLOAD_TOO_LARGE = "payload_too_large"  # one alone is beyond that
    DEADLINE = "deadline"  # it waited too long, behind others or behind a run that does not end
    OVERLOAD = "overload"  # live requests wait: copies are the first to go
    NOT_READY = "not_ready"  # the slot holds nothing that could run, or something else by now
    UNRESOLVED = "unresolved"  # its batch failed, and further runs did not show by which copy
    CLASSIFIED = "classified"  # the client asked for classes instead of tensors: there is nothing to compare


@dataclass(frozen=True, slots=True)
class Side:
    """One side's answer to a request: its outputs, or the reason of its error; neither where the outputs were let
    go."""

    slot: str
    revision: Revision
    outputs: Tensors | None
    timings: Timings | None = None
    reason: Reason | None = None

    @property
    def duration_ns(self) -> int:
        """In the queue and in its batch; 0 where it failed."""
        t = self.timings
        return t.queue_ns + t.compute_input_ns + t.compute_infer_ns + t.compute_output_ns if t is not None else 0


@dataclass(frozen=True, slots=True)
class Copy:
    """A request that was answered, to be answered once more.

    Attributes:
        offered_ns: when the live answer was there.
        bytes: what it keeps in memory: its inputs and the live outputs.
    """

    request: InferenceRequest
    live: Side
    kind: PairKind
    generation: int
    offered_ns: int
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Both answers. `shadow` of noise is the live revision again.

    Attributes:
        started_ns, ended_ns: when the copy came into its slot's queue, and when its answer was there; monotonic.
        trace: of the copy, which is not in the trace of its live request; None: nobody has asked for it.
    """

    copy: Copy
    shadow: Side
    started_ns: int = 0
    ended_ns: int = 0
    trace: TraceContext | None = None
