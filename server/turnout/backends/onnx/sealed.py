"""A model's bytes as a file that nobody can change, for ONNX Runtime to open by a path.

Given the bytes themselves, it parses them while it keeps the interpreter, and with it the event loop: 50 ms for 80 MB.
From a path it does not. The file is in memory, sealed, and is gone when the session has been made.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from turnout.backends.onnx.external import Content

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
PIECE_BYTES = 1 << 22  # read or written at once: on one core, a longer call would hold up the event loop too


@contextmanager
def sealed_file(content: Content) -> Iterator[str]:
    """The path of a file with this content, as long as the context lasts.

    Raises:
        OSError: there is not enough memory.
    """
    fd = os.memfd_create("model", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        written = 0
        while written < len(view):
            written += os.write(fd, view[written : written + PIECE_BYTES])
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
