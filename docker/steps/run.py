"""Tries each step of docker/Dockerfile in a Debian 12 root, then the server in what they made: as the image's user,
with a read-only root file system, asked, healthy, stopped. Needs root and debootstrap, and no container engine."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from steps.container import USER, Container
from steps.dockerfile import Stage, lineage, needed, read
from steps.root import Builder, StepError, debian

REPOSITORY = Path(__file__).resolve().parents[2]
_START_S_MAX = 120.0
_REQUEST = (Path(__file__).parent / "request.py").read_text(encoding="utf-8")
_READ_ONLY = """touch /opt/x /etc/x /models/x 2>&1 | grep -c 'Read-only file system' | grep -x 3"""
# What is run beside the server, as `docker exec` would: each must end with 0. What it is given stands last.
_TRIALS: tuple[tuple[str, list[str], str], ...] = (
    ("a request:", ["python", "-"], _REQUEST),
    ("turnoutctl:", ["turnoutctl", "swap", "digits", "v2", "--reason", "a trial"], ""),
    ("after it:", ["python", "-"], _REQUEST),
    ("user, capabilities, first process:", ["sh", "-c", "id -u; grep CapEff /proc/1/status; cat /proc/1/comm"], ""),
    ("places of three that are read-only:", ["sh", "-c", _READ_ONLY], ""),
    ("files in /state and /tmp:", ["find", "/state", "/tmp", "-type", "f"], ""),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(": as")[0])
    parser.add_argument("--target", default="cpu", help="the stage to build (default: %(default)s)")
    parser.add_argument("--mirror", default="", help="of Debian (default: debootstrap's own)")
    parser.add_argument("--base", type=Path, help="a root to begin with: is made if it is not there, and kept")
    options = parser.parse_args()
    missing = [tool for tool in ("debootstrap", "unshare", "nsenter", "setpriv", "ip") if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        print(f"run this as root, with {', '.join(missing) or 'what it has'} (apt-get install debootstrap iproute2)")
        return 2
    with tempfile.TemporaryDirectory(prefix="turnout-steps-") as folder:
        base = options.base or Path(folder) / "debian"
        try:
            if not base.exists():
                debian(base, options.mirror)
            _try(options.target, Path(folder), base)
        except StepError as error:
            print(f"  FAILED  {error}")
            return 1
    return 0


def _try(target: str, folder: Path, base: Path) -> None:
    stages = read((REPOSITORY / "docker/Dockerfile").read_text(encoding="utf-8"))
    builder = Builder(REPOSITORY, folder, base, say)
    root = base
    for stage in needed(stages, target):
        root = builder.build(stage)
    say(f"the image holds {_mib(root) - _mib(base):.0f} MiB on top of its base")
    _serve(lineage(stages, target), root, builder.environments[target], folder)


def _serve(image: list[Stage], root: Path, environment: dict[str, str], folder: Path) -> None:
    said = {instruction.keyword: instruction for stage in image for instruction in stage.instructions}
    if said["USER"].value != f"{USER}:{USER}":
        raise StepError(f"USER is {said['USER'].value}, and this runs as {USER}:{USER}")
    state, log = folder / "state", folder / "log"
    shutil.copytree(root / "state", state)
    os.chown(state, USER, USER)  # as an engine makes a new volume: with the owner of the image's folder
    container = Container(root, environment, REPOSITORY / "models/repository", state)
    health = said["HEALTHCHECK"].words()
    container.start(said["ENTRYPOINT"].words(), log)
    try:
        _until_healthy(container, health, log)
        for what, command, given in (("the health check says", health, ""), *_TRIALS):
            _exec(container, what, command, given)
        status, seconds = container.stop()
        if status != 0:
            raise StepError(f"SIGTERM ended the server with {status}:\n{log.read_text(encoding='utf-8')[-4000:]}")
        say(f"  ok  SIGTERM: exit status {status} after {seconds:.1f} s")
    finally:
        container.end()


def _until_healthy(container: Container, health: list[str], log: Path) -> None:
    started = time.monotonic()
    while not container.ended() and time.monotonic() - started < _START_S_MAX:
        if container.run(health).returncode == 0:
            say(f"  ok  the server is ready after {time.monotonic() - started:.1f} s")
            return
        time.sleep(0.5)
    raise StepError(f"the server did not become ready:\n{log.read_text(encoding='utf-8')[-4000:]}")


def _exec(container: Container, what: str, command: list[str], given: str = "") -> None:
    done = container.run(command, given)
    if done.returncode != 0:
        raise StepError(f"{what} exit status {done.returncode}\n{done.stdout}{done.stderr}")
    say(f"  ok  {what} {'; '.join(line.strip() for line in done.stdout.splitlines())}")


def _mib(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 2**20


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
