"""`digits_cnn`: a small convolutional network for the digits, so that there is one with real accuracy to quantize.

Two convolutions with seeded random filters, whose thresholds are set from the training images, and a last layer that is
fitted (random features: Rahimi and Recht 2007). Trained on what `zoo.digits` trains on, tested on what it is tested on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from zoo import digits
from zoo.parts import Graph, Layer, scalar, tensor
from zoo.samples import EXTRA, PIXEL_MAX, SIDE, augment

NAME = "digits_cnn"
FOLDER = EXTRA / NAME
CHANNELS = (32, 64)
COPIES = 8  # of each training image
# The share of a filter's answers that its threshold leaves at 0.
_QUIET = (0.5, 0.7)
_THRESHOLD_ROWS = 2000

CONFIG = """\
# Handwritten digits by a small convolutional network. Inputs and outputs are read from the model itself.
max_batch_size: 32
"""

Filters = list[tuple[NDArray[np.float32], NDArray[np.float32]]]  # of each convolution: weights, thresholds


def build(folder: Path = FOLDER) -> None:
    """Fits and writes the Triton-layout model `folder`: half a minute on one core."""
    data = digits.split()
    images = augment(np.tile(data.train_images, (COPIES, 1)), np.random.default_rng(COPIES))
    proto = fit(images, np.tile(data.train_labels, COPIES))
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    onnx.save(proto, folder / "1" / "model.onnx")
    golden_images = augment(data.heldout_images[: digits.GOLDEN_ROWS], np.random.default_rng(digits.GOLDEN_SEED))
    probabilities, label = digits.answer(folder / "1", golden_images)
    tensors: dict[str, NDArray[Any]] = {
        "input.image": golden_images,
        "output.probabilities": probabilities,
        "output.label": label,
    }
    np.savez_compressed(folder / "1" / "golden.npz", allow_pickle=False, **tensors)


def fit(
    images: NDArray[np.float32], labels: NDArray[np.int64], channels: tuple[int, int] = CHANNELS, seed: int = 0
) -> onnx.ModelProto:
    """`image` FP32 [batch, 64] in 0..16 -> `probabilities` FP32 [batch, 10] and `label` INT64 [batch]."""
    filters = _filters(images[:_THRESHOLD_ROWS], channels, seed)
    seen = _run(_features(filters)[0], images)
    classifier = LogisticRegression(C=0.02, tol=1e-3, max_iter=50).fit(seen, labels)
    return _export(filters, Layer(classifier.coef_.T, classifier.intercept_))


def _filters(images: NDArray[np.float32], channels: tuple[int, int], seed: int) -> Filters:
    rng = np.random.default_rng(seed)
    filters: Filters = []
    inputs = 1
    for outputs, quiet in zip(channels, _QUIET, strict=True):
        weights = rng.standard_normal((outputs, inputs, 3, 3), np.float32) * np.float32(np.sqrt(2 / (inputs * 9)))
        graph, last = _features([*filters, (weights, np.zeros(outputs, np.float32))])
        answers = _run(graph, images, last)
        scale = answers.std(axis=(0, 2, 3)) + np.float32(1e-6)
        thresholds = np.quantile(answers, quiet, axis=(0, 2, 3)) / scale
        filters.append((weights / scale[:, None, None, None], -thresholds.astype(np.float32)))
        inputs = outputs
    return filters


def _features(filters: Filters) -> tuple[Graph, str]:
    """The graph up to `features`, and the name of its last convolution's answer."""
    graph = Graph()
    graph.weights.append(scalar("scale", 1 / PIXEL_MAX))
    shape = graph.weight("image_shape", np.array([0, 1, SIDE, SIDE], np.int64))
    scaled = graph.node("Mul", ["image", "scale"], "scaled")
    signal = graph.node("Reshape", [scaled, shape], "picture")
    last = signal
    for number, (weights, thresholds) in enumerate(filters, 1):
        terms = [graph.weight(f"filters_{number}", weights), graph.weight(f"thresholds_{number}", thresholds)]
        last = graph.node("Conv", [signal, *terms], f"conv_{number}", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        signal = graph.node("Relu", [last], f"active_{number}")
    pooled = graph.node("MaxPool", [signal], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    graph.node("Flatten", [pooled], "features")
    return graph, last


def _run(graph: Graph, images: NDArray[np.float32], output: str = "features") -> NDArray[np.float32]:
    shape = ("batch", "features") if output == "features" else ("batch", "channels", SIDE, SIDE)
    proto = graph.model([_IMAGE], [tensor(output, np.float32, *shape)], "features")
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run([output], {"image": images})[0]
    return found


def _export(filters: Filters, last: Layer) -> onnx.ModelProto:
    graph, _ = _features(filters)
    graph.dense([last], "features", "logits")
    graph.node("Softmax", ["logits"], "probabilities", axis=1)
    graph.node("ArgMax", ["probabilities"], "label", axis=1, keepdims=0)
    outputs = [tensor("probabilities", np.float32, "batch", 10), tensor("label", np.int64, "batch")]
    return graph.model([_IMAGE], outputs, NAME)


_IMAGE = tensor("image", np.float32, "batch", SIDE * SIDE)


if __name__ == "__main__":
    build()
    print(FOLDER)
