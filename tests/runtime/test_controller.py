"""The controller on virtual time: journal first, rollback first of all, facts that cannot be refused, and restarts."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import numpy as np
import pytest

from support.control import ALICE, BAKE_NS, Control, FlakyJournal, S, Shelf, again, other_signature
from support.virtual import VirtualLoop, virtual
from support.world import SyntheticSource
from turnout.backends.synthetic import SyntheticModel
from turnout.core.commands import SetWeights, Swap
from turnout.core.errors import ControlError, Refusal, ServingError
from turnout.core.gates import Golden, Verdict
from turnout.core.routing import Pin
from turnout.core.slots import SlotState
from turnout.runtime.account import Outcome
from turnout.runtime.admin import AdminLimits
from turnout.runtime.requests import Ask
from turnout.runtime.views import Health


async def refused(work: Any) -> ControlError:
    with pytest.raises(ControlError) as caught:
        await work
    return caught.value


@virtual
async def test_a_second_version_is_loaded_swapped_to_baked_and_freed(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    assert (control.state("green"), control.in_force) == ("READY m/2", {"blue": 10_000})
    await control.swap("green")
    assert control.in_force == control.journaled == {"green": 10_000}
    assert control.controller.view("m").health is Health.PROGRESSING
    await asyncio.sleep(BAKE_NS / S - 1)
    assert control.state("blue") == "READY m/1"
    await asyncio.sleep(2)
    assert control.state("blue") == "EMPTY"
    assert "blue" not in control.admin.fleet.model("m").slots
    view = control.controller.view("m")
    assert (view.health, view.stable, view.candidate) == (Health.HEALTHY, "green", "")
    assert control.journal.states()["m"].slots["blue"].state is SlotState.EMPTY


@virtual
async def test_a_drain_waits_for_those_under_way(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    control.shelf.model(1).wait = lambda rows: control.clock.spend(5 * S)
    slow = control.infer()
    await control.swap("green", bake_ns=0)
    await asyncio.sleep(1)
    assert control.state("blue") == "DRAINING m/1"
    assert control.controller.view("m").slots[0].leases == 1
    fast = control.infer()
    await asyncio.sleep(5)
    assert (slow.response.slot, fast.response.slot) == ("blue", "green")
    assert control.state("blue") == "EMPTY"


@virtual
async def test_a_rollback_is_in_force_before_it_first_waits(loop: VirtualLoop) -> None:
    control = await Control.open(loop, pause_s=1)
    await control.load("green", 2)
    await control.swap("green")
    task = asyncio.ensure_future(control.rollback_now())
    await asyncio.sleep(0)
    assert (control.in_force, control.journaled) == ({"blue": 10_000}, {"green": 10_000})
    await task
    assert control.journaled == {"blue": 10_000}


@virtual
async def test_a_rollback_goes_before_a_change_that_is_being_written(loop: VirtualLoop) -> None:
    control = await Control.open(loop, pause_s=1)
    await control.load("green", 2)
    await control.swap("green")
    pending = asyncio.ensure_future(control.weights(blue=5_000, green=5_000))
    waiting = asyncio.ensure_future(control.weights(blue=4_000, green=6_000))
    await asyncio.sleep(0.5)
    await control.rollback_now()
    assert control.in_force == control.journaled == {"blue": 10_000}
    for task in (pending, waiting):
        assert (await refused(task)).refusal is Refusal.OPERATION_IN_PROGRESS
    await asyncio.sleep(10)
    assert control.in_force == {"blue": 10_000}
    causes = [line.cause for line in control.journal.lines("m", 3)]
    assert causes == ["rollback", "cancelled", "weights"], "the journal says what was taken back"


@virtual
async def test_a_rollback_that_changes_nothing_goes_before_a_swap_that_is_being_written(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    await control.swap("green")
    await control.roll_back()
    control.pause_s = 2
    pending = asyncio.ensure_future(control.swap("green"))
    await asyncio.sleep(1)
    await control.roll_back()
    assert (await refused(pending)).refusal is Refusal.OPERATION_IN_PROGRESS
    await asyncio.sleep(10)
    assert control.in_force == control.journaled == {"blue": 10_000}
    assert control.journal.lines("m", 1)[0].cause == "cancelled"
    generation = control.controller.desk("m").state.route.generation  # type: ignore[union-attr]
    await control.roll_back()
    assert control.controller.desk("m").state.route.generation == generation  # type: ignore[union-attr]


@virtual
async def test_a_fact_that_a_rollback_overtakes_is_told_again(loop: VirtualLoop) -> None:
    control = await Control.open(loop, pause_s=1)
    await control.load("green", 2)
    await control.swap("green")
    await control.load("red", 3, wait=False)
    while "READY" not in control.admin.fleet.model("m").slots["red"].state.value:
        await asyncio.sleep(0.1)
    await control.rollback_now()
    await asyncio.sleep(10)
    assert control.state("red") == "READY m/3"
    assert control.journal.states()["m"].slots["red"].state is SlotState.READY
    assert control.journaled == control.in_force == {"blue": 10_000}


@virtual
async def test_a_journal_that_fails_changes_nothing_and_says_so(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    control.journal.broken = True
    for work in (control.swap("green"), control.weights(blue=5_000, green=5_000), control.unload("green")):
        assert (await refused(work)).refusal is Refusal.STATE_STORE
    assert control.in_force == {"blue": 10_000}
    assert control.state("green") == "READY m/2"
    assert control.infer() is not None
    control.journal.broken = False
    await control.swap("green")
    assert control.journaled == control.in_force == {"green": 10_000}


@virtual
async def test_a_rollback_works_without_a_journal_and_is_written_later(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    await control.swap("green")
    control.journal.broken = True
    await control.roll_back()
    assert (control.in_force, control.journaled) == ({"blue": 10_000}, {"green": 10_000})
    view = control.controller.view("m")
    assert view.health is Health.DEGRADED
    assert "journal cannot be written" in view.message
    await asyncio.sleep(100)
    control.journal.broken = False
    await asyncio.sleep(31)
    assert control.journaled == {"blue": 10_000}
    assert control.controller.view("m").health is Health.HEALTHY
    assert control.journal.lines("m", 1)[0].cause == "rollback"


@pytest.mark.parametrize("written", [False, True], ids=["before", "after"])
def test_a_write_that_failed_may_be_there_and_the_next_one_puts_it_right(written: bool) -> None:
    @virtual
    async def run(loop: VirtualLoop) -> None:
        control = await Control.open(loop)
        assert isinstance(control.journal, FlakyJournal)
        await control.load("green", 2)
        control.journal.fail = {control.journal.calls + 1: written}
        ask = again(ALICE, request_id="id", fingerprint="f")
        assert (await refused(control.swap("green", ask=ask))).refusal is Refusal.STATE_STORE
        assert control.in_force == {"blue": 10_000}
        assert control.journaled == ({"green": 10_000} if written else {"blue": 10_000})
        await control.load("red", 3)
        assert control.journaled == {"blue": 10_000}, "a change that was refused does not come back"
        await control.swap("green", ask=ask)
        assert control.journaled == control.in_force == {"green": 10_000}

    run()


@virtual
async def test_a_slot_that_is_loaded_is_ready_whatever_the_journal_does(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    assert isinstance(control.journal, FlakyJournal)
    control.journal.fail = {control.journal.calls + 2: False}
    await control.load("green", 2)
    assert control.state("green") == "READY m/2"
    assert control.controller.view("m").health is Health.DEGRADED
    await asyncio.sleep(2)
    assert control.journal.states()["m"].slots["green"].state is SlotState.READY
    assert control.controller.view("m").health is Health.HEALTHY


@virtual
async def test_a_bake_that_cannot_be_journaled_ends_later(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    await control.swap("green", bake_ns=10 * S)
    control.journal.broken = True
    await asyncio.sleep(20)
    assert control.state("blue") == "READY m/1", "effects wait for the journal"
    control.journal.broken = False
    await asyncio.sleep(60)
    assert control.state("blue") == "EMPTY"


@virtual
async def test_of_two_operators_with_one_etag_one_wins(loop: VirtualLoop) -> None:
    control = await Control.open(loop, pause_s=0.1)
    await control.load("green", 2)
    etag = str(control.controller.desk("m").state.route.generation)  # type: ignore[union-attr]
    race = [control.weights(Ask(f"op{n}", etag=f'"{etag}"'), blue=9_000 - n, green=1_000 + n) for n in range(5)]
    ended = await asyncio.gather(*race, return_exceptions=True)
    losers = [error for error in ended if isinstance(error, ControlError)]
    assert len(losers) == 4
    assert {error.refusal for error in losers} == {Refusal.ETAG_MISMATCH}
    assert {error.metadata["current_etag"] for error in losers} == {str(int(etag) + 1)}
    assert control.in_force == control.journaled


@virtual
async def test_an_etag_can_be_required_but_not_of_a_rollback(loop: VirtualLoop) -> None:
    control = await Control.open(loop, limits=AdminLimits(require_etag=True))
    await control.load("green", 2, ask=Ask("a", etag="0"))
    error = await refused(control.swap("green"))
    assert (error.refusal, error.field) == (Refusal.ETAG_REQUIRED, "mutation.etag")
    await control.swap("green", ask=Ask("a", etag="1"))
    await control.roll_back()
    assert control.in_force == {"blue": 10_000}


@virtual
async def test_a_rollback_may_reload_where_etags_are_required(loop: VirtualLoop) -> None:
    control = await Control.open(loop, limits=AdminLimits(require_etag=True))
    await control.load("green", 2, ask=Ask("a", etag="0"))
    await control.swap("green", bake_ns=0, ask=Ask("a", etag="1"))
    await asyncio.sleep(1)
    error = await refused(control.roll_back(ask=Ask("a", etag="1"), allow_reload=True))
    assert error.refusal is Refusal.ETAG_MISMATCH
    await control.roll_back(ask=Ask("a", etag="2"), allow_reload=True)
    assert (control.in_force, control.state("blue")) == ({"blue": 10_000}, "READY m/1")


@virtual
async def test_validate_only_checks_and_changes_nothing(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    before, lines = control.controller.desk("m").state, control.journal.lines(None, 100)
    only = again(ALICE, validate_only=True, request_id="id", fingerprint="f")
    await control.swap("green", ask=only)
    await control.weights(only, blue=5_000, green=5_000)
    await control.load("red", 3, ask=only)
    await control.unload("green", ask=only)
    cost = await control.load("blue", 3, ask=only, replace=True, accept_outage=True)
    assert (cost.share_bp, cost.memory_bytes) == (10_000, 0)
    assert (await refused(control.roll_back(ask=only))).refusal is Refusal.ROLLBACK_TARGET_UNLOADED
    assert (await refused(control.unload("blue", ask=only))).refusal is Refusal.SLOT_ROUTED
    assert control.controller.desk("m").state is before
    assert control.journal.lines(None, 100) == lines
    assert control.journal.remembered("id", control.now_ns()) is None


@virtual
async def test_the_same_request_is_carried_out_once(loop: VirtualLoop) -> None:
    control = await Control.open(loop, pause_s=0.1)
    await control.load("green", 2)
    once, ask = control.admin.requests.once, again(ALICE, request_id="id", fingerprint="f")
    count = 0

    async def work() -> bytes:
        nonlocal count
        count += 1
        await control.swap("green", ask=ask)
        return b"first"

    both = await asyncio.gather(*(once(ask, work, lambda: b"current") for _ in range(3)))
    assert (both, count) == ([b"first"] * 3, 1)
    await control.roll_back()
    assert await once(ask, work, lambda: b"current") == b"first"
    assert control.in_force == {"blue": 10_000}
    other = again(ask, fingerprint="g")
    assert (await refused(once(other, work, lambda: b""))).refusal is Refusal.REQUEST_ID_REUSED
    later = await control.restarted()
    assert await later.admin.requests.once(ask, work, lambda: b"current") == b"first"
    assert (await refused(later.admin.requests.once(other, work, lambda: b""))).refusal is Refusal.REQUEST_ID_REUSED
    assert count == 1


def swapping(control: Control, ask: Ask) -> Any:
    async def work() -> bytes:
        await control.swap("green", ask=ask)
        return b"first"

    return control.admin.requests.once(ask, work, lambda: b"current")


@virtual
async def test_a_request_that_was_overtaken_is_carried_out_when_it_comes_again(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    await control.weights(blue=9_000, green=1_000)
    control.pause_s = 1
    ask = again(ALICE, request_id="id", fingerprint="f")
    pending = asyncio.ensure_future(swapping(control, ask))
    await asyncio.sleep(1.5)
    await control.roll_back()
    assert (await refused(pending)).refusal is Refusal.OPERATION_IN_PROGRESS
    assert control.journal.remembered("id", control.now_ns()) is None
    later = await control.restarted()
    assert later.in_force == {"blue": 10_000}
    assert await swapping(later, ask) == b"first"
    assert later.in_force == {"green": 10_000}


@pytest.mark.parametrize("how", ["fails", "called off"])
def test_a_load_that_was_waited_for_and_came_to_nothing_is_begun_when_it_comes_again(how: str) -> None:
    @virtual
    async def run(loop: VirtualLoop) -> None:
        control = await Control.open(loop)
        control.shelf.load_s, ask = 10, again(ALICE, request_id="id", fingerprint="f")

        def loading(of: Control) -> Any:
            async def work() -> bytes:
                await of.load("green", 2, ask=ask)
                return b"first"

            return of.admin.requests.once(ask, work, lambda: b"current")

        if how == "fails":
            control.shelf.failing[2] = "it crashes"
        task = asyncio.ensure_future(loading(control))
        await asyncio.sleep(1)
        assert control.journal.remembered("id", control.now_ns()) is not None
        if how == "called off":
            await control.unload("green")
        await refused(task)
        control.shelf.failing.clear()
        if how == "called off":
            assert await loading(control) == b"first"
        else:
            later = await control.restarted()
            assert await loading(later) == b"first"
            assert later.state("green") == "READY m/2"
            assert await loading(later) == b"first", "and that is remembered"

    run()


@virtual
async def test_requests_that_were_not_written_are_remembered_up_to_a_bound(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    ledger = control.controller.ledger
    for number in range(10_500):
        ledger.void("m", f"id-{number}")
    assert len(ledger._void) == 10_000
    await control.load("green", 2)
    assert not ledger._void


@virtual
async def test_a_caller_that_leaves_does_not_stop_its_change(loop: VirtualLoop) -> None:
    control = await Control.open(loop, pause_s=1)
    await control.load("green", 2)

    async def work() -> bytes:
        await control.swap("green")
        return b""

    task = asyncio.ensure_future(control.admin.requests.once(ALICE, work, lambda: b""))
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.sleep(5)
    assert control.in_force == control.journaled == {"green": 10_000}


@pytest.mark.parametrize("after_s", [0, 0.5, 1.5])
def test_a_change_whose_task_is_cancelled_leaves_memory_and_journal_as_one(after_s: float) -> None:
    @virtual
    async def run(loop: VirtualLoop) -> None:
        control = await Control.open(loop)
        await control.load("green", 2)
        control.pause_s = 1
        task = asyncio.ensure_future(control.swap("green"))
        await asyncio.sleep(0)
        await asyncio.sleep(after_s)
        task.cancel()
        await asyncio.sleep(10)
        assert control.in_force == control.journaled == {"green": 10_000}
        task = asyncio.ensure_future(control.rollback_now())
        await asyncio.sleep(after_s)
        task.cancel()
        await asyncio.sleep(10)
        assert control.in_force == control.journaled
        assert control.controller.desk("m").rollbacks == 0

    run()


@virtual
async def test_a_stop_that_is_not_waited_for_leaves_a_write_to_its_end(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    control.pause_s = 2
    swap = asyncio.ensure_future(control.swap("green"))
    await asyncio.sleep(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(control.admin.stop(), 0.5)
    await swap
    assert control.in_force == control.journaled == {"green": 10_000}


@virtual
async def test_a_write_that_is_broken_off_is_doubtful_until_the_next(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    control.pause_s, ledger = 1, control.controller.ledger
    state = control.controller.desk("m").state
    task = asyncio.ensure_future(ledger.write(state, []))
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.sleep(10)
    assert ledger.owes("m")
    await control.swap("green")
    assert not ledger.owes("m")
    assert control.in_force == control.journaled == {"green": 10_000}


@virtual
async def test_a_load_that_is_called_off_leaves_nothing(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    control.shelf.load_s = 60
    waiter = asyncio.ensure_future(control.load("green", 2))
    await asyncio.sleep(1)
    assert (await refused(control.load("green", 3))).refusal is Refusal.OPERATION_IN_PROGRESS
    await control.unload("green")
    assert (await refused(waiter)).refusal is Refusal.OPERATION_IN_PROGRESS
    assert control.state("green") == "EMPTY"
    assert "green" not in control.admin.fleet.model("m").slots
    await control.load("green", 3)
    await asyncio.sleep(100)
    assert control.state("green") == "READY m/3"


@pytest.mark.parametrize("broken", [False, True], ids=["loads", "fails"])
@pytest.mark.parametrize("asked_s", [1.2, 1.22, 1.24, 1.26, 1.28, 1.3, 1.32, 1.4])
def test_what_is_told_of_one_load_is_not_taken_for_the_next(broken: bool, asked_s: float) -> None:
    @virtual
    async def run(loop: VirtualLoop) -> None:
        control = await Control.open(loop)
        control.shelf.load_s, control.pause_s = 1, 0.1
        if broken:
            control.shelf.failing[3] = "it is broken"
        await control.load("green", 2, wait=False)
        await asyncio.sleep(asked_s)
        load = asyncio.ensure_future(control.load("green", 3))  # the look-up of its files takes a while
        await asyncio.sleep(0.05)
        unload = asyncio.ensure_future(control.unload("green", wait=False))
        await asyncio.gather(unload, load, return_exceptions=True)
        await asyncio.sleep(20)
        slot = control.admin.fleet.model("m").slots.get("green")
        is_now = f"{slot.state.value} {slot.revision}" if slot is not None else "EMPTY"
        assert control.state("green") == is_now
        assert control.journal.states()["m"].slots["green"].state.value == is_now.split(maxsplit=1)[0]

    run()


@virtual
async def test_an_unload_waits_for_what_a_replace_that_is_called_off_still_drains(loop: VirtualLoop) -> None:
    shelf = Shelf(memory={1: 10, 2: 60, 3: 60})
    control = await Control.open(loop, shelf=shelf, limits=AdminLimits(memory_bytes_max=100))
    await control.load("green", 2)
    shelf.model(2).wait = lambda rows: control.clock.spend(100 * S)
    slow = control.infer(slot="green")
    await asyncio.sleep(1)
    old = control.admin.fleet.model("m").slots["green"]
    await control.load("green", 3, wait=False, replace=True)
    unload = asyncio.ensure_future(control.unload("green"))
    await asyncio.sleep(50)
    assert (unload.done(), old.state) == (False, SlotState.DRAINING)
    shelf.size_bytes = 40
    assert (await refused(control.load("red", 3))).refusal is Refusal.SLOT_MEMORY, "it is still resident"
    await unload
    assert (slow.response.slot, old.state, old.cargo) == ("green", SlotState.EMPTY, None)
    assert "green" not in control.admin.fleet.model("m").slots
    await control.load("red", 3)


@virtual
async def test_replacing_in_place_says_what_it_costs_and_refuses_meanwhile(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    control.shelf.load_s = 10
    task = asyncio.ensure_future(control.load("blue", 2, replace=True, accept_outage=True))
    await asyncio.sleep(5)
    with pytest.raises(ServingError, match="LOADING"):
        control.infer()
    assert control.controller.view("m").health is Health.DEGRADED
    cost = await task
    assert cost.share_bp == 10_000
    outcome = control.infer()
    await asyncio.sleep(1)
    assert str(outcome.response.revision) == "m/2"
    assert control.in_force == {"blue": 10_000}


@virtual
async def test_a_rollback_can_load_again_what_is_gone(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    await control.swap("green", bake_ns=0)
    await asyncio.sleep(1)
    error = await refused(control.roll_back())
    assert error.refusal is Refusal.ROLLBACK_TARGET_UNLOADED
    await control.roll_back(allow_reload=True)
    assert (control.in_force, control.state("blue")) == ({"blue": 10_000}, "READY m/1")
    await control.swap("green", bake_ns=0)
    await asyncio.sleep(1)
    control.shelf.versions[1] = "other"
    assert (await refused(control.roll_back(allow_reload=True))).refusal is Refusal.DIGEST_MISMATCH
    assert control.in_force == {"green": 10_000}


# Gates


@virtual
async def test_a_load_that_fails_says_at_which_gate(loop: VirtualLoop) -> None:
    shelf = Shelf(failing={2: "it crashed"}, models={3: SyntheticModel(other_signature())})
    control = await Control.open(loop, shelf=shelf)
    error = await refused(control.load("green", 2))
    assert (error.refusal, error.metadata["gate"]) == (Refusal.GATE_FAILED, "preflight")
    assert "it crashed" in error.message
    assert control.state("green") == "FAILED m/2"
    error = await refused(control.load("green", 3))
    assert error.refusal is Refusal.SIGNATURE_MISMATCH
    assert "input 'x' has shape [-1, 5], that of the stable one [-1, 4]" in error.message
    await control.load("green", 3, allow_signature_change=True)
    assert control.state("green") == "READY m/3"
    assert control.in_force == {"blue": 10_000}


@virtual
async def test_golden_samples_are_compared(loop: VirtualLoop) -> None:
    x = np.arange(80, dtype=np.float32).reshape(20, 4)
    control = await Control.open(loop)
    control.shelf.golden = {2: Golden({"x": x}, {"y": 2 * x}), 3: Golden({"x": x}, {"y": 2 * x + 1})}
    await control.load("green", 2)
    results = {result.gate.value: result.verdict for result in control.controller.view("m").slots[1].gates}
    assert results["golden"] is results["finite"] is Verdict.PASS
    error = await refused(control.load("red", 3))
    assert (error.refusal, error.metadata["gate"]) == (Refusal.GATE_FAILED, "golden")
    assert float(error.metadata["observed"]) > float(error.metadata["limit"]) > 0


@virtual
async def test_memory_is_bounded_before_and_after_a_load(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=Shelf(memory={1: 50, 2: 60}), limits=AdminLimits(memory_bytes_max=100))
    error = await refused(control.load("green", 2))
    assert (error.refusal, error.metadata["observed"]) == (Refusal.SLOT_MEMORY, "60")
    await control.unload("green")
    control.shelf.size_bytes = 60
    error = await refused(control.load("green", 2))
    assert error.refusal is Refusal.SLOT_MEMORY
    assert "m/1 in slot 'blue' 50" in error.message
    await control.load("blue", 2, replace=True, accept_outage=True)
    assert control.state("blue") == "READY m/2"


@virtual
async def test_two_loads_at_a_time_do_not_both_get_the_memory_that_is_left(loop: VirtualLoop) -> None:
    shelf = Shelf(memory={1: 30, 2: 60, 3: 60}, load_s=1)
    control = await Control.open(loop, shelf=shelf, limits=AdminLimits(memory_bytes_max=100))
    shelf.loading_max = 0
    ended = await asyncio.gather(control.load("green", 2), control.load("red", 3), return_exceptions=True)
    assert [error.refusal for error in ended if isinstance(error, ControlError)] == [Refusal.SLOT_MEMORY]
    assert sum(slot.memory_bytes for slot in control.controller.view("m").slots) == 90
    assert (control.state("green"), control.state("red")) == ("READY m/2", "FAILED m/3")
    assert shelf.loading_max == 1, "what a model takes is known when it is loaded"
    shelf.size_bytes = 20
    error = await refused(control.load("pink", 3))
    assert "m/3 in slot 'red'" not in error.message, "what failed takes nothing"


@virtual
async def test_files_that_fit_one_by_one_are_held_to_what_is_left_when_they_are_loaded(loop: VirtualLoop) -> None:
    shelf = Shelf(size_bytes=60, load_s=1)
    control = await Control.open(loop, shelf=shelf, limits=AdminLimits(memory_bytes_max=100))
    control.pause_s = 0.1
    ended = await asyncio.gather(control.load("green", 2), control.load("red", 3), return_exceptions=True)
    (error,) = [error for error in ended if isinstance(error, ControlError)]
    assert error.refusal is Refusal.SLOT_MEMORY
    assert "its files take 60 bytes, 40 are left" in error.message


@virtual
async def test_loads_that_are_called_off_count_until_their_threads_have_ended(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    control.shelf.load_s = 60
    for _ in range(6):
        await control.load("green", 2, wait=False)
        await asyncio.sleep(1)
        await control.unload("green")
    assert control.shelf.loading_max == control.shelf.loading == 2
    await control.load("green", 3)
    assert control.shelf.loading_max == 2
    assert control.state("green") == "READY m/3"


@virtual
async def test_a_load_that_is_repeated_is_held_to_the_signature_that_clients_know(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    control.shelf.models[2] = SyntheticModel(other_signature())
    for more in ({"replace": True, "accept_outage": True}, {}, {}):
        assert (await refused(control.load("blue", 2, **more))).refusal is Refusal.SIGNATURE_MISMATCH
    await control.load("blue", 2, allow_signature_change=True)
    control.shelf.models[3] = SyntheticModel(other_signature())
    await control.load("green", 3)
    assert control.state("green") == "READY m/3", "what was allowed is what clients know by now"


@virtual
async def test_where_nobody_knows_what_clients_know_the_signature_is_inconclusive(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    control.shelf.failing[1] = "it crashes now"
    later = await control.restarted()
    await later.load("green", 2)
    gates = {result.gate.value: result for result in later.controller.view("m").slots[1].gates}
    assert gates["signature"].verdict is Verdict.INCONCLUSIVE
    assert "has not served since the server started" in gates["signature"].message


@virtual
async def test_a_digest_can_be_asked_for(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    assert (await refused(control.load("green", 2, digest="other"))).refusal is Refusal.DIGEST_MISMATCH
    await control.load("green", 2, digest="digest-2")
    control.shelf.versions[2] = "changed"
    assert (await refused(control.load("red", 2))).refusal is Refusal.DIGEST_MISMATCH


@virtual
async def test_what_is_not_there_is_not_found(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    assert (await refused(control.load("green", 9))).refusal is Refusal.REVISION_NOT_FOUND
    assert (await refused(control.controller.change("n", Swap("a", 0), ALICE))).refusal is Refusal.MODEL_NOT_FOUND
    assert control.controller.names() == ["m"]


@virtual
async def test_a_model_that_came_later_is_loaded_and_gets_traffic(loop: VirtualLoop) -> None:
    control = await Control.open(loop, versions=())
    await control.load("blue", 1)
    with pytest.raises(ServingError):
        control.infer()
    assert "no traffic" in control.controller.view("m").message
    await control.swap("blue")
    outcome = control.infer()
    await asyncio.sleep(1)
    assert outcome.response.slot == "blue"


@virtual
async def test_a_model_that_had_a_problem_at_start_has_none_once_it_is_loaded(loop: VirtualLoop) -> None:
    control = Control(loop)
    await control.admin.start([SyntheticSource("m", (), problem="it has no version folder")])
    assert "no version folder" in control.controller.view("m").message
    await control.load("blue", 1)
    await control.swap("blue")
    view = control.controller.view("m")
    assert (view.health, view.message) == (Health.HEALTHY, "")


# Restarts


@virtual
async def test_a_first_start_that_serves_nothing_leaves_nothing_behind(loop: VirtualLoop) -> None:
    shelf = Shelf(failing={1: "damaged"})
    control = await Control.open(loop, shelf=shelf)
    assert control.state("blue") == "FAILED m/1"
    assert control.journal.states() == {}
    shelf.failing.clear()
    later = await control.restarted()
    assert later.in_force == later.journaled == {"blue": 10_000}, "the mended file is served, as at a first start"


@virtual
async def test_a_restart_brings_back_slots_weights_and_generation(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    await control.weights(blue=9_000, green=1_000)
    before = control.controller.desk("m").state
    later = await control.restarted([3, 1])
    state = later.controller.desk("m").state
    assert (state.route, state.slots) == (before.route, before.slots)
    assert later.in_force == {"blue": 9_000, "green": 1_000}
    assert later.seen.notices == [
        "model 'm': version 3 has appeared and is not loaded, since the journal says what is served: load it to use it"
    ]
    assert "version 3 has appeared" in later.controller.view("m").message
    await later.roll_back()
    assert later.in_force == {"blue": 10_000}


@pytest.mark.parametrize("how", ["gone", "changed", "broken"])
def test_what_cannot_come_back_is_refused_loudly_and_the_rest_serves(how: str) -> None:
    @virtual
    async def run(loop: VirtualLoop) -> None:
        control = await Control.open(loop)
        await control.load("green", 2)
        await control.weights(blue=9_000, green=1_000)
        if how == "gone":
            del control.shelf.versions[2]
        elif how == "changed":
            control.shelf.versions[2] = "other-digest"
        else:
            control.shelf.failing[2] = "it crashes now"
        later = await control.restarted()
        assert later.state("green") == "FAILED m/2"
        assert later.in_force == later.journaled == {"blue": 10_000}
        assert len(later.seen.notices) == 1
        line = later.journal.lines("m", 1)[0]
        assert (line.object, line.cause, line.actor) == ("route", "restart", "server")

    run()


@virtual
async def test_a_lost_stable_slot_is_degraded_and_not_silently_replaced(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    await control.weights(blue=9_000, green=1_000)
    del control.shelf.versions[1]
    later = await control.restarted()
    view = later.controller.view("m")
    assert view.health is Health.DEGRADED
    assert "slot 'blue' has 90 % of the traffic and is FAILED" in view.message
    assert later.in_force == {"blue": 9_000, "green": 1_000}
    await later.weights(green=10_000)
    outcome = later.infer()
    await asyncio.sleep(1)
    assert outcome.response.slot == "green"


@virtual
async def test_a_restart_finishes_what_was_under_way(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    control.shelf.load_s = 10**4
    await control.load("red", 3, wait=False)
    control.shelf.model(2).wait = lambda rows: control.clock.spend(100 * S)
    control.infer(slot="green")
    await asyncio.sleep(1)
    await control.unload("green", wait=False)
    assert (control.state("green"), control.state("red")) == ("DRAINING m/2", "LOADING m/3")
    control.shelf.load_s = 0
    later = await control.restarted()
    assert (later.state("green"), later.state("red")) == ("EMPTY", "READY m/3")


@virtual
async def test_a_restart_is_no_way_around_a_gate(loop: VirtualLoop) -> None:
    shelf = Shelf(memory={1: 30, 3: 90}, models={2: SyntheticModel(other_signature())})
    limits = AdminLimits(memory_bytes_max=100)
    control = await Control.open(loop, shelf=shelf, limits=limits)
    assert (await refused(control.load("green", 2))).refusal is Refusal.SIGNATURE_MISMATCH
    assert (await refused(control.load("red", 3))).refusal is Refusal.SLOT_MEMORY
    later = await control.restarted(limits=limits)
    assert (later.state("green"), later.state("red")) == ("FAILED m/2", "FAILED m/3")
    slots = later.admin.fleet.model("m").slots
    assert (slots["green"].state, slots["red"].state) == (SlotState.FAILED, SlotState.FAILED)
    assert "shape [-1, 5]" in later.controller.view("m").slots[1].message
    assert "slot 'green' of model 'm' stays FAILED until it is loaded again" in later.seen.notices[0]
    await later.load("green", 2, allow_signature_change=True)
    assert later.state("green") == "READY m/2"


@pytest.mark.parametrize("allow", [False, True])
def test_a_load_that_a_restart_begins_again_is_held_to_its_gates(allow: bool) -> None:
    @virtual
    async def run(loop: VirtualLoop) -> None:
        shelf = Shelf(memory={1: 30, 3: 90}, models={2: SyntheticModel(other_signature())})
        limits = AdminLimits(memory_bytes_max=100)
        control = await Control.open(loop, shelf=shelf, limits=limits)
        control.shelf.load_s = 10**4
        await control.load("green", 2, wait=False, allow_signature_change=allow)
        await control.load("red", 3, wait=False)
        control.shelf.load_s = 0
        later = await control.restarted(limits=limits)
        assert later.state("green") == ("READY m/2" if allow else "FAILED m/2")
        assert later.state("red") == "FAILED m/3"
        assert "it takes 90 bytes" in later.controller.view("m").slots[2].message

    run()


@virtual
async def test_a_bake_goes_on_after_a_restart(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    await control.swap("green")
    await asyncio.sleep(300)
    later = await control.restarted()
    assert later.controller.desk("m").state.held == "blue"
    await asyncio.sleep(301)
    assert later.state("blue") == "EMPTY"


@virtual
async def test_pins_keep_a_slot_ready_and_say_so_or_the_model_is_degraded(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    await control.controller.change("m", SetWeights(pins=(Pin("x-team", "qa", "blue"),)), ALICE)
    await control.swap("green")
    await asyncio.sleep(BAKE_NS / S + 1)
    view = control.controller.view("m")
    assert (control.state("blue"), view.health) == ("READY m/1", Health.HEALTHY)
    assert "pins lead to it" in view.slots[0].message
    pinned = control.infer(slot="blue")
    await asyncio.sleep(1)
    assert pinned.response.slot == "blue"
    control.shelf.load_s = 10
    replace = asyncio.ensure_future(control.load("blue", 3, replace=True, accept_outage=True))
    await asyncio.sleep(5)
    view = control.controller.view("m")
    assert view.health is Health.DEGRADED
    assert "pins lead to slot 'blue', which is LOADING" in view.message
    await replace
    assert control.controller.view("m").health is Health.HEALTHY


@virtual
async def test_a_model_that_left_the_repository_is_degraded(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    control.shelf.versions.clear()
    later = await control.restarted([])
    view = later.controller.view("m")
    assert view.health is Health.DEGRADED
    assert "not in the model repository any more" in view.message


# What is counted


@virtual
async def test_pinned_requests_are_counted_apart_and_observed_shares_are_of_routed_ones(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    await control.weights(blue=7_500, green=2_500)
    for _ in range(100):
        control.infer()
    for _ in range(50):
        control.infer(slot="green")
        control.infer(version=1)
    await asyncio.sleep(1)
    view = control.controller.view("m")
    assert sum(count for *_, count in view.actual) == 100
    by_slot = {slot: (wanted, actual) for slot, wanted, actual, _ in view.actual}
    assert by_slot["green"] == (2_500, pytest.approx(2_500, abs=500))
    blue, green = view.slots
    assert (blue.pinned.requests, green.pinned.requests) == (50, 50)
    assert blue.routed.requests + green.routed.requests == 100
    assert green.routed.p50_ns is not None
    await control.weights(blue=7_000, green=3_000)
    assert {actual for _, _, actual, _ in control.controller.view("m").actual} == {-1}, "a new generation counts anew"


@virtual
async def test_what_the_canary_fails_the_stable_slot_answers_and_the_canary_is_blamed(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    control.shelf.model(2).poison = 13
    await control.load("green", 2)
    await control.weights(green=10_000)
    await control.weights(green=4_000, blue=6_000)
    outcomes = [control.infer(13) for _ in range(20)]
    pinned = control.infer(13, slot="green")
    await asyncio.sleep(1)
    assert {outcome.response.slot for outcome in outcomes} == {"blue"}
    assert "error id" in pinned.error.message, "who pins a slot wants its answer"
    accounts = {name: slot.account for name, slot in control.admin.fleet.model("m").slots.items()}
    failed = accounts["green"].routed[Outcome.FAILED].requests
    assert failed > 0
    assert accounts["blue"].routed[Outcome.FAILED].requests == 0
    assert accounts["blue"].pinned[Outcome.SUCCESS].requests == failed, "chance did not send them there"
    assert all(slot.leases == 0 for slot in control.admin.fleet.model("m").slots.values())


# Watching


@virtual
async def test_events_are_numbered_and_forgotten_at_a_bound(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    events = control.admin.events
    await control.load("green", 2)
    kinds = [(event.kind, event.line.to_state if event.line else "") for event in events.after(0)]
    assert kinds == [("slot", "LOADING m/2"), ("slot", ""), ("slot", "READY m/2")]
    token = events.token(1)
    assert [event.seq for event in events.after(events.seq_of(token))] == [2, 3]
    for number in range(1_100):
        await control.weights(blue=10_000 - number % 2, green=number % 2)
    with pytest.raises(ControlError) as caught:
        events.after(1)
    assert caught.value.refusal is Refusal.TOKEN_EXPIRED
    wrong_ones = {"other-1": Refusal.TOKEN_EXPIRED, "run-99999": Refusal.TOKEN_EXPIRED, "x": Refusal.INVALID_REQUEST}
    for wrong, refusal in wrong_ones.items():
        with pytest.raises(ControlError) as caught:
            events.seq_of(wrong)
        assert caught.value.refusal is refusal


@virtual
async def test_a_stopping_server_takes_no_changes(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    control.shelf.load_s = 1_000
    waiter = asyncio.ensure_future(control.load("green", 2))
    await asyncio.sleep(1)
    await control.admin.stop()
    assert (await refused(waiter)).refusal is Refusal.OPERATION_IN_PROGRESS
    assert (await refused(control.swap("blue"))).refusal is Refusal.STOPPING
    command = SetWeights({"blue": 10_000})
    assert (await refused(control.controller.change("m", command, ALICE))).refusal is Refusal.STOPPING


@virtual
async def test_what_is_asked_about_a_model_is_answered_by_its_stable_slot(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    await control.weights(blue=9_000, green=1_000)
    model = control.admin.fleet.model("m")
    assert model.slot_of(None).name == "blue", "although the first buckets are the canary's"
    assert model.slot_of(2).name == "green"
    await control.operations.withdraw("m", ALICE)
    assert not model.answers(None)
    with pytest.raises(ServingError) as caught:
        model.slot_of(None)
    assert "no ready slot" in caught.value.message
    assert control.in_force == {}
    await control.operations.load_newest("m", BAKE_NS, ALICE)
    assert control.in_force == {"blue": 10_000}
    assert control.state("blue") == "READY m/3"
    before = control.controller.desk("m").state
    await control.operations.load_newest("m", BAKE_NS, ALICE)
    assert control.controller.desk("m").state is before
    control.shelf.versions[4] = "digest-4"
    await control.operations.load_newest("m", BAKE_NS, ALICE)
    assert (control.in_force, control.state("green")) == ({"green": 10_000}, "READY m/4")


@virtual
@pytest.mark.parametrize("how", ["unloaded", "failed", "called off"])
async def test_what_slots_that_are_gone_have_counted_is_bounded(loop: VirtualLoop, how: str) -> None:
    control = await Control.open(loop)
    if how == "failed":
        control.shelf.failing[2] = "it crashes"
    accounts = control.controller.works.opener.accounts
    accounts._closed_max = 2
    for number in range(5):
        name = f"s{number}"
        with contextlib.suppress(ControlError):
            await control.load(name, 2, wait=how != "called off")
        await control.unload(name)
    assert [load.slot for load in accounts] == ["s3", "s4", "blue"]
