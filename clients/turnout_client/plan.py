"""From a model as it is and as it should be to the steps in between, in an order that is safe at each of them: load
what gets traffic, wait until it is READY, end shadow rules, move the traffic, set shadow rules, unload what is not
named. Pure: nothing is asked or done.

No step gives a slot more traffic than was declared, takes a revision away from under its traffic, or loads into a slot
that is kept for a rollback, unless an option says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from turnout_client.desired import (
    DesiredModel,
    PinSpec,
    RevisionSpec,
    Sticky,
    pins_of,
    sticky_of,
    weights_of,
)
from turnout_client.shadows import ShadowSpec, shadows_of
from turnout_client.written import percent
from turnout_wire.gen import slots_pb2 as pb


@dataclass(frozen=True, slots=True)
class Options:
    """What may be done beyond the harmless."""

    prune: bool = False  # unload slots that are not named
    accept_outage: bool = False  # replace a revision under its traffic, or the requests of pins
    end_bake: bool = False  # give up a rollback
    allow_signature_change: bool = False
    force: bool = False  # load variants whatever their reports say


@dataclass(frozen=True, slots=True)
class Load:
    slot: str
    revision: RevisionSpec
    replace: bool
    etag: str
    accept_outage: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Until what loads in the slot already is READY."""

    slot: str


@dataclass(frozen=True, slots=True)
class Route:
    """Another split, sticky key or pins; None: as it is."""

    weights: Mapping[str, int] | None
    sticky: Sticky | None
    pins: tuple[PinSpec, ...] | None


@dataclass(frozen=True, slots=True)
class ClearShadow:
    slot: str


@dataclass(frozen=True, slots=True)
class SetShadow:
    rule: ShadowSpec


@dataclass(frozen=True, slots=True)
class Unload:
    slot: str
    etag: str


Step: TypeAlias = Load | Wait | ClearShadow | Route | SetShadow | Unload


