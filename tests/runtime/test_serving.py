"""The way of a request through dispatcher, fleet, slot and batcher, on virtual time with a synthetic model."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from support.virtual import VirtualLoop, virtual
from support.world import DECLARED, SyntheticSource, World, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.errors import Reason, ServingError
from turnout.core.model import Execution
from turnout.core.slots import SlotState
from turnout.core.tensors import InferenceRequest, InferenceResponse
from turnout.runtime.account import Outcome
from turnout.runtime.batcher import Batcher
from turnout.runtime.jobs import SlotLimits
from turnout.runtime.runner import Runner

MS = 1_000_000


async def open_world(
    loop: VirtualLoop,
    *,
    run_ms: float = 10,
    poison: float | None = None,
    source: SyntheticSource | None = None,
    limits: SlotLimits | None = None,
) -> tuple[World, SyntheticModel]:
    """A world with one model 'm' whose runs take `run_ms`; `model.runs` starts empty after warm-up."""
    model = SyntheticModel(DECLARED, poison=poison)
    world = await World.open(loop, {"m": model}, [source or SyntheticSource("m")], limits)
    model.wait = lambda rows: world.clock.spend(round(run_ms * MS))
    model.runs.clear()
    return world, model


def account_of(world: World, slot: str = "blue") -> dict[Outcome, int]:
    account = world.fleet.model("m").slots[slot].account
    return {outcome: count for outcome in Outcome if (count := account.tally(outcome).requests)}


@virtual
async def test_an_answer_holds_its_own_rows_and_says_who_gave_it(loop: VirtualLoop) -> None:
    world, _ = await open_world(loop)
    outcomes = [world.infer(request(value, rows)) for value, rows in [(1, 1), (2, 3), (3, 2)]]
    await world.after(1)
    for outcome, value, rows in zip(outcomes, (1, 2, 3), (1, 3, 2), strict=True):
        ((spec, array),) = outcome.response.outputs
        assert spec.name == "y"
        assert array.shape == (rows, 4)
        assert (array == 2 * value).all()
        assert str(outcome.response.revision) == "m/1"
        assert (outcome.response.slot, outcome.response.generation) == ("blue", 1)
        assert outcome.calls == 1


@virtual
async def test_requests_that_arrive_while_a_batch_runs_share_the_next(loop: VirtualLoop) -> None:
    world, model = await open_world(loop)
    first = world.infer(request())
    await world.after(0.001)
    later = [world.infer(request(value)) for value in range(5)]
    await world.after(1)
    assert model.runs == [1, 5]
    assert first.response.timings.queue_ns == 0
    assert [o.response.timings.queue_ns for o in later] == [pytest.approx(9 * MS, abs=10)] * 5
    assert {o.response.timings.batch_rows for o in later} == {5}
    assert {o.response.timings.compute_infer_ns for o in later} == {10 * MS}


@virtual
async def test_two_executors_run_side_by_side(loop: VirtualLoop) -> None:
    world, model = await open_world(loop, source=SyntheticSource("m", rows_max=1, execution=Execution(instances=2)))
    started = world.clock()
    outcomes = [world.infer(request()) for _ in range(4)]
    while any(outcome.answer is None for outcome in outcomes):
        await world.after(0.001)
    assert model.runs == [1, 1, 1, 1]
    assert world.clock() - started == pytest.approx(20 * MS, abs=2 * MS), "four runs of 10 ms on two executors"


@virtual
async def test_requested_outputs_come_in_the_asked_order_and_no_others(loop: VirtualLoop) -> None:
    world, _ = await open_world(loop)
    outcome = world.infer(request(outputs=("y",)))
    await world.after(1)
    assert [spec.name for spec, _ in outcome.response.outputs] == ["y"]


@virtual
async def test_a_request_that_expires_in_the_queue_never_runs(loop: VirtualLoop) -> None:
    world, model = await open_world(loop)
    world.infer(request())
    await world.after(0.001)
    late = world.infer(request(deadline_ns=world.clock() + 5 * MS, inference_id="late-1"))
    in_time = world.infer(request(deadline_ns=world.clock() + 50 * MS))
    await world.after(1)
    assert late.error.reason is Reason.DEADLINE_EXCEEDED
    assert "'late-1'" in late.error.message
    assert in_time.response
    assert model.runs == [1, 1]
    assert account_of(world) == {Outcome.SUCCESS: 2, Outcome.EXPIRED: 1}


@virtual
async def test_a_hint_at_the_deadline_answers_what_still_waits_and_nothing_else(loop: VirtualLoop) -> None:
    world, model = await open_world(loop, limits=SlotLimits(2, 1 << 20))
    running = world.infer(request(deadline_ns=world.clock() + 5 * MS))
    await world.after(0.001)
    waiting = world.infer(request(rows=2, deadline_ns=world.clock() + 3 * MS))
    assert running.ticket is not None
    assert waiting.ticket is not None
    waiting.ticket.expire()
    assert waiting.answer is None, "a hint that comes early changes nothing"
    await world.after(0.004)
    running.ticket.expire()
    waiting.ticket.expire()
    waiting.ticket.expire()
    assert (running.answer, waiting.error.reason) == (None, Reason.DEADLINE_EXCEEDED)
    after = world.infer(request(rows=2))
    await world.after(1)
    assert running.response, "a run that has begun is finished"
    assert after.response, "the queue has room again"
    assert model.runs == [1, 2]
    assert waiting.calls == 1


@virtual
async def test_a_request_that_comes_too_late_is_refused_at_once(loop: VirtualLoop) -> None:
    world, model = await open_world(loop)
    with pytest.raises(ServingError) as caught:
        world.infer(request(deadline_ns=world.clock()))
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    await world.after(1)
    assert model.runs == []
    assert account_of(world) == {Outcome.EXPIRED: 1}


@virtual
async def test_a_cancelled_request_leaves_the_queue_before_a_batch_is_formed(loop: VirtualLoop) -> None:
    world, model = await open_world(loop)
    world.infer(request())
    await world.after(0.001)
    gone, stays = world.infer(request()), world.infer(request())
    assert gone.ticket is not None
    gone.ticket.cancel()
    gone.ticket.cancel()
    await world.after(1)
    assert (gone.answer, gone.calls) == (None, 0)
    assert stays.response
    assert model.runs == [1, 1]
    assert account_of(world) == {Outcome.SUCCESS: 2, Outcome.CANCELLED: 1}
    assert world.fleet.model("m").slots["blue"].leases == 0


@virtual
async def test_a_request_cancelled_while_it_runs_keeps_its_lease_until_the_run_ends(loop: VirtualLoop) -> None:
    world, model = await open_world(loop)
    slot = world.fleet.model("m").slots["blue"]
    gone, stays = world.infer(request(1)), world.infer(request(2))
    await world.after(0.005)
    assert model.runs == [2]
    assert gone.ticket is not None
    gone.ticket.cancel()
    assert slot.leases == 2
    await world.after(1)
    assert gone.answer is None
    assert (stays.response.outputs[0][1] == 4).all(), "the batch went on"
    assert slot.leases == 0
    assert account_of(world) == {Outcome.SUCCESS: 1, Outcome.CANCELLED: 1}


@virtual
async def test_a_full_queue_refuses_with_a_hint_when_to_retry(loop: VirtualLoop) -> None:
    world, _ = await open_world(loop, limits=SlotLimits(4, 1 << 20))
    outcomes = [world.infer(request(rows=8))]
    await world.after(0.001)
    outcomes += [world.infer(request(rows=2)) for _ in range(2)]
    with pytest.raises(ServingError, match=r"the queue of model 'm' is full \(limit: 4 rows\)") as caught:
        world.infer(request())
    assert caught.value.reason is Reason.QUEUE_FULL
    assert caught.value.retry_after_ms is not None
    assert caught.value.retry_after_ms >= 10
    await world.after(1)
    assert all(outcome.response for outcome in outcomes)
    assert account_of(world) == {Outcome.SUCCESS: 3, Outcome.REJECTED: 1}
    world.infer(request())
    await world.after(1)
    assert account_of(world)[Outcome.SUCCESS] == 4, "the queue is free again"


@virtual
async def test_an_invalid_request_is_refused_and_counted_apart(loop: VirtualLoop) -> None:
    world, model = await open_world(loop)
    with pytest.raises(ServingError) as caught:
        world.infer(InferenceRequest("m", {"x": np.zeros((1, 5), np.float32)}))
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert account_of(world) == {Outcome.INVALID: 1}
    assert world.fleet.model("m").slots["blue"].leases == 0
    assert model.runs == []


@virtual
async def test_a_failed_run_says_no_more_than_an_id(loop: VirtualLoop) -> None:
    world, _ = await open_world(loop, poison=13)
    outcomes = [world.infer(request(value)) for value in (13, 1, 13)]
    await world.after(1)
    for outcome in (outcomes[0], outcomes[2]):
        assert "poison" not in outcome.error.message
        assert "error id" in outcome.error.message
    assert len({failure[2] for failure in world.seen.failures}) == 2
    assert all("poison" in str(failure[3]) for failure in world.seen.failures)
    assert account_of(world) == {Outcome.FAILED: 2, Outcome.SUCCESS: 1}


@virtual
async def test_an_observer_that_raises_costs_no_answer(loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    world, _ = await open_world(loop, poison=13)

    def broken(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(world.seen, "run_failed", broken)
    outcomes = [world.infer(request(value)) for value in (13, 1)]
    await world.after(1)
    assert outcomes[0].error.reason is Reason.EXECUTION_FAILED
    assert outcomes[1].response


@virtual
async def test_a_fault_of_the_batcher_itself_is_answered(loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    world, _ = await open_world(loop)
    monkeypatch.setattr(Runner, "_run_and_isolate", lambda *_: 1 / 0)
    outcomes = [world.infer(request()) for _ in range(2)]
    await world.after(1)
    assert [o.error.reason for o in outcomes] == [Reason.EXECUTION_FAILED] * 2
    assert world.fleet.model("m").slots["blue"].leases == 0


@virtual
async def test_a_fault_while_submitting_keeps_no_lease(loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    world, _ = await open_world(loop)
    monkeypatch.setattr(Batcher, "submit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        world.infer(request())
    assert world.fleet.model("m").slots["blue"].leases == 0
    assert account_of(world) == {Outcome.FAILED: 1}


@virtual
async def test_what_expires_while_a_failed_batch_is_halved_is_not_run_again(loop: VirtualLoop) -> None:
    world, model = await open_world(loop, poison=13)
    outcomes = [
        world.infer(request(13)),
        world.infer(request(1, deadline_ns=world.clock() + 5 * MS)),
        world.infer(request(2)),
    ]
    await world.after(1)
    assert [type(o.answer).__name__ for o in outcomes] == ["ServingError", "ServingError", "InferenceResponse"]
    assert outcomes[1].error.reason is Reason.DEADLINE_EXCEEDED
    assert model.runs == [3, 1, 1]


@virtual
async def test_answers_stay_as_they_were_when_later_batches_run(loop: VirtualLoop) -> None:
    """Invariant 13, with the control that shows that this test sees a broken one."""
    for reuse in (False, True):
        world, model = await open_world(loop)
        model.reuse_outputs = reuse
        early = [world.infer(request(value, 2)) for value in (1, 2)]
        await world.after(1)
        kept = [outcome.response.outputs[0][1] for outcome in early]
        before = [array.copy() for array in kept]
        for value in range(5, 20):
            world.infer(request(value, 2))
            await world.after(0.02)
        unchanged = all((now == then).all() for now, then in zip(kept, before, strict=True))
        assert unchanged is not reuse


@virtual
async def test_pins_reach_the_other_versions_and_unknown_ones_are_named(loop: VirtualLoop) -> None:
    world, _ = await open_world(loop, source=SyntheticSource("m", versions=(1, 2)))
    outcomes = [
        world.infer(request()),
        world.infer(request(version=1)),
        world.infer(request(version=2)),
        world.infer(request(slot="v1")),
    ]
    await world.after(1)
    assert [str(o.response.revision) for o in outcomes] == ["m/2", "m/1", "m/2", "m/1"]
    for wrong in (request(version=3), request(slot="green"), request(version=1, slot="blue")):
        with pytest.raises(ServingError) as caught:
            world.infer(wrong)
        assert caught.value.reason is Reason.NOT_FOUND
    with pytest.raises(ServingError, match="unknown model 'n', this server has 'm'"):
        world.infer(request(model="n"))


@virtual
async def test_unloading_waits_for_leases_and_answers_what_is_queued(loop: VirtualLoop) -> None:
    world, model = await open_world(loop, source=SyntheticSource("m", rows_max=1))
    slot = world.fleet.model("m").slots["blue"]
    outcomes = [world.infer(request(value)) for value in range(3)]
    unloading = asyncio.ensure_future(slot.unload())
    await world.after(0.015)
    assert slot.state is SlotState.DRAINING
    assert slot.leases == 2
    with pytest.raises(ServingError) as caught:
        world.infer(request())
    assert caught.value.reason is Reason.NOT_READY
    await unloading
    assert [o.response.outputs[0][1][0, 0] for o in outcomes] == [0, 2, 4]
    assert (slot.state, slot.cargo, slot.revision) == (SlotState.EMPTY, None, None)
    assert model.runs == [1, 1, 1]


@virtual
async def test_a_slot_only_moves_along_the_table(loop: VirtualLoop) -> None:
    world, _ = await open_world(loop)
    with pytest.raises(ValueError, match="cannot go from READY to LOADING"):
        world.fleet.model("m").slots["blue"].move(SlotState.LOADING)


@virtual
async def test_a_callback_that_raises_costs_its_neighbours_nothing(loop: VirtualLoop) -> None:
    world, _ = await open_world(loop)

    def raises(answer: object) -> None:
        raise RuntimeError("an edge's fault")

    world.dispatcher.infer(request(), raises)
    neighbour = world.infer(request())
    await world.after(1)
    assert neighbour.response
    assert world.fleet.model("m").slots["blue"].leases == 0
    assert [str(error) for _, _, error in world.seen.handler_failures] == ["an edge's fault"]


@virtual
async def test_an_answer_is_given_once(loop: VirtualLoop) -> None:
    world, _ = await open_world(loop)
    answers: list[InferenceResponse | ServingError] = []
    ticket = world.dispatcher.infer(request(), answers.append)
    await world.after(1)
    assert len(answers) == 1
    with pytest.raises(RuntimeError, match="ended twice"):
        ticket.complete(ServingError(Reason.EXECUTION_FAILED, "again"))
    ticket.cancel()
    assert len(answers) == 1
