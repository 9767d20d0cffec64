"""One shadow rule at work between two revisions: copies on their way, and what was found of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from turnout.core.comparators import by_output
from turnout.core.copies import Copy, Drop, Pair, PairKind
from turnout.core.ids import Revision
from turnout.core.pairs import PairDivergence
from turnout.core.shadow_rules import ShadowRule
from turnout.core.tensors import Signature
from turnout.runtime.comparing import Comparer, Comparison
from turnout.runtime.lane import Lane, LaneLimits
from turnout.runtime.ports import ClockNs, ComparisonSink
from turnout.runtime.slot import Slot

# Noise runs in the live slot: a request that comes then waits for a run of one row at most.
_NOISE_RUN_ROWS_MAX = 1


@dataclass(frozen=True, slots=True)
class Live:
    """Who answers clients."""

    slot: Slot
    revision: Revision
    signature: Signature


class Shadowing:
    """Used on the loop thread only."""

    def __init__(
        self,
        model: str,
        rule: ShadowRule,
        live: Live,
        slot: Slot,
        revision: Revision,
        clock_ns: ClockNs,
        draw: Callable[[int], int],
        comparer: Comparer,
        sink: ComparisonSink,
    ) -> None:
        self.model = model
        self.rule = rule
        self.live = live
        self.slot = slot
        self.revision = revision
        self.dropped: Counter[Drop] = Counter()
        self._clock_ns = clock_ns
        self._draw = draw
        self._comparer = comparer
        self._sink = sink
        self._comparators = by_output(rule.comparators)
        limits = LaneLimits(rule.queue_max, rule.bytes_max, rule.deadline_ns)
        gentle = replace(limits, run_rows_max=_NOISE_RUN_ROWS_MAX)
        self._lane = Lane(slot, revision, live.slot, limits, clock_ns, self._paired, self.drop)
        self._noise = Lane(live.slot, live.revision, live.slot, gentle, clock_ns, self._paired, self._drop_noise)

    def fits(self, rule: ShadowRule, live: Revision, shadow: Revision | None) -> bool:
        """Whether this is still what is to be compared."""
        return rule is self.rule and live == self.live.revision and shadow == self.revision

    def offer(self, copy: Copy, noise: bool) -> None:
        """A copy to the shadow slot, and with `noise` one to the live slot."""
        self._lane.offer(copy)
        if noise and copy.live.outputs is not None:
            self._noise.offer(replace(copy, kind=PairKind.NOISE))

    @property
    def queued(self) -> int:
        """Copies on their way, until they are compared."""
        return self._lane.copies

    def drop(self, reason: Drop, count: int = 1) -> None:
        self.dropped[reason] += count

    def close(self) -> None:
        self._lane.close()
        self._noise.close()

    def _drop_noise(self, reason: Drop, count: int) -> None:
        """Not counted: it says nothing of the shadow, and the noise that was compared is told."""

    def _paired(self, pair: Pair) -> None:
        batched = self.live.signature.rows_max > 0
        self._comparer.put(Comparison(pair, self._comparators, batched, self._compared))

    def _compared(self, pair: Pair, divergence: PairDivergence | None) -> None:
        lane = self._noise if pair.copy.kind is PairKind.NOISE else self._lane
        lane.forget(pair.copy)
