"""`turnout quantize` as a user runs it, in this process, on a copy of the digits models."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from turnout.cli import main

DIGITS = Path(__file__).parents[2] / "models" / "repository" / "digits"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


Quantize = Callable[..., Ended]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of digits/2, in a repository of its own."""
    target = tmp_path / "repository" / "digits"
    (target / "2").mkdir(parents=True)
    shutil.copy(DIGITS / "config.pbtxt", target)
    for name in ("model.onnx", "golden.npz"):
        shutil.copy(DIGITS / "2" / name, target / "2")
    return target / "2"


@pytest.fixture
def quantize(folder: Path, capsys: pytest.CaptureFixture[str]) -> Quantize:
    """Called with flags, for digits/2 unless another version is named first."""

    def run(*flags: str, version: str = "digits/2") -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(["quantize", version, "--model-repository", str(folder.parents[1]), "--provider", "cpu", *flags])
        told = capsys.readouterr()
        return Ended(int(str(ended.value.code)), told.out, told.err)

    return run
