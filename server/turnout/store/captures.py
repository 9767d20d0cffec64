"""Keeps pairs of answers that differ, for people to look at: off unless a folder is given, and bounded by bytes.

One archive of numpy for each pair, readable without pickles: `input.NAME`, `live.NAME`, `shadow.NAME`, and `about`, a
JSON text. A tensor of BYTES is its elements one after another as uint8; `offsets.` before its key has where each ends,
after a 0, and `shape.` its shape. `turnout_client.captures` reads them. The oldest are deleted for new ones.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from turnout.core.tensors import Tensors
from turnout.runtime.keeping import NAME
from turnout_wire.tensors import Array

_SUFFIX = ".npz"
_ARCHIVE = re.compile(rf"{NAME.pattern}\.npz")  # nothing else in the folder is counted or deleted
_PARTIAL = re.compile(rf"\.{_ARCHIVE.pattern}")
_BYTES = "BYTES"


class CaptureFolderError(Exception):
    """The folder cannot be used; the message says why and what to do."""


class Captures:
    """A folder of archives of one server. Blocks; used by one thread at a time.

    Args:
        bytes_max: of all archives in it.
    """

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._sizes: OrderedDict[str, int] = OrderedDict()  # by name, the oldest first
        self._bytes = 0

    def open(self) -> None:
        """Make the folder, count what is in it from earlier runs, and delete what one that crashed has half written.

        Raises:
            CaptureFolderError: it cannot be made, read or written, or it is not the server's user's alone.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = stat.S_IMODE(self._folder.stat().st_mode)
            if mode & 0o077:
                raise CaptureFolderError(
                    f"'{self._folder}' has mode {mode:04o}, so that others may read what clients send: chmod it to "
                    "0700, or choose a --shadow-capture-dir that does not exist yet"
                )
            self._count()
        except OSError as error:
            raise CaptureFolderError(
                f"'{self._folder}' cannot be used: {error.strerror}; see --shadow-capture-dir"
            ) from error

    def _count(self) -> None:
        files = [entry for entry in os.scandir(self._folder) if entry.is_file(follow_symlinks=False)]
        for entry in files:
            if _PARTIAL.fullmatch(entry.name):
                os.unlink(entry)
        found = [(entry.stat().st_mtime_ns, entry) for entry in files if _ARCHIVE.fullmatch(entry.name)]
        for _, entry in sorted(found, key=lambda pair: (pair[0], pair[1].name)):
            self._sizes[entry.name] = entry.stat().st_size
            self._bytes += entry.stat().st_size

    def keep(self, name: str, tensors: Mapping[str, Tensors], about: Mapping[str, object]) -> bool:
        """Write one archive, whole or not at all.

        Args:
            name: as `keeping.NAME` has it.
            tensors: by `input`, `live` and `shadow`.

        Returns:
            False: it is larger, without compression, than all of them may be.

        Raises:
            OSError: it cannot be written.
        """
        named = {f"{side}.{key}": array for side, arrays in tensors.items() for key, array in arrays.items()}
        dtypes = {key: _BYTES if array.dtype.kind == "O" else str(array.dtype) for key, array in named.items()}
        plain = dict(entry for key, array in named.items() for entry in _plain(key, array))
        if sum(array.nbytes for array in plain.values()) > self._bytes_max:
            return False
        buffer = io.BytesIO()
        np.savez_compressed(buffer, about=np.array(json.dumps({**about, "dtypes": dtypes})), **plain)  # type: ignore[arg-type]
        content = buffer.getbuffer()
        if len(content) > self._bytes_max:
            return False
        while self._sizes and self._bytes + len(content) > self._bytes_max:
            oldest, size = self._sizes.popitem(last=False)
            self._bytes -= size
            with contextlib.suppress(FileNotFoundError):  # somebody has taken it
                (self._folder / oldest).unlink()
        file = f"{name}{_SUFFIX}"
        partial = self._folder / f".{file}"
        try:
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
                target.write(content)
            partial.replace(self._folder / file)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        self._bytes += len(content) - self._sizes.pop(file, 0)
        self._sizes[file] = len(content)
        return True


def _plain(key: str, array: Array) -> Iterator[tuple[str, Array]]:
    """As numpy writes it without pickles. Its own strings would all be as wide as the longest one."""
    if array.dtype.kind != "O":
        yield key, np.asarray(array)
        return
    content = bytearray()
    offsets = np.zeros(array.size + 1, np.int64)
    for number, each in enumerate(array.flat, 1):  # in Python, so that others get the interpreter in between
        content += each if isinstance(each, bytes) else str(each).encode(errors="surrogatepass")
        offsets[number] = len(content)
    yield key, np.frombuffer(content, np.uint8)
    yield f"offsets.{key}", offsets
    yield f"shape.{key}", np.array(array.shape, np.int64)
