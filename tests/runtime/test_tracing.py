"""What a tracer learns of batches, and who was to answer a request that failed."""

from __future__ import annotations

import pytest

from support.traces import KeptTraces
from support.virtual import VirtualLoop, virtual
from support.world import DECLARED, SyntheticSource, World, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.assignment import Assignment, Choice
from turnout.core.errors import Reason, ServingError
from turnout.core.routing import Interval, Route
from turnout.core.tracing import TraceContext
from turnout.runtime.account import Outcome
from turnout.runtime.jobs import SlotLimits

T1, T2, T3 = (TraceContext(n, n) for n in (101, 102, 103))


async def open_world(loop: VirtualLoop, tracer: KeptTraces, **more: object) -> World:
    model = SyntheticModel(DECLARED, poison=1e6)
    world = await World.open(loop, {"m": model}, [SyntheticSource("m", rows_max=8)], tracer=tracer, **more)  # type: ignore[arg-type]
    model.wait = lambda rows: world.clock.spend(1000)
    return world


@virtual
async def test_one_batch_links_the_traced_requests_in_it(loop: VirtualLoop) -> None:
    tracer = KeptTraces()
    world = await open_world(loop, tracer)
    sent_ns = world.clock()
    outcomes = [world.infer(request(rows=rows, trace=trace)) for rows, trace in ((2, T1), (1, None), (3, T2))]
    await world.after(1)
    [batch] = tracer.batches
    assert batch.links == [T1, T2]
    assert (batch.requests, batch.rows, str(batch.revision)) == (3, 6, "m/1")
    assert batch.timings is not None and batch.timings.compute_infer_ns == 1000
    assert batch.ended_ns - batch.started_ns == 1000
    for outcome in outcomes:
        timings = outcome.response.timings
        assert timings.batch == batch.trace
        assert timings.started_ns == batch.started_ns == sent_ns + timings.queue_ns


@virtual
async def test_nothing_is_told_of_batches_without_traced_requests(loop: VirtualLoop) -> None:
    tracer = KeptTraces()
    world = await open_world(loop, tracer)
    outcome = world.infer(request())
    await world.after(1)
    assert outcome.response.timings.batch is None
    assert not tracer.batches


@virtual
async def test_every_run_of_a_batch_that_is_taken_apart_is_told(loop: VirtualLoop) -> None:
    tracer = KeptTraces()
    world = await open_world(loop, tracer)
    good, bad = world.infer(request(1.0, trace=T1)), world.infer(request(1e6, trace=T2))
    await world.after(1)
    assert [(list(batch.links), batch.timings is not None) for batch in tracer.batches] == [
        ([T1, T2], False),
        ([T1], True),
        ([T2], False),
    ]
    assert all(batch.ended_ns >= batch.started_ns for batch in tracer.batches)
    assert good.response.timings.batch == tracer.batches[1].trace
    assert bad.error.reason is Reason.EXECUTION_FAILED
    assert world.seen.traces == [T2]


@virtual
async def test_a_failure_says_who_was_to_answer(loop: VirtualLoop) -> None:
    world = await open_world(loop, KeptTraces(), limits=SlotLimits(4, 1 << 30))
    failed = world.infer(request(1e6))
    expired = world.infer(request(deadline_ns=world.clock() + 1))
    world.infer(request(rows=2))
    with pytest.raises(ServingError) as full:
        world.infer(request(rows=4))
    await world.after(1)
    revision = world.fleet.model("m").slots["blue"].revision
    assert revision is not None
    expected = Assignment("blue", revision, 1, Choice.ONLY)
    assert full.value.reason is Reason.QUEUE_FULL and full.value.assignment == expected
    assert failed.error.assignment == expected
    assert expired.error.reason is Reason.DEADLINE_EXCEEDED and expired.error.assignment == expected


@virtual
async def test_an_answer_says_what_chose_its_slot(loop: VirtualLoop) -> None:
    models = {"m": SyntheticModel(DECLARED, poison=1e6)}
    world = await World.open(loop, models, [SyntheticSource("m", versions=(1, 2), rows_max=8)])
    only, pinned = world.infer(request()), world.infer(request(version=1))
    await world.after(1)
    assert (only.response.choice, pinned.response.choice) == (Choice.ONLY, Choice.PIN)
    model = world.fleet.model("m")
    assert model.route is not None
    by_slot = {target.slot: target for target in model.route.targets}
    blue, older = by_slot["blue"], by_slot["v1"]
    split = (Interval(0, 5000, older), Interval(5000, 10000, blue))
    model.assign(Route("m", 2, model.route.targets, split))
    routed = world.infer(request(sticky_key="k"))
    await world.after(1)
    assert (routed.response.choice, routed.response.generation) == (Choice.SPLIT, 2)


@virtual
async def test_a_fallback_says_so(loop: VirtualLoop) -> None:
    models = {"m": SyntheticModel(DECLARED, poison=1e6)}
    world = await World.open(loop, models, [SyntheticSource("m", versions=(1, 2), rows_max=8)])
    model = world.fleet.model("m")
    assert model.route is not None
    by_slot = {target.slot: target for target in model.route.targets}
    blue, older = by_slot["blue"], by_slot["v1"]
    model.assign(Route("m", 2, model.route.targets, (Interval(0, 100, older), Interval(100, 10000, blue))))
    world.dispatcher._fallback = True
    outcome = world.infer(request(1e6))
    await world.after(1)
    assert outcome.error.assignment is not None
    assert (outcome.error.assignment.slot, outcome.error.assignment.choice) == ("blue", Choice.FALLBACK)
    counted = {
        load.slot: (load.account.routed[Outcome.FAILED].requests, load.account.pinned[Outcome.FAILED].requests)
        for load in world.accounts
    }
    assert counted == {"v1": (1, 0), "blue": (0, 1)}, "chance did not send it to the slot that answered in its place"
