"""Queue policies and the server's budget, through the whole runtime on virtual time."""

from __future__ import annotations

import numpy as np
import pytest

from support.virtual import VirtualLoop, virtual
from support.world import SyntheticSource, World, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.batch_policy import BatchPolicy, QueuePolicy
from turnout.core.errors import Reason, ServingError
from turnout.core.model import Execution
from turnout.core.tensors import ANY, InferenceRequest, Signature, TensorSpec
from turnout.runtime.account import Outcome
from turnout.runtime.budget import Budget
from turnout_wire.tensors import DataType

MS = 1_000_000
OPEN = Signature((TensorSpec("x", DataType.FP32, (ANY, ANY)),), (TensorSpec("y", DataType.FP32, (ANY, ANY)),))


async def open_world(
    loop: VirtualLoop,
    policy: BatchPolicy | None = None,
    *,
    rows_max: int = 8,
    instances: int = 1,
    budget: Budget | None = None,
    declared: Signature = OPEN,
    poison: float | None = None,
) -> tuple[World, SyntheticModel]:
    """A world with one model whose runs take 10 ms."""
    model = SyntheticModel(declared, poison=poison)
    execution = Execution(instances=instances)
    source = SyntheticSource("m", rows_max=rows_max, execution=execution, policy=policy or BatchPolicy())
    world = await World.open(loop, {"m": model}, [source], budget=budget)
    model.wait = lambda rows: world.clock.spend(10 * MS)
    model.runs.clear()
    return world, model


def order_of(world: World) -> tuple[list[float], object]:
    """Answers in the order in which they come, and what to call for another request."""
    answered: list[float] = []

    def ask(value: float, **more: object) -> None:
        def done(answer: object) -> None:
            answered.append(value if not isinstance(answer, ServingError) else -value)

        world.dispatcher.infer(request(value, **more), done)  # type: ignore[arg-type]

    return answered, ask


@virtual
async def test_requests_of_other_shapes_never_share_a_batch(loop: VirtualLoop) -> None:
    world, model = await open_world(loop)
    wide = np.ones((1, 5), np.float32)
    outcomes = [world.infer(request()), world.infer(InferenceRequest("m", {"x": wide})), world.infer(request())]
    await world.after(1)
    assert model.runs == [2, 1]
    assert [o.response.outputs[0][1].shape for o in outcomes] == [(1, 4), (1, 5), (1, 4)]


@virtual
async def test_a_delay_gathers_what_comes_within_it(loop: VirtualLoop) -> None:
    world, model = await open_world(loop, BatchPolicy(delay_ns_max=5 * MS))
    started = world.clock()
    first = world.infer(request())
    await world.after(0.004)
    second = world.infer(request())
    await world.after(1)
    assert model.runs == [2]
    assert first.response.timings.queue_ns == pytest.approx(5 * MS, abs=100)
    assert second.response.timings.queue_ns == pytest.approx(1 * MS, abs=100)
    assert world.clock() > started


@virtual
async def test_a_batch_that_is_held_back_is_answered_when_the_slot_unloads(loop: VirtualLoop) -> None:
    world, _ = await open_world(loop, BatchPolicy(delay_ns_max=50 * MS))
    outcome = world.infer(request())
    await world.fleet.model("m").slots["blue"].unload()
    assert outcome.response.timings.queue_ns < 1000, "others that could join will not come"


@virtual
async def test_priorities_go_first_among_those_that_wait(loop: VirtualLoop) -> None:
    world, _ = await open_world(loop, BatchPolicy(priority_levels=3, priority_default=2), rows_max=1)
    answered, ask = order_of(world)
    for value, priority in [(1, 0), (2, 3), (3, 0), (4, 1), (5, 3), (6, 2), (7, 99)]:
        ask(value, priority=priority)  # type: ignore[operator]
    await world.after(1)
    assert answered == [4, 1, 3, 6, 7, 2, 5]


@virtual
async def test_a_queue_timeout_of_the_model_rejects_and_is_told_by_a_hint(loop: VirtualLoop) -> None:
    policy = BatchPolicy(queue=QueuePolicy(timeout_ns=3 * MS, override=True))
    world, model = await open_world(loop, policy)
    world.infer(request())
    await world.after(0.001)
    late = world.infer(request(timeout_ns=20 * MS, inference_id="late"))
    later = world.infer(request(timeout_ns=2 * MS))
    assert late.ticket is not None
    assert later.ticket is not None
    assert late.ticket.deadline_ns == world.clock() + 3 * MS, "the client may ask for less, not for more"
    assert later.ticket.deadline_ns == world.clock() + 2 * MS
    await world.after(0.004)
    late.ticket.expire()
    assert late.error.reason is Reason.DEADLINE_EXCEEDED
    await world.after(1)
    assert later.error.reason is Reason.DEADLINE_EXCEEDED
    assert model.runs == [1]


