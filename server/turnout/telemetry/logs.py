"""Logs: one line per slot transition and per failed run, on standard error; JSON or console. None per request.

Text from clients is never printed raw: JSON escapes it, and the console renderer prints values as literals.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog

from turnout.core.ids import Revision
from turnout.core.slots import SlotState


def start_logging(level: str, form: str) -> None:
    """Configure the process's logs. `form`: console, json, or auto (console on a terminal)."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks if not console else structlog.processors.ExceptionRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Sink())),
        cache_logger_on_first_use=True,
    )


class _Sink:
    """Standard error, as long as somebody reads it: a reader that has gone must not end what is being logged about."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


class LogObserver:
    """The runtime's Observer, as log lines."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()

    def slot_changed(
        self,
        model: str,
        slot: str,
        state: SlotState,
        revision: Revision | None,
        why: str,
        cause: BaseException | None,
    ) -> None:
        log = self._log.error if state is SlotState.FAILED else self._log.info
        fields = {"model": model, "slot": slot, "state": state.value}
        if revision is not None:
            fields |= {"revision": str(revision), "digest": revision.digest[:12]}
        if why:
            fields["why"] = why
        if cause is not None:
            fields["cause"] = repr(cause)
        log("slot changed", **fields)

    def run_failed(self, revision: Revision, rows: int, error_id: str, error: BaseException) -> None:
        self._log.error("model run failed", revision=str(revision), rows=rows, error_id=error_id, error=str(error))

    def handler_failed(self, method: str, error_id: str, error: BaseException) -> None:
        self._log.error("internal error", method=method, error_id=error_id, exc_info=error)

    def noticed(self, what: str) -> None:
        """What an operator should know and nobody asked about, such as a revision that is gone."""
        self._log.warning("notice", what=what)

    def model_refused(self, model: str, why: str) -> None:
        """A folder of the repository that holds no model which could be loaded at all."""
        self._log.error("model cannot be used", model=model, why=why)

    def event(self, message: str, **fields: object) -> None:
        """Anything of the process itself: started, stopping, stopped."""
        self._log.info(message, **fields)
