"""The demo's story: version 2 arrives beside version 1, answers copies of requests that nobody sees, gets 10 % of the
users, then all, then none; nothing fails.

Each change is a real `turnoutctl` command; a table shows what was wanted next to what the users see.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

import drawing
from server_process import Trouble
from steady import USERS, Users
from turnout_client.admin import AdminClient
from turnout_client.ctl.agreement import summary_table
from turnout_wire.gen import feedback_pb2 as feedback
from turnout_wire.gen import slots_pb2 as pb

MODEL = "digits"
SHARE_BP = 1000
_COMMAND_S_MAX = 60
_WINDOW_S = 1.5
_LOOKS_PER_S = 4
_ROLLBACK_LOOK_S_MAX = 5.0
_LABELS_MAX = 1000  # that one call takes
_PAIRS_MIN = 20  # there are some hundred of them
_SIGMAS = 6  # a share of USERS hashed keys is off by more once in half a billion salts


class Story:
    """Tells it on `console` while `users` ask.

    Args:
        admin: the admin port, `HOST:PORT`.
        pause_s: how long each scene is looked at.
    """

    def __init__(self, console: Console, users: Users, admin: str, pause_s: float) -> None:
        self._console = console
        self._users = users
        self._admin = admin
        self._pause_s = pause_s
        self._client = AdminClient(admin)
        self._title = ""

    def tell(self) -> None:
        """Raises Trouble where it does not go as it must."""
        with self._client, self._moving():
            self._scene("Version 1 in slot blue has all traffic", self._pause_s)
            self._run("load", MODEL, "green", f"{MODEL}/2")
            self._scene("Version 2 in slot green: loaded, checked, warmed; no traffic", self._pause_s / 2)
            self._shadow()
            self._canary()
            self._run("swap", MODEL, "green", "--bake", "10m", "--reason", "version 2 is better")
            self._scene("All to green in one assignment; blue is kept READY", self._pause_s)
            self._roll_back()
            self._scene("Back on version 1", self._pause_s / 2)
        self._console.print(f"\n{self._users.total:,} requests so far, {self._users.failed} failed.\n")
        if self._users.failed:
            raise Trouble(f"no request may fail: {'; '.join(self._users.failures)}")

    def _shadow(self) -> None:
        """Version 2 answers what version 1 has answered, unseen; then the right answers arrive."""
        self._run("shadow", "set", MODEL, "green", "--sample", "100%")
        self._scene("Users are answered by blue alone; green answers copies", self._pause_s)
        self._console.print("What the right answers were, for the last requests, by their inference ids:\n")
        told = list(self._users.told)[-_LABELS_MAX:]
        facts = [feedback.Feedback(inference_id=which, label=str(label)) for which, label in told]
        reply = self._client.record_feedback(feedback.RecordFeedbackRequest(model=MODEL, feedback=facts))
        summary = next(event.summary for event in self._client.watch_comparisons(MODEL) if event.HasField("summary"))
        self._console.print(summary_table(summary, min(self._console.width, 100), worst_max=3), "")
        reference, total = summary.reference, summary.total
        if (
            not reply.accepted
            or total.pair_count < _PAIRS_MIN
            or reference.only_shadow_right <= reference.only_live_right
        ):
            raise Trouble(
                f"version 2 must be shadowed and right more often than version 1: {total.pair_count} pairs, "
                f"{reply.accepted} labels, {reference.only_shadow_right} to {reference.only_live_right}"
            )

    def _canary(self) -> None:
        self._users.moves.clear()
        self._run("weights", MODEL, "green=10%", "blue=rest", "--reason", "a first look at version 2")
        self._scene("10 % of the users are at green, always the same ones", self._pause_s * 1.5)
        at_green = sum(slot == "green" for slot in self._users.at.values())
        back = self._users.moves["green", "blue"]
        self._console.print(f"{at_green} of {USERS:,} users are at green; {back} of them went to and fro.\n")
        spread = _SIGMAS * (USERS * SHARE_BP * (10_000 - SHARE_BP)) ** 0.5 / 10_000
        if back or abs(at_green - USERS * SHARE_BP / 10_000) > spread:
            raise Trouble("10 % of the users must be at green, and stay there")

    def _roll_back(self) -> None:
        """By the client library on an open connection: a command would measure how long Python takes to start."""
        show_command(self._console, "rollback", MODEL)
        request = pb.RollbackModelRequest(model=MODEL, mutation=pb.Mutation(reason="to show that it works"))
        started_ns = time.monotonic_ns()
        model = self._client.rollback(request).model
        answered_ns = time.monotonic_ns()
        until_s = time.monotonic() + _ROLLBACK_LOOK_S_MAX
        while (first_ns := self._users.first_answer_ns("blue", started_ns)) is None:
            if time.monotonic() > until_s:
                raise Trouble(f"slot blue did not answer within {_ROLLBACK_LOOK_S_MAX} s of the rollback")
            time.sleep(0.001)
        self._console.print(
            f"rolled back: answered after {(answered_ns - started_ns) / 1e6:.1f} ms, first answer of version 1 after "
            f"{(first_ns - started_ns) / 1e6:.1f} ms (generation {model.route.generation})\n",
            width=min(self._console.width, 100),
        )

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """The table moves on a terminal; elsewhere each scene prints it once."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, get_renderable=self._picture, refresh_per_second=_LOOKS_PER_S, transient=True):
            yield

    def _scene(self, title: str, seconds: float) -> None:
        self._title = title
        time.sleep(seconds)
        self._console.print(self._picture(), "")

    def _picture(self) -> RenderableType:
        table = drawing.switching(self._client.model(MODEL), self._users.seen(_WINDOW_S), self._users.failed)
        return Group(Text(self._title, "bold"), table)

    def _run(self, *arguments: str) -> None:
        turnoutctl(self._console, self._admin, *arguments)


def turnoutctl(console: Console, admin: str, *arguments: str) -> None:
    """Shows the command and what it says. Raises Trouble where it fails."""
    show_command(console, *arguments)
    done = subprocess.run(
        [sys.executable, "-m", "turnout_client.ctl", *arguments],
        env=os.environ | {"TURNOUTCTL_ENDPOINT": admin},
        capture_output=True,
        text=True,
        timeout=_COMMAND_S_MAX,
        check=False,
    )
    if done.returncode:
        raise Trouble(f"turnoutctl {arguments[0]} exited with {done.returncode}: {done.stderr.strip()}")
    console.print(done.stdout, markup=False)


def show_command(console: Console, *arguments: str) -> None:
    console.print(Text(f"$ turnoutctl {shlex.join(arguments)}", "dim"), soft_wrap=True)
