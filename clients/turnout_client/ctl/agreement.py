"""How far a shadow slot agrees, as tables for any width of terminal: one summary, with what is remembered of earlier
ones. Computes nothing but shares of counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from turnout_client.ctl.messages import enum_name
from turnout_client.ctl.tables import NOTHING, plain_table, printable
from turnout_client.ctl.windows import WINDOWS_KEPT, Windows, agreeing, scale, sparkline
from turnout_client.desired import RevisionSpec
from turnout_wire.gen import slots_pb2 as pb

_VERDICTS = {pb.VERDICT_PASS: "green", pb.VERDICT_FAIL: "red"}
_NARROW = 60  # columns: below it, measures stand below each other, and sparklines are left out
_OTHER = "_OTHER"  # what a server calls the classes that it does not tell apart
_CONFUSIONS_SHOWN = 3
_EVIDENCE_MIN = 2.0  # as good as p = 0.01


def summary_table(
    summary: pb.ShadowSummary,
    width: int = 80,
    windows: Windows | None = None,
    classes_max: int | None = None,
    worst_max: int | None = None,
) -> RenderableType:
    """One summary: agreement over the last window and in all, and by class.

    Args:
        width: columns of the terminal.
        windows: what is remembered of earlier summaries; with it, there are sparklines.
        classes_max: of each output, those that disagree most; None: all.
        worst_max: as many of the worst pairs; None: all.
    """
    parts: list[RenderableType] = [_heading(summary), _totals(summary, width < _NARROW)]
    if windows is not None and len(windows.rates) > 1:
        low = scale([windows.rates])
        parts.append(_fact(f"{sparkline(windows.rates, low, WINDOWS_KEPT)}  last windows, {_percent(low)} to 100 %"))
    parts += _facts(summary)
    for outputs in _alike(summary):
        parts += [Text(), *_classes(summary, outputs, width, windows, classes_max)]
    if summary.worst_pairs:
        parts += [Text(), _worst(summary.worst_pairs[:worst_max], width < _NARROW)]
    return Group(*parts)


def revisions(summary: pb.ShadowSummary) -> str:
    """`digits/2 against digits/1`."""
    return f"{_revision(summary.shadow_revision)} against {_revision(summary.live_revision)}"


def rate(value: float) -> str:
    """Only what is all is called 100 %, and only what is none 0 %."""
    percent = value * 100
    return f"{min(max(percent, 0.01), 99.99) if 0 < value < 1 else percent:.2f} %"


def _percent(value: float) -> str:
    return f"{value * 100:.0f} %"


def judged(summary: pb.ShadowSummary) -> str:
    return enum_name(summary, "verdict")


def latency_ratios(summary: pb.ShadowSummary) -> str:
    """Of the shadow's time over the live one's; "" without any pair."""
    if not summary.HasField("latency_ratio_p50"):
        return ""
    return f"p50 {summary.latency_ratio_p50:.2f}x, p99 {summary.latency_ratio_p99:.2f}x"


def drops(summary: pb.ShadowSummary) -> str:
    """By reason, the most frequent first."""
    found = sorted(summary.dropped.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{printable(reason)} {count:,}" for reason, count in found if count)


def improvement(reference: pb.ReferenceScore) -> str:
    """Whether disagreeing is being right more often."""
    if reference.log10_evidence >= _EVIDENCE_MIN:
        said = "its disagreement is mostly improvement"
    elif reference.only_live_right > reference.only_shadow_right:
        said = "so far its disagreement is mostly loss"
    else:
        said = "too few labels to call its disagreement improvement"
    return f"{said} (evidence 10^{reference.log10_evidence:.1f})"


def _revision(revision: pb.Revision) -> str:
    return printable(RevisionSpec(revision.version, revision.variant).text(revision.model))


def _heading(summary: pb.ShadowSummary) -> Text:
    return Text.assemble(
        (f"{printable(summary.model)} {printable(summary.shadow_slot)}", "bold"),
        f"  {revisions(summary)} in {printable(summary.live_slot)}  ",
        (judged(summary), _VERDICTS.get(summary.verdict, "yellow")),
    )


def _totals(summary: pb.ShadowSummary, narrow: bool) -> Table:
    names = ["pairs", "agree", "at least", "at most", "noise"]
    columns = {"window": _measures(summary.window, False), "total": _measures(summary.total, True)}
    if narrow:
        table = plain_table("", *(f">{name}" for name in columns))
        for name, *values in zip(names, *columns.values(), strict=True):
            table.add_row(name, *values)
        return table
    table = plain_table("", *(f">{name}" for name in names))
    for name, values in columns.items():
        table.add_row(name, *values)
    return table


def _measures(found: pb.Agreement, bounded: bool) -> list[str]:
    """Bounds are those of all pairs: of one window after another they would miss the truth now and then."""
    pairs, noise = found.pair_count, found.noise_pair_count
    bounds = [rate(value) if pairs and bounded else NOTHING for value in (found.low, found.high)]
    shares = [rate(found.rate) if pairs else NOTHING, *bounds]
    return [f"{pairs:,}", *shares, f"{rate(found.noise_rate)} of {noise:,}" if noise else NOTHING]


def _facts(summary: pb.ShadowSummary) -> Iterator[Padding]:
    if ratios := latency_ratios(summary):
        yield _fact(f"latency against the live one: {ratios}")
    if 0 < summary.total.distinct_count < summary.total.pair_count:
        yield _fact(f"inputs are repeated: bounds and verdict are of {summary.total.distinct_count:,} different ones")
    if lost := drops(summary):
        yield _fact(f"not compared: {lost}", "yellow")
    if summary.HasField("reference"):
        score = summary.reference
        yield _fact(
            f"labels: both right {score.both_right:,}, only live {score.only_live_right:,}, only shadow "
            f"{score.only_shadow_right:,}, both wrong {score.both_wrong:,}"
        )
        yield _fact(improvement(score), "green" if score.log10_evidence >= _EVIDENCE_MIN else "")


def _fact(text: str, style: str = "") -> Padding:
    return Padding(Text(text, style), (0, 0, 0, 2))


def _alike(summary: pb.ShadowSummary) -> list[list[str]]:
    """Outputs whose classes agree alike, together: a label often says again what the scores say."""
    rows: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    for each in summary.classes:
        rows[each.output].append((each.live_class, each.row_count, agreeing(each)))
    alike: dict[tuple[tuple[str, int, int], ...], list[str]] = defaultdict(list)
    for output, found in rows.items():
        alike[tuple(found)].append(output)
    return list(alike.values())


def _classes(
    summary: pb.ShadowSummary, outputs: Sequence[str], width: int, windows: Windows | None, classes_max: int | None
) -> Iterator[RenderableType]:
    """Of outputs that are alike: as the first of them."""
    output = outputs[0]
    found = [each for each in summary.classes if each.output == output]
    shown = sorted(found, key=lambda each: agreeing(each) - each.row_count)[:classes_max]
    shown.sort(key=lambda each: _natural(each.live_class))
    taken_for: dict[str, list[str]] = defaultdict(list)
    for confusion in sorted(summary.confusions, key=lambda each: -each.count):
        if confusion.output == output:
            taken_for[confusion.live_class].append(f"{_class(confusion.shadow_class)} ({confusion.count:,})")

    rates = {each.live_class: windows.by_class(output, each.live_class) for each in shown} if windows else {}
    with_windows = width >= _NARROW and any(len(each) > 1 for each in rates.values())
    low = scale(list(rates.values()))
    headings = ["", ">rows", ">agree", *([f">from {_percent(low)}"] if with_windows else []), "taken for"]
    table = plain_table(*headings)
    table.columns[0].header = Text(printable(", ".join(outputs)), "bold")
    for each in shown:
        row: list[RenderableType] = [Text(_class(each.live_class)), f"{each.row_count:,}", _share(each)]
        if with_windows:
            row.append(sparkline(rates[each.live_class], low, min(WINDOWS_KEPT, width // 6)))
        most = taken_for[each.live_class][: _CONFUSIONS_SHOWN if width >= _NARROW else 1]
        table.add_row(*row, Text(", ".join(most)))
    yield table
    if len(shown) < len(found):
        rest = len(found) - len(shown)
        yield _fact(f"{rest:,} classes more, which disagree less", "dim")


def _share(found: pb.ClassAgreement) -> str:
    return rate(agreeing(found) / found.row_count) if found.row_count else NOTHING


def _class(name: str) -> str:
    return "others" if name == _OTHER else printable(name)


def _natural(name: str) -> tuple[bool, int, str]:
    """Numbers by their value, then names; what is not told apart comes last."""
    number = name.isascii() and name.isdigit()
    return (name == _OTHER, int(name) if number else -1, name)


def _worst(pairs: Sequence[pb.WorstPair], narrow: bool) -> Table:
    table = plain_table("worst pairs", *([] if narrow else ["output"]), ">distance", "live → shadow")
    for each in pairs:
        classes = f"{_class(each.live_class)} → {_class(each.shadow_class)}" if each.live_class else NOTHING
        where = [] if narrow else [Text(printable(each.output))]
        table.add_row(Text(printable(each.inference_id)), *where, f"{each.distance:.4g}", Text(classes))
    return table
