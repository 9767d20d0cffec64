"""Instruments in PromQL: the few forms that dashboards and rules are made of."""

from __future__ import annotations

from turnout.telemetry import instruments as i
from turnout.telemetry.exposition import label
from turnout.telemetry.instruments import Instrument

JOB = "turnout"
MODEL, SLOT, OUTCOME, STAGE = label(i.MODEL), label(i.SLOT), label(i.OUTCOME), label(i.STAGE)
BY_SLOT = ("job", MODEL, SLOT)
# Of those that are none of the client's doing; the share is taken of these and of what was answered.
ERRORS = "failed|expired|rejected"
COUNTED = f"success|{ERRORS}"


def series(instrument: Instrument, *matchers: str, part: str = "") -> str:
    """`part`: of a histogram: bucket, sum or count."""
    suffix = f"_{part}" if part else ""
    chosen = ", ".join(matcher for matcher in matchers if matcher)
    return instrument.prometheus + suffix + (f"{{{chosen}}}" if chosen else "")


def rate(selected: str, window: str) -> str:
    return f"rate({selected}[{window}])"


def total(expression: str, *by: str) -> str:
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def quantile(share: float, instrument: Instrument, window: str, by: tuple[str, ...], *matchers: str) -> str:
    rates = total(rate(series(instrument, *matchers, part="bucket"), window), *by, "le")
    return f"histogram_quantile({share}, {rates})"
