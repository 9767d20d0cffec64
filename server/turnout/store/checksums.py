"""Reads a version's SHA256SUMS, as `sha256sum` writes it: what the files were where they came from."""

from __future__ import annotations

import re

from turnout.core.errors import LoadError
from turnout.store.contained import Folder

CHECKSUMS = "SHA256SUMS"
_BYTES_MAX = 1 << 20
_LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)")  # text and binary mode; a backslash tells of an escaped name
_ESCAPE = re.compile(r"\\(.?)")
_ESCAPED = {"\\": "\\", "n": "\n", "r": "\r"}


def read_checksums(folder: Folder) -> dict[str, str] | None:
    """sha256, in lower case, by path in `folder`; None where it has no such file.

    Raises:
        LoadError: a line is not of that form.
    """
    try:
        content = folder.read(CHECKSUMS, _BYTES_MAX)
    except FileNotFoundError:
        return None
    sums: dict[str, str] = {}
    for number, line in enumerate(content.decode(errors="surrogateescape").split("\n"), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise LoadError(f"{CHECKSUMS} line {number} is not '<sha256>  <name>', as sha256sum writes it")
        name = _ESCAPE.sub(_unescape, match[3]) if match[1] else match[3]
        name = name.removeprefix("./")  # as `find | xargs sha256sum` writes
        # `sha256sum * > SHA256SUMS` lists the file itself, as it was then: empty.
        if name != CHECKSUMS and sums.setdefault(name, match[2].lower()) != match[2].lower():
            raise LoadError(f"{CHECKSUMS} lists '{name}' twice, with different digests")
    return sums


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPED.get(match[1], match[0])
