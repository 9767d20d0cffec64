"""The labelled samples: deterministic, in range, from originals that no version was trained on."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np

from zoo import digits
from zoo.samples import HELDOUT, MODELS, augment, heldout

DIGEST = "1fef353a2ca490f1391bf48f225ba38850e19e3da95f855aaea017ec6558f697"


def test_heldout_is_the_same_everywhere() -> None:
    images, labels = heldout()
    assert images.dtype == np.float32 and images.shape == (20_000, 64)
    assert labels.dtype == np.int64 and labels.shape == (20_000,)
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() == DIGEST


def test_heldout_depends_on_its_seed_and_gives_any_count() -> None:
    assert not np.array_equal(heldout(100, seed=1)[0], heldout(100, seed=2)[0])
    assert [len(heldout(count)[1]) for count in (0, 1, 601, 30_000)] == [0, 1, 601, 30_000]


def test_heldout_is_in_range_varied_and_balanced() -> None:
    images, labels = heldout()
    assert images.min() == 0 and images.max() == 16
    assert len(np.unique(images, axis=0)) == len(images)
    assert np.bincount(labels).min() > 1_900
    # Shuffled: any window of traffic holds every class.
    assert all(len(np.unique(window)) == 10 for window in np.split(labels, 100))


def test_no_heldout_original_is_in_the_training_split() -> None:
    data = digits.split()
    with np.load(HELDOUT) as archive:
        images, labels = archive["images"], archive["labels"]
    assert images.dtype == np.uint8 and images.shape == (600, 64)
    np.testing.assert_array_equal(images, data.heldout_images)
    np.testing.assert_array_equal(labels, data.heldout_labels)
    trained_on = {image.tobytes() for image in data.train_images}
    assert len(trained_on) == 1197
    assert not trained_on & {image.tobytes() for image in images}


def test_augment_keeps_an_image_recognisable() -> None:
    with np.load(HELDOUT) as archive:
        image = archive["images"][:1]
    copies = augment(np.repeat(image, 2_000, axis=0), np.random.default_rng(0))
    # Shifts, scales and noise are all centred, so the mean copy is the original, blurred.
    assert np.corrcoef(copies.mean(axis=0), image[0])[0, 1] > 0.9
    assert copies.std(axis=0).mean() > 1


def test_samples_need_numpy_only() -> None:
    others = {"sklearn", "onnx", "onnxruntime"}
    code = f"import sys, zoo.samples; zoo.samples.heldout(1); print(*{others} & {{*sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=MODELS, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
