"""Rows by class: counted as a slow oracle counts them, few and many alike; what grows with rows is bounded."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.core.classes import KINDS_MAX, ROWS_MAX, Rows
from turnout.core.comparators import Comparator, Method, by_output
from turnout.core.divergence import compare
from turnout.core.measures import ELEMENTS_MAX
from turnout.core.pairs import ClassRows, OutputDivergence, Result

ROW = st.tuples(st.integers(-2, 3), st.integers(-2, 3), st.booleans())


def only(live: Any, shadow: Any, *asked: Comparator) -> OutputDivergence:
    return compare({"y": np.asarray(live)}, {"y": np.asarray(shadow)}, by_output(asked)).outputs[0]


def slow_counts(rows: list[tuple[int, int, bool]]) -> Counter[tuple[int, int, Result]]:
    return Counter(
        (a, b, Result.MATCH if a == b else Result.NEAR_TIE if near else Result.MISMATCH) for a, b, near in rows
    )


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=30), st.sampled_from([1, ROWS_MAX]))
def test_rows_are_counted_whether_they_are_few_or_many(rows: list[tuple[int, int, bool]], times: int) -> None:
    rows = rows * times
    live, shadow = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    near = np.array([index for index, (a, b, tie) in enumerate(rows) if tie and a != b], np.intp)
    counted = Rows(live, shadow, near).counted()
    assert {(each.live, each.shadow, each.result): each.rows for each in counted} == slow_counts(rows)
    assert [each.rows for each in counted] == sorted((each.rows for each in counted), reverse=True)


@pytest.mark.parametrize("rows", [ROWS_MAX, ROWS_MAX + 4])
def test_of_many_kinds_only_the_results_of_the_rest_are_counted(rows: int) -> None:
    live = np.arange(rows)
    shadow = live + (live % 4 == 3)
    near = np.arange(3, rows, 8)
    live[:2] = shadow[:2] = 7
    counted = Rows(live, shadow, near).counted()
    assert counted[0] == ClassRows(7, 7, Result.MATCH, 2)
    assert len(counted) <= KINDS_MAX + len(Result)
    assert {each.result for each in counted[KINDS_MAX:]} == {Result.MATCH, Result.MISMATCH, Result.NEAR_TIE}
    assert all((each.live, each.shadow) == (None, None) for each in counted[KINDS_MAX:])
    said = Counter[Result]()
    for each in counted:
        said[each.result] += each.rows
    ties = rows // 8 + (rows % 8 > 3)
    assert said == {Result.MATCH: rows - rows // 4, Result.NEAR_TIE: ties, Result.MISMATCH: rows // 4 - ties}


def test_classes_are_kept_row_by_row_only_of_few_rows() -> None:
    few, many = np.arange(ROWS_MAX), np.zeros(ROWS_MAX + 1, int)
    assert only(few, few).live_classes == tuple(range(ROWS_MAX))
    output = only(many, many + 1)
    assert (output.live_classes, output.shadow_classes) == ((), ())
    assert output.class_rows == (ClassRows(0, 1, Result.MISMATCH, ROWS_MAX + 1),)
    truth = only(np.zeros(3, "?"), np.ones(3, "?"))
    assert truth.class_rows == (ClassRows(0, 1, Result.MISMATCH, 3),)
    assert [type(each) for each in (*truth.live_classes, truth.class_rows[0].live)] == [int] * 4


def test_a_pair_without_rows_says_the_same_and_holds_nothing_that_grows() -> None:
    label, scores = {"label": np.array([1, 2])}, {"p": np.eye(4)[[1, 2]]}
    pair = compare({**label, **scores}, {"label": np.array([1, 3]), "p": np.eye(4)[[1, 3]]})
    bare = pair.without_rows()
    assert (bare.result, bare.severity) == (pair.result, pair.severity)
    assert bare.decider is bare.outputs[1]
    assert not any(each.class_rows or each.live_classes or each.shadow_classes for each in bare.outputs)
    assert bare.without_rows() is bare
    failed = compare(None, None)
    assert failed.without_rows() is failed


LARGE = (ELEMENTS_MAX // 10 + 1, 10)


@pytest.fixture(scope="module")
def large() -> tuple[Any, Any]:
    """More elements than are ranked; the second row is of another class."""
    live = np.random.default_rng(3).random(LARGE, dtype="f4")
    live /= live.sum(-1, keepdims=True)
    shadow = live.copy()
    shadow[1] = np.roll(live[1], 1)
    return live, shadow


def test_a_large_output_has_the_measures_that_are_cheap(large: tuple[Any, Any]) -> None:
    live, shadow = large
    output = only(live, shadow)
    assert output.comparator is not None
    assert (output.comparator.method, output.result) == (Method.ARGMAX, Result.MISMATCH)
    assert (output.mismatch_count, output.element_count) == (1, LARGE[0])
    assert output.top1 == pytest.approx(1 - 1 / LARGE[0])
    assert output.max_abs == np.abs(live.astype("f8") - shadow).max()
    assert (output.live_argmax, output.shadow_argmax) == (live[1].argmax(), shadow[1].argmax())
    assert (output.topk, output.rank, output.cosine, output.js) == (None,) * 4
    assert output.live_nonfinite == 0
    same = only(live[: ELEMENTS_MAX // 10], shadow[: ELEMENTS_MAX // 10])
    assert None not in (same.topk, same.rank, same.cosine, same.js)


@pytest.mark.parametrize("method", [Method.TOPK, Method.COSINE, Method.JS])
def test_a_large_output_is_held_to_what_is_asked_for(large: tuple[Any, Any], method: Method) -> None:
    few = only(large[0][:5], large[1][:5], Comparator("y", method))
    output = only(*large, Comparator("y", method))
    assert (output.result, output.mismatch_count) == (Result.MISMATCH, 1)
    assert output.distance == pytest.approx(few.distance)


def test_a_near_tie_in_an_image_excuses_its_labels() -> None:
    """One row that nearly ties among as many as a picture has."""
    live = np.zeros((1, 64, 64, 3))
    live[..., 2] = 1
    live[0, 5, 7] = (0.4999, 0.5, 0.0001)
    shadow = live.copy()
    shadow[0, 5, 7] = (0.5, 0.4999, 0.0001)
    sides = [{"p": side, "label": side.argmax(-1)[..., None]} for side in (live, shadow)]
    pair = compare(*sides)
    assert pair.result is Result.NEAR_TIE
    rows = (ClassRows(2, 2, Result.MATCH, 4095), ClassRows(1, 0, Result.NEAR_TIE, 1))
    assert [each.class_rows for each in pair.outputs] == [rows, rows]
    sides[1]["label"][0, 0, 0] = 1
    assert compare(*sides).result is Result.MISMATCH
