"""Pairs of answers: tables for what each method says, and every measure against a slow oracle."""

from __future__ import annotations

from math import isclose, isnan
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.spatial.distance import cosine, jensenshannon
from scipy.stats import spearmanr

from turnout.core.comparators import Comparator, Method, Precision, by_output
from turnout.core.divergence import compare
from turnout.core.measures import Apart
from turnout.core.outputs import compare_output
from turnout.core.pairs import OutputDivergence, PairDivergence, Result

NAN, INF = float("nan"), float("inf")


def one(live: Any, shadow: Any, *comparators: Comparator, **options: Any) -> OutputDivergence:
    """The only output of a pair, `y`."""
    pair = compare({"y": np.asarray(live)}, {"y": np.asarray(shadow)}, by_output(comparators), **options)
    assert pair.decider is pair.outputs[0]
    assert pair.result is pair.outputs[0].result
    return pair.outputs[0]


def near_ties(output: OutputDivergence) -> int:
    return sum(each.rows for each in output.class_rows if each.result is Result.NEAR_TIE)


def by(method: Method, **parameters: Any) -> Comparator:
    return Comparator("y", method, **parameters)


P = np.array([[0.6, 0.3, 0.1]], "f4")
Q = np.array([[0.3, 0.6, 0.1]], "f4")
TIE = np.array([[0.45001, 0.44999, 0.1]], "f4")
EIT = np.array([[0.44999, 0.45001, 0.1]], "f4")
X = np.array([[1.0, -2.0, 3.0]], "f4")


