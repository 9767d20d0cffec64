"""What metrics count of shadowing: sums that only grow, and a bounded number of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from support.shadows import compared, confused, revision, side
from turnout.core.copies import Drop, Pair, PairKind
from turnout.core.pairs import OutputDivergence, PairDivergence, Result
from turnout.core.records import Compared
from turnout.runtime.shadow_account import ShadowAccount


def count(account: ShadowAccount, record: Compared) -> None:
    account.compared(record.pair, record.divergence)


def between(live: int, shadow: int) -> Pair:
    pair = confused().pair
    copy = replace(pair.copy, live=replace(pair.copy.live, revision=revision(live)))
    return Pair(copy, replace(pair.shadow, revision=revision(shadow)))


def test_a_pair_is_counted_with_its_measures() -> None:
    account = ShadowAccount()
    count(account, confused())
    count(account, confused())
    assert account.comparisons == {("m", "m/1", "m/2", PairKind.SHADOW, Result.MISMATCH): 2}
    assert {(output, metric) for _, _, output, metric in account.distances} == {
        ("p", "max_abs"), ("p", "max_rel"), ("p", "cosine"), ("p", "js"),
    }  # fmt: skip
    assert account.distance_sums["m", "m/2", "p", "max_abs"] == 2 * 625_000_000
    assert account.duration_sums_ns == {("m", "m/2"): 8_000_000}
    assert account.ratio_sums == {("m", "m/2"): 2 * 1000}


def test_noise_is_counted_and_not_measured() -> None:
    account = ShadowAccount()
    outputs = {"p": np.array([[0.75, 0.25]], np.float32)}
    count(account, compared(side("blue", 1, outputs), side("blue", 1, outputs), kind=PairKind.NOISE))
    assert account.comparisons == {("m", "m/1", "m/1", PairKind.NOISE, Result.MATCH): 1}
    assert not (account.distances or account.durations or account.ratios)


def test_what_is_no_number_is_no_distance() -> None:
    account = ShadowAccount()
    broken = {"p": np.array([[np.nan, np.inf]], np.float32)}
    count(account, compared(side("blue", 1, {"p": np.zeros((1, 2), np.float32)}), side("green", 2, broken)))
    assert account.comparisons.total() == 1
    assert not any(np.isnan(total) or np.isinf(total) for total in account.distance_sums.values())


def test_outputs_are_bounded() -> None:
    account = ShadowAccount()
    pair = confused().pair
    outputs = tuple(OutputDivergence(f"o{number}", Result.MATCH, max_abs=1.0) for number in range(20))
    account.compared(pair, PairDivergence(Result.MATCH, outputs))
    account.compared(pair, PairDivergence(Result.MATCH, outputs[::-1]))
    assert {output for _, _, output, _ in account.distances} == {*(f"o{n}" for n in range(8)), "_OTHER"}
    assert account.distance_sums["m", "m/2", "_OTHER", "max_abs"] == 24 * 10**9


def test_revisions_are_bounded() -> None:
    account = ShadowAccount()
    divergence = confused().divergence
    for version in range(2, 1000):
        account.compared(between(1, version), divergence)
        account.drop("m", f"m/{version}", Drop.DEADLINE, 3)
    assert len(account.comparisons) == len(account.durations) == len(account.dropped) == 256
    account.compared(between(1, 2), divergence)
    assert account.comparisons["m", "m/1", "m/2", PairKind.SHADOW, Result.MISMATCH] == 2, "known ones go on"


def test_pairs_of_revisions_are_bounded() -> None:
    account = ShadowAccount()
    divergence = confused().divergence
    for live in range(100):
        for shadow in range(100, 130):
            account.compared(between(live, shadow), divergence)
    assert len(account.comparisons) == 2000
    account.compared(between(0, 100), divergence)
    assert account.comparisons["m", "m/0", "m/100", PairKind.SHADOW, Result.MISMATCH] == 2
