"""An Observer that lets somebody else know of slots that change, too: who counts them, who tells of them."""

from __future__ import annotations

from collections.abc import Callable

from turnout.core.ids import Revision
from turnout.core.slots import SlotState
from turnout.runtime.ports import Observer


class Overheard:
    """Args:
    heard: takes model, slot and state after the observer.
    """

    def __init__(self, observer: Observer, heard: Callable[[str, str, SlotState], None]) -> None:
        self._observer = observer
        self._heard = heard
        self.run_failed = observer.run_failed
        self.handler_failed = observer.handler_failed
        self.noticed = observer.noticed

    def slot_changed(
        self,
        model: str,
        slot: str,
        state: SlotState,
        revision: Revision | None,
        why: str,
        cause: BaseException | None,
    ) -> None:
        self._observer.slot_changed(model, slot, state, revision, why, cause)
        self._heard(model, slot, state)
