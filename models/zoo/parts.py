"""The ONNX building blocks that all networks of the zoo are made of. Needs onnx and numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # the one that belongs to opset 17, so that any runtime with this opset accepts the file


@dataclass(frozen=True, slots=True)
class Layer:
    """One dense layer, y = x @ weights + bias: weights [inputs, outputs], bias [outputs]."""

    weights: NDArray[np.floating]
    bias: NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes and weights as they are added, in order. Every node is named by its first output."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Adds a node with one output; returns the output's name."""
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def weight(self, name: str, array: NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def dense(self, layers: Sequence[Layer], source: str, target: str) -> str:
        """`layers` in a row, with Relu between, from tensor `source` to `target`."""
        nodes, weights = dense(layers, source, target)
        self.nodes.extend(nodes)
        self.weights.extend(weights)
        return target

    def model(
        self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto], name: str
    ) -> onnx.ModelProto:
        return model(self.nodes, self.weights, inputs=inputs, outputs=outputs, name=name)


def dense(layers: Sequence[Layer], source: str, target: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes and weights of `layers` in a row, with Relu between, from tensor `source` to `target`."""
    nodes, weights = [], []
    for number, layer in enumerate(layers):
        last = number == len(layers) - 1
        names = f"weights_{number}", f"bias_{number}"
        weights += [
            numpy_helper.from_array(array.astype(np.float32), name)
            for array, name in zip((layer.weights, layer.bias), names, strict=True)
        ]
        summed = target if last else f"sum_{number}"
        nodes.append(helper.make_node("Gemm", [source, *names], [summed]))
        if not last:
            source = f"active_{number}"
            nodes.append(helper.make_node("Relu", [summed], [source]))
    return nodes, weights


def tensor(name: str, dtype: type[np.generic], *shape: int | str) -> onnx.ValueInfoProto:
    """The declaration of an input or output; a dimension given by name is symbolic."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def scalar(name: str, value: float) -> onnx.TensorProto:
    """A FP32 constant."""
    return helper.make_tensor(name, TensorProto.FLOAT, [], [value])


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto],
    *,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    name: str,
) -> onnx.ModelProto:
    """A complete model, checked together with its inferred shapes."""
    proto = helper.make_model(
        helper.make_graph(nodes, name, inputs, outputs, initializer=weights),
        producer_name="turnout-zoo",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto
