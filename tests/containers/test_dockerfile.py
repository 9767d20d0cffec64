"""docker/Dockerfile: what the image says of itself, what a builder is given, the health check, and the reader of it all
that `make try-image` goes by. That its steps work is shown there, with root and a Debian 12."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from steps.container import USER
from steps.dockerfile import DockerfileError, Stage, context, lineage, needed, read
from turnout.config import Config, load

ROOT = Path(__file__).resolve().parents[2]
STAGES = read((ROOT / "docker/Dockerfile").read_text(encoding="utf-8"))
TARGETS = ("cpu", "gpu")
_SETTINGS = Config()


def last(image: list[Stage], keyword: str) -> str:
    return [each.value for stage in image for each in stage.all(keyword)][-1]


def pairs(image: list[Stage], keyword: str) -> dict[str, str]:
    return {name: value for stage in image for each in stage.all(keyword) for name, value in each.pairs().items()}


def ignored() -> list[str]:
    return (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


# The image


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_says_how_to_run_it(target: str) -> None:
    image = lineage(STAGES, target)
    assert last(image, "USER") == f"{USER}:{USER}"
    assert image[-1].instructions[-1].keyword == "USER", "nothing is installed as that user"
    assert last(image, "STOPSIGNAL") == "SIGTERM"
    assert [each.words() for each in image[0].all("ENTRYPOINT")] == [["turnout", "serve"]]
    ports = {_SETTINGS.grpc_port, _SETTINGS.ops_port, _SETTINGS.admin_port}
    assert {int(port) for port in last(image, "EXPOSE").split()} == ports
    settings = load({}, pairs(image, "ENV"), None)
    assert (str(settings.model_repository), str(settings.state_dir)) == ("/models", "/state")
    (check,) = image[0].all("HEALTHCHECK")
    assert check.words() == ["python", "-I", last(image[:1], "COPY").split()[-1]]


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_downloaded_is_pinned(target: str) -> None:
    for stage in needed(STAGES, target):
        for run in stage.all("RUN"):
            if "pip" in run.value and " install " in run.value:
                assert "-c constraints.txt" in run.value or "--no-index" in run.value
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for name in ("hatchling", "trove-classifiers", "onnxruntime-gpu", "nvidia-cublas", "nvidia-cudnn-cu13"):
        assert f"\n{name}==" in pinned


def test_labels_are_true() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    image = lineage(STAGES, "cpu")
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in pairs(image, "LABEL").items()}
    assert pairs(image, "ARG")["VERSION"] == project["version"]
    assert labels["description"] == project["description"]
    assert labels["licenses"] == project["license"]
    assert (labels["version"], labels["revision"]) == ("${VERSION}", "${REVISION}")


def test_both_images_have_the_same_server_and_their_own_libraries() -> None:
    cpu, gpu = ({stage.name for stage in needed(STAGES, target)} for target in TARGETS)
    assert cpu ^ gpu == {"cpu", "libraries-cpu", "gpu", "libraries-gpu"}
    assert list(STAGES)[-1] == "cpu", "a build without a target makes this one"


def test_a_builder_is_given_what_is_copied_and_nothing_else() -> None:
    given = {path.relative_to(ROOT).as_posix() for path in context(ROOT, ignored())}
    copied = [
        source
        for stage in STAGES.values()
        for copy in stage.all("COPY")
        if "from" not in copy.flags
        for source in copy.words()[:-1]
    ]
    for source in copied:
        assert any(name == source or name.startswith(f"{source}/") for name in given), source
    for name in given:
        assert any(name == source or name.startswith(f"{source}/") for source in copied), name
        assert not name.endswith(".pyc")
    assert "server/turnout/cli.py" in given


def test_hadolint_finds_what_is_wrong(tmp_path: Path) -> None:
    """`make lint` has it look at ours; this is the proof that it would say something."""
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian\nRUN apt-get install python3\n")
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, bad], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DL3006" in done.stdout


# The reader


def test_a_dockerfile_is_read_into_stages() -> None:
    text = """
# a comment
ARG IMAGE=debian:12
FROM ${IMAGE} AS first
ENV A=1 B="two words"
RUN one \\
 && two
FROM first AS second
COPY --from=first /a /b
RUN --mount=type=bind,from=third,source=/wheel,target=/w install
HEALTHCHECK --interval=10s --retries=3 CMD ["a", "b"]
FROM debian AS third
"""
    stages = read(text)
    assert [stage.base for stage in stages.values()] == ["debian:12", "first", "debian"]
    first, second, _ = stages.values()
    assert first.instructions[0].pairs() == {"A": "1", "B": "two words"}
    assert first.instructions[1].value == "one && two"
    copy, run, check = second.instructions
    assert (copy.flags, copy.words()) == ({"from": "first"}, ["/a", "/b"])
    assert run.mounts() == {"type": "bind", "from": "third", "source": "/wheel", "target": "/w"}
    assert (check.flags["retries"], check.words()) == ("3", ["a", "b"])
    assert [stage.name for stage in needed(stages, "second")] == ["first", "second", "third"]
    assert [stage.name for stage in lineage(stages, "second")] == ["first", "second"]


@pytest.mark.parametrize("line", ["FROM debian", "ADD a b", "RUN true", "SHELL sh"])
def test_what_the_reader_does_not_know_is_refused(line: str) -> None:
    with pytest.raises(DockerfileError, match=line.split(maxsplit=1)[0]):
        read(f"{line}\n")


def test_the_last_line_that_fits_decides(tmp_path: Path) -> None:
    for name in ("a.txt", "kept/b.txt", "kept/deep/c.pyc", "kept/deep/d.py", "other/e.py", "keptnot/f.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    given = context(tmp_path, ["# comment", "*", "!kept", "**/*.pyc", ""])
    assert [path.relative_to(tmp_path).as_posix() for path in given] == ["kept/b.txt", "kept/deep/d.py"]


# The health check


@contextmanager
def answering(status: int) -> Iterator[int]:
    """An ops port on loopback that says the same to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(b"as told\n")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def health(port: int, **more: str) -> tuple[int, str]:
    environment = {"PATH": os.environ["PATH"], "TURNOUT_OPS_PORT": str(port), "http_proxy": "http://127.0.0.1:1"} | more
    command = [sys.executable, "-I", str(ROOT / "docker/healthcheck.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1), (404, 1)])
def test_the_health_check_says_what_the_server_says(status: int, exit_status: int) -> None:
    with answering(status) as port:
        assert health(port) == (exit_status, f"{status} as told\n")
        assert health(port, TURNOUT_OPS_HOST="127.0.0.1") == (exit_status, f"{status} as told\n")
    assert health(port) == (1, "the ops port does not answer: ConnectionRefusedError\n")


def test_the_health_check_takes_no_address_for_a_port() -> None:
    _, said = health(1, TURNOUT_OPS_PORT="tcp://10.0.0.1:80")  # as engines tell of a service called turnout-ops
    assert said, "an answer of port 8002, or that there is none; no stack"
