"""Residual networks of the shape of ResNet-50 (He et al. 2015, https://arxiv.org/abs/1512.03385) with seeded weights.

Batch normalisation is folded into the convolutions, as it is where models are served.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from zoo.parts import Graph, Layer, tensor

EXPANSION = 4  # a block's last convolution has so many times the channels of its others
# How much of a block's own answer is added to what went in. With 1 the signals grow with each of the 16 blocks.
_RESIDUAL_GAIN = 0.2


@dataclass(frozen=True, slots=True)
class Resnet:
    """The size of a network; by default ResNet-50's: 25.5 million weights, 4.1 billion multiplications an image."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64  # channels of the first stage; each stage has twice those of the one before
    side: int = 224  # pixels
    classes: int = 1000

    @property
    def features(self) -> int:
        """What the last, dense layer sees."""
        return int(self.width * 2 ** (len(self.blocks) - 1) * EXPANSION)


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution: weights [outputs, inputs, k, k], their stride, and what they are scaled by."""

    name: str
    shape: tuple[int, int, int, int]
    stride: int = 1
    gain: float = 1.0


def convolutions(size: Resnet) -> Iterator[Convolution]:
    """All convolutions, from input to output; a stage's first block has one more, the `_shortcut`, before its three."""
    channels = size.width
    yield Convolution("stem", (channels, 3, 7, 7), 2)
    for stage, blocks in enumerate(size.blocks):
        inner = size.width * 2**stage
        for block in range(blocks):
            name = f"stage{stage + 1}_block{block + 1}"
            stride = 2 if stage and not block else 1
            if not block:
                yield Convolution(f"{name}_shortcut", (inner * EXPANSION, channels, 1, 1), stride)
            yield Convolution(f"{name}_reduce", (inner, channels, 1, 1))
            yield Convolution(f"{name}_spatial", (inner, inner, 3, 3), stride)
            yield Convolution(f"{name}_expand", (inner * EXPANSION, inner, 1, 1), gain=_RESIDUAL_GAIN)
            channels = inner * EXPANSION


def resnet(size: Resnet = Resnet(), seed: int = 0) -> onnx.ModelProto:
    """Input `x` FP32 [batch, 3, side, side], output `y` FP32 [batch, classes]. Equal arguments give equal bytes.

    The weights are normal with variance 2 / inputs (He et al. 2015, https://arxiv.org/abs/1502.01852).
    """
    rng = np.random.default_rng(seed)
    graph = Graph()
    rest = convolutions(size)
    signal = _active(graph, _convolve(graph, next(rest), "x", rng))
    signal = kept = graph.node("MaxPool", [signal], "pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for each in rest:
        if each.name.endswith("_shortcut"):
            kept = _convolve(graph, each, signal, rng)
        elif each.name.endswith("_expand"):
            answer = _convolve(graph, each, signal, rng)
            added = graph.node("Add", [answer, kept], each.name.replace("_expand", "_added"))
            signal = kept = _active(graph, added)
        else:
            signal = _active(graph, _convolve(graph, each, signal, rng))
    graph.node("GlobalAveragePool", [signal], "means")
    graph.node("Flatten", ["means"], "features")
    graph.dense([_head(size, rng)], "features", "y")
    return graph.model(
        inputs=[tensor("x", np.float32, "batch", 3, size.side, size.side)],
        outputs=[tensor("y", np.float32, "batch", size.classes)],
        name="resnet",
    )


def _convolve(graph: Graph, each: Convolution, source: str, rng: np.random.Generator) -> str:
    outputs, inputs, kernel, _ = each.shape
    deviation = np.float32(each.gain * np.sqrt(2 / (inputs * kernel**2)))
    weights = graph.weight(f"{each.name}_weights", rng.standard_normal(each.shape, np.float32) * deviation)
    bias = graph.weight(f"{each.name}_bias", np.float32(0.01) * rng.standard_normal(outputs, np.float32))
    return graph.node(
        "Conv",
        [source, weights, bias],
        each.name,
        kernel_shape=[kernel] * 2,
        strides=[each.stride] * 2,
        pads=[kernel // 2] * 4,
    )


def _active(graph: Graph, source: str) -> str:
    return graph.node("Relu", [source], f"{source}_active")


def _head(size: Resnet, rng: np.random.Generator) -> Layer:
    shape = size.features, size.classes
    return Layer(
        rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / size.features)),
        np.float32(0.01) * rng.standard_normal(size.classes, np.float32),
    )
