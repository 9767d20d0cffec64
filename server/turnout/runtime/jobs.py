"""What passes between a slot's batcher, its runner and those who wait: jobs, answers, reports, and a slot's bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from turnout.core.batching import Entry
from turnout.core.errors import ServingError
from turnout.core.frozen import frozen
from turnout.core.tensors import InferenceRequest, Timings
from turnout.runtime.tracing import EndedBatch
from turnout_wire.tensors import Array


@frozen
class Answer:
    """A request's own rows of the outputs that its batch computed."""

    outputs: dict[str, Array]
    timings: Timings


class Job(Protocol):
    """Who waits for an answer. `complete` is called exactly once, on the loop thread, unless it was cancelled."""

    @property
    def request(self) -> InferenceRequest: ...
    def complete(self, outcome: Answer | ServingError) -> None: ...


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """Bounds of one slot; each has its flag in config.py.

    Attributes:
        isolation_runs_max: further runs that a failed batch may cost until the requests at fault are found.
        classification_elements_max: elements of the classified outputs of one request.
        gathers: whether batches may be held back for clients that are about to return; a model's policy goes before it.
    """

    queue_rows_max: int
    queue_bytes_max: int
    isolation_runs_max: int = 64
    classification_elements_max: int = 8192
    gathers: bool = True


@dataclass(slots=True)
class Report:
    """What one decision came to: an outcome per entry, the model runs that it took, and those that are traced."""

    outcomes: list[tuple[Entry[Job], Answer | ServingError]]
    runs: list[Timings]
    traced: list[EndedBatch] = field(default_factory=list)
