"""Every command that README and docs show is run here as a reader would, in the order of its page, against a server
with users; or the page says that it needs a container engine, a cluster or a GPU."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest

from support.command import turnoutctl
from support.crowd import Crowd
from support.pages import ROOT, Command, commands
from support.server import Server, address_of, process, run
from support.variants import quantized
from turnout.telemetry.settings import read as telemetry_settings
from zoo.samples import heldout

COMMANDS = commands()
RUN_S_MAX = 60
# What a reader types once the server is there: the rest is checked without it.
WITH_SERVER = {"turnoutctl", "curl", "grpcurl", ".venv/bin/python"}
# Slot blue holds this version on pages that say so; else the newest, as `make serve` leaves it.
FIRST_VERSION = {"docs/strategies.md": 1}


# The demo types these itself, and tests/e2e/test_demo.py runs it.
DEMO = ("README.md", "Two commands")


def stories() -> list[tuple[str, str]]:
    found = {(command.page, command.section): None for command in COMMANDS if command.words[0] in WITH_SERVER}
    return [story for story in found if story != DEMO]


def _make(command: Command, desk: Path) -> None:
    """It has the target and knows the variables, of which make itself would ignore any. What the long ones do is run by
    `make check` in their short form."""
    makefile = (ROOT / "Makefile").read_text()
    for name in (word.partition("=")[0] for word in command.words[2:] if "=" in word):
        assert re.search(rf"\$\({name}\)|:{name}\b", makefile), f"{command}: the Makefile has no {name}"
    done = subprocess.run(
        ["make", "--dry-run", *command.words[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"


def _pip(command: Command, desk: Path) -> None:
    """What it names is there. Installing it is the first thing that CI does."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in command.words[1:]:
        if word.endswith(".txt"):
            assert (ROOT / word).is_file(), str(command)
        named = re.fullmatch(r"(?:\.|turnout)\[([a-z-]+(?:,[a-z-]+)*)\]", word)
        assert set(named[1].split(",") if named else ()) <= set(extras), str(command)


def _turnout(command: Command, desk: Path) -> None:
    """`serve` as far as its settings: servers are started by many tests, with a repository that is there."""
    words = ["config", *command.words[2:]] if command.words[1] == "serve" else list(command.words[1:])
    done = run(*words, more=command.variables, cwd=desk)
    refused = re.search(r"^turnout: ", command.shown, re.MULTILINE)
    assert done.returncode == (1 if refused else 0), f"{command}: {done.stdout}{done.stderr}"
    telemetry_settings(command.variables)


