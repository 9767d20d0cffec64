"""Expected outputs for samples that have none: each version's own, from ONNX Runtime in this process, one by one.

Runs before the load, in the command's process; no gevent here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turnout_locust.expected import GOLDEN
from turnout_locust.scenarios import LoadTestError

_MODEL = "model.onnx"


def write_references(samples: Path, model: Path, versions: Sequence[int], into: Path) -> Path:
    """`into/VERSION/golden.npz` with the inputs of `samples` (`input.NAME`, rows in the first dimension) and what each
    version answers. Rows run alone where the model's first dimension is open, else the arrays are one sample.

    Raises:
        LoadTestError: a file is not there or does not fit.
    """
    import onnxruntime as ort

    inputs = _inputs(samples)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    for version in versions:
        file = model / str(version) / _MODEL
        if not file.is_file():
            raise LoadTestError(f"version {version} of '{model.name}' has no {_MODEL} to make expected outputs with")
        try:
            session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            names = [output.name for output in session.get_outputs()]
            batched = all(given.shape and not isinstance(given.shape[0], int) for given in session.get_inputs())
            rows = len(next(iter(inputs.values()))) if batched else 1
            answers = [
                session.run(names, {name: array[row : row + 1] if batched else array for name, array in inputs.items()})
                for row in range(rows)
            ]
        except Exception as error:
            raise LoadTestError(
                f"version {version} of '{model.name}' does not run '{samples.name}': {error}"
            ) from error
        arrays: dict[str, Any] = {f"input.{name}": array for name, array in inputs.items()}
        arrays |= {
            f"output.{name}": np.concatenate([np.asarray(answer[place]) for answer in answers])
            for place, name in enumerate(names)
        }
        folder = into / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / GOLDEN).open("wb") as written:
            np.savez_compressed(written, **arrays)
    return into


def _inputs(samples: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(samples, allow_pickle=False) as archive:
            found = {name.removeprefix("input."): archive[name] for name in archive.files if name.startswith("input.")}
    except (OSError, ValueError) as error:
        raise LoadTestError(f"'{samples}' cannot be read: {error}") from None
    if not found or not all(array.ndim and len(array) for array in found.values()):
        raise LoadTestError(f"'{samples}' needs an array input.NAME for each input of the model, rows first")
    return found
