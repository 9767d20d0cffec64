"""Sampling: which requests are copied, and that the pairs that are told stand for all of them."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from turnout.core.buckets import bucket_of, salted
from turnout.core.pairs import OutputDivergence, PairDivergence, Result
from turnout.core.sampling import (
    COIN_BITS,
    SECOND_NS,
    STRATA_MAX,
    Export,
    ExportSampler,
    Rule,
    is_noise,
    noise_salt,
    sampled,
    shadow_salt,
)

IDS = [f"request-{number}" for number in range(20_000)]
TOP = 1 << COIN_BITS


def pair(result: Result, distance: float = 0.0, output: str = "y") -> PairDivergence:
    decider = OutputDivergence(output, result, distance=distance)
    return PairDivergence(result, (decider,), decider)


MATCH, MISMATCH = pair(Result.MATCH), pair(Result.MISMATCH, 1.0)
FAILED = PairDivergence(Result.SHADOW_ERROR)


def test_shares_of_requests() -> None:
    salt = shadow_salt("digits")
    assert not any(sampled(salt, each, 0) for each in IDS)
    assert all(sampled(salt, each, 10_000) for each in IDS)
    assert sum(sampled(salt, each, 1_000) for each in IDS) == pytest.approx(2_000, abs=200)
    assert sum(is_noise(noise_salt("digits"), each, 1_000) for each in IDS) == pytest.approx(2_000, abs=200)
    assert sampled(salt, IDS[0], 10_000) == sampled(shadow_salt("digits"), IDS[0], 10_000)


def test_routing_sampling_and_noise_are_independent() -> None:
    salts = [salted("digits"), shadow_salt("digits"), noise_salt("digits")]
    assert len(set(salts)) == 3
    for one, other in ((0, 1), (0, 2), (1, 2)):
        both = sum(bucket_of(salts[one], each) < 1_000 > bucket_of(salts[other], each) for each in IDS)
        assert both == pytest.approx(200, abs=60)


def kinds(told: list[Export[str]]) -> Counter[Rule]:
    return Counter(export.rule for export in told)


def test_a_mismatch_is_told_when_its_window_ends() -> None:
    sampler: ExportSampler[str] = ExportSampler()
    assert sampler.poll(0) == []
    assert sampler.close(0) == []
    for number in range(3):
        assert sampler.offer("t", MISMATCH, f"{number}", number, coin=number) == []
    assert sampler.poll(10 * SECOND_NS - 1) == []
    told = sampler.poll(10 * SECOND_NS)
    assert kinds(told) == {Rule.TOP_DISTANCE: 1, Rule.MISMATCH: 2}
    assert all(export.probability == 1 for export in told)
    assert sampler.poll(99 * SECOND_NS) == []


def test_the_next_pair_ends_a_window_too() -> None:
    sampler: ExportSampler[str] = ExportSampler()
    sampler.offer("t", MISMATCH, "first", 0, 0)
    assert [export.record for export in sampler.offer("t", MATCH, "later", 10 * SECOND_NS, TOP - 1)] == ["first"]
    assert sampler.poll(19 * SECOND_NS) == [], "the window began with its first pair"


def test_the_largest_distance_is_told_for_certain() -> None:
    sampler: ExportSampler[str] = ExportSampler(stratum_max=1)
    for number, distance in enumerate([0.2, 0.9, 0.5, 0.9, 0.1]):
        sampler.offer("t", pair(Result.MISMATCH, distance), f"{number}", 0, coin=(9 - number) << 32)
    told = sampler.close(0)
    assert [(e.record, e.rule, e.probability) for e in told] == [
        ("1", Rule.TOP_DISTANCE, 1.0),
        ("4", Rule.MISMATCH, 0.25),
    ]


def test_only_what_is_held_or_told_is_made_bare_and_once() -> None:
    made: list[str] = []

    def bare(record: str) -> str:
        made.append(record)
        return f"bare {record}"

    sampler: ExportSampler[str] = ExportSampler(stratum_max=1, bare=bare)
    for name, distance, coin in (("a", 0.1, 9), ("b", 0.2, 8), ("c", 0.1, 7), ("d", 0.1, 6), ("e", 0.1, 10)):
        sampler.offer("t", pair(Result.MISMATCH, distance), name, 0, coin << 32)
    assert made == ["a", "b", "c", "d"], "a was the largest, b is; c and then d took the only place from it; e got none"
    assert {export.record for export in sampler.close(0)} == {"bare b", "bare d"}
    sampler.offer("t", MATCH, "top", 0, TOP - 1)
    sampler.offer("t", MATCH, "unlucky", 0, TOP - 1)
    assert [export.record for export in sampler.offer("t", MATCH, "lucky", 0, 0)] == ["bare lucky"]
    assert made[4:] == ["top", "lucky"]


def test_equal_answers_have_no_largest_distance() -> None:
    sampler: ExportSampler[str] = ExportSampler()
    sampler.offer("t", MATCH, "unlucky", 0, TOP - 1)
    assert sampler.close(0) == []
    sampler.offer("t", MATCH, "lucky", 0, 0)
    assert sampler.close(0) == [Export("lucky", Rule.MATCH_SAMPLE, 0.001)]
    sampler.offer("t", MATCH, "top", 0, TOP - 1)
    assert sampler.offer("t", MATCH, "lucky", 0, 0) == [Export("lucky", Rule.MATCH_SAMPLE, 0.001)]
    sampler.offer("t", pair(Result.MATCH, 0.1), "near", 0, TOP - 1)
    assert sampler.close(0) == [Export("near", Rule.TOP_DISTANCE, 1.0)]


def test_strata_are_by_target_output_and_result() -> None:
    sampler: ExportSampler[str] = ExportSampler(stratum_max=2)
    kinds_of = [pair(Result.MISMATCH, 0.1, "a"), pair(Result.MISMATCH, 0.1, "b"), pair(Result.NEAR_TIE, 0.1, "a")]
    for target in ("one", "two"):
        sampler.offer(target, FAILED, f"{target} failed", 0, 0)
        for number in range(40):
            sampler.offer(target, kinds_of[number % 3], f"{target} {number % 3}", 0, coin=number << 32)
    told = sampler.close(0)
    assert Counter(export.record for export in told) == {
        **{f"{target} {kind}": 2 for target in ("one", "two") for kind in range(3)},
        **{f"{target} failed": 1 for target in ("one", "two")},
    }


def test_strata_are_bounded_and_the_last_ones_share_one() -> None:
    sampler: ExportSampler[int] = ExportSampler(rate_per_s=10**6)
    for number in range(2 * STRATA_MAX):
        sampler.offer("t", pair(Result.MISMATCH, 0.1, str(number)), number, 0, coin=number << 32)
    told = sampler.close(0)
    assert len(told) == STRATA_MAX + 5
    assert sum(1 / export.probability for export in told) == pytest.approx(2 * STRATA_MAX)


def test_a_token_bucket_bounds_what_is_told_over_time() -> None:
    sampler: ExportSampler[int] = ExportSampler(rate_per_s=1)
    rng, told = Random(3), 0
    windows = 20
    for window in range(windows):
        for number in range(200):
            output = f"y{number % 50}"
            told += len(
                sampler.offer(
                    "t", pair(Result.MISMATCH, 0.1, output), number, window * 10 * SECOND_NS, rng.getrandbits(COIN_BITS)
                )
            )
    told += len(sampler.close(windows * 10 * SECOND_NS))
    assert told <= windows * (10 + 1) + 10, "ten tokens a window, the largest distance, and a full bucket at first"
    assert told >= windows * 10
    # Windows in quick succession refill little: each still tells one.
    empty = [sampler.offer("t", pair(Result.MISMATCH, 0.1, str(n)), n, windows * 10 * SECOND_NS, n) for n in range(5)]
    assert empty == [[]] * 5
    told_now = sampler.close(windows * 10 * SECOND_NS)
    assert kinds(told_now) == {Rule.TOP_DISTANCE: 1, Rule.MISMATCH: 1}  # type: ignore[arg-type]
    assert told_now[1].probability == 0.25


def stream(rng: Random) -> list[PairDivergence]:
    """A window of unlike kinds, in bursts: what samplers are fooled by."""
    pairs = [pair(Result.MATCH, rng.random() / 10) for _ in range(100)]
    pairs += [pair(Result.MISMATCH, rng.random(), "a") for _ in range(60)]
    pairs += [pair(Result.NEAR_TIE, rng.random(), "a") for _ in range(7)]
    pairs += [pair(Result.MISMATCH, rng.random(), "b") for _ in range(3)]
    pairs += [FAILED] * 20
    return pairs


@pytest.mark.parametrize("order", ["bursts", "shuffled"])
@pytest.mark.parametrize("rate_per_s", [10, 1])
def test_weights_recover_how_often_each_kind_comes(rate_per_s: int, order: str) -> None:
    """The same windows over and over, with other coins: the mean of the weights is the number of pairs."""
    rng = Random(5)
    pairs = stream(rng)
    if order == "shuffled":
        rng.shuffle(pairs)
    want = Counter((each.result, each.decider.name if each.decider else "") for each in pairs)
    runs = 500
    weights: Counter[object] = Counter()
    sampler: ExportSampler[PairDivergence] = ExportSampler(rate_per_s=rate_per_s, match_in=5)
    for run in range(runs):
        now = run * 10 * SECOND_NS
        told = [
            export
            for at, each in enumerate(pairs)
            for export in sampler.offer("t", each, each, now + at, rng.getrandbits(COIN_BITS))
        ]
        for export in told + sampler.close(now + SECOND_NS):
            each = export.record
            weights[each.result, each.decider.name if each.decider else ""] += 1 / export.probability  # type: ignore[assignment]
    assert set(weights) == set(want)
    for kind, count in want.items():
        assert weights[kind] / runs == pytest.approx(count, rel=0.06), kind
    mismatches = sum(weights[kind] for kind in want if kind[0] is Result.MISMATCH) / runs
    assert mismatches / len(pairs) == pytest.approx(63 / 190, rel=0.05)


def test_without_thinning_the_weights_are_the_counts_exactly() -> None:
    rng = Random(6)
    pairs = [each for each in stream(rng) if each.result is not Result.MATCH]
    sampler: ExportSampler[PairDivergence] = ExportSampler()
    for each in pairs:
        sampler.offer("t", each, each, 0, rng.getrandbits(COIN_BITS))
    told = sampler.close(0)
    assert sum(1 / export.probability for export in told) == pytest.approx(len(pairs))


def test_each_of_a_stratum_is_equally_likely() -> None:
    rng = Random(7)
    seen: Counter[int] = Counter()
    for _ in range(4000):
        sampler: ExportSampler[int] = ExportSampler(stratum_max=2)
        for number in range(9):
            distance = 1.0 if number == 4 else 0.5
            sampler.offer("t", pair(Result.MISMATCH, distance), number, 0, rng.getrandbits(COIN_BITS))
        seen.update(export.record for export in sampler.close(0))
    assert seen.pop(4) == 4000
    assert all(count == pytest.approx(1000, abs=130) for count in seen.values())
    assert len(seen) == 8
