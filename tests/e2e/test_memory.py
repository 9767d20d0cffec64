"""Memory comes back: an 80 MB model that is loaded and unloaded 50 times leaves the process about as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import memory_cycles
from zoo.networks import write

CYCLES = 50
GROWTH_MIB_MAX = 100
_SETTLING = 5  # allocators and ONNX Runtime make their first caches
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    write("mlp_big", folder)
    return folder


def growth_mib(repository: Path, cycles: int, *flags: str) -> float:
    """From the first settled cycle to the last, by resident memory."""
    command = [sys.executable, memory_cycles.__file__, str(repository), "mlp_big", str(cycles), *flags]
    paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=400, check=False, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr
    series = [float(line) for line in done.stdout.split()]
    assert len(series) == cycles
    return max(series[-3:]) - series[_SETTLING - 1]


@pytest.mark.timeout(420)
def test_memory_comes_back_after_each_unload(repository: Path) -> None:
    assert growth_mib(repository, CYCLES) <= GROWTH_MIB_MAX


@pytest.mark.timeout(420)
def test_a_leak_of_one_model_per_cycle_would_be_caught(repository: Path) -> None:
    """The control: the same measure, of a process that keeps what it unloads."""
    assert growth_mib(repository, _SETTLING + 4, "--leak") > GROWTH_MIB_MAX