def _prometheus(command: Command, desk: Path) -> None:
    path = command.words[command.words.index("--config.file") + 1]
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not on the PATH (Debian: apt-get install prometheus)")
    done = subprocess.run(["promtool", "check", "config", path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _python(command: Command, desk: Path) -> None:
    """Small models are built; of what takes longer the module is there, and tests/models runs it."""
    module = command.words[command.words.index("-m") + 1]
    assert importlib.util.find_spec(module) is not None, str(command)
    if command.words[1:4] == ("-m", "zoo.build", "digits"):
        more = {**os.environ, "PYTHONPATH": str(ROOT / "models")}
        done = subprocess.run(
            [sys.executable, *command.words[1:]],
            cwd=desk, env=more, capture_output=True, text=True, timeout=RUN_S_MAX, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"


ALONE: dict[str, Callable[[Command, Path], None]] = {
    "make": _make,
    "pip": _pip,
    "turnout": _turnout,
    "prometheus": _prometheus,
    "python": _python,
}


class Reader:
    """Types commands on a machine where a server runs, in a folder of its own."""

    def __init__(self, server: Server, repository: Path, folder: Path, crowd: Crowd) -> None:
        self._server = server
        self._repository = repository
        self.folder = folder
        self._crowd = crowd
        self._waited: set[str] = set()
        self._first: str | None = None

    @property
    def admin(self) -> str:
        return address_of(self._server, "admin")

    @property
    def inference(self) -> str:
        return self._server.address

    def begin(self) -> None:
        """As the server was at first, whatever the page before has left."""
        if self._first is None:
            self._first = turnoutctl("export").stdout
            if "v2:" in self._first:  # so that there is something to roll back to, as after any swap
                assert turnoutctl("swap", "digits", "v2").status == 0
                assert turnoutctl("rollback", "digits").status == 0
        done = turnoutctl("apply", "-f", "-", "--prune", "--yes", "--end-bake", "--accept-outage", stdin=self._first)
        assert done.status == 0, done.stderr

    def type(self, command: Command) -> None:
        runner: dict[str, Callable[[Command], None]] = {
            "turnoutctl": self._turnoutctl,
            "curl": self._curl,
            "grpcurl": self._grpcurl,
            ".venv/bin/python": self._python,
        }
        runner[command.words[0]](command)

    def _turnoutctl(self, command: Command) -> None:
        words = [self._file(word, command) for word in command.words[1:]]
        if "watch" in words and "--once" not in words:
            words += ["--for", "1"]  # it would go on until Ctrl-C
        elif "watch" in words:
            if command.text in self._waited:
                return  # a summary takes ten seconds, and is the same on every page
            self._waited.add(command.text)
        if "Do this?" in command.shown:
            words.append("--yes")  # there is no terminal here to be asked on
        done = turnoutctl(*words)
        refusal = re.match(r"turnoutctl: \S+: ([A-Z_]+): ", command.shown)
        if refusal:
            assert done.status != 0, f"{command}: it is said to be refused"
            assert refusal[1] in done.stderr
        else:
            assert done.status == 0, f"{command}: {done.stderr}"

    def _curl(self, command: Command) -> None:
        url = next(word for word in command.words if word.startswith("http"))
        path = "/" + url.split("/", 3)[3]
        with urllib.request.urlopen(f"http://{address_of(self._server, 'ops')}{path}", timeout=10) as answer:
            assert answer.status == 200, str(command)

    def _grpcurl(self, command: Command) -> None:
        """Each line that the page shows is among those that came, but for what differs from run to run."""
        if shutil.which("grpcurl") is None:
            pytest.skip("grpcurl is not on the PATH: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest")
        text = command.text.replace("127.0.0.1:8001", self._server.address).replace("127.0.0.1:8003", self.admin)
        done = subprocess.run(
            ["bash", "-c", text], capture_output=True, text=True, timeout=RUN_S_MAX, check=False
        )  # it has $(...)
        said = {_steady(line) for line in (done.stdout + done.stderr).splitlines()}
        missing = {_steady(line) for line in command.shown.splitlines() if "…" not in line} - said - {""}
        assert done.returncode == 0 and not missing, f"{command}: {missing}\n{done.stdout}{done.stderr}"

    def _python(self, command: Command) -> None:
        words = [self._server.address if word == "HOST:PORT" else self._file(word, command) for word in command.words]
        if words[1] == "loadtests/generate.py" and "--help" not in words:
            words += ["--seconds", "0.3", "--warmup", "0.1"]
        done = subprocess.run(
            [sys.executable, str(ROOT / words[1]), *words[2:]],
            cwd=self.folder, capture_output=True, text=True, timeout=RUN_S_MAX, check=False,
        )  # fmt: skip
        void = done.returncode == 3 and "loadtests" in words[1]  # the generator fell behind: no claim, but it ran
        assert done.returncode == 0 or void, f"{command}: {done.stdout}{done.stderr}"

    def _file(self, word: str, command: Command) -> str:
        """The file of this name, made as a reader would have made it: from the page's YAML, or what came back."""
        if word == "model.onnx":
            return str(next(self._repository.glob("digits/*/model.onnx")))
        if not word.endswith((".yaml", ".csv")):
            return word
        path = self.folder / word
        path.write_text(command.yaml if word.endswith(".yaml") else self._crowd.labels_csv())
        return str(path)


def _steady(line: str) -> str:
    """Without ids and generations, and without what follows from the line's place in a list."""
    return re.sub(r'"(inferenceId|generation)": "[^"]*"', r'"\1": ""', line).strip().rstrip(",")


@pytest.fixture(scope="module")
def desks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder like a checkout's for each page, to write into."""

    @cache
    def desk(page: str) -> Path:
        folder = tmp_path_factory.mktemp("desk")
        shutil.copytree(ROOT / "models" / "repository", folder / "models" / "repository")
        return folder

    return desk


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int | None], Reader]]:
    """One server for each version that slot blue may hold at first."""
    with ExitStack() as stack:

        @cache
        def reader(version: int | None) -> Reader:
            return stack.enter_context(_reader(tmp_path_factory.mktemp("reader"), version))

        yield reader


@contextmanager
def _reader(folder: Path, version: int | None) -> Iterator[Reader]:
    repository = folder / "models"
    shutil.copytree(ROOT / "models" / "repository", repository)
    quantized(repository / "digits" / "2" / "model.onnx", "int8", heldout(1000)[0])
    if version is not None:
        config = f"max_batch_size: 32\nversion_policy: {{ specific {{ versions: [{version}] }} }}\n"
        (repository / "digits" / "config.pbtxt").write_text(config)
    with process(repository, f"--state-dir={folder / 'state'}") as server, Crowd(server.address) as crowd:
        yield Reader(server, repository, folder, crowd)


def test_a_command_is_run_or_says_what_it_needs() -> None:
    ours = WITH_SERVER | set(ALONE)
    unknown = [str(command) for command in COMMANDS if command.words[0] not in ours and not command.needs]
    assert not unknown, "teach tests/docs to run it, or say on the page what it needs"
    assert len(COMMANDS) > 40  # else the pages are not read as they are written


def _behind(program: str, command: Command) -> tuple[str, ...]:
    """What follows a program of ours that another one runs: `kubectl exec POD -- turnoutctl ...`."""
    words = command.words[command.words.index(program) + 1 :]
    return tuple(takewhile(lambda word: word not in {"<", ">", "|"}, words))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.needs and "turnoutctl" in c.words], ids=str)
def test_turnoutctl_understands_a_command_that_is_not_run(command: Command) -> None:
    """With --help it does nothing, but refuses options and commands that there are not."""
    done = turnoutctl(*_behind("turnoutctl", command), "--help")
    assert done.status == 0, f"{command}: {done.stderr}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("page", "section"), stories())
def test_the_commands_of_a_section_work_in_their_order(
    readers: Callable[[int | None], Reader], page: str, section: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = readers(FIRST_VERSION.get(page))
    monkeypatch.setenv("TURNOUTCTL_ENDPOINT", reader.admin)
    monkeypatch.setenv("TURNOUTCTL_SERVER", reader.inference)
    monkeypatch.chdir(reader.folder)
    monkeypatch.setenv("COLUMNS", "200")
    reader.begin()
    for command in COMMANDS:
        if (command.page, command.section) == (page, section) and command.words[0] in WITH_SERVER and not command.needs:
            reader.type(command)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.words[0] in ALONE and not c.needs], ids=str)
def test_a_command_without_a_server_means_something(command: Command, desks: Callable[[str], Path]) -> None:
    ALONE[command.words[0]](command, desks(command.page))
