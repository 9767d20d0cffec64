"""Evidence: the intervals cover what they claim to by exact enumeration, the notes' sample counts, and no overflow."""

from __future__ import annotations

from math import comb, exp, inf, lgamma, log, log1p, log10, ulp

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import betaln
from scipy.stats import beta

from turnout.core.evidence import (
    NOISE_PRIOR,
    agreement_interval,
    bad_interval,
    better,
    excess_verdict,
    log10_better,
    log_e,
    verdict,
)
from turnout.core.gates import Verdict

COUNTS = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
RATES = st.floats(0.001, 0.999)


@given(COUNTS, RATES, st.sampled_from([1, 2, NOISE_PRIOR]))
def test_the_e_value_is_the_beta_binomial_one(counts: tuple[int, int], rate: float, prior: int) -> None:
    bad, n = counts
    want = betaln(1 + bad, prior + n - bad) - betaln(1, prior) - bad * log(rate) - (n - bad) * log(1 - rate)
    assert log_e(bad, n, rate, prior) == pytest.approx(want, abs=1e-8)


@pytest.mark.parametrize("prior", [1, NOISE_PRIOR])
@pytest.mark.parametrize("rate", [0.01, 0.3])
@pytest.mark.parametrize("n", [1, 2, 17, 40])
def test_its_mean_is_one(n: int, rate: float, prior: int) -> None:
    mean = sum(comb(n, k) * rate**k * (1 - rate) ** (n - k) * exp(log_e(k, n, rate, prior)) for k in range(n + 1))
    assert mean == pytest.approx(1)


def chance_of_missing(rate: float, alpha: float, pairs: int, prior: int) -> float:
    """The exact chance that the interval misses `rate` at any of the first `pairs` looks: probabilities of the counts
    that were never outside, step by step."""
    inside = np.array([1.0])
    for n in range(1, pairs + 1):
        step = np.zeros(n + 1)
        step[:-1] = inside * (1 - rate)
        step[1:] += inside * rate
        for bad in np.flatnonzero(step):
            low, high = bad_interval(int(bad), n, alpha, prior)
            if not low <= rate <= high:
                step[bad] = 0
        inside = step
    return 1 - float(inside.sum())


@pytest.mark.parametrize(("rate", "prior"), [(0.02, 1), (0.3, 1), (0.9, 1), (0.02, NOISE_PRIOR), (0.3, NOISE_PRIOR)])
def test_peeking_at_every_pair_misses_no_more_often_than_promised(rate: float, prior: int) -> None:
    alpha = 0.1
    missed = chance_of_missing(rate, alpha, 80, prior)
    assert 0 < missed <= alpha


@given(COUNTS, st.floats(1e-6, 0.5))
@example((151, 152), 1.0000000000000002e-06)
def test_the_interval_ends_where_the_evidence_does(counts: tuple[int, int], alpha: float) -> None:
    bad, n = counts
    low, high = bad_interval(bad, n, alpha)
    assert 0 <= low <= bad / n <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            steepness = abs((n - bad) / (1 - end) - bad / end)  # near 1 the next double is far in evidence
            assert log_e(bad, n, end) == pytest.approx(-log(alpha), abs=1e-6 + 4 * ulp(end) * steepness)
    assert agreement_interval(bad, n, alpha) == (1 - high, 1 - low)
    assert (low == 0) == (bad == 0)
    assert (high == 1) == (bad == n)


def test_without_pairs_anything_is_possible() -> None:
    assert bad_interval(0, 0, 0.01) == (0, 1)
    assert agreement_interval(0, 0, 0.01) == (0, 1)


