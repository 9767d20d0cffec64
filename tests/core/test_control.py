"""Slots and traffic as a state machine: what each command does, what it is refused for, and what never happens."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.shadows import shadow_rule
from turnout.core.commands import (
    Assign,
    ClearShadow,
    Command,
    Empty,
    EndBake,
    Fill,
    Load,
    Loaded,
    Lost,
    Rollback,
    SetShadow,
    SetWeights,
    Step,
    Swap,
    Unload,
    Unloaded,
    Withdraw,
)
from turnout.core.control import etag_of, step
from turnout.core.errors import ControlError, Refusal
from turnout.core.filling import SLOTS_MAX, free_slot
from turnout.core.ids import Revision
from turnout.core.routing import Pin, StickyKey
from turnout.core.slots import NEXT, SlotState
from turnout.core.traffic import Traffic

S = 1_000_000_000
BAKE = 600 * S


def revision(version: int, digest: str = "") -> Revision:
    return Revision("m", version, "", digest or f"digest-{version}")


def run(state: Traffic, *commands: Command, now_ns: int = 1_000 * S) -> Step:
    """The last command's step."""
    last = Step(state)
    for command in commands:
        last = step(last.state, command, now_ns)
    return last


def load(slot: str, version: int) -> tuple[Command, ...]:
    return (Load(slot, revision(version)), Loaded(slot))


# version 1 in blue with all traffic, version 2 in green with none
TWO = run(Traffic("m"), *load("blue", 1), Swap("blue", 0), *load("green", 2)).state
SWAPPED = run(TWO, Swap("green", BAKE)).state
CANARY = run(TWO, SetWeights({"blue": 9_000, "green": 1_000})).state


def weights(state: Traffic) -> dict[str, int]:
    return dict(state.route.weights) if state.route else {}


def refused(state: Traffic, command: Command) -> ControlError:
    with pytest.raises(ControlError) as caught:
        step(state, command, 1_000 * S)
    return caught.value


def test_a_load_is_accepted_then_filled_then_ready_without_traffic() -> None:
    accepted = run(TWO, Load("red", revision(3)))
    assert accepted.effects == (Fill("red", revision(3)),)
    assert [(c.object, c.from_state, c.to_state, c.cause) for c in accepted.changes] == [
        ("slots/red", "EMPTY", "LOADING m/3", "load")
    ]
    done = run(accepted.state, Loaded("red"))
    assert done.changes[0].to_state == "READY m/3"
    assert isinstance(done.effects[0], Assign)
    assert "red" in {target.slot for target in done.effects[0].route.targets}
    assert weights(done.state) == {"blue": 10_000}
    assert done.state.route is not None
    assert TWO.route is not None
    assert done.state.route.generation == TWO.route.generation, "the split is what it was"


def test_loading_what_is_there_changes_nothing() -> None:
    assert run(TWO, Load("green", revision(2))) == Step(TWO)


def test_what_was_forced_is_told_as_long_as_the_slot_holds_it() -> None:
    variant = Revision("m", 3, "int8", "d")
    forced = run(TWO, Load("red", variant, forced="it has no report"))
    (line,) = forced.changes
    assert (line.to_state, line.cause) == ("LOADING m/3@int8, forced: it has no report", "force")
    ready = run(forced.state, Loaded("red"))
    assert [change.to_state for change in ready.changes] == ["READY m/3@int8, forced"]
    assert ready.state.slots["red"].forced == "it has no report"
    other = run(ready.state, Load("red", variant, replace=True))
    assert other.state.slots["red"].forced == "", "loaded again, and not forced"
    assert run(ready.state, Unload("red"), Unloaded("red")).state.slots["red"].forced == ""
    assert run(ready.state, Lost("red", "it crashed")).state.slots["red"].forced == "it has no report"


