"""Reads docker/Dockerfile into stages, and .dockerignore into what a builder is given. Knows only what ours use, and
refuses the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SAYING = ("ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "LABEL", "STOPSIGNAL", "USER", "VOLUME")
_DOING = ("ARG", "COPY", "ENV", "RUN", "WORKDIR")
_INSTRUCTIONS = (*_DOING, *_SAYING)
_FLAG = re.compile(r"--(?P<name>[a-z-]+)=(?P<value>\S+)\s*")
_PAIR = re.compile(r'(?P<name>[\w.]+)=(?:"(?P<quoted>[^"]*)"|(?P<bare>\S*))')
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class DockerfileError(Exception):
    """A line that this reader does not know."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line: `COPY --from=base /a /b` has the keyword COPY, a flag and the value `/a /b`."""

    keyword: str
    flags: Mapping[str, str]
    value: str

    def words(self) -> list[str]:
        """The value as a list: of the JSON form (a health check's command, too), or of its words."""
        value = self.value.removeprefix("CMD ")
        if value.startswith("["):
            words: list[str] = json.loads(value)
            return words
        return value.split()

    def pairs(self) -> dict[str, str]:
        """Of ENV, LABEL and ARG: names and values, not expanded."""
        return {m["name"]: m["quoted"] if m["quoted"] is not None else m["bare"] for m in _PAIR.finditer(self.value)}

    def mounts(self) -> dict[str, str]:
        """Of a RUN with a mount: type, from, source and target."""
        return dict(part.split("=", 1) for part in self.flags.get("mount", "").split(",") if part)


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage and what it begins with: an image, or the name of an earlier stage."""

    name: str
    base: str
    instructions: tuple[Instruction, ...]

    def all(self, keyword: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.keyword == keyword]

    def needs(self) -> Iterator[str]:
        """What has to be there first: the base, and whatever is copied or mounted from elsewhere."""
        yield self.base
        for instruction in self.instructions:
            for source in (instruction.flags.get("from"), instruction.mounts().get("from")):
                if source:
                    yield source


def read(text: str) -> dict[str, Stage]:
    """All stages by name, in their order. Arguments before the first stage are expanded to their defaults.

    Raises:
        DockerfileError: an instruction that is not known here, or a stage without a name.
    """
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    for line in _lines(text):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            words = expand(rest, arguments).split()
            if len(words) != 3 or words[1] != "AS":
                raise DockerfileError(f"'{line}': a stage is written FROM IMAGE AS NAME")
            stages[words[2]] = Stage(words[2], words[0], ())
        elif keyword == "ARG" and not stages:
            arguments |= Instruction(keyword, {}, rest).pairs()
        elif keyword in _INSTRUCTIONS and stages:
            last = list(stages.values())[-1]
            instructions = (*last.instructions, _instruction(keyword, rest))
            stages[last.name] = Stage(last.name, last.base, instructions)
        else:
            raise DockerfileError(f"'{line}': not known here; known are FROM, {', '.join(_INSTRUCTIONS)}")
    return stages


def lineage(stages: Mapping[str, Stage], name: str) -> list[Stage]:
    """The stage and those that it begins with, the first one first: together they say what the image is."""
    stage = stages[name]
    return [*(lineage(stages, stage.base) if stage.base in stages else ()), stage]


def needed(stages: Mapping[str, Stage], target: str) -> list[Stage]:
    """The stages that a build of `target` takes, in the order of the file."""
    wanted, seen = [target], set()
    while wanted:
        name = wanted.pop()
        if name in stages and name not in seen:
            seen.add(name)
            wanted.extend(stages[name].needs())
    return [stage for stage in stages.values() if stage.name in seen]


def expand(text: str, values: Mapping[str, str]) -> str:
    """`${NAME}` replaced; a name without a value is left for the shell."""
    return _VARIABLE.sub(lambda match: values.get(match[1], match[0]), text)


def context(root: Path, patterns: Sequence[str]) -> list[Path]:
    """The files below `root` that a builder is given, by the lines of a .dockerignore: the last one that fits a file,
    or a folder that it is in, decides."""
    rules = [
        (not line.startswith("!"), _pattern(line.removeprefix("!"))) for line in patterns if line.strip()[:1] not in "#"
    ]

    def given(path: Path) -> bool:
        name, ignored = path.relative_to(root).as_posix(), False
        for leaves_out, pattern in rules:
            ignored = leaves_out if pattern.fullmatch(name) else ignored
        return not ignored

    return sorted(path for path in root.rglob("*") if path.is_file() and given(path))


def _pattern(line: str) -> re.Pattern[str]:
    parts = (re.escape(part).replace(r"\*", "[^/]*") for part in line.strip().split("**/"))
    return re.compile("(.*/)?".join(parts) + "(/.*)?")


def _instruction(keyword: str, rest: str) -> Instruction:
    flags = {}
    while match := _FLAG.match(rest):
        flags[match["name"]] = match["value"]
        rest = rest[match.end() :]
    return Instruction(keyword, flags, rest)


def _lines(text: str) -> Iterator[str]:
    """Without comments, and with lines that go on after a backslash joined."""
    kept = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    whole = ""
    for line in kept:
        whole += line.strip() if whole else line
        if whole.endswith("\\"):
            whole = whole[:-1].rstrip() + " "
        else:
            yield whole
            whole = ""
