"""One slot's batcher: checks and queues requests on the loop thread, runs batches on executor threads.

A batch costs one thread hop: executors pull decisions from the pure BatchQueue under one short lock, and report a
whole batch at once. What a run is and how a failed one is taken apart is `runtime/runner`'s job; how executors wait,
`backends/threads`'.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from turnout.core.batching import BatchQueue, Decision, Entry
from turnout.core.errors import Reason, ServingError
from turnout.core.gathering import KAPPAS, Gather
from turnout.core.ids import Revision
from turnout.core.model import ModelSpec
from turnout.core.profile import CostProfile
from turnout.core.tensors import Admission, InferenceRequest, check
from turnout.runtime.account import Account
from turnout.runtime.budget import Budget
from turnout.runtime.jobs import Answer, Job, Report, SlotLimits
from turnout.runtime.ports import ClockNs, Executors, Observer, Session, Tracer
from turnout.runtime.runner import Runner, expired
from turnout.runtime.tracing import NO_TRACER

_COPY = object()  # no shape of a request
_FORMS_MAX = 1024  # of requests, whose checks are kept


class Batcher:
    """Feeds one revision's sessions; `sessions[i]` belongs to executor i alone, or is thread-safe.

    Args:
        profile_ns: what runs took in warm-up, by rows; empty where the model could not be warmed.
    """

    def __init__(
        self,
        revision: Revision,
        spec: ModelSpec,
        sessions: Sequence[Session],
        executors: Executors,
        limits: SlotLimits,
        budget: Budget,
        account: Account,
        clock_ns: ClockNs,
        observer: Observer,
        profile_ns: Mapping[int, int],
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._signature = spec.signature
        self._policy = spec.policy
        self._count = len(sessions)
        self._executors = executors
        self._lock = executors.lock
        self._budget = budget
        self._account = account
        self._clock_ns = clock_ns
        self._observer = observer
        self._tracer = tracer
        padded_rows = sorted(profile_ns) if spec.policy.padded and spec.signature.rows_max else []
        self._runner = Runner(revision, spec, sessions, limits, clock_ns, observer, padded_rows, tracer)
        rows_max = max(spec.signature.rows_max, 1)
        gathers = limits.gathers if spec.policy.gathers is None else spec.policy.gathers
        kappas = KAPPAS if gathers and not spec.policy.waits_for_size else (0.0,)
        self._gather = Gather(CostProfile(profile_ns), rows_max, self._count, kappas)
        self._queue: BatchQueue[Job] = BatchQueue(
            rows_max, limits.queue_rows_max, limits.queue_bytes_max, spec.policy, self._gather, padded_rows
        )
        # With preserve_ordering: entries in the order in which they came, and their outcomes as far as they are known.
        self._order: OrderedDict[Entry[Job], Answer | ServingError | None] = OrderedDict()
        self._admissions: dict[object, Admission] = {}  # by form

    def start(self) -> None:
        self._executors.start(self, self._count)

    async def stop(self) -> None:
        """Answer what is queued, then end the executors."""
        await self._executors.stop()

    @property
    def queued_rows(self) -> int:
        return self._queue.rows

    def submit(self, job: Job, live: bool = True) -> Entry[Job]:
        """Queue a request; its job is completed later, on the loop thread. Whoever submitted calls `release` when the
        request has ended.

        Args:
            live: False: a copy, which no client waits for. It is not charged to the server's budget, and shares neither
                a batch with live requests, whom its failure would cost further runs, nor the order of answers.

        Raises:
            ServingError: INVALID_REQUEST when it does not fit the signature, DEADLINE_EXCEEDED when it comes too
                late to run, QUEUE_FULL when the queue or the server is at its bound.
        """
        request = job.request
        admission = self._admissions.get(request.form) or self._check(request)
        now_ns = self._clock_ns()
        if request.deadline_ns is not None and request.deadline_ns <= now_ns:
            raise expired(request)
        entry = self._entry(job, admission, now_ns, live)
        if live and (bound := self._budget.take(entry.rows, entry.bytes)):
            raise self._full("this server", bound)
        with self._lock:
            late = self._comes_late(entry, now_ns)
            bound = "" if late else self._queue.offer(entry)
            if not (late or bound or self._queue.awaits(entry)):
                self._executors.notify()
        if late or bound:
            if live:
                self.release(entry)
            raise self._late(request) if late else self._full(f"the queue of model '{request.model}'", bound)
        if self._policy.preserve_ordering and live:
            self._order[entry] = None
        return entry

    def cancel(self, entry: Entry[Job]) -> bool:
        """Drop a queued request before it joins a batch; False when it is too late for that."""
        with self._lock:
            dropped = self._queue.cancel(entry)
        if dropped and self._order.pop(entry, self) is None:
            self._deliver_in_order()
        return dropped

    def flush(self) -> None:
        """Hold nothing back any more: no others will come to join."""
        with self._lock:
            self._queue.flushing = True
            self._executors.notify()

    def release(self, entry: Entry[Job]) -> None:
        """The request has ended: give back what it held."""
        self._budget.give_back(entry.rows, entry.bytes)

    # Below: the Worker that executors drive.

    def poll(self, now_ns: int, executor: int) -> Decision[Job]:
        return self._queue.poll(now_ns, executor)

    def waiting(self) -> bool:
        return self._queue.rows > 0

    def execute(self, executor: int, decision: Decision[Job]) -> Report:
        report = Report([(entry, expired(entry.item.request)) for entry in decision.expired], [])
        if decision.batch:
            self._runner.run(executor, decision.batch, report)
        return report

    def deliver(self, report: Report) -> None:
        for timings in report.runs:
            self._account.record_run(timings)
        for batch in report.traced:
            self._tracer.batch_ended(batch)
        for entry, outcome in report.outcomes:
            if entry in self._order:
                self._order[entry] = outcome
            else:
                self._complete(entry, outcome)
        self._deliver_in_order()

    def _deliver_in_order(self) -> None:
        while self._order:
            entry, outcome = next(iter(self._order.items()))
            if outcome is None:
                return
            del self._order[entry]
            self._complete(entry, outcome)

    def _complete(self, entry: Entry[Job], outcome: Answer | ServingError) -> None:
        try:
            entry.item.complete(outcome)
        except Exception as error:  # noqa: BLE001 - an edge's fault, which must not cost the neighbours their answers
            self._observer.handler_failed("deliver", secrets.token_hex(8), error)

    def _check(self, request: InferenceRequest) -> Admission:
        admission = check(request, self._signature)
        if request.form is not None:
            if len(self._admissions) >= _FORMS_MAX:
                self._admissions.clear()
            self._admissions[request.form] = admission
        return admission

    def _entry(self, job: Job, admission: Admission, now_ns: int, live: bool) -> Entry[Job]:
        """The request as it waits: on which level, and for how long at most."""
        request = job.request
        level = self._policy.level(request.priority)
        queue = self._policy.queue_of(level)
        key = admission.shape_key if live else (_COPY, admission.shape_key)
        entry = Entry(job, admission.rows, admission.bytes, key, request.deadline_ns, now_ns, level)
        if wait_ns := queue.wait_ns(request.timeout_ns):
            if queue.delays:
                entry.delay_ns = now_ns + wait_ns
            elif entry.deadline_ns is None or now_ns + wait_ns < entry.deadline_ns:
                entry.deadline_ns = now_ns + wait_ns
        return entry

    def _comes_late(self, entry: Entry[Job], now_ns: int) -> bool:
        """Whether a request would run past its deadline, by all that is known: it is refused while its client can still
        ask another server, and costs no run. With priorities, who is served first is not known."""
        deadline_ns = entry.item.request.deadline_ns  # not the queue's timeout, which bounds the wait alone
        if deadline_ns is None or self._policy.priority_levels > 1:
            return False
        wait_ns = self._gather.wait_ns(self._queue.rows, now_ns)
        return wait_ns > 0 and now_ns + wait_ns + self._gather.profile.high_ns(entry.rows) > deadline_ns

    def _late(self, request: InferenceRequest) -> ServingError:
        return ServingError(
            Reason.QUEUE_FULL,
            f"the queue of model '{request.model}' is too long for the deadline of request '{request.inference_id}': "
            "allow more time, or retry later",
            retry_after_ms=self._drain_ms(),
        )

    def _full(self, what: str, bound: str) -> ServingError:
        return ServingError(
            Reason.QUEUE_FULL, f"{what} is full (limit: {bound}), retry later", retry_after_ms=self._drain_ms()
        )

    def _drain_ms(self) -> int:
        """A hint for a client that was refused: how long the queue takes at the pace of the runs so far."""
        runs = sum(tally.runs for tally in self._account.batches.values())
        if not runs:
            return 100
        busy_ns = sum(tally.compute_infer_ns for tally in self._account.batches.values())
        batches = self._queue.rows / max(self._signature.rows_max, 1) / self._count
        return min(max(int(batches * busy_ns / runs / 1e6), 10), 10_000)
