"""What clients written by `turnoutctl codegen` share: an input as its model takes it, and an output of an answer.

Errors begin with the name of the field."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from turnout_client.answers import Answer
from turnout_client.errors import InferenceError
from turnout_wire.tensors import Array, DataType

_ANY = -1


def tensor(field: str, value: npt.ArrayLike, datatype: DataType, shape: tuple[int, ...]) -> Array:
    """The input as an array of its datatype. Numbers are converted within their kind: integers exactly, to or between
    floats by rounding. -1 in `shape`: any size.

    Raises:
        ValueError: it is of another shape or kind, or has a value that the datatype cannot hold.
    """
    try:
        given = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{field}: is no array: {error}") from None
    if len(given.shape) != len(shape) or any(
        want not in (_ANY, have) for want, have in zip(shape, given.shape, strict=True)
    ):
        raise ValueError(f"{field}: has shape {list(given.shape)}, and the model takes {list(shape)} (-1: any size)")
    if datatype is DataType.BYTES:
        if given.dtype.kind not in "OSU":
            raise ValueError(f"{field}: is {given.dtype}, and the model takes strings: give str, or bytes of UTF-8")
        return given
    wanted = datatype.dtype
    if given.dtype == wanted:
        return given
    if given.size and not _within_kind(given.dtype, wanted):
        raise ValueError(f"{field}: is {given.dtype}, and the model takes {datatype.value}: convert it with astype")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = given.astype(wanted)
    wrong = np.isfinite(given) & ~np.isfinite(converted) if wanted.kind in "fV" else converted != given
    if wrong.any():
        raise ValueError(f"{field}: has the value {given[wrong].flat[0]}, which {datatype.value} cannot hold")
    return converted


def output(answer: Answer, field: str, name: str, datatype: DataType) -> Array:
    """The output as an array of its datatype; of BYTES, one of `str`.

    Raises:
        InferenceError: UNIMPLEMENTED: the revision that answered has no such output.
    """
    array = answer.outputs.get(name)
    if array is None or array.dtype != datatype.dtype:
        raise InferenceError(
            "UNIMPLEMENTED",
            f"{field}: {answer.revision or answer.model} gives no output '{name}' of {datatype.value}: pin the version "
            "that this client is of, or write it anew (turnoutctl codegen)",
        )
    if datatype is not DataType.BYTES:
        return array
    text = np.empty(array.shape, dtype=object)
    text.reshape(-1)[:] = [element.decode(errors="replace") for element in array.reshape(-1)]
    return text


def _within_kind(given: np.dtype[np.generic], wanted: np.dtype[np.generic]) -> bool:
    if wanted.kind in "fV":  # V: bfloat16
        return given.kind in "biufV"
    return given.kind in ("b" if wanted.kind == "b" else "biu")
