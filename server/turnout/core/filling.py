"""What loading and unloading do to a model's slots, and when they are refused: the half of `core/control` that moves no
traffic."""

from __future__ import annotations

from dataclasses import replace

from turnout.core.commands import Effect, Empty, Fill, Load, Unload
from turnout.core.errors import ControlError, Refusal
from turnout.core.ids import Revision, is_name
from turnout.core.routing import FIRST_SLOT, Route, Target
from turnout.core.slots import SlotState
from turnout.core.traffic import SlotRecord, Traffic

SLOTS_MAX = 32  # of one model; each that is loaded takes memory, and each name is kept

Outcome = tuple[Traffic, list[Effect]]

_PINS = ("the requests of pins", "remove the pins")
_BUSY = (SlotState.LOADING, SlotState.WARMING, SlotState.DRAINING)


def load(state: Traffic, command: Load, now_ns: int) -> Outcome:
    name, revision = command.slot, command.revision
    if not is_name(name):
        raise ControlError(Refusal.INVALID_SPEC, f"'{name}' is no name for a slot: letters, digits, . _ -", "slot")
    record = state.slots.get(name)
    if record is not None and record.state is SlotState.READY and record.revision == revision and not command.replace:
        return state, []
    _refuse_busy(state, record)
    _refuse_other_digest(state, name, revision)
    effects: list[Effect] = []
    if record is not None and record.state is SlotState.READY:
        _refuse_occupied(state, record, command)
        effects.append(Empty(name))
    elif record is None:
        state = _with_room(state, name)
    ended = replace(state, bake_until_ns=0) if state.held == name else state
    allowed = command.allow_signature_change
    after = ended.with_slot(
        name, SlotState.LOADING, revision, now_ns, allow_signature_change=allowed, forced=command.forced
    )
    after = retargeted(after, name, Target(name, revision))
    return after, [*effects, Fill(name, revision)]


def free_slot(state: Traffic, version: int) -> str:
    """Where a revision goes that is to take over: `blue` or `green`, else `v<version>`, whichever holds nothing.

    Raises:
        ControlError: SLOT_OCCUPIED.
    """
    names = (FIRST_SLOT, "green", f"v{version}")
    for name in names:
        record = state.slots.get(name)
        if record is None or (record.state in (SlotState.EMPTY, SlotState.FAILED) and not state.in_use(name)):
            return name
    raise ControlError(
        Refusal.SLOT_OCCUPIED, f"slots {', '.join(names)} of model '{state.model}' hold revisions: unload one of them"
    )


def _refuse_occupied(state: Traffic, record: SlotRecord, command: Load) -> None:
    name = record.name
    facts = {"model": state.model, "slot": name}
    if not command.replace:
        raise ControlError(
            Refusal.SLOT_OCCUPIED,
            f"slot '{name}' of model '{state.model}' holds {record.revision}: load into another slot, "
            "or ask to replace it",
            **facts,
        )
    if state.held == name and not command.end_bake:
        raise _held(state, name)
    if state.routed(name) and not command.accept_outage:
        weight = state.weight_bp(name)
        what, remedy = (f"{weight / 100:g} % of the traffic", "move the traffic") if weight else _PINS
        raise ControlError(
            Refusal.SLOT_ROUTED,
            f"slot '{name}' of model '{state.model}' has {what}, which nobody would answer while it loads: "
            f"{remedy} first, or accept the outage",
            **facts,
        )


def _refuse_busy(state: Traffic, record: SlotRecord | None) -> None:
    if record is not None and record.state in _BUSY:
        raise ControlError(
            Refusal.OPERATION_IN_PROGRESS,
            f"slot '{record.name}' of model '{state.model}' is {record.state.value}: wait for it, or unload it",
            model=state.model,
            slot=record.name,
        )


def _refuse_other_digest(state: Traffic, name: str, revision: Revision) -> None:
    for record in state.slots.values():
        held = record.revision
        if held is None or record.name == name or str(held) != str(revision) or held.digest == revision.digest:
            continue
        if record.state is not SlotState.FAILED:
            raise ControlError(
                Refusal.DIGEST_MISMATCH,
                f"slot '{record.name}' holds {held} with digest {held.digest[:12]}, its files now have "
                f"{revision.digest[:12]}: give changed files a version of their own",
                slot=record.name,
                revision=held,
            )