def test_a_swap_keeps_the_old_slot_for_the_bake_and_then_empties_it() -> None:
    swapped = run(TWO, Swap("green", BAKE))
    assert weights(swapped.state) == {"green": 10_000}
    assert swapped.state.held == "blue"
    assert [(c.object, c.from_state, c.to_state) for c in swapped.changes] == [("route", "blue=10000", "green=10000")]
    assert run(swapped.state, EndBake(), now_ns=1_000 * S + BAKE - 1) == Step(swapped.state), "not before its time"
    ended = run(swapped.state, EndBake(), now_ns=1_000 * S + BAKE)
    assert Empty("blue") in ended.effects
    assert ended.state.slots["blue"].state is SlotState.DRAINING
    gone = run(ended.state, Unloaded("blue")).state
    assert gone.slots["blue"].revision is None
    assert refused(gone, Rollback()).refusal is Refusal.ROLLBACK_TARGET_UNLOADED


def test_a_swap_without_bake_empties_at_once() -> None:
    swapped = run(TWO, Swap("green", 0))
    assert Empty("blue") in swapped.effects
    assert swapped.state.held == ""


def test_a_second_swap_ends_the_first_ones_bake() -> None:
    third = run(SWAPPED, *load("red", 3), Swap("red", BAKE))
    assert third.state.held == "green"
    assert Empty("blue") in third.effects
    back = run(SWAPPED, Swap("blue", BAKE))
    assert back.state.held == "green"
    assert not [effect for effect in back.effects if isinstance(effect, Empty)]
    failed = run(SWAPPED, Lost("blue", "gone"), *load("red", 3), Swap("red", BAKE))
    assert failed.state.slots["blue"].state is SlotState.FAILED, "there is nothing to empty"


@pytest.mark.parametrize(("state", "slot"), [(TWO, "blue"), (SWAPPED, "green")], ids=["stable", "swapped"])
def test_a_swap_to_where_all_traffic_is_changes_nothing(state: Traffic, slot: str) -> None:
    assert run(state, Swap(slot, BAKE)) == Step(state)
    assert run(state, Rollback(slot)) == Step(state)


def test_swapping_to_the_stable_slot_gives_a_canary_up_and_bakes_nothing() -> None:
    after = run(CANARY, Swap("blue", BAKE)).state
    assert (weights(after), after.held, after.previous) == ({"blue": 10_000}, "", None)


def test_rollback_is_one_assignment_and_a_second_one_nothing() -> None:
    back = run(SWAPPED, Rollback())
    assert back.effects == (Assign(back.state.route),)  # type: ignore[arg-type]
    assert weights(back.state) == {"blue": 10_000}
    assert back.state.held == ""
    assert run(back.state, Rollback()) == Step(back.state)
    assert run(back.state, Unload("green")).effects[-1] == Empty("green")


def test_rollback_of_a_canary_goes_to_where_all_traffic_was() -> None:
    assert CANARY.previous is not None
    assert CANARY.previous.slot == "blue"
    assert weights(run(CANARY, Rollback()).state) == {"blue": 10_000}
    mostly = run(CANARY, SetWeights({"blue": 1_000, "green": 9_000})).state
    assert weights(run(mostly, Rollback()).state) == {"blue": 10_000}
    whole = run(mostly, SetWeights({"green": 10_000})).state
    assert weights(run(whole, Rollback()).state) == {"blue": 10_000}
    given_up = run(CANARY, SetWeights({"blue": 10_000})).state
    assert given_up.previous is None


def test_rollback_can_name_a_slot() -> None:
    assert weights(run(SWAPPED, *load("red", 3), Rollback("red")).state) == {"red": 10_000}


def test_rollback_with_nothing_to_go_back_to() -> None:
    assert refused(TWO, Rollback()).refusal is Refusal.ROLLBACK_TARGET_UNLOADED
    assert "name a READY slot" in refused(TWO, Rollback()).message
    replaced = run(SWAPPED, Load("blue", revision(3), replace=True, end_bake=True), Loaded("blue")).state
    error = refused(replaced, Rollback())
    assert "holds m/1 no more" in error.message
    assert refused(SWAPPED, Rollback("pink")).refusal is Refusal.SLOT_NOT_FOUND


