"""A whole runtime around synthetic models on virtual time: opener, fleet, dispatcher, and a record of what was seen."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from support.artefacts import synthetic_artefact
from support.virtual import VirtualClock, VirtualExecutors, VirtualLoop, inline
from turnout.backends.synthetic import Model, SyntheticBackend
from turnout.core.batch_policy import BatchPolicy
from turnout.core.errors import ServingError
from turnout.core.ids import Revision
from turnout.core.model import Artefact, Execution, ModelSpec
from turnout.core.slots import SlotState
from turnout.core.tensors import InferenceRequest, InferenceResponse, Signature, TensorSpec
from turnout.core.tracing import TraceContext
from turnout.runtime.account import Accounts
from turnout.runtime.budget import Budget
from turnout.runtime.dispatcher import Dispatcher, Ticket
from turnout.runtime.fleet import Fleet
from turnout.runtime.jobs import SlotLimits
from turnout.runtime.opening import Opener
from turnout.runtime.ports import Tracer
from turnout.runtime.tracing import NO_TRACER
from turnout_wire.tensors import Array, DataType

DECLARED = Signature(
    (TensorSpec("x", DataType.FP32, (-1, 4)),),
    (TensorSpec("y", DataType.FP32, (-1, 4)),),
)


@dataclass
class SyntheticSource:
    """The ModelSource port over a declared signature."""

    name: str
    versions: Sequence[int] = (1,)
    rows_max: int = 8
    inferred: bool = False
    execution: Execution = field(default_factory=Execution)
    problem: str = ""
    policy: BatchPolicy = field(default_factory=BatchPolicy)
    refuse_nonfinite: bool = False
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    beside: Callable[[int], list[Artefact]] = lambda version: []

    @property
    def artefacts(self) -> list[Artefact]:
        return [synthetic_artefact(self.name, version, f"digest-{version}") for version in self.versions]

    def variants(self, version: int) -> list[Artefact]:
        return self.beside(version)

    def complete(self, version: int, declared: Signature, batch: bool = True) -> ModelSpec:
        rows_max = self.rows_max if batch else 0
        return ModelSpec(
            Signature(declared.inputs, declared.outputs, rows_max),
            "synthetic",
            b"",
            batch_inferred=self.inferred,
            policy=self.policy,
            refuse_nonfinite=self.refuse_nonfinite,
            labels=self.labels,
        )


@dataclass
class Seen:
    """The Observer port: keeps what it is told."""

    states: list[tuple[str, str, SlotState, str]] = field(default_factory=list)
    failures: list[tuple[Revision, int, str, BaseException]] = field(default_factory=list)
    handler_failures: list[tuple[str, str, BaseException]] = field(default_factory=list)
    causes: list[BaseException] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    traces: list[TraceContext | None] = field(default_factory=list)  # of the failures, of both kinds

    def slot_changed(
        self,
        model: str,
        slot: str,
        state: SlotState,
        revision: Revision | None,
        why: str,
        cause: BaseException | None,
    ) -> None:
        self.states.append((model, slot, state, why))
        if cause is not None:
            self.causes.append(cause)

    def run_failed(
        self, revision: Revision, rows: int, error_id: str, error: BaseException, trace: TraceContext | None = None
    ) -> None:
        self.failures.append((revision, rows, error_id, error))
        self.traces.append(trace)

    def noticed(self, what: str) -> None:
        self.notices.append(what)

    def handler_failed(
        self, method: str, error_id: str, error: BaseException, trace: TraceContext | None = None
    ) -> None:
        self.handler_failures.append((method, error_id, error))
        self.traces.append(trace)


_numbers = itertools.count()


@dataclass
class Outcome:
    """What a request came to. `answer` stays None while it is under way, and for ever when it was cancelled."""

    ticket: Ticket | None = None
    answer: InferenceResponse | ServingError | None = None
    calls: int = 0
    kept: list[Array] = field(default_factory=list)  # copies of the answer's arrays as they were when it came
    nth: int = 0  # when it came, among all

    def done(self, answer: InferenceResponse | ServingError) -> None:
        self.answer = answer
        self.calls += 1
        self.nth = next(_numbers)
        if isinstance(answer, InferenceResponse):
            self.kept = [array.copy() for _, array in answer.outputs]

    @property
    def response(self) -> InferenceResponse:
        assert isinstance(self.answer, InferenceResponse), self.answer
        return self.answer

    @property
    def error(self) -> ServingError:
        assert isinstance(self.answer, ServingError), self.answer
        return self.answer


class World:
    """`await World.open(...)`; then `infer` as an edge would."""

    def __init__(self, loop: VirtualLoop, limits: SlotLimits | None = None) -> None:
        self.loop = loop
        self.clock = VirtualClock(loop)
        self.seen = Seen()
        self.limits = limits or SlotLimits(1000, 1 << 30)
        self.budget = Budget(1 << 20, 1 << 40)
        self.tracer: Tracer = NO_TRACER
        self.fleet = Fleet()
        self.accounts = Accounts()
        self.dispatcher = Dispatcher(self.fleet, self.clock, lambda n: 0)

    @classmethod
    async def open(
        cls,
        loop: VirtualLoop,
        models: Mapping[str, Model],
        sources: Sequence[SyntheticSource] | None = None,
        limits: SlotLimits | None = None,
        budget: Budget | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> World:
        world = cls(loop, limits)
        world.tracer = tracer
        world.budget = budget or world.budget
        await world.load(models, sources or [SyntheticSource(name) for name in models])
        return world

    async def load(
        self, models: Mapping[str, Model], sources: Sequence[SyntheticSource], draw: Callable[[int], int] | None = None
    ) -> None:
        opener = Opener(
            backend=SyntheticBackend(models),
            new_executors=lambda name: VirtualExecutors(self.loop, self.clock),
            limits=self.limits,
            budget=self.budget,
            clock_ns=self.clock,
            offload=inline,
            observer=self.seen,
            tracer=self.tracer,
        )
        self.accounts = opener.accounts
        self.fleet = await opener.open(sources)
        # Warm-up ran in place: let the loop's time catch up with it.
        self.loop.now_s += self.clock.ahead_ns / 1e9
        self.clock.ahead_ns = 0
        self.dispatcher = Dispatcher(self.fleet, self.clock, draw or (lambda n: 0))

    def infer(self, request: InferenceRequest) -> Outcome:
        """Raises:
        ServingError: when it is refused at once.
        """
        outcome = Outcome()
        outcome.ticket = self.dispatcher.infer(request, outcome.done)
        return outcome

    async def after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def request(value: float = 1.0, rows: int = 1, model: str = "m", **more: object) -> InferenceRequest:
    """A request of the declared signature, filled with `value`."""
    array: Array = np.full((rows, 4), value, np.float32)
    array.setflags(write=False)
    return InferenceRequest(model=model, inputs={"x": array}, **more)  # type: ignore[arg-type]
