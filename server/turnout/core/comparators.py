"""How one output of a pair is compared: the methods, what each may be told, and what is usual for a datatype.

The measuring is in `core/measures`, the comparison of a pair in `core/divergence`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from math import inf, isfinite

from turnout.core.tensors import ANY, TensorSpec
from turnout_wire.tensors import DataType

K_MAX = 1000
K = 5  # of TOPK, where nothing is said, and of the overlap that is told beside other methods


class Method(Enum):
    """How two tensors are compared. A row is a vector along the last dimension."""

    EXACT = "EXACT"  # equal elements
    ALLCLOSE = "ALLCLOSE"  # elements within atol + rtol * |live|
    ARGMAX = "ARGMAX"  # the same class in each row
    TOPK = "TOPK"  # the same k classes in each row, in any order
    COSINE = "COSINE"  # 1 - cosine of rows
    JS = "JS"  # Jensen-Shannon distance, to base 2, of rows that are probabilities


@dataclass(frozen=True, slots=True)
class Comparator:
    """How one output is compared. None: what is usual for its datatype.

    Attributes:
        atol, rtol: of ALLCLOSE.
        threshold: the largest distance that matches (COSINE, JS), or the smallest overlap that does (TOPK).
        k: of TOPK.
        near_tie: of ARGMAX: where the live answer scores the shadow's class less than this below its own, it is no
            mismatch.
    """

    output: str
    method: Method
    atol: float | None = None
    rtol: float | None = None
    threshold: float | None = None
    k: int | None = None
    near_tie: float | None = None


class ComparatorError(ValueError):
    """A comparator that cannot be used; `field` is the attribute at fault."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


# What each method may be told, from 0 or 1 up to a limit.
_LIMITS: dict[Method, dict[str, tuple[float, float]]] = {
    Method.EXACT: {},
    Method.ALLCLOSE: {"atol": (0, inf), "rtol": (0, inf)},
    Method.ARGMAX: {"near_tie": (0, inf)},
    Method.TOPK: {"k": (1, K_MAX), "threshold": (0, 1)},
    Method.COSINE: {"threshold": (0, 2)},
    Method.JS: {"threshold": (0, 1)},
}
ROW_METHODS = frozenset({Method.ARGMAX, Method.TOPK, Method.COSINE, Method.JS})
CLASS_METHODS = frozenset({Method.ARGMAX, Method.TOPK, Method.JS})  # their rows are scores of classes


def check_comparator(comparator: Comparator, outputs: Mapping[str, TensorSpec] | None = None) -> None:
    """Refuse what cannot be meant; with the signature's `outputs`, also what does not fit the output.

    Raises:
        ComparatorError: a ValueError with the field, the value, the limit and the remedy.
    """
    method, limits = comparator.method, _LIMITS[comparator.method]
    for name in ("atol", "rtol", "threshold", "k", "near_tie"):
        value = getattr(comparator, name)
        if value is None:
            continue
        if name not in limits:
            known = " and ".join(limits) or "nothing"
            raise ComparatorError(
                f"{name} is {value:g}, but {method.value} takes {known}: leave {name} out or use another method", name
            )
        low, high = limits[name]
        if not (low <= value <= high and isfinite(value)):
            to = f"from {low:g} to {high:g}" if isfinite(high) else f"finite and at least {low:g}"
            raise ComparatorError(f"{name} of {method.value} is {value:g}, it must be {to}: correct it", name)
    if outputs is not None:
        _check_output(comparator, outputs)


def _check_output(comparator: Comparator, outputs: Mapping[str, TensorSpec]) -> None:
    method, name = comparator.method, comparator.output
    if (spec := outputs.get(name)) is None:
        known = ", ".join(f"'{output}'" for output in outputs)
        raise ComparatorError(f"there is no output '{name}', the outputs are {known}: name one of them", "output")
    if spec.datatype is DataType.BYTES and method is not Method.EXACT:
        raise ComparatorError(f"output '{name}' is BYTES, {method.value} is for numbers: use EXACT", "method")
    columns = spec.shape[-1] if len(spec.shape) > 1 else 1
    if method in ROW_METHODS and columns != ANY and columns < 2:
        raise ComparatorError(
            f"output '{name}' has shape {list(spec.shape)}, {method.value} takes at least 2 columns: use EXACT or "
            "ALLCLOSE",
            "method",
        )


def by_output(comparators: Iterable[Comparator]) -> dict[str, tuple[Comparator, ...]]:
    """What `divergence.compare` takes: the comparators of each output, in order."""
    grouped: dict[str, tuple[Comparator, ...]] = {}
    for comparator in comparators:
        grouped[comparator.output] = (*grouped.get(comparator.output, ()), comparator)
    return grouped


class Precision(Enum):
    """Of the coarser of both sides: (rtol, atol, near tie of probabilities). Start values, to be replaced by what a
    noise floor shows."""

    SINGLE = (1e-4, 1e-5, 1e-3)
    HALF = (1e-2, 1e-3, 1e-2)  # FP16 and BF16
    QUANTIZED = (5e-2, 1e-2, 1e-2)  # int8 and int4 variants, whatever their outputs are


@lru_cache(maxsize=1024)
def completed(comparator: Comparator, precision: Precision, probabilities: bool) -> Comparator:
    """The comparator with what it leaves open filled in."""
    rtol, atol, near_tie = precision.value
    match comparator.method:
        case Method.EXACT:
            return comparator
        case Method.ALLCLOSE:
            return replace(comparator, rtol=_or(comparator.rtol, rtol), atol=_or(comparator.atol, atol))
        case Method.ARGMAX:
            # The margin of scores that are no probabilities has no unit: none is near.
            return replace(comparator, near_tie=_or(comparator.near_tie, near_tie if probabilities else 0.0))
        case Method.TOPK:
            k = K if comparator.k is None else comparator.k
            return replace(comparator, k=k, threshold=_or(comparator.threshold, 1.0))
        case _:
            return replace(comparator, threshold=_or(comparator.threshold, 0.05))


@lru_cache(maxsize=1024)
def usual(output: str, precision: Precision, columns: int, probabilities: bool) -> Comparator:
    """The comparator of a float output for which none is configured.

    A quantized variant is held to its classes. Its rows of one column are not held to their cosine, which would be a
    sign and nothing more, but to a wide tolerance.
    """
    by_class = probabilities or (precision is Precision.QUANTIZED and columns > 1)
    return completed(Comparator(output, Method.ARGMAX if by_class else Method.ALLCLOSE), precision, probabilities)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
