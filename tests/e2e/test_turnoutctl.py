"""`turnoutctl` as operators start it, against a real server with a journal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import tritonclient.grpc as triton

from support.server import Server, environment, serving, until
from zoo.samples import heldout

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "turnout_client.ctl")
RUN_S_MAX = 60


class Operator:
    """Runs commands against one server."""

    def __init__(self, endpoint: str) -> None:
        self.environment = environment({"TURNOUTCTL_ENDPOINT": endpoint, "COLUMNS": "80"})

    def __call__(self, *arguments: str, status: int = 0, stdin: str = "") -> str:
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment, input=stdin, capture_output=True, text=True, timeout=RUN_S_MAX, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if status == 0 else done.stderr

    def weights(self) -> dict[str, int]:
        document = json.loads(self("status", "digits", "--interval", "0", "--json"))
        weights: dict[str, int] = document["replicas"][0]["result"]["models"][0]["route"]["weights"]
        return weights


def admin_of(server: Server) -> str:
    found = re.search(r"^admin +(\S+:\d+)", server.stdout, re.MULTILINE)
    assert found is not None, server.stdout
    return found[1]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Version 1 is served at first; 2 and 3 are there."""
    shutil.copytree(ROOT / "models" / "repository" / "digits", tmp_path / "models" / "digits")
    config = "max_batch_size: 32\nversion_policy: { specific { versions: [1] } }\n"
    (tmp_path / "models" / "digits" / "config.pbtxt").write_text(config)
    return tmp_path / "models"


@pytest.fixture
def operator(repository: Path, tmp_path: Path) -> Iterator[Operator]:
    with serving(repository, "--admin-port=0", f"--state-dir={tmp_path / 'state'}") as server:
        yield Operator(admin_of(server))


def test_a_version_earns_its_traffic(operator: Operator) -> None:
    assert re.search(r"^blue +1 +READY +100 %", operator("status", "--interval", "0.1"), re.MULTILINE)
    before = operator("export", "--digests")
    assert "green is READY digits/2 (passed " in operator("load", "digits", "green", "2", "--reason", "new")
    assert "SLOT_OCCUPIED" in operator("load", "digits", "green", "3", status=1)
    operator("weights", "digits", "green=10%", "blue=rest")
    assert operator.weights() == {"blue": 9000, "green": 1000}
    assert "ETAG_MISMATCH" in operator("swap", "digits", "green", "--etag", "1", status=1)
    operator("swap", "digits", "green", "--bake", "1h")
    held = operator("unload", "digits", "blue", status=1)
    assert "SLOT_ROUTED" in held and "--end-bake" in held
    assert "blue 100 %" in operator("rollback", "digits")
    history = operator("history", "digits", "-n", "3")
    assert [line.split()[0] for line in history.splitlines()[1::2]] == ["rollback", "swap", "weights"]
    assert "as declared" in operator("apply", "-f", "-", "--yes", stdin=operator("export"))
    operator("apply", "-f", "-", "--prune", "--yes", stdin=before)
    assert operator("export", "--digests") == before


def test_apply_brings_a_declared_state_about(operator: Operator) -> None:
    declared = "models: {digits: {slots: {blue: 1, green: 2, v3: 3}, weights: {blue: 85 %, green: 10 %, v3: 5 %}}}"
    assert operator("apply", "-f", "-", "--dry-run", stdin=declared).count("+ slots/") == 2
    document = json.loads(operator("apply", "-f", "-", "--yes", "--json", stdin=declared))
    assert len(document["replicas"][0]["steps_done"]) == 3
    assert operator.weights() == {"blue": 8500, "green": 1000, "v3": 500}
    assert operator("apply", "-f", "-", stdin=declared) == "digits  as declared\n"
    missing = operator("apply", "-f", "-", "--yes", stdin="models: {digits: {slots: {red: 7}}}", status=1)
    assert "REVISION_NOT_FOUND" in missing


def test_a_shadow_rule_outlasts_a_restart_and_ends_with_a_swap(repository: Path, tmp_path: Path) -> None:
    flags = ("--admin-port=0", f"--state-dir={tmp_path / 'state'}", "--shadow-queue-max=100")
    with serving(repository, *flags) as server:
        operator = Operator(admin_of(server))
        operator("load", "digits", "green", "2")
        outputs = operator("shadow", "set", "digits", "green", "--compare", "nothing=js", status=1)
        assert "rule.comparators[0].output" in outputs or "no output 'nothing'" in outputs
        assert "--shadow-queue-max" in operator("shadow", "set", "digits", "green", "--queue-max", "101", status=1)
        assert "is the stable one" in operator("shadow", "set", "digits", "blue", status=1)
        said = operator("shadow", "set", "digits", "green", "--sample", "50%", "--compare", "probabilities=js")
        assert "green gets copies of 50 % of requests, probabilities=js" in " ".join(said.split())
        assert "turnoutctl shadow clear digits green" in operator("unload", "digits", "green", status=1)
        before = operator("export")
        assert "queue_max: 100" in before
        assert operator("apply", "-f", "-", stdin=before) == "digits  as declared\n"
    with serving(repository, *flags) as server:
        operator = Operator(admin_of(server))
        assert operator("export") == before
        assert "  shadow green: 50 % of requests, probabilities=js" in operator("status", "--interval", "0")
        operator("swap", "digits", "green")
        assert "shadow green" not in operator("status", "--interval", "0")
        history = operator("history", "--slot", "green", "-n", "1")
        assert "shadows/green  sample=5000 noise=0 digits/2 → -" in history and "swap by" in history


