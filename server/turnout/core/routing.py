"""Which slot answers a request: the immutable Route of a model, and the route that a server starts with.

A route is made of bucket intervals over 10000 basis points. A swap, a canary step and a rollback are all one
assignment of another Route; its `generation` is its etag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from turnout.core.errors import Reason, ServingError
from turnout.core.ids import Revision

BASIS_POINTS = 10_000
FIRST_SLOT = "blue"


@dataclass(frozen=True, slots=True)
class Target:
    """A slot as a route names it: together with the revision, because what a slot holds changes."""

    slot: str
    revision: Revision


@dataclass(frozen=True, slots=True)
class Interval:
    """The buckets from `start_bp` up to, not including, `end_bp` belong to `target`."""

    start_bp: int
    end_bp: int
    target: Target


@dataclass(frozen=True, slots=True)
class Route:
    """A model's traffic at one generation: who may be reached by a pin, and who gets the rest.

    `intervals` cover all 10000 buckets without a gap, or are empty: then only pins are answered.
    """

    model: str
    generation: int
    targets: tuple[Target, ...]
    intervals: tuple[Interval, ...]

    def __post_init__(self) -> None:
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

    def decide(self, version: int | None, slot: str | None, coin: int) -> Target:
        """The target that answers: by pins first, else by bucket `coin` in [0, 10000).

        A version that several slots hold is answered by the one with most weight, the first of equals.

        Raises:
            ServingError: NOT_FOUND when no target fits the pins, NOT_READY when nothing is routed.
        """
        if version is None and slot is None:
            return self._bucket(coin)
        fits = [t for t in self.targets if version in (None, t.revision.version) and slot in (None, t.slot)]
        if not fits:
            pins = [f"version {version}"] * (version is not None) + [f"slot '{slot}'"] * (slot is not None)
            raise ServingError(
                Reason.NOT_FOUND,
                f"model '{self.model}' has no ready {' in '.join(pins)}, ready are "
                + (", ".join(f"{t.revision} in slot '{t.slot}'" for t in self.targets) or "none"),
            )
        return max(fits, key=self.weight_bp)

    def weight_bp(self, target: Target) -> int:
        """The target's share of routed traffic, in basis points."""
        return sum(i.end_bp - i.start_bp for i in self.intervals if i.target == target)

    def _bucket(self, coin: int) -> Target:
        for interval in self.intervals:
            if coin < interval.end_bp:
                return interval.target
        raise ServingError(Reason.NOT_READY, f"model '{self.model}' has no ready slot with traffic")


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