def test_weights_move_the_least_and_keep_key_and_pins() -> None:
    assert weights(CANARY) == {"green": 1_000, "blue": 9_000}
    more = run(
        CANARY,
        SetWeights(sticky=StickyKey("x-user", "", "s"), pins=(Pin("x-team", "qa", "green"),)),
        SetWeights({"blue": 8_000, "green": 2_000}),
    ).state
    assert more.route is not None
    assert more.route.sticky.metadata == "x-user"
    assert more.route.pins == (Pin("x-team", "qa", "green"),)
    assert [(span.start_bp, span.end_bp) for span in more.route.intervals] == [(0, 2_000), (2_000, 10_000)]
    assert run(more, SetWeights({"blue": 8_000, "green": 2_000})) == Step(more), "the same again is nothing"


def test_key_and_pins_alone_leave_the_bake() -> None:
    after = run(SWAPPED, SetWeights(sticky=StickyKey(salt="new"))).state
    assert (after.held, weights(after)) == ("blue", {"green": 10_000})
    assert run(SWAPPED, SetWeights({"green": 9_000, "blue": 1_000})).state.held == "", "an operator has taken over"


@pytest.mark.parametrize(
    ("command", "refusal", "field", "words"),
    [
        (SetWeights({"blue": 9_000}), Refusal.INVALID_SPEC, "weights", "add up to 9000"),
        (SetWeights({"blue": -1, "green": 10_001}), Refusal.INVALID_SPEC, "weights", "is -1"),
        (SetWeights(), Refusal.INVALID_SPEC, "weights", "nothing to set"),
        (SetWeights({"pink": 10_000}), Refusal.SLOT_NOT_FOUND, "", "has no slot 'pink', it has 'blue', 'green'"),
        (SetWeights({"blue": 10_000, "pink": 0}), Refusal.SLOT_NOT_FOUND, "", "'pink'"),
        (SetWeights(sticky=StickyKey("X-User")), Refusal.INVALID_SPEC, "sticky_key.metadata_key", "'X-User'"),
        (SetWeights(sticky=StickyKey("key-bin")), Refusal.INVALID_SPEC, "sticky_key.metadata_key", "-bin"),
        (SetWeights(sticky=StickyKey("", "p" * 129)), Refusal.INVALID_SPEC, "sticky_key.request_parameter", "128"),
        (SetWeights(sticky=StickyKey(salt="s" * 65)), Refusal.INVALID_SPEC, "sticky_key.salt", "65 characters"),
        (SetWeights(pins=(Pin("a", "b", "blue"),) * 65), Refusal.INVALID_SPEC, "pins", "65 pins"),
        (SetWeights(pins=(Pin("a", "b" * 257, "blue"),)), Refusal.INVALID_SPEC, "pins[0].value", "256"),
        (SetWeights(pins=(Pin("grpc-x", "b", "blue"),)), Refusal.INVALID_SPEC, "pins[0].metadata_key", "grpc-"),
        (SetWeights(pins=(Pin("a", "b", "pink"),)), Refusal.SLOT_NOT_FOUND, "", "'pink'"),
        (Swap("pink", 0), Refusal.SLOT_NOT_FOUND, "", "'pink'"),
        (Unload("pink"), Refusal.SLOT_NOT_FOUND, "", "'pink'"),
        (Unload("blue"), Refusal.SLOT_ROUTED, "", "100 % of the traffic"),
        (Load("a b", revision(3)), Refusal.INVALID_SPEC, "slot", "'a b' is no name"),
        (Load("green", revision(3)), Refusal.SLOT_OCCUPIED, "", "holds m/2"),
        (Load("blue", revision(3), replace=True), Refusal.SLOT_ROUTED, "", "accept the outage"),
        (Load("red", revision(2, "other")), Refusal.DIGEST_MISMATCH, "", "a version of their own"),
    ],
)
def test_refusals(command: Command, refusal: Refusal, field: str, words: str) -> None:
    error = refused(TWO, command)
    assert (error.refusal, error.field) == (refusal, field)
    assert words in error.message


def test_a_busy_slot_takes_no_other_load_and_no_traffic() -> None:
    loading = run(TWO, Load("red", revision(3))).state
    assert refused(loading, Load("red", revision(4))).refusal is Refusal.OPERATION_IN_PROGRESS
    error = refused(loading, SetWeights({"red": 10_000}))
    assert error.refusal is Refusal.SLOT_NOT_READY
    assert "is LOADING" in error.message
    assert refused(run(loading, Lost("red", "too large")).state, Swap("red", 0)).message.count("too large") == 1


