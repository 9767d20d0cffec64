"""Copies on their way to a slot: gathered, bounded, behind everything live, and dropped by reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from support.traces import KeptTraces
from support.virtual import VirtualLoop, virtual
from support.world import DECLARED, SyntheticSource, World, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.copies import Copy, Drop, Pair, PairKind, Side
from turnout.core.errors import Reason
from turnout.core.slots import SlotState
from turnout.core.tracing import TraceContext
from turnout.runtime.account import Outcome
from turnout.runtime.budget import Budget
from turnout.runtime.lane import _SOLO, LINGER_NS, Lane, LaneLimits
from turnout.runtime.slot import Slot

MS = 1_000_000
LINGER_S = LINGER_NS / 1e9
LIMITS = LaneLimits(copies_max=10, bytes_max=10_000, deadline_ns=1000 * MS)


@dataclass
class Track:
    """Slot 'blue' holds version 2 and is live, 'v1' holds version 1 and gets copies."""

    world: World
    live_model: SyntheticModel
    shadow_model: SyntheticModel
    lane: Lane
    tracer: KeptTraces
    pairs: list[Pair] = field(default_factory=list)
    drops: Counter[Drop] = field(default_factory=Counter)

    @property
    def live(self) -> Slot:
        return self.world.fleet.model("m").slots["blue"]

    @property
    def shadow(self) -> Slot:
        return self.world.fleet.model("m").slots["v1"]

    def offer(self, *values: float, rows: int = 1, size: int = 100, trace: TraceContext | None = None) -> None:
        assert self.live.revision is not None
        for value in values:
            asked = request(value, rows, inference_id=f"id-{value:g}", trace=trace)
            live = Side("blue", self.live.revision, {"y": np.full((rows, 4), 2 * value, np.float32)})
            self.lane.offer(Copy(asked, live, PairKind.SHADOW, 1, self.world.clock(), rows, size))

    def forget_all(self) -> None:
        for pair in self.pairs:
            self.lane.forget(pair.copy)
        self.pairs.clear()

    @property
    def answers(self) -> list[float]:
        return [float(pair.shadow.outputs["y"][0, 0]) for pair in self.pairs if pair.shadow.outputs is not None]


async def track(loop: VirtualLoop, run_ms: float = 10, limits: LaneLimits = LIMITS, poison: float = -1) -> Track:
    live, shadow = SyntheticModel(DECLARED), SyntheticModel(DECLARED, poison=poison)
    source = SyntheticSource("m", versions=(2, 1))
    tracer = KeptTraces()
    world = await World.open(loop, {"m/2": live, "m/1": shadow}, [source], tracer=tracer)
    for model in (live, shadow):
        model.runs.clear()
    live.wait = lambda rows: world.clock.spend(10 * MS)
    shadow.wait = lambda rows: world.clock.spend(round(run_ms * MS))
    slots = world.fleet.model("m").slots
    revision = slots["v1"].revision
    assert revision is not None
    made: Track
    lane = Lane(
        slots["v1"],
        revision,
        slots["blue"],
        limits,
        world.clock,
        lambda pair: made.pairs.append(pair),
        lambda reason, count: made.drops.update({reason: count}),
        Budget(1000, 1 << 20),
        world.fleet.under_way,
        tracer,
    )
    made = Track(world, live, shadow, lane, tracer)
    return made


@virtual
async def test_copies_run_together_and_after_a_moment(loop: VirtualLoop) -> None:
    t = await track(loop)
    t.offer(1, 2, 3)
    await t.world.after(LINGER_S * 0.9)
    assert t.shadow_model.runs == []
    await t.world.after(LINGER_S)
    assert t.shadow_model.runs == [3]
    assert t.answers == [2, 4, 6]
    assert [pair.copy.request.inference_id for pair in t.pairs] == ["id-1", "id-2", "id-3"]
    assert {
        (p.shadow.slot, str(p.shadow.revision), p.shadow.timings.batch_rows) for p in t.pairs if p.shadow.timings
    } == {("v1", "m/1", 3)}
    assert t.drops == Counter()
    assert (t.shadow.leases, t.lane.copies) == (0, 3)
    t.forget_all()
    assert t.lane.copies == 0


@virtual
async def test_one_batch_at_a_time_and_no_pause_between_full_ones(loop: VirtualLoop) -> None:
    t = await track(loop, run_ms=1, limits=LaneLimits(100, 100_000, 1000 * MS))
    t.offer(*range(20))
    await t.world.after(LINGER_S + 0.01)
    assert t.shadow_model.runs == [8, 8], "two full batches at once; what is left waits for company"
    await t.world.after(LINGER_S)
    assert t.shadow_model.runs == [8, 8, 4]


@virtual
async def test_a_batch_waits_for_a_pause_of_live_requests_but_not_for_ever(loop: VirtualLoop) -> None:
    t = await track(loop)
    under_way = t.world.fleet.under_way
    under_way.begin()
    t.offer(1)
    await t.world.after(LINGER_S + 0.005)
    assert t.shadow_model.runs == []
    under_way.end()
    await t.world.after(0.0015)
    assert t.shadow_model.runs == [1]
    await t.world.after(1)
    under_way.begin()
    t.offer(2)
    await t.world.after(LINGER_S + 0.0095)
    assert t.shadow_model.runs == [1]
    await t.world.after(0.001)
    assert t.shadow_model.runs == [1, 1]


@virtual
async def test_copies_are_charged_to_nobody_else(loop: VirtualLoop) -> None:
    t = await track(loop)
    t.offer(1, 2)
    await t.world.after(LINGER_S + 0.005)
    assert t.shadow.leases == 2, "under way"
    assert (t.world.budget.rows, t.world.budget.bytes) == (0, 0)
    await t.world.after(1)
    assert all(t.shadow.account.tally(outcome).requests == 0 for outcome in Outcome), "no client sent them"
    assert (t.world.budget.rows, t.world.budget.bytes) == (0, 0)


@virtual
async def test_bounded_in_number_until_compared(loop: VirtualLoop) -> None:
    t = await track(loop)
    t.offer(*range(12))
    assert t.drops == {Drop.QUEUE_FULL: 2}
    await t.world.after(1)
    assert len(t.pairs) == 10
    t.offer(100)
    assert t.drops == {Drop.QUEUE_FULL: 3}, "pairs that are not compared yet count too"
    t.forget_all()
    t.offer(100)
    assert t.drops == {Drop.QUEUE_FULL: 3}


@virtual
async def test_bounded_in_bytes(loop: VirtualLoop) -> None:
    t = await track(loop)
    t.offer(1, 2, size=6000)
    assert t.drops == {Drop.BUDGET: 1}
    t.offer(3, size=10_001)
    assert t.drops == {Drop.BUDGET: 1, Drop.PAYLOAD_TOO_LARGE: 1}
    await t.world.after(1)
    assert t.answers == [2]


@virtual
async def test_a_run_that_does_not_end_keeps_others_until_their_deadline(loop: VirtualLoop) -> None:
    t = await track(loop, run_ms=1_000_000)
    t.offer(1)
    await t.world.after(LINGER_S + 0.01)
    t.offer(2, 3)
    await t.world.after(2)
    assert t.shadow_model.runs == [1]
    assert t.drops == {Drop.DEADLINE: 2}
    assert t.lane.copies == 1


@virtual
async def test_dropped_while_live_requests_wait(loop: VirtualLoop) -> None:
    t = await track(loop)
    t.live_model.wait = lambda rows: t.world.clock.spend(200 * MS)
    answers = [t.world.infer(request(value)) for value in range(30)]
    t.offer(1, 2)
    await t.world.after(LINGER_S + 0.01)
    assert t.drops == {Drop.OVERLOAD: 2}
    await t.world.after(2)
    assert all(answer.response for answer in answers)
    t.offer(3)
    await t.world.after(1)
    assert t.answers == [6], "and taken again afterwards"


@virtual
async def test_dropped_when_the_loop_is_late(loop: VirtualLoop) -> None:
    t = await track(loop)
    t.offer(1)
    loop.now_s += LINGER_S + 0.06  # as if something had kept the loop
    await t.world.after(LINGER_S)
    assert t.drops == {Drop.OVERLOAD: 1}


@virtual
async def test_what_is_live_in_the_same_slot_goes_first(loop: VirtualLoop) -> None:
    t = await track(loop)
    t.shadow_model.wait = lambda rows: t.world.clock.spend(80 * MS)
    first = t.world.infer(request(50, 8, slot="v1"))
    second = t.world.infer(request(51, 8, slot="v1"))
    t.offer(1)
    await t.world.after(LINGER_S + 0.01)
    assert t.shadow_model.runs == [8], "the second one waits, so the copy is not even queued"
    await t.world.after(1)
    assert (first.calls, second.calls) == (1, 1)
    assert t.shadow_model.runs == [8, 8, 1]


@virtual
async def test_a_copy_that_waits_too_long_behind_what_is_live(loop: VirtualLoop) -> None:
    t = await track(loop, run_ms=1000, limits=LaneLimits(10, 10_000, 100 * MS))
    first = t.world.infer(request(50, 8, slot="v1"))
    t.offer(1, 2)
    await t.world.after(2)
    assert first.calls == 1
    assert t.shadow_model.runs == [8], "it was in the slot's own queue by then"
    assert t.drops == {Drop.DEADLINE: 2}
    assert (t.lane.copies, t.shadow.leases) == (0, 0)


@virtual
async def test_a_slot_that_holds_something_else(loop: VirtualLoop) -> None:
    t = await track(loop)
    t.offer(1)
    await t.shadow.unload()
    await t.world.after(1)
    assert t.drops == {Drop.NOT_READY: 1}
    assert t.shadow.state is SlotState.EMPTY
    assert t.lane.copies == 0


@virtual
async def test_a_run_that_fails_is_an_answer(loop: VirtualLoop) -> None:
    t = await track(loop, poison=2)
    t.offer(1, 2, 3)
    await t.world.after(1)
    assert {p.copy.request.inference_id: p.shadow.reason for p in t.pairs} == {
        "id-1": None,
        "id-2": Reason.EXECUTION_FAILED,
        "id-3": None,
    }
    assert t.shadow.leases == 0


@virtual
async def test_a_request_that_does_not_fit_the_shadow_is_an_answer(loop: VirtualLoop) -> None:
    t = await track(loop)
    t.offer(1, rows=9)
    await t.world.after(1)
    assert [pair.shadow.reason for pair in t.pairs] == [Reason.INVALID_REQUEST]
    assert t.shadow.leases == 0


@virtual
async def test_a_copy_of_a_traced_request_is_traced_apart_from_it(loop: VirtualLoop) -> None:
    t = await track(loop)
    live = TraceContext(1001, 1002)
    t.offer(1)
    t.offer(2, trace=live)
    offered_ns = t.world.clock()
    await t.world.after(1)
    untraced, traced = t.pairs
    assert untraced.trace is None
    assert traced.trace is not None and traced.trace.trace_id != live.trace_id
    assert traced.copy.request.trace == live
    [batch] = t.tracer.batches
    assert (batch.links, batch.requests) == ([traced.trace], 2)
    assert traced.shadow.timings is not None and traced.shadow.timings.batch == batch.trace
    assert traced.started_ns == offered_ns + LINGER_NS
    assert traced.ended_ns >= batch.ended_ns == traced.started_ns + 10 * MS


@virtual
async def test_a_traced_copy_that_fails(loop: VirtualLoop) -> None:
    t = await track(loop, poison=2)
    t.offer(2, trace=TraceContext(1001, 1002))
    await t.world.after(1)
    [pair] = t.pairs
    assert pair.trace is not None
    assert t.world.seen.traces == [pair.trace], "the log line is of the copy, and not of its request"
    assert [batch.links for batch in t.tracer.batches] == [[pair.trace]]
    assert pair.ended_ns - pair.started_ns >= 10 * MS


@virtual
async def test_closed(loop: VirtualLoop) -> None:
    t = await track(loop)
    t.offer(1)
    await t.world.after(LINGER_S + 0.005)
    t.offer(2)
    t.lane.close()
    await t.world.after(1)
    assert t.pairs == []
    assert t.drops == Counter()
    assert (t.lane.copies, t.shadow.leases) == (0, 0)
    await t.shadow.unload()


@virtual
async def test_a_batch_may_be_bounded_further(loop: VirtualLoop) -> None:
    t = await track(loop, limits=LaneLimits(10, 10_000, 1000 * MS, run_rows_max=1))
    t.offer(1, 2)
    t.offer(3, rows=2)
    await t.world.after(1)
    assert t.shadow_model.runs == [1, 1, 2], "one that is larger by itself goes alone"


@virtual
async def test_after_one_that_failed_copies_run_alone_for_a_while(loop: VirtualLoop) -> None:
    """A batch with a bad copy in it costs many further runs, for which live requests of the slot would wait."""
    t = await track(loop, run_ms=1, poison=2, limits=LaneLimits(200, 100_000, 100_000 * MS))
    t.offer(1, 2, 3)
    await t.world.after(1)
    t.shadow_model.runs.clear()
    t.forget_all()
    t.offer(*range(10, 10 + _SOLO + 6))
    await t.world.after(10)
    assert t.shadow_model.runs == [1] * _SOLO + [6]


@virtual
async def test_copies_share_no_batch_with_live_requests(loop: VirtualLoop) -> None:
    t = await track(loop, poison=2)
    t.shadow_model.wait = lambda rows: t.world.clock.spend(80 * MS)
    t.offer(1, 2)
    await t.world.after(LINGER_S + 0.001)
    live = [t.world.infer(request(value, slot="v1")) for value in (50.0, 51.0, 52.0)]
    await t.world.after(2)
    assert [answer.response.timings.batch_rows for answer in live] == [3, 3, 3]
    assert all(answer.calls == 1 for answer in live)


@virtual
async def test_bounded_together_with_other_lanes(loop: VirtualLoop) -> None:
    t = await track(loop)
    t.lane._shared.take(1, (1 << 20) - 150)
    t.offer(1, 2, size=100)
    assert t.drops == {Drop.BUDGET: 1}
    await t.world.after(1)
    t.forget_all()
    assert t.lane._shared.bytes == (1 << 20) - 150


@virtual
async def test_a_fault_of_the_queue_keeps_neither_lease_nor_lane(
    loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = await track(loop)

    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("turnout.runtime.batcher.Batcher.submit", breaks)
    t.offer(1, 2)
    await t.world.after(1)
    monkeypatch.undo()
    assert [pair.shadow.reason for pair in t.pairs] == [Reason.EXECUTION_FAILED] * 2
    assert t.shadow.leases == 0
    t.forget_all()
    t.offer(3)
    await t.world.after(1)
    assert t.answers == [6]
