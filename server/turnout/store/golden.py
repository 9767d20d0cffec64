"""Reads a version's `golden.npz`: samples that its outputs are compared with before it may serve.

An npz archive of numpy, as `np.savez_compressed` writes it: `input.NAME` and `output.NAME` for each tensor, as the
model itself takes and gives them, rows in the first dimension; optionally `rtol`, a number: how far an output may be
from its sample, relative to its largest element. Strings are numpy's (`U`), never pickled objects.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from turnout.core.errors import LoadError
from turnout.core.gates import Golden
from turnout.store.contained import Folder
from turnout_wire.tensors import Array

GOLDEN = "golden.npz"
LABELS = "labels"
_BYTES_MAX = 64 << 20
_UNPACKED_BYTES_MAX = 256 << 20
_TENSORS_MAX = 256


def read_golden(folder: Folder) -> Golden | None:
    """The samples beside a version's model file; None where it has none. Blocks.

    Raises:
        LoadError: naming what is wrong with the file.
    """
    try:
        content = folder.read(GOLDEN, _BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LoadError(f"{GOLDEN} cannot be read: {error.strerror}") from None
    return parse_golden(content)


def parse_golden(content: bytes) -> Golden:
    """Raises:
    LoadError: it is no such archive, or larger than a bound.
    """
    return _golden(_unpacked(content, GOLDEN))


def read_samples(path: Path) -> dict[str, Array]:
    """The inputs of an archive of the same form that an operator names; what else is in it is not looked at. Blocks.

    Raises:
        LoadError: naming what is wrong with the file.
    """
    return read_labelled(path)[0]


def read_labelled(path: Path) -> tuple[dict[str, Array], Array | None]:
    """The same, and its array `labels`, the right answers; None where it has none. Blocks.

    Raises:
        LoadError: naming what is wrong with the file.
    """
    tensors = _read(path)
    inputs = {name.removeprefix("input."): array for name, array in tensors.items() if name.startswith("input.")}
    if not inputs:
        known = ", ".join(f"'{name[:80]}'" for name in tensors) or "nothing"
        raise LoadError(f"'{path}' holds {known}: an array of samples is named input.NAME, by the model's input")
    return inputs, tensors.get(LABELS)


def read_labels(path: Path) -> Array:
    """The array `labels` of an archive that an operator names; blocks.

    Raises:
        LoadError: naming what is wrong with the file.
    """
    if (labels := _read(path).get(LABELS)) is None:
        raise LoadError(f"'{path}' has no array '{LABELS}': add the right answers, one for each row, under that name")
    return labels


def _read(path: Path) -> dict[str, Array]:
    title = f"'{path}'"
    try:
        with path.open("rb") as file:
            content = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise LoadError(f"{title} cannot be read: {error.strerror}") from None
    if len(content) > _BYTES_MAX:
        raise LoadError(f"{title} is larger than {_BYTES_MAX} bytes")
    return _unpacked(content, title)


def _unpacked(content: bytes, title: str) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if len(members) > _TENSORS_MAX:
                raise LoadError(f"{title} holds {len(members)} arrays, the limit is {_TENSORS_MAX}")
            if (unpacked := sum(member.file_size for member in members)) > _UNPACKED_BYTES_MAX:
                raise LoadError(f"{title} unpacks to {unpacked} bytes, the limit is {_UNPACKED_BYTES_MAX}")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: _array(title, name, arrays[name]) for name in arrays.files}
    except LoadError:
        raise
    except Exception as error:
        # Whatever zipfile, zlib and numpy raise for bytes that are no archive of arrays.
        raise LoadError(f"{title} is no archive of arrays, as numpy.savez writes it without pickles") from error


def _golden(tensors: Mapping[str, Array]) -> Golden:
    inputs = {name.removeprefix("input."): array for name, array in tensors.items() if name.startswith("input.")}
    outputs = {name.removeprefix("output."): array for name, array in tensors.items() if name.startswith("output.")}
    if unknown := [name for name in tensors if not name.startswith(("input.", "output.")) and name != "rtol"]:
        raise LoadError(f"{GOLDEN} holds '{unknown[0][:80]}': names are input.NAME, output.NAME and rtol")
    if not inputs or not outputs:
        raise LoadError(f"{GOLDEN} needs an input.NAME and an output.NAME at least")
    rtol = tensors.get("rtol")
    if rtol is not None and (rtol.size != 1 or rtol.dtype.kind not in "fiu" or not 0 <= float(rtol.reshape(())) <= 1):
        raise LoadError(f"{GOLDEN}: rtol must be one number from 0 to 1")
    return Golden(inputs, outputs, None if rtol is None else float(rtol.reshape(())))


def _array(title: str, name: str, array: Array) -> Array:
    if array.dtype.kind == "U":
        return array.astype(object)
    if array.dtype.kind not in "biufV":
        raise LoadError(f"{title}: '{name[:80]}' is of dtype {array.dtype}, which no tensor has")
    return array
