"""Puts a variant into its version's folder: model and report under hidden names first, each renamed when it is whole.

The model comes first and the report last. Whatever ends it in between, there is no variant with a report that is not
its own; one without a report is refused by the server."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turnout.core.variants import report_file, variant_file
from turnout.variants.recipes import QuantizeError

_MODE = 0o644


class Target:
    """The two files of one variant. One process at a time has it: a lock on the hidden file says so.

    Args:
        folder: of the version.
        base: the version's own model file.
    """

    def __init__(self, folder: Path, base: str, variant: str) -> None:
        self._folder = folder
        self.model = variant_file(base, variant)
        self.report = report_file(base, variant)
        self._part = folder / f".{self.model}.part"
        self._report_part = folder / f".{self.report}.part"
        self._fd: int | None = None

    def claim(self, overwrite: bool) -> None:
        """Before the work begins: is there a place for its result?

        Raises:
            QuantizeError: the variant is there, is being made by another process, or the folder cannot be written to.
        """
        there = [name for name in (self.model, self.report) if os.path.lexists(self._folder / name)]
        if there and not overwrite:
            orphan = " without a report (was a run interrupted?)" if there == [self.model] else ""
            raise QuantizeError(f"'{there[0]}' is there already{orphan}: use --overwrite, or another --variant")
        try:
            self._fd = os.open(self._part, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        except OSError as error:
            raise self._unwritable(error) from error
        except BaseException:  # an interruption that came within: the file is there, and its descriptor is lost
            with contextlib.suppress(OSError):
                self._fd = os.open(self._part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            raise
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            self._fd = None
            raise QuantizeError(f"another turnout quantize makes '{self.model}' just now: wait for it") from None
        if not self._is_ours():
            # Another run had it until a moment ago, and has renamed it to what is served or removed it.
            os.close(self._fd)
            self._fd = None
            raise QuantizeError(f"another turnout quantize has just ended with '{self.model}': run it again")

    def write(self, made: Path, report: Callable[[], dict[str, Any]]) -> None:
        """Put the file `made` and the report, which is asked for when the model is in its place.

        Raises:
            QuantizeError: there is no room, or the folder cannot be written to: then neither file is there.
        """
        if self._fd is None:
            raise AssertionError("claimed first")
        try:
            with open(made, "rb") as source, open(self._fd, "wb", closefd=False) as part:
                part.truncate(0)
                shutil.copyfileobj(source, part, 1 << 20)
                _flush(part.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            os.replace(self._part, self._folder / self.model)
            _remove(self._report_part)  # a link there would lead elsewhere
            with open(self._report_part, "x", encoding="utf-8") as file:
                file.write(json.dumps(report(), indent=2, allow_nan=False, ensure_ascii=False) + "\n")
                file.flush()
                _flush(file.fileno())
            os.replace(self._report_part, self._folder / self.report)
            self._flush_folder()
        except BaseException as error:
            # An interruption may come after the first renaming has been done and before it has returned.
            for name in () if self._is_ours() else (self.report, self.model):
                _remove(self._folder / name)
            if isinstance(error, OSError):
                raise self._unwritable(error) from error
            raise

    def release(self) -> None:
        """Take away what is hidden, also where `claim` was interrupted; may be called twice."""
        if self._fd is not None:
            if self._is_ours():
                _remove(self._part)
            _remove(self._report_part)
            os.close(self._fd)
            self._fd = None

    def _is_ours(self) -> bool:
        """Whether the hidden file is still the one that this claim has locked, or now locks."""
        if self._fd is None:
            return False
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(self._fd), os.lstat(self._part))
        except OSError:
            return False

    def _flush_folder(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _flush(fd)
        finally:
            os.close(fd)

    def _unwritable(self, error: OSError) -> QuantizeError:
        return QuantizeError(
            f"'{self.model}' cannot be written to '{self._folder}': {error.strerror}. No half file is left: make "
            "room, or give write permission, and run it again"
        )


def _flush(fd: int) -> None:
    """To the disk, so that a name never comes before its content."""
    os.fsync(fd)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
