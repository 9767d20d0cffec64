"""What the runtime needs from the outside, as Protocols. `app.py` is the only place that knows who fills them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Any, ParamSpec, Protocol, TypeVar

from turnout.core.batching import Decision
from turnout.core.ids import Revision
from turnout.core.model import Artefact, Execution, ModelSpec
from turnout.core.records import Compared, ShadowReport
from turnout.core.sampling import Export
from turnout.core.slots import SlotState
from turnout.core.snapshot import Line, Remembered
from turnout.core.tensors import Signature, Tensors
from turnout.core.tracing import TraceContext
from turnout.core.traffic import Traffic
from turnout.runtime.tracing import EndedBatch, EndedCopy, EndedRequest
from turnout_wire.tensors import Array

P = ParamSpec("P")
T = TypeVar("T")

ClockNs = Callable[[], int]  # monotonic nanoseconds


class Session(Protocol):
    """One runnable instance of a model."""

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        """Run the model; blocks. The inputs may be overwritten once this returns; the outputs are the caller's for
        good: no later run may write into them (invariant 13). Any exception means that this run failed."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded artefact: what its file declares (full shapes, `rows_max` 0), and one session per executor. The same
    object stands several times where its runs are thread-safe."""

    declared: Signature
    sessions: tuple[Session, ...]
    providers: tuple[str, ...]  # where it runs, e.g. ("cpu",) or ("cuda:0", "cuda:1")
    warnings: tuple[str, ...] = ()  # what of its configuration has no effect there
    memory_bytes: int | None = None  # that loading and one run took at their peak, where that was tried out first


class Backend(Protocol):
    def load(self, artefact: Artefact, execution: Execution) -> Loaded:
        """Load and check an artefact; blocks, so it is called off the loop.

        Raises:
            LoadError: it cannot run here; the message is safe to show to a client.
        """


class ModelSource(Protocol):
    """One model as the repository describes it. `problem` is set instead of artefacts when it cannot be used."""

    @property
    def name(self) -> str: ...
    @property
    def problem(self) -> str: ...
    @property
    def artefacts(self) -> Sequence[Artefact]: ...
    @property
    def execution(self) -> Execution: ...
    def variants(self, version: int) -> Sequence[Artefact]:
        """Those of a usable version, as they are now; blocks."""

    def complete(self, version: int, declared: Signature, batch: bool = True) -> ModelSpec:
        """Complete the configuration from what the artefact declares, and check the one against the other. Without
        `batch`, a batch dimension is not inferred.

        Raises:
            LoadError: they contradict each other, or the configuration asks for what Turnout does not do.
        """


class Revisions(Protocol):
    """Where revisions are looked up that are asked for while the server runs."""

    def find(self, model: str, version: int | None, variant: str = "") -> tuple[ModelSource, Artefact]:
        """A revision as it is now (None: the newest that its model allows by itself); blocks.

        Raises:
            ControlError: REVISION_NOT_FOUND, MANIFEST_MISMATCH, or GATE_FAILED where its files cannot be used.
        """

    def offered(self, model: str) -> Sequence[Artefact]:
        """Every version of a model that is there now, by number, each followed by its variants; blocks."""


class Worker(Protocol):
    """What executors drive. `poll` and `execute` are called on executor threads, `deliver` on the loop."""

    def poll(self, now_ns: int, executor: int) -> Decision[Any]:
        """What this executor, which is free, is to do now. The caller holds the executors' lock."""

    def waiting(self) -> bool:
        """Whether another executor would find work too. The caller holds the executors' lock."""

    def execute(self, executor: int, decision: Decision[Any]) -> Any:
        """Run a decision to its report; blocks; never raises."""

    def deliver(self, report: Any) -> None:
        """Hand a report to those who wait for it."""


class Executors(Protocol):
    """Threads (in tests: virtual ones) that pull work from one Worker and report each batch in one hop."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Guards the worker's queue; held for microseconds."""

    def start(self, worker: Worker, count: int) -> None: ...
    def notify(self) -> None:
        """There may be work. The caller holds the lock."""

    async def stop(self) -> None:
        """Finish what is queued, then end every executor. Returns when the last report was handed to the loop."""


