"""The outermost fields of a ModelInferRequest, found without parsing the message: what is data stays where it is.

Reads only what clients usually send. Of everything else (unknown or malformed fields, very many of them, a long header)
it says nothing, and the generated parser has the word: so a walk costs little, whatever the message.
"""

from __future__ import annotations

from typing import NamedTuple

HEADER_BYTES_MAX = 4096  # a message with more than this beside its raw contents is left to the generated parser
FIELDS_MAX = 256  # as is one with more outermost fields: each costs about half a microsecond of the loop
_SEVEN_BITS = 0x7F
_LENGTH_BITS_MAX = 35  # a length is below 2 GiB, in seven bits a byte

# Tags of length-delimited fields.
_ID = 3 << 3 | 2
_RAW = 7 << 3 | 2
_HEADER = frozenset(number << 3 | 2 for number in (1, 2, 4, 5, 6))


class Frame(NamedTuple):
    """A message in parts.

    Attributes:
        header: its fields but for ids and raw contents, in order: again a ModelInferRequest, not yet parsed.
        spans: of each of its raw contents, the message, where in it they begin and how long they are.
    """

    header: bytes
    request_id: str
    spans: list[tuple[bytes, int, int]]


def walk(data: bytes) -> Frame | None:
    """The parts of a message; None where only the generated parser can tell what it is."""
    try:
        return _walk(data)
    except (_Unusual, IndexError, UnicodeDecodeError):
        return None


class _Unusual(Exception):
    """Perhaps no message at all."""


def _walk(data: bytes) -> Frame:
    runs: list[bytes] = []
    spans: list[tuple[bytes, int, int]] = []
    request_id = ""
    at = kept = fields = 0  # kept: where the header's next run begins
    end = len(data)
    while at < end:
        fields += 1
        if fields > FIELDS_MAX:
            raise _Unusual
        begin = at
        tag, size = data[at], data[at + 1]
        if size <= _SEVEN_BITS:
            start = at + 2
        else:
            size, start = _length(data, at + 1)
        at = start + size
        if tag in _HEADER:
            continue
        if begin > kept:
            runs.append(_run(data, kept, begin))
        kept = at
        if tag == _RAW:
            spans.append((data, start, size))
        elif tag == _ID:
            request_id = data[start:at].decode()  # the last one counts, but all must be UTF-8
        else:
            raise _Unusual
    if at != end:
        raise _Unusual
    if kept < end:
        runs.append(_run(data, kept, end))
    header = runs[0] if len(runs) == 1 else b"".join(runs)
    if len(header) > HEADER_BYTES_MAX:
        raise _Unusual
    return Frame(header, request_id, spans)


def _run(data: bytes, begin: int, end: int) -> bytes:
    if end - begin > HEADER_BYTES_MAX:
        raise _Unusual  # before it is copied
    return data[begin:end]


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A length of more than seven bits, and where it ends."""
    size = 0
    for shift in range(0, _LENGTH_BITS_MAX, 7):
        byte = data[at]
        at += 1
        size |= (byte & _SEVEN_BITS) << shift
        if byte <= _SEVEN_BITS:
            break
    if not 0 < byte <= _SEVEN_BITS:  # longer, or longer than it need be
        raise _Unusual
    return size, at
