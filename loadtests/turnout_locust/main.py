"""`make loadtest`: starts a server, runs Locust with a scenario against it, writes the reports, ends both.

Exit status: 0 all right, 1 an answer was wrong or lost or a step failed, 2 it cannot be run, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from turnout_bench.processes import ROOT
from turnout_bench.results import BenchError
from turnout_locust.expected import read_samples
from turnout_locust.options import DEADLINE_S, DEFAULT_MODEL, RATE, SLOT, USERS
from turnout_locust.references import write_references
from turnout_locust.scenarios import LoadTestError, Scenario, scenario_named
from turnout_locust.served import chosen_versions, server

LOCUSTFILE = ROOT / "loadtests" / "locustfile.py"
_UNUSABLE, _INTERRUPTED = 2, 130
_MESSAGE_BYTES = 1 << 20  # a storm's server: large enough for the samples, small enough to exceed often
_MESSAGE_SAMPLES = 64
_END_S_MAX = 30.0
_WEB_PORT = 8089  # Locust's own


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell's background job ignores the first
        signal.signal(number, _interrupt)
    try:
        return _run(scenario_named(options.scenario), options)
    except (LoadTestError, BenchError) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return _UNUSABLE
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(scenario: Scenario, options: argparse.Namespace) -> int:
    folder = options.output / scenario.name
    folder.mkdir(parents=True, exist_ok=True)
    source = options.repository / options.model
    if options.host and scenario.moves and not options.admin:
        raise LoadTestError(
            f"scenario '{scenario.name}' changes slots of the server at HOST=: give ADMIN=HOST:PORT too"
        )
    live, other = chosen_versions(source, options.from_version, options.to_version, scenario.moves)
    versions = [live] if other is None else [live, other]
    with tempfile.TemporaryDirectory(prefix="turnout-loadtest-") as scratch_name:
        scratch = Path(scratch_name)
        expected = _expected(options, source, versions, scratch)
        arguments = [
            *("--scenario", scenario.name, "--model", options.model, "--expected", str(expected)),
            *("--to-version", str(other or ""), "--slot", options.slot),
            *("--users", str(options.users), "--rate", str(options.rate), "--deadline-s", str(options.deadline_s)),
            *("--duration-s", str(options.duration or scenario.duration_s)),
            *_reports(folder),
            *_ways(options),
        ]
        if options.host:
            admin = ("--admin", options.admin) if options.admin else ()
            limit = str(options.message_bytes_max)
            return _locust([*arguments, "--host", options.host, *admin, "--message-bytes-max", limit])
        # Only what this server has is known: another version's answers would be an error.
        arguments += ["--versions", ",".join(map(str, versions))]
        limit = str(options.message_bytes_max or _message_bytes(expected, options.model, versions))
        flags = [f"--message-bytes-max={limit}"] if scenario.storms else []
        with server(source, live, other, scratch, flags) as child:
            print(f"server: {child.address}, admin {child.admin_address}, model {options.model}/{live}", flush=True)
            addresses = ("--host", child.address, "--admin", child.admin_address)
            return _locust([*arguments, *addresses, "--message-bytes-max", limit])


def _expected(options: argparse.Namespace, source: Path, versions: Sequence[int], scratch: Path) -> Path:
    """The folder of expected outputs: made from samples, or given, or the model's own."""
    if options.samples is None:
        return options.expected or source
    return write_references(options.samples, source, versions, scratch / "expected")


def _message_bytes(expected: Path, model: str, versions: Sequence[int]) -> int:
    samples = read_samples(expected, model, batched=False, versions=[str(each) for each in versions])
    return max(_MESSAGE_BYTES, _MESSAGE_SAMPLES * max(sample.request.ByteSize() for sample in samples))


def _reports(folder: Path) -> list[str]:
    return [
        *("--csv", str(folder / "locust"), "--html", str(folder / "report.html")),
        *("--summary", str(folder / "summary.json")),
    ]


def _ways(options: argparse.Namespace) -> list[str]:
    """Headless or with the web UI, in one process or in several."""
    ways = ["--web-host", "127.0.0.1", "--web-port", str(options.web_port)] if options.web else ["--headless"]
    if options.processes > 1:
        port = str(_free_port())
        ways += ["--processes", str(options.processes), "--master-bind-host", "127.0.0.1"]
        ways += ["--master-bind-port", port, "--master-host", "127.0.0.1", "--master-port", port]
    return ways


def _locust(arguments: Sequence[str]) -> int:
    """Runs it in a session of its own, which is ended as a whole; its exit status."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--loglevel", "WARNING", *arguments]
    sources = os.pathsep.join([str(LOCUSTFILE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": sources}
    # Its keys (w, s) would need a terminal, which it then has no more.
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        with _passing_on(process):
            status = process.wait()
    finally:
        _end(process)
    return status


@contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """The first Ctrl-C goes to Locust, which ends in order and writes its reports."""
    try:
        yield
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_END_S_MAX)
        except subprocess.TimeoutExpired:
            print(f"loadtest: Locust did not end within {_END_S_MAX:g} s of Ctrl-C; it is killed", file=sys.stderr)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """Locust and its workers, whoever is left: they are one session, with the first one's id."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadtest.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("scenario", nargs="?", default="", help="without one, they are listed")
    parser.add_argument("--users", type=int, default=USERS, help="(default: %(default)s)")
    parser.add_argument(
        "--rate", type=float, default=RATE, help="requests per second of all; 0: as fast as answers come (%(default)s)"
    )
    parser.add_argument("--duration", type=float, default=0.0, help="seconds (default: the scenario's own)")
    parser.add_argument(
        "--processes", type=int, default=1, help="with users, from two on beside a master (%(default)s)"
    )
    parser.add_argument("--host", default="", help="HOST:PORT of a server that runs; none: one is started")
    parser.add_argument("--admin", default="", help="HOST:PORT of its admin service")
    parser.add_argument("--web", action="store_true", help="with Locust's web UI, until Ctrl-C")
    parser.add_argument("--web-port", type=int, default=_WEB_PORT, help="(default: %(default)s)")
    parser.add_argument("--repository", type=Path, default=ROOT / "models" / "repository", help="with the model")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="(default: %(default)s)")
    parser.add_argument("--from-version", type=int, help="that serves first (default: the oldest)")
    parser.add_argument("--to-version", type=int, help="that is loaded beside it (default: the one after it)")
    parser.add_argument(
        "--samples", type=Path, help=".npz with input.NAME; expected outputs are made with ONNX Runtime"
    )
    parser.add_argument("--expected", type=Path, help="folder with VERSION/golden.npz (default: the model's own)")
    parser.add_argument("--slot", default=SLOT, help="where the other version is loaded (default: %(default)s)")
    parser.add_argument(
        "--deadline-s", type=float, default=DEADLINE_S, help="an answer after that is lost (%(default)s)"
    )
    parser.add_argument("--message-bytes-max", type=int, default=0, help="of the server at --host, for the storm")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "loadtest", help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.users < 1 or options.processes < 1 or options.rate < 0 or options.duration < 0:
        parser.error("--users and --processes are 1 or more, --rate and --duration 0 or more")
    return options