def test_a_load_can_be_called_off() -> None:
    loading = run(TWO, Load("red", revision(3))).state
    off = run(loading, Unload("red"))
    assert off.effects == (Empty("red"),)
    assert off.state.slots["red"].state is SlotState.EMPTY
    assert run(off.state, Unload("red")) == Step(off.state)


def test_unloading_twice_is_the_same_as_once() -> None:
    draining = run(TWO, Unload("green")).state
    assert run(draining, Unload("green")) == Step(draining)


def test_a_held_slot_stays_unless_the_bake_is_given_up() -> None:
    for command in (Unload("blue"), Load("blue", revision(3), replace=True)):
        error = refused(SWAPPED, command)
        assert error.refusal is Refusal.SLOT_ROUTED
        assert "until the bake ends" in error.message
    assert run(SWAPPED, Unload("blue", end_bake=True)).effects[-1] == Empty("blue")


def test_a_slot_that_pins_lead_to_stays() -> None:
    pinned = run(TWO, SetWeights(pins=(Pin("x-team", "qa", "green"),))).state
    assert refused(pinned, Unload("green")).refusal is Refusal.SLOT_ROUTED
    assert run(pinned, SetWeights(pins=()), Unload("green")).effects


def pinned(state: Traffic, slot: str) -> Traffic:
    return run(state, SetWeights(pins=(Pin("x-team", "qa", slot),))).state


def test_a_slot_that_pins_lead_to_is_replaced_only_where_the_outage_is_accepted() -> None:
    state = pinned(TWO, "green")
    error = refused(state, Load("green", revision(3), replace=True))
    assert error.refusal is Refusal.SLOT_ROUTED
    assert "has the requests of pins, which nobody would answer" in error.message
    assert run(state, Load("green", revision(3), replace=True, accept_outage=True)).effects[-2:] == (
        Empty("green"),
        Fill("green", revision(3)),
    )


@pytest.mark.parametrize(
    "state",
    [
        run(pinned(TWO, "blue"), Swap("green", 0)).state,
        run(pinned(SWAPPED, "blue"), EndBake(), now_ns=10**15).state,
        run(pinned(SWAPPED, "blue"), *load("red", 3), Swap("red", BAKE)).state,
    ],
    ids=["swap without bake", "bake that ends", "bake that is superseded"],
)
def test_the_server_itself_unloads_no_slot_that_pins_lead_to(state: Traffic) -> None:
    assert state.slots["blue"].state is SlotState.READY
    assert state.held != "blue"
    assert state.route is not None
    assert "blue" in {target.slot for target in state.route.targets}
    assert run(state, SetWeights(pins=()), Unload("blue")).effects[-1] == Empty("blue")


def test_what_takes_over_goes_into_no_slot_that_pins_lead_to() -> None:
    failed = run(TWO, Lost("green", "gone")).state
    assert (free_slot(failed, 3), free_slot(pinned(failed, "green"), 3)) == ("green", "v3")


def test_a_replace_in_place_keeps_the_traffic_for_the_new_revision() -> None:
    accepted = run(TWO, Load("blue", revision(3), replace=True, accept_outage=True))
    assert accepted.effects[1:] == (Empty("blue"), Fill("blue", revision(3)))
    route = accepted.state.route
    assert route is not None
    assert route.stable is not None
    assert str(route.stable.revision) == "m/3"
    done = run(accepted.state, Loaded("blue")).state
    assert weights(done) == {"blue": 10_000}
    again = run(TWO, Load("blue", revision(1), replace=True, accept_outage=True))
    assert again.effects == (Empty("blue"), Fill("blue", revision(1)))


def test_a_replace_without_traffic_is_no_target_while_it_loads() -> None:
    accepted = run(TWO, Load("green", revision(3), replace=True))
    assert accepted.state.route is not None
    assert {target.slot for target in accepted.state.route.targets} == {"blue"}


def test_a_failed_slot_can_be_loaded_again_and_unloaded() -> None:
    failed = run(TWO, Load("red", revision(3)), Lost("red", "gone")).state
    assert failed.slots["red"].message == "gone"
    assert run(failed, *load("red", 4)).state.slots["red"].message == ""
    assert run(failed, Load("pink", revision(3, "other"))).effects, "what failed holds nothing"
    assert run(failed, Unload("red")).state.slots["red"].state is SlotState.EMPTY


