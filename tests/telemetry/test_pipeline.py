"""The end of telemetry within its deadline, metrics that are pushed, and log lines that are handed on."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.resources import Resource

from turnout.core.ids import Revision
from turnout.core.slots import SlotState
from turnout.core.tracing import TraceContext
from turnout.runtime.ports import Severity
from turnout.runtime.tracing import NO_TRACER
from turnout.telemetry.instruments import QUEUE_LIMIT, THREADS
from turnout.telemetry.logs import LogObserver, start_logging
from turnout.telemetry.masking import new_mask
from turnout.telemetry.pipeline import Limits, Pipeline, open_pipeline
from turnout.telemetry.push import Pusher, Schedule
from turnout.telemetry.readings import Reading, Value
from turnout.telemetry.settings import Settings

LIMITS = Limits(10**9, 10)


async def test_one_deadline_for_all_that_is_shut_down() -> None:
    release, ended = threading.Event(), []
    pipeline = Pipeline(shutdowns=[release.wait, release.wait, lambda: ended.append(1)])
    started = time.monotonic()
    assert not await pipeline.stop(0.05)
    assert time.monotonic() - started < 5 and ended == [1]
    release.set()


async def test_an_end_that_fails_is_an_end() -> None:
    def broken() -> None:
        raise RuntimeError

    assert await Pipeline(shutdowns=[broken]).stop(20)
    assert await Pipeline().stop(20)


def test_without_settings_nothing_is_built() -> None:
    pipeline = open_pipeline(Settings({}), LIMITS, "s")
    assert pipeline.tracer is NO_TRACER and pipeline.write_line is None and not pipeline.shutdowns


class Kept(MetricExporter):
    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []
        self.ended = False
        self.got = threading.Event()

    def export(self, metrics_data: Any, timeout_millis: float = 0, **_: Any) -> MetricExportResult:
        [metric] = metrics_data.resource_metrics[0].scope_metrics[0].metrics
        self.values.append(metric.data.data_points[0].value)
        self.got.set()
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        self.ended = True


async def test_metrics_are_read_on_the_loop_and_sent_beside_it() -> None:
    kept, threads = Kept(), set()
    numbers = iter(range(1, 10**6))

    def take() -> list[Reading]:
        threads.add(threading.get_ident())
        number = next(numbers)
        if number == 1:
            raise RuntimeError("not yet")
        return [Reading(QUEUE_LIMIT, (Value((), number),))]

    pusher = Pusher([kept], Resource.get_empty(), Schedule(0.001, 1.0), time.time_ns)
    pusher.start(take, lambda: [])
    assert await asyncio.to_thread(kept.got.wait, 20)
    await asyncio.to_thread(pusher.shutdown)
    assert threads == {threading.get_ident()}
    assert kept.values == list(range(2, 2 + len(kept.values))), "a reading that fails costs one interval"
    assert kept.ended


async def test_what_came_last_is_sent_at_the_end() -> None:
    kept = Kept()
    pusher = Pusher([kept], Resource.get_empty(), Schedule(3600.0, 1.0), time.time_ns)
    pusher.start(lambda: [Reading(QUEUE_LIMIT, (Value((), 5),))], lambda: [])
    await asyncio.to_thread(pusher.shutdown)
    assert kept.values == [5]


async def test_what_takes_time_to_read_is_read_beside_the_loop() -> None:
    kept, threads = Kept(), set()

    def take_slow() -> list[Reading]:
        threads.add(threading.get_ident())
        return [Reading(THREADS, (Value((), 7),))]

    pusher = Pusher([kept], Resource.get_empty(), Schedule(3600.0, 1.0), time.time_ns)
    pusher.start(lambda: [], take_slow)
    await asyncio.to_thread(pusher.shutdown)
    assert kept.values == [7]
    assert threading.get_ident() not in threads


@pytest.fixture
def written() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    lines: list[tuple[str, dict[str, Any]]] = []

    def write_line(level: str, fields: MutableMapping[str, Any]) -> None:
        lines.append((level, dict(fields)))
        if fields["event"] == "broken":
            raise RuntimeError

    start_logging("info", "json", write_line)
    try:
        yield lines
    finally:
        forget_logging()


def forget_logging() -> None:
    structlog.reset_defaults()
    for name in ("opentelemetry", "urllib3"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True


def shown(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


REVISION = Revision("m", 1, "", "d" * 64)


def test_each_line_is_handed_on(written: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    observer = LogObserver()
    observer.event("serving", port=1)
    observer.event("broken")
    observer.run_failed(REVISION, 3, "e1", ValueError("x"), TraceContext(0xAB, 0xCD))
    observer.handler_failed("ModelInfer", "e2", ValueError("y"))
    lines = shown(capsys)
    assert [line["event"] for line in lines] == ["serving", "broken", "model run failed", "internal error"]
    assert [(level, fields["event"]) for level, fields in written] == [(x["level"], x["event"]) for x in lines]
    assert (lines[2]["trace_id"], lines[2]["span_id"]) == (f"{0xAB:032x}", f"{0xCD:016x}")
    assert "trace_id" not in lines[3]
    assert isinstance(written[3][1]["exc_info"], ValueError)


def test_a_slots_change_is_a_line_and_an_event(written: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    class Events:
        def __init__(self) -> None:
            self.told: list[Any] = []

        def emit(self, *what: Any) -> None:
            self.told.append(what)

    events = Events()
    LogObserver(events).slot_changed("m", "blue", SlotState.FAILED, REVISION, "no", None)
    [line] = shown(capsys)
    assert line["event"] == "slot changed" and "export" not in line
    assert not written, "the event tells it"
    [(name, severity, attributes)] = events.told
    assert (name, severity) == ("turnout.transition", Severity.ERROR)
    assert attributes["turnout.slot.state"] == "FAILED" and attributes["turnout.revision.digest"] == "d" * 64


def test_what_the_sdk_says_comes_once_a_minute_and_is_not_exported(
    written: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        logging.getLogger("opentelemetry.exporter").error("cannot reach %s", number)
    logging.getLogger("opentelemetry.exporter").warning("something else")
    lines = shown(capsys)
    assert [line["what"] for line in lines] == ["cannot reach 0", "something else"]
    assert not written


def test_what_the_sdk_quotes_of_headers_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging("info", "json", mask=new_mask({"OTEL_EXPORTER_OTLP_HEADERS": "api-key: TOKEN1"}))
    try:
        logging.getLogger("opentelemetry.util.re").warning("Header format invalid! Header: %s", "api-key: TOKEN1")
        [line] = shown(capsys)
    finally:
        forget_logging()
    assert line["what"] == "Header format invalid! Header: ***"


async def test_what_an_exporter_fails_with_is_masked(written: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    class Quoting(Kept):
        def export(self, metrics_data: Any, timeout_millis: float = 0, **_: Any) -> MetricExportResult:
            raise ValueError("Invalid header value: 'TOKEN1\n'")

    mask = new_mask({"OTEL_EXPORTER_OTLP_HEADERS": "api-key=TOKEN1%0A"})
    pusher = Pusher([Quoting()], Resource.get_empty(), Schedule(3600.0, 1.0), time.time_ns, mask)
    pusher.start(lambda: [], lambda: [])
    await asyncio.to_thread(pusher.shutdown)
    [line] = shown(capsys)
    assert "Invalid header value" in line["error"] and "TOKEN1" not in line["error"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_does_not_have_what_variables_held(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        credentials = "Bearer" + " TOKEN" + "1"
        raise KeyError(len(credentials))

    start_logging("info", form)
    try:
        try:
            fail()
        except KeyError as error:
            LogObserver().handler_failed("ModelInfer", "e1", error)
    finally:
        forget_logging()
    told = capsys.readouterr().err
    assert "internal error" in told and "KeyError" in told and "in fail" in told.replace('"name": "', "in ")
    assert "TOKEN1" not in told


def test_of_runs_that_fail_ten_a_second_are_told_and_the_others_counted(
    written: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    now_ns = 0
    observer = LogObserver(clock_ns=lambda: now_ns)
    for number in range(100):
        observer.run_failed(REVISION, 1, f"e{number}", ValueError("x"))
    now_ns = 100_000_000
    for _ in range(2):
        observer.run_failed(REVISION, 1, "later", ValueError("x"))
    now_ns = 200_000_000
    observer.run_failed(REVISION, 1, "last", ValueError("x"))
    lines = shown(capsys)
    assert [line["error_id"] for line in lines] == [f"e{number}" for number in range(10)] + ["later", "last"]
    assert [line.get("left_out") for line in lines] == [None] * 10 + [90, 1]
    assert len(written) == len(lines)