@pytest.mark.parametrize(
    ("live", "shadow", "comparators", "result", "method"),
    [
        # What is usual: by datatype and values.
        (X, X, (), Result.MATCH, Method.ALLCLOSE),
        (X, X + 1e-5, (), Result.MATCH, Method.ALLCLOSE),
        (X, X + 1e-3, (), Result.MISMATCH, Method.ALLCLOSE),
        (X.astype("f8"), X.astype("f8") + 1e-3, (), Result.MISMATCH, Method.ALLCLOSE),
        (X.astype("f2"), X + 1e-3, (), Result.MATCH, Method.ALLCLOSE),  # the coarser side
        (X, (X + 1e-2).astype(ml_dtypes.bfloat16), (), Result.MATCH, Method.ALLCLOSE),
        (X.astype("f2"), X.astype("f2") + 1, (), Result.MISMATCH, Method.ALLCLOSE),
        (P, np.array([[0.7, 0.2, 0.1]], "f4"), (), Result.MATCH, Method.ARGMAX),
        (P, Q, (), Result.MISMATCH, Method.ARGMAX),
        (TIE, EIT, (), Result.NEAR_TIE, Method.ARGMAX),
        (P.astype(ml_dtypes.bfloat16), Q, (), Result.MISMATCH, Method.ARGMAX),
        (np.array([[2.0, -1.0]], "f4"), np.array([[2.0, -1.0]], "f4"), (), Result.MATCH, Method.ALLCLOSE),
        (np.array([[1.0]], "f4"), np.array([[1.0]], "f4"), (), Result.MATCH, Method.ALLCLOSE),
        (np.array([3, 4]), np.array([3, 4]), (), Result.MATCH, Method.EXACT),
        (np.array([3, 4]), np.array([3, 5]), (), Result.MISMATCH, Method.EXACT),
        (np.array([True]), np.array([False]), (), Result.MISMATCH, Method.EXACT),
        (np.array(["", "a"], object), np.array(["", "a"], object), (), Result.MATCH, Method.EXACT),
        (np.array(["", "a"], object), np.array(["", "b"], object), (), Result.MISMATCH, Method.EXACT),
        # NaN and infinities, whatever the method.
        (X * NAN, X * NAN, (), Result.MATCH, Method.ALLCLOSE),
        (np.array([[1, NAN]]), np.array([[1, 2.0]]), (), Result.MISMATCH, Method.ALLCLOSE),
        (np.array([[1, 2.0]]), np.array([[1, NAN]]), (), Result.MISMATCH, Method.ALLCLOSE),
        (np.array([[9, NAN]]), np.array([[9, 2.0]]), (by(Method.ARGMAX),), Result.MISMATCH, Method.ARGMAX),
        (np.array([[9, NAN]]), np.array([[8, NAN]]), (by(Method.ARGMAX),), Result.MATCH, Method.ARGMAX),
        (np.array([[9, NAN]]), np.array([[8, 1.0]]), (by(Method.TOPK, k=1),), Result.MISMATCH, Method.TOPK),
        (np.array([[9, NAN]]), np.array([[8, 1.0]]), (by(Method.COSINE, threshold=1),), Result.MISMATCH, Method.COSINE),
        (np.array([[9, NAN]]), np.array([[9, NAN]]), (by(Method.COSINE),), Result.MATCH, Method.COSINE),
        (np.array([[9, INF]]), np.array([[9, INF]]), (), Result.MATCH, Method.ALLCLOSE),
        (np.array([[9, INF]]), np.array([[9, -INF]]), (), Result.MISMATCH, Method.ALLCLOSE),
        (np.array([[9, INF]]), np.array([[9, 1.0]]), (), Result.MISMATCH, Method.ALLCLOSE),
        (np.array([[9, 1e308]]), np.array([[9, -1e308]]), (), Result.MISMATCH, Method.ALLCLOSE),
        (np.array([[9, -INF]]), np.array([[8, -9.0]]), (by(Method.ARGMAX),), Result.MATCH, Method.ARGMAX),
        (np.array([[INF, INF]]), np.array([[INF, -9]]), (by(Method.ARGMAX),), Result.MATCH, Method.ARGMAX),
        (INF * P, np.array([[1, INF, 1]]), (by(Method.ARGMAX, near_tie=0.1),), Result.NEAR_TIE, Method.ARGMAX),
        # Methods that are asked for.
        (X, X + 1e-3, (by(Method.ALLCLOSE, atol=0.01),), Result.MATCH, Method.ALLCLOSE),
        (X, X, (by(Method.EXACT),), Result.MATCH, Method.EXACT),
        (X, X + 1e-6, (by(Method.EXACT),), Result.MISMATCH, Method.EXACT),
        (P, Q, (by(Method.ARGMAX, near_tie=0.31),), Result.NEAR_TIE, Method.ARGMAX),
        # The live answer was undecided between two classes, and the shadow says a third one, or one of the two.
        (np.array([[0.4997, 0.5, 0.0003]]), np.array([[0.0, 0.0, 1.0]]), (), Result.MISMATCH, Method.ARGMAX),
        (np.array([[0.4997, 0.5, 0.0003]]), np.array([[1.0, 0.0, 0.0]]), (), Result.NEAR_TIE, Method.ARGMAX),
        (P, Q[:, ::-1], (by(Method.ARGMAX, near_tie=0.4),), Result.NEAR_TIE, Method.ARGMAX),
        (P, P[:, ::-1], (by(Method.ARGMAX, near_tie=0.4),), Result.MISMATCH, Method.ARGMAX),
        (P, Q, (by(Method.TOPK, k=2),), Result.MATCH, Method.TOPK),
        (P, Q, (by(Method.TOPK, k=1),), Result.MISMATCH, Method.TOPK),
        (P, Q, (by(Method.TOPK, k=9),), Result.MATCH, Method.TOPK),
        (P, Q[:, ::-1], (by(Method.TOPK, k=2, threshold=0.5),), Result.MATCH, Method.TOPK),
        (X, X * 2, (by(Method.COSINE),), Result.MATCH, Method.COSINE),
        (X, -X, (by(Method.COSINE),), Result.MISMATCH, Method.COSINE),
        (X * 0, X * 0, (by(Method.COSINE, threshold=0),), Result.MATCH, Method.COSINE),
        (X * 0, X, (by(Method.COSINE),), Result.MISMATCH, Method.COSINE),
        (P, P, (by(Method.JS, threshold=0),), Result.MATCH, Method.JS),
        (P, Q, (by(Method.JS),), Result.MISMATCH, Method.JS),
        (P, Q, (by(Method.JS, threshold=0.5),), Result.MATCH, Method.JS),
        (X, X + 1, (by(Method.JS, threshold=0.99),), Result.MISMATCH, Method.JS),  # no distribution
        (X * 0, X * 0 + 1, (by(Method.JS, threshold=0.99),), Result.MISMATCH, Method.JS),
        (X, X, (by(Method.JS, threshold=0),), Result.MATCH, Method.JS),
        (P, Q, (by(Method.JS, threshold=0.5), by(Method.ARGMAX)), Result.MISMATCH, Method.ARGMAX),  # the worst
        (P, P, (by(Method.JS), by(Method.ARGMAX)), Result.MATCH, Method.JS),
        (np.array([3, 40]), np.array([3, 41]), (by(Method.ALLCLOSE, atol=1),), Result.MATCH, Method.ALLCLOSE),
        (np.array([[7, 9]]), np.array([[8, 9]]), (by(Method.ARGMAX),), Result.MATCH, Method.ARGMAX),
        (np.array([3]), np.array([4]), (by(Method.ALLCLOSE, atol=1), by(Method.EXACT)), Result.MISMATCH, Method.EXACT),
        (np.array([3]), np.array([9]), (by(Method.EXACT), by(Method.ALLCLOSE)), Result.MISMATCH, Method.ALLCLOSE),
        (np.array([3]), np.array([4]), (by(Method.ALLCLOSE, atol=1), by(Method.JS)), Result.MATCH, Method.ALLCLOSE),
        (P, P * 2, (), Result.MISMATCH, Method.ALLCLOSE),  # no probabilities any more
        (P, P * 2, (by(Method.ARGMAX),), Result.MATCH, Method.ARGMAX),
        # Those that cannot be used give way.
        (np.array([1.0]), np.array([9.0]), (by(Method.ARGMAX),), Result.MISMATCH, Method.ALLCLOSE),
        (np.array([1]), np.array([9]), (by(Method.ARGMAX),), Result.MISMATCH, Method.EXACT),
        (np.array(["a"], object), np.array(["b"], object), (by(Method.COSINE),), Result.MISMATCH, Method.EXACT),
    ],
)  # fmt: skip
def test_what_a_method_says(live: Any, shadow: Any, comparators: Any, result: Result, method: Method) -> None:
    output = one(live, shadow, *comparators)
    assert output.result is result
    assert output.comparator is not None
    assert output.comparator.method is method
    assert (output.mismatch_count > 0) == (result is Result.MISMATCH)


