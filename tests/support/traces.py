"""The Tracer port as a fake: traces what it is told to, and keeps what it is told."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from turnout.core.tracing import TraceContext
from turnout.runtime.tracing import EndedBatch, EndedCopy, EndedRequest


@dataclass
class KeptTraces:
    """`sampled`: whether requests are traced; `room`: how many more are captured."""

    on: bool = True
    sampled: bool = True
    room: int = 100
    slow_ns: int = 1 << 63
    headers: list[tuple[str | None, str]] = field(default_factory=list)
    requests: list[EndedRequest] = field(default_factory=list)
    batches: list[EndedBatch] = field(default_factory=list)
    copies: list[EndedCopy] = field(default_factory=list)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def begin(self, traceparent: str | None, state: str) -> TraceContext | None:
        self.headers.append((traceparent, state))
        return self.root() if self.sampled else None

    def capture(self, traceparent: str | None, state: str) -> TraceContext | None:
        self.headers.append((traceparent, state))
        self.room -= 1
        return self.root() if self.room >= 0 else None

    def root(self) -> TraceContext:
        return TraceContext(next(self._ids), next(self._ids))

    def request_ended(self, ended: EndedRequest) -> None:
        self.requests.append(ended)

    def batch_ended(self, ended: EndedBatch) -> None:
        self.batches.append(ended)

    def copy_ended(self, ended: EndedCopy) -> None:
        self.copies.append(ended)
