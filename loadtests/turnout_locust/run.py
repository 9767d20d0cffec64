"""One process of a load test: wires users, conductor, account and summary to Locust's events.

In a worker only the users' side; in the only process or the master also the conductor and the verdict.
"""

from __future__ import annotations

import sys
from typing import Any

import gevent
import locust.runners
import locust.stats
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from turnout_locust import summary
from turnout_locust.account import Account, total
from turnout_locust.calls import take_poller
from turnout_locust.conductor import HEARD, RULE, Conductor
from turnout_locust.load import Load, batch_rows_max, prepared
from turnout_locust.options import Options
from turnout_locust.rules import Rule, Rules
from turnout_locust.scenarios import LoadTestError
from turnout_locust.users import OversizedUser, set_pace

_REPORT_S = 0.3  # Locust's 3 s and 1 s would make a short run wait, and leave its end out of the CSV files
_NEVER_S = 3600
_STOP_S_MARGIN = 5.0  # beyond the deadline of a request: how long a user may take to leave
_OVERSIZED_SHARE = 4  # one such user for so many others
_KEY = "turnout"  # in what workers report


class Run:
    """Made by Locust's init event, in each process."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._rules = Rules()
        self._load: Load | None = None
        self._conductor: Conductor | None = None
        self._told: dict[str, dict[str, Any]] = {}
        self._gone = 0
        options = self.options
        self.oversized_users = max(options.users // _OVERSIZED_SHARE, 1) if options.scenario.storms else 0

    @property
    def options(self) -> Options:
        """As they are now: the web UI may change them between runs, and a worker gets the master's."""
        assert self._environment.parsed_options is not None
        return Options.parsed(self._environment.parsed_options)

    def listen(self) -> None:
        """Yields to no other greenlet: a worker is told to begin as soon as it is connected, which it is already."""
        OversizedUser.fixed_count = self.oversized_users
        events, runner = self._environment.events, self._environment.runner
        assert runner is not None
        self._environment.stop_timeout = self.options.deadline_s + _STOP_S_MARGIN
        events.test_start.add_listener(self._begin)
        if not isinstance(runner, MasterRunner):
            runner.register_message(RULE, self._hear)
            # Not when the next run begins: a worker may hear its first rule before.
            events.test_stop.add_listener(self._forget)
        if isinstance(runner, WorkerRunner):
            events.report_to_master.add_listener(self._report)
            return
        if isinstance(runner, MasterRunner):
            events.worker_report.add_listener(self._reported)
            events.test_stopping.add_listener(self._miss)
            runner.register_message(HEARD, self._heard)
        events.test_stop.add_listener(self._end)
        events.quitting.add_listener(self._judge)
        events.quit.add_listener(self._show)

    @property
    def steps_taken(self) -> bool:
        return self._conductor is not None and self._conductor.finished

    def under_way(self) -> bool:
        """Whether users are still there, or requests whose end was not heard of."""
        runner = self._environment.runner
        assert runner is not None
        return runner.user_count > 0 or self.account().under_way > 0

    def account(self) -> Account:
        """Of all processes."""
        if isinstance(self._environment.runner, MasterRunner):
            return total(self._told.values())
        return self._load.account if self._load is not None else Account()

    def _begin(self, **_: Any) -> None:
        self._told.clear()
        self._gone = 0
        runner = self._environment.runner
        if not isinstance(runner, MasterRunner):
            self._load = prepared(self.options, self._rules)
            set_pace(self._load)
        if not isinstance(runner, WorkerRunner):
            self._conductor = Conductor(self._environment, self.options)
            self._conductor.start()

    def _end(self, **_: Any) -> None:
        if self._conductor is not None:
            self._conductor.stop()

    def _forget(self, **_: Any) -> None:
        self._rules.forget()

    def _hear(self, environment: Environment, msg: Any, **_: Any) -> None:
        rule = Rule.of_message(msg.data)
        self._rules.hear(rule)
        if isinstance(environment.runner, WorkerRunner):
            environment.runner.send_message(HEARD, rule.number)  # type: ignore[arg-type] # any value travels

    def _heard(self, environment: Environment, msg: Any, **_: Any) -> None:
        if self._conductor is not None:
            self._conductor.hear(environment, msg)

    def _report(self, client_id: str, data: dict[str, Any]) -> None:
        data[_KEY] = self.account().as_message()

    def _reported(self, client_id: str, data: dict[str, Any]) -> None:
        if _KEY in data:
            self._told[client_id] = data[_KEY]

    def _miss(self, environment: Environment, **_: Any) -> None:
        """Before any process is told to stop: one that has told something and is not there any more took its users
        along, and what it had not told yet."""
        runner = environment.runner
        assert isinstance(runner, MasterRunner)
        there = {client.id for client in runner.clients.all if client.state != STATE_MISSING}
        self._gone = len(self._told.keys() - there)

    def _judge(self, environment: Environment, **_: Any) -> None:
        """The exit status, and the file. Nothing ran: the web UI was only looked at."""
        if self._conductor is None:
            return
        self._summary = summary.summarised(self.options, environment, self._conductor, self.account(), self._gone)
        if self.options.summary is not None:
            summary.write(self._summary, self.options.summary)
        environment.process_exit_code = 0 if self._summary["ok"] else 1

    def _show(self, **_: Any) -> None:
        # Locust closes its CSV files next, under the greenlet that writes them each _REPORT_S: it writes a last time
        # now, all that there is, and never again.
        locust.stats.CSV_STATS_INTERVAL_SEC = _NEVER_S
        gevent.sleep(2 * _REPORT_S)
        if self._conductor is not None:
            print(summary.shown(self._summary), flush=True)


def start(environment: Environment, **_: Any) -> None:
    """Locust's init event: in a worker after its fork, so that gRPC begins in the process that uses it."""
    locust.runners.WORKER_REPORT_INTERVAL = _REPORT_S
    locust.stats.CSV_STATS_INTERVAL_SEC = _REPORT_S  # type: ignore[assignment] # only slept for
    take_poller()
    found = environment.parsed_options
    assert found is not None
    try:
        if not isinstance(environment.runner, WorkerRunner):
            if found.batch_rows_max < 0:
                first = Options.parsed(found)
                found.batch_rows_max = batch_rows_max(first.host, first.model)
            prepared(Options.parsed(found), Rules())  # what is missing is told now, and once
        run = Run(environment)
    except LoadTestError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        sys.exit(2)
    if environment.shape_class is not None:
        environment.shape_class.run = run  # type: ignore[attr-defined]
    run.listen()
