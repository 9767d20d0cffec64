"""What the pairs of one shadow come to, over the last seconds and since its rule began, and what that proves of its
agreement."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from turnout.core.evidence import excess_verdict, verdict
from turnout.core.gates import Verdict
from turnout.core.pairs import PairDivergence
from turnout.core.tally import Agreement, OutputTallies, Tally

SLICE_NS = 10**9
SLICES = 10  # what is recent
RECENT_NS = SLICES * SLICE_NS


@dataclass(frozen=True, slots=True)
class AgreementTest:
    """What a shadow is held to.

    Attributes:
        bad_max: the share of pairs that may disagree; with noise replays, beyond the noise.
        alpha: the chance that an interval ever misses the truth.
        noise: the rule has noise replays, and the verdict is of what goes beyond them.
    """

    bad_max: float = 0.05
    alpha: float = 0.01
    samples_min: int = 100
    noise: bool = False


@dataclass(frozen=True, slots=True)
class ShadowSummary:
    """A shadow at one moment: the last ten seconds, all since `start_ns`, and the verdict about all."""

    start_ns: int
    now_ns: int
    recent: Agreement
    total: Agreement
    verdict: Verdict


class Window:
    """The counters of one shadow target. When its revision or the live one is replaced, a new one begins.

    The unit of evidence is the pair: rows of one request are not independent. Nor are requests that repeat an input;
    who offers pairs may leave repetitions out by a digest of the inputs.
    """

    def __init__(self, now_ns: int, test: AgreementTest) -> None:
        self._start_ns = now_ns
        self._test = test
        self._slices: deque[tuple[int, Tally]] = deque()
        self._total = Tally()
        self._outputs = OutputTallies()

    def observe(self, inference_id: str, pair: PairDivergence, now_ns: int) -> None:
        """Count a pair of two revisions."""
        self._outputs.add(pair)
        for tally in self._tallies(now_ns):
            tally.add(inference_id, pair)

    def observe_noise(self, pair: PairDivergence, now_ns: int) -> None:
        """Count a pair of the live revision with itself."""
        for tally in self._tallies(now_ns):
            tally.add_noise(pair)

    def observe_latency(self, live_ns: int, shadow_ns: int, now_ns: int) -> None:
        """Count how much longer the shadow took."""
        for tally in self._tallies(now_ns):
            tally.add_latency(live_ns, shadow_ns)

    def summary(self, now_ns: int) -> ShadowSummary:
        self._retire(now_ns)
        recent, alpha = Tally(), self._test.alpha
        for _, tally in self._slices:
            recent.merge(tally)
        total = self._outputs.told(self._total.told(alpha))
        return ShadowSummary(self._start_ns, now_ns, recent.told(alpha), total, self._judged())

    def _judged(self) -> Verdict:
        test, total = self._test, self._total
        limits = test.bad_max, test.alpha, test.samples_min
        if test.noise:
            return excess_verdict(total.bad, total.pairs, total.noise_bad, total.noise, *limits)
        return verdict(total.bad, total.pairs, *limits)

    def _tallies(self, now_ns: int) -> tuple[Tally, Tally]:
        """Of the present slice, and of all."""
        number = now_ns // SLICE_NS
        if not self._slices or self._slices[-1][0] < number:
            self._retire(now_ns)
            self._slices.append((number, Tally()))
        return self._slices[-1][1], self._total

    def _retire(self, now_ns: int) -> None:
        while self._slices and self._slices[0][0] <= now_ns // SLICE_NS - SLICES:
            self._slices.popleft()
