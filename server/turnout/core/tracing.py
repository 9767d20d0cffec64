"""Which requests are traced, decided before anything of a trace exists, and a trace's own nouns.

Trace context is W3C's (https://www.w3.org/TR/trace-context/): what is not valid is ignored. Samplers are
OpenTelemetry's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from turnout.core.errors import Reason

# version 00 is exactly this; what later ones append comes after another hyphen.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_SAMPLED = frozenset(f"{flags:02x}" for flags in range(1, 256, 2))  # the lowest bit is the caller's decision
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_COIN_BITS = 64
_SPAN_ID_BITS = 64
_STATE_CHARACTERS_MAX = 512  # as far as W3C asks servers to carry it
RATIO_DEFAULT = 0.01

_Fields: TypeAlias = tuple[str, str, bool]  # trace id, span id, sampled
Draw: TypeAlias = Callable[[int], int]  # chance: that many random bits, such as random.Random().getrandbits

# Of these the server is at fault, or its load: the codes that OpenTelemetry counts as errors of a gRPC server.
FAULTS = frozenset({Reason.EXECUTION_FAILED, Reason.NOT_READY, Reason.DEADLINE_EXCEEDED})


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span's place: its trace, its own id, and the id of the span that caused it (0: none did). `state` is W3C's
    tracestate."""

    trace_id: int
    span_id: int
    sampled: bool = True
    parent_id: int = 0
    state: str = ""

    @property
    def ids(self) -> tuple[str, str]:
        """Of the trace and of the span, as they are written."""
        return f"{self.trace_id:032x}", f"{self.span_id:016x}"


def read_traceparent(text: str, state: str = "") -> TraceContext | None:
    """The caller's span; None when the header is not valid."""
    fields = _fields(text)
    return _context(fields, state) if fields is not None else None


def _fields(text: str) -> _Fields | None:
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return trace_id, span_id, flags in _SAMPLED


def _context(fields: _Fields, state: str) -> TraceContext:
    trace_id, span_id, sampled = fields
    kept = state if len(state) <= _STATE_CHARACTERS_MAX else ""
    return TraceContext(int(trace_id, 16), int(span_id, 16), sampled, state=kept)


@dataclass(frozen=True, slots=True)
class Sampling:
    """The decision for each request.

    Attributes:
        ratio: of the requests that nobody has decided about.
        parent_decides: a caller's decision stands; otherwise the trace id decides for callers' traces too.
    """

    ratio: float = RATIO_DEFAULT
    parent_decides: bool = True
    _bound: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"a share of traces is from 0 to 1, not {self.ratio}")
        object.__setattr__(self, "_bound", round(self.ratio * (1 << _COIN_BITS)))

    def begin(self, traceparent: str | None, state: str, draw: Draw) -> TraceContext | None:
        """The place of a request's span, where it is traced; None otherwise."""
        coin = draw(_COIN_BITS)
        if traceparent is None:  # the usual case, and the only one that most requests pay for
            return root(coin, draw) if coin < self._bound else None
        fields = _fields(traceparent)
        if fields is None:
            return root(coin, draw) if coin < self._bound else None
        trace_id, _, sampled = fields
        if not self.parent_decides:  # as every other service decides that sees this trace: by the lower half of its id
            sampled = int(trace_id[16:], 16) < self._bound
        return child(_context(fields, state), draw) if sampled else None


def captured(traceparent: str | None, state: str, draw: Draw) -> TraceContext:
    """The place of a span that is kept although nothing was sampled: in the caller's trace where there is one."""
    parent = read_traceparent(traceparent, state) if traceparent is not None else None
    return child(parent, draw) if parent is not None else root(draw(_COIN_BITS), draw)


def root(coin: int, draw: Draw) -> TraceContext:
    """The first span of a new trace, whose id ends in the coin that decided for it."""
    return TraceContext(_id(draw, _COIN_BITS) << _COIN_BITS | coin, _id(draw, _SPAN_ID_BITS))


def child(parent: TraceContext, draw: Draw) -> TraceContext:
    """A span below `parent`, in its trace."""
    return TraceContext(parent.trace_id, _id(draw, _SPAN_ID_BITS), True, parent.span_id, parent.state)


def _id(draw: Draw, bits: int) -> int:
    return draw(bits) or 1  # 0 is no id


class Allowance:
    """At most `per_s_max` a second, and as many at once: what is kept of a storm.

    Args:
        now_ns: when it begins.
    """

    def __init__(self, per_s_max: float, now_ns: int) -> None:
        self.refused = 0
        self._per_ns = per_s_max / 1e9
        self._most = max(per_s_max, 1.0) if per_s_max else 0.0
        self._left = self._most
        self._since_ns = now_ns

    def take(self, now_ns: int) -> bool:
        """Whether one more may be had now."""
        self._left = min(self._most, self._left + (now_ns - self._since_ns) * self._per_ns)
        self._since_ns = now_ns
        if self._left < 1:
            self.refused += 1
            return False
        self._left -= 1
        return True
