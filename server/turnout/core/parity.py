"""How far a variant's outputs are from those of the version it was made from, output by output, over many samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from turnout_wire.tensors import Array

TOP_K = 5
_LARGEST = 1e300  # of what is reported: JSON has no infinity


class Kind(Enum):
    """What an output is taken for."""

    SCORES = "scores"  # [rows, at least 2 columns] of floats: the largest column of a row is its class
    LABELS = "labels"  # integers, booleans, strings: equal or not
    VALUES = "values"  # all other floats


@dataclass(frozen=True, slots=True)
class OutputParity:
    """One output of both. None: it does not apply to this kind.

    Attributes:
        rows: of the first dimension.
        error_max, error_mean, error_p50, error_p90, error_p99: absolute, over the elements that are finite in both.
        error_relative_max: `error_max` over the largest absolute element of the reference (over 1, where all are 0).
        nonfinite: elements that are not finite on one side, and not the same on the other.
        top1_agreement: share of rows with the same class.
        topk, topk_agreement: mean share of the k best classes that both have.
        agreement: share of equal elements.
    """

    name: str
    kind: Kind
    rows: int
    error_max: float | None = None
    error_mean: float | None = None
    error_p50: float | None = None
    error_p90: float | None = None
    error_p99: float | None = None
    error_relative_max: float | None = None
    nonfinite: int = 0
    top1_agreement: float | None = None
    topk: int | None = None
    topk_agreement: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares of rows for which the class, or the label, is the right one."""

    output: str
    rows: int
    reference: float
    variant: float


def parity(
    reference: Mapping[str, Array], variant: Mapping[str, Array], kinds: Mapping[str, Kind] | None = None
) -> tuple[OutputParity, ...]:
    """Compare all outputs of the reference.

    Args:
        reference, variant: outputs by name, rows in the first dimension.
        kinds: of outputs that are not what they look like: the rows of an embedding look like scores.

    Raises:
        ValueError: the variant lacks an output, or has it with another shape or with elements that do not compare.
    """
    said = kinds or {}
    for name in said:
        if name not in reference:
            raise ValueError(f"there is no output '{name}', the outputs are {', '.join(map(repr, reference))}")
    return tuple(_of_output(name, array, variant.get(name), said.get(name)) for name, array in reference.items())


def kind_of(array: Array) -> Kind:
    """What an output looks like."""
    if array.dtype.kind not in "fV":  # V: bfloat16
        return Kind.LABELS
    return Kind.SCORES if array.ndim == 2 and array.shape[1] > 1 else Kind.VALUES


def accuracy(name: str, reference: Array, variant: Array, labels: Array) -> Accuracy:
    """What `labels`, one for each row, say of an output that is scores or labels.

    Raises:
        ValueError: the output has other rows, or is neither.
    """
    if reference.ndim == 2 and reference.shape[1] > 1 and reference.dtype.kind in "fV":
        ours, theirs = _ranked(reference, 1)[:, 0], _ranked(variant, 1)[:, 0]
    elif reference.size == len(reference) and reference.dtype.kind not in "fV":
        ours, theirs = reference.ravel(), variant.ravel()
    else:
        raise ValueError(f"output '{name}' of shape {list(reference.shape)} has no class for each row to compare")
    right = labels.ravel()
    if len(right) != len(ours):
        raise ValueError(f"there are {len(right)} labels for {len(ours)} rows of output '{name}': give one for each")
    rows = len(right)
    return Accuracy(name, rows, _share(ours == right), _share(theirs == right))


def _of_output(name: str, reference: Array, variant: Array | None, said: Kind | None) -> OutputParity:
    if variant is None:
        raise ValueError(f"the variant has no output '{name}'")
    if reference.shape != variant.shape:
        raise ValueError(f"output '{name}' has shape {list(variant.shape)}, in the version {list(reference.shape)}")
    floats = [array.dtype.kind in "fV" for array in (reference, variant)]
    if floats[0] != floats[1]:
        raise ValueError(f"output '{name}' is {variant.dtype}, in the version {reference.dtype}")
    looks = kind_of(reference)
    kind = said or looks
    if (kind is Kind.LABELS) != (looks is Kind.LABELS) or (kind is Kind.SCORES and looks is not kind):
        raise ValueError(
            f"output '{name}' of {reference.dtype} and shape {list(reference.shape)} cannot be taken for {kind.value}"
        )
    rows = len(reference) if reference.ndim else 1
    if kind is Kind.LABELS:
        return OutputParity(name, kind, rows, agreement=_share(reference == variant))
    return _of_floats(name, kind, rows, reference, variant)


def _of_floats(name: str, kind: Kind, rows: int, reference: Array, variant: Array) -> OutputParity:
    ours, theirs = np.asarray(reference, "f8"), np.asarray(variant, "f8")
    finite = np.isfinite(ours) & np.isfinite(theirs)
    alike = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    with np.errstate(over="ignore"):  # of doubles as large as they get
        error = np.minimum(np.abs(ours[finite] - theirs[finite]), _LARGEST)
    # Of a variant with nothing finite nothing is known, and `nonfinite` says the rest.
    p50, p90, p99 = np.quantile(error, (0.5, 0.9, 0.99)).tolist() if error.size else (0.0, 0.0, 0.0)
    largest = float(error.max(initial=0))
    scale = float(np.abs(ours[np.isfinite(ours)]).max(initial=0)) or 1.0
    top1 = k = topk = None
    if kind is Kind.SCORES:
        k = min(TOP_K, ours.shape[1] - 1)
        live, other = _ranked(ours, k), _ranked(theirs, k)
        top1 = _share(live[:, 0] == other[:, 0])
        topk = _share((live[:, :, None] == other[:, None, :]).any(axis=2))
    return OutputParity(
        name,
        kind,
        rows,
        error_max=largest,
        error_mean=float(error.mean()) if error.size else 0.0,
        error_p50=p50,
        error_p90=p90,
        error_p99=p99,
        error_relative_max=min(largest / scale, _LARGEST),
        nonfinite=int(np.count_nonzero(~finite & ~alike)),
        top1_agreement=top1,
        topk=k,
        topk_agreement=topk,
    )


def _ranked(scores: Array, k: int) -> Array:
    """The columns of the k largest of each row, best first; of equals the first; NaN is the smallest."""
    numbers = np.asarray(scores, "f8")
    return np.argsort(-np.where(np.isnan(numbers), -np.inf, numbers), axis=1, kind="stable")[:, :k]


def _share(hits: Array) -> float:
    return float(np.mean(hits)) if np.size(hits) else 1.0
