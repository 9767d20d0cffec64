"""Live requests under way: counted once each however they end, and waited for, but not for ever."""

from __future__ import annotations

import asyncio

import pytest

from support.virtual import VirtualLoop, virtual
from support.world import DECLARED, SyntheticSource, World, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.errors import ServingError
from turnout.core.routing import Interval, Route
from turnout.runtime.dispatcher import Dispatcher
from turnout.runtime.jobs import SlotLimits
from turnout.runtime.under_way import UnderWay

MS = 1_000_000


async def opened(loop: VirtualLoop, queue_rows_max: int = 1000) -> World:
    """Slot 'blue' holds version 2; 'v1' holds version 1, which fails on 666. A run takes 10 ms."""
    models = {"m/2": SyntheticModel(DECLARED), "m/1": SyntheticModel(DECLARED, poison=666)}
    source = SyntheticSource("m", versions=(2, 1), rows_max=2)
    world = await World.open(loop, models, [source], SlotLimits(queue_rows_max, 1 << 30))
    for model in models.values():
        model.wait = lambda rows: world.clock.spend(10 * MS)
    return world


@virtual
async def test_from_the_queue_to_the_answer(loop: VirtualLoop) -> None:
    world = await opened(loop)
    under_way = world.fleet.under_way
    counts: list[int] = []
    for value in (1, 2, 3):
        world.dispatcher.infer(request(value), lambda _: counts.append(under_way.count))
    assert under_way.count == 3
    await world.after(1)
    assert counts == [3, 2, 1], "each until after its answer"
    assert under_way.count == 0


@virtual
async def test_however_a_request_ends(loop: VirtualLoop) -> None:
    world = await opened(loop, queue_rows_max=2)
    under_way = world.fleet.under_way
    running, queued, failing = world.infer(request(1)), world.infer(request(2)), world.infer(request(666, slot="v1"))
    with pytest.raises(ServingError):
        world.infer(request(4))  # the queue is full
    assert under_way.count == 3, "who is refused never was"
    await world.after(0.005)
    for outcome in (running, queued):
        assert outcome.ticket is not None
        outcome.ticket.cancel()
    late = world.infer(request(5, deadline_ns=world.clock() + MS))
    assert late.ticket is not None
    loop.call_later(0.002, late.ticket.expire)
    await world.after(1)
    assert isinstance(failing.answer, ServingError)
    assert isinstance(late.answer, ServingError)
    assert under_way.count == 0


@virtual
async def test_a_request_that_another_slot_answers_is_one(loop: VirtualLoop) -> None:
    world = await opened(loop)
    world.dispatcher = Dispatcher(world.fleet, world.clock, lambda n: 0, fallback=True)
    model = world.fleet.model("m")
    assert model.route is not None
    blue, older = ({target.slot: target for target in model.route.targets}[slot] for slot in ("blue", "v1"))
    model.assign(Route("m", 2, model.route.targets, (Interval(0, 100, older), Interval(100, 10000, blue))))
    outcome = world.infer(request(666))
    counts = [world.fleet.under_way.count]
    for _ in range(3):
        await world.after(0.009)
        counts.append(world.fleet.under_way.count)
    assert outcome.response.slot == "blue"
    assert counts == [1, 1, 1, 0], "through both runs"


@virtual
async def test_an_edge_that_breaks_leaves_nothing_under_way(loop: VirtualLoop) -> None:
    world = await opened(loop)

    def breaks(_: object) -> None:
        raise RuntimeError("a bug")

    world.dispatcher.infer(request(1), breaks)
    await world.after(1)
    assert world.fleet.under_way.count == 0


@virtual
async def test_a_pause_begins_with_the_last_answer(loop: VirtualLoop) -> None:
    under_way = UnderWay()
    assert await under_way.pause(loop.time()), "nothing is under way"
    under_way.begin()
    under_way.begin()
    loop.call_later(0.01, under_way.end)
    loop.call_later(0.02, under_way.end)
    began_s = loop.time()
    assert await under_way.pause(began_s + 1)
    assert loop.time() - began_s == pytest.approx(0.02)


@virtual
async def test_a_pause_that_does_not_come_is_not_waited_for_longer(loop: VirtualLoop) -> None:
    under_way = UnderWay()
    under_way.begin()
    began_s = loop.time()
    assert not await under_way.pause(began_s + 0.5)
    assert loop.time() - began_s == pytest.approx(0.5)
    assert not await under_way.pause(began_s)
    assert under_way._waiting == set(), "nothing is kept of those who gave up"


@virtual
async def test_a_request_that_comes_at_once_after_the_last_is_waited_for_too(loop: VirtualLoop) -> None:
    under_way = UnderWay()
    under_way.begin()

    def the_next() -> None:
        under_way.end()
        under_way.begin()
        loop.call_later(0.01, under_way.end)

    loop.call_later(0.01, the_next)
    began_s = loop.time()
    assert await under_way.pause(began_s + 1)
    assert loop.time() - began_s == pytest.approx(0.02)


@virtual
async def test_several_may_wait(loop: VirtualLoop) -> None:
    under_way = UnderWay()
    under_way.begin()
    loop.call_later(0.01, under_way.end)
    until_s = loop.time() + 1
    assert await asyncio.gather(*(under_way.pause(until_s) for _ in range(3))) == [True] * 3
