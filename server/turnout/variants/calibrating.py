"""Samples: checked against what the model takes, and divided into those that calibrate and those that are judged by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from turnout.core.tensors import ANY, Signature, Tensors, TensorSpec
from turnout.variants.recipes import QuantizeError
from turnout_wire.tensors import Array

BATCH_ROWS = 32  # of calibration and of parity runs, where the model leaves the batch open
# Half of them calibrates: with fewer, ranges are missed, and one row more or less decides the agreement.
SPLIT_ROWS_MIN = 32


@dataclass(frozen=True, slots=True)
class Rows:
    """Inputs by name, as the model itself takes them.

    Attributes:
        batch: rows of one run; None: they are one run as they are.
        fixed: the model takes runs of no other size.
        source: where they are from.
        labels: the right answers, one for each row; None: they are not known.
    """

    inputs: Tensors
    count: int
    batch: int | None
    fixed: bool
    source: str
    labels: Array | None = None

    def runs(self) -> Iterator[Tensors]:
        if self.batch is None:
            yield self.inputs
            return
        for start in range(0, self.count, self.batch):
            yield {n: np.ascontiguousarray(array[start : start + self.batch]) for n, array in self.inputs.items()}

    def part(self, start: int, what: str) -> Rows:
        """Every other row, from the first or from the second on."""
        taken = slice(start, None, 2)
        return replace(self._taken(taken), count=len(range(start, self.count, 2)), source=f"{self.source}, {what}")

    def first(self, count: int) -> Rows:
        """At most so many, in whole runs."""
        if self.batch is None or count >= self.count:
            return self
        count = max(count // self.batch, 1) * self.batch if self.fixed else count
        return replace(self._taken(slice(count)), count=count)

    def even(self) -> Rows:
        """Runs of one size alone, as ONNX Runtime's histograms of activations need; what is left over goes."""
        if self.batch is None or self.count < self.batch:
            return self
        return self.first(self.count // self.batch * self.batch)

    def apart(self, other: Rows) -> bool:
        """Whether no row of one is among those of the other, whatever their files are called."""
        return self._digests().isdisjoint(other._digests())

    def same(self, other: Rows) -> bool:
        """Whether both have the same rows: one file, or a copy of it."""
        return self._digests() == other._digests()

    def _digests(self) -> set[bytes]:
        arrays = [self.inputs[name] for name in sorted(self.inputs)]
        if self.batch is None:
            return {_digest(arrays)}
        return {_digest([array[row] for array in arrays]) for row in range(self.count)}

    def _taken(self, rows: slice) -> Rows:
        inputs = {name: array[rows] for name, array in self.inputs.items()}
        return replace(self, inputs=inputs, labels=None if self.labels is None else self.labels[rows])


def check(inputs: Tensors, declared: Signature, source: str, labels: Array | None = None) -> Rows:
    """Raises:
    QuantizeError: an input is missing, unknown, of another dtype or shape, or has other rows; so have the labels.
    """
    specs = {spec.name: spec for spec in declared.inputs}
    takes = ", ".join(f"'{spec.name}'" for spec in declared.inputs if not spec.optional)
    for name in inputs:
        if name not in specs:
            raise QuantizeError(f"{source}: the model has no input '{name}', it takes {takes}: rename input.{name}")
    for spec in declared.inputs:
        if spec.name in inputs:
            _check_one(spec, inputs, source)
        elif not spec.optional:
            raise QuantizeError(f"{source}: there is no input.{spec.name}, the model takes {takes}: add it")
    rows = _rows(inputs, specs, source)
    if labels is None:
        return rows
    if labels.size != rows.count or len(labels) != rows.count:
        raise QuantizeError(
            f"{source}: there are labels of shape {list(labels.shape)} for {rows.count} rows: give one for each"
        )
    return replace(rows, labels=labels.ravel())


def divide(rows: Rows) -> tuple[Rows, Rows]:
    """Those that calibrate and those that are judged by: every other one, or all for both where they are few."""
    step = 2 * rows.batch if rows.fixed and rows.batch else 1
    if rows.batch is None or rows.count < SPLIT_ROWS_MIN or rows.count % step:
        return rows, rows
    return rows.part(0, "even rows"), rows.part(1, "odd rows")


def _digest(arrays: Sequence[Array]) -> bytes:
    total = hashlib.sha256()
    for array in map(np.asarray, arrays):
        # Of strings, an array has but where they are.
        content = repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes()
        total.update(b"%d\0%s" % (len(content), content))
    return total.digest()


def _check_one(spec: TensorSpec, inputs: Tensors, source: str) -> None:
    array = inputs[spec.name]
    if array.dtype != spec.datatype.dtype:
        raise QuantizeError(
            f"{source}: input.{spec.name} is of {array.dtype}, the model takes {spec.datatype.value}: convert it"
        )
    open_batch = len(spec.shape) > 0 and array.ndim > 0 and (spec.shape[0] == ANY or len(array) % spec.shape[0] == 0)
    if not spec.admits(array.shape) and not (open_batch and spec.admits((spec.shape[0], *array.shape[1:]))):
        raise QuantizeError(
            f"{source}: input.{spec.name} has shape {list(array.shape)}, the model takes {list(spec.shape)} "
            f"({ANY}: any size), rows first"
        )


def _rows(inputs: Tensors, specs: dict[str, TensorSpec], source: str) -> Rows:
    counts = {len(array) if array.ndim else 1 for array in inputs.values()}
    firsts = {specs[name].shape[0] if specs[name].shape else None for name in inputs}
    if 0 in counts:
        raise QuantizeError(f"{source}: it has no rows")
    if len(counts) != 1 or len(firsts) != 1 or None in firsts:
        return Rows(inputs, max(counts), None, False, source)
    count, first = counts.pop(), firsts.pop()
    return Rows(inputs, count, BATCH_ROWS if first == ANY else first, first != ANY, source)
