"""A verification as tables on a terminal, or as plain text where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from turnout.core.ids import printable
from turnout.variants.details import OutputDetail, distinct
from turnout.variants.verifying import Verification

_MIB = 2**20
_CLASSES = 5
_ROWS = 5
_PLAIN_WIDTH = 160  # of a file or a pipe: lines that a program reads must not be wrapped


def shown(found: Verification, stream: TextIO) -> str:
    """Everything that fits, for `stream`; the page and the JSON have all classes and rows."""
    width = None if stream.isatty() else _PLAIN_WIDTH
    console = Console(file=stream, width=width, highlight=False, markup=False)
    with console.capture() as captured:
        _all(console, found)
    return captured.get().rstrip("\n")


def _all(console: Console, found: Verification) -> None:
    verdict = Text("over its budget", "bold red") if found.failures else Text("within its budget", "bold green")
    console.print(
        Text(f"{found.candidate.revision} against {found.reference.revision}: ", "bold").append_text(verdict),
    )
    console.print(f"on {found.rows:,} rows of {printable(found.source)}, on {found.candidate.place}", style="dim")
    _outputs(console, found)
    for detail in distinct(found.details):
        _details(console, detail.name, detail)
    if found.accuracy:
        rows = [
            (each.output, f"{each.reference:.2%}", f"{each.variant:.2%}", f"{each.rows:,}") for each in found.accuracy
        ]
        _print(console, ("accuracy of", "reference", "candidate", "rows"), rows)
    _speed(console, found)
    size = found.reference.bytes / max(found.candidate.bytes, 1)
    sizes = (
        f"{found.reference.bytes / _MIB:.3g} MiB, now {found.candidate.bytes / _MIB:.3g} MiB: {size:.2f} times smaller"
    )
    console.print(f"size       {sizes}")
    for note in found.notes:
        console.print(f"note       {printable(note)}")


def _outputs(console: Console, found: Verification) -> None:
    head = ("output", "kind", "top-1", "top-k", "equal", "error", "relative", "p99", "cosine", "nan")
    rows = []
    for each, detail in zip(found.outputs, found.details, strict=True):
        numbers = (each.top1_agreement, each.topk_agreement, each.agreement, each.error_max, each.error_relative_max)
        shown = (_number(number) for number in (*numbers, each.error_p99, detail.cosine_min))
        rows.append((each.name, each.kind.value, *shown, str(each.nonfinite)))
    _print(console, head, rows, text=2)


def _details(console: Console, name: str, detail: OutputDetail) -> None:
    rows: list[tuple[str, ...]]
    lost = sorted((each for each in detail.classes if each.agree < each.rows), key=lambda each: each.agree / each.rows)
    if lost:
        rows = [(each.name, f"{each.agree / each.rows:.2%}", f"{each.rows:,}") for each in lost[:_CLASSES]]
        _print(console, (f"{name}: class", "agree", "rows"), rows)
    turned = [each for each in detail.worst if each.reference != each.candidate] or list(detail.worst)
    if turned:
        rows = [
            (str(each.row), each.reference or "", each.candidate or "", each.label or "", _number(each.error))
            for each in turned[:_ROWS]
        ]
        _print(console, (f"{name}: worst row", "reference", "candidate", "label", "error"), rows)


def _speed(console: Console, found: Verification) -> None:
    if not found.latency:
        return
    rows = []
    for point in found.latency:
        ours, theirs = point.reference, point.candidate
        milliseconds = (f"{ns / 1e6:.3g}" for ns in (ours.p50_ns, theirs.p50_ns, ours.p99_ns, theirs.p99_ns))
        rates = f"{ours.rows_per_s:,.0f}", f"{theirs.rows_per_s:,.0f}"
        memory = (
            "" if side.memory is None else f"{side.memory.peak_bytes.get(point.rows, 0) / _MIB:.1f}"
            for side in (found.reference, found.candidate)
        )
        rows.append((str(point.rows), *milliseconds, *rates, f"{point.speedup:.2f}x", *memory))
    head = ("batch", "p50 ms", "now", "p99 ms", "now", "rows/s", "now", "speed", "peak MiB", "now")
    _print(console, head, rows)


def _print(console: Console, head: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> None:
    """Without columns that have nothing in them: a terminal is narrow."""
    kept = [number for number in range(len(head)) if any(row[number] for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number in kept:
        table.add_column(Text(printable(head[number])), justify="left" if number < text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(row[number])) for number in kept))
    console.print()
    console.print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
