"""Reads a model repository in Triton's layout: `<model>/<version>/model.onnx`, optionally `<model>/config.pbtxt`.

Nothing is ever written. A model with a problem is listed with its reason, so that the others can serve.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from turnout.core.errors import LoadError
from turnout.core.ids import Revision, is_name, parse_version
from turnout.core.model import Artefact, Execution, ModelSpec
from turnout.core.tensors import Signature
from turnout.store.complete import complete
from turnout.store.model_config import ModelConfiguration

_CONFIG_BYTES_MAX = 1 << 20
_NO_WEIGHTS = (".onnx", ".npz", ".json", ".pbtxt", ".md", ".txt")


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What a model may ask for; each has its flag in config.py.

    Attributes:
        batch_rows_default: max_batch_size for models that can batch and do not say how far (Triton's default is 4).
        batch_rows_max: the largest max_batch_size; warm-up makes inputs of that many rows.
        instances_max: the largest instance_group count; each is a thread.
    """

    batch_rows_default: int = 4
    batch_rows_max: int = 4096
    instances_max: int = 64


@dataclass(frozen=True)
class Repository:
    """A folder of models."""

    root: Path
    limits: ModelLimits = ModelLimits()

    def models(self) -> list[RepositoryModel]:
        """Every model folder, by name.

        Raises:
            LoadError: the repository itself is not there.
        """
        if not self.root.is_dir():
            raise LoadError(f"model repository '{self.root}' is not a folder: see --model-repository")
        folders = sorted(path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))
        return [self._model(folder) for folder in folders]

    def _model(self, folder: Path) -> RepositoryModel:
        name = os.fsencode(folder.name).decode(errors="replace")  # whatever bytes the file system has
        try:
            if not is_name(folder.name):
                raise LoadError("its name has other characters than letters, digits, '.', '_' and '-', or over 128")
            configuration = ModelConfiguration.parse(folder.name, _config_text(folder))
            _check_limits(configuration, self.limits)
            artefacts = _artefacts(folder, configuration)
        except LoadError as refusal:
            return RepositoryModel(name, problem=str(refusal))
        except OSError as error:
            return RepositoryModel(name, problem=f"cannot be read: {error.strerror}")
        return RepositoryModel(name, tuple(artefacts), configuration, self.limits.batch_rows_default)


@dataclass(frozen=True)
class RepositoryModel:
    """One model of the repository: the runtime's ModelSource."""

    name: str
    artefacts: Sequence[Artefact] = ()
    configuration: ModelConfiguration | None = None
    batch_rows_default: int = 4
    problem: str = ""

    @cached_property
    def execution(self) -> Execution:
        return self.configuration.execution() if self.configuration else Execution()

    def complete(self, version: int, declared: Signature, batch: bool = True) -> ModelSpec:
        if self.configuration is None:
            raise LoadError(self.problem)
        return complete(self.configuration, declared, self.batch_rows_default if batch else 0)


def _check_limits(configuration: ModelConfiguration, limits: ModelLimits) -> None:
    rows, instances = configuration.rows_max, configuration.execution().instances
    if rows > limits.batch_rows_max:
        raise LoadError(
            f"config.pbtxt: max_batch_size is {rows}, the limit is {limits.batch_rows_max}: --batch-rows-max"
        )
    if instances > limits.instances_max:
        raise LoadError(
            f"config.pbtxt: instance_group count is {instances}, the limit is {limits.instances_max}: --instances-max"
        )


def _config_text(folder: Path) -> str:
    path = folder / "config.pbtxt"
    if not path.is_file():
        return ""
    if path.stat().st_size > _CONFIG_BYTES_MAX:
        raise LoadError(f"config.pbtxt is larger than {_CONFIG_BYTES_MAX} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise LoadError("config.pbtxt is not UTF-8 text") from None


def _artefacts(folder: Path, configuration: ModelConfiguration) -> list[Artefact]:
    """The artefacts of the versions that the policy allows, newest first."""
    present = {version for path in folder.iterdir() if path.is_dir() and (version := parse_version(path.name))}
    if not present:
        raise LoadError("it has no version folder: put the model into a folder named 1, 2, ...")
    chosen = configuration.versions(present)
    return [_artefact(folder, version, configuration.filename) for version in sorted(chosen, reverse=True)]


def _artefact(folder: Path, version: int, filename: str) -> Artefact:
    """One version's; an upload that has not come far costs that version alone."""
    path = folder / str(version) / filename
    if path.is_dir():
        path = path / "model.onnx"
    if not path.is_file():
        return Artefact(Revision(folder.name, version, "", ""), "", f"version {version} has no file '{filename}'")
    try:
        return Artefact(Revision(folder.name, version, "", _digest(path)), str(path))
    except OSError as error:
        return Artefact(Revision(folder.name, version, "", ""), "", f"version {version}: {error.strerror}")


def _may_hold_weights(path: Path, folder: Path) -> bool:
    """Hidden files and folders are other programs' (uploads under way, Kubernetes' volumes)."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix not in _NO_WEIGHTS


def _digest(model: Path) -> str:
    """sha256 over names, sizes and sha256 of the model file and of what lies beside it and may hold its weights:
    everything but other models, samples and reports."""
    files = [path for path in model.parent.rglob("*") if path == model or _may_hold_weights(path, model.parent)]
    total = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(
            f"{path.relative_to(model.parent)}\0{path.stat().st_size}\0{digest}\n".encode(errors="surrogateescape")
        )
    return total.hexdigest()
