"""Names: what a model, a version, a slot and a revision may be called, and how a revision is written."""

from __future__ import annotations

import re
from dataclasses import dataclass

NO_VARIANT = "none"  # how the version's own file is called where a variant is asked for

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Revision:
    """The thing that is loaded, routed to and compared: `digits/2@int8`, plus the digest of its artefact.

    Evidence and metrics key on `digest`, because what lies under a name can change and history must not.
    """

    model: str
    version: int
    variant: str  # "" is the version's own model file
    digest: str  # sha256 of the artefact, lower-case hexadecimal

    def __str__(self) -> str:
        return f"{self.model}/{self.version}" + (f"@{self.variant}" if self.variant else "")

    def fits(self, version: int | None, variant: str | None) -> bool:
        """Whether a request with these pins may be answered by it."""
        return version in (None, self.version) and variant in (None, self.variant or NO_VARIANT)


def is_name(text: str) -> bool:
    """Whether `text` may name a model or a slot: 128 characters of an allow-list, no leading dot or hyphen."""
    return _NAME.fullmatch(text) is not None


def printable(text: str) -> str:
    """`text` with all but visible characters and blanks escaped: it cannot split a log line or act on a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def parse_version(text: str) -> int | None:
    """The version that `text` names, or None: a decimal from 1 of at most 18 digits, no sign, no leading zero."""
    return int(text) if _VERSION.fullmatch(text) else None
