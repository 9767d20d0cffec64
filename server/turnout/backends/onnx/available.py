"""How much memory this process could still take: what the machine has, and what its control groups leave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = 1 << 62


def available_bytes(root: Path = Path("/")) -> int:
    """The least of what the machine and each control group above this process have left. Caches count as free."""
    return max(0, min(_machine(root), *_groups(root), _UNLIMITED))


def _machine(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        name, *value = line.split()
        if name == "MemAvailable:" and value:
            return int(value[0]) * 1024
    return _UNLIMITED


def _groups(root: Path) -> Iterator[int]:
    """In a container, paths may be those of the host: then only the mounted folder itself is there, and is its own."""
    for line in _lines(root / "proc/self/cgroup"):
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            mount = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount):
                yield _left(folder, *names)


def _left(group: Path, limit: str, usage: str, reclaimable: str) -> int:
    numbers = [line for name in (limit, usage) for line in _lines(group / name)]
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):  # none, or "max"
        return _UNLIMITED
    stat = dict(line.split() for line in _lines(group / "memory.stat"))
    return int(numbers[0]) - int(numbers[1]) + int(stat.get(reclaimable, 0))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
