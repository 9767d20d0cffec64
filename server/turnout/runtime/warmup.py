"""Warm-up: runs a model's own samples and every batch bucket before it is READY, measures the buckets, and tests
whether it can batch.

A symbolic first dimension in the file may be a sequence length and not a batch. The test: different rows that run
together must give, row by row, what each gives alone. Data is generated, so a model may refuse it that takes what
clients send: then less is known, and nothing is held against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from turnout.core.comparators import Precision
from turnout.core.errors import LoadError
from turnout.core.model import WarmupSample, buckets
from turnout.core.tensors import ANY, Signature, TensorSpec
from turnout.runtime.assembly import InputBuffers
from turnout.runtime.ports import ClockNs, Loaded, Session
from turnout_wire.tensors import Array, DataType

# Relative to the largest element of a row's output. Batch sizes may take other kernels, which round differently; a row
# that sees its neighbours differs by far more.
_TOLERANCE = 1e-3
_TOLERANCE_HALF = 1e-2  # FP16 and BF16
# Of variants: dynamic quantization scales all rows of a batch alike, so that each is rounded by the others.
_TOLERANCES = {Precision.SINGLE: 0.0, Precision.HALF: _TOLERANCE_HALF, Precision.QUANTIZED: 5e-2}
# Few rows miss models that answer coarsely: of 12 random attention taggers with an argmax, 3 rows let 9 pass, 4 rows 2,
# and 8 rows none.
_PROBE_ROWS = 8
_STR_BYTES = 64  # what a short `str` takes in memory
_FLOATS = (DataType.FP16, DataType.BF16, DataType.FP32, DataType.FP64)

# The integers, booleans and strings of generated rows, by row number; for floats, the row number seeds noise.
_Rows = Mapping[int, int]


def warm(
    signature: Signature,
    loaded: Loaded,
    clock_ns: ClockNs,
    samples: Sequence[WarmupSample] = (),
    bytes_max: int = 1 << 28,
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Run every sample and every bucket on every session; blocks.

    Args:
        samples: the model's own data. It tells more than what is generated: what fails on it must not serve, and what
            runs on it may refuse the other. Buckets are then made of the first sample's first row.
        bytes_max: of the inputs of one run that are made here; larger buckets stay cold.

    Returns:
        The run time of each bucket in nanoseconds by rows, and warnings for an operator. The times are empty when the
        model does not take generated data: it is then served cold, but for the samples.

    Raises:
        LoadError: the model fails on a sample, naming it; or, without samples, on noise of its own fixed shapes, which
            it takes by its own word.
    """
    sessions = list({id(session): session for session in loaded.sessions}.values())
    for sample in samples:
        for session in sessions:
            _run_sample(session, signature, sample)
    sizes = [rows for rows in buckets(signature.rows_max) if _row_bytes(signature) * rows <= bytes_max]
    cold = () if len(sizes) == len(buckets(signature.rows_max)) else (_cold(sizes, bytes_max),)
    failure: Exception | None = None
    for make_row in _rows_to_try(signature, samples):
        try:
            profile = {}
            for session in sessions:
                for rows in sizes:
                    profile[rows] = _run_ns(session, signature, make_row(rows), clock_ns)
        except Exception as error:  # noqa: BLE001 - whatever a model run raises
            failure = error
        else:
            return profile, cold
    if samples:
        return {}, ("warmed with its samples only: it does not take their rows repeated",)
    if _takes_any_data(signature):
        raise LoadError("the model fails to run on noise of its own input shapes") from failure
    return {}, ("not warmed: it does not take generated data; first requests will be slow",)


def _rows_to_try(signature: Signature, samples: Sequence[WarmupSample]) -> Iterator[Callable[[int], dict[str, Array]]]:
    """Inputs of so many rows: generated ones, then those of a sample."""
    for integer in (0, 1):  # an index of 1 may be out of range, a divisor of 0 is
        yield partial(_equal_rows, signature, integer)
    for sample in samples[:1]:
        first = InputBuffers(signature).assemble([sample.inputs])
        yield partial(_repeated, first, signature.rows_max > 0)


def _equal_rows(signature: Signature, integer: int, rows: int) -> dict[str, Array]:
    return _inputs(signature, dict.fromkeys(range(rows), integer))


def _repeated(inputs: Mapping[str, Array], batched: bool, rows: int) -> dict[str, Array]:
    return {name: np.repeat(array[:1], rows, axis=0) if batched else array for name, array in inputs.items()}


def _cold(sizes: Sequence[int], bytes_max: int) -> str:
    warm_rows = max(sizes, default=0)
    return (
        f"warmed up to {warm_rows} rows: inputs of larger batches take more than {bytes_max} bytes (--warmup-bytes-max)"
    )


def _row_bytes(signature: Signature) -> int:
    """What one generated row takes; open dimensions are 1."""
    skip = 1 if signature.rows_max else 0
    return sum(
        prod(dim for dim in spec.shape[skip:] if dim != ANY) * (spec.datatype.itemsize or _STR_BYTES)
        for spec in signature.inputs
        if not spec.optional
    )


