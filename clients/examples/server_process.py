"""The server as a child process: started, waited for, stopped; every wait has a bound.

It runs in a session of its own, so that Ctrl-C in the terminal reaches it once, from here, and not twice.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType

START_S_MAX = 60
STOP_S_MAX = 40  # above the server's own grace of 25 s for calls under way
_READY = "ready: "
_ADMIN = re.compile(r"admin +(\S+:\d+)")


class Trouble(Exception):
    """The demo did not go as it must; the message says what happened."""


class ServerProcess:
    """`turnout serve` with `flags`. Its log and error messages go to our standard error.

    Args:
        colour: keep the colours that the server's table has on a terminal.
    """

    def __init__(self, flags: Sequence[str], colour: bool) -> None:
        self.command = [sys.executable, "-m", "turnout.cli", "serve", *flags]
        self._environment = os.environ | {"PYTHONIOENCODING": "utf-8"} | ({"FORCE_COLOR": "1"} if colour else {})

    def __enter__(self) -> ServerProcess:
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, encoding="utf-8", env=self._environment, start_new_session=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def lines(self) -> Iterator[str]:
        """What the server prints, as it comes, until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield line.rstrip("\n")

    def wait_ready(self) -> tuple[list[str], str]:
        """The lines printed until the server took requests, and the `HOST:PORT` where it does.

        Raises:
            Trouble: it ended or took longer than START_S_MAX.
        """
        shown: list[str] = []
        alarm = threading.Timer(START_S_MAX, self.process.kill)
        alarm.start()
        try:
            for line in self.lines():
                shown.append(line)
                if (endpoint := ready_endpoint(line)) is not None:
                    return shown, endpoint
        finally:
            in_time = alarm.is_alive()
            alarm.cancel()
        if not in_time:
            raise Trouble(f"the server was not ready within {START_S_MAX} s")
        raise Trouble(f"the server did not start: it exited with {self.process.wait()}; its message is above")

    def stop(self) -> None:
        """Raises Trouble unless the server stops as asked, with exit status 0."""
        self.process.terminate()
        try:
            status = self.process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            raise Trouble(f"the server did not stop within {STOP_S_MAX} s of SIGTERM") from None
        if status != 0:
            raise Trouble(f"the server exited with {status} after SIGTERM, and 0 was due")


def ready_endpoint(line: str) -> str | None:
    """The `HOST:PORT` in the line that says the server takes requests; none for any other line."""
    return line.removeprefix(_READY) if line.startswith(_READY) else None


def admin_endpoint(lines: Sequence[str]) -> str:
    """The `HOST:PORT` of the admin service in what the server has printed.

    Raises:
        Trouble: it has none.
    """
    for line in lines:
        if match := _ADMIN.match(line):
            return match[1]
    raise Trouble("the server has no admin port: it was started with --no-admin")
