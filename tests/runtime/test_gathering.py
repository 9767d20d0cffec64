"""The learned hold and its neighbours, through the whole runtime on virtual time: notes on performance, section 5.5."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from support.traffic import MLP, MS, Cost, Measured, ask, bursty, closed_loop, gpu_like, open_loop, open_server, poisson
from support.virtual import VirtualLoop, run_virtual, virtual
from support.world import DECLARED, SyntheticSource, World, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.batch_policy import BatchPolicy, QueuePolicy
from turnout.core.errors import Reason, ServingError
from turnout.core.slots import SlotState

GATHER = BatchPolicy(gathers=True)
EAGER = BatchPolicy(gathers=False)


def closed(
    cost: Cost,
    clients: int,
    policy: BatchPolicy,
    front_end_s: float = 0,
    think_s: float | None = None,
    seconds: float = 2,
) -> Measured:
    """The second half of some seconds of a closed loop; without `think_s` clients send again within 0.3 ms."""

    async def run(loop: VirtualLoop) -> Measured:
        world = await open_server(loop, cost, policy)
        return await closed_loop(
            world, clients, seconds, lambda rng: rng.random() * 0.0003 if think_s is None else think_s, front_end_s
        )

    return run_virtual(run)


def open_(cost: Cost, arrivals_s: Sequence[float], policy: BatchPolicy) -> Measured:
    async def run(loop: VirtualLoop) -> Measured:
        return await open_loop(await open_server(loop, cost, policy, rows_max=64), arrivals_s)

    return run_virtual(run)


@pytest.mark.parametrize(("cost", "clients"), [(MLP, 4), (MLP, 16), (gpu_like, 4), (gpu_like, 16)])
def test_clients_in_closed_loops_are_gathered(cost: Cost, clients: int) -> None:
    assert closed(cost, clients, GATHER).per_second >= 1.1 * closed(cost, clients, EAGER).per_second


@pytest.mark.parametrize("front_end_s", [0.00005, 0.0002])
@pytest.mark.parametrize(("cost", "clients"), [(MLP, 4), (MLP, 16), (gpu_like, 4), (gpu_like, 16)])
def test_where_the_front_end_takes_time_gathering_is_never_much_worse(
    cost: Cost, clients: int, front_end_s: float
) -> None:
    gathered = closed(cost, clients, GATHER, front_end_s, 0).per_second
    assert gathered >= 0.9 * closed(cost, clients, EAGER, front_end_s, 0).per_second


@pytest.mark.parametrize("cost", [MLP, gpu_like])
def test_with_time_to_think_gathering_costs_nothing(cost: Cost) -> None:
    """Once it has been tried: trials take 1 % of the batches in the long run."""
    gathered, eager = (closed(cost, 16, policy, think_s=0.005, seconds=8).mean_ms for policy in (GATHER, EAGER))
    assert gathered == pytest.approx(eager, rel=0.01)


@pytest.mark.parametrize("load", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize(("cost", "saturation"), [(MLP, 2200), (gpu_like, 3000)])
def test_where_nobody_returns_gathering_costs_nothing(cost: Cost, saturation: float, load: float) -> None:
    arrivals = poisson(saturation * load, 3000 / (saturation * load), seed=int(load * 10))
    gathered, eager = (open_(cost, arrivals, policy).mean_ms for policy in (GATHER, EAGER))
    assert gathered == pytest.approx(eager, rel=0.01)


@pytest.mark.parametrize("clients", [4, 16])
def test_without_a_fixed_cost_there_is_nothing_to_gather_for(clients: int) -> None:
    def linear(rows: int) -> float:
        return 0.5 * MS * rows

    gathered, eager = (closed(linear, clients, policy) for policy in (GATHER, EAGER))
    assert gathered.latencies_ms == eager.latencies_ms


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_eager_waits_follow_the_recursion(load: float) -> None:
    """Each batch starts when the one before it has ended and somebody waits, and takes all that have come."""
    t0_ns, row_ns, rows_max = 2 * MS, MS // 2, 64
    arrivals = poisson(load * 2000, 1.5, seed=3)
    waits_ms = []
    free_s, at = 0.0, 0
    while at < len(arrivals):
        start_s = max(free_s, arrivals[at])
        batch = [a for a in arrivals[at : at + rows_max] if a <= start_s]
        free_s = start_s + (t0_ns + row_ns * len(batch)) / 1e9
        waits_ms += [(free_s - arrival) * 1000 for arrival in batch]
        at += len(batch)
    measured = open_(lambda rows: t0_ns + row_ns * rows, arrivals, EAGER)
    expected = waits_ms[len(arrivals) // 10 :]
    assert measured.mean_ms == pytest.approx(sum(expected) / len(expected), rel=1e-3)


def test_eager_at_high_load_is_near_the_theory() -> None:
    """Cycle T = t0 / (1 - a lam); the mean latency is about 1.5 T once batches have many rows."""
    arrivals = poisson(1800, 4, seed=1)
    measured = open_(lambda rows: 2 * MS + 0.5 * MS * rows, arrivals, EAGER)
    assert measured.mean_ms == pytest.approx(1.5 * 2 / (1 - 0.5 * 1.8), rel=0.12)


@virtual
async def test_no_request_runs_past_its_deadline_and_hopeless_ones_are_refused_at_once(loop: VirtualLoop) -> None:
    """Runs take 10 ms and one row each. Of ten requests that come together and have 35 ms, three can make it; the
    others hear so at once, and cost no run."""
    world = World(loop)
    model = SyntheticModel(DECLARED)
    model.wait = lambda rows: world.clock.spend(10 * MS)
    await world.load({"m": model}, [SyntheticSource("m", rows_max=1)])
    model.runs.clear()
    first = world.infer(request())
    await world.after(0.001)
    outcomes, refusals = [], []
    for _ in range(10):
        try:
            outcomes.append(world.infer(request(deadline_ns=world.clock() + 36 * MS)))
        except ServingError as refusal:
            refusals.append(refusal)
    await world.after(1)
    assert first.response.timings.queue_ns == 0
    assert [outcome.response.timings.batch_rows for outcome in outcomes] == [1] * len(outcomes)
    assert len(outcomes) == 2, "9 ms are left of the run, 10 more each; the own run may take 15"
    assert {refusal.reason for refusal in refusals} == {Reason.QUEUE_FULL}
    assert all(refusal.retry_after_ms for refusal in refusals)
    assert "too long for the deadline" in refusals[0].message
    assert len(model.runs) == 3


@virtual
async def test_a_queue_timeout_bounds_the_wait_and_not_the_run(loop: VirtualLoop) -> None:
    queue = QueuePolicy(timeout_ns=5 * MS)
    world = await open_server(loop, lambda rows: 10 * MS, BatchPolicy(gathers=False, queue=queue), rows_max=1)
    world.infer(request())
    await world.after(0.009)
    second, third = world.infer(request()), world.infer(request())
    await world.after(1)
    assert second.response.timings.queue_ns <= 5 * MS
    assert third.error.reason is Reason.DEADLINE_EXCEEDED


@virtual
async def test_a_stall_is_no_reason_to_refuse_for_long(loop: VirtualLoop) -> None:
    """Five runs of half a second, then ten milliseconds each again: two seconds later nobody is refused."""
    slow = 0

    def cost(rows: int) -> float:
        nonlocal slow
        slow -= 1
        return 500 * MS if slow >= 0 else 10 * MS

    world = await open_server(loop, cost, EAGER, rows_max=1)
    slow = 5
    refused: list[float] = []
    start_s = loop.time()
    for arrival_s in poisson(30, 10, seed=4):
        await asyncio.sleep(start_s + arrival_s - loop.time())
        try:
            world.infer(request(deadline_ns=world.clock() + 150 * MS))
        except ServingError:
            refused.append(loop.time() - start_s)
    assert refused, "the stall is seen"
    assert max(refused) < 4.5


@virtual
async def test_a_free_server_tries_every_deadline(loop: VirtualLoop) -> None:
    """A profile that has become wrong must be measured again, or nobody would ever be served."""
    world = await open_server(loop, lambda rows: 10 * MS, EAGER)
    outcome = world.infer(request(deadline_ns=world.clock() + MS))
    await world.after(1)
    assert outcome.response.timings.batch_rows == 1


@pytest.mark.parametrize("policy", [GATHER, EAGER])
def test_a_slot_that_is_unloaded_within_a_burst_loses_nothing(policy: BatchPolicy) -> None:
    async def run(loop: VirtualLoop) -> None:
        world = await open_server(loop, MLP, policy)
        arrivals = bursty(1500, 1, seed=2)
        slot = world.fleet.model("m").slots["blue"]
        answered: list[object] = []
        refused: list[ServingError] = []

        async def one() -> None:
            try:
                answered.append(await ask(world))
            except ServingError as refusal:
                refused.append(refusal)

        start_s = loop.time()
        tasks = []
        for number, arrival_s in enumerate(arrivals):
            await asyncio.sleep(start_s + arrival_s - loop.time())
            tasks.append(asyncio.ensure_future(one()))
            if number == len(arrivals) // 2:
                tasks.append(asyncio.ensure_future(slot.unload()))
        await asyncio.gather(*tasks)
        assert slot.state is SlotState.EMPTY
        assert len(answered) + len(refused) == len(arrivals)
        assert len(answered) >= len(arrivals) // 2
        assert {refusal.reason for refusal in refused} == {Reason.NOT_READY}

    run_virtual(run)


@virtual
async def test_batches_are_filled_up_to_warm_sizes(loop: VirtualLoop) -> None:
    world = await open_server(loop, lambda rows: 10 * MS, BatchPolicy(padded=True), rows_max=8)
    model = world.fleet.model("m")
    first = world.infer(request(1.0))
    await world.after(0.001)
    outcomes = [world.infer(request(float(value), rows)) for value, rows in ((2, 2), (3, 1), (4, 3))]
    await world.after(1)
    assert [outcome.response.timings.batch_rows for outcome in (first, *outcomes)] == [1, 6, 6, 6]
    for value, outcome in zip((2, 3, 4), outcomes, strict=True):
        ((_, array),) = outcome.response.outputs
        assert (array == 2 * value).all(), "an answer holds only its own rows"
    assert model.slots["blue"].account.batches.keys() == {1, 6}


@virtual
async def test_padded_runs_have_the_size_that_was_warmed(loop: VirtualLoop) -> None:
    model = SyntheticModel(DECLARED)
    world = await World.open(loop, {"m": model}, [SyntheticSource("m", rows_max=8, policy=BatchPolicy(padded=True))])
    model.wait = lambda rows: world.clock.spend(10 * MS)
    model.runs.clear()
    answers = [world.infer(request(1.0))]
    await world.after(0.001)
    answers += [world.infer(request(float(value), rows)) for value, rows in ((2, 2), (3, 1))]
    await world.after(1)
    assert model.runs == [1, 4], "three rows run as four"
    assert [a.response.outputs[0][1].shape for a in answers] == [(1, 4), (2, 4), (1, 4)]