@pytest.mark.parametrize(
    ("live", "shadow", "method", "result"),
    [
        (X, X + 1, Method.ARGMAX, Result.MATCH),
        (P, P * 1.02, Method.ARGMAX, Result.MATCH),
        (TIE, EIT * 1.02, Method.ARGMAX, Result.NEAR_TIE),
        (X, -X, Method.ARGMAX, Result.MISMATCH),
        (X[:, :1], X[:, :1] * 1.04, Method.ALLCLOSE, Result.MATCH),
        (X[:, :1], X[:, :1] * 9, Method.ALLCLOSE, Result.MISMATCH),  # a cosine would call it equal
    ],
)
def test_an_int8_shadow_is_held_to_its_classes(live: Any, shadow: Any, method: Method, result: Result) -> None:
    output = one(live, shadow, precision=Precision.QUANTIZED)
    assert output.result is result
    assert output.comparator is not None
    assert output.comparator.method is method
    assert bool(output.live_classes) == (method is Method.ARGMAX)


@pytest.mark.parametrize(
    ("live", "shadow", "words"),
    [
        (X, X[:, :2], "shape [1, 2], that of the live answer [1, 3]"),
        (X[0, :1], X[:, :1], "shape [1, 1], that of the live answer [1]"),
        (X, X.astype("i8"), "datatype int64, that of the live answer float32"),
        (np.array([1], "u8"), np.array([1], "i8"), "datatype int64, that of the live answer uint64"),
        (X, X.astype(object), "datatype object"),
        (X, None, "the shadow has no such output"),
    ],
)
def test_what_has_another_form_is_not_compared(live: Any, shadow: Any, words: str) -> None:
    pair = compare({"y": live}, {} if shadow is None else {"y": shadow})
    assert pair.result is Result.SHAPE
    assert pair.decider is not None
    assert words in pair.decider.message
    assert pair.decider.comparator is None
    assert pair.result.bad


