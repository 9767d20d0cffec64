"""Who was to answer a request, and what chose it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from turnout.core.ids import Revision


class Choice(Enum):
    """What chose the slot that answers a request."""

    PIN = auto()  # the request said so, or a pin rule
    SPLIT = auto()  # chance or its sticky key, among several
    ONLY = auto()  # there is no other with traffic
    FALLBACK = auto()  # another slot failed it


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who was to answer a request, by which generation of the route, and what chose it."""

    slot: str
    revision: Revision
    generation: int
    choice: Choice
