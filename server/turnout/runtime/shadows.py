"""Who gets copies of which requests, and who is told what comes of comparing the answers.

Live requests meet this in `offer` alone, after they were answered. What is counted is about two revisions: when the
live or the shadow slot gets another one, or the rule changes, counting begins anew.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from turnout.core.copies import Copy, Drop, PairKind, Side
from turnout.core.errors import Reason, ServingError
from turnout.core.pairs import Result
from turnout.core.records import Compared, ShadowReport
from turnout.core.references import Learned
from turnout.core.routing import Target
from turnout.core.sampling import Export, ExportSampler
from turnout.core.shadow_rules import ShadowRule
from turnout.core.tensors import InferenceRequest, bytes_of
from turnout.runtime.budget import Budget
from turnout.runtime.comparing import Comparer
from turnout.runtime.fleet import Fleet, Lease, Model
from turnout.runtime.jobs import Answer
from turnout.runtime.ports import ClockNs, ComparisonSink, Observer, Offload, PairStore, Tracer
from turnout.runtime.shadow_account import ShadowAccount
from turnout.runtime.shadowing import Live, Shadowing
from turnout.runtime.tracing import NO_TRACER, EndedCopy
from turnout_wire.tensors import Array

TICK_S = 1.0
KEPT_BYTES_MAX = 64 << 20  # tensors of a model's pairs that wait for the end of their window, where they may be stored
SUMMARY_TICKS = 10
_COIN_BITS = 64
_COPIES_MAX = 1 << 20


class Shadows:
    """All shadow rules at work. Used on the loop thread only.

    Args:
        clock_ns: monotonic.
        now_ns: the time of day.
        random_bits: chance: that many random bits as an integer.
        sink: who is told.
        store: where pairs that differ are kept; None: nowhere.
        bytes_max: what all copies of this server may hold together.
        tracer: of copies whose live request is traced, or which are told.
    """

    def __init__(
        self,
        fleet: Fleet,
        clock_ns: ClockNs,
        now_ns: ClockNs,
        offload: Offload,
        observer: Observer,
        random_bits: Callable[[int], int],
        sink: ComparisonSink,
        store: PairStore | None = None,
        tracer: Tracer = NO_TRACER,
        bytes_max: int = 1 << 29,
    ) -> None:
        self.account = ShadowAccount()
        self._fleet = fleet
        self._clock_ns = clock_ns
        self._now_ns = now_ns
        self._observer = observer
        self._random_bits = random_bits
        self._sink = sink
        self._store = store
        self._tracer = tracer
        self._held = Budget(_COPIES_MAX, bytes_max)
        self._comparer = Comparer(offload, observer, fleet.under_way)
        self._active: dict[tuple[str, str], Shadowing] = {}  # by model and shadow slot
        self._samplers: dict[str, ExportSampler[Compared]] = {}  # by model
        self._kept_bytes: Counter[str] = Counter()  # by model, in this window
        self._timer: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._offered: list[tuple[Model, InferenceRequest, Lease, Answer | ServingError]] = []  # in this turn
        self._stopped = False

    def offer(self, model: Model, request: InferenceRequest, lease: Lease, outcome: Answer | ServingError) -> None:
        """Take copies of a request that was just answered, where rules ask for them: in the loop's next turn, after the
        answer."""
        if not self._offered:
            asyncio.get_running_loop().call_soon(self._take)
        self._offered.append((model, request, lease, outcome))

    def __iter__(self) -> Iterator[Shadowing]:
        return iter(self._active.values())

    def reports(self, model: str | None = None) -> list[ShadowReport]:
        """Every rule at work (of one model) as it is now."""
        return [shadowing.report() for place, shadowing in self._active.items() if model in (None, place[0])]

    def learn(self, model: str, inference_id: str, output: str, label: str) -> Learned:
        """What the right answer to a request was: every shadow of the model that answered it is scored.

        Raises:
            ValueError: a label that is no class, or another number of labels than the request has rows; of no shadow
                it is anything else.
        """
        said: set[Learned] = set()
        refusal: ValueError | None = None
        for place, shadowing in self._active.items():
            if place[0] == model:
                try:
                    said.add(shadowing.learn(inference_id, output, label))
                except ValueError as error:  # rules differ in what they compare: others may take it
                    refusal = error
        known = next((each for each in (Learned.SCORED, Learned.DUPLICATE) if each in said), None)
        if known is None and refusal is not None:
            raise refusal
        return known or Learned.UNKNOWN

    async def stop(self) -> None:
        """Take no more copies; those that wait are forgotten, uncounted."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for shadowing in self._active.values():
            shadowing.close()
        await self._comparer.stop()
        if self._store is not None:
            await self._store.stop()

    def _take(self) -> None:
        offered, self._offered = self._offered, []
        for each in offered:
            try:
                self._offer(*each)
            except Exception as error:  # noqa: BLE001 - a fault of our own must not cost the others their copies
                self._observer.handler_failed("shadow", each[1].inference_id, error)

    def _offer(self, model: Model, request: InferenceRequest, lease: Lease, outcome: Answer | ServingError) -> None:
        if model.route is None or self._stopped:
            return
        revision = lease.cargo.revision
        if isinstance(outcome, Answer):
            live = Side(lease.slot.name, revision, outcome.outputs, outcome.timings)
        elif outcome.reason is Reason.EXECUTION_FAILED:
            live = Side(lease.slot.name, revision, None, reason=outcome.reason)
        else:
            return  # nothing was computed
        copy: Copy | None = None
        for rule, target in model.route.copies(request.inference_id, lease.slot.name):
            shadowing = self._shadowing(model, rule, target, lease)
            if request.classes:
                shadowing.drop(Drop.CLASSIFIED)
                continue
            copy = copy or _copy(request, live, lease, self._clock_ns())
            shadowing.offer(copy, rule.repeats(request.inference_id))

    def _shadowing(self, model: Model, rule: ShadowRule, target: Target, lease: Lease) -> Shadowing:
        """The rule at work on the revisions of now."""
        place = (model.name, rule.slot)
        active = self._active.get(place)
        if active is not None and active.fits(rule, lease.cargo.revision, target.revision):
            return active
        if active is not None:
            self._sink.summarised(active.report())
            self._end(place)
        self._active[place] = Shadowing(
            rule,
            Live(lease.slot, lease.cargo.revision, lease.cargo.spec.signature, lease.cargo.spec.labels),
            model.slots[target.slot],
            target.revision,
            self._clock_ns,
            self._now_ns,
            self._comparer,
            self.account,
            self._compared,
            self._held,
            self._fleet.under_way,
            self._tracer,
        )
        self._arm()
        return self._active[place]

    def _compared(self, compared: Compared) -> None:
        pair = compared.pair
        model = pair.copy.request.model
        if (sampler := self._samplers.get(model)) is None:
            sampler = self._samplers[model] = ExportSampler(bare=self._bare)
        target = (pair.shadow.slot, pair.shadow.revision.digest, pair.copy.kind)
        coin = self._random_bits(_COIN_BITS)
        self._tell(sampler.offer(target, compared.divergence, compared, compared.time_ns, coin))
        self._arm()

    def _bare(self, compared: Compared) -> Compared:
        """With what the store may want."""
        copy = compared.pair.copy
        keeps = self._store is not None and compared.divergence.result is not Result.MATCH
        if keeps and self._kept_bytes[copy.request.model] + copy.bytes <= KEPT_BYTES_MAX:
            self._kept_bytes[copy.request.model] += copy.bytes
            return compared.without_rows()
        return compared.without_rows().without_tensors()

    def _tell(self, exports: Sequence[Export[Compared]]) -> None:
        for export in map(self._traced, exports):
            if self._store is not None and export.record.pair.copy.request.inputs:
                told = replace(export.record.without_tensors(), payload_ref=self._store.keep(export))
                self._sink.compared(replace(export, record=told))
            else:
                self._sink.compared(export)

    def _traced(self, export: Export[Compared]) -> Export[Compared]:
        """With a span of its copy: whoever reads of a pair finds it, although nobody had decided to trace it."""
        compared = export.record
        if compared.pair.trace is not None or not self._tracer.on:
            return export
        trace = self._tracer.root()
        pair = replace(compared.pair, trace=trace)
        self._tracer.copy_ended(EndedCopy(trace, pair, compared.divergence.result))
        return replace(export, record=replace(compared, pair=pair))

    def _arm(self) -> None:
        if self._timer is None and not self._stopped:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        try:
            self._turn()
        except Exception as error:  # noqa: BLE001 - a fault of who is told must not end shadowing
            self._observer.handler_failed("shadow", "", error)
        if self._active:
            self._arm()

    def _turn(self) -> None:
        """Windows may be over: what they held back is told. Rules that are gone are told a last time, and end; with the
        last one of a model its window does."""
        self._ticks += 1
        for sampler in self._samplers.values():
            self._tell(sampler.poll(self._now_ns()))
        window_ends = self._ticks % SUMMARY_TICKS == 0
        if window_ends:
            self._kept_bytes.clear()
        for place, shadowing in list(self._active.items()):
            gone = not self._in_force(place, shadowing)
            if gone or window_ends:
                self._sink.summarised(shadowing.report())
            if gone:
                self._end(place)
        for model in self._samplers.keys() - {place[0] for place in self._active}:
            self._tell(self._samplers.pop(model).close(self._now_ns()))

    def _in_force(self, place: tuple[str, str], shadowing: Shadowing) -> bool:
        route = self._fleet.model(place[0]).route
        return route is not None and shadowing.rule in route.shadows

    def _end(self, place: tuple[str, str]) -> None:
        if (shadowing := self._active.pop(place, None)) is not None:
            shadowing.close()


def _copy(request: InferenceRequest, live: Side, lease: Lease, now_ns: int) -> Copy:
    """Charged for what it keeps: its inputs, the live outputs, and the shadow's to come."""
    outputs = {name: _own(array) for name, array in (live.outputs or {}).items()}
    held = sum(map(bytes_of, request.inputs.values())) + 2 * sum(map(bytes_of, outputs.values()))
    batched = lease.cargo.spec.signature.rows_max > 0
    rows = next((array.shape[0] for array in request.inputs.values()), 1) if batched else 1
    kept = replace(live, outputs=outputs) if live.outputs is not None else live
    return Copy(request, kept, PairKind.SHADOW, lease.generation, now_ns, rows, held)


def _own(array: Array) -> Array:
    """A view of a small part would keep the outputs of its whole batch."""
    base = array.base
    return array.copy() if isinstance(base, np.ndarray) and base.nbytes > 2 * array.nbytes else array