def test_failures_are_results() -> None:
    assert compare(None, {}).result is Result.LIVE_ERROR
    assert compare({}, None).result is Result.SHADOW_ERROR
    assert compare(None, None).result is Result.BOTH_ERROR
    assert [result for result in Result if result.bad] == [Result.MISMATCH, Result.SHAPE, Result.SHADOW_ERROR]
    assert [result for result in Result if not result.comparable] == [Result.LIVE_ERROR, Result.BOTH_ERROR]


def test_without_outputs_nothing_differs_and_more_outputs_are_nobodys() -> None:
    assert compare({}, {}) == PairDivergence(Result.MATCH)
    assert compare({}, {"y": X}).severity == (0, 0, 0)
    assert len(compare({"y": X}, {"y": X, "z": X}).outputs) == 1


def test_the_worst_output_decides() -> None:
    pair = compare({"a": X, "b": X, "c": X}, {"a": X + 1, "b": X + 2, "c": X})
    assert pair.decider is pair.outputs[1]
    assert pair.severity == (2, 2, 2)
    labels = {"label": np.array([0]), "p": P}
    pair = compare(labels, {"label": np.array([1]), "p": Q})
    assert pair.decider is pair.outputs[1], "scores say more than labels"
    assert compare(labels, {"label": np.array([1])}).result is Result.SHAPE
    assert compare({"y": X}, {"y": X + 1}).severity > compare({"y": X}, {"y": X + 0.5}).severity
    assert compare({"y": P}, {"y": Q}).severity > compare({"y": TIE}, {"y": EIT}).severity


@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0), (2, 0, 3)])
@pytest.mark.parametrize("dtype", ["f4", "i8", object])
def test_nothing_equals_nothing(shape: tuple[int, ...], dtype: Any) -> None:
    output = one(np.zeros(shape, dtype), np.zeros(shape, dtype))
    assert output.result is Result.MATCH
    assert output.element_count == 0
    assert output.worst_index is None


def test_a_tensor_without_rows_is_one_row() -> None:
    assert one(P[0], Q[0]).live_classes == ()
    assert one(P[0], Q[0], batched=False).live_classes == (0,)
    assert one(np.float32(1), np.float32(1), batched=False).result is Result.MATCH
    assert one(np.array(3), np.array(3)).live_classes == (3,)


def test_rows_are_vectors_along_the_last_dimension() -> None:
    tokens = np.array([[P[0], Q[0]], [P[0], P[0]]])
    output = one(tokens, tokens[::-1])
    assert output.live_classes == (0, 1, 0, 0)
    assert output.shadow_classes == (0, 0, 0, 1)
    assert (output.mismatch_count, output.element_count, output.top1) == (2, 4, 0.5)
    assert output.worst_index in (3, 4)


@pytest.mark.parametrize(
    ("dtype", "live", "shadow", "difference"),
    [
        ("u8", 2**64 - 1, 0, 2**64 - 1),
        ("u8", 0, 2**64 - 1, 2**64 - 1),
        ("u8", 2**63, 2**63 + 1, 1),
        ("i8", -(2**63), 2**63 - 1, 2**64 - 1),
        ("i8", 2**62, 2**62 + 1, 1),
        ("i1", -128, 127, 255),
        ("u1", 255, 0, 255),
        ("?", True, False, 1),
    ],
)
def test_integers_never_overflow(dtype: str, live: int, shadow: int, difference: int) -> None:
    output = one(np.array([7, live], dtype), np.array([7, shadow], dtype))
    assert output.max_abs == output.distance == float(difference)
    assert output.live_classes == (int(np.array(7, dtype)), int(live))
    assert (output.worst_index, output.mismatch_count, output.element_count) == (1, 1, 2)


