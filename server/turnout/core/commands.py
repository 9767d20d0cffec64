"""What may be asked of a model's slots and traffic, what comes of it, and what is to be done then: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from turnout.core.ids import Revision
from turnout.core.routing import Pin, Route, StickyKey
from turnout.core.shadow_rules import ShadowRule
from turnout.core.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Load:
    """Fill a slot with a revision. `replace`: instead of what it holds; `accept_outage`: although it has traffic;
    `end_bake`: although it is kept for a rollback; `allow_signature_change`: whatever its clients know; `forced`: what
    speaks against a variant that is loaded all the same."""

    slot: str
    revision: Revision
    replace: bool = False
    accept_outage: bool = False
    end_bake: bool = False
    allow_signature_change: bool = False
    forced: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load has come to its end: the slot can serve."""

    slot: str


@dataclass(frozen=True, slots=True)
class Lost:
    """A slot cannot serve: its load failed, or what it held is gone."""

    slot: str
    why: str


@dataclass(frozen=True, slots=True)
class Unload:
    slot: str
    end_bake: bool = False


@dataclass(frozen=True, slots=True)
class Unloaded:
    """The last request has left a slot, and its revision is freed."""

    slot: str


@dataclass(frozen=True, slots=True)
class Swap:
    """All traffic to a slot; the old one is kept for `bake_ns`."""

    slot: str
    bake_ns: int


@dataclass(frozen=True, slots=True)
class Rollback:
    """All traffic back: to `slot`, or where it was; never waits for anything."""

    slot: str = ""


@dataclass(frozen=True, slots=True)
class SetWeights:
    """Another split, sticky key or pins; None: as it is."""

    weights: Mapping[str, int] | None = None
    sticky: StickyKey | None = None
    pins: tuple[Pin, ...] | None = None


@dataclass(frozen=True, slots=True)
class SetShadow:
    """Copies of requests to a slot, by this rule; it replaces the one that the slot has."""

    rule: ShadowRule


@dataclass(frozen=True, slots=True)
class ClearShadow:
    slot: str


@dataclass(frozen=True, slots=True)
class EndBake:
    """The time of the bake may be over."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The whole model away: no traffic, every slot emptied."""


Command: TypeAlias = (
    Load
    | Loaded
    | Lost
    | Unload
    | Unloaded
    | Swap
    | Rollback
    | SetWeights
    | SetShadow
    | ClearShadow
    | EndBake
    | Withdraw
)


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the journal: an object (`route`, `slots/green`, `shadows/green`) was one thing and is another now."""

    object: str
    from_state: str
    to_state: str
    cause: str
    generation: int


@dataclass(frozen=True, slots=True)
class Assign:
    """Replace the route."""

    route: Route


@dataclass(frozen=True, slots=True)
class Fill:
    """Load a revision into a slot that is empty by now."""

    slot: str
    revision: Revision


@dataclass(frozen=True, slots=True)
class Empty:
    """Call off a slot's load, or drain it and free what it holds."""

    slot: str


Effect: TypeAlias = Assign | Fill | Empty


@dataclass(frozen=True, slots=True)
class Step:
    """What a command comes to. Without changes there is nothing to journal and nothing to do."""

    state: Traffic
    changes: tuple[Change, ...] = ()
    effects: tuple[Effect, ...] = ()
