"""Pauses of the machine, as `programs/pauses.py` tells them: what somebody else did on a core is no server's doing.
Pure; all instants are nanoseconds of one clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from turnout_bench.schedules import Schedule

Pause = tuple[int, int]  # begin and end

_SHARES_APART_MAX = 0.02


def undisturbed(begun_ns: Schedule, done_ns: Schedule, pauses: Sequence[Pause]) -> NDArray[np.bool_]:
    """Which requests met no pause from their begin to their end."""
    calm = np.ones(len(begun_ns), np.bool_)
    for begin_ns, end_ns in pauses:
        calm &= (done_ns < begin_ns) | (begun_ns > end_ns)
    return calm


def unlike(left_out: Mapping[str, float]) -> tuple[str, ...]:
    """The doubt that sides of which different shares were left out cannot be compared; none where they are alike."""
    most, least = max(left_out, key=left_out.__getitem__), min(left_out, key=left_out.__getitem__)
    if left_out[most] - left_out[least] <= _SHARES_APART_MAX:
        return ()
    return (
        f"pauses of the machine: {left_out[most]:.1%} of the requests {most} are left out, but {left_out[least]:.1%} "
        f"of those {least}",
    )