def test_a_shadow_is_watched_and_labels_say_that_it_is_better(repository: Path) -> None:
    images, labels = heldout(400)
    with serving(repository, "--admin-port=0") as server:
        operator = Operator(admin_of(server))
        assert "`turnoutctl shadow set digits SLOT`" in operator("shadow", "watch", "digits", status=1)
        operator("load", "digits", "green", "2")
        operator("shadow", "set", "digits", "green")
        with (
            watching(operator, "shadow", "watch", "digits", "--count", "3", "--json") as events,
            triton.InferenceServerClient(server.address) as client,
        ):
            for number, image in enumerate(images):
                tensor = triton.InferInput("image", [1, 64], "FP32")
                tensor.set_data_from_numpy(image[np.newaxis])
                client.infer("digits", [tensor], request_id=f"r{number}")
            kinds = [json.loads(events.readline())["event_type"] for _ in range(3)]
        assert "COMPARISON" in kinds
        until(lambda: "total     400 " in operator("shadow", "watch", "digits", "--once"))
        table = operator("shadow", "watch", "digits", "--once")
        assert "digits green  digits/2 against digits/1 in blue" in table and "labels" not in table
        assert "INVALID_REQUEST" in operator("feedback", "digits", "r1", "cat", status=1)
        file = "inference_id,label\n" + "".join(f"r{number},{label}\n" for number, label in enumerate(labels))
        assert "digits: 400 accepted, 0 unknown, 0 duplicate" in operator("feedback", "digits", "-f", "-", stdin=file)
        told = json.loads(operator("shadow", "watch", "digits", "--once", "--json"))["summary"]
        assert sum(each["row_count"] for each in told["classes"] if each["output"] == "label") == 400
        assert told["reference"]["only_shadow_right"] > told["reference"]["only_live_right"]
        assert "its disagreement is mostly improvement" in operator("shadow", "watch", "digits", "--once")


@contextlib.contextmanager
def watching(operator: Operator, *arguments: str) -> Iterator[IO[str]]:
    """What the command prints, while it runs; it ends by itself, with status 0."""
    with subprocess.Popen(
        [*COMMAND, *arguments], env=operator.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
            assert process.wait(RUN_S_MAX) == 0
        finally:
            process.kill()


def test_watch_tells_what_another_operator_does(operator: Operator) -> None:
    with subprocess.Popen(
        [*COMMAND, "watch", "digits", "--for", "20", "--json"],
        env=operator.environment, stdout=subprocess.PIPE, text=True,
    ) as watching:  # fmt: skip
        assert watching.stdout is not None
        kinds = [json.loads(watching.stdout.readline())["event_type"] for _ in range(2)]
        operator("load", "digits", "green", "2")
        events = [json.loads(watching.stdout.readline()) for _ in range(2)]
        watching.terminate()
    assert kinds == ["INITIAL", "SYNCED"]
    assert {event["event_type"] for event in events} == {"SLOT"}


def test_the_inference_port_is_not_the_admin_port(repository: Path) -> None:
    with serving(repository, "--admin-port=0") as server:
        assert "is this the admin port?" in Operator(server.address)("status", status=1)


def on_a_terminal(operator: Operator, *arguments: str, **more: str) -> str:
    """What a terminal gets to see, control sequences and all."""
    ours, theirs = pty.openpty()
    shown = bytearray()
    with subprocess.Popen(
        [*COMMAND, *arguments],
        env=operator.environment | {"TERM": "xterm"} | more, stdin=theirs, stdout=theirs, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        with contextlib.suppress(OSError):  # how a terminal ends, whose last user has gone
            while data := os.read(ours, 4096):
                shown += data
        assert process.wait(RUN_S_MAX) == 0
    os.close(ours)
    return shown.decode(errors="replace")


def test_on_a_terminal_things_move_and_no_color_is_respected(operator: Operator) -> None:
    assert "\x1b[32m" in on_a_terminal(operator, "watch", "--for", "0.5")
    assert "\x1b[32m" not in on_a_terminal(operator, "status", "--interval", "0", NO_COLOR="1")
    assert "\x1b[2K" in on_a_terminal(operator, "load", "digits", "green", "2")
