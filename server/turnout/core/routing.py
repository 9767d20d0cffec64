"""Which slot answers a request: the immutable Route of a model, and the route that a server starts with.

A route is made of bucket intervals over 10000 basis points. A swap, a canary step and a rollback are all one
assignment of another Route; its `generation` is its etag.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from turnout.core.assignment import Choice
from turnout.core.buckets import BASIS_POINTS, Span, bucket_of, salted, weights_of
from turnout.core.errors import Reason, ServingError
from turnout.core.ids import Revision
from turnout.core.shadow_rules import ShadowRule

FIRST_SLOT = "blue"
STICKY_METADATA = "turnout-sticky-key"
STICKY_PARAMETER = "sticky_key"
STABLE = "@stable"
CANDIDATE = "@candidate"


@dataclass(frozen=True, slots=True)
class Target:
    """A slot as a route names it: together with the revision, because what a slot holds changes."""

    slot: str
    revision: Revision


Interval = Span[Target]


@dataclass(frozen=True, slots=True)
class StickyKey:
    """Where a request's sticky key is read from, and the salt that spreads keys over the buckets.

    Attributes:
        metadata: the name in request metadata; "": not read there.
        parameter: the name among the request's parameters, where metadata has none; "": not read there.
    """

    metadata: str = STICKY_METADATA
    parameter: str = STICKY_PARAMETER
    salt: str = ""  # "": the model's name, which all servers of it share


@dataclass(frozen=True, slots=True)
class Pin:
    """Requests whose metadata `metadata` is `value` go to `slot`, whatever the weights."""

    metadata: str
    value: str
    slot: str


@dataclass(frozen=True, slots=True)
class Route:
    """A model's traffic at one generation: who may be reached by a pin, who gets the rest, and who gets copies.

    `intervals` cover all 10000 buckets without a gap, or are empty: then only pins are answered.
    """

    model: str
    generation: int
    targets: tuple[Target, ...]
    intervals: tuple[Interval, ...]
    sticky: StickyKey = StickyKey()
    pins: tuple[Pin, ...] = ()
    shadows: tuple[ShadowRule, ...] = ()  # at most one of a slot; one whose slot is no target is idle
    # Derived once, for the hot path.
    weights: Mapping[str, int] = field(init=False, repr=False, compare=False)  # of the slots that have any, by name
    shadow_targets: tuple[tuple[ShadowRule, Target], ...] = field(init=False, repr=False, compare=False)
    choice: Choice = field(init=False, repr=False, compare=False)  # of requests without a pin
    _ends: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _salt: bytes = field(init=False, repr=False, compare=False)
    _stable_slot: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        weights = {target.slot: weight for target, weight in weights_of(self.intervals).items()}
        object.__setattr__(self, "weights", weights)
        rules = {rule.slot: rule for rule in self.shadows}
        pairs = tuple((rules[target.slot], target) for target in self.targets if target.slot in rules)
        object.__setattr__(self, "shadow_targets", pairs)
        object.__setattr__(self, "choice", Choice.ONLY if len(weights) == 1 else Choice.SPLIT)
        object.__setattr__(self, "_stable_slot", self.stable.slot if self.stable is not None else "")
        object.__setattr__(self, "_ends", tuple(interval.end_bp for interval in self.intervals))
        object.__setattr__(self, "_salt", salted(self.sticky.salt or self.model))
        if not self.intervals:
            return
        gaps = any(left.end_bp != right.start_bp for left, right in pairwise(self.intervals))
        empty = any(interval.start_bp >= interval.end_bp for interval in self.intervals)
        if gaps or empty or self.intervals[0].start_bp != 0 or self.intervals[-1].end_bp != BASIS_POINTS:
            raise ValueError(
                f"route of '{self.model}': intervals must cover 0 to {BASIS_POINTS} without gap or overlap"
            )
        if strangers := {i.target for i in self.intervals} - set(self.targets):
            raise ValueError(f"route of '{self.model}': intervals name slots that are no targets: {strangers}")

    def decide(
        self, version: int | None, slot: str | None, coin: int, key: str | None = None, variant: str | None = None
    ) -> Target:
        """The target that answers: by pins first, else by the sticky key's bucket, else by bucket `coin` in [0, 10000).

        All pins must fit. A version or variant that several slots hold is answered by the one with most weight; of
        equals by the version's own file, whatever was loaded last, else by the first. A slot pin may name a role:
        `@stable` or `@candidate`; the variant `none` is the version's own file.

        Raises:
            ServingError: NOT_FOUND when no target fits the pins, NOT_READY when nothing is routed.
        """
        if version is None and slot is None and variant is None:
            return self._bucket(coin if key is None else bucket_of(self._salt, key))
        name = slot
        if slot is not None and slot.startswith("@"):
            name = self._role(slot)
        fits = [t for t in self.targets if name in (None, t.slot) and t.revision.fits(version, variant)]
        if not fits:
            pins = [f"version {version}"] * (version is not None)
            pins += [f"variant '{variant}'"] * (variant is not None) + [f"slot '{slot}'"] * (slot is not None)
            raise ServingError(
                Reason.NOT_FOUND,
                f"model '{self.model}' has no ready {' in '.join(pins)}, ready are "
                + (", ".join(f"{t.revision} in slot '{t.slot}'" for t in self.targets) or "none"),
            )
        return max(fits, key=lambda target: (self.weight_bp(target), not target.revision.variant))

    def copies(self, inference_id: str, slot: str) -> list[tuple[ShadowRule, Target]]:
        """Who gets a copy of a request that `slot` has answered, by which rule: nobody, unless it is the stable one,
        whose answers are what others are held against."""
        if slot != self._stable_slot:
            return []
        return [(rule, target) for rule, target in self.shadow_targets if rule.takes(inference_id)]

    def weight_bp(self, target: Target) -> int:
        """The target's share of routed traffic, in basis points."""
        return sum(i.end_bp - i.start_bp for i in self.intervals if i.target == target)

    @property
    def stable(self) -> Target | None:
        """The target with the most traffic, of equals the first among the targets; None: nothing is routed."""
        return max(self.targets, key=self.weight_bp) if self.intervals else None

    @property
    def candidate(self) -> Target | None:
        """Until rollouts name one: the target with the most traffic after the stable one; where none has any, the only
        other target. None: there is none, or it cannot be told."""
        others = [target for target in self.targets if target != self.stable]
        if routed := [target for target in others if self.weight_bp(target)]:
            return max(routed, key=self.weight_bp)
        return others[0] if self.intervals and len(others) == 1 else None

    def _role(self, role: str) -> str:
        """The name of the slot that has a role; one that no slot has where there is none."""
        if role not in (STABLE, CANDIDATE):
            raise ServingError(
                Reason.NOT_FOUND, f"model '{self.model}' has no role '{role[:64]}', roles are {STABLE} and {CANDIDATE}"
            )
        target = self.stable if role == STABLE else self.candidate
        return target.slot if target else role

    def _bucket(self, bucket: int) -> Target:
        if not self.intervals:
            raise ServingError(Reason.NOT_READY, f"model '{self.model}' has no ready slot with traffic")
        return self.intervals[bisect_right(self._ends, bucket)].target


def starting_slots(versions: Sequence[int]) -> dict[int, str]:
    """The slot of each allowed version when a server starts without a journal: the newest in `blue`, which gets all
    the traffic; the others in `v<version>`, reachable by a version pin."""
    newest = max(versions, default=None)
    return {version: FIRST_SLOT if version == newest else f"v{version}" for version in sorted(versions, reverse=True)}


def starting_route(model: str, ready: Sequence[Target]) -> Route:
    """The first route: all traffic to `blue` when it is ready; otherwise nothing is routed, never an older version."""
    first = next((target for target in ready if target.slot == FIRST_SLOT), None)
    intervals = (Interval(0, BASIS_POINTS, first),) if first else ()
    return Route(model, 1, tuple(ready), intervals)
