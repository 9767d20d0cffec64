"""Keeps pairs of answers that differ, for people to look at: off unless a folder is given, and bounded by bytes.

One archive of numpy for each pair, readable without pickles: `input.NAME`, `live.NAME`, `shadow.NAME`, and `about`, a
JSON text. `turnout_client.captures` reads them. The oldest are deleted for new ones. Payloads are data of clients: the
folder is readable by the server's user only.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from turnout.core.tensors import Tensors
from turnout_wire.tensors import Array

_SUFFIX = ".npz"


class Captures:
    """A folder of archives. Blocks; used by one thread at a time.

    Args:
        bytes_max: of all archives in it.
    """

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._sizes: OrderedDict[str, int] = OrderedDict()  # by name, the oldest first
        self._bytes = 0

    def open(self) -> None:
        """Make the folder, and count what is in it from earlier runs.

        Raises:
            OSError: it cannot be made or read.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = [(entry.stat().st_mtime_ns, entry) for entry in os.scandir(self._folder) if _is_archive(entry)]
        for _, entry in sorted(found, key=lambda pair: (pair[0], pair[1].name)):
            self._sizes[entry.name] = entry.stat().st_size
            self._bytes += entry.stat().st_size

    def keep(self, name: str, tensors: Mapping[str, Tensors], about: Mapping[str, object]) -> bool:
        """Write one archive, whole or not at all.

        Args:
            tensors: by `input`, `live` and `shadow`.

        Returns:
            False: it is larger than all of them may be.

        Raises:
            OSError: it cannot be written.
        """
        named = {f"{side}.{key}": _plain(array) for side, arrays in tensors.items() for key, array in arrays.items()}
        dtypes = {key: str(array.dtype) for key, array in named.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, about=np.array(json.dumps({**about, "dtypes": dtypes})), **named)  # type: ignore[arg-type]
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


def _is_archive(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(_SUFFIX) and not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)


def _plain(array: Array) -> Array:
    """As numpy writes it without pickles: strings as its own, bytes that are no text as their escapes."""
    if array.dtype.kind != "O":
        return np.asarray(array)
    texts = [each.decode(errors="backslashreplace") if isinstance(each, bytes) else str(each) for each in array.flat]
    return np.array(texts, "U").reshape(array.shape)
