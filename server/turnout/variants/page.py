"""A verification as one HTML page with everything in it: nothing is fetched when it is opened, and it has no script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from turnout.core.parity import Kind, OutputParity
from turnout.variants import plots
from turnout.variants.details import OutputDetail, distinct
from turnout.variants.style import STYLE
from turnout.variants.verifying import Side, Verification

_MIB = 2**20


def page(found: Verification) -> str:
    """The whole page."""
    title = f"{found.candidate.revision} against {found.reference.revision}"
    body = "\n".join([_head(found), _tiles(found), *_outputs(found), _speed(found), _memory(found), _about(found)])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _head(found: Verification) -> str:
    verdict = ("bad", "over its budget") if found.failures else ("good", "within its budget")
    reasons = "".join(f"<li>{escape(each)}</li>" for each in found.failures)
    budget = found.budget
    asked = f"agreement of classes and labels ≥ {budget.agreement_min:g}, error of values ≤ {budget.error_max:g}"
    return (
        f'<header><p class="over">turnout verify</p><h1>{escape(found.candidate.revision)} '
        f"<span>against {escape(found.reference.revision)}</span></h1>"
        f'<p><strong class="verdict {verdict[0]}">{verdict[1]}</strong> '
        f"on {found.rows:,} rows of {escape(found.source)} · {escape(asked)}</p>"
        + (f'<ul class="reasons">{reasons}</ul>' if reasons else "")
        + "</header>"
    )


def _tiles(found: Verification) -> str:
    tiles = [*_agreements(found.outputs)]
    for each in found.accuracy[:1]:
        change = (each.variant - each.reference) * 100
        tiles.append((_share(each.variant), "accuracy", f"{change:+.2f} points, was {_share(each.reference)}"))
    if found.latency:
        last = found.latency[-1]
        tiles.append((_times(last.speedup), "speed", f"of a run with {last.rows} rows"))
    size = found.reference.bytes / max(found.candidate.bytes, 1)
    told = f"{found.candidate.bytes / _MIB:.3g} MiB, the reference {found.reference.bytes / _MIB:.3g}"
    tiles.append((_times(size), "smaller", told))
    return '<section class="tiles" aria-label="In short">' + "".join(_tile(*tile) for tile in tiles) + "</section>"


def _agreements(outputs: Sequence[OutputParity]) -> Iterator[tuple[str, str, str]]:
    """The lowest agreement of classes or labels, and the largest error of values."""
    shares = [(_agreement(each), each) for each in outputs]
    classed = [(share, each) for share, each in shares if share is not None]
    if classed:
        share, each = min(classed, key=lambda pair: pair[0])
        yield _share(share), "agreement", f"of {each.name}"
    valued = [each for each in outputs if each.kind is Kind.VALUES and each.error_relative_max is not None]
    if valued:
        worst = max(valued, key=lambda each: each.error_relative_max or 0)
        yield _share(worst.error_relative_max or 0), "largest error", f"of {worst.name}, over its largest element"


def _agreement(output: OutputParity) -> float | None:
    return output.agreement if output.top1_agreement is None else output.top1_agreement


def _share(share: float) -> str:
    return "100 %" if share == 1 else f"{min(share * 100, 99.99) if share < 1 else share * 100:.2f} %"


def _times(factor: float) -> str:
    return f"{factor:.2f} \N{MULTIPLICATION SIGN}"


def _tile(value: str, what: str, more: str) -> str:
    return f"<div><b>{escape(value)}</b><span>{escape(what)}</span><small>{escape(more)}</small></div>"


def _outputs(found: Verification) -> Iterator[str]:
    head = (
        "output",
        "kind",
        "top-1",
        "top-k",
        "equal",
        "largest error",
        "of the largest",
        "p50",
        "p99",
        "lowest cosine",
        "not finite",
    )
    rows = [
        (
            each.name,
            each.kind.value,
            *(_number(n) for n in (each.top1_agreement, each.topk_agreement, each.agreement)),
            *(_number(n) for n in (each.error_max, each.error_relative_max, each.error_p50, each.error_p99)),
            _number(detail.cosine_min),
            str(each.nonfinite),
        )
        for each, detail in zip(found.outputs, found.details, strict=True)
    ]
    yield f"<section><h2>Outputs</h2>{_table(head, rows, text=2)}</section>"
    by_name = {output.name: output for output in found.outputs}
    for detail in distinct(found.details):
        figures = "".join(_figures(by_name[detail.name], detail))
        yield f"<section><h2>{escape(detail.name)}</h2><div class=plots>{figures}</div>{_worst(detail)}</section>"


def _figures(output: OutputParity, detail: OutputDetail) -> Iterator[str]:
    if detail.histogram is not None and detail.histogram.counts:
        differ = sum(detail.histogram.counts)
        told = f"{differ:,} elements differ, {detail.histogram.equal:,} are equal."
        if detail.histogram.cut:
            told += " What is smaller counts into the first bar."
        yield _figure("Errors", plots.errors(detail.histogram, output), told)
    if detail.classes:
        shown = plots.lowest(detail.classes)
        told = "By the class that the reference gives."
        if len(shown) < len(detail.classes):
            told += f" The {len(shown)} of {len(detail.classes)} classes that agree least."
        yield _figure("Agreement per class", plots.classes(shown, output.name), told)


def _figure(title: str, svg: str, told: str) -> str:
    return f"<figure><h3>{escape(title)}</h3>{svg}<figcaption>{escape(told)}</figcaption></figure>"


def _worst(detail: OutputDetail) -> str:
    if not detail.worst:
        return ""
    labelled = any(each.label is not None for each in detail.worst)
    head = ["row", "reference", "candidate", *(["label"] if labelled else []), "largest error"]
    rows = []
    for each in detail.worst:
        classes = [each.reference or "", each.candidate or "", *([each.label or ""] if labelled else [])]
        rows.append((str(each.row), *classes, _number(each.error)))
    return f"<details open><summary>Rows that differ most</summary>{_table(head, rows, text=0)}</details>"


def _speed(found: Verification) -> str:
    if not found.latency:
        return ""
    names = found.reference.revision, found.candidate.revision
    head = ("rows", "rounds", "", "p50 ms", "p99 ms", "rows / s", "speed")
    rows = []
    for point in found.latency:
        for name, side in zip(names, (point.reference, point.candidate), strict=True):
            numbers = f"{side.p50_ns / 1e6:.3g}", f"{side.p99_ns / 1e6:.3g}", f"{side.rows_per_s:,.0f}"
            first = side is point.reference
            ends = ("" if first else _times(point.speedup),)
            rows.append((str(point.rows) if first else "", str(point.rounds) if first else "", name, *numbers, *ends))
    legend = "".join(
        f'<span class="key"><i class="{style}"></i>{escape(name)}</span>'
        for style, name in zip(("reference", "candidate"), names, strict=True)
    )
    told = "Dot: median. Whisker: 99th percentile. Both ran in turns in one process; logarithmic axis."
    figure = f"<figure><p>{legend}</p>{plots.latency(found.latency, names)}<figcaption>{told}</figcaption></figure>"
    return f"<section><h2>Latency</h2>{figure}{_table(head, rows, text=0)}</section>"


def _memory(found: Verification) -> str:
    sides = [side for side in (found.reference, found.candidate) if side.memory is not None]
    notes = "".join(f"<p>{escape(note)}</p>" for note in found.notes)
    if not sides:
        return f"<section><h2>Not measured</h2>{notes}</section>" if notes else ""
    sizes = sorted({rows for side in sides if side.memory is not None for rows in side.memory.peak_bytes})
    head = ("MiB", "loaded", *(f"peak, {rows} rows" for rows in sizes))
    rows = [(side.revision, *_mebibytes(side, sizes)) for side in sides]
    told = "What a process of its own took beyond what it had before the model was loaded."
    return f"<section><h2>Memory</h2>{_table(head, rows, text=1)}<p class=note>{told}</p>{notes}</section>"


def _mebibytes(side: Side, sizes: Sequence[int]) -> Iterator[str]:
    if side.memory is not None:
        yield f"{side.memory.loaded_bytes / _MIB:.1f}"
        yield from (f"{side.memory.peak_bytes.get(rows, 0) / _MIB:.1f}" for rows in sizes)


def _about(found: Verification) -> str:
    rows = [
        ("made", found.created_at),
        *((side.revision, f"digest {side.digest}, on {side.place}") for side in (found.reference, found.candidate)),
        *((name, value) for name, value in found.machine.items() if value),
        *found.libraries.items(),
    ]
    return f"<section><details><summary>Where this was measured</summary>{_table((), rows, text=2)}</details></section>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], text: int) -> str:
    """The first `text` columns are words, the others numbers. Those that have nothing in them are left out."""
    kept = [number for number in range(len(rows[0])) if any(row[number] for row in rows)]

    def cells(row: Sequence[str], tag: str) -> str:
        styles = ("" if number < text else " class=number" for number in kept)
        return "".join(
            f"<{tag}{style}>{escape(row[number])}</{tag}>" for style, number in zip(styles, kept, strict=True)
        )

    heading = f"<thead><tr>{cells(head, 'th')}</tr></thead>" if head else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="wide"><table>{heading}<tbody>{body}</tbody></table></div>'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
