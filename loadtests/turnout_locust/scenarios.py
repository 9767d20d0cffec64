"""What a load test does: how many users there are at which time, and which steps an operator takes meanwhile.

Pure: no clock, no network. Times and users are shares of those that are asked for.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ALL_BP = 10_000
_STAGES = 10


class LoadTestError(Exception):
    """The load test cannot be run, or a step of it failed; the message says why."""


class Action(enum.Enum):
    """What an operator does. LOAD brings the other version into a slot beside the live one."""

    LOAD = "load"
    WEIGHTS = "weights"
    SWAP = "swap"
    ROLLBACK = "rollback"
    SHADOW = "shadow"
    SHADOW_OFF = "shadow off"
    STORM = "storm"
    CALM = "calm"


@dataclass(frozen=True, slots=True)
class Step:
    """One action, and when it is due.

    Attributes:
        at: the share of the run's time that has passed; a step that takes longer delays those behind it.
        share_bp: of WEIGHTS, what the other version gets; of SHADOW, the share of requests that is copied.
    """

    at: float
    action: Action
    share_bp: int = 0

    @property
    def title(self) -> str:
        return f"{self.action.value} {self.share_bp / 100:g} %" if self.share_bp else self.action.value


@dataclass(frozen=True, slots=True)
class Scenario:
    """Attributes:
    what: one line for the list of scenarios.
    users: the share of all users who are there, by the share of time that has passed.
    duration_s: where none is asked for.
    """

    name: str
    what: str
    users: Callable[[float], float]
    steps: tuple[Step, ...] = ()
    duration_s: float = 30.0

    @property
    def moves(self) -> bool:
        """Whether slots are changed, so that an admin service and a second version are needed."""
        return any(step.action not in (Action.STORM, Action.CALM) for step in self.steps)

    @property
    def storms(self) -> bool:
        return any(step.action is Action.STORM for step in self.steps)


def steady(_: float) -> float:
    """All, all the time."""
    return 1.0


def ramp(at: float) -> float:
    """A tenth more in each tenth of the time."""
    return min(int(at * _STAGES) + 1, _STAGES) / _STAGES


def spike(at: float) -> float:
    """A fifth, and all of them for the middle fifth of the time."""
    return 1.0 if 0.4 <= at < 0.6 else 0.2


_LOAD = Step(0.1, Action.LOAD)
_ALL: tuple[Scenario, ...] = (
    Scenario("steady", "all users, all the time", steady),
    Scenario("ramp", "a tenth more of the users in each tenth of the time", ramp, duration_s=60.0),
    Scenario("spike", "a fifth of the users, and all of them for the middle fifth of the time", spike),
    Scenario("soak", "as steady, for ten minutes", steady, duration_s=600.0),
    Scenario(
        "canary",
        "another version gets 5 %, 25 %, 50 % of the users and then all",
        steady,
        (
            _LOAD,
            Step(0.3, Action.WEIGHTS, 500),
            Step(0.45, Action.WEIGHTS, 2500),
            Step(0.6, Action.WEIGHTS, 5000),
            Step(0.8, Action.WEIGHTS, ALL_BP),
        ),
    ),
    Scenario("swap", "all traffic to another version in one assignment", steady, (_LOAD, Step(0.5, Action.SWAP))),
    Scenario(
        "rollback",
        "a swap to another version, taken back",
        steady,
        (_LOAD, Step(0.4, Action.SWAP), Step(0.7, Action.ROLLBACK)),
    ),
    Scenario(
        "shadow",
        "another version answers copies of all requests for a while",
        steady,
        (_LOAD, Step(0.3, Action.SHADOW, ALL_BP), Step(0.7, Action.SHADOW_OFF)),
    ),
    Scenario(
        "storm",
        "requests that are too large, beside normal ones, in the middle of the time",
        steady,
        (Step(0.35, Action.STORM), Step(0.7, Action.CALM)),
    ),
    Scenario(
        "lifecycle",
        "a version's whole way: shadow, 10 %, 50 %, swap, rollback",
        steady,
        (
            _LOAD,
            Step(0.2, Action.SHADOW, ALL_BP),
            Step(0.35, Action.SHADOW_OFF),
            Step(0.4, Action.WEIGHTS, 1000),
            Step(0.55, Action.WEIGHTS, 5000),
            Step(0.7, Action.SWAP),
            Step(0.85, Action.ROLLBACK),
        ),
        duration_s=60.0,
    ),
)
SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}


def scenario_named(name: str) -> Scenario:
    """Raises:
    LoadTestError: there is none; with a list of all.
    """
    if found := SCENARIOS.get(name):
        return found
    listed = "\n".join(f"  {each.name:10} {each.what} ({each.duration_s:g} s)" for each in _ALL)
    asked = f"no scenario is called '{name}'" if name else "no scenario is chosen"
    raise LoadTestError(f"{asked}; SCENARIO= one of\n{listed}")
