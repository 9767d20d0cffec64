"""Gives a verification what it needs: two revisions of the store, samples, the backend that serves, and a process of
its own for each revision whose memory is measured."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from turnout.app.parts import new_backend, repository
from turnout.config import Config
from turnout.core.errors import ControlError, LoadError
from turnout.core.ids import Revision, is_name, parse_version
from turnout.core.parity import Kind
from turnout.core.tensors import Tensors
from turnout.core.variants import Budget
from turnout.store.golden import read_labelled, read_labels
from turnout.variants import memory, verifying
from turnout.variants.progress import Progress
from turnout.variants.recipes import QuantizeError
from turnout.variants.verifying import Candidate, Check, Memory, SampleSet, Verification
from turnout_wire.tensors import Array


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user named: two revisions, and samples (None: the first one's golden samples)."""

    reference: str
    candidate: str
    samples: Path | None
    labels: Path | None
    budget: Budget
    kinds: Mapping[str, Kind]
    time_ns: int


def verify(config: Config, asked: Asked, progress: Progress) -> Verification:
    """Blocks.

    Raises:
        QuantizeError: there is nothing to tell, and why.
    """
    # Both were served already, or are to be: what they are loaded for here is no reason to load them twice.
    alone = config.model_copy(update={"preflight": "off"})
    reference = _find(config, asked.reference)
    candidate = _find(config, _completed(asked.candidate, asked.reference))
    samples = _samples(asked, reference)
    backend = new_backend(alone)
    try:
        backend.start()
        return verifying.verify(
            reference,
            candidate,
            Check(samples, asked.budget, asked.kinds, asked.time_ns),
            backend,
            time.perf_counter_ns,
            partial(_memory, alone),
            progress,
            datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
    except LoadError as error:
        raise QuantizeError(str(error)) from error


def _completed(named: str, reference: str) -> str:
    """`@int8` is a variant of the version that the reference is of."""
    return f"{reference.partition('@')[0]}{named}" if named.startswith("@") else named


def _find(config: Config, named: str) -> Candidate:
    model, slash, rest = named.partition("/")
    number, at, variant = rest.partition("@")
    version = parse_version(number)
    if not is_name(model) or not slash or version is None or (at and not variant):
        raise QuantizeError(f"'{named}' names no revision: write MODEL/VERSION or MODEL/VERSION@VARIANT")
    try:
        found, artefact = repository(config).find(model, version, variant)
    except ControlError as error:
        raise QuantizeError(f"{error.message} (--model-repository {config.model_repository})") from error
    return Candidate(artefact, found.execution)


def _samples(asked: Asked, reference: Candidate) -> SampleSet:
    try:
        inputs, labels, source = _read(asked.samples, reference)
        return SampleSet(inputs, labels if asked.labels is None else read_labels(asked.labels), source)
    except LoadError as error:
        raise QuantizeError(str(error)) from error


def _read(path: Path | None, reference: Candidate) -> tuple[Tensors, Array | None, str]:
    if path is None:
        golden = reference.artefact.golden()
        if golden is None:
            raise QuantizeError(
                f"{reference.artefact.revision} has no golden.npz: give --samples, an npz of input.NAME arrays or a "
                "folder of such"
            )
        return golden.inputs, None, "golden.npz"
    if not path.is_dir():
        return *read_labelled(path), path.name
    files = sorted(file for file in path.iterdir() if file.suffix == ".npz")
    if not files:
        raise QuantizeError(f"folder '{path}' has no .npz file: put samples there, arrays input.NAME")
    return *_joined(files), f"{path.name}/, {len(files)} files"


def _joined(files: list[Path]) -> tuple[Tensors, Array | None]:
    """Rows of all files, in the order of their names."""
    parts = [read_labelled(file) for file in files]
    for file, (inputs, labels) in zip(files, parts, strict=True):
        for name in inputs.keys() ^ parts[0][0].keys():
            raise QuantizeError(f"'{file.name}' and '{files[0].name}' differ: only one has input.{name}")
        if (labels is None) != (parts[0][1] is None):
            raise QuantizeError(f"'{file.name}' and '{files[0].name}' differ: only one has labels")
    try:
        joined = {name: np.concatenate([inputs[name] for inputs, _ in parts]) for name in parts[0][0]}
        answers = [labels for _, labels in parts if labels is not None]
        return joined, np.concatenate(answers) if answers else None
    except ValueError as error:
        raise QuantizeError(f"the files cannot be joined, pad them to one shape: {error}") from None


def _memory(config: Config, revision: Revision, inputs: Mapping[int, Tensors]) -> Memory:
    spawn = multiprocessing.get_context("spawn")
    # The one that Ctrl-C reaches is this one.
    with ProcessPoolExecutor(1, spawn, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            return pool.submit(_memory_here, config, revision, inputs).result()
        except BrokenProcessPool:
            raise QuantizeError("the process that measured it ended: it may have run out of memory") from None


def _memory_here(config: Config, revision: Revision, inputs: Mapping[int, Tensors]) -> Memory:
    found = _find(config, str(revision))
    backend = new_backend(config)
    try:
        backend.start()
        return memory.measure(partial(backend.load, found.artefact, found.execution), inputs)
    except LoadError as error:
        raise QuantizeError(str(error)) from None