def _with_room(state: Traffic, name: str) -> Traffic:
    """A name more; one that has been empty for long makes room for it."""
    if len(state.slots) < SLOTS_MAX:
        return state
    empty = [record for record in state.slots.values() if record.state is SlotState.EMPTY]
    if not empty:
        raise ControlError(
            Refusal.INVALID_SPEC, f"model '{state.model}' has {SLOTS_MAX} slots, which is the limit: unload one", "slot"
        )
    oldest = min(empty, key=lambda record: record.etag).name
    return replace(state, slots={k: v for k, v in state.slots.items() if k != oldest})


def retargeted(state: Traffic, slot: str, target: Target | None) -> Traffic:
    """The route with what `slot` holds from now on; None: nothing. Traffic that a slot has stays with it; without any,
    it is a target only while it is READY."""
    route = state.route
    if route is None:
        return state
    routed = state.weight_bp(slot) > 0
    kept = tuple(t for t in route.targets if t.slot != slot)
    if not routed or target is None:
        return state if kept == route.targets else state.with_route(replace(route, targets=kept))
    if target in route.targets:
        return state
    intervals = tuple(replace(span, target=target) if span.target.slot == slot else span for span in route.intervals)
    changed = replace(route, generation=route.generation + 1, targets=(*kept, target), intervals=intervals)
    return state.with_route(changed)


def loaded(state: Traffic, slot: str, now_ns: int) -> Outcome:
    after = state.with_slot(slot, SlotState.READY, state.slots[slot].revision, now_ns)
    target = after.ready(slot)
    if target is None:
        raise AssertionError(f"slot '{slot}' was loaded with nothing")
    route = state.route or Route(state.model, 1, (), ())
    if target not in route.targets:
        route = replace(route, targets=(*(t for t in route.targets if t.slot != slot), target))
    return after.with_route(route), []


def unload(state: Traffic, command: Unload, now_ns: int) -> Outcome:
    name = command.slot
    record = known(state, name)
    if record.state in (SlotState.EMPTY, SlotState.DRAINING):
        return state, []
    if state.routed(name):
        weight = state.weight_bp(name)
        raise ControlError(
            Refusal.SLOT_ROUTED,
            f"slot '{name}' of model '{state.model}' has {weight / 100:g} % of the traffic: move it first "
            "(swap, rollback or weights)"
            if weight
            else f"pins of model '{state.model}' send requests to slot '{name}': remove them first",
            model=state.model,
            slot=name,
        )
    if (rule := state.shadow(name)) is not None:
        raise ControlError(
            Refusal.SLOT_ROUTED,
            f"slot '{name}' of model '{state.model}' has a shadow rule: clear it first",
            model=state.model,
            slot=name,
            sample_bp=rule.sample_bp,
        )
    if state.held == name and not command.end_bake:
        raise _held(state, name)
    ended = replace(state, bake_until_ns=0) if state.held == name else state
    return emptied(ended, record, now_ns)


def emptied(state: Traffic, record: SlotRecord, now_ns: int) -> Outcome:
    name, serves = record.name, record.state is SlotState.READY
    to, revision = (SlotState.DRAINING, record.revision) if serves else (SlotState.EMPTY, None)
    return retargeted(state.with_slot(name, to, revision, now_ns), name, None), [Empty(name)]


def _held(state: Traffic, name: str) -> ControlError:
    return ControlError(
        Refusal.SLOT_ROUTED,
        f"slot '{name}' of model '{state.model}' is kept READY for a rollback until the bake ends: wait, or end it",
        model=state.model,
        slot=name,
        bake_until_ns=state.bake_until_ns,
    )


def known(state: Traffic, slot: str) -> SlotRecord:
    record = state.slots.get(slot)
    if record is None:
        known = ", ".join(f"'{name}'" for name in sorted(state.slots)) or "none"
        raise ControlError(
            Refusal.SLOT_NOT_FOUND,
            f"model '{state.model}' has no slot '{slot[:128]}', it has {known}",
            model=state.model,
            slot=slot[:128],
        )
    return record
