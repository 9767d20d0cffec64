"""Rows in, rows out: lays the requests of a batch one behind the other, and cuts the outputs back into shares.

Each row is copied once, into a buffer that the next batch of the same executor uses again; a batch of one request is
not copied at all. Outputs are never copied: a share is a view of what the run returned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.tensors import ANY, Signature, Tensors, TensorSpec
from turnout_wire.tensors import Array, DataType

# A larger batch is not worth keeping memory for: clients choose the sizes of open dimensions, and one burst would stay.
_KEPT_BYTES_MAX = 16 << 20


class InputBuffers:
    """The batch buffers of one executor: one per input, made anew when the non-batch shape changes or rows grow.

    Args:
        padded_rows: sizes up to which batches are filled, in order; none: they run as they are.
    """

    def __init__(self, signature: Signature, padded_rows: Sequence[int] = ()) -> None:
        self._signature = signature
        self._padded_rows = tuple(padded_rows)
        self._buffers: dict[str, Array] = {}

    def padding(self, rows: int) -> int:
        """How many rows fill a batch of `rows` up."""
        return next((size for size in self._padded_rows if size >= rows), rows) - rows

    def assemble(self, requests: Sequence[Tensors], padding: int = 0) -> dict[str, Array]:
        """The arrays to run: inputs of equal non-batch shape, stacked along the first dimension in order. An optional
        input is in all of the requests or in none. Padding repeats the last row: a row that the model takes, and
        nobody else's."""
        inputs = {}
        for spec in self._signature.inputs:
            if spec.name not in requests[0]:
                continue
            parts = [request[spec.name] for request in requests]
            if padding:
                parts.append(np.repeat(parts[-1][-1:], padding, axis=0))
            array = parts[0] if len(parts) == 1 else self._stack(spec, parts)
            if spec.model_shape is not None:
                array = array.reshape(_fitted(spec.model_shape, spec.shape, array))
            inputs[spec.name] = array
        return inputs

    def _stack(self, spec: TensorSpec, parts: Sequence[Array]) -> Array:
        if spec.datatype is DataType.BYTES:
            return np.concatenate(parts)  # a buffer would keep the strings of earlier batches alive
        tail = parts[0].shape[1:]
        rows = sum(map(len, parts))
        if rows * parts[0][0].nbytes > _KEPT_BYTES_MAX:
            return np.concatenate(parts)
        buffer = self._buffers.get(spec.name)
        if buffer is None or buffer.shape[1:] != tail or len(buffer) < rows:
            buffer = np.empty((min(1 << (rows - 1).bit_length(), self._signature.rows_max), *tail), spec.datatype.dtype)
            self._buffers[spec.name] = buffer
        row = 0
        for part in parts:
            buffer[row : row + len(part)] = part
            row += len(part)
        return buffer[:row]


def split(signature: Signature, arrays: Tensors, rows: Sequence[int], padding: int = 0) -> list[dict[str, Array]]:
    """Each request's share of the outputs, as views; the last `padding` rows are nobody's.

    Raises:
        ValueError: an output does not follow the batch; its model must not be batched.
    """
    shaped = {}
    total = sum(rows) + padding
    for spec in signature.outputs:
        array = arrays.get(spec.name)
        if array is None:
            continue
        if signature.rows_max and (array.ndim == 0 or array.shape[0] != total):
            raise ValueError(f"output '{spec.name}' has shape {list(array.shape)} for a batch of {total} rows")
        if spec.model_shape is not None:
            array = array.reshape(_fitted(spec.shape, spec.model_shape, array))
        shaped[spec.name] = array
    if len(rows) == 1 and not padding:
        return [shaped]
    shares = []
    row = 0
    for count in rows:
        shares.append({name: array[row : row + count] for name, array in shaped.items()})
        row += count
    return shares


def _fitted(wanted: tuple[int, ...], given: tuple[int, ...], array: Array) -> tuple[int, ...]:
    """The shape `wanted` for an array of shape `given`: the dimensions that both leave open are the same ones, in the
    same order; the batch is the first of them. A model may answer with another rank than it declares: then numpy
    decides whether the elements fit."""
    sizes = iter([size for dim, size in zip(given, array.shape, strict=False) if dim == ANY])
    return tuple(next(sizes, ANY) if dim == ANY else dim for dim in wanted)
