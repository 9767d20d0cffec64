"""`make bench-compare`: two results of `make bench`. Exit status: 0 no regression, 1 a regression, 2 wrong use.

A figure has regressed when it is worse and the two intervals do not meet: within them, chance explains the difference.
With fewer than three rounds on either side there is no interval to speak of, and the figure is not judged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from rich.console import Console
from rich.table import Table

from turnout_bench.document import DocumentError, Result, results

_REGRESSION, _UNUSABLE = 1, 2
_ROUNDS_MIN = 3
_COLUMNS = 140  # into a file or a pipe, which have no width


class Change(Enum):
    """What became of a figure."""

    BETTER = "better"
    WORSE = "WORSE"
    SAME = "within the intervals"
    UNSURE = "too few rounds to judge"
    GONE = "not measured now"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure, then and now."""

    name: str
    old: Result | None
    new: Result | None

    @property
    def change(self) -> Change:
        old, new = self.old, self.new
        if old is None:
            return Change.NEW
        if new is None:
            return Change.GONE
        if min(old.rounds, new.rounds) < _ROUNDS_MIN:
            return Change.UNSURE
        rises, falls = new.low > old.high, new.high < old.low
        if not rises and not falls:
            return Change.SAME
        return Change.BETTER if rises == (new.better == "higher") else Change.WORSE


def compare(old: Mapping[str, Result], new: Mapping[str, Result]) -> list[Compared]:
    """Every figure that either has, in the order of the old ones."""
    return [Compared(name, old.get(name), new.get(name)) for name in dict.fromkeys((*old, *new))]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="compare.py", description=__doc__)
    parser.add_argument("old", type=Path, help="an earlier bench.json")
    parser.add_argument("new", type=Path, nargs="?", default=Path("build/bench.json"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        old, new = results(options.old), results(options.new)
    except DocumentError as error:
        print(f"bench-compare: {error}", file=sys.stderr)
        return _UNUSABLE
    if not set(old) & set(new):
        print(f"bench-compare: {options.old} and {options.new} have no figure in common", file=sys.stderr)
        return _UNUSABLE
    compared = compare(old, new)
    _print(compared, Console(width=None if sys.stdout.isatty() else _COLUMNS))
    return _REGRESSION if any(one.change is Change.WORSE for one in compared) else 0


def _print(compared: Sequence[Compared], console: Console) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("figure", "old", "new", "target", ""):
        table.add_column(heading, no_wrap=True)
    for one in compared:
        known = one.new or one.old
        target = "" if known is None or known.target is None else f"{_SIGN[known.better]} {known.target:g}"
        noisy = " (noisy)" if any(each is not None and each.noisy for each in (one.old, one.new)) else ""
        table.add_row(one.name, _interval(one.old), _interval(one.new), target, one.change.value + noisy)
    console.print(table)


_SIGN = {"lower": "<=", "higher": ">="}


def _interval(result: Result | None) -> str:
    return "-" if result is None else f"{result.value:.4g} [{result.low:.4g}, {result.high:.4g}]"
