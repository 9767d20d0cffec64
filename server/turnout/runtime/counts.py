"""What is counted of the server as a whole, beside the accounts of what is loaded: calls, requests that reached no
slot, changes. Written on the loop thread only, read by telemetry."""

from __future__ import annotations

from dataclasses import dataclass, field

from turnout.core.sketch import Sketch
from turnout.core.slots import SlotState
from turnout.runtime.account import CLOSED_MAX

OTHER = "_OTHER"  # for a name that is not ours: what clients may choose freely must not become a label


@dataclass(slots=True)
class Durations:
    """How long something took, each time."""

    sketch: Sketch = field(default_factory=Sketch)
    total_ns: int = 0

    def record(self, ns: int) -> None:
        self.sketch.observe(ns)
        self.total_ns += ns


@dataclass(slots=True)
class Counts:
    """Attributes:
    calls: by method and status, both as gRPC has them.
    refused: requests that no slot has counted, by model (or OTHER, where there is none of that name) and reason.
    transitions: of slots, by model, slot and state; of EMPTY ones, only of those that were emptied last.
    moves: changes of traffic, by model and kind: from the call until requests see it.
    """

    calls: dict[tuple[str, str], Durations] = field(default_factory=dict)
    refused: dict[tuple[str, str], int] = field(default_factory=dict)
    transitions: dict[tuple[str, str, SlotState], int] = field(default_factory=dict)
    moves: dict[tuple[str, str], Durations] = field(default_factory=dict)
    journal_failures: int = 0
    _emptied: dict[tuple[str, str], None] = field(default_factory=dict)  # what was emptied first comes first

    def call(self, method: str, status: str, duration_ns: int) -> None:
        durations = self.calls.get((method, status))
        if durations is None:
            durations = self.calls[method, status] = Durations()
        durations.record(duration_ns)

    def forget_calls(self, method: str) -> None:
        """Of a method that is served no more: models come and go, and each may have methods of its own."""
        for key in [key for key in self.calls if key[0] == method]:
            del self.calls[key]

    def refuse(self, model: str, reason: str) -> None:
        self.refused[model, reason] = self.refused.get((model, reason), 0) + 1

    def transition(self, model: str, slot: str, state: SlotState) -> None:
        key = (model, slot, state)
        self.transitions[key] = self.transitions.get(key, 0) + 1
        self._emptied.pop((model, slot), None)
        if state is SlotState.EMPTY:
            self._emptied[model, slot] = None
        if len(self._emptied) > CLOSED_MAX:
            oldest = next(iter(self._emptied))
            del self._emptied[oldest]
            for each in SlotState:
                self.transitions.pop((*oldest, each), None)

    def moved(self, model: str, kind: str, duration_ns: int) -> None:
        self.moves.setdefault((model, kind), Durations()).record(duration_ns)
