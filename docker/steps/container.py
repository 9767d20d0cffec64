"""Runs a root as a container engine would: its own processes, mounts and network, a read-only root file system, an
unprivileged user without capabilities. Linux' own tools do it (unshare, setpriv); needs root to begin with."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

USER = 65532
_DEVICES = ("null", "zero", "full", "random", "urandom")
_UNPRIVILEGED = (
    f"--reuid={USER} --regid={USER} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all".split()
)
_STOP_S_MAX = 60.0


class Container:
    """One running server. `models` is mounted read-only, `state` is the only folder of the disk that it can write."""

    def __init__(self, root: Path, environment: Mapping[str, str], models: Path, state: Path) -> None:
        self._root = root
        self._environment = [f"{name}={value}" for name, value in environment.items()]
        self._models = models
        self._state = state
        self._unshare: subprocess.Popen[str] | None = None

    def start(self, command: Sequence[str], log: Path) -> None:
        root = shlex.quote(str(self._root))
        mounts = [
            f"mount --bind {root} {root}",
            f"mount --bind {shlex.quote(str(self._models))} {root}/models",
            f"mount -o remount,bind,ro {root}/models",
            f"mount --bind {shlex.quote(str(self._state))} {root}/state",
            f"mount -t proc proc {root}/proc",
            f"mount -t tmpfs -o size=64m,mode=1777,nosuid,nodev,noexec tmpfs {root}/tmp",
            f"mount -t tmpfs -o size=64k,mode=755 tmpfs {root}/dev",
            *(f"touch {root}/dev/{each} && mount --bind /dev/{each} {root}/dev/{each}" for each in _DEVICES),
            f"mount -o remount,ro {root}/dev",
            f"mount -o remount,bind,ro {root}",
            "ip link set lo up",
        ]
        inside = shlex.join(["chroot", str(self._root), *self._as_user(command)])
        isolated = ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child=SIGKILL"]
        with log.open("w", encoding="utf-8") as file:
            self._unshare = subprocess.Popen(
                [*isolated, "sh", "-c", " && ".join([*mounts, f"exec {inside}"])],
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def run(self, command: Sequence[str], given: str = "") -> subprocess.CompletedProcess[str]:
        """As `docker exec`: the command beside the server, as the same user, with `given` on its standard input."""
        enter = ["nsenter", "--target", str(self._process()), "--mount", "--net", "--pid", "--ipc", "--root", "--wd"]
        return subprocess.run(
            [*enter, *self._as_user(command)], input=given, capture_output=True, text=True, check=False, timeout=60
        )

    def stop(self) -> tuple[int, float]:
        """As `docker stop`: SIGTERM to the first process. Its exit status, and the seconds that it took."""
        assert self._unshare is not None
        started = time.monotonic()
        os.kill(self._process(), signal.SIGTERM)
        return self._unshare.wait(_STOP_S_MAX), time.monotonic() - started

    def end(self) -> None:
        """Whatever state it is in: afterwards there is no process."""
        if self._unshare is not None and self._unshare.poll() is None:
            self._unshare.kill()
            self._unshare.wait(_STOP_S_MAX)

    def ended(self) -> bool:
        return self._unshare is None or self._unshare.poll() is not None

    def _process(self) -> int:
        """The server's process as this machine counts: unshare's child, which is number 1 to itself."""
        assert self._unshare is not None
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        while not (found := children.read_text(encoding="ascii").split()):
            time.sleep(0.01)  # unshare has not forked yet
        return int(found[0])

    def _as_user(self, command: Sequence[str]) -> list[str]:
        return ["setpriv", *_UNPRIVILEGED, "env", "-i", *self._environment, *command]
