"""What the report says of the machine: the processor and its flags that matter to narrow numbers, and libraries."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "asimddp")
_LIBRARIES = ("turnout", "onnxruntime", "onnxruntime-gpu", "onnx", "onnx-ir", "numpy")


def read(root: Path = Path("/")) -> dict[str, str]:
    """`cpu`, `flags` and `architecture`; flags that are not known are not there."""
    told = {"architecture": platform.machine(), "cpu": "", "flags": ""}
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return told
    for line in lines:
        name, _, value = (part.strip() for part in line.partition(":"))
        if name in ("model name", "Processor") and not told["cpu"]:
            told["cpu"] = value
        if name in ("flags", "Features") and not told["flags"]:
            has = set(value.split())
            told["flags"] = " ".join(flag for flag in _FLAGS if flag in has)
    return told


def reduces_range(machine: dict[str, str]) -> bool:
    """Whether 8-bit products may saturate here: x86 without VNNI adds pairs of them up in 16 bits."""
    flags = machine["flags"].split()
    return machine["architecture"] in ("x86_64", "AMD64") and not {"avx512_vnni", "avx_vnni", "amx_int8"} & {*flags}


def libraries() -> dict[str, str]:
    """Versions of what made the variant."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
