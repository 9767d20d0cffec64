"""A histogram of positive numbers in logarithmic bins: quantiles to 1 % of their value from a few hundred counters.

Two of them add up, bin by bin, so replicas and windows can be merged. Observing costs a logarithm and one increment.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log, sqrt

_GAMMA = 1.02  # a bin's upper edge over its lower one; its middle is within 1 % of all that fell into it
_BINS_PER_E = 1 / log(_GAMMA)
_BIN_MAX = round(log(2**62) * _BINS_PER_E)  # about 2170 bins; as nanoseconds, 146 years


class Sketch:
    """Counts by bin; bin n holds values from gamma^n to gamma^(n+1)."""

    __slots__ = ("bins",)

    def __init__(self, bins: Mapping[int, int] | None = None) -> None:
        self.bins: dict[int, int] = dict(bins or {})

    def observe(self, value: int) -> None:
        """Count an integer; what is below 1 counts as 1."""
        place = int(log(value) * _BINS_PER_E) if value > 1 else 0
        if place > _BIN_MAX:  # noqa: PLR1730 - a call of `min` costs as much as the rest
            place = _BIN_MAX
        bins = self.bins
        bins[place] = bins.get(place, 0) + 1

    @property
    def count(self) -> int:
        return sum(self.bins.values())

    def quantile(self, share: float) -> float | None:
        """The value that `share` (0 to 1) of all do not exceed, to 1 %; None without any."""
        rank = share * self.count
        seen = 0
        for value, count in self.counts():
            seen += count
            if seen >= rank:
                return value
        return None

    def counts(self) -> list[tuple[float, int]]:
        """The middle of each bin, in order, and how often values fell into it."""
        return [(float(_GAMMA**place * sqrt(_GAMMA)), count) for place, count in sorted(self.bins.items())]

    def merged(self, other: Sketch) -> Sketch:
        """Both together."""
        more, fewer = (self, other) if len(self.bins) >= len(other.bins) else (other, self)
        both = Sketch(more.bins)
        for place, count in fewer.bins.items():
            both.bins[place] = both.bins.get(place, 0) + count
        return both
