"""Files as they were hashed, by an identity that changes with their content, so that they need not be read again."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, replace

from turnout.core.errors import LoadError

_SETTLED_NS = 1_000_000_000  # kernels and file systems tell times as coarse as that
_KEPT_NS = 60_000_000_000  # coarser ones, other machines' clocks, and pages that were mapped to be written

Identity = tuple[int, int, int, int, int]  # device, inode, size, and when content and inode changed


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A file as it was hashed.

    Attributes:
        settled: what has the same identity holds the same bytes. A file that was changed just before could be changed
            once more without a new time to tell it.
    """

    name: str
    size: int
    sha256: str
    identity: Identity
    settled: bool


class Hashes:
    """Hashes files, and knows the last `kept_max` of them again that had not changed for a minute. Threads may share
    it."""

    def __init__(self, kept_max: int = 0) -> None:
        self._kept_max = kept_max
        self._kept: dict[Identity, HashedFile] = {}

    def of(self, fd: int, name: str) -> HashedFile:
        """The open file; blocks while it is read, which leaves the descriptor at its end.

        Raises:
            LoadError: it changed meanwhile.
            OSError: it cannot be read.
        """
        before = identity(fd)
        if (known := self._kept.get(before)) is not None:
            return replace(known, name=name)
        started_ns = time.time_ns()
        with open(fd, "rb", closefd=False) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if identity(fd) != before:
            raise LoadError(f"'{name}' changed while it was read: move files into place when they are complete")
        age_ns = started_ns - max(before[3:])
        read = HashedFile(name, before[2], sha256, before, age_ns > _SETTLED_NS)
        if age_ns > _KEPT_NS and self._kept_max:
            self._kept[before] = read
            for oldest in list(self._kept)[: -self._kept_max]:
                self._kept.pop(oldest, None)  # another thread may have done so
        return read


def identity(fd: int) -> Identity:
    """Of an open file."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
