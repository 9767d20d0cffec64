"""A log whose reader stalls, and one whose reader comes back."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
import structlog

from turnout.telemetry.logs import LogObserver, start_logging
from turnout.telemetry.standard_error import LineWriter, write_descriptor


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


class Reader:
    """Reads nothing until it is let."""

    def __init__(self) -> None:
        self.reads = threading.Event()
        self.waits = threading.Event()
        self.lines: list[str] = []

    def take(self, text: str) -> None:
        self.waits.set()
        assert self.reads.wait(20)
        self.lines.append(text)


def test_what_is_written_before_the_end_is_read() -> None:
    reader = Reader()
    reader.reads.set()
    writer = LineWriter(reader.take)
    writer.start()
    for number in range(1000):
        writer.write(f"{number}\n")
    writer.stop(20)
    assert reader.lines == [f"{number}\n" for number in range(1000)]


def test_a_reader_that_stalls_holds_up_nobody_and_is_told_what_it_missed() -> None:
    reader = Reader()
    writer = LineWriter(reader.take, lines_max=3)
    start_logging("error", "json", out=writer)
    writer.start()
    log = LogObserver()
    log.model_refused("first", "?")
    assert reader.waits.wait(20)
    for number in range(10):
        log.model_refused(f"m{number}", "?")
    reader.reads.set()
    writer.stop(20)
    told = "".join(reader.lines)
    assert [f"m{number}" in told for number in range(10)] == [True] * 3 + [False] * 7
    [notice] = [line for line in reader.lines if "dropped" in line]
    assert '"lines": 7' in notice and all(line.endswith("\n") for line in reader.lines)


@pytest.mark.parametrize("more", [0, 5])
def test_the_end_waits_for_a_stalled_reader_only_so_long(more: int) -> None:
    reader = Reader()
    writer = LineWriter(reader.take, lines_max=2)
    start_logging("error", "json", out=writer)
    writer.start()
    writer.write("first")
    assert reader.waits.wait(20)
    for _ in range(more):
        writer.write("more")
    started_s = time.monotonic()
    writer.stop(0.05)
    assert time.monotonic() - started_s < 10
    reader.reads.set()


def test_a_reader_that_has_gone_ends_nothing() -> None:
    tried = []

    def take(text: str) -> None:
        tried.append(text)
        raise BrokenPipeError

    writer = LineWriter(take)
    writer.start()
    writer.write("nobody reads this")
    writer.write("or this")
    writer.stop(20)
    assert tried == ["nobody reads this", "or this"]


def test_a_long_line_is_written_as_a_whole() -> None:
    read, write = os.pipe()
    writer = LineWriter(write_descriptor(write))
    writer.start()
    text = "\u00e4\ud800" + "x" * 200_000 + "\n"  # more than a pipe holds; a lone surrogate is escaped
    writer.write(text)
    with os.fdopen(read, "rb") as reader:
        got = reader.readline()
    assert got == text.encode(errors="backslashreplace")
    writer.stop(20)
    os.close(write)
