"""What the journal keeps of a model: its slots with what they hold, its route, and what a rollback goes back to.

Immutable; `core/control` makes the next state out of a command. Which requests are under way, and what is measured, is
the runtime's and not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from turnout.core.buckets import BASIS_POINTS, Span
from turnout.core.ids import Revision
from turnout.core.routing import Route, Target
from turnout.core.shadow_rules import ShadowRule
from turnout.core.slots import SlotState


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """A slot as an operator has been told of it. `since_ns` is the time of day; `allow_signature_change` is of the load
    that is under way, which a restart begins again. `forced`: what spoke against its variant when that was loaded all
    the same; it stays with what the slot holds."""

    name: str
    state: SlotState
    revision: Revision | None  # what it holds, or would hold where it FAILED; None: EMPTY
    etag: int
    since_ns: int
    message: str = ""
    allow_signature_change: bool = False
    forced: str = ""

    def __str__(self) -> str:
        if self.revision is None:
            return self.state.value
        why = f", forced: {self.forced}" if self.state is SlotState.LOADING else ", forced"
        return f"{self.state.value} {self.revision}" + (why if self.forced else "")


@dataclass(frozen=True, slots=True)
class Traffic:
    """One model's slots and route.

    Attributes:
        version: counts the states: what the journal compares before it writes the next.
        changes: counts changes of slots; a slot's etag is the count at its last change.
        previous: where a rollback goes: the target that had all traffic before the present split.
        bake_until_ns: time of day until which `previous` is kept READY; 0: no bake.
        rolled_back: the last change of traffic was a rollback: another one has nothing to do.
    """

    model: str
    version: int = 0
    route: Route | None = None
    slots: Mapping[str, SlotRecord] = field(default_factory=dict)
    changes: int = 0
    previous: Target | None = None
    bake_until_ns: int = 0
    rolled_back: bool = False

    @property
    def held(self) -> str:
        """The slot that is kept for a rollback; "": none."""
        return self.previous.slot if self.previous and self.bake_until_ns else ""

    def weight_bp(self, slot: str) -> int:
        return self.route.weights.get(slot, 0) if self.route else 0

    def pinned(self, slot: str) -> bool:
        """Whether pins of the route lead to a slot."""
        return self.route is not None and any(pin.slot == slot for pin in self.route.pins)

    def routed(self, slot: str) -> bool:
        """Whether requests are sent to a slot, by weight or by pins."""
        return self.weight_bp(slot) > 0 or self.pinned(slot)

    def shadow(self, slot: str) -> ShadowRule | None:
        """The rule by which a slot gets copies of requests."""
        return next((rule for rule in self.route.shadows if rule.slot == slot), None) if self.route else None

    def in_use(self, slot: str) -> bool:
        """Whether requests or copies of them are sent to a slot: then nothing takes away what it holds unasked."""
        return self.routed(slot) or self.shadow(slot) is not None

    def ready(self, slot: str) -> Target | None:
        """The slot as a target, if it is READY."""
        record = self.slots.get(slot)
        if record is None or record.state is not SlotState.READY or record.revision is None:
            return None
        return Target(slot, record.revision)

    def with_slot(
        self,
        name: str,
        state: SlotState,
        revision: Revision | None,
        now_ns: int,
        why: str = "",
        allow_signature_change: bool = False,
        forced: str | None = None,
    ) -> Traffic:
        """`forced` None: as it was, for what the slot holds already."""
        changes = self.changes + 1
        before = self.slots.get(name)
        if forced is None:
            forced = before.forced if before is not None and before.revision == revision else ""
        record = SlotRecord(name, state, revision, changes, now_ns, why, allow_signature_change, forced)
        return replace(self, slots={**self.slots, name: record}, changes=changes)

    def with_route(self, route: Route) -> Traffic:
        return replace(self, route=route)


def whole(target: Target) -> tuple[Span[Target], ...]:
    """All traffic to one target."""
    return (Span(0, BASIS_POINTS, target),)


def shadow_described(state: Traffic, slot: str) -> str:
    """A slot's shadow rule for the journal: `sample=1000 noise=200 digits/2`, or `idle`; "": it has none."""
    rule, target = state.shadow(slot), state.ready(slot)
    if rule is None:
        return ""
    return f"sample={rule.sample_bp} noise={rule.noise_bp} {target.revision if target else 'idle'}"


def described(route: Route | None) -> str:
    """A route's split for the journal: `blue=9000 green=1000`."""
    return " ".join(f"{slot}={weight}" for slot, weight in sorted(route.weights.items())) if route else ""
