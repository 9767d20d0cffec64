"""Tries a model in a child process before it is loaded into the server, so that one that crashes ONNX Runtime, never
ends or takes all memory costs itself alone. What the child does is in `child`."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from turnout.backends.onnx.available import available_bytes
from turnout.core.errors import LoadError
from turnout.core.model import Execution, OpenArtefact

# Isolated from the working directory, PYTHONPATH and the user's own packages: beside the interpreter's, only the paths
# that are given.
_PROGRAM = "import sys; sys.path += sys.argv[1:]; from turnout.backends.onnx.child import main; main()"
_PACKAGES = ("turnout", "turnout_wire", "numpy", "ml_dtypes", "onnxruntime")
# The server's environment may hold secrets that a library of custom operators need not see.
_ENVIRONMENT = ("LD_LIBRARY_PATH",)
# Each arena reserves address space, which is what the child's memory is limited by.
_ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
_ANSWER_BYTES_MAX = 1 << 16
_SAID_BYTES_MAX = 2000
_SHARE_PERCENT = 90  # of the available memory: the server and others go on needing some
_STEPS = {"load": "loading it", "run": "running it once"}


@dataclass(frozen=True, slots=True)
class PreflightLimits:
    """What a model may take in its child process, and which ones need none.

    Attributes:
        memory_bytes_max: for loading and one run, beyond the sizes of its files; 0: what is available at the time.
        timeout_s: from the start of the child to its end.
        trusted_digests: of revisions that have proven themselves elsewhere.
    """

    memory_bytes_max: int = 0
    timeout_s: float = 60
    trusted_digests: frozenset[str] = frozenset()


class Preflight:
    """One child process for each check."""

    def __init__(self, limits: PreflightLimits, command: Sequence[str] | None = None) -> None:
        self._limits = limits
        self._command = command

    def check(self, digest: str, artefact: OpenArtefact, execution: Execution, threads: tuple[int, int]) -> int | None:
        """Load and run a model in a child process, as the server would on the CPU; blocks.

        Args:
            threads: the server's settings, inside operators and across them.

        Returns:
            The bytes of memory that it took at its peak; None: it is trusted, and was not tried.

        Raises:
            LoadError: it does not load, crashes, or takes too long or too much.
        """
        if digest in self._limits.trusted_digests:
            return None
        memory_bytes_max = self._limits.memory_bytes_max or available_bytes() * _SHARE_PERCENT // 100
        order = {
            "model": artefact.model,
            "files": dict(artefact.files),
            "libraries": dict(artefact.libraries),
            "execution": asdict(execution) | {"device": execution.device.value},
            "threads": threads,
            "memory_bytes_max": memory_bytes_max,
            "timeout_s": self._limits.timeout_s,
            "parent": os.getpid(),
        }
        try:
            ended = self._run(order, [*artefact.files.values(), *artefact.libraries.values()])
        except OSError as error:
            raise LoadError(
                f"no child process to try it in can be started: {error.strerror}; see --preflight"
            ) from error
        return self._judge(ended, memory_bytes_max)

    def _judge(self, ended: _Ended, memory_bytes_max: int) -> int:
        answer = ended.answer
        step = _STEPS["run" if answer.get("step") == "run" else "load"]
        cause = RuntimeError(f"its child process said: {ended.said}") if ended.said else None
        if ended.status is None or ended.status in (-signal.SIGXCPU, -signal.SIGALRM):
            limit = f"{self._limits.timeout_s:g} s: --preflight-timeout-s"
            raise LoadError(f"{step} in a child process took longer than {limit}") from cause
        if "problem" in answer:
            raise LoadError(str(answer["problem"])) from cause
        if "out_of_memory" in answer:
            which = "" if self._limits.memory_bytes_max else ", which is what is available here"
            limit = f"{memory_bytes_max} bytes{which}: --preflight-memory-bytes-max"
            raise LoadError(f"{step} needs more than {limit}") from cause
        if ended.status < 0:
            raise LoadError(f"{step} in a child process ended with signal {_name(-ended.status)}") from cause
        memory_bytes = answer.get("memory_bytes")
        if ended.status > 0 or not isinstance(memory_bytes, int):
            raise LoadError(f"{step} in a child process ended with status {ended.status}") from cause
        return memory_bytes

    def _run(self, order: Mapping[str, Any], passed: Sequence[int]) -> _Ended:
        deadline = time.monotonic() + self._limits.timeout_s
        with ExitStack() as stack:
            given, said = (stack.enter_context(_memory(name)) for name in ("given", "said"))
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            try:
                given.write(json.dumps({**order, "answer": writer}).encode())
                given.seek(0)
                process = subprocess.Popen(  # noqa: S603 - this program
                    self._command or _command(),
                    stdin=given,
                    stdout=said,
                    stderr=said,
                    pass_fds=[*passed, writer],
                    cwd="/",
                    env=_ONE_ARENA | {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                    start_new_session=True,  # Ctrl-C is for the server
                )
            finally:
                os.close(writer)
            with process:
                try:
                    answer, closed = _read(reader, deadline)
                    if closed:
                        process.wait(max(deadline - time.monotonic(), 0))
                    in_time = closed or len(answer) > _ANSWER_BYTES_MAX
                except subprocess.TimeoutExpired:
                    in_time = False
                finally:
                    process.kill()  # does nothing to one that has ended
            said.seek(0)
            words = said.read(_SAID_BYTES_MAX).decode(errors="replace")
            return _Ended(process.returncode if in_time else None, _parse(answer), words)


@dataclass(frozen=True, slots=True)
class _Ended:
    """`status`: as subprocess has it; None: it was not in time. `answer` is what it told of itself, in order."""

    status: int | None
    answer: Mapping[str, object]
    said: str


def _command() -> list[str]:
    files = (sys.modules[name].__file__ for name in _PACKAGES)
    folders = dict.fromkeys(str(Path(file).parents[1]) for file in files if file)
    return [sys.executable, "-I", "-c", _PROGRAM, *folders]


def _memory(name: str) -> IO[bytes]:
    """A file without a place on any disk."""
    return os.fdopen(os.memfd_create(name), "w+b")


def _read(fd: int, deadline: float) -> tuple[bytes, bool]:
    """What is written before the deadline, not much beyond what is needed, and whether the other end was closed then,
    as it is when the child ends."""
    content = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while len(content) <= _ANSWER_BYTES_MAX and poll.poll(max(deadline - time.monotonic(), 0) * 1000):
        piece = os.read(fd, _ANSWER_BYTES_MAX)
        if not piece:
            return content, True
        content += piece
    return content, False


def _parse(answer: bytes) -> Mapping[str, object]:
    """Later lines add to earlier ones; one that is cut off says nothing."""
    told: dict[str, object] = {}
    for line in answer.splitlines():
        try:
            told.update(**json.loads(line))
        except (TypeError, ValueError):
            break
    return told


def _name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)
