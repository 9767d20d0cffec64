"""Networks with seeded random weights, for load tests and tests: right shapes and costs, meaningless answers.

Needs onnx and numpy.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from zoo import bert
from zoo.bert import Bert
from zoo.parts import Layer, dense, model, tensor
from zoo.resnet import resnet

NETWORKS: dict[str, tuple[int, ...]] = {
    "mlp_small": (784, 128, 10),  # 0.4 MB: the server's own overhead dominates
    "mlp_big": (784, 4096, 4096, 10),  # 80 MB: the arithmetic dominates, and batching pays
}

BERT = "bert_base"
BERT_CLASSES = 2
TOKENS = 128  # of its random inputs; any number up to 512 will do

IMAGE_SHAPE = (3, 224, 224)  # 602,112 bytes of FP32: what copies cost dominates
IMAGE_OUTPUTS = 10
IMAGE = "image_small"

CONFIG = """\
# Random weights, for load tests. Inputs and outputs are read from the model itself.
max_batch_size: 32
"""


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


def bert_base() -> onnx.ModelProto:
    """BERT base with a classifier of BERT_CLASSES; see `zoo.bert`."""
    size = Bert()
    return bert.classifier(size, bert.seeded(size, BERT_CLASSES))


def inputs(name: str, rows: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Random inputs of a network: noise for images, pixels and features from 0 to 1, tokens of TOKENS with padding."""
    rng = np.random.default_rng(seed)
    if name == BERT:
        lengths = rng.integers(TOKENS // 4, TOKENS + 1, rows)
        mask = (np.arange(TOKENS) < lengths[:, None]).astype(np.int64)
        ids = rng.integers(1000, Bert().vocabulary, (rows, TOKENS)) * mask
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
    if name in NETWORKS:
        return {"x": rng.random((rows, NETWORKS[name][0]), np.float32)}
    return {"x": rng.standard_normal((rows, *IMAGE_SHAPE), np.float32)}


def write(name: str, out: Path) -> Path:
    """Writes the network `name`, of ALL, into the Triton-layout repository `out`; returns its folder."""
    folder = out / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    onnx.save(ALL[name][0](), folder / "1" / "model.onnx")
    return folder


ALL: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "mlp_small": (lambda: mlp(NETWORKS["mlp_small"]), "0.4 MB, dense: the server's own overhead dominates"),
    "mlp_big": (lambda: mlp(NETWORKS["mlp_big"]), "80 MB, dense: the arithmetic dominates, and batching pays"),
    IMAGE: (image, "602 kB an input, next to no arithmetic: what copies cost dominates"),
    "resnet50": (resnet, "102 MB, the shape of ResNet-50: images, convolutions"),
    BERT: (bert_base, "438 MB, the shape of BERT base: tokens, matrix products"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zoo.networks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ALL))
    parser.add_argument("--out", type=Path, help="the model repository to write into")
    parser.add_argument("--list", action="store_true", help="say what there is, and write nothing")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in ALL]:
        parser.error(f"there is no '{unknown[0]}', there are {', '.join(ALL)}")
    if arguments.list:
        print("\n".join(f"{name:<12} {what}" for name, (_, what) in ALL.items()))
    elif not arguments.names or arguments.out is None:
        parser.error("give one NAME or more and --out, or --list")
    for name in arguments.names:
        print(write(name, arguments.out))


if __name__ == "__main__":
    main()
