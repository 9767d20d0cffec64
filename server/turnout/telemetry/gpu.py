"""NVIDIA GPUs as their driver shows them, where there are any and nvidia-ml-py is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from turnout.telemetry import instruments as i
from turnout.telemetry.readings import Reading, Value


def gpu_readings() -> GpuReadings | None:
    """None: there is no driver, no GPU, or no nvidia-ml-py. Blocks as long as the driver does."""
    try:
        import pynvml  # the module of nvidia-ml-py
    except ImportError:
        return None
    return GpuReadings.of(pynvml)


class GpuReadings:
    """A slow source of readings: the driver may take milliseconds, and hang.

    Args:
        nvml: the module of nvidia-ml-py, initialised.
        devices: handles, with the attributes of each.
    """

    def __init__(self, nvml: Any, devices: Sequence[tuple[Any, tuple[str, ...]]]) -> None:
        self._nvml = nvml
        self._devices = devices

    @classmethod
    def of(cls, nvml: Any) -> GpuReadings | None:
        """All GPUs that this process may see."""
        try:
            nvml.nvmlInit()
            driver = _text(nvml.nvmlSystemGetDriverVersion())
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
            devices = [
                (
                    handle,
                    (_text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle)), "NVIDIA", driver),
                )
                for handle in handles
            ]
        except nvml.NVMLError:
            return None
        return cls(nvml, devices) if devices else None

    def __call__(self) -> Iterator[Reading]:
        """What a GPU does not tell (MIG shares no utilisation; a lost one tells nothing) is left out."""
        busy, usage, limit, share = [], [], [], []
        for handle, attributes in self._devices:
            if (rates := self._ask(self._nvml.nvmlDeviceGetUtilizationRates, handle)) is not None:
                busy.append(Value(attributes, rates.gpu / 100))
            if (memory := self._ask(self._nvml.nvmlDeviceGetMemoryInfo, handle)) is not None:
                usage.append(Value(attributes, memory.used))
                limit.append(Value(attributes, memory.total))
                share.append(Value(attributes, memory.used / memory.total))
        yield Reading(i.GPU_UTILIZATION, tuple(busy))
        yield Reading(i.GPU_MEMORY_USAGE, tuple(usage))
        yield Reading(i.GPU_MEMORY_LIMIT, tuple(limit))
        yield Reading(i.GPU_MEMORY_UTILIZATION, tuple(share))

    def _ask(self, question: Any, handle: Any) -> Any:
        try:
            return question(handle)
        except self._nvml.NVMLError:
            return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
