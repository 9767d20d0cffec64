"""Logs: one line per slot transition and per failed run (up to ten a second), on standard error; JSON or console. None
per request.

Text from clients is never printed raw: JSON escapes it, and the console renderer prints values as literals. Where logs
are exported, each line goes there too.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any, Protocol, TextIO, cast

import structlog

from turnout.core.ids import Revision
from turnout.core.slots import SlotState
from turnout.core.tracing import Allowance, TraceContext
from turnout.runtime.ports import ClockNs, EventLog, Severity
from turnout.telemetry import names
from turnout.telemetry.instruments import MODEL, REVISION, SLOT, STATE
from turnout.telemetry.masking import Mask
from turnout.telemetry.pipeline import NoEvents, WriteLine

_FAILURES_PER_S_MAX = 10  # of runs: a model that always fails must not fill the disk
_REPEAT_S = 60.0  # an exporter that fails says so at every attempt


class Out(Protocol):
    """Where lines go."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...


def start_logging(
    level: str, form: str, write_line: WriteLine | None = None, mask: Mask = str, out: Out | None = None
) -> None:
    """Configure the process's logs. `form`: console, json, or auto (console on a terminal). `write_line` is given each
    line too, but those that are about exporting it. `mask`: of what the SDK says. `out`: standard error by default,
    which is waited for."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    # Without what variables held: that may be a client's data, or its credentials.
    as_fields = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    traceback = (
        structlog.processors.ExceptionRenderer(as_fields) if not console else structlog.processors.format_exc_info
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _Export(write_line),
            traceback,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, out or _Sink())),
        cache_logger_on_first_use=True,
    )
    for name in ("opentelemetry", "urllib3"):
        library = logging.getLogger(name)
        library.handlers = [_Exporting(mask)]
        library.propagate = False


class _Export:
    """Hands on a line, unless it has `export=False`."""

    def __init__(self, write_line: WriteLine | None) -> None:
        self._write_line = write_line

    def __call__(self, _: Any, level: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if fields.pop("export", True) and self._write_line is not None:
            with contextlib.suppress(Exception):  # the line itself must come out
                self._write_line(level, fields)
        return fields


class _Exporting(logging.Handler):
    """What the SDK says of its exports, as lines of the log; the same thing once a minute. Never exported itself: where
    exports fail, each would be one more."""

    def __init__(self, mask: Mask) -> None:
        super().__init__(logging.WARNING)
        self._mask = mask
        self._said_s: dict[tuple[str, int], float] = {}  # by the place in the SDK's source: there are only so many
        self._log = structlog.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        place, now_s = (record.pathname, record.lineno), time.monotonic()
        if now_s - self._said_s.get(place, -_REPEAT_S) < _REPEAT_S:
            return
        self._said_s[place] = now_s
        what = self._mask(record.getMessage())[:500]
        self._log.warning("telemetry is not exported as it should be", what=what, export=False)


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

    def __init__(self, events: EventLog | None = None, clock_ns: ClockNs = time.monotonic_ns) -> None:
        self._log = structlog.get_logger()
        self._events = events or NoEvents()
        self._clock_ns = clock_ns
        self._failures = Allowance(_FAILURES_PER_S_MAX, clock_ns())
        self._left_out = 0  # of them, already told

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
        log("slot changed", **fields, export=False)
        attributes: dict[str, str | int | float | bool] = {MODEL: model, SLOT: slot, STATE: state.value}
        if revision is not None:
            attributes |= {REVISION: str(revision), names.DIGEST: revision.digest}
        if why:
            attributes[names.SLOT_REASON] = why
        failed = state is SlotState.FAILED
        self._events.emit(names.SLOT_EVENT, Severity.ERROR if failed else Severity.INFO, attributes)

    def run_failed(
        self, revision: Revision, rows: int, error_id: str, error: BaseException, trace: TraceContext | None = None
    ) -> None:
        if not self._failures.take(self._clock_ns()):
            return
        fields: dict[str, str | int] = {
            "revision": str(revision),
            "rows": rows,
            "error_id": error_id,
            "error": str(error),
        }
        if left_out := self._failures.refused - self._left_out:
            fields["left_out"] = left_out
            self._left_out = self._failures.refused
        self._log.error("model run failed", **fields, **_ids(trace))

    def handler_failed(
        self, method: str, error_id: str, error: BaseException, trace: TraceContext | None = None
    ) -> None:
        self._log.error("internal error", method=method, error_id=error_id, exc_info=error, **_ids(trace))

    def noticed(self, what: str) -> None:
        """What an operator should know and nobody asked about, such as a revision that is gone."""
        self._log.warning("notice", what=what)

    def model_refused(self, model: str, why: str) -> None:
        """A folder of the repository that holds no model which could be loaded at all."""
        self._log.error("model cannot be used", model=model, why=why)

    def event(self, message: str, **fields: object) -> None:
        """Anything of the process itself: started, stopping, stopped."""
        self._log.info(message, **fields)


def _ids(trace: TraceContext | None) -> dict[str, str]:
    """As OpenTelemetry names them in logs of other formats."""
    return {} if trace is None else dict(zip(("trace_id", "span_id"), trace.ids, strict=True))
