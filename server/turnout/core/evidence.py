"""What a number of bad pairs proves, at whatever moment one looks: intervals and verdicts that hold under peeking.

The sequences are Robbins' beta-binomial mixtures; an e-value has a mean of at most 1 while the claim against which it
speaks is true, so at no moment does it exceed 1/alpha but with a chance of alpha (Ville)."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, expm1, log, log1p, log10, pi

from turnout.core.gates import Verdict

# A noise floor is believed to be low, so its prior is Beta(1, 50) instead of the uniform one: a third less of it is
# needed, and the interval holds whatever the truth is.
NOISE_PRIOR = 50
_HALVINGS = 80  # of an interval of at most 745 in logs: below the resolution of doubles
_LOWEST = -745.0  # the logarithm of the smallest double


def log_e(bad: int, n: int, rate: float, prior: int = 1) -> float:
    """The logarithm of the e-value against "bad pairs come at `rate`", 0 < rate < 1, after `bad` of `n`.

        lbeta(1 + bad, prior + n - bad) - lbeta(1, prior) - bad ln rate - (n - bad) ln(1 - rate)

    Worked out as the evidence at the observed rate plus n times the Kullback-Leibler divergence from there (Loader's
    saddle point), because differences of lgamma lose five digits at n = 10^9.
    """
    return _at_the_observed(bad, n, prior) + _deviance(bad, n, rate)


def _at_the_observed(bad: int, n: int, prior: int) -> float:
    """`log_e` at the rate bad / n: minus ln(n + 1), minus the binomial log-likelihood of its most likely count."""
    good = n - bad
    likelihood = 0.0
    if bad and good:
        likelihood = _stirling(n) - _stirling(bad) - _stirling(good) + 0.5 * log(n / (2 * pi * bad * good))
    steps = sum(log((good + step) / (n + 1 + step)) for step in range(1, prior))
    return -log(n + 1) - likelihood + log(prior) + steps


def _deviance(bad: int, n: int, rate: float) -> float:
    """How much `log_e` grows from the observed rate to this one."""
    good, off = n - bad, bad / n - rate
    # Near the observed rate both ratios are near 1: their logarithms are taken of the differences.
    deviance = bad * log1p(off / rate) if bad else 0.0
    return deviance + (good * log1p(-off / (1 - rate)) if good else 0.0)


def _stirling(n: int) -> float:
    """ln n! minus Stirling's formula, for n from 1."""
    if n < 16:
        factorial = 1
        for factor in range(2, n + 1):
            factorial *= factor
        return log(factorial) - (n + 0.5) * log(n) + n - 0.5 * log(2 * pi)
    square = 1 / (n * n)
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680) * square) * square) * square) / n


def bad_interval(bad: int, n: int, alpha: float, prior: int = 1) -> tuple[float, float]:
    """All rates of bad pairs that `bad` of `n` do not speak against with an e-value of 1/alpha, as an interval: at any
    moment, and at all of them together, it misses the true rate with a chance of at most `alpha`.

    Found by bisection over the logarithm of the rate, rounded outwards; without pairs it is (0, 1).
    """
    if not n:
        return 0.0, 1.0
    slack = -log(alpha) - _at_the_observed(bad, n, prior)
    if not bad:
        return 0.0, -expm1(-slack / n)

    def within(rate: float) -> bool:
        return _deviance(bad, n, rate) < slack

    low = _edge(within, _LOWEST, log(bad / n))
    return low, _edge(within, 0.0, log(bad / n)) if bad < n else 1.0


def _edge(within: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where `within` ends between two logarithms of rates; of the last two, the one outside."""
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2
        if exp(middle) < 1 and within(exp(middle)):
            inside = middle
        else:
            outside = middle
    return exp(outside)


def agreement_interval(bad: int, n: int, alpha: float) -> tuple[float, float]:
    """`bad_interval`, of the pairs that agree."""
    low, high = bad_interval(bad, n, alpha)
    return 1 - high, 1 - low


def verdict(bad: int, n: int, limit: float, alpha: float, samples_min: int) -> Verdict:
    """Whether bad pairs come at a rate below `limit` (PASS), above (FAIL), or it cannot be told yet.

    After `samples_min` pairs at the earliest: a uniform prior may decide after two or three.
    """
    if n < samples_min:
        return Verdict.INCONCLUSIVE
    return _against(bad_interval(bad, n, alpha), limit)


def excess_verdict(
    bad: int, n: int, noise_bad: int, noise_n: int, limit: float, alpha: float, samples_min: int
) -> Verdict:
    """`verdict` of what the shadow disagrees more than the live revision does with itself.

        low - noise_high <= rate - noise_rate <= high - noise_low

    with both intervals at alpha / 2, so that both hold with 1 - alpha, however they depend on each other. It is
    conservative: without noise pairs it never fails, and to fail at an excess of x it takes about 6 / x of them. Use it
    where the rule has noise replays, from the start, and `verdict` where it has none: choosing later would spend alpha
    twice.
    """
    if n < samples_min:
        return Verdict.INCONCLUSIVE
    low, high = bad_interval(bad, n, alpha / 2)
    noise_low, noise_high = bad_interval(noise_bad, noise_n, alpha / 2, NOISE_PRIOR)
    return _against((low - noise_high, high - noise_low), limit)


def _against(interval: tuple[float, float], limit: float) -> Verdict:
    low, high = interval
    if low > limit:
        return Verdict.FAIL
    return Verdict.PASS if high < limit else Verdict.INCONCLUSIVE


def log10_better(wins: int, losses: int) -> float:
    """The base-10 logarithm of the e-value for "a win is likelier than a loss", one-sided, as McNemar's test: what both
    sides get right or wrong says nothing, and under the claim's opposite a win has a chance of at most 1/2.

        E = 2^(n+1) B(1 + wins, 1 + losses) P(Beta(1 + wins, 1 + losses) > 1/2)
          = sum over k <= wins of C(n + 1, k), over (n + 1) C(n, wins),  n = wins + losses

    2 is as good as a p-value of 0.01 that may be looked at whenever one likes; below 0 the data speak against it.
    """
    if wins <= losses:
        return _log_tail(wins, losses) / log(10)
    # Both tails add up to twice the two-sided e-value; the small one is subtracted from it.
    n = wins + losses
    both = log(2) + log_e(wins, n, 0.5)
    return (both + log1p(-exp(_log_tail(losses, wins) - both))) / log(10)


def _log_tail(wins: int, losses: int) -> float:
    """ln E for wins <= losses: the terms fall from the first on, C(n + 1, wins) / ((n + 1) C(n, wins))."""
    term = total = 1.0
    for step in range(wins):
        term *= (wins - step) / (losses + 2 + step)
        total += term
        if term < total * 1e-17:
            break
    return log(total) - log(losses + 1)


def better(wins: int, losses: int, alpha: float) -> Verdict:
    """PASS: wins are likelier than losses. FAIL: losses are. Each at alpha / 2."""
    needed = -log10(alpha / 2)
    if log10_better(wins, losses) >= needed:
        return Verdict.PASS
    return Verdict.FAIL if log10_better(losses, wins) >= needed else Verdict.INCONCLUSIVE
