"""Who gets copies of which requests, and what comes of comparing the answers.

Live requests meet this in `offer` alone, after they were answered. What is counted is about two revisions: when the
live or the shadow slot gets another one, or the rule changes, counting begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from turnout.core.copies import Copy, Drop, Pair, PairKind, Side
from turnout.core.errors import Reason, ServingError
from turnout.core.tensors import InferenceRequest, bytes_of
from turnout.runtime.comparing import Comparer
from turnout.runtime.fleet import Fleet, Lease, Model
from turnout.runtime.jobs import Answer
from turnout.runtime.ports import ClockNs, ComparisonSink, Observer, Offload
from turnout.runtime.shadowing import Shadowing

WINDOW_S = 10.0


class Shadows:
    """All shadow rules at work. Used on the loop thread only.

    Args:
        draw: chance: an integer in [0, n) for n.
        sink: who is told of comparisons.
    """

    def __init__(
        self,
        fleet: Fleet,
        clock_ns: ClockNs,
        offload: Offload,
        observer: Observer,
        draw: Callable[[int], int],
        sink: ComparisonSink,
    ) -> None:
        self._fleet = fleet
        self._clock_ns = clock_ns
        self._observer = observer
        self._draw = draw
        self._sink = sink
        self._comparer = Comparer(offload, observer)
        self._active: dict[tuple[str, str], Shadowing] = {}  # by model and shadow slot
        self._timer: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[Shadowing]:
        return iter(self._active.values())

    def offer(self, model: Model, request: InferenceRequest, lease: Lease, outcome: Answer | ServingError) -> None:
        """Take copies of a request that was just answered, where rules ask for them."""
        try:
            self._offer(model, request, lease, outcome)
        except Exception as error:  # noqa: BLE001 - a fault of our own must not reach the live request
            self._observer.handler_failed("shadow", request.inference_id, error)

    def learn(self, model: str, inference_id: str, output: str, label: str) -> str:
        """What the right answer to a request was; see `core/references`. Returns scored, unknown or duplicate."""
        said = {shadowing.learn(inference_id, output, label) for shadowing in self if shadowing.model.name == model}
        return next((one for one in ("scored", "duplicate") if one in said), "unknown")

    async def stop(self) -> None:
        """Copies that wait are forgotten, uncounted."""
        if self._timer is not None:
            self._timer.cancel()
        for shadowing in self:
            shadowing.close()
        await self._comparer.stop()

    def _offer(self, model: Model, request: InferenceRequest, lease: Lease, outcome: Answer | ServingError) -> None:
        route = model.route
        if route is None or route.stable is None or lease.slot.name != route.stable.slot:
            return  # the answers of the stable slot are what shadows are held against
        revision = lease.cargo.revision
        if isinstance(outcome, Answer):
            live = Side(lease.slot.name, revision, outcome.outputs, outcome.timings)
        elif outcome.reason is Reason.EXECUTION_FAILED:
            live = Side(lease.slot.name, revision, None, reason=outcome.reason)
        else:
            return  # nothing was computed
        copy: Copy | None = None
        for rule in route.shadows:
            if not rule.takes(request.inference_id):
                continue
            shadowing = self._shadowing(model, rule, lease)
            if shadowing is None:
                continue
            if request.classes:
                shadowing.drop(Drop.CLASSIFIED)
                continue
            copy = copy or _copy(request, live, lease, self._clock_ns())
            shadowing.offer(copy, noise=rule.repeats(request.inference_id))

    def _shadowing(self, model: Model, rule: ShadowRule, lease: Lease) -> Shadowing | None:
        """The rule at work on the revisions of now; None: its slot holds nothing."""
        place = (model.name, rule.slot)
        slot = model.slots.get(rule.slot)
        revision = slot.revision if slot is not None else None
        active = self._active.get(place)
        if active is not None and active.fits(rule, lease.cargo.revision, revision):
            return active
        self._end(place)
        if slot is None or revision is None or slot.state is not SlotState.READY:
            return None
        live = Live(lease.slot, lease.cargo.revision, lease.cargo.spec.signature)
        began = Shadowing(model.name, rule, live, slot, revision, self._clock_ns, self._draw, self._comparer, self._sink)
        self._active[place] = began
        self._arm()
        return began

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WINDOW_S, self._tick)

    def _tick(self) -> None:
        """A window ends. Rules that are gone end with it, and say so a last time."""
        self._timer = None
        for place, shadowing in list(self._active.items()):
            self._sink.summarised(shadowing.summary())
            route = self._fleet.model(place[0]).route
            if route is None or shadowing.rule not in route.shadows:
                self._end(place)
        if self._active:
            self._arm()

    def _end(self, place: tuple[str, str]) -> None:
        if (shadowing := self._active.pop(place, None)) is not None:
            shadowing.close()


def _copy(request: InferenceRequest, live: Side, lease: Lease, now_ns: int) -> Copy:
    held = [*request.inputs.values(), *(live.outputs or {}).values()]
    batched = lease.cargo.spec.signature.rows_max > 0
    rows = next((array.shape[0] for array in request.inputs.values()), 1) if batched else 1
    return Copy(request, live, PairKind.SHADOW, lease.generation, now_ns, rows, sum(map(bytes_of, held)))
