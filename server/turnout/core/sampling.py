"""Which requests are copied to a shadow, by a hash of the inference id, and which compared pairs are told in full, so
that those that are told still say how often each kind comes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from heapq import heappush, heapreplace, nsmallest
from typing import Generic, TypeVar

from turnout.core.buckets import bucket_of, salted
from turnout.core.pairs import PairDivergence, Result

SECOND_NS = 10**9
STRATA_MAX = 256  # kinds of mismatches that are told apart in a window; beyond them they share one
COIN_BITS = 64
_HALF = COIN_BITS // 2
_EQUAL = PairDivergence(Result.MATCH).severity

Record = TypeVar("Record")


def shadow_salt(salt: str) -> bytes:
    """What `sampled` takes. Not the salt of sticky keys, even where both have the same text: sampled requests are to be
    of all slots."""
    return salted(salt, "shadow")


def noise_salt(salt: str) -> bytes:
    """What `is_noise` takes: which requests are replayed has nothing to do with which are sampled."""
    return salted(salt, "noise")


def sampled(salt: bytes, inference_id: str, sample_bp: int) -> bool:
    """Whether a request is copied: the same in every process."""
    return bucket_of(salt, inference_id) < sample_bp


def is_noise(salt: bytes, inference_id: str, noise_bp: int) -> bool:
    """Whether a request that is sampled also goes to its live revision once more."""
    return bucket_of(salt, inference_id) < noise_bp


class Rule(Enum):
    """Why a pair is told. The values are `turnout.sampling.rule`."""

    MISMATCH = "mismatch"
    MATCH_SAMPLE = "match_sample"
    TOP_DISTANCE = "top_distance"


@dataclass(frozen=True, slots=True)
class Export(Generic[Record]):
    """A pair to be told, and with which probability one like it is."""

    record: Record
    rule: Rule
    probability: float


@dataclass(slots=True)
class _Held(Generic[Record]):
    """A pair that waits for the end of its window. The two halves of its coin are independent draws."""

    priority: int
    ordinal: int  # tells equal priorities apart
    record: Record
    pair: PairDivergence
    coin: int
    bare: bool = False

    def __lt__(self, other: _Held[Record]) -> bool:
        """The heap of a stratum has its highest priority first."""
        return (self.priority, self.ordinal) > (other.priority, other.ordinal)


class ExportSampler(Generic[Record]):
    """Chooses the pairs of one model that are told. Weights of 1 / probability make them stand for all: over the coins,
    the sum of weights has the number of pairs of each kind as its mean, exactly.

    - The largest distance of a window, of each target, is told for certain, and takes part in no other draw.
    - A match is told with a chance of 1 in `match_in`, at once.
    - Whatever does not match waits in the stratum of its (target, output, result), a reservoir of `stratum_max`, in
      which each of the stratum is equally likely. At the end of the window its n of N are told, with n / N.
    - When the model's token bucket has fewer tokens than mismatches were kept, a subset of them is drawn, all equally
      likely, and the probabilities shrink by that share.

    So a mismatch is told when its window ends, and not at once: a bucket that lets the first ones through would leave
    those that come late with no chance at all, and no weight could make up for them. Memory is bounded by STRATA_MAX
    reservoirs and one pair of each target.

    Args:
        bare: makes of a record what is held and told: most are neither.
    """

    def __init__(
        self,
        window_ns: int = 10 * SECOND_NS,
        rate_per_s: int = 10,
        stratum_max: int = 5,
        match_in: int = 1000,
        bare: Callable[[Record], Record] = lambda record: record,
    ) -> None:
        self._bare = bare
        self.window_ns = window_ns
        self._rate_per_s = rate_per_s
        self._stratum_max = stratum_max
        self._match_in = match_in
        # A window's worth: one that saw no mismatch leaves no more for the next.
        self._tokens_max = max(rate_per_s * window_ns / SECOND_NS, 1.0)
        self._tokens = self._tokens_max
        self._start_ns: int | None = None
        self._refilled_ns: int | None = None
        self._ordinal = 0
        self._tops: dict[Hashable, _Held[Record]] = {}
        self._strata: dict[Hashable, list[_Held[Record]]] = {}
        self._seen: dict[Hashable, int] = {}

    def offer(
        self, target: Hashable, pair: PairDivergence, record: Record, now_ns: int, coin: int
    ) -> list[Export[Record]]:
        """Take a pair into the draw, and return what is to be told now.

        Args:
            target: what the pair belongs to, such as the shadow's slot and digest, and the kind of the comparison.
            coin: uniform in [0, 2^64), one for each pair.
        """
        told = self.poll(now_ns)
        if self._start_ns is None:
            self._start_ns = now_ns
        self._ordinal += 1
        held = _Held(coin >> _HALF, self._ordinal, record, pair, coin & ((1 << _HALF) - 1))
        top = self._tops.get(target)
        if top is None or pair.severity > top.pair.severity:
            self._tops[target] = self._stripped(held)
            if top is None:
                return told
            held = top
        return told + self._draw(target, held)

    def poll(self, now_ns: int) -> list[Export[Record]]:
        """What is to be told because its window is over."""
        if self._start_ns is None or now_ns - self._start_ns < self.window_ns:
            return []
        return self.close(now_ns)

    def close(self, now_ns: int) -> list[Export[Record]]:
        """End the window now. The next one begins with its first pair."""
        self._refill(now_ns)
        self._start_ns = None
        told: list[Export[Record]] = []
        for target, top in self._tops.items():
            if top.pair.severity > _EQUAL:
                told.append(Export(top.record, Rule.TOP_DISTANCE, 1.0))
            else:
                told += self._draw(target, top)
        kept = [(held, len(stratum) / self._seen[key]) for key, stratum in self._strata.items() for held in stratum]
        share = 1.0
        if len(kept) > (allowed := max(int(self._tokens), 1)):
            # By another part of the coin than the one that the reservoirs were drawn with.
            share = allowed / len(kept)
            kept = nsmallest(allowed, kept, key=lambda each: (each[0].coin, each[0].ordinal))
        self._tokens = max(self._tokens - len(kept), 0.0)
        told += [Export(held.record, Rule.MISMATCH, probability * share) for held, probability in kept]
        self._tops, self._strata, self._seen = {}, {}, {}
        return told

    def _refill(self, now_ns: int) -> None:
        since_ns = now_ns if self._refilled_ns is None else self._refilled_ns
        self._refilled_ns = now_ns
        self._tokens = min(self._tokens + (now_ns - since_ns) * self._rate_per_s / SECOND_NS, self._tokens_max)

    def _draw(self, target: Hashable, held: _Held[Record]) -> list[Export[Record]]:
        pair = held.pair
        if pair.result is Result.MATCH:
            drawn = held.priority * self._match_in < 1 << _HALF
            return [Export(self._stripped(held).record, Rule.MATCH_SAMPLE, 1 / self._match_in)] if drawn else []
        key: Hashable = (target, pair.decider.name if pair.decider else "", pair.result)
        if key not in self._strata and len(self._strata) >= STRATA_MAX - 1:
            key = None
        stratum = self._strata.setdefault(key, [])
        self._seen[key] = self._seen.get(key, 0) + 1
        if len(stratum) < self._stratum_max:
            heappush(stratum, self._stripped(held))
        elif stratum[0] < held:
            heapreplace(stratum, self._stripped(held))
        return []

    def _stripped(self, held: _Held[Record]) -> _Held[Record]:
        if not held.bare:
            held.record, held.pair, held.bare = self._bare(held.record), held.pair.without_rows(), True
        return held