@dataclass(frozen=True, slots=True)
class Difference:
    """One line of the diff. `sign`: + comes, - goes, ~ changes."""

    sign: str
    object: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Without steps and problems, the model is as it should be. With problems, nothing may be done."""

    model: str
    steps: tuple[Step, ...] = ()
    differences: tuple[Difference, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def plan(current: pb.Model | None, desired: DesiredModel, options: Options = Options()) -> Plan:
    """What leads from `current` (None: the server does not know the model) to `desired`."""
    current = current or pb.Model(name=desired.name)
    slots = {slot.name: slot for slot in current.slots}
    loads = [_load(current, slots.get(name), name, want, options) for name, want in desired.slots.items()]
    route = _route(current, desired)
    steps: list[Step] = [load.step for load in loads if load.step is not None]
    rules, wanted = shadows_of(current), _shadows(current, desired)
    steps += [ClearShadow(slot) for slot in rules if slot not in wanted]
    steps += [route] if route is not None else []
    steps += [SetShadow(rule) for slot, rule in wanted.items() if rules.get(slot) != rule]
    problems = [load.problem for load in loads if load.problem] + _unready(slots, desired)
    problems += _unshadowable(current, route, desired.shadows or ())
    notes: list[str] = []
    differences = [load.difference for load in loads if load.difference is not None]
    differences += _route_differences(current, route)
    differences += _shadow_differences(rules, wanted)
    for name in _unnamed(current, desired):
        unload, note = _unload(current, slots[name], desired, options)
        if unload is not None:
            steps.append(unload)
            differences.append(Difference("-", f"slots/{name}", _holds(slots[name]), "EMPTY"))
        notes += [note] if note else []
    return Plan(desired.name, tuple(steps), tuple(differences), tuple(problems), tuple(notes))


def same_route(a: pb.Model, b: pb.Model) -> bool:
    """Nobody moved traffic between two readings. A generation alone may count on: a slot was filled anew."""
    return (weights_of(a), sticky_of(a), pins_of(a)) == (weights_of(b), sticky_of(b), pins_of(b))


@dataclass(frozen=True, slots=True)
class _Filling:
    step: Step | None = None
    difference: Difference | None = None
    problem: str = ""


def _load(current: pb.Model, slot: pb.SlotStatus | None, name: str, want: RevisionSpec, options: Options) -> _Filling:
    text = want.text(current.name)
    if slot is None or slot.state in (pb.SLOT_STATE_EMPTY, pb.SLOT_STATE_UNSPECIFIED):
        etag = slot.etag if slot is not None else "0"
        return _Filling(Load(name, want, False, etag), Difference("+", f"slots/{name}", "EMPTY", text))
    same = _is(slot, want)
    if same and slot.state == pb.SLOT_STATE_READY:
        return _Filling()
    difference = Difference("~", f"slots/{name}", _holds(slot), text)
    if same and slot.state in (pb.SLOT_STATE_LOADING, pb.SLOT_STATE_WARMING):
        return _Filling(Wait(name), difference)
    if slot.state == pb.SLOT_STATE_FAILED:
        return _Filling(Load(name, want, False, slot.etag), difference)
    weight = weights_of(current).get(name, 0)
    pinned = any(pin.slot == name for pin in pins_of(current))
    if problem := _against_replacing(slot, weight, pinned, text, options):
        return _Filling(None, difference, problem)
    return _Filling(Load(name, want, True, slot.etag, accept_outage=weight > 0 or pinned), difference)


def _against_replacing(slot: pb.SlotStatus, weight: int, pinned: bool, text: str, options: Options) -> str:
    name = slot.name
    if slot.state != pb.SLOT_STATE_READY:
        doing = "it is being emptied" if slot.state == pb.SLOT_STATE_DRAINING else "another load is under way"
        return f"slot {name} is {state_name(slot)} {held(slot)}: {doing}; apply again when it has ended"
    if (weight or pinned) and not options.accept_outage:
        has = f"has {percent(weight)} of the traffic" if weight else "has the requests of pins"
        return (
            f"slot {name} {has} and holds {held(slot)}: nobody would answer while "
            f"{text} loads; name another slot for {text}, or give --accept-outage"
        )
    if slot.held and not options.end_bake:
        return (
            f"slot {name} is kept for a rollback until the bake ends: wait, name another slot for {text}, "
            "or give --end-bake"
        )
    return ""


def _route(current: pb.Model, desired: DesiredModel) -> Route | None:
    weights = desired.weights if desired.weights != weights_of(current) else None
    sticky = desired.sticky
    if sticky is not None and _resalted(sticky, current.name) == sticky_of(current):
        sticky = None
    pins = desired.pins if desired.pins is not None and desired.pins != pins_of(current) else None
    return None if weights is None and sticky is None and pins is None else Route(weights, sticky, pins)


def _resalted(sticky: Sticky, model: str) -> Sticky:
    salt = "" if sticky.salt == model else sticky.salt
    return Sticky(sticky.metadata_key, sticky.request_parameter, salt)


def _unready(slots: Mapping[str, pb.SlotStatus], desired: DesiredModel) -> list[str]:
    """Slots that should get traffic or pins, and will not be able to."""
    found = []
    for name in desired.weights or {}:
        slot = slots.get(name)
        if name not in desired.slots and (slot is None or slot.state != pb.SLOT_STATE_READY):
            is_now = "is not there" if slot is None else f"is {state_name(slot)}"
            found.append(f"slot {name} should get traffic and {is_now}: give its revision under slots")
    for pin in desired.pins or ():
        if pin.slot not in desired.slots and pin.slot not in slots:
            found.append(f"a pin leads to slot {pin.slot}, which is not there: give its revision under slots")
    for rule in desired.shadows or ():
        slot = slots.get(rule.slot)
        if rule.slot not in desired.slots and (slot is None or slot.state != pb.SLOT_STATE_READY):
            is_now = "is not there" if slot is None else f"is {state_name(slot)}"
            found.append(f"slot {rule.slot} should get copies and {is_now}: give its revision under slots")
    return found


def _shadows(current: pb.Model, desired: DesiredModel) -> dict[str, ShadowSpec]:
    """The rules as they should be, by slot."""
    rules = shadows_of(current)
    if desired.shadows is None:
        return rules
    return {rule.slot: rule.filled(rules.get(rule.slot)) for rule in desired.shadows}


def _unshadowable(current: pb.Model, route: Route | None, rules: Sequence[ShadowSpec]) -> list[str]:
    """The stable slot cannot be a shadow; of several with as much traffic, the server says which one is stable."""
    stable = {current.stable_slot}
    if route is not None and route.weights is not None:
        most = max(route.weights.values())
        stable = {slot for slot, weight in route.weights.items() if weight == most}
    return [
        f"slot {rule.slot} should get copies and the most traffic: answers are compared with those of the stable slot"
        for rule in rules
        if rule.slot in stable
    ]


def _shadow_differences(now: Mapping[str, ShadowSpec], wanted: Mapping[str, ShadowSpec]) -> list[Difference]:
    found = []
    for slot in dict.fromkeys((*now, *wanted)):
        before, after = now.get(slot), wanted.get(slot)
        if before != after:
            sign = "+" if before is None else "-" if after is None else "~"
            found.append(Difference(sign, f"shadows/{slot}", str(before or "none"), str(after or "none")))
    return found


def _route_differences(current: pb.Model, route: Route | None) -> list[Difference]:
    if route is None:
        return []
    found = []
    if route.weights is not None:
        found.append(Difference("~", "weights", split(weights_of(current)), split(route.weights)))
    if route.sticky is not None:
        found.append(Difference("~", "sticky_key", sticky_text(sticky_of(current)), sticky_text(route.sticky)))
    if route.pins is not None:
        found.append(Difference("~", "pins", pins_text(pins_of(current)), pins_text(route.pins)))
    return found


def _unnamed(current: pb.Model, desired: DesiredModel) -> list[str]:
    return [slot.name for slot in current.slots if slot.name not in desired.slots]


def _unload(
    current: pb.Model, slot: pb.SlotStatus, desired: DesiredModel, options: Options
) -> tuple[Unload | None, str]:
    name = slot.name
    if slot.state in (pb.SLOT_STATE_EMPTY, pb.SLOT_STATE_DRAINING):
        return None, ""
    if not options.prune:
        return None, f"slot {name} ({_holds(slot)}) is not named and stays; --prune unloads it"
    weights = weights_of(current) if desired.weights is None else desired.weights
    pins = pins_of(current) if desired.pins is None else desired.pins
    if weights.get(name, 0) or any(pin.slot == name for pin in pins) or name in _shadows(current, desired):
        return None, f"slot {name} ({_holds(slot)}) is not named and stays: it has traffic, a pin or a shadow rule"
    if slot.held and not options.end_bake:
        return None, f"slot {name} ({_holds(slot)}) stays: it is kept for a rollback; --end-bake gives that up"
    return Unload(name, slot.etag), ""


def _is(slot: pb.SlotStatus, want: RevisionSpec) -> bool:
    held = (slot.revision.version, slot.revision.variant)
    return held == (want.version, want.variant) and want.digest in ("", slot.digest)


def held(slot: pb.SlotStatus) -> str:
    """The revision in a slot, as it is written."""
    return written(slot.revision) if slot.revision.version else ""


def written(revision: pb.Revision) -> str:
    return RevisionSpec(revision.version, revision.variant).text(revision.model)


def state_name(slot: pb.SlotStatus) -> str:
    return pb.SlotState.Name(slot.state).removeprefix("SLOT_STATE_")


def _holds(slot: pb.SlotStatus) -> str:
    return held(slot) if slot.state == pb.SLOT_STATE_READY else f"{state_name(slot)} {held(slot)}".strip()


def split(weights: Mapping[str, int]) -> str:
    return ", ".join(f"{slot} {percent(weight)}" for slot, weight in sorted(weights.items())) or "none"


def sticky_text(sticky: Sticky) -> str:
    source = "by default"
    if sticky.metadata_key:
        source = f"metadata {sticky.metadata_key}"
    elif sticky.request_parameter:
        source = f"parameter {sticky.request_parameter}"
    return source + (f", salt {sticky.salt}" if sticky.salt else "")


def pins_text(pins: tuple[PinSpec, ...]) -> str:
    return ", ".join(f"{pin.metadata_key}={pin.value}:{pin.slot}" for pin in pins) or "none"