class Offload(Protocol):
    """Runs a blocking call off the loop."""

    def __call__(self, blocking: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]: ...


class Observer(Protocol):
    """Told about what an operator should see; must not block or raise. `trace`: of the request that it is about."""

    def slot_changed(
        self,
        model: str,
        slot: str,
        state: SlotState,
        revision: Revision | None,
        why: str,
        cause: BaseException | None,
    ) -> None: ...
    def noticed(self, what: str) -> None: ...
    def handler_failed(
        self, method: str, error_id: str, error: BaseException, trace: TraceContext | None = None
    ) -> None: ...
    def run_failed(
        self, revision: Revision, rows: int, error_id: str, error: BaseException, trace: TraceContext | None = None
    ) -> None: ...


class Tracer(Protocol):
    """Keeps what became of requests, batches and copies, told when they have ended. Nothing of it may block or raise.

    Called on the loop thread, but for `root`.
    """

    @property
    def on(self) -> bool:
        """False: it never keeps anything."""

    @property
    def slow_ns(self) -> int:
        """A request that takes so long is kept even if it is not traced."""

    def begin(self, traceparent: str | None, state: str) -> TraceContext | None:
        """A request comes, with the caller's headers: its span, if it is traced."""

    def capture(self, traceparent: str | None, state: str) -> TraceContext | None:
        """A request that is not traced has ended in a way to be kept: its span, if there is room for one more."""

    def root(self) -> TraceContext:
        """The span of what is to be kept in a trace of its own: a batch with a traced request in it, or a copy."""

    def request_ended(self, ended: EndedRequest) -> None: ...
    def batch_ended(self, ended: EndedBatch) -> None: ...
    def copy_ended(self, ended: EndedCopy) -> None: ...


class Severity(Enum):
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class EventLog(Protocol):
    """Where events for analysis go, by a name and attributes that are documented; nowhere, where nobody collects them.
    Must not block or raise."""

    def emit(
        self,
        name: str,
        severity: Severity,
        attributes: Mapping[str, str | int | float | bool],
        trace: TraceContext | None = None,
    ) -> None: ...


class ComparisonSink(Protocol):
    """Told of shadowing. Must not block or raise."""

    def compared(self, told: Export[Compared]) -> None:
        """A pair that was chosen to be told."""

    def summarised(self, report: ShadowReport) -> None:
        """A window of a rule is over."""


class PairStore(Protocol):
    """Keeps the tensors of pairs. Must not block or raise."""

    def keep(self, told: Export[Compared]) -> str:
        """Where they can be found, by and by; "": they are not kept."""

    async def stop(self) -> None:
        """Wait for what is being written; forget what is not."""


class JournalError(Exception):
    """The journal cannot be written or read. Whether what was to be written is there is not known."""


class JournalConflict(JournalError):
    """Somebody else has written the model's state meanwhile; nothing was written."""


class Journal(Protocol):
    """Where changes are kept. Blocks, so it is called off the loop. What `commit` has returned from is still there
    after a crash of the process or the machine; what raised may be there or not, but never in part.

    All raise JournalError.
    """

    def states(self) -> dict[str, Traffic]:
        """Every model's last state."""

    def version(self, model: str) -> int:
        """Of the model's last state; 0: there is none."""

    def commit(
        self,
        expected: int,
        state: Traffic,
        lines: Sequence[Line],
        request: Remembered | None = None,
        forget: Sequence[str] = (),
    ) -> list[Line]:
        """Write a model's next state, the lines that tell of it and the request that led to it, and forget requests by
        their ids: all or nothing.

        Returns:
            The lines with their numbers, which only grow.

        Raises:
            JournalConflict: the last state's version is not `expected`.
        """

    def remembered(self, request_id: str, now_ns: int) -> Remembered | None:
        """A request of the last 24 hours."""

    def remember_answer(self, request_id: str, answer: bytes) -> None:
        """Keep the first answer to a request that was committed."""

    def lines(self, model: str | None, limit: int, before_seq: int | None = None, since_seq: int = 0) -> list[Line]:
        """The newest first: those of a model (None: of all) with since_seq < seq < before_seq."""

    def close(self) -> None: ...