def test_traffic_can_be_swapped_away_from_a_slot_that_is_lost() -> None:
    lost = run(TWO, Lost("blue", "gone")).state
    for command in (Swap("green", 0), Swap("green", BAKE), Rollback("green"), SetWeights({"green": 10_000})):
        after = run(lost, command).state
        assert weights(after) == {"green": 10_000}
        assert after.route is not None
        assert {target.slot for target in after.route.targets} == {"green"}


def test_the_share_of_a_lost_canary_goes_to_stable() -> None:
    lost = run(CANARY, Lost("green", "gone"))
    assert weights(lost.state) == {"blue": 10_000}
    assert [(c.object, c.cause) for c in lost.changes] == [("slots/green", "slot_lost"), ("route", "slot_lost")]


def test_a_lost_stable_slot_gives_its_share_to_the_previous_one_or_to_nobody() -> None:
    assert weights(run(SWAPPED, Lost("green", "gone")).state) == {"blue": 10_000}
    lost = run(CANARY, Lost("blue", "gone")).state
    assert weights(lost) == {"green": 1_000, "blue": 9_000}, "a canary has not earned the rest"
    assert weights(run(TWO, Lost("blue", "gone")).state) == {"blue": 10_000}
    moved = run(lost, SetWeights({"green": 10_000})).state
    assert moved.route is not None
    assert {target.slot for target in moved.route.targets} == {"green"}, "what cannot serve and has no traffic goes"


def test_a_new_model_has_no_traffic_until_it_is_given_some() -> None:
    fresh = run(Traffic("m"), *load("blue", 1)).state
    assert fresh.route is not None
    assert (fresh.route.generation, weights(fresh)) == (1, {})
    first = run(fresh, SetWeights({"blue": 10_000})).state
    assert weights(first) == {"blue": 10_000}
    assert refused(Traffic("m"), SetWeights(sticky=StickyKey())).refusal is Refusal.SLOT_NOT_READY
    assert run(fresh, Rollback("blue")).state.rolled_back


def test_etags_are_those_of_the_object_that_changes() -> None:
    assert TWO.route is not None
    assert etag_of(TWO, Swap("green", 0)) == str(TWO.route.generation)
    assert etag_of(TWO, Unload("green")) == str(TWO.slots["green"].etag)
    assert etag_of(TWO, Load("red", revision(3))) == "0"
    assert etag_of(Traffic("m"), Rollback()) == "0"


def test_names_of_slots_are_bounded_and_old_empty_ones_make_room() -> None:
    state = TWO
    for number in range(SLOTS_MAX - 2):
        state = run(state, *load(f"s{number}", 10 + number)).state
    assert refused(state, Load("more", revision(3))).refusal is Refusal.INVALID_SPEC
    state = run(state, Unload("s3"), Unloaded("s3"), Unload("s1"), Unloaded("s1"), Load("more", revision(3))).state
    assert "s3" not in state.slots
    assert "s1" in state.slots
    assert len(state.slots) == SLOTS_MAX


def test_a_bake_that_frees_nothing_is_a_line_of_the_journal_all_the_same() -> None:
    lost = run(SWAPPED, Lost("blue", "gone")).state
    ended = run(lost, EndBake(), now_ns=10**15)
    assert [(c.object, c.from_state, c.to_state) for c in ended.changes] == [("bake", "blue", "")]
    assert run(TWO, EndBake()) == Step(TWO)


SLOTS = st.sampled_from(["blue", "green", "red", "pink"])
# From nothing it takes many steps in the right order until there is anything to lose.
THREE = run(CANARY, *load("red", 3), SetShadow(shadow_rule("red"))).state
STARTS = st.sampled_from([Traffic("m"), TWO, SWAPPED, CANARY, THREE, run(THREE, Swap("green", BAKE)).state])