def test_what_is_told_of_the_worst_row() -> None:
    live = np.array([[0.6, 0.4], [0.1, 0.9], [0.3, 0.7]], "f4")
    shadow = np.array([[0.4, 0.6], [0.9, 0.1], [0.3, 0.7]], "f4")
    output = one(live, shadow)
    assert (output.worst_index, output.live_argmax, output.shadow_argmax) == (2, 1, 0)
    assert output.live_margin == pytest.approx(0.8)
    assert output.distance == 1
    output = one(live, shadow, by(Method.ARGMAX, near_tie=0.3))
    assert (near_ties(output), output.mismatch_count, output.result) == (1, 1, Result.MISMATCH)
    output = one(live, shadow, by(Method.ALLCLOSE, atol=0.5, rtol=0))
    assert (output.worst_index, output.mismatch_count, output.element_count) == (2, 2, 6)
    # The largest difference may be within its tolerance.
    output = one(np.array([[1000.0, 0.0]]), np.array([[1000.01, 0.005]]))
    assert (output.worst_index, output.max_abs) == (1, pytest.approx(0.01))
    output = one(
        np.array([[9, NAN, 2], [9, NAN, 2]]), np.array([[9, 9, 2], [9, NAN, 3]]), by(Method.ARGMAX, near_tie=99)
    )
    assert (output.worst_index, output.mismatch_count, near_ties(output)) == (1, 1, 0)
    assert (output.live_nonfinite, output.shadow_nonfinite) == (2, 1)
    output = one(P, P * 0.999)
    assert output.live_argmax == 0
    assert output.worst_index == 0


LABELLED = {"p": np.concatenate([P, TIE]), "label": np.array([0, 0])}


@pytest.mark.parametrize(
    ("live", "shadow", "result"),
    [
        (LABELLED, {"p": np.concatenate([P, EIT]), "label": np.array([0, 1])}, Result.NEAR_TIE),
        (LABELLED, {"p": np.concatenate([Q, EIT]), "label": np.array([1, 1])}, Result.MISMATCH),
        (LABELLED, {"p": np.concatenate([P, EIT]), "label": np.array([1, 0])}, Result.MISMATCH),
        (LABELLED, {"p": np.concatenate([P, EIT]), "label": np.array([0, 0])}, Result.NEAR_TIE),
        # Entries of an ascending list of classes.
        (
            {**LABELLED, "label": np.array([30, 30])},
            {"p": np.concatenate([P, EIT]), "label": np.array([30, 70])},
            Result.NEAR_TIE,
        ),
        # No list: one place stands for two classes, or they descend.
        (LABELLED, {"p": np.concatenate([P, EIT]), "label": np.array([0, 7])}, Result.NEAR_TIE),
        (
            {**LABELLED, "label": np.array([0, 1])},
            {"p": np.concatenate([P, EIT]), "label": np.array([0, 2])},
            Result.MISMATCH,
        ),
        (
            {**LABELLED, "label": np.array([5, 5])},
            {"p": np.concatenate([P, EIT]), "label": np.array([5, 4])},
            Result.MISMATCH,
        ),
        # Other integers, of which no row is a class.
        (
            {**LABELLED, "label": np.array([[0, 0], [0, 0]])},
            {"p": np.concatenate([P, EIT]), "label": np.array([[0, 0], [0, 1]])},
            Result.MISMATCH,
        ),
        (
            {**LABELLED, "label": np.array([0])},
            {"p": np.concatenate([P, EIT]), "label": np.array([1])},
            Result.MISMATCH,
        ),
    ],
)
def test_a_label_is_excused_with_its_scores(live: Any, shadow: Any, result: Result) -> None:
    pair = compare(live, shadow)
    assert pair.result is result
    by_name = {output.name: output for output in pair.outputs}
    if result is Result.NEAR_TIE:
        assert by_name["label"].result is not Result.MISMATCH
        assert by_name["label"].mismatch_count == 0


