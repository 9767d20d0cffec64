"""A slot's states and which may follow which: the table that the runtime's slots obey."""

from __future__ import annotations

from enum import Enum


class SlotState(Enum):
    """A named place of a model holds at most one revision; this is how far that revision has come."""

    EMPTY = "EMPTY"
    LOADING = "LOADING"  # the artefact is read and checked
    WARMING = "WARMING"  # every batch bucket runs once, off the traffic
    READY = "READY"  # leases are given
    DRAINING = "DRAINING"  # leases run out, no new ones
    FAILED = "FAILED"  # the reason is in the slot's message


NEXT: dict[SlotState, frozenset[SlotState]] = {
    SlotState.EMPTY: frozenset({SlotState.LOADING}),
    SlotState.LOADING: frozenset({SlotState.WARMING, SlotState.FAILED, SlotState.EMPTY}),
    SlotState.WARMING: frozenset({SlotState.READY, SlotState.FAILED, SlotState.EMPTY}),
    SlotState.READY: frozenset({SlotState.DRAINING, SlotState.FAILED}),
    SlotState.DRAINING: frozenset({SlotState.EMPTY}),
    SlotState.FAILED: frozenset({SlotState.LOADING, SlotState.EMPTY}),
}
