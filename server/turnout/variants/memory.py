"""What memory a revision takes in a process of its own: after loading it, and at the peak of its runs. Linux alone
tells that of a process."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from pathlib import Path

from turnout.core.tensors import Tensors
from turnout.runtime.ports import Loaded
from turnout.variants.recipes import QuantizeError
from turnout.variants.verifying import Memory

_RUNS = 3  # the first one at a size takes buffers that the others use again
_RESET_PEAK = "5"  # proc(5), clear_refs


def measure(load: Callable[[], Loaded], inputs: Mapping[int, Tensors], process: Path = Path("/proc/self")) -> Memory:
    """Load and run here, in a process that has done nothing else; sizes from the smallest on.

    Raises:
        QuantizeError: this system does not tell.
    """
    gc.collect()
    before = _status_bytes(process, "VmRSS")
    loaded = load()
    loaded_bytes = max(_status_bytes(process, "VmRSS") - before, 0)
    names = [spec.name for spec in loaded.declared.outputs]
    peaks = {}
    for rows, batch in sorted(inputs.items()):
        _reset_peak(process)
        for _ in range(_RUNS):
            loaded.sessions[0].run(batch, names)
        peaks[rows] = max(_status_bytes(process, "VmHWM") - before, 0)
    return Memory(loaded_bytes, peaks)


def _reset_peak(process: Path) -> None:
    try:
        (process / "clear_refs").write_text(_RESET_PEAK)
    except OSError as error:
        raise QuantizeError(f"this system does not let a process forget its peak: {error.strerror}") from None


def _status_bytes(process: Path, name: str) -> int:
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise QuantizeError(f"this system does not tell a process' {name}")
