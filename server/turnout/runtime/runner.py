"""Runs batches on one slot's sessions, on executor threads: assemble, run, cut into answers.

A batch that fails is run again by halves, within a bound, so that a bad request fails alone (invariant 10). What can
be wrong with one request's answer only (a classification that is too large, a value that is not finite) fails that
request and costs no further run.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping, Sequence

import numpy as np

from turnout.core.batching import Entry
from turnout.core.classification import classify
from turnout.core.errors import Reason, ServingError
from turnout.core.ids import Revision
from turnout.core.model import ModelSpec
from turnout.core.tensors import InferenceRequest, Timings
from turnout.core.tracing import TraceContext
from turnout.runtime.assembly import InputBuffers, split
from turnout.runtime.jobs import Answer, Job, Report, SlotLimits
from turnout.runtime.ports import ClockNs, Observer, Session, Tracer
from turnout.runtime.tracing import NO_TRACER, EndedBatch
from turnout_wire.tensors import Array


class Runner:
    """`sessions[i]` belongs to executor i alone, or is thread-safe.

    Args:
        padded_rows: sizes up to which batches are filled, in order; none: they run as they are.
    """

    def __init__(
        self,
        revision: Revision,
        spec: ModelSpec,
        sessions: Sequence[Session],
        limits: SlotLimits,
        clock_ns: ClockNs,
        observer: Observer,
        padded_rows: Sequence[int] = (),
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._revision = revision
        self._spec = spec
        self._signature = spec.signature
        self._sessions = sessions
        self._limits = limits
        self._clock_ns = clock_ns
        self._observer = observer
        self._tracer = tracer
        self._buffers = [InputBuffers(spec.signature, padded_rows) for _ in sessions]

    def run(self, executor: int, batch: Sequence[Entry[Job]], report: Report) -> None:
        """Run a batch, and report an outcome for each entry of it, whatever happens."""
        try:
            self._run_and_isolate(executor, batch, report)
        except Exception as error:  # noqa: BLE001 - a fault of our own: nobody may wait for ever for it
            ended = {entry for entry, _ in report.outcomes}
            report.outcomes += [(e, self._failed(e.rows, error, e.item.request.trace)) for e in batch if e not in ended]

    def _run_and_isolate(self, executor: int, batch: Sequence[Entry[Job]], report: Report) -> None:
        """Run a batch; when that fails, each half alone, until those at fault are alone or the bound is met."""
        groups = [batch]
        runs_left = 1 + self._limits.isolation_runs_max
        while groups:
            started_ns = self._clock_ns()
            group = self._live(groups.pop(), started_ns, report)
            if not group:
                continue
            if not runs_left:
                report.outcomes += [(entry, self._unresolved()) for entry in group]
                continue
            runs_left -= 1
            traced = self._traced(group, started_ns, report) if self._tracer.on else None
            try:
                self._run_once(executor, group, started_ns, report, traced)
            except Exception as error:  # noqa: BLE001 - whatever a model run raises fails its request, never an executor
                if traced is not None:
                    traced.ended_ns = self._clock_ns()
                if len(group) == 1:
                    failure = self._failed(group[0].rows, error, group[0].item.request.trace)
                    report.outcomes.append((group[0], failure))
                else:
                    middle = len(group) // 2
                    groups += [group[middle:], group[:middle]]

    def _live(self, group: Sequence[Entry[Job]], now_ns: int, report: Report) -> list[Entry[Job]]:
        live = []
        for entry in group:
            if entry.deadline_ns is None or entry.deadline_ns > now_ns:
                live.append(entry)
            else:
                report.outcomes.append((entry, expired(entry.item.request)))
        return live

    def _traced(self, group: Sequence[Entry[Job]], started_ns: int, report: Report) -> EndedBatch | None:
        """What is told of a run with traced requests in it; None: there are none."""
        links = [trace for entry in group if (trace := entry.item.request.trace) is not None]
        if not links:
            return None
        rows = sum(entry.rows for entry in group)
        traced = EndedBatch(self._tracer.root(), self._revision, links, len(group), rows, started_ns)
        report.traced.append(traced)
        return traced

    def _run_once(
        self,
        executor: int,
        batch: Sequence[Entry[Job]],
        started_ns: int,
        report: Report,
        traced: EndedBatch | None,
    ) -> None:
        names = self._wanted(batch)
        rows = [entry.rows for entry in batch]
        buffers = self._buffers[executor]
        padding = buffers.padding(sum(rows))
        inputs = buffers.assemble([entry.item.request.inputs for entry in batch], padding)
        assembled_ns = self._clock_ns()
        arrays = self._sessions[executor].run(inputs, names)
        ran_ns = self._clock_ns()
        shares = split(self._signature, dict(zip(names, arrays, strict=True)), rows, padding)
        suspect = self._spec.refuse_nonfinite and not all(map(_is_finite, arrays))
        ended_ns = self._clock_ns()
        compute = (assembled_ns - started_ns, ran_ns - assembled_ns, ended_ns - ran_ns, sum(rows), started_ns)
        report.runs.append(Timings(0, *compute))
        place = None
        if traced is not None:
            place, traced.ended_ns, traced.timings = traced.trace, ended_ns, report.runs[-1]
        for entry, outputs in zip(batch, shares, strict=True):
            timings = Timings(started_ns - entry.enqueued_ns, *compute, place)
            report.outcomes.append((entry, self._finished(entry.item.request, outputs, timings, suspect)))

    def _wanted(self, batch: Sequence[Entry[Job]]) -> Sequence[str]:
        """The outputs that at least one request of the batch wants, in signature order: no other is computed."""
        everything = self._signature.output_names
        wanted: set[str] = set()
        for entry in batch:
            if not entry.item.request.outputs:
                return everything
            wanted.update(entry.item.request.outputs)
        return [name for name in everything if name in wanted]

    def _finished(
        self, request: InferenceRequest, outputs: dict[str, Array], timings: Timings, suspect: bool
    ) -> Answer | ServingError:
        """One request's share as its answer. The other requests of its batch are not touched by what is wrong here."""
        try:
            if request.outputs:
                outputs = {name: outputs[name] for name in request.outputs}  # others are its neighbours' wish
            if suspect:
                self._refuse_nonfinite(outputs)
            if request.classes:
                outputs = self._classified(outputs, request.classes)
        except ServingError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a fault of our own
            return self._failed(timings.batch_rows, error, request.trace)
        return Answer(outputs, timings)

    def _refuse_nonfinite(self, outputs: Mapping[str, Array]) -> None:
        for name, array in outputs.items():
            if not _is_finite(array):
                row = ""
                if self._signature.rows_max:
                    finite = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
                    row = f" in row {int(np.argmin(finite))}"
                raise ServingError(
                    Reason.EXECUTION_FAILED,
                    f"model '{self._revision.model}' answered a value that is not finite: output '{name}'{row}",
                )

    def _classified(self, outputs: Mapping[str, Array], classes: Mapping[str, int]) -> dict[str, Array]:
        batched = self._signature.rows_max > 0
        bound = self._limits.classification_elements_max
        answers = dict(outputs)
        for name, count in classes.items():
            answers[name] = classify(outputs[name], count, self._spec.labels.get(name, ()), batched, bound)
            bound -= answers[name].size
        return answers

    def _failed(self, rows: int, error: Exception, trace: TraceContext | None) -> ServingError:
        """The runtime's own words may name paths and other tenants' data, so the client gets an id to quote."""
        error_id = secrets.token_hex(8)
        with contextlib.suppress(Exception):  # an observer that breaks its promise costs a log line, not an answer
            self._observer.run_failed(self._revision, rows, error_id, error, trace)
        return ServingError(
            Reason.EXECUTION_FAILED, f"model '{self._revision.model}' failed to run this request (error id {error_id})"
        )

    def _unresolved(self) -> ServingError:
        return ServingError(
            Reason.NOT_READY,
            f"model '{self._revision.model}' failed to run a batch with this request in it, and "
            f"{self._limits.isolation_runs_max} further runs did not show which requests are at fault: retry",
        )


def expired(request: InferenceRequest) -> ServingError:
    """The answer to a request whose time passed while it waited."""
    return ServingError(
        Reason.DEADLINE_EXCEEDED,
        f"the deadline of request '{request.inference_id}' passed before model '{request.model}' could run it",
    )


def _is_finite(array: Array) -> bool:
    return array.dtype.kind not in "fV" or bool(np.isfinite(array).all())  # V: bfloat16
