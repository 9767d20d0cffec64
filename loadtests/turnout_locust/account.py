"""What became of the requests of one process, by phase of the scenario, and the sum over processes. Pure.

Locust's own statistics know neither phases nor requests that are still under way; a request that was begun and never
settled would not be in them at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_FINE_MS_MAX = 100.0


@dataclass(slots=True)
class Phase:
    """Requests that were begun in one phase.

    Attributes:
        answers: right ones, by revision.
        failures: by kind: "wrong", "lost", or a status code.
        refused: requests that had to be refused, and were, by kind.
        latency_ms: of all answers, right or wrong, rounded to two digits; how many took so long.
    """

    answers: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    latency_ms: Counter[float] = field(default_factory=Counter)

    def percentile_ms(self, percent: float) -> float | None:
        """The smallest latency that `percent` % of all do not exceed; none without answers."""
        wanted = max(1.0, percent / 100 * self.latency_ms.total())
        seen = 0
        for latency, count in sorted(self.latency_ms.items()):
            seen += count
            if seen >= wanted:
                return latency
        return None


class Account:
    """Begun and settled requests; one that was begun and is not settled is under way, or lost."""

    def __init__(self) -> None:
        self.begun = 0
        self.settled = 0
        self.phases: dict[int, Phase] = {}

    @property
    def under_way(self) -> int:
        return self.begun - self.settled

    def begin(self) -> None:
        self.begun += 1

    def answered(self, phase: int, revision: str, latency_ms: float, wrong: bool) -> None:
        self.settled += 1
        found = self._phase(phase)
        found.latency_ms[_rounded(latency_ms)] += 1
        if wrong:
            found.failures["wrong"] += 1
        else:
            found.answers[revision] += 1

    def failed(self, phase: int, kind: str) -> None:
        self.settled += 1
        self._phase(phase).failures[kind] += 1

    def refused(self, phase: int, kind: str) -> None:
        """It had to be."""
        self.settled += 1
        self._phase(phase).refused[kind] += 1

    def as_message(self) -> dict[str, Any]:
        """For another process: numbers, texts, lists and dicts with text keys."""
        return {
            "begun": self.begun,
            "settled": self.settled,
            "phases": {
                str(number): {
                    "answers": dict(phase.answers),
                    "failures": dict(phase.failures),
                    "refused": dict(phase.refused),
                    "latency_ms": [[latency, count] for latency, count in phase.latency_ms.items()],
                }
                for number, phase in self.phases.items()
            },
        }

    def _phase(self, number: int) -> Phase:
        return self.phases.setdefault(number, Phase())


def total(messages: Iterable[Mapping[str, Any]]) -> Account:
    """The sum of what processes told last."""
    both = Account()
    for message in messages:
        both.begun += message["begun"]
        both.settled += message["settled"]
        for number, told in message["phases"].items():
            phase = both.phases.setdefault(int(number), Phase())
            phase.answers.update(told["answers"])
            phase.failures.update(told["failures"])
            phase.refused.update(told["refused"])
            for latency, count in told["latency_ms"]:
                phase.latency_ms[latency] += count
    return both


def _rounded(latency_ms: float) -> float:
    """To a tenth below 100 ms, else to a hundredth of itself: a few hundred different values at most."""
    if latency_ms < _FINE_MS_MAX:
        return round(latency_ms, 1)
    return float(f"{latency_ms:.2g}")
