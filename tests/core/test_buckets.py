"""Buckets: shares of keys, the least move between splits, and the same answer in every process."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from turnout.core.buckets import BASIS_POINTS, Span, bucket_of, laid_out, reweigh, salted, weights_of

SLOTS = ("blue", "green", "red", "pink", "grey")
KEYS = 100_000
Spans = tuple[Span[str], ...]


def owners(spans: Spans) -> list[str]:
    """Who owns each bucket."""
    return [span.target for span in spans for _ in range(span.start_bp, span.end_bp)]


@st.composite
def splits(draw: st.DrawFn, count: int) -> dict[str, int]:
    """Weights of `count` slots, some of them without traffic."""
    cuts = sorted(draw(st.lists(st.integers(0, BASIS_POINTS), min_size=count - 1, max_size=count - 1)))
    edges = [0, *cuts, BASIS_POINTS]
    names = draw(st.permutations(SLOTS[:count]))
    return {name: high - low for name, low, high in zip(names, edges[:-1], edges[1:], strict=True)}


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(2, 5))
def test_a_new_split_moves_only_what_it_must(data: st.DataObject, count: int) -> None:
    spans: Spans = ()
    for _ in range(data.draw(st.integers(2, 5))):
        weights = data.draw(splits(count))
        after = reweigh(spans, weights)
        assert weights_of(after) == {name: weight for name, weight in weights.items() if weight}
        assert [span.start_bp for span in after] == [0, *(span.end_bp for span in after[:-1])]
        if spans:
            old = weights_of(spans)
            moved = [(a, b) for a, b in zip(owners(spans), owners(after), strict=True) if a != b]
            assert len(moved) == sum(max(weights[name] - old.get(name, 0), 0) for name in weights)
            for giver, taker in moved:
                assert weights[giver] < old[giver], "who gives does shrink"
                assert weights[taker] > old.get(taker, 0), "who takes does grow"
        spans = after


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, BASIS_POINTS), min_size=1, max_size=8))
def test_a_canary_of_two_slots_stays_in_two_pieces(ramp: list[int]) -> None:
    spans = laid_out({"blue": BASIS_POINTS})
    for weight in [*sorted(ramp), *sorted(ramp, reverse=True)]:
        spans = reweigh(spans, {"green": weight, "blue": BASIS_POINTS - weight})
        assert len(spans) <= 2


def test_abort_gives_back_exactly_the_keys() -> None:
    before = laid_out({"blue": 6_000, "red": 4_000})
    canary = reweigh(before, {"blue": 5_000, "red": 4_000, "green": 1_000})
    assert reweigh(canary, {"blue": 6_000, "red": 4_000}) == before


def test_slots_with_nothing_get_no_span() -> None:
    assert laid_out({"blue": 0, "green": BASIS_POINTS}) == (Span(0, BASIS_POINTS, "green"),)


@pytest.mark.parametrize("weight_bp", [100, 500, 1_000, 5_000])
def test_keyed_requests_get_their_shares(weight_bp: int) -> None:
    """Chi-square over both arms: at this significance one weight in a million would fail by chance, and the keys are
    fixed, so it cannot flicker."""
    spans = reweigh(laid_out({"blue": BASIS_POINTS}), {"green": weight_bp, "blue": BASIS_POINTS - weight_bp})
    by_bucket, salt = owners(spans), salted("digits")
    counts = Counter(by_bucket[bucket_of(salt, f"user-{number}")] for number in range(KEYS))
    expected = {"green": KEYS * weight_bp / BASIS_POINTS, "blue": KEYS * (1 - weight_bp / BASIS_POINTS)}
    statistic = sum((counts[name] - expected[name]) ** 2 / expected[name] for name in expected)
    assert statistic < chi2.ppf(1 - 1e-6, df=1)
    wrong = {"green": expected["green"] * 1.25, "blue": KEYS - expected["green"] * 1.25}
    assert sum((counts[n] - wrong[n]) ** 2 / wrong[n] for n in wrong) > chi2.ppf(1 - 1e-6, df=1), "the test can fail"


def test_all_buckets_are_hit_evenly() -> None:
    salt = salted("digits")
    counts = Counter(bucket_of(salt, str(number)) // 100 for number in range(KEYS))
    expected = KEYS / 100
    statistic = sum((counts[hundred] - expected) ** 2 / expected for hundred in range(100))
    assert statistic < chi2.ppf(1 - 1e-6, df=99)


def test_another_process_and_every_release_assign_alike() -> None:
    script = (
        "from turnout.core.buckets import bucket_of, salted; s = salted('digits'); "
        "print([bucket_of(s, f'user-{n}') for n in range(1000)])"
    )
    seeded = {"PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", script], env=seeded, capture_output=True, text=True, check=True)
    salt = salted("digits")
    assert other.stdout.strip() == str([bucket_of(salt, f"user-{n}") for n in range(1000)])
    assert [bucket_of(salt, key) for key in ("", "user-1", "\u00fc", "\ud800")] == [9650, 9786, 9707, 3242]


def test_another_salt_spreads_keys_anew() -> None:
    one, other = salted("digits"), salted("digits-2")
    same = sum(bucket_of(one, str(n)) // 1_000 == bucket_of(other, str(n)) // 1_000 for n in range(10_000))
    assert same == pytest.approx(1_000, abs=200)
    assert salted("x" * 1_000) != salted("x" * 1_001)
