"""The demo and the two small examples, run as a newcomer runs them: as programs, judged by what they print."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = "clients/examples/digits_demo.py"
EXAMPLES = ("clients/examples/plain_stub.py", "clients/examples/tritonclient_infer.py")
RUN_S_MAX = 90


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
    )


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The demo's program, once its server is ready, and the server's endpoint."""
    with subprocess.Popen(
        [sys.executable, DEMO, *arguments],
        cwd=ROOT,
        env=plain_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            ready = next((line for line in process.stdout if line.startswith("ready: ")), None)
            assert ready is not None, process.communicate(timeout=RUN_S_MAX)[1]
            yield process, ready.removeprefix("ready: ").strip()
        finally:
            process.terminate()  # passes it on to the server, which a SIGKILL would leave behind


def plain_environment() -> dict[str, str]:
    """As in a pipe: a developer's colours or settings of Turnout must not decide the test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TURNOUT_", "FORCE_COLOR"))}
    return kept | {"COLUMNS": "80", "PYTHONWARNINGS": "error::DeprecationWarning:__main__"}


def answers(endpoint: str) -> bool:
    host, port = endpoint.rsplit(":", 1)
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.fixture(scope="module")
def demo() -> subprocess.CompletedProcess[str]:
    return run(DEMO, "--samples", "2000", "--pause", "1.5")


def test_the_demo_succeeds_and_says_nothing_on_standard_error(demo: subprocess.CompletedProcess[str]) -> None:
    assert (demo.returncode, demo.stderr) == (0, "")
    assert "The server has stopped" in demo.stdout


def test_the_demo_moves_traffic_by_commands_and_no_request_fails(demo: subprocess.CompletedProcess[str]) -> None:
    assert re.search(r"digits +blue +digits/1 +READY +100 %", demo.stdout)
    commands = re.findall(r"^\$ turnoutctl ((?:shadow )?\w+) digits ?(\S*)", demo.stdout, re.MULTILINE)
    assert commands == [
        ("load", "green"),
        ("shadow set", "green"),
        ("weights", "green=10%"),
        ("swap", "green"),
        ("rollback", ""),
        ("load", "v3"),
    ]
    assert re.search(r"^[1-9][\d,]+ requests so far, 0 failed\.$", demo.stdout, re.MULTILINE)
    assert demo.stdout.count("failed requests: 0") == 6
    assert re.search(r"first answer of version 1 after\s+\d+\.\d ms", demo.stdout)


def test_the_demo_shows_wanted_and_seen_shares(demo: subprocess.CompletedProcess[str]) -> None:
    rows = re.findall(r"^(blue|green) +digits/[12] +READY +(\d+)% +(\d+\.\d)?", demo.stdout, re.MULTILINE)
    wanted = [(slot, int(share)) for slot, share, _ in rows]
    scenes = ((100,), (100, 0), (100, 0), (90, 10), (0, 100), (100, 0))
    assert wanted == [pair for scene in scenes for pair in zip(("blue", "green"), scene, strict=False)]
    assert all(float(seen) > 0 for _, share, seen in rows if int(share) == 100 and seen)
    at_green, moved = re.search(r"(\d+) of 1,000 users are at green; (\d+) of them", demo.stdout).groups()  # type: ignore[union-attr]
    assert 40 < int(at_green) < 160 and int(moved) == 0


def test_the_demo_shows_what_version_2_would_have_answered(demo: subprocess.CompletedProcess[str]) -> None:
    pairs, agreeing = re.search(r"^total +([\d,]+) +(\d+\.\d+) %", demo.stdout, re.MULTILINE).groups()  # type: ignore[union-attr]
    assert int(pairs.replace(",", "")) >= 20 and 50 < float(agreeing) < 100
    classes = re.findall(r"^(\d) +[\d,]+ +\d+\.\d+ %", demo.stdout, re.MULTILINE)
    assert set(classes) == set("0123456789"), "agreement of each class"
    only_live, only_shadow = re.search(r"only live (\d+), only shadow (\d+)", demo.stdout).groups()  # type: ignore[union-attr]
    assert int(only_shadow) > int(only_live)
    assert "mostly improvement" in demo.stdout


def test_the_demo_ranks_the_versions_by_their_labels(demo: subprocess.CompletedProcess[str]) -> None:
    rows = re.findall(r"^ ([123]) +\S.*? (\d+) +\d+\.\d ms +\d+\.\d% +\d+ +(\d+\.\d)% $", demo.stdout, re.MULTILINE)
    assert [(version, failed) for version, failed, _ in rows] == [("3", "0"), ("2", "0"), ("1", "0")]
    third, second, first = (float(accuracy) for *_, accuracy in rows)
    assert second > third + 2 and third > first + 2


def test_the_demo_draws_digits_that_version_3_alone_gets_wrong(demo: subprocess.CompletedProcess[str]) -> None:
    assert "██" in demo.stdout and demo.stdout.count("label   ") == 4
    third, second = (re.search(rf"^v{n} says \d .*$", demo.stdout, re.MULTILINE)[0] for n in (3, 2))  # type: ignore[index]
    assert third.count("✗") >= 2 and "✗" not in second


def test_without_a_terminal_there_is_no_progress_bar_and_no_colour(demo: subprocess.CompletedProcess[str]) -> None:
    assert "\x1b" not in demo.stdout and "\r" not in demo.stdout and "━" not in demo.stdout
    assert max(len(line) for line in demo.stdout.splitlines() if not line.startswith("$ ")) <= 80


def test_a_server_that_cannot_start_fails_the_demo_with_its_own_message(tmp_path: Path) -> None:
    done = run(DEMO, "--model-repository", str(tmp_path))
    assert done.returncode == 1
    assert "can be served" in done.stderr and "the server did not start" in done.stderr


def test_a_wrong_flag_reaches_the_user_in_the_servers_words() -> None:
    done = run(DEMO, "--no-such-flag")
    assert done.returncode == 1 and "unknown arguments: --no-such-flag" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_server(number: signal.Signals) -> None:
    with running() as (process, endpoint):
        assert answers(endpoint)
        process.send_signal(number)
        assert process.wait(RUN_S_MAX) == 128 + number
        assert not answers(endpoint)


def test_serve_prints_commands_that_work_and_stops_on_ctrl_c() -> None:
    with running("--serve", "--grpc-port", "0", "--admin-port", "0", "--ops-port", "0") as (process, endpoint):
        assert process.stdout is not None
        shown = "".join(iter(process.stdout.readline, "Ctrl-C stops the server.\n"))
        for example in EXAMPLES:
            assert f"{example} --endpoint {endpoint}\n" in shown
            done = run(example, "--endpoint", endpoint)
            assert (done.returncode, done.stderr) == (0, "")
            assert re.search(r"^routed: +version 3 \(digits/3 in slot blue\) says +\[\d", done.stdout, re.MULTILINE)
            assert re.search(r"^pinned to 2: +version 2 \(digits/2 in slot v2\) says +\[\d", done.stdout, re.MULTILINE)
        for command in re.findall(r"^ +\S+/turnoutctl (.*)$", shown, re.MULTILINE):
            done = run("-m", "turnout_client.ctl", *shlex.split(command))
            assert (done.returncode, done.stderr) == (0, ""), command
        index = re.search(r' -c "(import tritonclient.*)"', shown)
        assert index is not None and run("-c", index[1]).stdout.count("READY") == 3
        process.send_signal(signal.SIGINT)
        assert process.wait(RUN_S_MAX) == 0
        assert not answers(endpoint)


def test_serve_on_a_used_port_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(DEMO, "--serve", "--grpc-port", str(port), "--admin-port", "0", "--ops-port", "0")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
