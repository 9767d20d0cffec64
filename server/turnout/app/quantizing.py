"""Gives a quantization what it needs of the store and of the backend that serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turnout.app.parts import new_backend, repository
from turnout.config import Config
from turnout.core.errors import ControlError, LoadError
from turnout.core.ids import is_name, parse_version
from turnout.store.golden import read_labelled
from turnout.variants import quantizing
from turnout.variants.graphs import Node
from turnout.variants.progress import Progress
from turnout.variants.quantizing import Given, Order, Outcome, Version
from turnout.variants.recipes import QuantizeError, Recipe

Written = tuple[Outcome, Path]


def quantize(config: Config, named: str, order: Order, progress: Progress) -> Written:
    """The outcome, and the folder that it is in; blocks.

    Raises:
        QuantizeError: there is no variant.
    """
    with _refusing():
        version = _version(config, named)
        # The model was served already, or is to be: what it is loaded for here is no reason to load it twice.
        backend = new_backend(config.model_copy(update={"preflight": "off"}))
        backend.start()
        return quantizing.quantize(version, order, backend, progress), version.folder


def plan(config: Config, named: str, recipe: Recipe) -> list[Node]:
    """The nodes of the model as it would be quantized; blocks.

    Raises:
        QuantizeError: as `quantize` does.
    """
    with _refusing():
        return quantizing.plan(_version(config, named), recipe)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except LoadError as error:
        raise QuantizeError(str(error)) from error
    except MemoryError as error:
        raise QuantizeError("there is not enough memory to quantize this model here") from error
    except OSError as error:
        raise QuantizeError(f"temporary files cannot be used: {error.strerror}: see TMPDIR") from error


def samples(path: Path | None) -> Given | None:
    """Raises:
    QuantizeError: it is no archive of inputs.
    """
    if path is None:
        return None
    try:
        inputs, labels = read_labelled(path)
    except LoadError as error:
        raise QuantizeError(str(error)) from error
    return Given(inputs, path.name, labels)


def _version(config: Config, named: str) -> Version:
    model, slash, number = named.partition("/")
    if "@" in number:
        raise QuantizeError(f"'{named}' is a variant: quantize the version itself, {named.partition('@')[0]}")
    version = parse_version(number)
    if not is_name(model) or not slash or version is None:
        raise QuantizeError(f"'{named}' names no version: write MODEL/VERSION, such as digits/2")
    store = repository(config)
    try:
        found, artefact = store.find(model, version)
    except ControlError as error:
        raise QuantizeError(f"{error.message} (--model-repository {config.model_repository})") from error
    manifest = found.manifests[version]

    def digest_of(variant: str) -> str:
        try:
            return store.find(model, version, variant)[1].revision.digest
        except ControlError as error:
            raise QuantizeError(f"the variant was written and cannot be read again: {error.message}") from error

    folder = store.root.joinpath(*manifest.folder.path)
    return Version(artefact, found.execution, folder, manifest.model, digest_of)
