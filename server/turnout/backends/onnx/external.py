"""Where a model keeps tensors outside of its own file, found in its bytes.

ONNX Runtime takes the files of a graph's initializers from memory. Other tensors that are external (of subgraphs,
functions, attributes, sparse ones) it would look for in the working directory: they are put into the model here.
Protobuf can be written in ways that no exporter writes and that readers take differently: those are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from mmap import mmap
from typing import TypeAlias

from turnout.core.errors import LoadError
from turnout_wire.varint import to_varint

Content: TypeAlias = bytes | mmap  # of a file; a slice of either is bytes
Data = Callable[[str], memoryview]  # the content of a file, by the name that the model gives it

# onnx.proto: message -> field -> message in it. What is not named here holds no tensors.
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "main graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "main graph": {1: "node", 5: "initializer", 15: "sparse tensor"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
# Fields that may stand once only; protobuf would merge what stands twice.
_ONCE = {("model", 7), ("training", 1), ("training", 2), ("attribute", 5), ("attribute", 6), ("attribute", 22)}
_ONCE |= {("sparse tensor", 1), ("sparse tensor", 2)}
_NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 8, 9, 13, 14
_DEFAULT, _EXTERNAL = 0, 1
_KEY, _VALUE = 1, 2
_VARINT, _BYTES = 0, 2  # ways to write a field
_DEPTH_MAX = 100  # protobuf's own limit
_ORT_MARK = slice(4, 8), b"ORTM"
# Every external tensor has an entry of this name; models without one are not read any further.
_MARK = b"location"
_PIECE = 1 << 22  # searched at once: the search of 80 MB keeps the interpreter, and the event loop, for 40 ms


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model whose external tensors are the main graph's initializers only, and the files that those are in."""

    model: Content
    files: frozenset[str]


def resolve(model: Content, data: Data) -> Resolved:
    """Put into a model what ONNX Runtime would not take from memory.

    Args:
        data: raises LoadError where there is no such file.

    Raises:
        LoadError: an external tensor that has no data, naming the tensor and the file; or a damaged model.
    """
    if is_ort_format(model) or not _has_mark(model):
        return Resolved(model, frozenset())
    walk = _Walk(model, data)
    try:
        changed = walk.message("model", 0, len(model), 0)
    except _IrregularError:
        raise LoadError("the model file is damaged, or written as no exporter does: export it again") from None
    return Resolved(model if changed is None else changed, frozenset(walk.files))


def is_ort_format(model: Content) -> bool:
    """ONNX Runtime's own format, which holds no external tensors in protobuf's form."""
    where, mark = _ORT_MARK
    return model[where] == mark


def _has_mark(model: Content) -> bool:
    starts = range(0, len(model), _PIECE)
    return any(model.find(_MARK, start, start + _PIECE + len(_MARK) - 1) >= 0 for start in starts)


class _IrregularError(Exception):
    """Not the bytes of a protobuf message, or not as all read them alike."""


