"""What a command does to a model's slots and traffic: `step(state, command, now_ns) -> Step`, or why not.

Nothing happens here. Whoever carries it out journals the changes first and runs the effects, in their order, then;
of a rollback the effects come first. Time is the time of day, because a bake outlasts a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from turnout.core.commands import (
    Assign,
    Change,
    ClearShadow,
    Command,
    EndBake,
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
from turnout.core.filling import Outcome, load, loaded, unload
from turnout.core.routing import Route
from turnout.core.shadowing import clear_shadow, set_shadow, unshadowed
from turnout.core.shifting import end_bake, lost, rollback, set_weights, swap, withdraw
from turnout.core.slots import SlotState
from turnout.core.traffic import Traffic, described, shadow_described


def step(state: Traffic, command: Command, now_ns: int) -> Step:
    """The next state.

    Raises:
        ControlError: naming what stands against it, and what to do about that.
    """
    after, effects = _outcome(state, command, now_ns)
    if after is state:
        return Step(state)
    after = unshadowed(after)
    if after.route is not state.route and after.route is not None:
        effects = [Assign(after.route), *effects]
    changes = _changes(state, after, _cause(command))
    return Step(replace(after, version=state.version + 1), changes, tuple(effects))


def _outcome(state: Traffic, command: Command, now_ns: int) -> Outcome:
    match command:
        case Load():
            outcome = load(state, command, now_ns)
        case Loaded():
            outcome = loaded(state, command.slot, now_ns)
        case Lost():
            outcome = lost(state, command, now_ns)
        case Unload():
            outcome = unload(state, command, now_ns)
        case Unloaded():
            outcome = state.with_slot(command.slot, SlotState.EMPTY, None, now_ns), []
        case Swap():
            outcome = swap(state, command, now_ns)
        case Rollback():
            outcome = rollback(state, command.slot)
        case SetWeights():
            outcome = set_weights(state, command)
        case SetShadow():
            outcome = set_shadow(state, command.rule)
        case ClearShadow():
            outcome = clear_shadow(state, command.slot)
        case Withdraw():
            outcome = withdraw(state, now_ns)
        case _:  # EndBake
            outcome = end_bake(state, now_ns)
    return outcome


def etag_of(state: Traffic, command: Command) -> str:
    """The etag of the object that a command changes."""
    if isinstance(command, Load | Unload):
        record = state.slots.get(command.slot)
        return str(record.etag if record else 0)
    return str(state.route.generation if state.route else 0)


def _cause(command: Command) -> str:
    return "force" if isinstance(command, Load) and command.forced else _CAUSES[type(command)]


_CAUSES: Mapping[type, str] = {
    Load: "load",
    Loaded: "load",
    Lost: "slot_lost",
    Unload: "unload",
    Unloaded: "unload",
    Swap: "swap",
    Rollback: "rollback",
    SetWeights: "weights",
    SetShadow: "shadow",
    ClearShadow: "shadow",
    EndBake: "bake_ended",
    Withdraw: "unload",
}


def _changes(before: Traffic, after: Traffic, cause: str) -> tuple[Change, ...]:
    generation = after.route.generation if after.route else 0
    changes = []
    for name, record in after.slots.items():
        old = before.slots.get(name)
        if record is not old:
            changes.append(Change(f"slots/{name}", str(old or SlotState.EMPTY.value), str(record), cause, generation))
    if generation != (before.route.generation if before.route else 0) and _split(before.route) != _split(after.route):
        changes.append(Change("route", described(before.route), described(after.route), cause, generation))
    for name in _shadowed(before, after):
        was, now = shadow_described(before, name), shadow_described(after, name)
        if was != now or before.shadow(name) != after.shadow(name):
            changes.append(Change(f"shadows/{name}", was, now, cause, generation))
    if not changes:  # a bake that ends frees nothing where its slot is in use, be it by pins
        changes.append(Change("bake", before.held, after.held, cause, generation))
    return tuple(changes)


def _split(route: Route | None) -> Route | None:
    """What a line of the route tells of: all but the shadow rules, which have lines of their own."""
    return replace(route, generation=0, shadows=()) if route else None


def _shadowed(*states: Traffic) -> list[str]:
    """The slots that have a rule in any of the states."""
    rules = [rule for state in states if state.route for rule in state.route.shadows]
    return sorted({rule.slot for rule in rules})
