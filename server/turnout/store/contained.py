"""Folders and files of the model repository, reached by descriptors from its root: nothing outside of it is opened.

Symbolic links are followed here and not by the kernel, as far as they stay inside. What is neither a folder nor a
regular file is never opened, and a file with a second name only where that is allowed.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from turnout.core.errors import LoadError
from turnout.store.hashes import HashedFile, Hashes

_LINKS_MAX = 40  # in one path, as the kernel's limit
# A folder to pass through needs no permission to be listed.
_PASS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A FIFO in the place of what was a file a moment ago must not be waited for.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


_Reached = tuple[int, str, os.stat_result]  # the descriptor of the folder that holds it, its name there, its status


class Root:
    """The repository's folder, open for as long as something refers to it.

    Args:
        path: an operator's: links in it are followed wherever they lead.
        allow_hard_links: take files with more than one name; the others may be outside of the repository.
        hashes: what is known of files already.

    Raises:
        OSError: it is not there, or no folder.
    """

    def __init__(self, path: Path, allow_hard_links: bool = False, hashes: Hashes | None = None) -> None:
        self.allow_hard_links = allow_hard_links
        self.hashes = hashes or Hashes()
        self.fd = os.open(path, _LIST)
        weakref.finalize(self, os.close, self.fd)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder by its path from the root. Each use walks from there anew, so links lead to where they point then.

    Its methods raise LoadError for what Turnout refuses, and OSError for what the operating system does.
    """

    root: Root
    path: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """What is in it, sorted. Names may hold any character but `/` and NUL."""
        with _reached(self.root, self.path, "the folder") as (here, name, _):
            fd = os.open(name, _LIST, dir_fd=here)
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def place(self) -> tuple[int, int]:
        """What tells it from every other folder, whatever links lead to it."""
        with _reached(self.root, self.path, "the folder") as (_, _, status):
            return status.st_dev, status.st_ino

    def status(self, relative: str) -> os.stat_result:
        """Of what a path in this folder leads to, links followed."""
        with self._reached(relative) as (_, _, status):
            return status

    def folder(self, relative: str) -> Folder:
        """Raises:
        NotADirectoryError: it is something else.
        """
        if not stat.S_ISDIR(self.status(relative).st_mode):
            raise NotADirectoryError(20, "Not a directory")
        return Folder(self.root, (*self.path, *_parts(relative)))

    def open(self, relative: str) -> int:
        """A descriptor of a regular file, for reading; the caller closes it."""
        with self._reached(relative) as (here, name, status):
            self._check(relative, status)
            fd = os.open(name, _READ, dir_fd=here)
        try:
            self._check(relative, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def read(self, relative: str, bytes_max: int) -> bytes:
        """All of a regular file.

        Raises:
            LoadError: it is larger.
        """
        with open(self.open(relative), "rb") as file:
            content = file.read(bytes_max + 1)
        if len(content) > bytes_max:
            raise LoadError(f"{relative} is larger than {bytes_max} bytes")
        return content

    def hashed(self, relative: str) -> HashedFile:
        """A regular file; blocks while it is read, where the root's hashes do not know it."""
        fd = self.open(relative)
        try:
            return self.root.hashes.of(fd, relative)
        finally:
            os.close(fd)

    def _reached(self, relative: str) -> AbstractContextManager[_Reached]:
        return _reached(self.root, (*self.path, *_parts(relative)), f"'{relative}'")

    def _check(self, relative: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise LoadError(f"'{relative}' is {_KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}, no file")
        if status.st_nlink > 1 and not self.root.allow_hard_links:
            raise LoadError(
                f"'{relative}' is a file with {status.st_nlink} names (hard links), the others may be outside of the "
                "model repository: copy it, or start with --allow-hard-links"
            )


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _parts(relative: str) -> tuple[str, ...]:
    parts = tuple(relative.split("/"))
    if "\0" in relative or not {"", ".", ".."}.isdisjoint(parts):
        raise LoadError(f"'{relative}' is no path inside of its folder")
    return parts


@contextmanager
def _reached(root: Root, path: Sequence[str], title: str) -> Iterator[_Reached]:
    """Walk from the root, one name at a time, to what is no link."""
    trail = [os.open(".", _PASS, dir_fd=root.fd)]  # the folders from the root to here
    left = [*reversed(path)]
    links = 0
    found: tuple[str, os.stat_result] | None = None  # what is no folder ends the walk
    try:
        while left:
            name = left.pop()
            if found is not None:
                raise NotADirectoryError(20, "Not a directory")
            if name in ("", "."):
                continue
            if name == "..":
                os.close(trail.pop())
                if not trail:
                    raise LoadError(f"{title} is a link that leads out of the model repository: copy what it points to")
                continue
            status = os.stat(name, dir_fd=trail[-1], follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _LINKS_MAX:
                    raise LoadError(f"{title} leads through more than {_LINKS_MAX} links, do they form a circle?")
                target = os.readlink(name, dir_fd=trail[-1])
                if target.startswith("/"):
                    raise LoadError(
                        f"{title} is an absolute link: make it relative and inside of the model repository, or copy "
                        "what it points to"
                    )
                left += reversed(target.split("/"))
            elif stat.S_ISDIR(status.st_mode):
                # Whatever is in its place by now: a link is not followed, and no folder is an error.
                trail.append(os.open(name, _PASS, dir_fd=trail[-1]))
            else:
                found = name, status
        yield (trail[-1], *found) if found is not None else (trail[-1], ".", os.fstat(trail[-1]))
    finally:
        for fd in trail:
            os.close(fd)
