"""One slot's batcher: checks and queues requests on the loop thread, runs batches on executor threads.

A batch costs one thread hop: executors pull decisions from the pure BatchQueue under one short lock, and report a
whole batch at once. A failed batch is run again by halves, so that a bad request fails alone (invariant 10). How
executors wait is `backends/threads`' job; what a model run is, a Session's.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from turnout.core.batching import BatchQueue, Decision, Entry
from turnout.core.errors import Reason, ServingError
from turnout.core.ids import Revision
from turnout.core.tensors import InferenceRequest, Signature, Tensors, Timings, check
from turnout.runtime.account import Account
from turnout.runtime.assembly import InputBuffers, split
from turnout.runtime.ports import ClockNs, Executors, Observer, Session
from turnout_wire.tensors import Array


@dataclass(frozen=True, slots=True)
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
class QueueLimits:
    """Bounds of one slot's queue; both have their flag in config.py."""

    queue_rows_max: int
    queue_bytes_max: int


@dataclass(slots=True)
class Report:
    """What one decision came to: an outcome per entry, and the model runs that it took."""

    outcomes: list[tuple[Entry[Job], Answer | ServingError]]
    runs: list[Timings]


class Batcher:
    """Feeds one revision's sessions; `sessions[i]` belongs to executor i alone, or is thread-safe."""

    def __init__(
        self,
        revision: Revision,
        signature: Signature,
        sessions: Sequence[Session],
        executors: Executors,
        limits: QueueLimits,
        account: Account,
        clock_ns: ClockNs,
        observer: Observer,
    ) -> None:
        self._revision = revision
        self._signature = signature
        self._sessions = sessions
        self._executors = executors
        self._limits = limits
        self._account = account
        self._clock_ns = clock_ns
        self._observer = observer
        self._queue: BatchQueue[Job] = BatchQueue(
            max(signature.rows_max, 1), limits.queue_rows_max, limits.queue_bytes_max
        )
        self._buffers = [InputBuffers(signature) for _ in sessions]

    def start(self) -> None:
        self._executors.start(self, len(self._sessions))

    async def stop(self) -> None:
        """Answer what is queued, then end the executors."""
        await self._executors.stop()

    @property
    def queued_rows(self) -> int:
        return self._queue.rows

    def submit(self, job: Job) -> Entry[Job]:
        """Queue a request; its job is completed later, on the loop thread.

        Raises:
            ServingError: INVALID_REQUEST when it does not fit the signature, DEADLINE_EXCEEDED when it comes too
                late to run, QUEUE_FULL when the queue is at its bound.
        """
        request = job.request
        admission = check(request, self._signature)
        now_ns = self._clock_ns()
        if request.deadline_ns is not None and request.deadline_ns <= now_ns:
            raise expired(request)
        entry = Entry(job, admission.rows, admission.bytes, admission.shape_key, request.deadline_ns, now_ns)
        with self._executors.lock:
            taken = self._queue.offer(entry)
            if taken:
                self._executors.notify()
        if not taken:
            raise ServingError(
                Reason.QUEUE_FULL,
                f"the queue of model '{request.model}' is full (limits: {self._limits.queue_rows_max} rows, "
                f"{self._limits.queue_bytes_max} bytes), retry later",
                retry_after_ms=self._drain_ms(),
            )
        return entry

    def cancel(self, entry: Entry[Job]) -> bool:
        """Drop a queued request before it joins a batch; False when it is too late for that."""
        with self._executors.lock:
            return self._queue.cancel(entry)

    # Below: the Worker that executors drive.

    def poll(self, now_ns: int) -> Decision[Job]:
        return self._queue.poll(now_ns)

    def waiting(self) -> bool:
        return len(self._queue) > 0

    def execute(self, executor: int, decision: Decision[Job]) -> Report:
        report = Report([(entry, expired(entry.item.request)) for entry in decision.expired], [])
        try:
            if decision.batch:
                self._run(executor, decision.batch, report)
        except Exception as error:  # noqa: BLE001 - a fault of our own: nobody may wait for ever for it
            ended = {entry for entry, _ in report.outcomes}
            report.outcomes += [(e, self._failed(e, error)) for e in decision.batch if e not in ended]
        return report

    def deliver(self, report: Report) -> None:
        for timings in report.runs:
            self._account.record_run(timings)
        for entry, outcome in report.outcomes:
            try:
                entry.item.complete(outcome)
            except Exception as error:  # noqa: BLE001 - an edge's fault, which must not cost the neighbours their answers
                self._observer.handler_failed("deliver", secrets.token_hex(8), error)

    def _run(self, executor: int, batch: Sequence[Entry[Job]], report: Report) -> None:
        """Run a batch; when that fails, each half alone: at most 2n - 1 runs for n requests."""
        started_ns = self._clock_ns()
        live = []
        for entry in batch:
            if entry.deadline_ns is None or entry.deadline_ns > started_ns:
                live.append(entry)
            else:
                report.outcomes.append((entry, expired(entry.item.request)))
        if not live:
            return
        try:
            self._run_once(executor, live, started_ns, report)
        except Exception as error:  # noqa: BLE001 - whatever a model run raises fails its request, never an executor
            if len(live) == 1:
                report.outcomes.append((live[0], self._failed(live[0], error)))
                return
            middle = len(live) // 2
            self._run(executor, live[:middle], report)
            self._run(executor, live[middle:], report)

    def _run_once(self, executor: int, batch: Sequence[Entry[Job]], started_ns: int, report: Report) -> None:
        names = self._wanted(batch)
        inputs: Tensors = self._buffers[executor].assemble([entry.item.request.inputs for entry in batch])
        assembled_ns = self._clock_ns()
        arrays = self._sessions[executor].run(inputs, names)
        ran_ns = self._clock_ns()
        rows = [entry.rows for entry in batch]
        shares = split(self._signature, dict(zip(names, arrays, strict=True)), rows)
        compute = (assembled_ns - started_ns, ran_ns - assembled_ns, self._clock_ns() - ran_ns, sum(rows))
        report.runs.append(Timings(0, *compute))
        for entry, outputs in zip(batch, shares, strict=True):
            report.outcomes.append((entry, Answer(outputs, Timings(started_ns - entry.enqueued_ns, *compute))))

    def _wanted(self, batch: Sequence[Entry[Job]]) -> Sequence[str]:
        """The outputs that at least one request of the batch wants, in signature order: no other is computed."""
        everything = self._signature.output_names
        wanted: set[str] = set()
        for entry in batch:
            if not entry.item.request.outputs:
                return everything
            wanted.update(entry.item.request.outputs)
        return [name for name in everything if name in wanted]

    def _failed(self, entry: Entry[Job], error: Exception) -> ServingError:
        """The runtime's own words may name paths and other tenants' data, so the client gets an id to quote."""
        error_id = secrets.token_hex(8)
        with contextlib.suppress(Exception):  # an observer that breaks its promise costs a log line, not an answer
            self._observer.run_failed(self._revision, entry.rows, error_id, error)
        return ServingError(
            Reason.EXECUTION_FAILED, f"model '{self._revision.model}' failed to run this request (error id {error_id})"
        )

    def _drain_ms(self) -> int:
        """A hint for a client that was refused: how long the queue takes at the pace of the runs so far."""
        runs = sum(tally.runs for tally in self._account.batches.values())
        if not runs:
            return 100
        busy_ns = sum(tally.compute_infer_ns for tally in self._account.batches.values())
        batches = self._queue.rows / max(self._signature.rows_max, 1) / len(self._sessions)
        return min(max(int(batches * busy_ns / runs / 1e6), 10), 10_000)


def expired(request: InferenceRequest) -> ServingError:
    """The answer to a request whose deadline passed while it waited."""
    return ServingError(
        Reason.DEADLINE_EXCEEDED,
        f"the deadline of request '{request.inference_id}' passed before model '{request.model}' could run it",
    )
