"""What the figures of moved traffic count: answers held against the revision they name, windows around changes, and
the lag of a loop. Each fault that they must find is put in and found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from turnout_bench.answers import Answer, Question, golden_questions, revision_of, tally
from turnout_bench.changes import Change, around, percentile_ratio, strayed
from turnout_bench.figures.loading import lags_ms
from turnout_bench.pauses import undisturbed, unlike
from turnout_bench.results import NOT_SENT, OK, UNANSWERED, Trace
from turnout_bench.samples import sample
from turnout_bench.witness import Witness
from zoo.samples import DIGITS

MS = 1_000_000
X = np.ones((1, 2), np.float32)
QUESTION = Question(b"", {f"m/{version}": sample("m", {"x": X}, {"y": X * version}) for version in (1, 2)})


def answer(version: int, value: float | None = None, label: str | None = None) -> Answer:
    """What version `version` says, with these faults."""
    message = Answer(model_name="m", model_version=str(version))
    message.parameters["turnout_revision"].string_param = label or f"m/{version}"
    message.outputs.add(name="y", datatype="FP32", shape=[1, 2])
    message.raw_output_contents.append((X * (version if value is None else value)).tobytes())
    return message


@pytest.mark.parametrize("version", [1, 2])
def test_an_answer_is_right_for_the_revision_that_it_names_alone(version: int) -> None:
    assert QUESTION.told_apart()
    assert revision_of(answer(version)) == f"m/{version}"
    assert QUESTION.right(answer(version))
    assert QUESTION.right(answer(version, version * (1 + 5e-4))), "within tolerance"
    assert not QUESTION.right(answer(version, 3 - version)), "the other's answer under this label"
    assert not QUESTION.right(answer(version, 1.5)), "nobody's answer"
    assert not QUESTION.right(answer(version, label=f"m/{3 - version}")), "parameter and model_version differ"
    assert not QUESTION.right(answer(3)), "a revision that nobody loaded"
    assert not QUESTION.right(Answer(model_name="m", model_version=str(version)))


def test_an_answer_that_could_be_of_either_revision_is_wrong() -> None:
    alike = Question(b"", {f"m/{version}": sample("m", {"x": X}, {"y": X}) for version in (1, 2)})
    assert not alike.told_apart()
    assert not alike.right(answer(1))


def test_the_golden_samples_tell_the_digits_apart() -> None:
    questions = golden_questions("digits", {version: DIGITS / str(version) for version in (1, 2)})
    assert len(questions) == 64
    assert set(questions[0].by_revision) == {"digits/1", "digits/2"}
    assert len({question.frame for question in questions}) > 60
    with pytest.raises(ValueError, match="answer a golden sample alike"):
        golden_questions("digits", {1: DIGITS / "1", 2: DIGITS / "1"})


FINE = [OK] * 4, [[answer(1)], [answer(1)], [answer(2)], [answer(2)]]


def test_a_run_without_faults() -> None:
    told = tally([QUESTION], *FINE)
    assert (told.requests, told.bad, told.by_revision) == (4, 0, {"m/1": 2, "m/2": 2})


@pytest.mark.parametrize(
    ("outcome", "answers", "fault"),
    [
        ("UNAVAILABLE", [], "failed"),
        (NOT_SENT, [], "failed"),
        (UNANSWERED, [], "lost"),
        (OK, [], "lost"),
        (OK, [answer(1), answer(1)], "doubled"),
        (OK, [answer(2, 1)], "wrong"),
        (OK, [answer(1, label="m/2")], "wrong"),
    ],
)
def test_each_fault_is_counted_as_what_it_is(outcome: str, answers: list[Answer], fault: str) -> None:
    told = tally([QUESTION], [*FINE[0], outcome], [*FINE[1], answers])
    assert {name: getattr(told, name) for name in ("failed", "lost", "doubled", "wrong")} == {
        "failed": 0, "lost": 0, "doubled": 0, "wrong": 0, fault: 1,
    }  # fmt: skip
    assert told.bad == 1


def test_an_answer_to_nobody_is_doubled() -> None:
    assert tally([QUESTION], *FINE, strays=2).doubled == 2
    witness = Witness("", [QUESTION], 1, 1)
    assert [witness.hear(name, answer(1)) for name in ("a", "a", "", "-1", "x")] == [10, 10, -1, -1, -1]
    assert witness.strays == 3
    assert [len(answers) for answers in witness.heard(11)] == [*[0] * 10, 2]


CHANGES = [
    Change("swap", "m/2", 100 * MS, 110 * MS),
    Change("rollback", "m/1", 300 * MS, 301 * MS),
    Change("swap", "m/2", 380 * MS, 390 * MS),
]


def at(*milliseconds: float) -> np.ndarray:
    return (np.asarray(milliseconds) * MS).astype(np.int64)


def test_requests_are_in_the_window_of_the_change_around_which_they_were_due() -> None:
    due = at(0, 49, 50, 105, 160, 161, 249, 250, 329, 331, 440, 441, 999)
    inside, belongs = around(due, CHANGES, 50 * MS)
    assert inside.tolist() == [False, False, *[True] * 3, False, False, *[True] * 4, False, False]
    assert belongs.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2], "overlapping windows: the later"


@pytest.mark.parametrize(
    ("sent", "answered", "named", "found"),
    [
        (120, 125, "m/2", 0),
        (120, 125, "m/1", 1),  # it had lost all traffic
        (120, 299, "m/1", 1),
        (120, 302, "m/1", 0),  # may have been routed after the next change
        (105, 125, "m/1", 0),  # before the first was in force
        (50, 60, "m/2", 0),
        (400, 9000, "m/1", 1),
        (400, 9000, "", 0),  # no answer: counted elsewhere
    ],
)
def test_an_answer_of_a_revision_without_traffic_strays(sent: int, answered: int, named: str, found: int) -> None:
    assert strayed(at(sent), at(answered), [named], CHANGES) == found


def test_the_ratio_of_percentiles_finds_a_pause_around_changes() -> None:
    rng = np.random.default_rng(1)
    belongs = np.repeat(np.arange(50), 100)
    inside = np.tile(np.arange(100) < 40, 50)
    values = rng.exponential(1.0, len(belongs))
    even = percentile_ratio(values, inside, belongs)
    assert even.low <= 1 <= even.high and even.high < 1.5
    assert even.rounds == 50
    paused = percentile_ratio(values + np.where(inside & (np.arange(5000) % 10 == 0), 20, 0), inside, belongs)
    assert paused.low > 3
    assert np.isnan(percentile_ratio(values, np.ones(5000, bool), belongs).value)


def test_a_kept_loop_shows_in_proportion_to_its_length() -> None:
    """Calls every 2 ms, each takes 1 ms; the loop is kept for 40 ms in a load of a second."""
    due = at(*range(0, 3000, 2))

    def lags(kept: Sequence[int], late_ms: int = 0) -> tuple[np.ndarray, np.ndarray]:
        sent = due + late_ms * MS
        free = np.where((sent >= kept[0] * MS) & (sent < kept[1] * MS), kept[1] * MS, sent)
        return lags_ms(Trace(due, sent, free + MS, (OK,) * len(due)), 1000 * MS, 2000 * MS)

    loading, idle = lags((1500, 1540))
    assert (len(loading), len(idle)) == (501, 999)
    assert (loading > 0).sum() == 20 and loading.max() == 40
    assert idle.max() == 0
    assert np.percentile(loading, 99) == pytest.approx(30, abs=1)
    assert lags((2500, 2540))[0].max() == 0, "outside the load it is not the load's"
    assert lags((0, 0), late_ms=1)[0].max() == 0, "the generator's own"


def test_requests_that_met_a_pause_are_left_out() -> None:
    begun, done = np.asarray([0, 10, 20, 30, 45]), np.asarray([9, 22, 25, 60, 50])
    assert undisturbed(begun, done, []).all()
    assert undisturbed(begun, done, [(9, 9), (21, 22), (55, 56)]).tolist() == [False, False, False, False, True]
    assert undisturbed(begun, done, [(26, 29)]).all(), "nobody waited"


def test_sides_of_which_different_shares_are_left_out_cannot_be_compared() -> None:
    assert unlike({"of on": 0.05, "of off": 0.06}) == ()
    (doubt,) = unlike({"of on": 0.05, "of off": 0.08})
    assert "8.0% of the requests of off are left out, but 5.0% of those of on" in doubt