class Machine(RuleBasedStateMachine):
    """Any commands in any order: what must hold of every state and every step."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Traffic("m")
        self.now_ns = 10**18
        self.filling: set[str] = set()
        self.draining: set[str] = set()

    def do(self, command: Command) -> None:
        before = self.state
        self.now_ns += S
        try:
            after = step(before, command, self.now_ns)
        except ControlError:
            return
        self.state = after.state
        assert (after.state is before) == (not after.changes)
        assert not (after.effects and not after.changes), "every effect has its line in the journal"
        assert after.state.version == before.version + bool(after.changes)
        self._check_slots(before, command)
        self._check_shadows(before, [change.object for change in after.changes])
        if after.state.route is not before.route:
            assert after.effects[0] == Assign(after.state.route)  # type: ignore[arg-type]
        for effect in after.effects:
            if isinstance(effect, Empty):
                routed = self.state.routed(effect.slot)
                assert not routed or (isinstance(command, Load) and command.accept_outage), "traffic is never unloaded"
                assert self.state.shadow(effect.slot) is None or isinstance(command, Load), "nor is a shadow"
                assert before.held != effect.slot or not isinstance(command, Unload | Load) or command.end_bake
                self.filling.discard(effect.slot)
                if self.state.slots[effect.slot].state is SlotState.DRAINING:
                    self.draining.add(effect.slot)
            elif isinstance(effect, Fill):
                assert effect.slot not in self.filling
                self.filling.add(effect.slot)

    def _check_slots(self, before: Traffic, command: Command) -> None:
        for name, record in self.state.slots.items():
            old = before.slots.get(name)
            if old is None or old is record:
                continue
            assert record.etag > old.etag
            passed = [old.state, record.state]
            if isinstance(command, Load) and old.state is SlotState.READY:
                passed = [old.state, SlotState.DRAINING, SlotState.EMPTY, record.state]
            if record.state is SlotState.READY:
                passed = [old.state, SlotState.WARMING, record.state]
            if isinstance(command, Lost):
                continue
            for left, right in pairwise(passed):
                assert right in NEXT[left], f"{left} to {right}"

    def _check_shadows(self, before: Traffic, told: list[str]) -> None:
        was, now = before.route, self.state.route
        if was is None or now is None:
            return
        for slot in {each.slot for each in (*was.shadows, *now.shadows)}:
            got, gets = (
                before.ready(slot),
                self.state.ready(slot),
            )  # a route may still name the last slot when it is lost
            same = before.shadow(slot) == self.state.shadow(slot)
            assert same or was.generation < now.generation
            assert (f"shadows/{slot}" in told) == (not same or got != gets), "each change of who gets copies is told"

    def weight(self, slot: str) -> int:
        return self.state.weight_bp(slot)

    @initialize(state=STARTS)
    def begin(self, state: Traffic) -> None:
        self.state, self.now_ns = state, 1_000 * S

    @rule(slot=SLOTS, version=st.integers(1, 4), more=st.tuples(st.booleans(), st.booleans(), st.booleans()))
    def load(self, slot: str, version: int, more: tuple[bool, bool, bool]) -> None:
        self.do(Load(slot, revision(version), *more))

    @precondition(lambda self: self.filling)
    @rule(data=st.data(), well=st.booleans())
    def filled(self, data: st.DataObject, well: bool) -> None:
        slot = data.draw(st.sampled_from(sorted(self.filling)))
        self.filling.discard(slot)
        self.do(Loaded(slot) if well else Lost(slot, "why"))

    @precondition(lambda self: self.draining)
    @rule()
    def drained(self) -> None:
        self.do(Unloaded(self.draining.pop()))

    @rule(slot=SLOTS, end_bake=st.booleans())
    def unload(self, slot: str, end_bake: bool) -> None:
        self.do(Unload(slot, end_bake))

    @rule(slot=SLOTS, bake_ns=st.sampled_from([0, 5 * S, BAKE]))
    def swap(self, slot: str, bake_ns: int) -> None:
        self.do(Swap(slot, bake_ns))

    @rule(slot=st.one_of(st.just(""), SLOTS))
    def rollback(self, slot: str) -> None:
        held = self.state.held
        could = held and self.state.ready(held) == self.state.previous
        self.do(Rollback(slot))
        assert slot or not could or self.weight(held) == 10_000, "a rollback within the bake always works"

    @rule(slots=st.lists(SLOTS, min_size=1, max_size=3, unique=True), cut=st.integers(0, 10_000))
    def weigh(self, slots: list[str], cut: int) -> None:
        shares = {1: [10_000], 2: [cut, 10_000 - cut], 3: [cut // 2, cut - cut // 2, 10_000 - cut]}[len(slots)]
        self.do(SetWeights(dict(zip(slots, shares, strict=True))))

    @rule(slots=st.lists(SLOTS, max_size=2, unique=True))
    def pin(self, slots: list[str]) -> None:
        self.do(SetWeights(pins=tuple(Pin("x-team", slot, slot) for slot in slots)))

    @rule(slot=SLOTS, sample_bp=st.sampled_from([0, 100, 10_000]))
    def shadow(self, slot: str, sample_bp: int) -> None:
        self.do(SetShadow(shadow_rule(slot, sample_bp)))

    @rule(slot=SLOTS)
    def clear_shadow(self, slot: str) -> None:
        self.do(ClearShadow(slot))

    @rule(later_ns=st.sampled_from([0, 5 * S, BAKE]))
    def end_bake(self, later_ns: int) -> None:
        self.now_ns += later_ns
        self.do(EndBake())

    @precondition(lambda self: any(r.state is SlotState.READY for r in self.state.slots.values()))
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        ready = [name for name, record in self.state.slots.items() if record.state is SlotState.READY]
        self.do(Lost(data.draw(st.sampled_from(sorted(ready))), "gone"))

    @invariant()
    def traffic_is_whole_and_goes_to_what_is_there(self) -> None:
        route = self.state.route
        if route is None:
            return
        assert sum(route.weights.values()) in (0, 10_000)
        for target in route.targets:
            record = self.state.slots[target.slot]
            assert record.revision == target.revision
            assert record.state is SlotState.READY or self.weight(target.slot), "only traffic keeps what cannot serve"
        assert len({target.slot for target in route.targets}) == len(route.targets)
        ready = {name for name, record in self.state.slots.items() if record.state is SlotState.READY}
        assert ready <= {target.slot for target in route.targets}, "every READY slot can be pinned"
        assert not self.state.held or self.state.slots[self.state.held].state is not SlotState.EMPTY

    @invariant()
    def a_shadow_is_a_slot_that_holds_something_and_is_not_stable(self) -> None:
        route = self.state.route
        if route is None:
            return
        slots = [each.slot for each in route.shadows]
        assert len(set(slots)) == len(slots)
        for slot in slots:
            assert self.state.slots[slot].state not in (SlotState.EMPTY, SlotState.DRAINING)
            assert route.stable is None or route.stable.slot != slot


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_the_table_of_states_is_what_the_journal_writes() -> None:
    assert str(replace(TWO.slots["green"], state=SlotState.EMPTY, revision=None)) == "EMPTY"


def test_withdrawing_takes_all_of_a_model_away() -> None:
    pinned = run(SWAPPED, SetWeights(pins=(Pin("x-team", "qa", "green"),)), Load("red", revision(3))).state
    gone = run(pinned, Withdraw())
    assert weights(gone.state) == {}
    assert {effect for effect in gone.effects if isinstance(effect, Empty)} == {
        Empty(s) for s in ("blue", "green", "red")
    }
    assert (gone.state.held, gone.state.previous) == ("", None)
    assert gone.state.route is not None
    assert (gone.state.route.targets, gone.state.route.pins) == ((), ())
    assert run(gone.state, Withdraw()) == Step(gone.state)
    assert run(Traffic("m"), Withdraw()) == Step(Traffic("m"))


def test_a_free_slot_is_the_first_that_holds_nothing() -> None:
    assert free_slot(Traffic("m"), 7) == "blue"
    assert free_slot(run(Traffic("m"), *load("blue", 1)).state, 7) == "green"
    assert free_slot(TWO, 7) == "v7"
    assert free_slot(run(TWO, Unload("green"), Unloaded("green")).state, 7) == "green"
    with pytest.raises(ControlError) as caught:
        free_slot(run(TWO, *load("v7", 7)).state, 7)
    assert caught.value.refusal is Refusal.SLOT_OCCUPIED
