"""What moves traffic between a model's slots: swap, rollback, weights, and what is lost; the half of `core/control`
that loads nothing."""

from __future__ import annotations

from dataclasses import replace

from turnout.core.buckets import reweigh
from turnout.core.commands import Effect, Lost, SetWeights, Swap
from turnout.core.errors import ControlError, Refusal
from turnout.core.filling import Outcome, emptied, known, retargeted
from turnout.core.routing import Route, Target
from turnout.core.slots import SlotState
from turnout.core.spec import check_pins, check_sticky, check_weights
from turnout.core.traffic import Traffic, whole


def lost(state: Traffic, command: Lost, now_ns: int) -> Outcome:
    """Its share goes to the stable slot. Where it is the stable one itself, it goes where a rollback would; where there
    is no such slot, its share stays with it and is refused: nobody else has earned it."""
    slot = command.slot
    after = state.with_slot(slot, SlotState.FAILED, state.slots[slot].revision, now_ns, command.why)
    weight, route = state.weight_bp(slot), state.route
    if not weight or route is None:
        return retargeted(after, slot, None), []
    stable = route.stable
    heir = stable.slot if stable and stable.slot != slot else (state.previous.slot if state.previous else "")
    if (target := after.ready(heir)) is None:
        return after, []
    weights = {t: route.weight_bp(t) for t in route.targets if t.slot != slot}
    weights[target] = weights.get(target, 0) + weight
    targets = tuple(dict.fromkeys((*weights, target)))
    intervals = reweigh(route.intervals, weights)
    lost = replace(route, generation=route.generation + 1, targets=targets, intervals=intervals)
    return after.with_route(lost), []


def swap(state: Traffic, command: Swap, now_ns: int) -> Outcome:
    """A slot that would be emptied stays where pins lead to it, or a shadow rule."""
    target = target_of(state, command.slot)
    if state.weight_bp(target.slot) == sum(state.route.weights.values() if state.route else ()) > 0:
        return state, []
    old = state.route.stable if state.route else None
    if old is not None and old.slot == target.slot:  # a canary that is given up: the same slot stays stable
        return _all_to(replace(state, rolled_back=False), target, None, 0), []
    superseded = state.held
    bake_until_ns = now_ns + command.bake_ns if command.bake_ns and old else 0
    after = _all_to(replace(state, rolled_back=False), target, old, bake_until_ns)
    effects: list[Effect] = []
    gone = [superseded] if superseded and superseded not in (target.slot, old.slot if old else "") else []
    gone += [old.slot] if old is not None and not command.bake_ns else []
    for name in gone:
        if after.ready(name) is not None and not after.in_use(name):
            after, more = emptied(after, after.slots[name], now_ns)
            effects += more
    return after, effects


def rollback(state: Traffic, slot: str) -> Outcome:
    if slot:
        target = target_of(state, slot)
    else:
        if state.previous is None and state.rolled_back:
            return state, []
        found = state.ready(state.previous.slot) if state.previous else None
        if found is None or found != state.previous:
            was = f"slot '{state.previous.slot}' holds {state.previous.revision} no more" if state.previous else ""
            raise ControlError(
                Refusal.ROLLBACK_TARGET_UNLOADED,
                f"model '{state.model}' has nothing loaded to go back to"
                + (f": {was}: allow it to be loaded again, or name a READY slot" if was else ": name a READY slot"),
                model=state.model,
            )
        target = found
    if state.weight_bp(target.slot) == sum(state.route.weights.values() if state.route else ()) > 0:
        return state, []
    return _all_to(replace(state, rolled_back=True), target, None, 0), []


def _all_to(state: Traffic, target: Target, previous: Target | None, bake_until_ns: int) -> Traffic:
    route = state.route or Route(state.model, 0, (target,), ())
    targets = route.targets if target in route.targets else (*route.targets, target)
    live = _live(state, targets, target.slot)
    route = replace(route, generation=route.generation + 1, targets=live, intervals=whole(target))
    return replace(state.with_route(route), previous=previous, bake_until_ns=bake_until_ns)


def _live(state: Traffic, targets: tuple[Target, ...], *routed: str) -> tuple[Target, ...]:
    """Without those that had traffic, lose it now, and cannot serve."""
    return tuple(t for t in targets if t.slot in routed or state.ready(t.slot) == t)


def set_weights(state: Traffic, command: SetWeights) -> Outcome:
    route = state.route
    if command.weights is None and command.sticky is None and command.pins is None:
        raise ControlError(Refusal.INVALID_SPEC, "there is nothing to set: give weights, sticky_key or pins", "weights")
    if command.sticky is not None:
        check_sticky(command.sticky)
    if command.pins is not None:
        check_pins(command.pins)
        for pin in command.pins:
            known(state, pin.slot)
    if command.weights is not None:
        check_weights(command.weights)
    weights = (route.weights if route else {}) if command.weights is None else command.weights
    targets = {target_of(state, slot): weight for slot, weight in weights.items() if weight or slot not in state.slots}
    if route is None:
        raise ControlError(Refusal.SLOT_NOT_READY, f"model '{state.model}' has no READY slot: load one", "weights")
    after = replace(
        route,
        generation=route.generation + 1,
        intervals=reweigh(route.intervals, targets) if command.weights is not None else route.intervals,
        targets=_live(state, route.targets, *(t.slot for t in targets)),
        sticky=command.sticky or route.sticky,
        pins=route.pins if command.pins is None else command.pins,
    )
    if replace(after, generation=route.generation) == route:
        return state, []
    if after.intervals == route.intervals:
        return state.with_route(after), []
    previous, alone = state.previous, len(route.weights) == 1
    if alone and route.weights != after.weights:
        previous = route.stable
    if previous is not None and after.weights == {previous.slot: sum(after.weights.values())}:
        previous = None
    return replace(state.with_route(after), previous=previous, bake_until_ns=0, rolled_back=False), []


def end_bake(state: Traffic, now_ns: int) -> Outcome:
    name = state.held
    if not name or now_ns < state.bake_until_ns:
        return state, []
    after = replace(state, bake_until_ns=0)
    if after.ready(name) is None or after.in_use(name):
        return after, []
    return emptied(after, after.slots[name], now_ns)


def withdraw(state: Traffic, now_ns: int) -> Outcome:
    """Pins that lead to the slots and shadow rules go with them."""
    route, after = state.route, state
    if route is not None and (route.intervals or route.pins or route.shadows):
        after = state.with_route(replace(route, generation=route.generation + 1, intervals=(), pins=(), shadows=()))
    if after.previous is not None or after.bake_until_ns:
        after = replace(after, previous=None, bake_until_ns=0)
    effects: list[Effect] = []
    for record in state.slots.values():
        if record.state not in (SlotState.EMPTY, SlotState.DRAINING):
            after, more = emptied(after, record, now_ns)
            effects += more
    return after, effects


def target_of(state: Traffic, slot: str) -> Target:
    """The slot as one that can take traffic."""
    record = known(state, slot)
    target = state.ready(slot)
    if target is None:
        why = f": {record.message}" if record.message else ""
        raise ControlError(
            Refusal.SLOT_NOT_READY,
            f"slot '{slot}' of model '{state.model}' is {record.state.value}{why}; traffic needs a READY one: load it",
            model=state.model,
            slot=slot,
        )
    return target
