"""References: labels that arrive later, what they make of both sides, and that memory is bounded."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from turnout.core.classes import ROWS_MAX as KEPT_MAX
from turnout.core.divergence import compare
from turnout.core.evidence import log10_better
from turnout.core.gates import Verdict
from turnout.core.pairs import PairDivergence
from turnout.core.references import Learned, References, Score
from turnout.core.tally import CLASSES_MAX, OTHER


def labels(live: list[int], shadow: list[int]) -> PairDivergence:
    p = np.eye(10, dtype="f4")
    return compare(
        {"label": np.array(live), "p": p[live], "raw": p[live] * 3},
        {"label": np.array(shadow), "p": p[shadow], "raw": p[shadow] * 3},
    )


@pytest.mark.parametrize(
    ("live", "shadow", "label", "want"),
    [
        (3, 3, 3, Score(both_right=1)),
        (3, 8, 3, Score(only_live=1)),
        (8, 3, 3, Score(only_shadow=1)),
        (8, 9, 3, Score(both_wrong=1)),
    ],
)
def test_a_label_scores_both_sides(live: int, shadow: int, label: int, want: Score) -> None:
    references = References(10)
    references.remember("id", labels([live], [shadow]))
    for output in ("label", "p"):
        assert references.learn("id", output, label) is Learned.SCORED
        assert references.score(output) == want
        assert references.scores(output) == {"3": want}
        assert references.learn("id", output, label) is Learned.DUPLICATE
        assert references.score(output) == want
    assert references.outputs == ("label", "p")


def test_the_outputs_that_a_label_can_be_of() -> None:
    references = References(10)
    references.remember("id", labels([1], [2]))
    assert references.outputs_of("id") == ("label", "p"), "raw is not compared by class"
    assert references.outputs_of("other") == ()
    references.learn("id", "p", 1)
    assert references.outputs_of("id") == ("label", "p"), "also when it has one: the next is a duplicate"


def test_what_nobody_remembers_is_unknown() -> None:
    references = References(2)
    assert references.learn("id", "label", 3) is Learned.UNKNOWN
    references.remember("id", labels([3], [3]))
    assert references.learn("id", "raw", 3) is Learned.UNKNOWN, "no classes"
    assert references.learn("id", "other", 3) is Learned.UNKNOWN
    references.remember("failed", compare(None, None))
    assert len(references) == 1
    assert references.score("label") == Score()
    assert references.scores("label") == {}


def test_the_oldest_makes_room() -> None:
    references = References(2)
    for name in ("a", "b", "a", "c"):
        references.remember(name, labels([3], [3]))
    assert len(references) == 2
    assert [references.learn(name, "label", 3) for name in "abc"] == [
        Learned.SCORED, Learned.UNKNOWN, Learned.SCORED,
    ]  # fmt: skip


def test_rows_are_bounded_too() -> None:
    references = References(100, rows_max=10)
    for name, rows in (("a", 3), ("b", 3), ("b", 2), ("c", 2)):
        references.remember(name, compare({"y": np.zeros(rows, int)}, {"y": np.zeros(rows, int)}))
    assert len(references) == 3
    assert references.learn("b", "y", [0, 0]) is Learned.SCORED, "what is scored has no rows left"
    references.remember("d", compare({"y": np.zeros(5, int)}, {"y": np.zeros(5, int)}))
    assert len(references) == 4
    references.remember("e", compare({"y": np.zeros(1, int)}, {"y": np.zeros(1, int)}))
    assert [references.outputs_of(name) for name in "abcde"] == [(), ("y",), ("y",), ("y",), ("y",)]
    references.remember("f", compare({"y": np.zeros(11, int)}, {"y": np.zeros(11, int)}))
    assert len(references) == 0


def test_an_output_of_too_many_rows_cannot_be_scored() -> None:
    references = References(10)
    many = {"y": np.zeros(KEPT_MAX + 1, int), "label": np.zeros(1, int)}
    references.remember("id", compare(many, many))
    assert references.outputs_of("id") == ("label",)
    assert references.learn("id", "y", [0] * (KEPT_MAX + 1)) is Learned.UNKNOWN


def test_an_id_that_comes_again_is_another_request() -> None:
    references = References(2)
    references.remember("id", labels([3], [3]))
    references.learn("id", "label", 3)
    references.remember("id", labels([3], [4]))
    assert references.learn("id", "label", 4) is Learned.SCORED
    assert references.score("label") == Score(both_right=1, only_shadow=1)


def test_each_row_has_its_label() -> None:
    references = References(2)
    references.remember("id", labels([1, 2, 3], [1, 3, 3]))
    with pytest.raises(ValueError, match=r"there are 1 label\(s\) for output 'label' of 'id', which has 3 row"):
        references.learn("id", "label", 1)
    assert references.learn("id", "label", [1, 2, 4]) is Learned.SCORED
    assert references.score("label") == Score(both_right=1, only_live=1, both_wrong=1)
    assert references.scores("label")["2"] == Score(only_live=1)


def test_how_many_rows_wait_for_a_label() -> None:
    references = References(2)
    references.remember("id", labels([1, 2, 3], [1, 3, 3]))
    assert [references.rows_of(*at) for at in (("id", "label"), ("id", "raw"), ("other", "label"))] == [3, 0, 0]
    references.learn("id", "label", [1, 2, 4])
    assert references.rows_of("id", "label") == 0


def test_classes_are_bounded() -> None:
    references = References(200)
    for number in range(100):
        references.remember(str(number), compare({"y": np.array([number])}, {"y": np.array([number])}))
        references.learn(str(number), "y", number)
    assert len(references.scores("y")) == CLASSES_MAX + 1
    assert references.scores("y")[OTHER].rows == 100 - CLASSES_MAX
    assert references.score("y").both_right == 100


@pytest.mark.parametrize(
    ("only_shadow", "only_live", "want"),
    [(40, 5, Verdict.PASS), (5, 40, Verdict.FAIL), (6, 5, Verdict.INCONCLUSIVE)],
)
def test_whether_a_disagreement_is_an_improvement(only_shadow: int, only_live: int, want: Verdict) -> None:
    score = Score(500, only_live, only_shadow, 100)
    assert score.verdict(0.01) is want
    assert score.log10_evidence == log10_better(only_shadow, only_live)
    assert score.rows == 600 + only_shadow + only_live


def test_a_better_shadow_is_found_and_an_equal_one_is_not() -> None:
    """Seeded: a shadow that is right in 95 % against 88 %, and one that is right as often as the live side."""
    rng = Random(17)
    for accuracy, want in ((0.95, Verdict.PASS), (0.88, Verdict.INCONCLUSIVE), (0.75, Verdict.FAIL)):
        references = References(1)
        for number in range(2000):
            right = rng.randrange(10)
            sides = [right if rng.random() < share else (right + 1) % 10 for share in (0.88, accuracy)]
            pair = compare({"label": np.array(sides[:1])}, {"label": np.array(sides[1:])})
            references.remember(str(number), pair)
            references.learn(str(number), "label", right)
        assert references.score("label").rows == 2000
        assert references.score("label").verdict(0.01) is want
