"""How far an offline command has come, and its tables: a bar that moves on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from turnout.core.ids import printable


class Told:
    """The `Progress` of an offline command. Stages are a bar, which only a terminal shows; notes are lines."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(file=stream)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._bar = Progress(*columns, console=console, transient=True, disable=not stream.isatty())
        self._stream = stream
        self._task = self._bar.add_task("starting", total=None)

    @classmethod
    @contextmanager
    def on(cls, stream: TextIO) -> Iterator[Told]:
        """For as long as the work takes; the bar is taken away after it."""
        told = cls(stream)
        with told._bar:
            yield told

    def stage(self, what: str, total: int | None = None) -> None:
        self._bar.reset(self._task, description=what, total=total)

    def advance(self, count: int) -> None:
        self._bar.advance(self._task, count)

    def note(self, text: str) -> None:
        if self._bar.disable:
            print(printable(text), file=self._stream, flush=True)
        else:
            self._bar.console.print(printable(text), markup=False, highlight=False)


def say(*lines: str) -> None:
    """On standard output. That a reader such as `head` has gone is no failure of the work."""
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns as wide as what is in them; the first row is the heading."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in shown) for index in range(len(shown[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
