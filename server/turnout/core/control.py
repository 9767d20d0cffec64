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
    Command,
    EndBake,
    Load,
    Loaded,
    Lost,
    Rollback,
    SetWeights,
    Step,
    Swap,
    Unload,
    Unloaded,
    Withdraw,
)
from turnout.core.filling import load, loaded, unload
from turnout.core.shifting import end_bake, lost, rollback, set_weights, swap, withdraw
from turnout.core.slots import SlotState
from turnout.core.traffic import Traffic, described


def step(state: Traffic, command: Command, now_ns: int) -> Step:
    """The next state.

    Raises:
        ControlError: naming what stands against it, and what to do about that.
    """
    match command:
        case Load():
            after, effects = load(state, command, now_ns)
        case Loaded():
            after, effects = loaded(state, command.slot, now_ns)
        case Lost():
            after, effects = lost(state, command, now_ns)
        case Unload():
            after, effects = unload(state, command, now_ns)
        case Unloaded():
            after, effects = state.with_slot(command.slot, SlotState.EMPTY, None, now_ns), []
        case Swap():
            after, effects = swap(state, command, now_ns)
        case Rollback():
            after, effects = rollback(state, command.slot)
        case SetWeights():
            after, effects = set_weights(state, command)
        case Withdraw():
            after, effects = withdraw(state, now_ns)
        case _:  # EndBake
            after, effects = end_bake(state, now_ns)
    if after is state:
        return Step(state)
    if after.route is not state.route and after.route is not None:
        effects = [Assign(after.route), *effects]
    changes = _changes(state, after, _CAUSES[type(command)])
    return Step(replace(after, version=state.version + 1), changes, tuple(effects))


def etag_of(state: Traffic, command: Command) -> str:
    """The etag of the object that a command changes."""
    if isinstance(command, Load | Unload):
        record = state.slots.get(command.slot)
        return str(record.etag if record else 0)
    return str(state.route.generation if state.route else 0)


_CAUSES: Mapping[type, str] = {
    Load: "load",
    Loaded: "load",
    Lost: "slot_lost",
    Unload: "unload",
    Unloaded: "unload",
    Swap: "swap",
    Rollback: "rollback",
    SetWeights: "weights",
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
    if generation != (before.route.generation if before.route else 0):
        changes.append(Change("route", described(before.route), described(after.route), cause, generation))
    if not changes:  # a bake that ends frees nothing where its slot is in use, be it by pins
        changes.append(Change("bake", before.held, after.held, cause, generation))
    return tuple(changes)
