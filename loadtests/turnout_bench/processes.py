"""Child processes of a measurement: pinned to a core, waited for, their CPU time read, and stopped for certain."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from turnout_bench.results import BenchError

PROGRAMS = Path(__file__).with_name("programs")
ROOT = PROGRAMS.parents[2]
START_S_MAX = 90.0
STOP_S_MAX = 30.0
_SOURCES = ("loadtests", "models", "tests")  # no installed packages
_READY = "ready: "
# Before the program itself starts, so that its threads are born on the core. `taskset` is not everywhere.
_PINNED = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def cores() -> tuple[int | None, int | None]:
    """The core of servers and that of the generator: the first two that this process may use. None: not pinned, as
    there is only one, or no way to pin."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


class Child:
    """A Python process that says `ready: ...` when it is. `core` None: not pinned. `own_session`: Ctrl-C in a
    terminal does not reach it."""

    def __init__(self, name: str, arguments: Sequence[str], core: int | None, own_session: bool = False) -> None:
        self.name = name
        self._arguments = list(arguments)
        self._core = core
        self._own_session = own_session
        self.ready_line = ""
        self._before_ready: list[str] = []

    def start(self) -> None:
        """Raises:
        BenchError: it ended, or was not ready within START_S_MAX.
        """
        pinned = ["-c", _PINNED, str(self._core)] if self._core is not None else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("TURNOUT_", "OTEL_"))}
        sources = [str(ROOT / source) for source in _SOURCES]
        environment["PYTHONPATH"] = os.pathsep.join([*sources, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, *pinned, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=self._own_session,
        )
        self._said: list[str] = []
        threading.Thread(target=self._drain, daemon=True).start()
        alarm = threading.Timer(START_S_MAX, self.process.kill)
        alarm.start()
        try:
            assert self.process.stdout is not None
            for line in self.process.stdout:
                if line.startswith(_READY):
                    self.ready_line = line.removeprefix(_READY).strip()
                    return
                self._before_ready.append(line)
        finally:
            alarm.cancel()
        said = "".join(self._said[-20:])
        raise BenchError(f"'{self.name}' did not start, exit status {self.process.wait(STOP_S_MAX)}:\n{said}")

    @property
    def address(self) -> str:
        return self.ready_line

    @property
    def admin_address(self) -> str:
        """Of a server's admin service, as its start-up table has it.

        Raises:
            BenchError: it has none.
        """
        return self._announced(r"admin +([^\s,]+)", "admin service")

    @property
    def ops_address(self) -> str:
        """Of a server's ops port; raises as `admin_address`."""
        return self._announced(r"ops +http://(\S+):", "ops port")

    def cpu_s(self) -> float:
        """User and system time of all its threads so far."""
        return process_cpu_s(self.process.pid)

    def ask(self, **question: Any) -> Any:
        """One line of JSON to the program, one back; blocks.

        Raises:
            BenchError: it ended instead.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            raise BenchError(f"'{self.name}' did not answer:\n{''.join(self._said[-20:])}") from None

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def _announced(self, pattern: str, what: str) -> str:
        if (found := re.search(f"^{pattern}", "".join(self._before_ready), re.MULTILINE)) is None:
            raise BenchError(f"'{self.name}' has no {what}")
        return found[1]

    def _drain(self) -> None:
        """Its standard error, so that the pipe never fills; the last lines are kept for an error message."""
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self._said.append(line)
                del self._said[:-50]


async def started(child: Child) -> Child:
    """The child, ready; the loop goes on meanwhile."""
    await asyncio.to_thread(child.start)
    return child


def process_cpu_s(pid: int) -> float:
    """CPU time of a process. Linux has a clock of nanoseconds for each, where /proc counts hundredths of seconds."""
    if sys.platform == "linux":
        return time.clock_gettime_ns(~pid << 3 | 2) / 1e9  # CPUCLOCK_SCHED, as clock_getcpuclockid(3) makes it
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def server_arguments(repository: Path, *flags: str) -> list[str]:
    """`turnout serve` as it is measured: the defaults, one intra-op thread, no wait at its end."""
    return [
        "-m", "turnout.cli", "serve", f"--model-repository={repository}", "--host=127.0.0.1", "--grpc-port=0",
        "--admin-port=0", "--ops-port=0", "--provider=cpu", "--intra-op-threads=1", "--preflight=off",
        "--drain-delay-s=0", "--log-format=json", *flags,
    ]  # fmt: skip
