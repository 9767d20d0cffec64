"""Has the C library take large buffers from the system and give them back as soon as they are free.

By default glibc learns from the first model that is unloaded to keep buffers of up to 32 MiB on its heaps, one heap for
each thread that loads: 30 loads and unloads of mlp_big (80 MB) left 110 MiB, and left 1 MiB like this
(tests/support/memory_cycles.py).
"""

from __future__ import annotations

import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_BYTES = 8 << 20  # weights are larger; what requests and runs take and give back all the time is not


@cache
def give_large_buffers_back() -> None:
    """For this process, once. Does nothing where the C library has no such setting."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _BYTES)
    # As glibc itself would set it. A fixed threshold leaves this one at 128 KiB: then every request of 600 kB gives its
    # pages back and faults them in again, at twice the CPU time (image_cpu_over_echo).
    mallopt(_M_TRIM_THRESHOLD, 2 * _BYTES)
