"""docs/containers.md and docs/kubernetes.md: commands say what they need, and what is linked or named is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs/containers.md", ROOT / "docs/kubernetes.md"]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TARGET = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_commands_says_what_it_needs(page: Path) -> None:
    blocks = _BLOCK.findall(page.read_text(encoding="utf-8"))
    assert blocks
    for language, text in blocks:
        if language == "yaml":
            assert yaml.safe_load(text)["kind"]
        else:
            assert re.match(r"# needs (a cluster|a container engine|root)", text), text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in _TARGET.findall(page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_example_overlay_names_folders_that_are_there() -> None:
    text = next(text for language, text in _BLOCK.findall(PAGES[1].read_text("utf-8")) if "Kustomization" in text)
    overlay = yaml.safe_load(text)
    for entry in (*overlay["resources"], *overlay["components"]):
        assert (ROOT / entry.removeprefix("turnout/") / "kustomization.yaml").is_file()
