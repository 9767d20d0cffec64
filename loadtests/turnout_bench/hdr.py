"""A histogram of latencies with three significant digits, in the form of HdrHistogram (https://hdrhistogram.org).

`encode` writes HdrHistogram's own V2 compressed base64, so that its tools read our files. Written here and not taken
from the `hdrhistogram` package, which has no wheel for Linux on ARM and brings setuptools along at run time.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

HIGHEST_US = 3600 * 10**6
_DIGITS = 3
_HALF_BITS = 10  # 2 * 10**3 values must be told apart in the first bucket: 2**11 sub-buckets, halves of 2**10
_HALF = 1 << _HALF_BITS
_COOKIE = 0x1C849303 | 0x10
_COMPRESSED_COOKIE = 0x1C849304 | 0x10
_HEADER = struct.Struct(">iiiiqqd")
_WRAPPER = struct.Struct(">ii")


class Histogram:
    """Counts of microseconds from 0 to one hour; what is beyond counts as one hour."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(int(_indices(HIGHEST_US)) + 1, np.int64)

    @classmethod
    def of_ns(cls, nanoseconds: ArrayLike) -> Histogram:
        """The histogram of these durations, in nanoseconds; negative ones count as 0."""
        histogram = cls()
        values = np.clip(np.round(np.asarray(nanoseconds, np.float64) / 1e3), 0, HIGHEST_US).astype(np.int64)
        histogram._counts += np.bincount(_indices(values), minlength=len(histogram._counts))
        return histogram

    @property
    def total(self) -> int:
        return int(self._counts.sum())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and bool((self._counts == other._counts).all())

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Histogram) -> Histogram:
        both = Histogram()
        both._counts = self._counts + other._counts
        return both

    def percentile_us(self, percent: float) -> float:
        """The smallest value that `percent` % of all do not exceed, as HdrHistogram rounds it; nan if empty."""
        if not self.total:
            return float("nan")
        wanted = max(1, int(percent / 100 * self.total + 0.5))
        index = int(np.searchsorted(np.cumsum(self._counts), wanted))
        return float(_highest_us(index))

    def mean_us(self) -> float:
        """The mean, from the middles of the buckets; nan if empty."""
        (filled,) = np.nonzero(self._counts)
        if not len(filled):
            return float("nan")
        middles = [(_lowest_us(int(index)) + _highest_us(int(index))) / 2 for index in filled]
        return float(np.dot(middles, self._counts[filled]) / self.total)

    def count_within(self, microseconds: int) -> int:
        """How many were at most this long; its whole bucket counts."""
        return int(self._counts[: int(_indices(min(microseconds, HIGHEST_US))) + 1].sum())

    def encode(self) -> str:
        """HdrHistogram V2, compressed, base64."""
        payload = b"".join(_varint(number) for number in _runs(self._counts))
        header = _HEADER.pack(_COOKIE, len(payload), 0, _DIGITS, 1, HIGHEST_US, 1.0)
        packed = zlib.compress(header + payload)
        return base64.b64encode(_WRAPPER.pack(_COMPRESSED_COOKIE, len(packed)) + packed).decode("ascii")

    @classmethod
    def decode(cls, text: str) -> Histogram:
        """What `encode` wrote.

        Raises:
            ValueError: the text is no such histogram.
        """
        try:
            raw = base64.b64decode(text, validate=True)
            cookie, length = _WRAPPER.unpack_from(raw)
            plain = zlib.decompress(raw[_WRAPPER.size : _WRAPPER.size + length])
            header = _HEADER.unpack_from(plain)
        except (ValueError, struct.error, zlib.error) as error:
            raise ValueError(f"no HdrHistogram: {error}") from None
        if cookie != _COMPRESSED_COOKIE or header[0] != _COOKIE or header[3:6] != (_DIGITS, 1, HIGHEST_US):
            raise ValueError("a HdrHistogram of another form: 3 digits, 1 to 3600000000 are read here")
        histogram, index = cls(), 0
        for number in _numbers(plain[_HEADER.size : _HEADER.size + header[1]]):
            if number < 0:
                index -= number
            else:
                histogram._counts[index] = number
                index += 1
        return histogram


def _indices(values: ArrayLike) -> NDArray[np.int64]:
    """The bucket of each value: linear below 2**11, then 2**10 buckets for every doubling."""
    array = np.asarray(values, np.int64)
    exponents = np.frexp((array | (2 * _HALF - 1)).astype(np.float64))[1].astype(np.int64) - (_HALF_BITS + 1)
    return (exponents << _HALF_BITS) + (array >> exponents)


def _lowest_us(index: int) -> int:
    bucket = max((index >> _HALF_BITS) - 1, 0)
    return (index - (bucket << _HALF_BITS)) << bucket


def _highest_us(index: int) -> int:
    return _lowest_us(index + 1) - 1


def _runs(counts: NDArray[np.int64]) -> Iterator[int]:
    """The counts up to the last one that is not 0; a run of zeros as its negative length."""
    position = 0
    for index in np.nonzero(counts)[0]:
        if gap := int(index) - position:
            yield -gap if gap > 1 else 0
        yield int(counts[index])
        position = int(index) + 1


def _varint(number: int) -> bytes:
    """ZigZag LEB128; the ninth byte, which no count here reaches, would carry eight bits."""
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _numbers(payload: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in payload:
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield (number >> 1) ^ -(number & 1)
            number = shift = 0
