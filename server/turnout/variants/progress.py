"""Who is told how far a quantization has come."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def stage(self, what: str, total: int | None = None) -> None:
        """Something begins that has `total` steps, or nobody knows how many."""

    def advance(self, count: int) -> None:
        """So many steps of it are done."""

    def note(self, text: str) -> None:
        """A line that stays."""
