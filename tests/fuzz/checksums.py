"""Target: the content of a version's SHA256SUMS."""

from __future__ import annotations

import random
import re
from typing import Any, cast

from fuzz import oracle
from fuzz.mutation import Mutate, mutate_text
from turnout.core.errors import LoadError
from turnout.store.checksums import CHECKSUMS, read_checksums

_DIGEST = re.compile("[0-9a-f]{64}")


class _Folder:
    """What is read of a folder."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, path: str, bytes_max: int) -> bytes:
        oracle.require(path == CHECKSUMS and bytes_max > len(self._data), f"reads {path}")
        return self._data


def run(data: bytes) -> None:
    try:
        sums = read_checksums(cast(Any, _Folder(data)))
    except LoadError as refusal:
        oracle.refused(refusal, data)
        return
    oracle.require(sums is not None, "a file is there, and was not read")
    assert sums is not None
    sums.pop("", None)  # of './', which no folder has
    for name, digest in sums.items():
        oracle.require(bool(_DIGEST.fullmatch(digest)), f"{name!r}: {digest!r}")
    again = "".join(map(line, sums.items())).encode(errors="surrogateescape")
    oracle.require(read_checksums(cast(Any, _Folder(again))) == sums, "written again as sha256sum does, it is another")


def line(entry: tuple[str, str]) -> str:
    """As sha256sum writes it."""
    name, digest = entry
    if name.startswith("./"):
        name = "./" + name
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != name else ""
    return f"{mark}{digest}  {escaped}\n"


_DIGESTS = ("0" * 64, "aB" * 32, "f" * 63, "g" * 64)
_TOKENS = (
    *(f"{digest}{mark}{name}\n" for digest in _DIGESTS for mark in ("  ", " *", " ") for name in ("model.onnx", "w/1")),
    *(f"\\{_DIGESTS[0]}  {name}\n" for name in ("a\\nb", "a\\\\b", "a\\rb", "a\\", "a\\x")),
    *("#", "\\", "./", "../", "/", "\r", "\0", "\x1b", " ", "*", "\n", "SHA256SUMS", "\u2028", "n" * 300, *_DIGESTS),
)


def mutate(data: bytes, bytes_max: int, rng: random.Random, mutate_bytes: Mutate) -> bytes:
    if rng.random() < 0.2:
        return mutate_bytes(data, bytes_max)
    text = mutate_text(rng, data.decode(errors="surrogateescape"), _TOKENS)
    return text.encode(errors="surrogateescape")[:bytes_max]
