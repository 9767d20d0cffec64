"""Turnout's demo: traffic moves from one version of a model to the next and back under load, and then what that
cannot show: a version that is silently worse. In well under a minute.

With --serve it leaves a server running instead, until Ctrl-C, and prints commands to try. Flags that it does not know
go to `turnout serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress

import drawing
import steady
import traffic
from server_process import ServerProcess, Trouble, admin_endpoint, ready_endpoint
from switching import Story, turnoutctl
from traffic import Answers
from turnout_client.errors import AdminError

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = ROOT / "models" / "repository"
VERSIONS = ("3", "2", "1")
DEFAULT_ADMIN = "127.0.0.1:8003"  # of turnoutctl too
MISTAKES = ((4, 9), (7, 9), (3, 8))  # what version 3 learned to confuse
RPC_ERRORS = (grpc.Call, grpc.aio.AioRpcError)  # from a stub, from an asyncio stub
SAMPLES_MIN = 1000  # fewer may hold no example of each mistake

console = Console(highlight=False)


def main() -> int:
    """Exit status: 0 all as it must be, 1 not (the reason is on standard error), 130 Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--serve", action="store_true", help="only serve, until Ctrl-C")
    parser.add_argument("--samples", type=int, default=20_000, help="images to send (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=3.0, help="seconds that a scene lasts (default: %(default)s)")
    options, server_flags = parser.parse_known_args()
    if options.samples < SAMPLES_MIN:
        parser.error(f"--samples {options.samples}: at least {SAMPLES_MIN}")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without block characters shows question marks
    try:
        return serve(server_flags) if options.serve else demo(options.samples, server_flags, options.pause)
    except Trouble as trouble:
        print(f"demo: {trouble}", file=sys.stderr)
    except (grpc.RpcError, AdminError) as error:
        said = f"{error.code().name}: {error.details()}" if isinstance(error, RPC_ERRORS) else str(error)
        print(f"demo: a request failed, and none may: {said}", file=sys.stderr)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 1


def demo(samples: int, server_flags: Sequence[str], pause_s: float) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)  # by way of __exit__, which ends the server
    images, labels = _heldout(samples)
    console.print("[bold]Turnout: a new version earns its traffic, while the old one serves[/bold]\n")

    with _starting_with_version_1() as repository:
        flags = _flags(
            repository,
            *("--grpc-port", "0", "--admin-port", "0", "--ops-port", "0"),
            *("--drain-delay-s", "0", "--log-level", "warning"),
            *server_flags,
        )
        with ServerProcess(flags, console.is_terminal) as server:
            console.print(f"$ turnout serve {shlex.join(flags)}", style="dim", soft_wrap=True)
            lines, endpoint = server.wait_ready()
            print(*lines, sep="\n", end="\n\n")
            admin = admin_endpoint(lines)
            _show_switching(endpoint, admin, images, labels, pause_s)
            turnoutctl(console, admin, "load", "digits", "v3", "digits/3")
            answers = _show_versions(endpoint, images, labels)
            _show_digits(images, labels, answers)
            server.stop()
    console.print("\nThe server has stopped as asked (SIGTERM, exit status 0). No request failed.\n")
    _say(
        "In production, true labels come late or never. Errors, latency and confidence would have let version 3 pass; "
        "what its answers are like shows only next to those of version 2. Turnout is for making a new version earn its "
        "traffic: a small share first, always the same users, one assignment to go on and one to go back."
    )
    console.print("Next: [bold]make serve[/bold] leaves a server running to try; [bold]make test[/bold] tests it all.")
    return 0


def serve(server_flags: Sequence[str]) -> int:
    """A server in the foreground; returns its exit status."""
    ready = stopping = False
    with ServerProcess(_flags(REPOSITORY, "--grpc-port", "8001", *server_flags), console.is_terminal) as server:

        def pass_on(number: int, _: FrameType | None) -> None:
            nonlocal stopping
            stopping = True
            # Before it is ready, only SIGTERM ends a Python process without a traceback.
            server.process.send_signal(signal.SIGINT if ready and number == signal.SIGINT else signal.SIGTERM)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, pass_on)
        shown: list[str] = []
        for line in server.lines():
            print(line, flush=True)
            shown.append(line)
            if (endpoint := ready_endpoint(line)) is not None:
                ready = True
                _show_commands(endpoint, admin_endpoint(shown))
        status = server.process.wait()
    return 0 if stopping and status == -signal.SIGTERM else status


def _show_switching(
    endpoint: str, admin: str, images: NDArray[np.float32], labels: NDArray[np.int64], pause_s: float
) -> None:
    console.rule("1. From version 1 to version 2 and back, under load")
    _say(
        f"{steady.USERS:,} users ask {steady.PACE_PER_S} times a second, each with a sticky key of their own, whether "
        "or not answers come. What they see, they see from one process of Python that shares "
        f"{len(os.sched_getaffinity(0))} cores with the server: this is no benchmark; for one, see make bench."
    )
    with steady.Users(endpoint, images, labels) as users:
        Story(console, users, admin, pause_s).tell()
    if users.failed:
        raise Trouble(f"no request may fail: {'; '.join(users.failures)}")


