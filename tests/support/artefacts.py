"""Artefacts for tests: of real files, and of none for backends that read nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from turnout.core.ids import Revision
from turnout.core.model import Artefact, OpenArtefact


def artefact_of(model: Path, revision: Revision | None = None) -> Artefact:
    """The model file and everything beside it, unchecked."""

    @contextmanager
    def opened() -> Iterator[OpenArtefact]:
        with ExitStack() as stack:
            files = {}
            for path in sorted(path for path in model.parent.rglob("*") if path.is_file()):
                fd = os.open(path, os.O_RDONLY)
                stack.callback(os.close, fd)
                files[str(path.relative_to(model.parent))] = fd
            yield OpenArtefact(model.name, files)

    return Artefact(revision or Revision("m", 1, "", "d"), opened)


def synthetic_artefact(model: str, version: int = 1, digest: str = "d") -> Artefact:
    """For backends that read no file: opening it fails."""
    return Artefact(Revision(model, version, "", digest), _no_files)


def _no_files() -> ExitStack[bool | None]:
    raise AssertionError("a synthetic artefact has no files to open")
