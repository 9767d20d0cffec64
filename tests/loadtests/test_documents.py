"""bench.json, its comparison, the report and the texts that name peers."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from turnout_bench import compare, document, report
from turnout_bench.compare import Change, Compared
from turnout_bench.document import DocumentError, Result
from turnout_bench.figures import FIGURES, Figure, Measured
from turnout_bench.hdr import Histogram
from turnout_bench.peers import Peer
from turnout_bench.ratios import Estimate
from turnout_bench.results import OK, Run


def written(file: Path, **figures: tuple[float, float, float, str]) -> Path:
    entries = {
        name: {"low": low, "value": value, "high": high, "better": better, "rounds": 7, "target": 1.5}
        for name, (low, value, high, better) in figures.items()
    }
    file.write_text(json.dumps({"figures": entries}))
    return file


def figure(name: str, low: float | None, value: float | None, high: float | None) -> str:
    entry = {"low": low, "value": value, "high": high, "better": "lower", "rounds": 3}
    return json.dumps({"figures": {name: entry}})


@pytest.mark.parametrize(
    ("old", "new", "better", "change"),
    [
        ((1.0, 1.1, 1.2), (1.1, 1.2, 1.3), "lower", Change.SAME),  # noise
        ((1.0, 1.1, 1.2), (1.2, 1.3, 1.4), "lower", Change.SAME),  # they touch
        ((1.0, 1.1, 1.2), (1.3, 1.4, 1.5), "lower", Change.WORSE),
        ((1.0, 1.1, 1.2), (1.3, 1.4, 1.5), "higher", Change.BETTER),
        ((1.0, 1.1, 1.2), (0.7, 0.8, 0.9), "lower", Change.BETTER),
        ((1.0, 1.1, 1.2), (0.7, 0.8, 0.9), "higher", Change.WORSE),
        ((1.0, 1.1, 1.2), (0.5, 1.3, 3.0), "lower", Change.SAME),  # too uncertain to tell
    ],
)
def test_a_change_is_one_that_chance_does_not_explain(
    old: tuple[float, float, float], new: tuple[float, float, float], better: Any, change: Change
) -> None:
    then, now = (Result(value, low, high, better, 7) for low, value, high in (old, new))
    assert Compared("figure", then, now).change is change
    for few in (replace(then, rounds=2), now), (then, replace(now, rounds=1)):
        assert Compared("figure", *few).change is Change.UNSURE


def test_exit_statuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = written(tmp_path / "old.json", one=(1.0, 1.1, 1.2, "lower"), gone=(1, 1, 1, "lower"))
    same = written(tmp_path / "same.json", one=(1.1, 1.2, 1.3, "lower"), new=(1, 1, 1, "lower"))
    worse = written(tmp_path / "worse.json", one=(1.3, 1.4, 1.5, "lower"))
    assert compare.main([str(old), str(same)]) == 0
    assert compare.main([str(old), str(worse)]) == 1
    assert "WORSE" in capsys.readouterr().out
    assert compare.main([str(worse), str(old)]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("no json", "is not JSON"),
        ("[]", "has no figures"),
        ('{"figures": {"one": {"value": 1}}}', "figure 'one' has no value"),
        ('{"figures": {"one": {"low": 2, "value": 1, "high": 3, "better": "lower", "rounds": 3}}}', "figure 'one'"),
        (
            '{"figures": {"one": {"low": null, "value": null, "high": null, "better": "lower", "rounds": 3}}}',
            "figure 'one'",
        ),
        (
            '{"figures": {"other": {"low": 1, "value": 1, "high": 1, "better": "lower", "rounds": 3}}}',
            "no figure in common",
        ),
    ],
)
def test_what_cannot_be_compared_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    old, new = tmp_path / "old.json", written(tmp_path / "new.json", one=(1, 1, 1, "lower"))
    if text is not None:
        old.write_text(text)
    assert compare.main([str(old), str(new)]) == 2
    assert message in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        compare.main([])
    assert exit_.value.code == 2


async def _unmeasured(bench: object) -> Measured:
    raise AssertionError


FIGURE = Figure("one", "what <it> is", "lower", 1.5, _unmeasured)


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    measured = Measured(
        Estimate(1.4, 1.3, 1.6, 7), {"turnout": {"cpu_us": float("nan")}}, {"rounds": [1]}, ("a doubt",)
    )
    entry = document.figure_entry(FIGURE, measured, 0.4, 0.3)
    assert (entry["met"], entry["noisy"], entry["target"]) == (True, True, 1.5)
    file = tmp_path / "build" / "bench.json"
    document.write(file, {"figures": {"one": entry}}, {"one": measured.rounds})
    assert document.results(file) == {"one": Result(1.4, 1.3, 1.6, "lower", 7, 1.5, noisy=True)}
    assert document.read(file)["figures"]["one"]["absolute"] == {"turnout": {"cpu_us": None}}
    assert json.loads(document.raw_file(file).read_text()) == {"one": {"rounds": [1]}}
    with pytest.raises(DocumentError):
        document.read(tmp_path)


def test_targets() -> None:
    higher = functools.partial(Figure, "f", "w", "higher", measure=_unmeasured)
    assert FIGURE.met(1.5) and not FIGURE.met(1.51)
    assert higher(target=0.97).met(0.97) and not higher(target=0.97).met(0.96)
    assert higher(target=None).met(1) is None


def test_the_figures_have_the_names_that_were_promised() -> None:
    assert {figure.name for figure in FIGURES} >= {
        *("overhead_small_c32", "efficiency_big_c4", "efficiency_big_c32", "goodput_poisson", "goodput_bursty"),
        *("goodput_closed", "tail_p99_at_70", "image_cpu_over_echo", "stream_cpu_over_unary", "md1_wait_error"),
        *("swap_failed", "swap_p99_ratio", "rollback_ms", "load_loop_lag_ms"),
    }
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


class Outside(HTMLParser):
    """Everything that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action") and not (value or "").startswith("#"):
                self.found.append(f"{tag} {name}={value}")


