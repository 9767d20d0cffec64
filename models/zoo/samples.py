"""Labelled digits that no model was trained on, and each version's golden inputs and outputs; numpy only.

Training and export live in `zoo.digits`. It shares `augment` with this module, so that the models meet in
testing the distortions they met in training, on other originals.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODELS = Path(__file__).resolve().parent.parent
DIGITS = MODELS / "repository" / "digits"
EXTRA = MODELS / "extra"  # models that the demo does not serve
HELDOUT = MODELS / "data" / "digits_heldout.npz"

SIDE = 8  # pixels
PIXEL_MAX = 16


def heldout(count: int = 20_000, seed: int = 7) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """`count` distorted copies of the held-out originals: float32 [count, 64] in 0..16, int64 labels [count].

    Every original appears equally often (give or take one), in shuffled order. The result depends only on the
    arguments: `augment` says why it is the same on every platform.
    """
    with np.load(HELDOUT) as archive:
        images, labels = archive["images"], archive["labels"]
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(np.resize(rng.permutation(len(images)), count))
    return augment(images[chosen], rng), labels[chosen].astype(np.int64)


def golden(version_dir: Path) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """The inputs and the expected outputs, by tensor name, stored beside a version's `model.onnx`."""
    with np.load(version_dir / "golden.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    return _with_prefix(arrays, "input."), _with_prefix(arrays, "output.")


def augment(images: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
    """Each image shifted by up to one pixel (quarters), scaled in intensity (3/4 to 5/4), plus normal noise.

    Takes [n, 64] with values 0..16 and gives float32 of the same shape and range. Every value on the way is a
    small multiple of 1/256, hence exact in float32 whatever the order of the sums: neither BLAS nor the
    processor can change a bit.
    """
    n = len(images)
    pictures = images.astype(np.float32).reshape(n, SIDE, SIDE)
    down, right = (rng.integers(-2, 3, size=(2, 2, n)).sum(axis=0) / 4).astype(np.float32)
    scale = (rng.integers(12, 21, size=(n, 1, 1)) / 16).astype(np.float32)
    noise = np.rint(rng.normal(0.0, 16.0, size=pictures.shape)) / 16  # standard deviation: one grey level

    moved = _shift(down) @ pictures @ _shift(right).transpose(0, 2, 1)
    return np.clip(moved * scale + noise, 0, PIXEL_MAX).astype(np.float32).reshape(n, SIDE * SIDE)


def _shift(distance: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n] distances in pixels -> [n, 8, 8] matrices that move a column, interpolating; zeros move in."""
    pixel = np.arange(SIDE, dtype=np.float32)
    source = pixel[None, :, None] - distance[:, None, None]
    weights: NDArray[np.float32] = np.maximum(np.float32(0), 1 - np.abs(source - pixel))
    return weights


def _with_prefix(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
