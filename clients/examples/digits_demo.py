"""Turnout's demo: one model in three versions, served, loaded and compared, in well under a minute.

With --serve it leaves a server running instead, until Ctrl-C, and prints commands to try. Flags that it does not know
go to `turnout serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress
from tritonclient.utils import InferenceServerException

import drawing
import traffic
from server_process import ServerProcess, Trouble, ready_endpoint
from traffic import Answers

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = ROOT / "models" / "repository"
VERSIONS = ("3", "2", "1")
MISTAKES = ((4, 9), (7, 9), (3, 8))  # what version 3 learned to confuse
RPC_ERRORS = (grpc.Call, grpc.aio.AioRpcError)  # from a stub, from an asyncio stub
SAMPLES_MIN = 1000  # fewer may hold no example of each mistake
SINGLES_PERCENT = 40  # of the images also travel alone; all of them would take half a minute on two slow cores

console = Console(highlight=False)


def main() -> int:
    """Exit status: 0 all as it must be, 1 not (the reason is on standard error), 130 Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--serve", action="store_true", help="only serve, until Ctrl-C")
    parser.add_argument("--samples", type=int, default=20_000, help="images to send (default: %(default)s)")
    options, server_flags = parser.parse_known_args()
    if options.samples < SAMPLES_MIN:
        parser.error(f"--samples {options.samples}: at least {SAMPLES_MIN}")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without block characters shows question marks
    try:
        return serve(server_flags) if options.serve else demo(options.samples, server_flags)
    except Trouble as trouble:
        print(f"demo: {trouble}", file=sys.stderr)
    except (grpc.RpcError, InferenceServerException) as error:
        said = f"{error.code().name}: {error.details()}" if isinstance(error, RPC_ERRORS) else str(error)
        print(f"demo: a request failed, and none may: {said}", file=sys.stderr)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 1


def demo(samples: int, server_flags: Sequence[str]) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)  # by way of __exit__, which ends the server
    images, labels = _heldout(samples)
    console.print(f"[bold]Turnout: one model, three versions, {samples:,} handwritten digits[/bold]\n")

    flags = _flags(
        "--grpc-port", "0", "--admin-port", "0", "--drain-delay-s", "0", "--log-level", "warning", *server_flags
    )
    with ServerProcess(flags, console.is_terminal) as server:
        console.print(f"$ turnout serve {shlex.join(flags)}", style="dim", soft_wrap=True)
        endpoint = _show_start(server)
        _show_traffic(endpoint, images[: samples * SINGLES_PERCENT // 100])
        answers = _show_versions(endpoint, images, labels)
        _show_digits(images, labels, answers)
        server.stop()
    console.print("\nThe server has stopped as asked (SIGTERM, exit status 0). No request failed.\n")
    _say(
        "In production, true labels come late or never. Errors, latency and confidence would have let version 3 pass; "
        "what its answers are like shows only next to those of version 2. Turnout is for making a new version earn its "
        "traffic, and this demo shows the ground for that: versions loaded, warm and comparable side by side in one "
        "server."
    )
    console.print("Next: [bold]make serve[/bold] leaves a server running to try; [bold]make test[/bold] tests it all.")
    return 0


def serve(server_flags: Sequence[str]) -> int:
    """A server in the foreground; returns its exit status."""
    ready = stopping = False
    with ServerProcess(_flags("--grpc-port", "8001", *server_flags), console.is_terminal) as server:

        def pass_on(number: int, _: FrameType | None) -> None:
            nonlocal stopping
            stopping = True
            # Before it is ready, only SIGTERM ends a Python process without a traceback.
            server.process.send_signal(signal.SIGINT if ready and number == signal.SIGINT else signal.SIGTERM)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, pass_on)
        for line in server.lines():
            print(line, flush=True)
            if (endpoint := ready_endpoint(line)) is not None:
                ready = True
                _show_commands(endpoint)
        status = server.process.wait()
    return 0 if stopping and status == -signal.SIGTERM else status


def _show_start(server: ServerProcess) -> str:
    lines, endpoint = server.wait_ready()
    print(*lines, sep="\n", end="\n\n")
    _say(
        "Each version sits in a slot of its own, loaded and warmed. A request that names no version is routed: all of "
        "them to the newest, version 3, in slot blue. Versions 2 and 1 answer requests that pin them (model_version)."
    )
    return endpoint


def _show_traffic(endpoint: str, images: NDArray[np.float32]) -> None:
    clients = 2 * traffic.CLIENTS
    console.rule("1. Single images, routed")
    kinds = _watch(
        f"{len(images):,} requests of one image from {clients} clients at once",
        len(images),
        lambda tick: traffic.send_singles(endpoint, images, tick),
    )
    answered_by = sum((kind.answered_by for kind in kinds), Counter[tuple[str, str]]())
    for (revision, slot), count in answered_by.items():
        console.print(f"answered by {revision} in slot {slot}: {count:,}")
    if set(answered_by) != {("digits/3", "blue")}:
        raise Trouble("requests without a version must be answered by digits/3 in slot blue, and by nothing else")
    console.print(drawing.latencies(kinds, traffic.CLIENTS))

    stats = traffic.statistics(endpoint)["3"]
    console.print(drawing.batches(stats))
    _say(
        f"{stats.inference_count:,} images took {stats.execution_count:,} model runs, "
        f"{stats.inference_count / stats.execution_count:.2f} images each: the server puts together what arrives while "
        "a run is under way. Each client waits for its answer before it asks again (a closed loop), and all of them "
        f"share one Python process, and {len(os.sched_getaffinity(0))} cores with the server. So the latencies are "
        "mostly the clients' own: this is no benchmark; for one, see make bench."
    )


def _show_versions(endpoint: str, images: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Answers]:
    requests = -(-len(images) // traffic.ROWS) * len(VERSIONS)
    console.rule("2. The same images to every version, pinned")
    answers = _watch(
        f"{requests:,} requests of {traffic.ROWS} images: each of the {len(images):,} images to each version",
        requests,
        lambda tick: traffic.send_to_versions(endpoint, images, VERSIONS, tick),
    )
    failed = {version: row.inference_stats.fail.count for version, row in traffic.statistics(endpoint).items()}
    console.print(drawing.versions(answers, labels, failed, VERSIONS[0]))
    if any(failed.values()):
        raise Trouble(f"the server counted failed requests, and none may fail: by version {failed}")
    accuracy = {version: float((answers[version].labels == labels).mean()) for version in VERSIONS}
    if not accuracy["2"] > accuracy["3"] > accuracy["1"]:
        raise Trouble(f"accuracy must fall from version 2 to 3 to 1, and it is {accuracy}")
    _say(
        "Version 3 is the newest, has all the routed traffic, and is silently worse than version 2: no request fails, "
        "it is about as confident and as fast. Only the columns that need the true labels tell. It was trained on "
        "labels damaged on purpose (some 4s and 7s called 9, some 3s called 8), which shows in how often it gives "
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


def _show_commands(endpoint: str) -> None:
    python = _shown(Path(sys.executable))
    here = Path(__file__).resolve().parent
    index = f"import tritonclient.grpc as t; print(t.InferenceServerClient('{endpoint}').get_model_repository_index())"
    commands = {
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


def _flags(*flags: str) -> list[str]:
    return ["--model-repository", str(_from_here(REPOSITORY)), "--host", "127.0.0.1", *flags]


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
