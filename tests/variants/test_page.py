"""The page of a verification: whole, complete in itself, escaped, and with plots that say what they show."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from io import StringIO
from typing import Any
from xml.etree import ElementTree

import pytest

from turnout.core.parity import Kind, OutputParity
from turnout.core.variants import Budget
from turnout.variants import plots
from turnout.variants.details import ClassAgreement, Histogram, OutputDetail, WorstRow
from turnout.variants.page import page
from turnout.variants.terminal import shown
from turnout.variants.timing import Latency, Point
from turnout.variants.verifying import Memory, Side, Verification


class Seen(HTMLParser):
    """Tags that are open, and everything that could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetches: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetches += [name for name, _ in attrs if name in ("src", "href", "srcset", "xlink:href")]
        self.fetches += [tag] * (tag in ("script", "link", "iframe", "img", "object"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def found(**changed: Any) -> Verification:
    scores = OutputParity("<scores>", kind=Kind.SCORES, rows=4, error_max=0.5, top1_agreement=0.75, error_p50=0.01)
    detail = OutputDetail(
        "<scores>",
        Histogram((0.01, 0.1, 1.0), (3, 5), 7),
        (ClassAgreement("<a>", 3, 2), ClassAgreement("b", 1, 1)),
        (WorstRow(1, 0.5, "<a>", "b", None),),
    )
    point = Point(8, 10, Latency(3_000_000, 90_000_000, 100.0), Latency(1_000_000, 2_000_000, 300.0), 3.0)
    memory = Memory(5 << 20, {8: 7 << 20})
    values: dict[str, Any] = {
        "reference": Side("m/1", "a" * 64, 1000, "cpu", memory),
        "candidate": Side("m/1@int8", "b" * 64, 250, "cpu", memory),
        "rows": 4,
        "source": "<samples>.npz",
        "budget": Budget(),
        "outputs": (scores,),
        "details": (detail,),
        "accuracy": (),
        "latency": (point,),
        "failures": ("output '<scores>': too bad",),
        "notes": ("a <note>",),
        "machine": {"cpu": "<chip>"},
        "libraries": {"numpy": "2"},
        "created_at": "2026-01-01T00:00:00Z",
    }
    return Verification(**{**values, **changed})


@pytest.mark.parametrize(
    "changed",
    [{}, {"latency": (), "failures": (), "notes": ()}, {"details": (OutputDetail("<scores>", None, (), ()),)}],
)
def test_the_page_is_whole_and_fetches_nothing(changed: dict[str, Any]) -> None:
    text = page(found(**changed))
    seen = Seen()
    seen.feed(text)
    seen.close()
    assert seen.open == [] and seen.fetches == []
    assert "url(" not in text and "@import" not in text and "://" not in text
    assert "<scores>" not in text and "<samples>" not in text and "<chip>" not in text
    assert "prefers-color-scheme: dark" in text
    for svg in re.findall("<svg.*?</svg>", text, re.DOTALL):
        tree = ElementTree.fromstring(svg)
        title, described = tree[0], tree[1]
        assert tree.get("role") == "img" and title.tag == "title" and title.text
        assert tree.get("aria-labelledby") == f"{title.get('id')} {described.get('id')}" and described.text


def test_the_terminal_takes_no_name_for_a_style() -> None:
    text = shown(found(source="[red]rows[/red].npz", notes=("\x1b[31m",)), StringIO())
    assert "4 rows of [red]rows[/red].npz" in text and "\\x1b[31m" in text and "\x1b" not in text


def test_the_page_says_what_is_wrong() -> None:
    text = page(found())
    assert "over its budget" in text and "too bad" in text and "a &lt;note&gt;" in text
    assert "within its budget" in page(found(failures=()))


def test_of_many_classes_the_plot_has_those_that_agree_least() -> None:
    many = [ClassAgreement(str(number), 10, 10 if number % 2 else 5) for number in range(60)]
    shown = plots.lowest(many)
    assert len(shown) == plots.CLASSES_SHOWN and all(each.agree == 5 for each in shown)
    assert [int(each.name) for each in shown] == sorted(int(each.name) for each in shown)
    assert plots.lowest(many[:3]) == tuple(many[:3])


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.15, 1.9, [0.1, 0.2, 0.5, 1, 2]), (1, 1, [1, 2]), (0.02, 5000, [0.02, 0.1, 1, 10, 100, 1000, 5000])],
)
def test_axes_begin_and_end_at_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert plots._ticks(low, high) == pytest.approx(ticks)


def test_a_share_is_never_rounded_up_to_all() -> None:
    assert plots._percent(0.99999) == "99.9 %" and plots._percent(1) == "100 %"
