"""Reads what a server with --shadow-capture-dir has kept: requests whose answers differ between two revisions."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Capture:
    """One request, answered twice; tensors by name, [rows, ...]. BYTES are str where they are UTF-8, else bytes.

    Attributes:
        about: which model, revisions, slots and inference id, how they were compared and with what result; the names
            are those of the event `turnout.shadow.comparison`.
        live, shadow: empty where that side failed.
    """

    about: dict[str, Any]
    inputs: Tensors
    live: Tensors
    shadow: Tensors


def read_capture(path: str | os.PathLike[str]) -> Capture:
    """Read one archive.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such archive.
    """
    with np.load(path, allow_pickle=False) as archive:
        if "about" not in archive.files:
            raise ValueError(f"'{os.fspath(path)}' is no capture: it has no 'about'")
        about = json.loads(str(archive["about"]))
        dtypes = about.pop("dtypes", {})
        sides: dict[str, Tensors] = {"input": {}, "live": {}, "shadow": {}}
        for key in archive.files:
            side, _, name = key.partition(".")
            if side in sides:
                dtype = dtypes.get(key, "")
                sides[side][name] = _elements(archive, key) if dtype == "BYTES" else _typed(archive[key], dtype)
    return Capture(about, sides["input"], sides["live"], sides["shadow"])


def _elements(archive: Mapping[str, npt.NDArray[Any]], key: str) -> npt.NDArray[np.object_]:
    content, offsets = archive[key].tobytes(), archive[f"offsets.{key}"].tolist()
    elements = np.empty(len(offsets) - 1, object)
    for number, (start, end) in enumerate(pairwise(offsets)):
        elements[number] = _element(content[start:end])
    return elements.reshape(archive[f"shape.{key}"])


def _element(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _typed(array: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """numpy's files do not know bfloat16."""
    return array.view(ml_dtypes.bfloat16) if dtype == "bfloat16" else array
