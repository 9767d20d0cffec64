"""Networks with seeded random weights, for load tests and tests: right shapes and costs, meaningless answers.

Also the few ONNX building blocks that `zoo.digits` exports its trained models with. Needs onnx and numpy.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # the one that belongs to opset 17, so that any runtime with this opset accepts the file

NETWORKS: dict[str, tuple[int, ...]] = {
    "mlp_small": (784, 128, 10),  # 0.4 MB: the server's own overhead dominates
    "mlp_big": (784, 4096, 4096, 10),  # 80 MB: the arithmetic dominates, and batching pays
}

IMAGE_SHAPE = (3, 224, 224)  # 602,112 bytes of FP32: what copies cost dominates
IMAGE_OUTPUTS = 10
IMAGE = "image_small"

CONFIG = """\
# Random weights, for load tests. Inputs and outputs are read from the model itself.
max_batch_size: 32
"""


@dataclass(frozen=True, slots=True)
class Layer:
    """One dense layer, y = x @ weights + bias: weights [inputs, outputs], bias [outputs]."""

    weights: NDArray[np.floating]
    bias: NDArray[np.floating]


def mlp(sizes: Sequence[int], seed: int = 0) -> onnx.ModelProto:
    """Dense layers with Relu between: input `x` FP32 [batch, sizes[0]], output `y` FP32 [batch, sizes[-1]].

    The weights are normal with variance 2 / inputs, so that signals keep their size through any depth
    (He et al. 2015, https://arxiv.org/abs/1502.01852). The same arguments give the same bytes.
    Raises ValueError for fewer than two sizes.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes {list(sizes)} name no layer: give at least an input and an output width")
    rng = np.random.default_rng(seed)
    layers = [
        Layer(
            rng.standard_normal((inputs, outputs), dtype=np.float32) * np.float32(np.sqrt(2 / inputs)),
            0.01 * rng.standard_normal(outputs, dtype=np.float32),
        )
        for inputs, outputs in pairwise(sizes)
    ]
    nodes, weights = dense(layers, "x", "y")
    return model(
        nodes,
        weights,
        inputs=[tensor("x", np.float32, "batch", sizes[0])],
        outputs=[tensor("y", np.float32, "batch", sizes[-1])],
        name="mlp",
    )


def image(seed: int = 0) -> onnx.ModelProto:
    """Next to no arithmetic on a large input: the mean of each colour, and one dense layer over those three.

    Input `x` FP32 [batch, 3, 224, 224], output `y` FP32 [batch, 10]. Every element has its part in the answer.
    """
    rng = np.random.default_rng(seed)
    colours = IMAGE_SHAPE[0]
    layer = Layer(
        rng.standard_normal((colours, IMAGE_OUTPUTS), dtype=np.float32),
        rng.standard_normal(IMAGE_OUTPUTS, dtype=np.float32),
    )
    nodes, weights = dense([layer], "means", "y")
    return model(
        [helper.make_node("ReduceMean", ["x"], ["means"], axes=[2, 3], keepdims=0), *nodes],
        weights,
        inputs=[tensor("x", np.float32, "batch", *IMAGE_SHAPE)],
        outputs=[tensor("y", np.float32, "batch", IMAGE_OUTPUTS)],
        name="image",
    )


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


def write(name: str, out: Path) -> Path:
    """Writes the network `name`, of NETWORKS or IMAGE, into the Triton-layout repository `out`; returns its folder."""
    folder = out / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    onnx.save(image() if name == IMAGE else mlp(NETWORKS[name]), folder / "1" / "model.onnx")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zoo.networks", description=__doc__)
    names = (*NETWORKS, IMAGE)
    parser.add_argument("names", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--out", type=Path, required=True, help="the model repository to write into")
    arguments = parser.parse_args()
    for name in arguments.names:
        print(write(name, arguments.out))


if __name__ == "__main__":
    main()
