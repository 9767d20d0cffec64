"""What people write into files and on command lines, read: mappings, texts, shares of traffic, durations. What cannot
be meant is refused with its place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NoReturn

BASIS_POINTS = 10_000
_SHARE = re.compile(r"(?P<percent>\d{1,3}(\.\d{1,2})?) ?%|(?P<bp>\d{1,5})( ?bp)?")
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?) *(ms|s|m|h|d)?")
_UNITS_NS = {"ms": 10**6, None: 10**9, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}


class SpecError(ValueError):
    """What was written cannot be meant. The message names the place, the value and what is allowed."""


def share(written: object, where: str, also: str = "") -> int:
    """`10%`, `10.25%`, or basis points: `1000`, `1000bp`. `also`: what else may be written there."""
    match = _SHARE.fullmatch(str(written)) if isinstance(written, str | int) and not isinstance(written, bool) else None
    if match is None:
        raise SpecError(f"{where}: {written!r} is no share: write 10% (two decimals) or basis points (1000){also}")
    return int(match["bp"]) if match["bp"] else round(float(match["percent"]) * 100)


def percent(share_bp: int) -> str:
    return f"{share_bp / 100:g} %"


def duration_ns(written: object, where: str = "duration") -> int:
    """`90`, `250ms`, `90s`, `15m`, `2h`, `1d`, in nanoseconds."""
    match = (
        _DURATION.fullmatch(str(written)) if isinstance(written, str | int) and not isinstance(written, bool) else None
    )
    if match is None:
        raise SpecError(f"{where}: {written!r} is no duration: write 250ms, 90s, 15m, 2h or 1d")
    return int(Decimal(match[1]) * _UNITS_NS[match[2]])


def duration(ns: int) -> str:
    return f"{(Decimal(ns) / 10**9).normalize():f}s"


def mapping(raw: object, where: str, known: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        wrong(where, raw, "a mapping")
    for key in raw:
        if not isinstance(key, str):
            raise SpecError(f"{where}: {key!r} is no name: put it into quotes")
        if known is not None and key not in known:
            raise SpecError(f"{where}: unknown '{key}', known are {', '.join(sorted(known))}")
    return dict(raw)


def text(value: object, where: str) -> str:
    if not isinstance(value, str):
        wrong(where, value, "a text (in quotes, where YAML reads something else)")
    return value


def wrong(where: str, value: object, due: str) -> NoReturn:
    raise SpecError(f"{where}: expected {due}, found {'nothing' if value is None else repr(value)[:80]}")