def test_constant_rows_have_no_rank_correlation() -> None:
    flat = np.ones((1, 3), "f4")
    assert one(flat, flat).rank is None
    assert one(flat, X).rank is None
    both = one(np.concatenate([flat, X]), np.concatenate([flat, -X]))
    assert both.rank == pytest.approx(-1)


def test_wide_rows_are_ranked_only_for_those_who_ask() -> None:
    wide = np.arange(5000, dtype="f4").reshape(1, -1)
    assert one(wide, wide).top1 is None
    assert one(wide, wide).cosine == 0
    assert one(wide, wide, by(Method.ARGMAX)).top1 == 1
    assert one(wide / wide.sum(), wide / wide.sum(), by(Method.ARGMAX)).js is None


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1, 1e200, 1e307])
def test_angles_know_no_scale(scale: float) -> None:
    live, shadow = np.array([[1.0, 2, 3], [0, 0, 0]]), np.array([[3.0, 2, 1], [0, 0, 0]])
    assert one(live * scale, shadow * scale).cosine == pytest.approx(1 - 10 / 14)


def test_one_zero_vector_is_at_a_right_angle() -> None:
    assert one(X * 0, X).cosine == 1
    assert one(np.concatenate([X, X * 0]), np.concatenate([X, X])).cosine == 1
    assert one(X, np.array([[1, 2, INF]])).cosine is None


def test_live_zeros_have_no_relative_difference() -> None:
    assert one(X * 0, X).max_rel is None
    assert one(np.array([[0.0, 4]]), np.array([[9.0, 5]])).max_rel == 0.25
    assert one(np.array([[INF, 4]]), np.array([[9.0, 4]])).max_rel == INF


def test_a_half_precision_variant_is_held_to_its_tolerance_whatever_its_outputs_are() -> None:
    live, shadow = np.array([[1.0], [2.0]], "f4"), np.array([[1.005], [2.0]], "f4")
    assert one(live, shadow).result is Result.MISMATCH
    assert one(live, shadow, precision=Precision.HALF).result is Result.MATCH
    assert one(live, 1.1 * live, precision=Precision.HALF).result is Result.MISMATCH


def test_half_precision_probabilities_add_up_less_well() -> None:
    rows = np.full((1, 9), 0.1115, "f2")  # 1.0039
    assert one(rows, rows).comparator == Comparator("y", Method.ARGMAX, near_tie=1e-2)
    assert one(rows.astype("f4"), rows.astype("f4")).js is None
    assert one(rows, rows.astype("f4")).js is None
    assert one(rows, rows).js == 0


SHAPES = st.tuples(st.integers(1, 4), st.integers(2, 7))
NUMBERS = st.floats(-100, 100, width=32)
ODD = st.one_of(NUMBERS, st.sampled_from([NAN, INF, -INF, 0.0, -0.0, 1.0]))


@st.composite
def pairs(draw: st.DrawFn, elements: st.SearchStrategy[float], dtype: str = "f4") -> tuple[Any, Any]:
    shape = draw(SHAPES)
    live = draw(npst.arrays(dtype, shape, elements=elements))
    if draw(st.booleans()):
        return live, draw(npst.arrays(dtype, shape, elements=elements))
    shadow = live.copy()
    shadow.flat[draw(st.integers(0, live.size - 1))] = draw(elements)
    return live, shadow


def slow_order(row: Any) -> list[int]:
    keys = [-INF if isnan(value) else float(value) for value in row]
    return sorted(range(len(keys)), key=lambda place: (-keys[place], place))


