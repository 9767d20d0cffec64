"""The commands that README and docs show, as they stand there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# docs/metrics.md is made from the instruments and has no commands.
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "models" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
PROGRAMS = (
    *(
        "turnout",
        "turnoutctl",
        "make",
        "pip",
        "curl",
        "prometheus",
        "promtool",
        ".venv/bin/python",
        "python",
        "grpcurl",
    ),
    *("docker", "kubectl", "kustomize", "helm", "go", "npm", "node", "mvn", "java", "sudo", "apt-get", "git", "cp"),
)

_BLOCK = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*=\S*")
_NEEDS = re.compile(r"needs? (an? (?:container engine|cluster|nvidia gpu)[^.:*)]*)", re.IGNORECASE)
_LANGUAGES = frozenset({"", "console", "sh", "bash", "shell"})


@dataclass(frozen=True, slots=True)
class Command:
    """One line that a reader may type.

    Attributes:
        section: the second-level heading above it; empty before the first.
        words: without variables that stand before the program.
        shown: what the page shows as its output; empty where the block is no transcript.
        needs: what the page says that it takes, beyond what the tests have: a container engine, a cluster, a GPU.
        yaml: the last block of YAML above it.
    """

    page: str
    section: str
    line: int
    text: str
    variables: dict[str, str]
    words: tuple[str, ...]
    shown: str
    needs: str
    yaml: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def commands() -> list[Command]:
    return [command for page in PAGES for command in _of(page)]


def _of(page: Path) -> Iterator[Command]:
    text = page.read_text()
    yaml = ""
    for block in _BLOCK.finditer(text):
        language, content = block[1], block[2]
        if language == "yaml":
            yaml = content
        if language not in _LANGUAGES:
            continue
        above = text[: block.start()]
        section = (re.findall(r"^## (.*)$", above, re.MULTILINE) or [""])[-1]
        said = above.rstrip().rsplit("\n\n", 1)[-1]
        needs = _NEEDS.search(" ".join(said.split()))
        first = above.count("\n") + 2
        lines = content.splitlines()
        transcript = any(line.startswith("$ ") for line in lines)
        at = 0
        while at < len(lines):
            start, line = at, lines[at]
            at += 1
            while line.endswith("\\") and at < len(lines):
                line, at = line[:-1] + lines[at].lstrip(), at + 1
            if transcript and not line.startswith("$ "):
                continue
            line = line.removeprefix("$ ")
            words = _words(line)
            variables = {}
            while words and _VARIABLE.fullmatch(words[0]):
                name, _, value = words.pop(0).partition("=")
                variables[name] = value
            if not words or (not transcript and words[0] not in PROGRAMS):
                continue
            end = next((n for n in range(at, len(lines)) if lines[n].startswith("$ ")), len(lines))
            shown = "\n".join(lines[at:end]) if transcript else ""
            needed = needs or _NEEDS.search(line.partition("#")[2])
            yield Command(
                str(page.relative_to(ROOT)),
                section,
                first + start,
                line.strip(),
                variables,
                tuple(words),
                shown,
                needed[1] if needed else "",
                yaml,
            )


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a picture, or a table: no command
        return []
