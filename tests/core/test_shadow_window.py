"""A shadow's window: counts by result, output and class; what is recent; what is proven; and that all is bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.comparators import Comparator, Method, by_output
from turnout.core.divergence import compare
from turnout.core.evidence import agreement_interval
from turnout.core.gates import Verdict
from turnout.core.pairs import PairDivergence, Result
from turnout.core.shadow_window import DIGESTS_MAX, AgreementTest, ShadowSummary, Window
from turnout.core.tally import (
    CLASSES_MAX,
    CONFUSIONS_MAX,
    OTHER,
    WORST_MAX,
    Agreement,
    ClassAgreement,
    Confusion,
    Spread,
    Tally,
)

SECOND_NS = 10**9
NOTHING: dict[str, Any] = {}


def labels(live: int, shadow: int) -> PairDivergence:
    return compare({"label": np.array([live])}, {"label": np.array([shadow])})


def scores(live: list[float], shadow: list[float], near_tie: float = 0.05) -> PairDivergence:
    comparators = by_output([Comparator("p", Method.ARGMAX, near_tie=near_tie)])
    return compare({"p": np.array([live])}, {"p": np.array([shadow])}, comparators)


SAME, OTHERS = labels(3, 3), labels(3, 8)


def window(**test: Any) -> Window:
    return Window(0, AgreementTest(**test))


def filled(good: int, bad: int, replays: tuple[int, int] = (0, 0), **test: Any) -> ShadowSummary:
    pairs = window(**test)
    for number in range(good + bad):
        pairs.observe(str(number), str(number), SAME if number < good else OTHERS, 0)
    for number in range(sum(replays)):
        pairs.observe_noise(str(number), SAME if number < replays[0] else OTHERS, 0)
    return pairs.summary(0)


def test_pairs_are_counted_by_result() -> None:
    pairs = window()
    tie = scores([0.51, 0.49], [0.49, 0.51])
    for number, each in enumerate(
        (SAME, SAME, OTHERS, tie, compare(None, NOTHING), compare(NOTHING, None), compare(None, None))
    ):
        pairs.observe("id", str(number), each, 0)
    total = pairs.summary(0).total
    assert total.results == {
        Result.MATCH: 2, Result.MISMATCH: 1, Result.NEAR_TIE: 1,
        Result.LIVE_ERROR: 1, Result.SHADOW_ERROR: 1, Result.BOTH_ERROR: 1,
    }  # fmt: skip
    assert (total.pair_count, total.bad_count, total.rate) == (5, 2, 0.6)
    assert (total.low, total.high) == agreement_interval(2, 5, 0.01)


def test_without_pairs_nothing_is_said() -> None:
    summary = window().summary(5)
    assert (summary.start_ns, summary.now_ns, summary.verdict) == (0, 5, Verdict.INCONCLUSIVE)
    for each in (summary.recent, summary.total):
        assert (each.pair_count, each.rate, each.low, each.high) == (0, None, 0, 1)
        assert (each.noise_rate, each.latency_p50, each.latency_p99) == (None, None, None)
        assert each.outputs == each.by_class == each.confusions == each.worst == ()


@pytest.mark.parametrize(
    ("good", "bad", "noise", "test", "want"),
    [
        (1000, 0, (0, 0), {}, Verdict.PASS),
        (99, 0, (0, 0), {"bad_max": 0.9}, Verdict.INCONCLUSIVE),
        (900, 100, (0, 0), {}, Verdict.FAIL),
        (900, 100, (0, 0), {"bad_max": 0.2}, Verdict.PASS),
        (800, 200, (0, 0), {"noise": True}, Verdict.INCONCLUSIVE),
        (800, 200, (300, 0), {"noise": True}, Verdict.FAIL),
        (800, 200, (240, 60), {"noise": True}, Verdict.INCONCLUSIVE),
        (1000, 0, (0, 0), {"noise": True}, Verdict.PASS),
    ],
)
def test_verdicts(good: int, bad: int, noise: tuple[int, int], test: dict[str, Any], want: Verdict) -> None:
    summary = filled(good, bad, noise, **test)
    assert summary.verdict is want
    assert summary.total.noise_pair_count == sum(noise)
    assert summary.total.noise_rate == (noise[1] / sum(noise) if sum(noise) else None)


def test_a_repeated_input_is_evidence_once() -> None:
    pairs = window()
    for _ in range(300):
        pairs.observe("id", "same", SAME, 0)
    summary = pairs.summary(0)
    assert (summary.total.pair_count, summary.total.distinct_count) == (300, 1)
    assert (summary.total.low, summary.total.high) == agreement_interval(0, 1, 0.01)
    assert summary.verdict is Verdict.INCONCLUSIVE
    pairs.observe("id", "same", OTHERS, 0)
    pairs.observe("id", "other", compare(None, NOTHING), 0)
    pairs.observe("id", "other", OTHERS, 0)
    total = pairs.summary(0).total
    assert (total.pair_count, total.bad_count, total.distinct_count) == (302, 2, 2)
    assert (total.low, total.high) == agreement_interval(1, 2, 0.01)


def test_repeated_noise_is_evidence_once() -> None:
    pairs = window(noise=True)
    for number in range(1000):
        pairs.observe(str(number), str(number), OTHERS if number % 5 else SAME, 0)
        pairs.observe_noise("same", SAME, 0)
    summary = pairs.summary(0)
    assert (summary.verdict, summary.total.noise_pair_count) == (Verdict.INCONCLUSIVE, 1000)


def test_an_input_is_known_while_it_comes_and_until_many_others_did() -> None:
    pairs = window()
    for number in range(DIGESTS_MAX + 1):
        pairs.observe("id", str(number), SAME, 0)
        pairs.observe("id", "0", SAME, 0)
    assert pairs.summary(0).total.distinct_count == DIGESTS_MAX + 1
    pairs.observe("id", "1", SAME, 0)
    assert pairs.summary(0).total.distinct_count == DIGESTS_MAX + 2, "the one that came longest ago is forgotten"
    pairs.observe("id", "3", SAME, 0)
    assert pairs.summary(0).total.distinct_count == DIGESTS_MAX + 2


def test_of_the_last_seconds_no_interval_is_told() -> None:
    summary = filled(100, 5)
    assert (summary.recent.low, summary.recent.high, summary.recent.distinct_count) == (0, 1, 0)
    assert summary.recent.rate == 100 / 105


def test_noise_is_counted_apart() -> None:
    summary = filled(5, 5, (3, 1))
    assert (summary.total.pair_count, summary.total.noise_pair_count, summary.total.noise_bad_count) == (10, 4, 1)
    pairs = window()
    pairs.observe_noise("id", compare(None, NOTHING), 0)
    assert pairs.summary(0).total.noise_pair_count == 0


def test_what_is_recent_is_ten_seconds_old_at_most() -> None:
    pairs = window()
    for second in range(30):
        pairs.observe(str(second), str(second), OTHERS if second < 15 else SAME, second * SECOND_NS)
        pairs.observe_noise(str(second), SAME, second * SECOND_NS)
        pairs.observe_latency(10, 20, second * SECOND_NS)
    summary = pairs.summary(29 * SECOND_NS + 5)
    assert (summary.recent.pair_count, summary.recent.bad_count, summary.recent.noise_pair_count) == (10, 0, 10)
    assert (summary.total.pair_count, summary.total.bad_count, summary.total.noise_pair_count) == (30, 15, 30)
    assert summary.recent.worst == ()
    assert len(summary.total.worst) == WORST_MAX
    assert pairs.summary(33 * SECOND_NS).recent.pair_count == 6
    later = pairs.summary(99 * SECOND_NS)
    assert (later.recent.pair_count, later.total.pair_count) == (0, 30)
    assert later.total.results == summary.total.results
    assert later.total.by_class == summary.total.by_class


def test_a_late_pair_counts_as_of_now() -> None:
    pairs = window()
    pairs.observe("a", "a", SAME, 5 * SECOND_NS)
    pairs.observe("b", "b", SAME, 3 * SECOND_NS)
    assert pairs.summary(14 * SECOND_NS).recent.pair_count == 2


def test_classes_that_agree_tie_and_differ() -> None:
    pairs = window()
    for number, each in enumerate(
        (
            scores([0.9, 0.1, 0], [0.8, 0.2, 0]),
            scores([0.9, 0.1, 0], [0.1, 0.9, 0]),
            scores([0.9, 0.1, 0], [0.1, 0.9, 0]),
            scores([0.9, 0.1, 0], [0.1, 0, 0.9]),
            scores([0.51, 0.49, 0], [0.49, 0.51, 0]),
            scores([0, 0, 1], [0, 0, 1]),
        )
    ):
        pairs.observe("id", str(number), each, 0)
    total = pairs.summary(0).total
    assert total.by_class == (ClassAgreement("p", "0", 5, 1, 1), ClassAgreement("p", "2", 1, 1, 0))
    assert total.confusions == (Confusion("p", "0", "1", 2), Confusion("p", "0", "2", 1))


def test_every_row_of_a_request_has_a_class() -> None:
    pairs = window()
    pairs.observe("id", "id", compare({"label": np.array([1, 1, 2])}, {"label": np.array([1, 2, 2])}), 0)
    total = pairs.summary(0).total
    assert (total.pair_count, total.bad_count) == (1, 1)
    assert total.by_class == (ClassAgreement("label", "1", 2, 1, 0), ClassAgreement("label", "2", 1, 1, 0))


def test_classes_are_bounded() -> None:
    pairs = window()
    for number in range(200):
        pairs.observe("id", "id", labels(number, number + (number >= 150)), number * SECOND_NS)
    total = pairs.summary(200 * SECOND_NS).total
    assert len(total.by_class) == CLASSES_MAX + 1
    assert total.by_class[-1] == ClassAgreement("label", OTHER, 136, 86, 0)
    assert [each.live_class for each in total.by_class[:-1]] == [str(number) for number in range(CLASSES_MAX)]
    assert total.confusions == (Confusion("label", OTHER, OTHER, 50),), "of two classes beyond those told apart"
    pairs.observe("id", "id", labels(3, 999), 200 * SECOND_NS)
    assert pairs.summary(200 * SECOND_NS).total.confusions[1:] == (Confusion("label", "3", OTHER, 1),)


def test_the_most_frequent_confusions_of_all_outputs_are_told() -> None:
    pairs = window()
    for first in range(10):
        for second in range(10):
            live = {name: np.array([first] * (1 + first * (name == "b"))) for name in "ab"}
            shadow = {name: np.array([second + 1] * (1 + first * (name == "b"))) for name in "ab"}
            pairs.observe("id", "id", compare(live, shadow), 0)
    confusions = pairs.summary(0).total.confusions
    assert len(confusions) == CONFUSIONS_MAX
    assert [each.rows for each in confusions] == sorted((each.rows for each in confusions), reverse=True)
    assert (confusions[0].output, confusions[0].live_class, confusions[0].rows) == ("b", "9", 10)


def test_what_a_summary_costs_does_not_grow_with_slices() -> None:
    """Outputs and classes are counted once, in all, and no slice of time has them."""
    pairs = window()
    for second in range(5):
        pairs.observe("id", "id", OTHERS, second * SECOND_NS)
    summary = pairs.summary(4 * SECOND_NS)
    assert (summary.recent.pair_count, summary.recent.outputs, summary.recent.by_class) == (5, (), ())
    assert summary.total.by_class == (ClassAgreement("label", "3", 5, 0, 0),)


def test_what_is_kept_of_the_worst_pairs_does_not_grow_with_rows() -> None:
    pairs = window()
    pairs.observe("id", "id", compare({"label": np.zeros(9, int)}, {"label": np.ones(9, int)}), 0)
    (worst,) = pairs.summary(0).total.worst
    assert worst.pair.decider is not None
    assert (worst.pair.decider.mismatch_count, worst.pair.decider.live_classes) == (9, ())


def test_worst_pairs_are_the_worst_and_few() -> None:
    pairs = window()
    live = np.array([[1.0, 2.0]], "f4")
    for number in range(20):
        pairs.observe(str(number), str(number), compare({"y": live}, {"y": live + number * 7 % 20}), number * SECOND_NS)
    pairs.observe("broken", "broken", compare({"y": live}, NOTHING), 0)
    pairs.observe("dead", "dead", compare(NOTHING, None), 0)
    worst = pairs.summary(0).total.worst
    assert [each.inference_id for each in worst[:2]] == ["dead", "broken"]
    distances = [each.pair.decider.distance for each in worst[2:] if each.pair.decider]
    assert distances == [19, 18, 17]


def test_outputs_are_told_with_their_measures() -> None:
    pairs = window()
    live = np.array([[3.0, 4.0]], "f4")
    for shadow in (live, live + 1, live + np.inf, live[0]):
        pairs.observe("id", "id", compare({"y": live}, {"y": shadow}), 0)
    (output,) = pairs.summary(0).total.outputs
    assert (output.output, output.pairs, output.bad, output.nonfinite) == ("y", 4, 3, 1)
    assert output.measures["max_abs"] == Spread(0.5, 0, 1)
    assert output.measures["top1"] == Spread(2 / 3, 0, 1)
    assert "js" not in output.measures


def test_latency_is_told_as_a_ratio() -> None:
    pairs = window()
    for number in range(1, 101):
        pairs.observe_latency(1000, 10 * number, 0)
    pairs.observe_latency(0, 5, 0)
    total = pairs.summary(0).total
    assert total.latency_p50 == pytest.approx(0.5, rel=0.05)
    assert total.latency_p99 == pytest.approx(1, rel=0.05)


EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=30)


@given(EVENTS, EVENTS)
def test_two_tallies_add_up(left: list[tuple[int, int, bool]], right: list[tuple[int, int, bool]]) -> None:
    def tally(events: list[tuple[int, int, bool]]) -> Tally:
        counted = Tally()
        for live, shadow, noise in events:
            if noise:
                counted.add_noise(labels(live, shadow))
            else:
                counted.add("id", labels(live, shadow))
                counted.add_latency(100, live + 1)
        return counted

    both, once = tally(left), tally(left + right).told()
    both.merge(tally(right))
    added = both.told()
    for name in ("pair_count", "bad_count", "results", "noise_rate", "latency_p50"):
        assert getattr(added, name) == getattr(once, name)
    assert isinstance(added, Agreement)