def slow_apart(live: float, shadow: float) -> float:
    if live == shadow or (isnan(live) and isnan(shadow)):
        return 0.0
    gap = abs(shadow - live)
    return gap if np.isfinite(gap) else INF


@settings(max_examples=300, deadline=None)
@given(pairs(ODD), st.integers(1, 8))
def test_measures_are_those_of_a_slow_oracle(pair: tuple[Any, Any], k: int) -> None:
    live, shadow = pair[0].astype("f8"), pair[1].astype("f8")
    output = one(*pair, by(Method.TOPK, k=k, threshold=0))
    gaps = [slow_apart(a, b) for a, b in zip(live.ravel().tolist(), shadow.ravel().tolist(), strict=True)]
    assert output.max_abs == max(gaps)
    orders = [(slow_order(a), slow_order(b)) for a, b in zip(live, shadow, strict=True)]
    assert output.live_classes == tuple(a[0] for a, _ in orders)
    assert output.shadow_classes == tuple(b[0] for _, b in orders)
    assert output.top1 == sum(a[0] == b[0] for a, b in orders) / len(live)
    k = min(k, live.shape[1])
    assert output.topk == min(len({*a[:k]} & {*b[:k]}) / k for a, b in orders)
    assert output.live_nonfinite == np.count_nonzero(~np.isfinite(live))
    assert output.shadow_nonfinite == np.count_nonzero(~np.isfinite(shadow))
    one_sided = [
        any(isnan(x) != isnan(y) for x, y in zip(a, b, strict=True)) for a, b in zip(live, shadow, strict=True)
    ]
    assert output.mismatch_count == sum(one_sided)
    if np.isfinite(live).all() and np.isfinite(shadow).all():
        rel = [gap / abs(a) for gap, a in zip(gaps, live.flat, strict=True) if a]
        assert output.max_rel == (pytest.approx(max(rel)) if rel else None)
        with np.errstate(all="ignore"):
            angles = [
                0.0 if (a == b).all() else 1.0 if not (a.any() and b.any()) else float(cosine(a, b))
                for a, b in zip(live, shadow, strict=True)
            ]
        assert output.cosine == pytest.approx(max(angles), abs=1e-9)
        ranks = [
            spearmanr(a, b).statistic for a, b in zip(live, shadow, strict=True) if len({*a}) > 1 and len({*b}) > 1
        ]
        assert output.rank == (pytest.approx(min(ranks), abs=1e-9) if ranks else None)


@settings(max_examples=300, deadline=None)
@given(pairs(ODD), st.floats(0, 2), st.floats(0, 2))
def test_allclose_is_that_of_a_slow_oracle(pair: tuple[Any, Any], atol: float, rtol: float) -> None:
    output = one(*pair, by(Method.ALLCLOSE, atol=atol, rtol=rtol))
    live, shadow = (side.astype("f8") for side in pair)
    bad = [
        gap == INF or gap > atol + rtol * abs(a)
        for a, gap in (
            (a, slow_apart(a, b)) for a, b in zip(live.ravel().tolist(), shadow.ravel().tolist(), strict=True)
        )
    ]
    assert output.mismatch_count == sum(bad)
    assert (output.result is Result.MISMATCH) == any(bad)
    if any(bad):
        assert output.worst_index is not None
        assert bad[output.worst_index]
        gaps = [slow_apart(float(a), float(b)) for a, b in zip(live.flat, shadow.flat, strict=True)]
        assert gaps[output.worst_index] == max(gap for gap, wrong in zip(gaps, bad, strict=True) if wrong)


@st.composite
def distributions(draw: st.DrawFn) -> tuple[Any, Any]:
    shape = draw(SHAPES)
    sides = [draw(npst.arrays("f8", shape, elements=st.sampled_from([0.0, 1e-12, 0.1, 1, 5]))) for _ in range(2)]
    for side in sides:
        side[:, 0] += side.sum(-1) == 0
        side /= side.sum(-1, keepdims=True)
    return sides[0], sides[1]


