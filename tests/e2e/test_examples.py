"""The examples in every language, and the committed files of `turnoutctl codegen`, against a real server."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.examples import EXAMPLES, GO, JAVA, NODE, PYTHON, ROOT, Example
from support.server import Server, address_of, environment, serving

LINES_MAX = 60
SOURCES = ["python_sync.py", "python_aio.py", "go/main.go", "node/example.mjs", "java/src/main/java/Example.java"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(ROOT / "models" / "repository", "--admin-port=0", "--preflight=off") as running:
        yield running


@pytest.mark.parametrize("source", SOURCES)
def test_an_example_is_short(source: str) -> None:
    assert len((EXAMPLES / source).read_text().splitlines()) < LINES_MAX


@pytest.mark.timeout(700)  # with EXAMPLES=all packages are fetched and built
@pytest.mark.parametrize("example", [PYTHON, NODE, GO, JAVA], ids=lambda example: example.language)
def test_an_example(example: Example, server: Server) -> None:
    example.ready()
    said = example.output(server.address, address_of(server, "admin")).splitlines()
    whose = [line.partition(" says ")[0] for line in said if " in slot " in line]
    assert whose == ["digits/3 in slot blue", "digits/2 in slot v2", "digits/3 in slot blue"], said
    labels = {line.partition(" says ")[2] for line in said if " in slot " in line}
    assert any(re.search(rf"the stream says \[?{label}\b", line) for label in labels for line in said), said
    assert any("has 1 values, and shape [-1, 64]" in line or "image: has shape [1, 1]" in line for line in said), said


def test_the_microservice_on_asyncio(server: Server) -> None:
    command = [sys.executable, "python_aio.py", server.address, address_of(server, "admin")]
    done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [
        "as it is: 50 answers of digits/3 in slot blue",
        "swapped: 50 answers of digits/2 in slot v2",
        "rolled back: 50 answers of digits/3 in slot blue",
    ]


def test_the_committed_stubs_are_what_codegen_writes(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "turnout_client.ctl", "codegen", "digits", "--server", server.address]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert re.fullmatch(r"digits: \S+/digits.proto, \S+/digits_client.py\n", done.stdout)
    committed = {"digits.proto": EXAMPLES / "proto" / "digits.proto", "digits_client.py": EXAMPLES / "digits_client.py"}
    for name, file in committed.items():
        assert (tmp_path / name).read_text() == file.read_text(), f"{name}: run turnoutctl codegen digits again"
