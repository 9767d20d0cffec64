"""The fuzz targets by name. Each is a module: `run` takes any bytes and raises only for a defect, and `mutate` makes
another input from one."""

from __future__ import annotations

import importlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from fuzz.mutation import Mutate

CORPUS = Path(__file__).parent / "corpus"


class Module(Protocol):
    """What a target's module has."""

    def run(self, data: bytes) -> None: ...

    def mutate(self, data: bytes, bytes_max: int, rng: random.Random, mutate_bytes: Mutate) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Target:
    """A target, and how much of it."""

    name: str
    bytes_max: int
    share: float  # of the inputs of a run over all targets

    def load(self) -> Module:
        """Imported late: under atheris, and no other target's code with it."""
        return cast(Module, importlib.import_module(f"fuzz.{self.name}"))

    def corpus(self) -> list[Path]:
        return sorted(path for path in (CORPUS / self.name).iterdir() if path.is_file())


TARGETS = {
    target.name: target
    for target in (
        Target("request", 4096, 0.4),
        Target("typed_request", 2048, 0.05),
        Target("tensors", 512, 0.2),
        Target("model_config", 4096, 0.1),
        Target("settings", 1024, 0.05),
        Target("checksums", 1024, 0.05),
        Target("external_data", 4096, 0.15),
    )
}
