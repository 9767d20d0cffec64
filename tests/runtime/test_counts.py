"""What is counted of slots that are there no more."""

from __future__ import annotations

from turnout.core.slots import SlotState
from turnout.runtime.account import CLOSED_MAX
from turnout.runtime.counts import Counts

LIFE = (SlotState.LOADING, SlotState.READY, SlotState.EMPTY)


def test_transitions_of_slots_that_were_emptied_first_are_forgotten_as_a_whole() -> None:
    counts = Counts()
    counts.transition("m", "stays", SlotState.READY)
    for state in (*LIFE, SlotState.LOADING):
        counts.transition("m", "again", state)
    for number in range(CLOSED_MAX + 1):
        for state in LIFE:
            counts.transition("m", f"s{number}", state)
    kept = {slot for _, slot, _ in counts.transitions}
    assert kept == {"stays", "again", *(f"s{number}" for number in range(1, CLOSED_MAX + 1))}
    assert counts.transitions["m", "again", SlotState.LOADING] == 2
    assert len(counts.transitions) == 1 + 3 + 3 * CLOSED_MAX