@virtual
async def test_a_timeout_that_delays_lets_others_go_first(loop: VirtualLoop) -> None:
    policy = BatchPolicy(queue=QueuePolicy(timeout_ns=15 * MS, delays=True))
    world, _ = await open_world(loop, policy, rows_max=1)
    answered, ask = order_of(world)
    for value in (1, 2, 3):
        ask(value)  # type: ignore[operator]
    await world.after(0.012)  # 3 will have waited 20 ms when its turn comes
    ask(4)  # type: ignore[operator]
    await world.after(1)
    assert answered == [1, 2, 4, 3]


@virtual
async def test_a_level_of_its_own_bound_refuses_by_name(loop: VirtualLoop) -> None:
    policy = BatchPolicy(priority_levels=2, priority_default=2, queue_by_level={1: QueuePolicy(requests_max=1)})
    world, _ = await open_world(loop, policy, rows_max=1)
    world.infer(request(priority=1))
    await world.after(0.001)
    world.infer(request(priority=1))
    with pytest.raises(ServingError, match=r"queue of model 'm' is full \(limit: 1 requests of priority 1\)") as full:
        world.infer(request(priority=1))
    assert full.value.retry_after_ms is not None
    world.infer(request())
    await world.after(1)
    assert world.budget.rows == world.budget.bytes == 0


@pytest.mark.parametrize("ordered", [True, False])
@virtual
async def test_with_preserve_ordering_answers_leave_in_the_order_of_requests(loop: VirtualLoop, ordered: bool) -> None:
    world, model = await open_world(loop, BatchPolicy(preserve_ordering=ordered), rows_max=1, instances=2, poison=13)
    spent = iter([30, 10, 10, 10, 10])
    model.wait = lambda rows: world.clock.spend(next(spent) * MS)
    answered, ask = order_of(world)
    for value in (1, 2, 13, 4):
        ask(value)  # type: ignore[operator]
    cancelled = world.infer(request(5))
    assert cancelled.ticket is not None
    cancelled.ticket.cancel()
    ask(6)  # type: ignore[operator]
    await world.after(1)
    assert answered == ([1, 2, -13, 4, 6] if ordered else [2, -13, 1, 4, 6])
    assert cancelled.calls == 0


@virtual
async def test_a_cancelled_request_does_not_hold_up_those_behind_it(loop: VirtualLoop) -> None:
    world, model = await open_world(loop, BatchPolicy(preserve_ordering=True), rows_max=2, instances=2)
    spent = iter([10, 50])
    model.wait = lambda rows: world.clock.spend(next(spent) * MS)
    first = world.infer(request(1, rows=2))
    running = world.infer(request(2, rows=2))
    queued = world.infer(request(3))
    await world.after(0.005)
    for outcome in (running, queued):
        assert outcome.ticket is not None
        outcome.ticket.cancel()
    await world.after(1)
    assert first.response
    assert world.fleet.model("m").slots["blue"].leases == 0
    assert world.budget.rows == 0


@virtual
async def test_the_budget_is_shared_by_all_models_and_given_back(loop: VirtualLoop) -> None:
    budget = Budget(rows_max=4, bytes_max=1 << 20)
    models = {"m": SyntheticModel(OPEN), "n": SyntheticModel(OPEN, poison=13)}
    world = await World.open(loop, models, budget=budget)
    for model in models.values():
        model.wait = lambda rows: world.clock.spend(10 * MS)
    outcomes = [world.infer(request(rows=3)), world.infer(request(13, model="n"))]
    with pytest.raises(ServingError, match=r"this server is full \(limit: 4 rows\), retry later") as full:
        world.infer(request(model="n"))
    assert (full.value.reason, full.value.retry_after_ms) == (Reason.QUEUE_FULL, 100)
    await world.after(1)
    assert outcomes[0].response
    assert outcomes[1].error
    assert (budget.rows, budget.bytes) == (0, 0)
    assert world.fleet.model("n").slots["blue"].account.tally(Outcome.REJECTED).requests == 1
    cancelled = world.infer(request(rows=4))
    assert cancelled.ticket is not None
    cancelled.ticket.cancel()
    assert (budget.rows, budget.bytes) == (0, 0)
    with pytest.raises(ServingError):
        world.infer(InferenceRequest("m", {}))
    assert (budget.rows, budget.bytes) == (0, 0)


def test_the_budget_takes_one_request_above_its_bounds_and_then_no_other() -> None:
    budget = Budget(rows_max=2, bytes_max=10)
    assert not budget.take(5, 100)
    assert budget.take(1, 1) == "2 rows"
    budget.give_back(5, 100)
    assert not budget.take(1, 8)
    assert budget.take(1, 3) == "10 bytes"
    assert not budget.take(1, 2)
