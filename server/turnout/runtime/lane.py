"""The way of copies to one slot: a bounded queue, and one batch at a time behind whatever is live.

Copies are gathered for a moment and run together: one wake-up and one run for many, after the live answers have left.
No more than one batch of them is ever in the slot's own queue, so a live request that comes to the same slot waits for
one run at most. Whatever does not fit is dropped and counted; nothing here can fail or hold up a live request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from turnout.core.copies import Copy, Drop, Pair, Side
from turnout.core.errors import Reason, ServingError
from turnout.core.ids import Revision
from turnout.core.slots import SlotState
from turnout.core.tensors import InferenceRequest
from turnout.core.tracing import TraceContext
from turnout.runtime.budget import Budget
from turnout.runtime.jobs import Answer
from turnout.runtime.ports import ClockNs, Tracer
from turnout.runtime.slot import Cargo, Slot
from turnout.runtime.tracing import NO_TRACER
from turnout.runtime.under_way import UnderWay

LINGER_NS = 50_000_000
# How late this lane's own timer may fire. Later: the loop is busy with live requests.
_LAG_NS_MAX = 50_000_000
# While live requests are under way a batch of copies waits so long for a pause, and so many times.
_PAUSE_NS = 1_000_000
_PAUSES_MAX = 10
_SOLO = 64  # copies that run alone after one that failed: a batch with a bad one in it costs many runs
# Of a copy that was taken into the slot's queue, and of one that was not.
_DROP_OF = {Reason.DEADLINE_EXCEEDED: Drop.DEADLINE, Reason.NOT_READY: Drop.UNRESOLVED}
_REFUSAL_OF = {
    Reason.DEADLINE_EXCEEDED: Drop.DEADLINE,
    Reason.QUEUE_FULL: Drop.OVERLOAD,
    Reason.NOT_READY: Drop.NOT_READY,
}


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """What copies may take: `copies_max` and `bytes_max` from being offered until they are compared.

    Attributes:
        deadline_ns: from the live answer to the end of the copy's wait.
        run_rows_max: of one run, where that is less than the slot's largest batch.
    """

    copies_max: int
    bytes_max: int
    deadline_ns: int
    run_rows_max: int = 1 << 30


class Lane:
    """Used on the loop thread only.

    Args:
        revision: what `slot` is to hold; with something else in it, copies are dropped.
        live: the slot that answers clients: while requests wait there for a second batch, copies are dropped.
        paired: takes both answers; whoever has compared them calls `forget`.
        dropped: takes the reason, and how many.
        shared: what all lanes of the server may hold together.
        under_way: live requests, for whose end copies wait a little.
    """

    def __init__(
        self,
        slot: Slot,
        revision: Revision,
        live: Slot,
        limits: LaneLimits,
        clock_ns: ClockNs,
        paired: Callable[[Pair], None],
        dropped: Callable[[Drop, int], None],
        shared: Budget,
        under_way: UnderWay,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._slot = slot
        self._revision = revision
        self._live = live
        self._limits = limits
        self._clock_ns = clock_ns
        self._paired = paired
        self._dropped = dropped
        self._shared = shared
        self._under_way = under_way
        self._pauses = 0
        self._tracer = tracer
        self._waiting: deque[Copy] = deque()
        self._waiting_rows = 0
        self._running = 0
        self._solo = 0  # copies that still run alone
        self._held = Budget(limits.copies_max, limits.bytes_max)  # a copy is a "row" of it
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = 0
        self._closed = False

    @property
    def copies(self) -> int:
        """From being offered until they are compared."""
        return self._held.rows

    def offer(self, copy: Copy) -> None:
        """Take a copy, or drop it."""
        if copy.bytes > self._limits.bytes_max:
            self._dropped(Drop.PAYLOAD_TOO_LARGE, 1)
        elif bound := self._held.take(1, copy.bytes):
            self._dropped(Drop.QUEUE_FULL if bound.endswith("rows") else Drop.BUDGET, 1)
        elif self._shared.take(1, copy.bytes):
            self._held.give_back(1, copy.bytes)
            self._dropped(Drop.BUDGET, 1)
        else:
            self._waiting.append(copy)
            self._waiting_rows += copy.rows
            self._arm(LINGER_NS)

    def forget(self, copy: Copy) -> None:
        """It has been compared, or dropped: its place is free."""
        self._held.give_back(1, copy.bytes)
        self._shared.give_back(1, copy.bytes)

    def close(self) -> None:
        """Drop what waits, uncounted: nobody asks for it any more. What runs ends unseen."""
        self._closed = True
        self._drop_waiting(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, after_ns: int) -> None:
        if self._timer is None and not self._closed:
            self._due_ns = self._clock_ns() + after_ns
            self._timer = asyncio.get_running_loop().call_later(after_ns / 1e9, self._pump)

    def _pump(self) -> None:
        self._timer = None
        if self._under_way.count and self._pauses < _PAUSES_MAX:
            self._pauses += 1
            self._arm(_PAUSE_NS)
            return
        self._pauses = 0
        now_ns = self._clock_ns()
        self._drop_late(now_ns)
        if self._waiting and self._pressed(now_ns):
            self._drop_waiting(Drop.OVERLOAD)
        cargo = self._slot.cargo if self._slot.state is SlotState.READY else None
        if self._waiting and (cargo is None or cargo.revision != self._revision):
            self._drop_waiting(Drop.NOT_READY)
        if cargo is not None and self._waiting and not self._running and not cargo.batcher.queued_rows:
            self._submit(cargo, now_ns)
        if self._waiting:
            self._arm(LINGER_NS)

    def _submit(self, cargo: Cargo, now_ns: int) -> None:
        """One batch of copies. Those of requests that are traced are traced too."""
        rows_left = min(self._limits.run_rows_max, max(cargo.spec.signature.rows_max, 1))
        if self._solo:
            self._solo, rows_left = self._solo - 1, 1
        while self._waiting and (self._waiting[0].rows <= rows_left or not self._running):
            copy = self._waiting.popleft()
            self._waiting_rows -= copy.rows
            rows_left -= copy.rows
            self._running += 1
            trace = self._tracer.root() if copy.request.trace is not None else None
            Replay(copy, self._slot, self._limits.deadline_ns, now_ns, trace, self._ended).submit()

    def _ended(self, replay: Replay, outcome: Answer | ServingError) -> None:
        self._running -= 1
        copy = replay.copy
        failed = isinstance(outcome, ServingError)
        if failed and replay.queued:
            self._solo = _SOLO
        drops = _DROP_OF if replay.queued else _REFUSAL_OF
        if self._closed:
            self.forget(copy)
        elif isinstance(outcome, ServingError) and outcome.reason in drops:
            self._dropped(drops[outcome.reason], 1)
            self.forget(copy)
        else:
            now_ns = self._clock_ns()
            self._paired(Pair(copy, self._side(outcome), replay.started_ns, now_ns, replay.request.trace))
        if not self._running and self._waiting_rows and self._slot.cargo is not None:
            full = self._waiting_rows >= self._slot.cargo.spec.signature.rows_max
            if full and self._timer is not None:  # there is a batch's worth: what is live goes first, and no more
                self._timer.cancel()
                self._timer = None
            self._arm(0 if full else LINGER_NS)

    def _side(self, outcome: Answer | ServingError) -> Side:
        if isinstance(outcome, ServingError):
            return Side(self._slot.name, self._revision, None, reason=outcome.reason)
        return Side(self._slot.name, self._revision, outcome.outputs, outcome.timings)

    def _pressed(self, now_ns: int) -> bool:
        cargo = self._live.cargo
        queued = cargo is not None and cargo.batcher.queued_rows > max(cargo.spec.signature.rows_max, 1)
        return queued or now_ns - self._due_ns > _LAG_NS_MAX

    def _drop_late(self, now_ns: int) -> None:
        late = 0
        while self._waiting and now_ns - self._waiting[0].offered_ns > self._limits.deadline_ns:
            self._discard()
            late += 1
        if late:
            self._dropped(Drop.DEADLINE, late)

    def _drop_waiting(self, reason: Drop | None) -> None:
        count = len(self._waiting)
        while self._waiting:
            self._discard()
        if reason is not None and count:
            self._dropped(reason, count)

    def _discard(self) -> None:
        copy = self._waiting.popleft()
        self._waiting_rows -= copy.rows
        self.forget(copy)


class Replay:
    """A copy in its slot's batcher: a job that nobody's client waits for. Holds a lease until it has ended."""

    __slots__ = ("_ended", "_slot", "copy", "queued", "request", "started_ns")

    def __init__(
        self,
        copy: Copy,
        slot: Slot,
        deadline_ns: int,
        started_ns: int,
        trace: TraceContext | None,
        ended: Callable[[Replay, Answer | ServingError], None],
    ) -> None:
        self.request: InferenceRequest = replace(
            copy.request,
            deadline_ns=copy.offered_ns + deadline_ns,
            timeout_ns=0,
            priority=slot.cargo.spec.policy.priority_levels if slot.cargo is not None else 0,  # the lowest
            trace=trace,
        )
        self.copy = copy
        self.started_ns = started_ns
        self.queued = False
        self._slot = slot
        self._ended = ended

    def submit(self) -> None:
        """Queue it. A refusal is an outcome like any other."""
        try:
            cargo = self._slot.lease()
        except ServingError as refusal:
            self._ended(self, refusal)
            return
        try:
            cargo.batcher.submit(self, live=False)
            self.queued = True
        except ServingError as refusal:
            self.complete(refusal)
        except Exception:  # noqa: BLE001 - a fault of our own must keep neither the lease nor the lane
            self.complete(ServingError(Reason.EXECUTION_FAILED, "the copy could not be queued"))

    def complete(self, outcome: Answer | ServingError) -> None:
        self._slot.release()
        self._ended(self, outcome)
