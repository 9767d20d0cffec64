"""Standard error behind a bounded queue and a thread of its own: a reader that stalls holds up nobody who logs.

What does not fit is dropped and counted, which is said when the reader is back.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable

import structlog

_LINES_MAX = 10_000


class LineWriter:
    """`start` once, `stop` once; `write` on any thread between them, or before.

    Args:
        write_through: writes to a reader, and may block.
    """

    def __init__(self, write_through: Callable[[str], object], lines_max: int = _LINES_MAX) -> None:
        self._write_through = write_through
        self._lines: queue.Queue[str | None] = queue.Queue(lines_max)
        self._dropped = 0
        self._counting = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._log = structlog.get_logger()

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds_max: float) -> None:
        """Write what has come, as far as somebody reads it within that time."""
        ends_s = time.monotonic() + seconds_max
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=seconds_max)
            self._thread.join(ends_s - time.monotonic())

    def write(self, text: str) -> int:
        if threading.current_thread() is self._thread:  # what was dropped: this must not be, too
            self._write(text)
            return len(text)
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            with self._counting:
                self._dropped += 1
        return len(text)

    def flush(self) -> None:
        """Nothing waits for the reader."""

    def _run(self) -> None:
        while (text := self._lines.get()) is not None:
            self._write(text)
            self._tell_dropped()

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a reader that has gone ends nothing
            self._write_through(text)

    def _tell_dropped(self) -> None:
        with self._counting:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            self._log.error("lines of this log were dropped: nobody read them", lines=dropped, export=False)


def write_descriptor(descriptor: int) -> Callable[[str], None]:
    """Writes there, past Python's own buffer, whose lock would hold up whoever flushes it at the end."""

    def write(text: str) -> None:
        left = text.encode(errors="backslashreplace")
        while left:
            left = left[os.write(descriptor, left) :]

    return write
