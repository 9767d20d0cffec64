"""A real server process for end-to-end tests: started on a free port, waited for, stopped, and never left behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

START_S_MAX = 60.0  # a noisy machine may take long to import and load; a test's own limit is 120 s
STOP_S_MAX = 30.0
COMMAND = (sys.executable, "-m", "turnout.cli")


class Server:
    """A running `turnout serve`. `address` is what `ready:` said."""

    def __init__(self, process: subprocess.Popen[str], stderr: IO[bytes]) -> None:
        self.process = process
        self.address = ""
        self._stderr = stderr
        self._lines: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def stdout(self) -> str:
        return "".join(self._lines)

    @property
    def stderr(self) -> str:
        return Path(self._stderr.name).read_text(errors="replace")

    def wait_ready(self) -> None:
        if not self._ready.wait(START_S_MAX) or not self.address:
            raise AssertionError(f"the server did not become ready:\n{self.stdout}\n{self.stderr}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = STOP_S_MAX) -> int:
        """Its exit status, once it has ended."""
        status = self.process.wait(seconds)
        self._reader.join(5)
        if status != 0:
            print(f"the server ended with {status}:\n{self.stdout}\n{self.stderr}")  # pytest shows it with a failure
        return status

    def end(self) -> None:
        """Whatever state it is in: when this returns, there is no process."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_S_MAX)
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)
            if match := re.fullmatch(r"ready: (\S+)\n", line):
                self.address = match[1]
                self._ready.set()
        self._ready.set()  # it ended: nobody need wait longer


@contextmanager
def process(
    repository: Path, *flags: str, cwd: Path | None = None, more: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server that is ready, with `more` in its environment; killed at the end if the test has not stopped it."""
    with tempfile.NamedTemporaryFile(prefix="turnout-stderr-") as stderr:
        started = subprocess.Popen(
            [*COMMAND, "serve", *_flags(repository), *flags],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment(more),
            text=True,
            cwd=cwd,
        )
        server = Server(started, stderr)
        try:
            server.wait_ready()
            yield server
        finally:
            server.end()


@contextmanager
def serving(repository: Path, *flags: str) -> Iterator[Server]:
    """A server that is ready, and must stop cleanly by SIGTERM afterwards."""
    with process(repository, *flags) as server:
        yield server
        server.process.terminate()
        status = server.wait()
        assert status == 0, f"exit status {status}:\n{server.stderr}"


def run(
    *arguments: str, more: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`turnout ...` to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(more), cwd=cwd, capture_output=True, text=True, timeout=START_S_MAX, check=False,
    )  # fmt: skip


def address_of(server: Server, what: str) -> str:
    """Of another of its ports, as its start-up table has it: admin or ops."""
    found = re.search(rf"^{what} +(?:http://)?(\S+:\d+)", server.stdout, re.MULTILINE)
    assert found is not None, server.stdout
    return found[1]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without any setting of the server, and `more`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TURNOUT_", "OTEL_"))}
    ports = {"TURNOUT_ADMIN_PORT": "0", "TURNOUT_OPS_PORT": "0"}
    return clean | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"} | ports | dict(more or {})


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Polls in real time, bounded: for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        time.sleep(0.01)


def _flags(repository: Path) -> list[str]:
    return [
        f"--model-repository={repository}",
        "--host=127.0.0.1",
        "--grpc-port=0",
        "--provider=cpu",
        "--intra-op-threads=1",
        "--log-format=json",
        "--drain-delay-s=0",
        "--drain-grace-s=10",
    ]