class _Walk:
    def __init__(self, model: Content, data: Data) -> None:
        self._bytes = model
        self._data = data
        self.files: set[str] = set()

    def message(self, kind: str, start: int, end: int, depth: int) -> bytes | None:
        """The message rewritten; None: as it is."""
        if depth > _DEPTH_MAX:
            raise _IrregularError
        inner = _FIELDS[kind]
        seen: set[int] = set()
        pieces: list[bytes] = []
        copied = start
        for number, way, begin, content, stop in self._fields(start, end):
            if number not in inner:
                continue
            if way != _BYTES or (number in seen and (kind, number) in _ONCE):
                raise _IrregularError
            seen.add(number)
            if self._bytes.find(_MARK, content, stop) < 0:
                continue
            changed = self._field(inner[number], content, stop, depth)
            if changed is not None:
                pieces += (self._bytes[copied:begin], to_varint(number << 3 | _BYTES), to_varint(len(changed)), changed)
                copied = stop
        return b"".join((*pieces, self._bytes[copied:end])) if pieces else None

    def _field(self, kind: str, start: int, end: int, depth: int) -> bytes | None:
        match kind:
            case "initializer":
                if (external := self._external(start, end)) is not None:
                    external.cut(self._data)
                    self.files.add(external.location)
                return None
            case "tensor":
                external = self._external(start, end)
                return None if external is None else self._inlined(start, end, external)
            case _:
                return self.message(kind, start, end, depth + 1)

    def _external(self, start: int, end: int) -> _External | None:
        """Where a tensor's data is, if it is not in it."""
        name = ""
        entries: dict[str, str] = {}
        place = _DEFAULT
        for number, way, _, content, stop in self._fields(start, end):
            if number == _DATA_LOCATION:
                place = self._read_varint(content, stop)[0] if way == _VARINT else -1
                if place not in (_DEFAULT, _EXTERNAL):
                    raise _IrregularError
            elif number in (_NAME, _EXTERNAL_DATA) and way != _BYTES:
                raise _IrregularError
            elif number == _NAME:
                name = self._text(content, stop)
            elif number == _EXTERNAL_DATA:
                key, value = self._entry(content, stop)
                entries[key] = value
        return _External.parse(name, entries) if place == _EXTERNAL else None

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        pair = {_KEY: "", _VALUE: ""}
        for number, way, _, content, stop in self._fields(start, end):
            if number in pair and way != _BYTES:
                raise _IrregularError
            pair[number] = self._text(content, stop)
        return pair[_KEY], pair[_VALUE]

    def _inlined(self, start: int, end: int, external: _External) -> bytes:
        pieces = []
        for number, _, begin, _, stop in self._fields(start, end):
            if number not in (_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION):
                pieces.append(self._bytes[begin:stop])
        data = external.cut(self._data)
        return b"".join((*pieces, to_varint(_RAW_DATA << 3 | _BYTES), to_varint(len(data)), data))

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Each field's number and way of writing, and where it, its content and the next one begin."""
        at = start
        while at < end:
            begin = at
            tag, at = self._read_varint(at, end)
            content = at
            match tag & 7:
                case 0:
                    _, at = self._read_varint(at, end)
                case 1:
                    at += 8
                case 2:
                    length, content = self._read_varint(at, end)
                    at = content + length
                case 5:
                    at += 4
                case _:
                    raise _IrregularError
            if at > end or not 0 < tag >> 3 < 1 << 29:
                raise _IrregularError
            yield tag >> 3, tag & 7, begin, content, at

    def _read_varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self._bytes[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise _IrregularError

    def _text(self, start: int, end: int) -> str:
        return self._bytes[start:end].decode(errors="surrogateescape")


@dataclass(frozen=True, slots=True)
class _External:
    """Where the data of a tensor is."""

    tensor: str
    location: str
    offset: int
    length: int | None

    @classmethod
    def parse(cls, tensor: str, entries: Mapping[str, str]) -> _External:
        numbers = {key: entries.get(key, "") for key in ("offset", "length")}
        for key, text in numbers.items():
            # ONNX Runtime would read a sign too, and what stands after a number.
            if text and not (text.isascii() and text.isdecimal() and len(text) < 19):
                raise LoadError(f"tensor '{tensor}': its external data has {key} '{text[:80]}', no number of bytes")
        length = numbers["length"]
        return cls(tensor, entries.get("location", ""), int(numbers["offset"] or 0), int(length) if length else None)

    def cut(self, data: Data) -> memoryview:
        """Its part of the file, without `length` all after the offset.

        Raises:
            LoadError: there is no such file, or it is too short.
        """
        try:
            content = data(self.location)
        except LoadError as refusal:
            raise LoadError(f"tensor '{self.tensor}': {refusal}") from None
        end = len(content) if self.length is None else self.offset + self.length
        if not self.offset <= end <= len(content):
            raise LoadError(
                f"tensor '{self.tensor}': its data ends at byte {max(end, self.offset)} of '{self.location}', which "
                f"has {len(content)}: was the file copied as a whole?"
            )
        return content[self.offset : end]
