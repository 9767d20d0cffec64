"""The plots of a verification as SVG: coloured by the page's style, so that they are readable in the dark too.

Written here and not by a plotting library: three plain plots are less code than what would tame its fonts and colours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import count
from math import ceil, floor, log10

from turnout.core.parity import OutputParity
from turnout.variants.details import ClassAgreement, Histogram
from turnout.variants.timing import Latency, Point

CLASSES_SHOWN = 24
_WIDTH = 620
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 24, 20, 44
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_numbers = count(1)


def errors(histogram: Histogram, output: OutputParity) -> str:
    """How many elements have which absolute error, on a logarithmic axis, with the median and the 99th percentile."""
    height, floor_y = 240, 240 - _BOTTOM
    edges, counts = histogram.edges, histogram.counts
    low, high = log10(edges[0]), log10(edges[-1])
    most = max(counts)

    def x(value: float) -> float:
        return _LEFT + (min(max(log10(value), low), high) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(number: float) -> float:
        return floor_y - number / most * (floor_y - _TOP)

    parts = [_rule(y(share * most), _count(round(share * most))) for share in (0, 0.5, 1)]
    for start, end, number in zip(edges, edges[1:], counts, strict=False):
        if number:
            box = f'x="{x(start) + 1:.1f}" y="{y(number):.1f}" width="{max(x(end) - x(start) - 2, 1):.1f}"'
            told = f"{number:,} elements from {start:.2g} to {end:.2g}"
            parts.append(
                f'<rect class="candidate" {box} height="{floor_y - y(number):.1f}" rx="1.5">{_title(told)}</rect>'
            )
    step = max(1, ceil((high - low) / 8))
    for power in range(ceil(low), floor(high) + 1, step):
        parts.append(_text(x(10.0**power), floor_y + 18, _power(power), "tick middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, height - 6, "absolute error", "axis middle"))
    # To both sides of their lines, so that two that are near do not meet.
    for name, value, side, shift in (("p50", output.error_p50, "end", 8), ("p99", output.error_p99, "start", -8)):
        if value:
            parts.append(_line(x(value), _TOP - 4, x(value), floor_y, "mark"))
            parts.append(_text(x(value) + shift, _TOP - 8, name, f"mark-name {side}"))
    described = (
        f"{sum(counts):,} elements differ, {histogram.equal:,} are equal; the largest error is {edges[-1]:.2g} at most."
    )
    return _svg(height, f"Errors of output {output.name}", described, parts)


def classes(found: Sequence[ClassAgreement], output: str) -> str:
    """For each class of the reference the share of its rows that the candidate gives the same class."""
    row_height = 24
    height = _TOP + row_height * len(found) + _BOTTOM
    shares = [each.agree / each.rows for each in found]
    low = _round_below(min(shares))
    left, right = 84, 140

    def x(share: float) -> float:
        return left + (share - low) / (1 - low) * (_WIDTH - left - right)

    bottom = height - _BOTTOM
    parts = []
    for share in (low, (low + 1) / 2, 1.0):
        parts.append(_line(x(share), _TOP - 4, x(share), bottom, "rule"))
        parts.append(
            _text(x(share), bottom + 18, f"{share:.4g}".rstrip() if share % 1 else f"{share:.0f}", "tick middle")
        )
    for number, (each, share) in enumerate(zip(found, shares, strict=True)):
        y = _TOP + row_height * (number + 0.5)
        told = f"class {each.name}: {each.agree:,} of {each.rows:,} rows agree"
        name = each.name if len(each.name) <= 12 else f"{each.name[:11]}…"
        parts += [
            _text(left - 12, y + 4, name, "tick end"),
            _line(x(share), y, x(1), y, "loss"),
            f'<circle class="candidate" cx="{x(share):.1f}" cy="{y:.1f}" r="5">{_title(told)}</circle>',
            _text(_WIDTH - right + 14, y + 4, f"{_percent(share)} of {each.rows:,}", "tick"),
        ]
    parts.append(
        _text(left + (_WIDTH - left - right) / 2, height - 6, "share of rows with the same class", "axis middle")
    )
    described = f"The lowest agreement is {_percent(min(shares))}, the highest {_percent(max(shares))}."
    return _svg(height, f"Agreement per class of output {output}", described, parts)


def latency(points: Sequence[Point], names: tuple[str, str]) -> str:
    """The median of a run against the batch size, with a whisker up to the 99th percentile; both axes logarithmic."""
    height, floor_y = 280, 280 - _BOTTOM
    both = [side for point in points for side in (point.reference, point.candidate)]
    ticks = _ticks(min(side.p50_ns for side in both) / 1e6, max(side.p99_ns for side in both) / 1e6)
    low, high = log10(ticks[0]), log10(ticks[-1])

    def y(value_ns: float) -> float:
        return floor_y - (log10(value_ns / 1e6) - low) / (high - low) * (floor_y - _TOP)

    slot = (_WIDTH - _LEFT - _RIGHT) / len(points)
    parts = [_rule(y(tick * 1e6), f"{tick:g} ms") for tick in ticks]
    sides: tuple[tuple[str, int, Callable[[Point], Latency], str], ...] = (
        ("reference", -7, lambda point: point.reference, names[0]),
        ("candidate", 7, lambda point: point.candidate, names[1]),
    )
    for style, shift, of, name in sides:
        places = [(_LEFT + slot * (number + 0.5) + shift, of(point), point) for number, point in enumerate(points)]
        trail = " ".join(f"{place:.1f},{y(side.p50_ns):.1f}" for place, side, _ in places)
        parts.append(f'<polyline class="trail {style}-line" points="{trail}"/>')
        for place, side, point in places:
            told = f"{name}, batch {point.rows}: median {side.p50_ns / 1e6:.3g} ms, p99 {side.p99_ns / 1e6:.3g} ms"
            parts.append(_line(place, y(side.p99_ns), place, y(side.p50_ns), f"whisker {style}-line"))
            parts.append(_line(place - 4, y(side.p99_ns), place + 4, y(side.p99_ns), f"whisker {style}-line"))
            parts.append(
                f'<circle class="{style}" cx="{place:.1f}" cy="{y(side.p50_ns):.1f}" r="5">{_title(told)}</circle>'
            )
    for number, point in enumerate(points):
        parts.append(_text(_LEFT + slot * (number + 0.5), floor_y + 18, str(point.rows), "tick middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, height - 6, "rows in a batch", "axis middle"))
    faster = [f"batch {point.rows}: {point.speedup:.2f} times as fast" for point in points]
    return _svg(height, "Latency against batch size", f"{names[1]} against {names[0]}: {', '.join(faster)}.", parts)


def lowest(found: Sequence[ClassAgreement]) -> tuple[ClassAgreement, ...]:
    """Those that fit into a plot: all of them, or those that agree least, in their own order."""
    if len(found) <= CLASSES_SHOWN:
        return tuple(found)
    chosen = sorted(range(len(found)), key=lambda index: found[index].agree / found[index].rows)[:CLASSES_SHOWN]
    return tuple(found[index] for index in sorted(chosen))


def _svg(height: float, title: str, described: str, parts: Sequence[str]) -> str:
    number = next(_numbers)
    said = f'<title id="t{number}">{escape(title)}</title><desc id="d{number}">{escape(described)}</desc>'
    opening = f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-labelledby="t{number} d{number}">'
    return f"{opening}{said}{''.join(parts)}</svg>"


def _rule(y: float, label: str) -> str:
    return _line(_LEFT, y, _WIDTH - _RIGHT, y, "rule") + _text(_LEFT - 8, y + 4, label, "tick end")


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _power(power: int) -> str:
    return "1" if power == 0 else f"10{str(power).translate(_SUPERSCRIPTS)}"


def _percent(share: float) -> str:
    """Never 100 % of what is not all."""
    return "100 %" if share == 1 else f"{floor(share * 1000) / 10:.1f} %"


def _count(number: int) -> str:
    return f"{number / 1000:.3g}k" if number >= 10_000 else f"{number:,}"


def _round_below(share: float) -> float:
    """Where an axis up to 1 begins: 0, or so much below 1 that the lowest share is on it."""
    return next((start for start in (0.99, 0.98, 0.95, 0.9, 0.8, 0.5) if start <= share), 0.0)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from one at or below `low` to one at or above `high`."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 2)
    marks = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    first = max(index for index, mark in enumerate(marks) if mark <= low or index == 0)
    last = min(index for index, mark in enumerate(marks) if mark >= high and index > first)
    chosen = marks[first : last + 1]
    return chosen if len(chosen) <= 8 else [m for m in chosen if m in (chosen[0], chosen[-1]) or _is_power(m)]


def _is_power(mark: float) -> bool:
    return abs(log10(mark) - round(log10(mark))) < 1e-9
