"""Takes a scenario's steps at their times, in the process that has the statistics (Locust's master or only process),
tells all users the rules before and after each, and counts each step as a request of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import MasterRunner

from turnout_client.errors import AdminError
from turnout_locust.operating import Operator, keys_stick, ready, routed, said, traffic_of
from turnout_locust.options import Options
from turnout_locust.rules import Rule
from turnout_locust.scenarios import Action, LoadTestError, Step
from turnout_locust.users import Failure

RULE, HEARD = "turnout_rule", "turnout_heard"  # messages to and from workers
_HEARD_S_MAX = 10.0
_LOOK_S = 0.02
_DWELL_S = 0.5  # before the next step, however late it is: nobody would have asked anything in between


@dataclass(frozen=True, slots=True)
class Mark:
    """An event of the run. `at_s`: since its start; `took_ms` of 0: a moment."""

    at_s: float
    title: str
    text: str
    took_ms: float = 0.0
    failed: bool = False


class Conductor:
    """One run of a scenario.

    Attributes:
        rules: those that were announced, each with the seconds of the run at which it came into force.
        finished: no step is left, or one failed.
    """

    def __init__(self, environment: Environment, options: Options) -> None:
        self._environment = environment
        self._options = options
        self._operator = (
            Operator(options.admin, options.model, options.to_version, options.slot) if options.admin else None
        )
        self._heard: dict[int, set[str]] = {}
        self._began = time.monotonic()
        self.rules: list[tuple[float, Rule]] = [(0.0, Rule(0, "start"))]
        self.marks: list[Mark] = []
        self.finished = False

    def start(self) -> None:
        self._began = time.monotonic()
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Steps that were not taken count as failed."""
        self._greenlet.kill()
        if not self.finished:
            self._mark("scenario", "ended before its last step", 0.0, failed=True)
            self.finished = True
        if self._operator is not None:
            self._operator.close()

    def hear(self, environment: Environment, msg: Any, **_: Any) -> None:
        """A worker has a rule."""
        self._heard.setdefault(int(msg.data), set()).add(msg.node_id)

    @property
    def at_s(self) -> float:
        return time.monotonic() - self._began

    def _run(self) -> None:
        scenario = self._options.scenario
        try:
            if self._operator is not None and scenario.moves:
                self._operator.clear()
            self._announce("before" if scenario.steps else scenario.name)
            for step in scenario.steps:
                gevent.sleep(max(step.at * self._options.duration_s - self.at_s, 0.0))
                if not self._take(step):
                    break
        except (AdminError, LoadTestError) as error:
            self._mark("scenario", said(error), 0.0, failed=True)
        finally:
            self.finished = True

    def _take(self, step: Step) -> bool:
        """Whether it went as it must; those that would come after it make no sense otherwise."""
        operator = self._operator
        storm = step.action is Action.STORM
        if operator is None or step.action in (Action.STORM, Action.CALM):
            self._announce(step.title, storm)
            self._mark(step.title, "", 0.0)
            return True
        before = operator.look()
        self._say(Rule(len(self.rules), f"during {step.title}", ready(before)))
        began = time.perf_counter()
        try:
            text = operator.perform(step)
        except (AdminError, LoadTestError) as error:
            self._mark(step.title, said(error), (time.perf_counter() - began) * 1e3, failed=True)
            return False
        self._mark(step.title, text, (time.perf_counter() - began) * 1e3)
        self._announce(f"after {step.title}")
        gevent.sleep(_DWELL_S)
        return True

    def _announce(self, title: str, storm: bool = False) -> None:
        """What is in force now."""
        number = len(self.rules)
        if self._operator is None:
            self._say(Rule(number, title, storm=storm))
            return
        model = self._operator.look()
        self._say(Rule(number, title, routed(model), sticky=keys_stick(model), storm=storm))
        if number == 1:
            self._mark("start", traffic_of(model), 0.0)

    def _say(self, rule: Rule) -> None:
        """To all processes with users; returns when they have it.

        Raises:
            LoadTestError: one does not answer.
        """
        runner = self._environment.runner
        assert runner is not None
        self.rules.append((self.at_s, rule))
        runner.send_message(RULE, rule.as_message())
        if not isinstance(runner, MasterRunner):
            return
        with gevent.Timeout(_HEARD_S_MAX, LoadTestError(f"a worker did not answer within {_HEARD_S_MAX:g} s")):
            while not self._heard.get(rule.number, set()) >= {client.id for client in runner.clients.all}:
                gevent.sleep(_LOOK_S)

    def _mark(self, title: str, text: str, took_ms: float, failed: bool = False) -> None:
        """Into the list of events and, where something was done, into Locust's table."""
        self.marks.append(Mark(self.at_s, title, text, took_ms, failed))
        print(f"[{self.at_s:6.1f} s] {title}{': ' if text else ''}{text}{' FAILED' if failed else ''}", flush=True)
        if took_ms or failed:
            self._environment.events.request.fire(
                request_type="step",
                name=title,
                response_time=took_ms,
                response_length=0,
                exception=Failure(text) if failed else None,
                context={},
            )
