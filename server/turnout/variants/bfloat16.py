"""Makes a half-precision model one of bfloat16: ONNX Runtime's converter knows float16 alone, where to put its casts,
and which nodes to leave; the dtype is all that differs."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from turnout_wire.tensors import Array


def to_bfloat16(half: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Change `half` in place; weights are taken from `original` where they have the same name, because bfloat16 holds
    what float16 had to cut."""
    weights = {each.name: numpy_helper.to_array(each) for each in original.graph.initializer}
    _graph(half.graph, weights)


def _graph(graph: onnx.GraphProto, weights: Mapping[str, Array]) -> None:
    for tensor in graph.initializer:
        _tensor(tensor, weights.get(tensor.name))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
            if attribute.HasField("t"):
                _tensor(attribute.t, None)
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _graph(inner, weights)


def _tensor(tensor: onnx.TensorProto, original: Array | None) -> None:
    if tensor.data_type != TensorProto.FLOAT16:
        return
    values = numpy_helper.to_array(tensor)
    if original is not None and original.shape == values.shape:
        values = original
    rounded = np.asarray(values, "f4").astype(ml_dtypes.bfloat16)
    tensor.CopyFrom(
        onnx.helper.make_tensor(tensor.name, TensorProto.BFLOAT16, list(values.shape), rounded.tobytes(), raw=True)
    )
