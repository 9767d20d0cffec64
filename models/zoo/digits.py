"""Trains and exports the three versions of the model `digits`; seeded: a rebuild gives the same models.

Version 1 is linear, version 2 a clearly better network, version 3 the same network trained on damaged labels,
the silent regression that a rollout has to catch. Demos and load tests read `zoo.samples`, never this module.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from zoo import parts
from zoo.parts import Layer
from zoo.samples import DIGITS, HELDOUT, PIXEL_MAX, augment, golden, heldout

VERSIONS = (1, 2, 3)
SPLIT_SEED = 7
HELDOUT_ROWS = 600  # a third: enough different handwriting to measure one point of accuracy
GOLDEN_ROWS, GOLDEN_SEED = 64, 64

# What version 3's labeller got wrong: of each class, the quarter that looks most like another got its label.
CONFUSED = {4: 9, 7: 9, 3: 8}
CONFUSED_SHARE = 0.25

# With the same packages a rebuild was equal bit for bit, and to six decimals with other BLAS kernels and
# thread counts. These limits leave room for another scikit-learn.
ACCURACY_TOLERANCE = 0.005
PROBABILITY_TOLERANCE = 0.01  # mean difference, rebuilt against committed
GOLDEN_TOLERANCE = 1e-4  # largest difference, the committed model against its own golden outputs

CONFIG = """\
# Handwritten digits in three versions. Inputs and outputs are read from the models themselves.
max_batch_size: 32
version_policy: { all {} }
"""


@dataclass(frozen=True, slots=True)
class Split:
    """Original images uint8 [n, 64] and labels int64 [n]; no original is on both sides."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    heldout_images: NDArray[np.uint8]
    heldout_labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Quality:
    """How one version answers: its accuracy, mean confidence, and each class's share of its answers [10]."""

    accuracy: float
    confidence: float
    shares: NDArray[np.float64]


