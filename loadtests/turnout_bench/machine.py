"""What a figure was measured on and with, and how much of the machine others used meanwhile."""

from __future__ import annotations

import os
import platform
import resource
import sysconfig
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from turnout_bench.processes import cores

FOREIGN_CORES_MAX = 0.3
_PACKAGES = ("turnout", "grpcio", "onnxruntime", "numpy", "protobuf", "uvloop", "onnx")


def machine() -> dict[str, Any]:
    server_core, generator_core = cores()
    return {
        "cpu": _cpu("model name") or platform.machine(),
        "cores": os.cpu_count(),
        "flags": sorted((_cpu("flags") or _cpu("Features")).split()),
        "governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) or "not known",
        "memory_mib": psutil.virtual_memory().total >> 20,
        "system": platform.platform(),
        "hypervisor": "hypervisor" in _cpu("flags").split(),
        "load_average": list(os.getloadavg()),
        "server_core": server_core,
        "generator_core": generator_core,
        "threads": {"intra_op": 1, "executors": 1, "loop": "uvloop", "server_processes": 1},
        "grpc_experiments": os.environ.get("GRPC_EXPERIMENTS", ""),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "python_build": " ".join(platform.python_build())}
    found["python_flags"] = str(sysconfig.get_config_var("CONFIG_ARGS") or "not known")
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


class ForeignLoad:
    """How many cores' worth of time others used since `start`: other processes, and what the hypervisor took away.

    Args:
        children_cpu_s: of those child processes that still run.
    """

    def __init__(self, children_cpu_s: Callable[[], float]) -> None:
        self._children_cpu_s = children_cpu_s

    def start(self) -> None:
        self._before = self._sums()

    def cores(self) -> float:
        wall_s, busy_s, own_s = (now - then for now, then in zip(self._sums(), self._before, strict=True))
        return max(busy_s - own_s, 0.0) / wall_s if wall_s > 0 else 0.0

    def _sums(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()._asdict()
        # Interrupts are mostly our own: what goes over the loopback device is handled there, and charged to nobody.
        idle_s = sum(times.get(name, 0.0) for name in ("idle", "iowait", "irq", "softirq"))
        guest_s = times.get("guest", 0.0) + times.get("guest_nice", 0.0)  # is in user and nice already
        total_s = sum(times.values()) - guest_s
        own = resource.getrusage(resource.RUSAGE_SELF)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        own_s = own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime + self._children_cpu_s()
        return total_s / (psutil.cpu_count() or 1), total_s - idle_s, own_s


def _cpu(field: str) -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
