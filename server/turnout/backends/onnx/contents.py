"""The bytes of an artefact's open files, as ONNX Runtime is to get them: it opens no file itself."""

from __future__ import annotations

import errno
import mmap
import os
from dataclasses import dataclass

from turnout.backends.onnx.external import Content, resolve
from turnout.backends.onnx.sealed import PIECE_BYTES
from turnout.core.errors import LoadError
from turnout.core.model import OpenArtefact

_PROTOBUF_BYTES_MAX = 2**31 - 1
# Weights are read up to this size in all, and beyond it mapped, which takes no memory of its own. But who shortens a
# mapped file while it is read ends the process (SIGBUS): that is left to models that may not fit twice.
_READ_BYTES_MAX = 1 << 30


@dataclass(frozen=True, slots=True)
class Contents:
    """A model, and the files that its initializers are in by the names that it gives them."""

    model: Content
    files: dict[str, memoryview]

    @classmethod
    def read(cls, artefact: OpenArtefact) -> Contents:
        """Raises:
        LoadError: a file cannot be read, or an external tensor has no data in these files.
        """
        try:
            return cls._read(artefact)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise LoadError("there is not enough memory to read its files") from error
            raise LoadError(f"its files cannot be read: {error.strerror}") from error

    @classmethod
    def _read(cls, artefact: OpenArtefact) -> Contents:
        size = os.fstat(artefact.files[artefact.model]).st_size
        if size > _PROTOBUF_BYTES_MAX:
            raise LoadError(
                f"the model file has {size} bytes, the limit of its format is {_PROTOBUF_BYTES_MAX}: export it with "
                "external data"
            )
        if size == 0:
            raise LoadError("the model file is empty: export it again")
        model = _read(artefact.files[artefact.model], artefact.model, size)
        weights = _Weights(artefact, model)
        resolved = resolve(model, weights.of)
        if len(resolved.model) > _PROTOBUF_BYTES_MAX:
            raise LoadError(
                f"the model has {len(resolved.model)} bytes with the external data of its subgraphs, functions and "
                f"attributes, the limit of its format is {_PROTOBUF_BYTES_MAX}: keep large weights in the main graph"
            )
        return cls(resolved.model, {location: weights.of(location) for location in resolved.files})


class _Weights:
    """What external tensors are in; each file read or mapped once."""

    def __init__(self, artefact: OpenArtefact, model: Content) -> None:
        self._files = artefact.files
        self._known = {artefact.model: memoryview(model)}
        self._bytes_left = _READ_BYTES_MAX

    def of(self, location: str) -> memoryview:
        """Raises:
        LoadError: a location that is none of the artefact's files.
        """
        parts = [part for part in location.split("/") if part not in ("", ".")]
        if location.startswith("/") or ".." in parts:
            raise LoadError("its data is at a path that leads out of the version's folder")
        name = "/".join(parts)
        if name not in self._files:
            raise LoadError(
                f"its data is in '{location}', which is not there, or has a name that weights may not have: hidden, or "
                "like *.onnx, *.npz, *.json, *.pbtxt, *.md, *.txt"
            )
        if name not in self._known:
            self._known[name] = self._content(name, self._files[name])
        return self._known[name]

    def _content(self, name: str, fd: int) -> memoryview:
        size = os.fstat(fd).st_size
        if size == 0:
            return memoryview(b"")  # cannot be mapped
        if size > self._bytes_left:
            return memoryview(mmap.mmap(fd, size, prot=mmap.PROT_READ))
        self._bytes_left -= size
        return memoryview(_read(fd, name, size))


def _read(fd: int, name: str, size: int) -> mmap.mmap:
    """From the beginning; the descriptor's own offset belongs to whoever else has it. Into pages of its own: to fill or
    to join an object of bytes would keep the interpreter for as long as it takes."""
    content = mmap.mmap(-1, size)
    with memoryview(content) as view:
        at = 0
        while at < size:
            count = os.preadv(fd, [view[at : at + PIECE_BYTES]], at)
            if not count:
                raise LoadError(f"'{name}' changed while it was loaded: give changed files a version of their own")
            at += count
    return content
