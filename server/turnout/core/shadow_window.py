"""What the pairs of one shadow come to, over the last seconds and since its rule began, and what that proves of its
agreement."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, replace

from turnout.core.evidence import agreement_interval, excess_verdict, verdict
from turnout.core.gates import Verdict
from turnout.core.pairs import PairDivergence
from turnout.core.tally import Agreement, OutputTallies, Tally

SLICE_NS = 10**9
SLICES = 10  # what is recent
RECENT_NS = SLICES * SLICE_NS
DIGESTS_MAX = 65_536  # inputs of which it is known that they came before


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

    The unit of evidence is the input: neither rows of one request nor repetitions of one input are independent. So the
    interval and the verdict are of the first pair of each input; all else is of all pairs.
    """

    def __init__(self, now_ns: int, test: AgreementTest) -> None:
        self._start_ns = now_ns
        self._test = test
        self._slices: deque[tuple[int, Tally]] = deque()
        self._total = Tally()
        self._outputs = OutputTallies()
        self._distinct = _Distinct()
        self._distinct_noise = _Distinct()

    def observe(self, inference_id: str, digest: str, pair: PairDivergence, now_ns: int) -> None:
        """Count a pair of two revisions; `digest` is of the request's inputs."""
        self._distinct.add(digest, pair)
        self._outputs.add(pair)
        for tally in self._tallies(now_ns):
            tally.add(inference_id, pair)

    def observe_noise(self, digest: str, pair: PairDivergence, now_ns: int) -> None:
        """Count a pair of the live revision with itself; `digest` as of `observe`."""
        self._distinct_noise.add(digest, pair)
        for tally in self._tallies(now_ns):
            tally.add_noise(pair)

    def observe_latency(self, live_ns: int, shadow_ns: int, now_ns: int) -> None:
        """Count how much longer the shadow took."""
        for tally in self._tallies(now_ns):
            tally.add_latency(live_ns, shadow_ns)

    def summary(self, now_ns: int) -> ShadowSummary:
        self._retire(now_ns)
        recent, pairs = Tally(), self._distinct
        for _, tally in self._slices:
            recent.merge(tally)
        low, high = agreement_interval(pairs.bad, pairs.count, self._test.alpha)
        total = replace(self._outputs.told(self._total.told()), distinct_count=pairs.count, low=low, high=high)
        return ShadowSummary(self._start_ns, now_ns, recent.told(), total, self._judged())

    def _judged(self) -> Verdict:
        test, pairs, noise = self._test, self._distinct, self._distinct_noise
        limits = test.bad_max, test.alpha, test.samples_min
        if test.noise:
            return excess_verdict(pairs.bad, pairs.count, noise.bad, noise.count, *limits)
        return verdict(pairs.bad, pairs.count, *limits)

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


class _Distinct:
    """The first pair of each input. An input that comes again after DIGESTS_MAX others counts as another one."""

    __slots__ = ("_seen", "bad", "count")

    def __init__(self) -> None:
        self.count = 0
        self.bad = 0
        self._seen: OrderedDict[str, None] = OrderedDict()  # the one that came last is last

    def add(self, digest: str, pair: PairDivergence) -> None:
        if not pair.result.comparable:
            return
        if digest in self._seen:
            self._seen.move_to_end(digest)
            return
        self._seen[digest] = None
        if len(self._seen) > DIGESTS_MAX:
            self._seen.popitem(last=False)
        self.count += 1
        self.bad += pair.result.bad
