"""The way of a request through the runtime: route, lease, queue; then answer, count and release, exactly once.

It speaks callbacks, not futures, so that any edge can call it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from turnout.core.assignment import Assignment, Choice
from turnout.core.batching import Entry
from turnout.core.buckets import BASIS_POINTS
from turnout.core.errors import Reason, ServingError
from turnout.core.routing import Route
from turnout.core.tensors import InferenceRequest, InferenceResponse, TensorSpec
from turnout.runtime.account import OUTCOME_OF, Outcome
from turnout.runtime.fleet import Fleet, Lease, Model
from turnout.runtime.jobs import Answer, Job
from turnout.runtime.ports import ClockNs
from turnout.runtime.runner import expired
from turnout.runtime.under_way import UnderWay
from turnout_wire.tensors import DataType

OnDone = Callable[[InferenceResponse | ServingError], None]
# What another slot may answer better: not what is the client's doing, nor what no time is left for.
_SPARED = frozenset({Reason.EXECUTION_FAILED, Reason.QUEUE_FULL, Reason.NOT_READY})


class Shadow(Protocol):
    """Who is shown requests of models that have shadow rules, each with its answer, after that was given."""

    def offer(self, model: Model, request: InferenceRequest, lease: Lease, outcome: Answer | ServingError) -> None:
        """Never blocks, never raises."""


class Dispatcher:
    """Routes requests to slots.

    Args:
        draw: chance: an integer in [0, n) for n, such as `random.Random().randrange`.
        fallback: whether the stable slot answers a routed request that another slot failed, once, as long as its
            deadline allows. The failure counts against the slot that failed.
        shadow: None: nothing is shadowed, whatever rules say.
    """

    def __init__(
        self,
        fleet: Fleet,
        clock_ns: ClockNs,
        draw: Callable[[int], int],
        fallback: bool = False,
        shadow: Shadow | None = None,
    ) -> None:
        self._fleet = fleet
        self._fallback = fallback
        self._shadow = shadow
        self._clock_ns = clock_ns
        self._draw = draw

    def route(self, model: str) -> Route | None:
        """What says where pins and the sticky key of a request are to be read from; None: nothing is served.

        Raises:
            ServingError: NOT_FOUND: there is no such model.
        """
        return self._fleet.model(model).route

    def find(self, model: str, version: int | None, slot: str | None, variant: str | None = None) -> None:
        """Whether there is anybody to ask: what a request that asks for nothing sensible is told first.

        Raises:
            ServingError: NOT_FOUND or NOT_READY, as a request with these pins would.
        """
        self._fleet.model(model).find(version, slot, variant)

    def knows(self, model: str) -> bool:
        """Whether there is a model of this name, served or not."""
        return model in self._fleet

    def infer(self, request: InferenceRequest, on_done: OnDone) -> Ticket:
        """Send a request on its way; `on_done` is called once, later, on the loop thread, unless it is cancelled.

        Raises:
            ServingError: refused at once; `on_done` is then never called.
        """
        model = self._fleet.model(request.model)
        split = model.route is not None and model.route.choice is Choice.SPLIT
        lease = model.lease(request, self._draw(BASIS_POINTS) if split else 0)
        under_way = self._fleet.under_way
        ticket = Ticket(request, lease, on_done, self._clock_ns, model if self._fallback else None, under_way)
        if model.route is not None and model.route.shadows and not lease.pinned and self._shadow is not None:
            ticket.shadow = partial(self._shadow.offer, model)
        ticket.submit()
        under_way.begin()
        return ticket


class Ticket:
    """One request on its way: holds the lease, and closes it exactly once."""

    __slots__ = (
        "_clock_ns",
        "_entry",
        "_lease",
        "_on_done",
        "_open",
        "_spare",
        "_started_ns",
        "_under_way",
        "_wanted",
        "request",
        "shadow",
    )

    def __init__(
        self,
        request: InferenceRequest,
        lease: Lease,
        on_done: OnDone,
        clock_ns: ClockNs,
        spare: Model | None,
        under_way: UnderWay,
    ) -> None:
        self.request = request
        self._lease = lease
        self._on_done = on_done
        self._clock_ns = clock_ns
        self._started_ns = clock_ns()
        self._entry: Entry[Job] | None = None
        self._open = True  # the lease is held
        self._wanted = True  # someone waits for the answer
        self._spare = spare  # whose stable slot may answer instead
        self._under_way = under_way  # counts it once it is queued
        self.shadow: Callable[[InferenceRequest, Lease, Answer | ServingError], None] | None = None

    def submit(self) -> None:
        try:
            self._entry = self._lease.cargo.batcher.submit(self)
        except ServingError as refusal:
            self._close(OUTCOME_OF.get(refusal.reason, Outcome.FAILED))
            refusal.assignment = self._assignment()
            if not self._resubmit(refusal):
                raise
        except Exception:
            self._close(Outcome.FAILED)  # a fault of our own must not keep the lease: the slot could never unload
            raise

    def complete(self, outcome: Answer | ServingError) -> None:
        """The batcher's answer. A request that was cancelled while it ran is counted as such, and nobody is told."""
        if isinstance(outcome, ServingError):
            result, answer = OUTCOME_OF.get(outcome.reason, Outcome.FAILED), None
            outcome.assignment = self._assignment()
        else:
            result, answer = Outcome.SUCCESS, outcome
        self._close(result if self._wanted else Outcome.CANCELLED, answer)
        if self._wanted and isinstance(outcome, ServingError) and self._resubmit(outcome):
            return
        try:
            if self._wanted:
                self._on_done(outcome if isinstance(outcome, ServingError) else self._response(outcome))
                if self.shadow is not None:
                    self.shadow(self.request, self._lease, outcome)
        finally:
            self._under_way.end()

    def cancel(self) -> None:
        """The client has left. Queued: dropped now. Running: the batch goes on, the answer is dropped, and the lease
        stays until the run has ended."""
        self._wanted = False
        if self._open and self._entry is not None and self._lease.cargo.batcher.cancel(self._entry):
            self._close(Outcome.CANCELLED)
            self._under_way.end()

    @property
    def deadline_ns(self) -> int | None:
        """When it has waited too long: the client's deadline, or the queue's timeout where that is earlier."""
        return self._entry.deadline_ns if self._entry is not None else None

    def expire(self) -> None:
        """A hint that the deadline may have passed: a request that still waits then is answered so at once, and not
        only when an executor becomes free."""
        deadline_ns = self.deadline_ns
        if deadline_ns is None or not self._open or self._entry is None or self._clock_ns() < deadline_ns:
            return
        if self._lease.cargo.batcher.cancel(self._entry):
            self.complete(expired(self.request))

    def _resubmit(self, error: ServingError) -> bool:
        """Give a request that failed to the stable slot, where that is another; False: the failure stands."""
        model, self._spare = self._spare, None
        lease = model.lease_stable(self._lease) if model is not None and error.reason in _SPARED else None
        if lease is None:
            return False
        self._lease, self._entry, self._open, self._started_ns = lease, None, True, self._clock_ns()
        try:
            self.submit()
        except ServingError:
            return False  # the first failure is what the client learns: this one is about the way out
        return True

    def _close(self, result: Outcome, answer: Answer | None = None) -> None:
        if not self._open:
            raise RuntimeError(f"request '{self.request.inference_id}' ended twice")
        self._open = False
        now_ns = self._clock_ns()
        account = self._lease.slot.account
        rows = self._entry.rows if self._entry is not None else 0
        duration_ns = now_ns - self._started_ns
        timings = answer.timings if answer else None
        account.record_request(result, rows, duration_ns, timings, self._lease.pinned, self.request.trace, now_ns)
        if result is Outcome.SUCCESS:
            account.last_success_ns = now_ns
        if self._entry is not None:
            self._lease.cargo.batcher.release(self._entry)
            self._entry = None  # it holds this ticket: the tensors of both would wait for the garbage collector
        self._lease.slot.release()

    def _assignment(self) -> Assignment:
        lease = self._lease
        return Assignment(lease.slot.name, lease.cargo.revision, lease.generation, lease.choice)

    def _response(self, answer: Answer) -> InferenceResponse:
        cargo = self._lease.cargo
        specs = cargo.spec.signature.output_by_name
        if self.request.classes:
            texts = {n: TensorSpec(n, DataType.BYTES, answer.outputs[n].shape) for n in self.request.classes}
            specs = {**specs, **texts}
        outputs = []
        for name in self.request.outputs or cargo.spec.signature.output_names:
            outputs.append((specs[name], answer.outputs[name]))
        return InferenceResponse(
            revision=cargo.revision,
            slot=self._lease.slot.name,
            generation=self._lease.generation,
            outputs=tuple(outputs),
            timings=answer.timings,
            choice=self._lease.choice,
        )
