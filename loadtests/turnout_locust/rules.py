"""Which revisions may answer a request: those that were routed from when it left until it was answered.

Pure. A rule is one phase of a scenario. The conductor announces one before a change, with what both sides of it allow,
and one after it, so that a change that did not happen shows in the answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Rule:
    """One phase.

    Attributes:
        allowed: revisions that may answer; empty: any.
        sticky: nothing moves, and keys are sticky: a key stays with its revision.
        storm: requests that are too large are sent too.
    """

    number: int
    title: str
    allowed: tuple[str, ...] = ()
    sticky: bool = False
    storm: bool = False

    def as_message(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of_message(message: Mapping[str, Any]) -> Rule:
        return Rule(**{**message, "allowed": tuple(message["allowed"])})


class Rules:
    """The rules of a run as one process has heard them; the last one is in force."""

    def __init__(self) -> None:
        self._heard = [Rule(0, "start")]
        self._owners: dict[str, tuple[int, str]] = {}

    @property
    def now(self) -> Rule:
        return self._heard[-1]

    def hear(self, rule: Rule) -> None:
        self._heard.append(rule)

    def forget(self) -> None:
        """The run is over."""
        self._heard = [Rule(0, "start")]
        self._owners.clear()

    def fault(self, asked: Rule, key: str, revision: str) -> str:
        """What is wrong with who answered a request that left under the rule `asked`; empty: nothing."""
        since = [rule for rule in self._heard if rule.number >= asked.number]
        allowed = {revision for rule in since for revision in rule.allowed}
        if all(rule.allowed for rule in since) and revision not in allowed:
            return f"revision {revision} answered in '{asked.title}', where only {', '.join(sorted(allowed))} may"
        if asked is not self.now or not asked.sticky or not key:
            return ""
        number, owner = self._owners.get(key, (asked.number, revision))
        if number == asked.number and owner != revision:
            return f"a sticky key moved from {owner} to {revision} in '{asked.title}', where nothing moves"
        self._owners[key] = (asked.number, revision)
        return ""
