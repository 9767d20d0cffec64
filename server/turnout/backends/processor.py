"""What this machine's processor can do that decides which variants are faster on it."""

from __future__ import annotations

from pathlib import Path

_VNNI = {"avx512_vnni", "avx_vnni"}


def has_vnni(root: Path = Path("/")) -> bool:
    """Whether it has instructions for sums of products of 8-bit integers, as Linux tells it."""
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return not _VNNI.isdisjoint(flags.split())
