"""A stand-in for a model: computes y = x + x (or a copy), takes a given time, and fails on demand.

For the simulation, tests and benchmarks of the server itself. It is not reachable from a model repository.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from turnout.core.errors import LoadError
from turnout.core.model import Artefact, Execution
from turnout.core.tensors import Signature, Tensors
from turnout.runtime.ports import Loaded
from turnout_wire.tensors import Array, DataType

_COPIED = (DataType.BOOL, DataType.BYTES, DataType.BF16)  # what ONNX Runtime has no Add for on the CPU


@dataclass
class SyntheticModel:
    """What a synthetic model does. The i-th output answers the i-th input.

    Attributes:
        declared: full shapes, first dimension -1.
        wait: called with the rows of a run before it computes; give it a delay, or a virtual clock's.
        poison: a run that holds this value anywhere fails; None: never.
        load_error: the reason why loading fails; "": it does not.
        runs: rows of each run so far.
        reuse_outputs: break invariant 13 on purpose: every run answers in the same buffer. Shows that tests see it.
    """

    declared: Signature
    wait: Callable[[int], None] = lambda rows: None
    poison: float | None = None
    load_error: str = ""
    reuse_outputs: bool = False
    runs: list[int] = field(default_factory=list)
    _buffers: dict[str, Array] = field(default_factory=dict)

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        first = inputs[self.declared.inputs[0].name]
        rows = len(first) if first.ndim else 1
        self.runs.append(rows)
        self.wait(rows)
        if self.poison is not None and any((array == self.poison).any() for array in inputs.values()):
            raise RuntimeError(f"poison {self.poison} in a batch of {rows}")
        answers = {}
        for given, spec in zip(self.declared.inputs, self.declared.outputs, strict=True):
            x = inputs[given.name]
            y = x.copy() if given.datatype in _COPIED else x + x
            answers[spec.name] = self._in_buffer(spec.name, y) if self.reuse_outputs else y
        return [answers[name] for name in outputs]

    def _in_buffer(self, name: str, y: Array) -> Array:
        buffer = self._buffers.setdefault(name, np.zeros((1024, *y.shape[1:]), y.dtype))
        buffer[: len(y)] = y
        return buffer[: len(y)]


class Model(Protocol):
    """What the backend can load: a SyntheticModel, or a test's own with the same face."""

    @property
    def declared(self) -> Signature: ...
    @property
    def load_error(self) -> str: ...
    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]: ...


class SyntheticBackend:
    """Loads the models that it was given, by revision (`m/2`), else by name."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models

    def load(self, artefact: Artefact, execution: Execution) -> Loaded:
        model = self._models.get(str(artefact.revision)) or self._models[artefact.revision.model]
        if model.load_error:
            raise LoadError(model.load_error)
        return Loaded(model.declared, (model,) * execution.instances, ("synthetic",))