def _show_versions(endpoint: str, images: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Answers]:
    requests = -(-len(images) // traffic.ROWS) * len(VERSIONS)
    console.rule("2. The same images to every version, pinned")
    answers = _watch(
        f"{requests:,} requests of {traffic.ROWS} images: each of the {len(images):,} images to each version",
        requests,
        lambda tick: traffic.send_to_versions(endpoint, images, VERSIONS, tick),
    )
    failed = {version: row.inference_stats.fail.count for version, row in traffic.statistics(endpoint).items()}
    console.print(drawing.versions(answers, labels, failed, "1"))
    if any(failed.values()):
        raise Trouble(f"the server counted failed requests, and none may fail: by version {failed}")
    accuracy = {version: float((answers[version].labels == labels).mean()) for version in VERSIONS}
    if not accuracy["2"] > accuracy["3"] > accuracy["1"]:
        raise Trouble(f"accuracy must fall from version 2 to 3 to 1, and it is {accuracy}")
    _say(
        "Version 3 is the newest, and silently worse than version 2: it passed every check of its load, no request "
        "fails, it is about as confident and as fast. Only the columns that need the true labels tell. It was trained "
        "on labels damaged on purpose (some 4s and 7s called 9, some 3s called 8), which shows in how often it gives "
        "each answer:"
    )
    console.print(drawing.shares("2", "3", answers, labels))
    return answers


def _show_digits(images: NDArray[np.float32], labels: NDArray[np.int64], answers: dict[str, Answers]) -> None:
    console.rule("3. A few of the images, and what each version made of them")
    console.print()
    chosen = [index for label, taken_for in MISTAKES if (index := _telling(label, taken_for, labels, answers)) >= 0]
    right = np.logical_and.reduce([answers[version].labels == labels for version in VERSIONS])
    chosen.append(int(np.argmax(right)))
    console.print(drawing.digits(chosen, images, labels, answers))


def _telling(label: int, taken_for: int, labels: NDArray[np.int64], answers: dict[str, Answers]) -> int:
    """The image that version 2 reads as `label`, version 3 as `taken_for`, both as surely as can be; -1: none."""
    old, new = answers["2"], answers["3"]
    candidates = (labels == label) & (old.labels == label) & (new.labels == taken_for)
    sure = np.where(candidates, np.minimum(old.confidence, new.confidence), -1)
    return int(np.argmax(sure)) if candidates.any() else -1


def _show_commands(endpoint: str, admin: str) -> None:
    python = _shown(Path(sys.executable))
    ctl = _shown(Path(sys.executable).with_name("turnoutctl"))
    to = "" if admin == DEFAULT_ADMIN else f" -e {admin}"
    here = Path(__file__).resolve().parent
    index = f"import tritonclient.grpc as t; print(t.InferenceServerClient('{endpoint}').get_model_repository_index())"
    commands = {
        "who holds what, and who gets the traffic": [f"{ctl} status{to}"],
        "a tenth of the traffic to version 2, all of it, and back": [
            f"{ctl} weights digits v2=10% blue=rest{to}",
            f"{ctl} swap digits v2 --reason 'version 3 is worse'{to}",
            f"{ctl} rollback digits{to}",
        ],
        "what was done, when and why; and the state as a file for apply": [
            f"{ctl} history{to}",
            f"{ctl} export{to}",
        ],
        "a few digits through the plain generated stubs": [
            f"{python} {_shown(here / 'plain_stub.py')} --endpoint {endpoint}"
        ],
        "the same through tritonclient": [f"{python} {_shown(here / 'tritonclient_infer.py')} --endpoint {endpoint}"],
        "which versions are there": [f'{python} -c "{index}"'],
        "if you have grpcurl": [
            f"grpcurl -plaintext {endpoint} list",
            f'grpcurl -plaintext -d \'{{"name": "digits"}}\' {endpoint} inference.GRPCInferenceService/ModelStatistics',
        ],
    }
    console.print("\nIn another terminal, from this folder:")
    for what, lines in commands.items():
        console.print(f"\n  # {what}", style="dim")
        for line in lines:
            console.print("  " + line, soft_wrap=True, markup=False)
    console.print("\nCtrl-C stops the server.")


def _watch(what: str, total: int, work: Callable[[Callable[[], None]], Coroutine[Any, Any, T]]) -> T:
    """Do the work under a progress bar; without a terminal, one line must do."""
    console.print(what)
    columns = (BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        return asyncio.run(work(lambda: progress.advance(task)))


def _say(text: str) -> None:
    console.print(text + "\n", width=min(console.width, 100))


def _heldout(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    sys.path.insert(0, str(ROOT / "models"))
    from zoo.samples import heldout

    return heldout(count)


@contextmanager
def _starting_with_version_1() -> Iterator[Path]:
    """The demo's repository with another version policy: the other versions are there, and wait to be loaded."""
    with tempfile.TemporaryDirectory(prefix="turnout-demo-") as folder:
        shutil.copytree(REPOSITORY / "digits", Path(folder) / "digits")
        config = "max_batch_size: 32\nversion_policy: { specific { versions: [1] } }\n"
        (Path(folder) / "digits" / "config.pbtxt").write_text(config)
        yield Path(folder)


def _flags(repository: Path, *flags: str) -> list[str]:
    return ["--model-repository", str(_from_here(repository)), "--host", "127.0.0.1", *flags]


def _shown(path: Path) -> str:
    return shlex.quote(str(_from_here(path)))


def _from_here(path: Path) -> Path:
    """As short as works in the current folder."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
