"""Runs a model over samples, through the backend that serves it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from turnout.core.errors import LoadError
from turnout.core.ids import Revision
from turnout.core.model import Artefact, Execution, OpenArtefact
from turnout.runtime.ports import Backend, Loaded
from turnout.variants.calibrating import Rows
from turnout.variants.recipes import QuantizeError
from turnout_wire.tensors import Array

Tell = Callable[[int], None]  # rows that were run


class Runner:
    """Loads what is asked for on `backend`, as the model's configuration says."""

    def __init__(self, backend: Backend, execution: Execution) -> None:
        self._backend = backend
        self._execution = execution
        self._place = ""

    def version(self, artefact: Artefact) -> Loaded:
        """Raises:
        QuantizeError: it does not load here.
        """
        try:
            loaded = self._backend.load(artefact, self._execution)
        except LoadError as error:
            raise QuantizeError(f"{artefact.revision} cannot be loaded: {error}") from error
        self._place = ", ".join(dict.fromkeys(loaded.providers))
        return loaded

    def variant(self, file: Path, revision: Revision) -> Loaded:
        """Raises:
        QuantizeError: the file does not load here, with the provider and the node.
        """
        try:
            return self._backend.load(Artefact(revision, partial(_opened, file)), self._execution)
        except LoadError as error:
            raise QuantizeError(
                f"{revision} does not run on provider '{self._place}': {error}. Nothing was written: choose another "
                "method, leave the node as it is (--exclude-node, --exclude-op), or quantize where it is to serve"
            ) from error

    @property
    def place(self) -> str:
        """The provider that the version runs on; "" before it was loaded."""
        return self._place


def answers(loaded: Loaded, rows: Rows, tell: Tell = lambda _: None) -> dict[str, Array]:
    """All outputs for all rows.

    Raises:
        QuantizeError: a run fails, or what several runs answer does not fit together.
    """
    names = [spec.name for spec in loaded.declared.outputs]
    parts: list[list[Array]] = []
    for inputs in rows.runs():
        try:
            parts.append(loaded.sessions[0].run(inputs, names))
        except Exception as error:
            raise QuantizeError(f"the model fails to run on {rows.source}: {str(error)[:300]}") from error
        tell(min(rows.batch or rows.count, rows.count))
    if len(parts) == 1:
        return dict(zip(names, parts[0], strict=True))
    try:
        return {
            name: np.concatenate([np.atleast_1d(part[index]) for part in parts]) for index, name in enumerate(names)
        }
    except ValueError as error:
        raise QuantizeError(
            f"its answers to several runs on {rows.source} cannot be joined: {error}: give samples for one run"
        ) from error


@contextmanager
def _opened(file: Path) -> Iterator[OpenArtefact]:
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield OpenArtefact(file.name, {file.name: fd})
    finally:
        os.close(fd)