@settings(max_examples=200, deadline=None)
@given(distributions())
def test_js_is_scipys(pair: tuple[Any, Any]) -> None:
    output = one(*pair)
    with np.errstate(invalid="ignore"):  # the root of a sum that was rounded below 0
        found = [0.0 if (a == b).all() else float(jensenshannon(a, b, base=2)) for a, b in zip(*pair, strict=True)]
    want = max(0 if isnan(each) else each for each in found)
    assert output.js == pytest.approx(want, abs=1e-6)  # a root: 1e-12 before it
    assert one(pair[1], pair[0]).js == pytest.approx(output.js, abs=1e-6)
    assert one(*pair, by(Method.JS, threshold=1)).distance == pytest.approx(output.js, abs=1e-9)


METHODS = st.sampled_from(
    [by(method) for method in Method] + [by(Method.JS, threshold=0), by(Method.COSINE, threshold=0)]
)


@settings(max_examples=300, deadline=None)
@given(pairs(ODD), st.lists(METHODS, max_size=3), st.booleans(), st.sampled_from(["f2", "f4", "f8", "b"]))
@example((np.array([[NAN, INF]]), np.array([[NAN, INF]])), [by(Method.JS)], False, "f8")
def test_every_answer_matches_itself(pair: tuple[Any, Any], asked: list[Comparator], int8: bool, kind: str) -> None:
    with np.errstate(all="ignore"):
        side = pair[0].astype(ml_dtypes.bfloat16 if kind == "b" else kind)
    output = one(side, side.copy(), *asked, precision=Precision.QUANTIZED if int8 else Precision.SINGLE)
    assert output.result is Result.MATCH
    assert (output.distance, output.max_abs, output.mismatch_count, output.worst_index) == (0, 0, 0, None)
    assert output.cosine == 0
    assert output.js in (None, 0)
    assert output.top1 == output.topk == 1
    assert output.rank is None or isclose(output.rank, 1)
    assert output.live_nonfinite == output.shadow_nonfinite


@settings(max_examples=300, deadline=None)
@given(pairs(ODD))
def test_most_measures_have_no_direction(pair: tuple[Any, Any]) -> None:
    there, back = one(*pair), one(*reversed(pair))
    for name in ("max_abs", "top1", "topk"):
        assert getattr(there, name) == getattr(back, name)
    for name in ("cosine", "js", "rank"):
        assert getattr(there, name) == pytest.approx(getattr(back, name), abs=1e-6)
    for method in (Method.EXACT, Method.TOPK, Method.COSINE, Method.JS):
        assert one(*pair, by(method)).result is one(*reversed(pair), by(method)).result


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(["i1", "u1", "i4", "u8", "i8", "?"]))
def test_integers_are_exact(data: st.DataObject, dtype: str) -> None:
    live = data.draw(npst.arrays(dtype, 5))
    shadow = data.draw(npst.arrays(dtype, 5) | st.just(live))
    output = one(live, shadow)
    gaps = [abs(int(a) - int(b)) for a, b in zip(live, shadow, strict=True)]
    assert output.max_abs == float(max(gaps))
    assert output.mismatch_count == sum(gap > 0 for gap in gaps)
    assert output.worst_index == (gaps.index(max(gaps)) if any(gaps) else None)
    rel = [gap / abs(int(a)) for gap, a in zip(gaps, live, strict=True) if a]
    assert output.max_rel == pytest.approx(max(rel, default=0))


def test_the_arrays_are_only_read() -> None:
    live, shadow = P.copy(), np.array([[NAN, 1, 0]], "f4")
    for side in (live, shadow):
        side.setflags(write=False)
    assert one(live, shadow).result is Result.MISMATCH


def test_one_output_can_be_compared_alone() -> None:
    with np.errstate(all="ignore"):
        found = compare_output("y", P, Q, (), Precision.SINGLE, True)
        assert found.told() == one(P, Q)
        assert Apart(P, Q, 3, classed=True, ranked=False).ranking is None