def test_the_report_is_one_file(tmp_path: Path) -> None:
    def point(rate: float, void: bool = False) -> dict[str, Any]:
        lag = Histogram.of_ns([1e9 if void else 0] * 10)
        run = Run(10.0, {OK: 10}, Histogram.of_ns([1e6 * rate] * 10), lag, rate=rate)
        return {**run.as_json(), "batch_rows_mean": None if void else 2.0}

    entry = document.figure_entry(FIGURE, Measured(Estimate(1.6, 1.5, 1.7, 7), {}, None, ("<doubt>",)), 0.5, 0.3)
    about = {"figures": {"one": entry}, "machine": {"cpu": "a <cpu>", "cores": 2}, "noisy": ["one"], "plan": "quick"}
    text = report.page(about, [point(100), point(50, void=True)])
    outside = Outside()
    outside.feed(text)
    assert outside.found == []
    assert not outside.tags & {"link", "script", "img", "iframe", "object"}
    assert not re.search(r"@import|url\((?!['\"]?#)", text)
    assert text.count("<svg") == 3
    assert "&lt;doubt&gt;" in text and "a &lt;cpu&gt;" in text and "what &lt;it&gt; is" in text
    assert "50.0/s: the generator" in text


def test_a_report_needs_no_sweep() -> None:
    assert "<svg" not in report.page({"title": "x"}, [])


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("triton=127.0.0.1:8001", Peer("triton", "127.0.0.1:8001")),
        ("mlserver-1.7=host.example:9000:1234", Peer("mlserver-1.7", "host.example:9000", 1234)),
        ("v6=[::1]:8001", Peer("v6", "[::1]:8001")),
        ("v6=[::1]:8001:7", Peer("v6", "[::1]:8001", 7)),
    ],
)
def test_peers(text: str, peer: Peer) -> None:
    assert Peer.parse(text) == peer


@pytest.mark.parametrize("text", ["", "triton", "triton=", "triton=host", "=h:1", "a=::1:8001", "a=h:1:x"])
def test_other_texts_are_no_peer(text: str) -> None:
    with pytest.raises(ValueError, match="is no peer"):
        Peer.parse(text)
