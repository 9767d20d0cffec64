"""`make loadtest` for real: Locust in processes of its own, since gevent must not patch this one. Each run is short."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from zoo.samples import DIGITS

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, str(ROOT / "loadtests" / "loadtest.py"))
SHORT = ("--users", "8", "--rate", "80", "--duration", "2")
RUN_S_MAX = 100


def loadtest(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments, "--output", str(output)]
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)


def rows(output: Path, scenario: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Requests and failures by type and name, as Locust's CSV has them."""
    with (output / scenario / "locust_stats.csv").open() as file:
        return {
            (row["Type"], row["Name"]): (int(row["Request Count"]), int(row["Failure Count"]))
            for row in csv.DictReader(file)
        }


def summary(output: Path, scenario: str) -> Any:
    return json.loads((output / scenario / "summary.json").read_text())


def test_a_swap_under_load_of_two_processes(tmp_path: Path) -> None:
    done = loadtest(tmp_path, "swap", *SHORT, "--processes", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "swap: green (digits/2) 100 %" in done.stdout
    assert "ok: every answer came" in done.stdout

    told, counted = summary(tmp_path, "swap"), rows(tmp_path, "swap")
    assert told["ok"]
    assert [event["title"] for event in told["events"]] == ["start", "load", "swap"]
    asked = [(how, f"digits/{version}") for how in ("unary", "stream") for version in (1, 2)]
    assert all(counted[each][0] > 0 and counted[each][1] == 0 for each in asked), counted
    assert counted["step", "swap"] == (1, 0)
    assert sum(counted[each][0] for each in asked) == told["requests"], "all processes, to the last answer"
    after = told["phases"][-1]
    assert after["title"] == "after swap"
    assert list(after["answers"]) == ["digits/2"]
    assert (tmp_path / "swap" / "report.html").stat().st_size > 10_000


def test_it_fails_where_a_version_answers_wrongly(tmp_path: Path) -> None:
    """The control: version 2's folder holds the network of version 3 with its golden samples, so that it loads; what is
    expected of version 2 is told apart."""
    expected, repository = tmp_path / "expected", tmp_path / "repository"
    for version in ("1", "2"):
        shutil.copytree(DIGITS / version, expected / version)
    shutil.copytree(DIGITS, repository / "digits", ignore=lambda _, names: {"2", "3"} & set(names))
    shutil.copytree(DIGITS / "3", repository / "digits" / "2")
    done = loadtest(tmp_path, "swap", *SHORT, "--repository", str(repository), "--expected", str(expected))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "wrong answer: revision digits/2, sample" in done.stdout
    assert "output 'probabilities' differs by" in done.stdout

    told, counted = summary(tmp_path, "swap"), rows(tmp_path, "swap")
    assert not told["ok"]
    assert counted["unary", "digits/1"][1] == counted["stream", "digits/1"][1] == 0, "the right one is not blamed"
    assert counted["unary", "digits/2"][1] > 0
    assert counted["stream", "digits/2"][1] > 0
    assert told["phases"][-1]["failures"]["wrong"] > 0


def test_a_storm_is_refused_late_answers_are_lost_and_ctrl_c_ends_all(tmp_path: Path) -> None:
    """The server that it starts is stopped for a moment, by its id, so that nobody is answered in time."""
    command = [*COMMAND, "storm", *SHORT[:-1], "8", "--processes", "2", "--output", str(tmp_path)]
    with subprocess.Popen([*command, "--deadline-s", "2"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        started = []
        for line in process.stdout:
            if "] storm" in line:
                time.sleep(0.8)  # of storm
                started = psutil.Process(process.pid).children(recursive=True)
                (server,) = (each for each in started if "turnout.cli" in each.cmdline())
                server.suspend()
                time.sleep(2.4)
                server.resume()
                time.sleep(1)  # until the workers have told it
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert len(started) >= 4, "server, Locust, two workers"
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive
    told = summary(tmp_path, "storm")
    (storm,) = (phase for phase in told["phases"] if phase["title"] == "storm")
    assert {"too many rows", "message too large"} == storm["refused"].keys()
    refusals = [problem for problem in told["problems"] if "must be refused" in problem]
    assert all("got lost" in problem for problem in refusals), "one may have been under way when the server was stopped"
    assert any("lost: no answer within 2 s, model digits" in problem for problem in told["problems"])


def test_a_process_that_dies_with_its_users_fails_the_run(tmp_path: Path) -> None:
    """Nobody answers for what it had under way, although all that was told of it is right."""
    command = [*COMMAND, "steady", *SHORT, "--processes", "2", "--output", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "] start" in line:
                time.sleep(1)  # until it has told something
                locust = [each for each in psutil.Process(process.pid).children(True) if "locust" in each.cmdline()]
                next(each for each in locust if each.ppid() != process.pid).kill()
    assert process.returncode == 1, "".join(said)
    assert "1 process(es) with users ended too early" in "".join(said)


def test_make_asks_the_command_line_and_not_the_environment() -> None:
    """Some shells and conda environments have a HOST of their own."""
    command = ["make", "--dry-run", "--no-print-directory", "loadtest", "SCENARIO=steady", "USERS=5", "RATE="]
    environment = os.environ | {"HOST": "nowhere", "TO": "2"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split()[1:] == ["loadtests/loadtest.py", "steady", "--users", '"5"']


def test_a_storm_of_nothing_fails_the_run() -> None:
    """In a process of its own, as above."""
    code = """
from turnout_locust.account import Account
from turnout_locust.summary import _problems
account = Account()
account.begin()
account.refused(1, "too many rows")
storm = {"title": "storm", "answers": {"digits/1": 7}, "failures": {}, "refused": {}}
print(_problems([storm | {"refused": {"too many rows": 1}}], [], account), _problems([storm], [], account))
"""
    sources = os.pathsep.join([str(ROOT / "loadtests"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": sources}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=RUN_S_MAX, check=True
    )
    assert done.stdout == "[] ['no request was refused in the storm: give the run a longer DURATION=']\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no scenario is chosen; SCENARIO= one of\n  steady "),
        (("swop",), "no scenario is called 'swop'; SCENARIO= one of\n  steady "),
        (("swap", "--host", "127.0.0.1:1"), "scenario 'swap' changes slots of the server at HOST=: give ADMIN="),
        (("swap", "--to-version", "9"), "model 'digits' has the versions [1, 2, 3], and not 9: FROM= and TO="),
        (("steady", "--model", "nothing"), "there is no model 'nothing' in "),
    ],
)
def test_what_cannot_be_run_is_refused_in_words(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = loadtest(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"loadtest: {said}")
    assert "Traceback" not in done.stderr