def _run_sample(session: Session, signature: Signature, sample: WarmupSample) -> None:
    inputs = InputBuffers(signature).assemble([sample.inputs])
    for _ in range(sample.count):
        try:
            session.run(inputs, signature.output_names)
        except Exception as error:
            raise LoadError(f"the model fails to run on its {sample.name}") from error


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why rows of different requests should not share a run of a model."""

    why: str
    impossible: bool = False  # rows cannot run together at all; otherwise an operator may know better


def doubt_batching(
    signature: Signature,
    session: Session,
    inferred: bool,
    bytes_max: int = 1 << 28,
    precision: Precision = Precision.SINGLE,
) -> Doubt | None:
    """Try to show that a model treats its rows one by one; blocks. None: nothing speaks against it.

    Args:
        inferred: `rows_max` is the server's choice, so the model itself should take more rows than that too.
        bytes_max: of the inputs of one run that are made here.
        precision: of the model's numbers, whatever their datatype.
    """
    if signature.rows_max <= 1:
        return None
    count = _PROBE_ROWS if inferred else min(_PROBE_ROWS, signature.rows_max)
    if _row_bytes(signature) * count > bytes_max:
        return Doubt(f"{count} rows take more than {bytes_max} bytes (--warmup-bytes-max): too large to be tested")
    for integers in _fillings(count):
        try:
            doubt = _probe(signature, session, integers, precision)
        except Exception:  # noqa: BLE001, S112 - whatever a model run raises: the next filling may suit it
            continue
        differ = len(set(integers)) > 1 or any(spec.datatype in _FLOATS for spec in signature.inputs)
        return doubt if doubt is not None or differ else Doubt("it takes no generated data in which rows differ")
    if any(_runs(signature, session, {0: integer}) for integer in (0, 1)):
        return Doubt(f"it runs one row and fails to run {count} together", impossible=True)
    return Doubt("it does not take generated data")


def _fillings(count: int) -> Iterator[Sequence[int]]:
    """The more rows differ, the more a probe shows; the smaller the numbers, the more models take them."""
    yield range(count)
    yield [(row + 1) % 2 for row in range(count)]
    yield [0] * count
    yield [1] * count


def _probe(signature: Signature, session: Session, integers: Sequence[int], precision: Precision) -> Doubt | None:
    names = signature.output_names
    count = len(integers)
    alone = [session.run(_inputs(signature, {row: integers[row]}), names) for row in range(count)]
    together = session.run(_inputs(signature, dict(enumerate(integers))), names)
    for index, (name, array) in enumerate(zip(names, together, strict=True)):
        for outputs, rows in ((alone[0][index], 1), (array, count)):
            if outputs.ndim == 0 or outputs.shape[0] != rows:
                return Doubt(f"output '{name}' has shape {list(outputs.shape)} for {rows} row(s)", impossible=True)
        for row in range(count):
            if not _agrees(
                alone[row][index][0, ...], array[row, ...], precision
            ):  # arrays also where a row is one element
                return Doubt(f"output '{name}' of a row changes when {count} rows run together")
    return None


def _agrees(left: Array, right: Array, precision: Precision) -> bool:
    if left.shape != right.shape:
        return False
    if left.dtype.kind not in "fV":  # V: bfloat16
        # The label of generated noise says little of a quantized model.
        return precision is Precision.QUANTIZED or bool(np.array_equal(left, right))
    tolerance = max(_TOLERANCE if left.dtype.itemsize > 2 else _TOLERANCE_HALF, _TOLERANCES[precision])
    one, other = np.asarray(left, "f8"), np.asarray(right, "f8")
    finite = np.isfinite(one) & np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return False
    scale = max(np.abs(one[finite]).max(initial=0), np.abs(other[finite]).max(initial=0))
    return bool(np.abs(one[finite] - other[finite]).max(initial=0) <= tolerance * scale)


def _runs(signature: Signature, session: Session, rows: _Rows) -> bool:
    try:
        session.run(_inputs(signature, rows), signature.output_names)
    except Exception:  # noqa: BLE001 - whatever a model run raises
        return False
    return True


def _run_ns(session: Session, signature: Signature, inputs: Mapping[str, Array], clock_ns: ClockNs) -> int:
    """The second run's time: the first one allocates and, on some devices, tunes."""
    session.run(inputs, signature.output_names)
    started_ns = clock_ns()
    session.run(inputs, signature.output_names)
    return clock_ns() - started_ns


def _inputs(signature: Signature, rows: _Rows) -> dict[str, Array]:
    """Without the optional ones: for those the model has its own data."""
    return {spec.name: _generate(spec, signature.rows_max > 0, rows) for spec in signature.inputs if not spec.optional}


def _generate(spec: TensorSpec, batched: bool, rows: _Rows) -> Array:
    """One tensor of generated rows. Open dimensions become 1. Every second row of noise is three times as wide."""
    shape = spec.shape if spec.model_shape is None else spec.model_shape
    tail = tuple(1 if dim == ANY else dim for dim in (shape[1:] if batched else shape))
    array = np.empty((len(rows), *tail), spec.datatype.dtype)
    for place, (row, integer) in enumerate(rows.items()):
        if spec.datatype in _FLOATS:
            array[place] = np.random.default_rng(row).normal(scale=1 + 2 * (row % 2), size=tail)
        else:
            array[place] = str(integer) if spec.datatype is DataType.BYTES else integer
    return array if batched else array[0, ...]


def _takes_any_data(signature: Signature) -> bool:
    """Whether the declared inputs leave nothing to guess: floats of fixed shapes."""
    skip = 1 if signature.rows_max else 0
    required = [spec for spec in signature.inputs if not spec.optional]
    return all(spec.datatype in _FLOATS and ANY not in spec.shape[skip:] for spec in required)
