"""The pages hold together: links lead somewhere, and every alert has its entry in the runbook."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from support.pages import PAGES, ROOT

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = _HEADING.findall(_FENCED.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(_FENCED.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_alert_has_its_entry_in_the_runbook_with_what_it_means_and_what_to_do() -> None:
    rules = yaml.safe_load((ROOT / "docker" / "prometheus" / "turnout-alerts.yaml").read_text())
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    page = (ROOT / "docs" / "runbook.md").read_text()
    entries = dict(re.findall(r"^## (Turnout\w+)\n(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL))
    assert list(entries) == alerts
    for name, entry in entries.items():
        assert re.findall(r"^\*\*(\w+)\.\*\*", entry, re.MULTILINE) == ["Means", "Look", "Do"], name
