"""The table of all metrics, for people."""

from __future__ import annotations

from collections.abc import Sequence

from turnout.telemetry.exposition import label
from turnout.telemetry.instruments import INSTRUMENTS, Instrument
from turnout.telemetry.triton import TRITON_INSTRUMENTS

_HEAD = """# Metrics

Made from `server/turnout/telemetry/instruments.py` by `make monitoring`; do not edit.

Every metric has two names: OpenTelemetry's, and what becomes of it in Prometheus: dots are underscores, the unit is
appended, and counters end in `_total`. Attributes are named alike: `turnout.model.name` is the label
`turnout_model_name`. Histograms have `_bucket`, `_sum` and `_count`. Buckets are counted from a sketch with 1 % of
error: a value within 1 % of a bound may be found on its other side. Units are UCUM's: `s` seconds, `By` bytes, `1` a
share, and what is counted in braces.

No attribute holds what a client may choose freely. What a slot has counted outlasts its revision: the sums of the last
256 pairs of slot and revision that are loaded no more are kept, and forgotten only as a whole. So are the transitions
of the last 256 slots that were emptied.
"""
_TRITON = """
## Under Triton's names

The same counts once more, for dashboards and autoscalers that were made for NVIDIA Triton. For Prometheus only. The
slots of a version are added up. Triton counts waiting requests where Turnout counts waiting rows, and its histogram has
other buckets. These counters do not end in `_total`, so their type is `unknown` (`untyped` in the text format); queries
do not see that.
"""


def document() -> str:
    return "\n".join([_HEAD, *_table(INSTRUMENTS), _TRITON, *_table(TRITON_INSTRUMENTS), ""])


def _table(instruments: Sequence[Instrument]) -> list[str]:
    """Names of Prometheus' own stand alone."""
    foreign = all(instrument.foreign for instrument in instruments)
    names = ["name"] if foreign else ["name", "in Prometheus"]
    headings = [*names, "kind", "unit", "meaning", "labels" if foreign else "attributes"]
    lines = [f"| {' | '.join(headings)} |", f"|{' --- |' * len(headings)}"]
    for each in instruments:
        attributes = ", ".join(f"`{label(name) if foreign else name}`" for name in each.attributes)
        cells = [f"`{each.name}`", *([] if foreign else [f"`{each.prometheus}`"])]
        lines.append(f"| {' | '.join([*cells, each.kind.value, f'`{each.unit}`', each.meaning, attributes])} |")
    return lines
