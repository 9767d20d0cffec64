"""The journal's lines as events, for those who collect them: who changed what of which model, and why."""

from __future__ import annotations

from turnout.runtime.events import Events
from turnout.runtime.ports import EventLog, Severity
from turnout.telemetry import names
from turnout.telemetry.instruments import MODEL


class Transitions:
    """Listens to the last changes; on the loop thread."""

    def __init__(self, events: Events, log: EventLog) -> None:
        self._events = events
        self._log = log
        self._seq = events.last

    def __call__(self) -> None:
        for event in self._events.after(self._seq):
            self._seq = event.seq
            line = event.line
            if line is None:
                continue
            self._log.emit(
                names.JOURNAL_EVENT,
                Severity.INFO,
                {
                    MODEL: line.model,
                    names.TRANSITION_SEQ: line.seq,
                    names.TRANSITION_OBJECT: line.object,
                    names.TRANSITION_FROM: line.from_state,
                    names.TRANSITION_TO: line.to_state,
                    names.TRANSITION_ACTOR: line.actor,
                    names.SLOT_REASON: line.reason,
                    names.TRANSITION_CAUSE: line.cause,
                    names.REQUEST_ID: line.request_id,
                    names.GENERATION: line.generation,
                },
            )