def build(folder: Path, heldout_file: Path) -> None:
    """Trains, exports and writes the Triton-layout model `folder` and the held-out originals."""
    data = split()
    heldout_file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(heldout_file, images=data.heldout_images, labels=data.heldout_labels.astype(np.uint8))

    trained = {
        1: train_linear(data.train_images, data.train_labels),
        2: train_network(data.train_images, data.train_labels),
        3: train_network(data.train_images, confuse(data.train_images, data.train_labels)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    golden_images = augment(data.heldout_images[:GOLDEN_ROWS], np.random.default_rng(GOLDEN_SEED))
    for version, layers in trained.items():
        version_dir = folder / str(version)
        version_dir.mkdir(exist_ok=True)
        onnx.save(export(layers), version_dir / "model.onnx")
        probabilities, label = answer(version_dir, golden_images)
        tensors: dict[str, NDArray[Any]] = {
            "input.image": golden_images,
            "output.probabilities": probabilities,
            "output.label": label,
        }
        np.savez_compressed(version_dir / "golden.npz", allow_pickle=False, **tensors)


def split() -> Split:
    """The bundled handwritten digits, divided by original image, with every class on both sides alike."""
    images, labels = load_digits(return_X_y=True)
    train_images, heldout_images, train_labels, heldout_labels = train_test_split(
        images.astype(np.uint8), labels, test_size=HELDOUT_ROWS, random_state=SPLIT_SEED, stratify=labels
    )
    return Split(train_images, train_labels, heldout_images, heldout_labels)


def confuse(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The labels with the mistakes of CONFUSED: systematic, so that a model learns them with confidence.

    Mistakes at random would lower its confidence much more, and a monitor of confidence would notice.
    """
    mean = {digit: images[labels == digit].mean(axis=0) for digit in range(10)}
    damaged = labels.copy()
    for own, other in CONFUSED.items():
        rows = np.flatnonzero(labels == own)
        distance = {digit: np.linalg.norm(images[rows] - mean[digit], axis=1) for digit in (own, other)}
        likeness = distance[own] - distance[other]
        most_alike = np.argsort(-likeness, kind="stable")[: round(CONFUSED_SHARE * len(rows))]
        damaged[rows[most_alike]] = other
    return damaged


def train_linear(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[Layer]:
    """Softmax regression."""
    classifier = LogisticRegression(max_iter=100)
    _fit(classifier, *_copies(images, labels, times=5))
    return [Layer(classifier.coef_.T, classifier.intercept_)]


def train_network(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[Layer]:
    """Two hidden layers; 20 epochs keep a rebuild of all versions below half a minute on two cores."""
    classifier = MLPClassifier((128, 64), batch_size=128, max_iter=20, alpha=1e-3, random_state=0)
    _fit(classifier, *_copies(images, labels, times=20))
    return [Layer(w, b) for w, b in zip(classifier.coefs_, classifier.intercepts_, strict=True)]


def export(layers: Sequence[Layer]) -> onnx.ModelProto:
    """`image` FP32 [batch, 64] in 0..16 -> `probabilities` FP32 [batch, 10] and `label` INT64 [batch]."""
    nodes, weights = parts.dense(layers, "scaled", "logits")
    return parts.model(
        [
            helper.make_node("Mul", ["image", "scale"], ["scaled"]),
            *nodes,
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        ],
        [parts.scalar("scale", 1 / PIXEL_MAX), *weights],
        inputs=[parts.tensor("image", np.float32, "batch", 64)],
        outputs=[
            parts.tensor("probabilities", np.float32, "batch", 10),
            parts.tensor("label", np.int64, "batch"),
        ],
        name="digits",
    )


def answer(version_dir: Path, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities [n, 10] and labels [n] of one version, by onnxruntime in this process, in one batch."""
    session = onnxruntime.InferenceSession(version_dir / "model.onnx", providers=["CPUExecutionProvider"])
    probabilities, label = session.run(["probabilities", "label"], {"image": images})
    return probabilities, label


def measure(version_dir: Path, images: NDArray[np.float32], labels: NDArray[np.int64]) -> Quality:
    """The quality of one version on labelled samples."""
    probabilities, answered = answer(version_dir, images)
    return Quality(
        accuracy=float(np.mean(answered == labels)),
        confidence=float(np.mean(probabilities.max(axis=1))),
        shares=np.bincount(answered, minlength=10) / len(answered),
    )


def report(folder: Path = DIGITS) -> str:
    """The quality of each version on `heldout()`, as a Markdown table in percent."""
    images, labels = heldout()
    truth = np.bincount(labels, minlength=10) / len(labels)
    rows = [
        ["version", "accuracy", "confidence", *(f"'{digit}'" for digit in range(10))],
        ["---", *["---:"] * 12],
        ["true labels", "", "", *(f"{share:.1%}" for share in truth)],
    ]
    for version in VERSIONS:
        quality = measure(folder / str(version), images, labels)
        numbers = quality.accuracy, quality.confidence, *quality.shares
        rows.append([str(version), *(f"{number:.1%}" for number in numbers)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def check() -> list[str]:
    """Rebuilds everything in a temporary folder; returns what differs from the committed artefacts."""
    with tempfile.TemporaryDirectory() as name:
        folder, heldout_file = Path(name) / "digits", Path(name) / "heldout.npz"
        build(folder, heldout_file)
        found = []
        with np.load(heldout_file) as rebuilt, np.load(HELDOUT) as committed:
            found += [
                f"held-out {key}: the rebuilt ones differ from the committed ones"
                for key in ("images", "labels")
                if not np.array_equal(rebuilt[key], committed[key])
            ]
        if (folder / "config.pbtxt").read_text() != (DIGITS / "config.pbtxt").read_text():
            found.append("config.pbtxt: the rebuilt one differs from the committed one")
        samples = heldout()
        for version in VERSIONS:
            found += _differences(version, folder / str(version), DIGITS / str(version), samples)
    return found


def _differences(
    version: int, rebuilt: Path, committed: Path, samples: tuple[NDArray[np.float32], NDArray[np.int64]]
) -> list[str]:
    inputs, outputs = golden(committed)
    images, expected = inputs["image"], outputs["probabilities"]
    accuracy = [measure(folder, *samples).accuracy for folder in (rebuilt, committed)]
    differences = {
        "accuracy, rebuilt against committed": (abs(accuracy[0] - accuracy[1]), ACCURACY_TOLERANCE),
        "golden inputs": (np.abs(golden(rebuilt)[0]["image"] - images).max(), 0.0),
        "golden probabilities, largest difference of the committed model": (
            np.abs(answer(committed, images)[0] - expected).max(),
            GOLDEN_TOLERANCE,
        ),
        "golden probabilities, mean difference of the rebuilt model": (
            np.abs(answer(rebuilt, images)[0] - expected).mean(),
            PROBABILITY_TOLERANCE,
        ),
    }
    for what, (difference, limit) in differences.items():
        print(f"digits/{version}: {what}: {difference:.6f}, limit {limit}")
    return [
        f"digits/{version}: {what}: {difference:.6f} is above {limit}; run `python -m zoo.digits` and commit"
        for what, (difference, limit) in differences.items()
        if difference > limit
    ]


def _copies(
    images: NDArray[np.uint8], labels: NDArray[np.int64], times: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Augmented copies, `times` of each image, scaled to 0..1 as the graph does.

    Float64, because training amplifies rounding: the less there is, the closer two machines agree.
    """
    rows = np.tile(np.arange(len(images)), times)
    copies = augment(images[rows], np.random.default_rng(times))
    return copies.astype(np.float64) / PIXEL_MAX, labels[rows]


def _fit(classifier: LogisticRegression | MLPClassifier, x: NDArray[np.float64], y: NDArray[np.int64]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of steps is our choice
        classifier.fit(x, y)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zoo.digits", description=__doc__)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="rebuild aside and compare with what is committed")
    mode.add_argument("--report", action="store_true", help="print the quality of the committed versions")
    arguments = parser.parse_args()
    if arguments.check:
        found = check()
        sys.exit("\n".join(found) if found else 0)
    if not arguments.report:
        build(DIGITS, HELDOUT)
    print(report())


if __name__ == "__main__":
    main()
