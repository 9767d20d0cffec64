"""What is made from the table of instruments: fresh, complete, and about nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import generate
from monitoring.rules import ALERTS, RECORDS
from turnout.telemetry.exposition import label
from turnout.telemetry.instruments import INSTRUMENTS, Kind
from turnout.telemetry.triton import TRITON_INSTRUMENTS

ROOT = Path(__file__).resolve().parents[2]
_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_OURS = re.compile(r"(turnout|rpc|process|cpython|hw)_\w+")
_LABELS = {label(attribute) for each in INSTRUMENTS for attribute in each.attributes}
_NAMES = {
    each.prometheus + suffix
    for each in INSTRUMENTS
    for suffix in (("_bucket", "_sum", "_count") if each.kind is Kind.HISTOGRAM else ("",))
}


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def panels() -> list[Any]:
    document = json.loads((ROOT / "docker/grafana/turnout.json").read_text())
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def test_the_committed_files_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.report_stale(ROOT) == 0, capsys.readouterr().out


def test_a_stale_file_is_named_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate.write(tmp_path)
    assert generate.report_stale(tmp_path) == 0
    (tmp_path / "docs/metrics.md").write_text("other")
    (tmp_path / "docker/grafana/turnout.json").unlink()
    assert generate.report_stale(tmp_path) == 1
    said = capsys.readouterr().out.splitlines()
    assert said == ["docs/metrics.md is stale", "docker/grafana/turnout.json is stale", "remedy: run `make monitoring`"]


def test_every_metric_is_documented_with_its_unit_and_attributes() -> None:
    rows = {}
    for line in (ROOT / "docs/metrics.md").read_text().splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[cells[0].strip("`")] = cells
    assert set(rows) == {each.name for each in (*INSTRUMENTS, *TRITON_INSTRUMENTS)}
    for each in INSTRUMENTS:
        attributes = ", ".join(f"`{name}`" for name in each.attributes)
        expected = [f"`{each.prometheus}`", each.kind.value, f"`{each.unit}`", each.meaning, attributes]
        assert rows[each.name][1:] == expected


@pytest.mark.parametrize("expression", [*queries(), *(rule.expression for rule in (*RECORDS, *ALERTS))])
def test_queries_ask_only_for_what_there_is(expression: str) -> None:
    words = {word for word in _WORD.findall(expression) if _OURS.fullmatch(word)}
    assert words <= _NAMES | _LABELS
    recorded = {word for word in _WORD.findall(expression) if ":" in word}
    assert recorded <= {record.name for record in RECORDS}
    assert words & _NAMES or recorded or "up{" in expression


def test_the_dashboard_lies_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    document = json.loads((ROOT / "docker/grafana/turnout.json").read_text())
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])


def test_every_alert_has_a_scenario_and_a_quiet_one() -> None:
    tests = yaml.safe_load((ROOT / "docker/prometheus/turnout-alerts-test.yaml").read_text())["tests"]
    healthy, *others = tests
    quiet = {case["alertname"] for case in healthy["alert_rule_test"] if case["exp_alerts"] == []}
    fires = {c["alertname"] for test in others for c in test.get("alert_rule_test", []) if c["exp_alerts"]}
    assert quiet == fires == {alert.name for alert in ALERTS}
