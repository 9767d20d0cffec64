"""Carries out a Dockerfile's steps on folders: each stage is a folder that begins as a copy of another one.

Needs root. A RUN has its own mounts, the network and the certificates of this machine, and nothing else of it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from steps.dockerfile import Instruction, Stage, context, expand

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Of this machine, for pip: where packages come from. They are mounted for a step, and are not in what it makes.
_HOST_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs")
_HOST_VARIABLES = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"


class StepError(Exception):
    """A step that failed, with what it printed."""


def debian(folder: Path, mirror: str) -> None:
    """A Debian 12 in `folder` that stands for the python image: with `python` and a pip that installs anywhere.

    Raises:
        StepError: debootstrap failed.
    """
    command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(folder)]
    command += [mirror] if mirror else []
    _checked(command, "debootstrap")
    for marker in folder.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")


class Builder:
    """Builds stages below `folder`, telling each step and its seconds to `say`."""

    def __init__(self, repository: Path, folder: Path, base: Path, say: Callable[[str], None]) -> None:
        self._repository = repository
        self._folder = folder
        self._base = base
        self._say = say
        ignore = (repository / ".dockerignore").read_text(encoding="utf-8").splitlines()
        self._context = context(repository, ignore)
        self._directories: dict[str, str] = {}
        self.environments: dict[str, dict[str, str]] = {}

    def build(self, stage: Stage) -> Path:
        """The root of the stage. Stages that it needs were built before.

        Raises:
            StepError: a step failed.
        """
        root = self._root(stage.name)
        base = self._root(stage.base) if stage.base in self.environments else self._base
        self._say(f"FROM {stage.base} AS {stage.name}")
        root.mkdir()
        _checked(["cp", "-a", f"{base}/.", str(root)], f"the copy of {stage.base}")
        environment = dict(self.environments.get(stage.base, {"PATH": _DEFAULT_PATH}))
        directory = self._directories.get(stage.base, "/")
        for instruction in stage.instructions:
            started = time.monotonic()
            match instruction.keyword:
                case "ENV" | "ARG":
                    environment |= {name: expand(v, environment) for name, v in instruction.pairs().items()}
                case "WORKDIR":
                    directory = instruction.value
                    (root / directory.lstrip("/")).mkdir(parents=True, exist_ok=True)
                case "COPY":
                    self._copy(root, directory, instruction)
                case "RUN":
                    self._run(root, directory, environment, instruction)
                case _:
                    continue  # says what the image is, and does nothing
            if instruction.keyword in {"COPY", "RUN"}:
                shown = " ".join(f"{instruction.keyword} {instruction.value}".split())
                self._say(f"  ok {time.monotonic() - started:6.1f} s  {shown}")
        self.environments[stage.name], self._directories[stage.name] = environment, directory
        return root

    def _root(self, name: str) -> Path:
        return self._folder / name

    def _copy(self, root: Path, directory: str, instruction: Instruction) -> None:
        *sources, target = instruction.words()
        place = root / (Path(directory) / target).as_posix().lstrip("/")
        if source := instruction.flags.get("from"):
            place.parent.mkdir(parents=True, exist_ok=True)
            _checked(["cp", "-a", str(self._root(source) / sources[0].lstrip("/")), str(place)], instruction.value)
            return
        for each in sources:
            files = [path for path in self._context if path.is_relative_to(self._repository / each)]
            if not files:
                raise StepError(f"COPY {instruction.value}: '{each}' is not among what .dockerignore leaves")
            whole = self._repository / each
            for file in files:
                copy = place / file.relative_to(whole) if whole.is_dir() else place
                copy = copy / file.name if whole.is_file() and target.endswith("/") else copy
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, copy)

    def _run(self, root: Path, directory: str, environment: Mapping[str, str], instruction: Instruction) -> None:
        mounts = [f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
        binds = [(Path(file), file) for file in _HOST_FILES if Path(file).exists()]
        if wanted := instruction.mounts():
            binds.append((self._root(wanted["from"]) / wanted["source"].lstrip("/"), wanted["target"]))
        for source, target in binds:
            place = root / target.lstrip("/")
            if source.is_dir():
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.touch()
            mounts.append(f"mount --bind {shlex.quote(str(source))} {shlex.quote(str(place))}")
        # A proxy's and pip's settings of this machine first: the image's own go before them.
        given = {name: value for name, value in os.environ.items() if name.startswith(_HOST_VARIABLES)} | dict(
            environment
        )
        inside = f"cd {shlex.quote(directory)} && {instruction.value}"
        command = ["env", "-i", *(f"{k}={v}" for k, v in given.items()), "/bin/sh", "-c", inside]
        script = " && ".join([*mounts, f"exec chroot {shlex.quote(str(root))} {shlex.join(command)}"])
        _checked(["unshare", "--mount", "sh", "-c", script], f"RUN {instruction.value}")


def _checked(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StepError(f"{what}: exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