@pytest.mark.parametrize(
    ("limit", "bad", "n"),
    [
        (0.05, 0, 193), (0.05, 1, 248), (0.05, 5, 414),
        (0.02, 0, 540), (0.02, 1, 682), (0.02, 5, 1110),
        (0.01, 0, 1161), (0.01, 1, 1450), (0.01, 5, 2323),
        (0.001, 0, 14157), (0.001, 1, 17195), (0.001, 5, 26345),
    ],
)  # fmt: skip
def test_how_many_pairs_certify_a_limit(limit: float, bad: int, n: int) -> None:
    assert verdict(bad, n, limit, 0.01, 1) is Verdict.PASS
    assert verdict(bad, n - 1, limit, 0.01, 1) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("bad", "n", "samples_min", "want"),
    [
        (0, 0, 0, Verdict.INCONCLUSIVE),
        (3, 3, 1, Verdict.FAIL),
        (3, 3, 100, Verdict.INCONCLUSIVE),
        (0, 1000, 1001, Verdict.INCONCLUSIVE),
        (100, 1000, 100, Verdict.FAIL),
        (50, 1000, 100, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts(bad: int, n: int, samples_min: int, want: Verdict) -> None:
    assert verdict(bad, n, 0.05, 0.01, samples_min) is want


@pytest.mark.parametrize(
    ("counts", "noise", "want"),
    [
        ((200, 1000), (0, 1000), Verdict.FAIL),
        ((200, 1000), (200, 1000), Verdict.INCONCLUSIVE),  # all of it may be noise
        ((200, 1000), (0, 0), Verdict.INCONCLUSIVE),  # nobody knows how much of it is noise
        ((200, 1000), (0, 100), Verdict.FAIL),
        ((200, 1000), (0, 20), Verdict.INCONCLUSIVE),
        ((0, 1000), (0, 0), Verdict.PASS),
        ((2000, 10000), (2000, 10000), Verdict.PASS),
        ((0, 1000), (0, 1000), Verdict.PASS),
        ((90, 90), (0, 1000), Verdict.INCONCLUSIVE),  # samples_min
    ],
)
def test_noise_is_not_the_shadows_fault(counts: tuple[int, int], noise: tuple[int, int], want: Verdict) -> None:
    assert excess_verdict(*counts, *noise, 0.05, 0.01, 100) is want


def test_a_noise_floor_of_zero_needs_fewer_pairs_than_the_uniform_prior_does() -> None:
    assert bad_interval(0, 100, 0.005, NOISE_PRIOR)[1] < 0.065
    assert bad_interval(0, 100, 0.005)[1] > 0.09


def test_a_verdict_with_noise_is_seldom_wrong() -> None:
    """Both sides disagree equally often, so no excess is above the limit: seeded, looked at every 50 pairs."""
    rng = np.random.default_rng(11)
    wrong = 0
    for _ in range(40):
        bad, noise = rng.random(3000) < 0.2, rng.random(3000) < 0.2
        found = {
            excess_verdict(int(bad[:n].sum()), n, int(noise[:n].sum()), n, 0.001, 0.1, 10) for n in range(50, 3001, 500)
        }
        wrong += Verdict.FAIL in found
    assert wrong <= 4


@pytest.mark.parametrize("n", [10**6, 10**9])
def test_a_billion_pairs_lose_no_digits(n: int) -> None:
    for end in bad_interval(5, n, 0.01):
        exact = -log(n + 1) - log(comb(n, 5)) - 5 * log(end) - (n - 5) * log1p(-end)
        assert exact == pytest.approx(log(100), abs=1e-9)
    low, high = bad_interval(n // 2, n, 0.01)
    # Around a half the sequence is a normal one: its half-width from the same formula.
    width = (2 * (log(100) + 0.5 * log(n / (2 * np.pi * 0.25))) * 0.25 / n) ** 0.5
    assert (high - low) / 2 == pytest.approx(width, rel=1e-4)
    assert bad_interval(n, n, 0.01)[1] == 1
    assert 1 - bad_interval(n, n, 0.01)[0] == pytest.approx(bad_interval(0, n, 0.01)[1], rel=1e-6)
    assert bad_interval(n - 1, n, 0.01)[1] == pytest.approx(1)


@given(st.integers(0, 300), st.integers(0, 300))
def test_evidence_of_wins_is_a_truncated_mixture(wins: int, losses: int) -> None:
    n = wins + losses
    want = (n + 1) * log(2) + betaln(1 + wins, 1 + losses) + beta.logsf(0.5, 1 + wins, 1 + losses)
    assert log10_better(wins, losses) == pytest.approx(want / log(10), abs=1e-7)


@pytest.mark.parametrize("n", [1, 5, 30])
def test_where_wins_are_as_likely_as_losses_the_evidence_has_a_mean_of_one(n: int) -> None:
    mean = sum(comb(n, k) * 0.5**n * 10 ** log10_better(k, n - k) for k in range(n + 1))
    assert mean == pytest.approx(1)
    assert sum(comb(n, k) * 0.4**k * 0.6 ** (n - k) * 10 ** log10_better(k, n - k) for k in range(n + 1)) < 1


def test_evidence_of_many_wins_is_finite() -> None:
    assert log10_better(0, 0) == 0
    assert log10_better(10**6, 0) == pytest.approx(((10**6 + 1) * log(2) - log(10**6 + 1)) / log(10))
    assert -inf < log10_better(0, 10**6) < -5
    assert log10_better(10**5, 10**5) == pytest.approx(
        (lgamma(1e5 + 1) * 2 - lgamma(2e5 + 2) + 2e5 * log(2)) / log(10), abs=1e-6
    )


@pytest.mark.parametrize(
    ("wins", "losses", "want"),
    [(0, 0, Verdict.INCONCLUSIVE), (20, 2, Verdict.PASS), (2, 20, Verdict.FAIL), (12, 9, Verdict.INCONCLUSIVE)],
)
def test_better(wins: int, losses: int, want: Verdict) -> None:
    assert better(wins, losses, 0.01) is want
    assert (log10_better(wins, losses) > log10(200)) == (want is Verdict.PASS)
