"""The fields of events as docs/shadow.md has them. A part of a name in capitals stands for any text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "shadow.md"
_ROW = re.compile(r"^\| `((?:turnout|error|rpc)\.[^`]+)` \|", re.MULTILINE)


def documented(event: str) -> list[str]:
    """The names in the table under the heading of an event, in the order of the table."""
    page = PAGE.read_text()
    start = page.index(f"\n### `{event}`\n")
    following = page.find("\n#", start + 1)
    return _ROW.findall(page[start : following if following > 0 else len(page)])


def undocumented(event: str, fields: Iterable[str]) -> set[str]:
    """The names of fields that the page does not have."""
    patterns = [re.compile(pattern_of(name)) for name in documented(event)]
    return {field for field in fields if not any(pattern.fullmatch(field) for pattern in patterns)}


def pattern_of(name: str) -> str:
    return r"\.".join(".+" if part.isupper() else re.escape(part) for part in name.split("."))
