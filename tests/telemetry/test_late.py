"""A source that hangs, and who reads it meanwhile."""

from __future__ import annotations

import threading

import pytest

from turnout.telemetry import instruments as i
from turnout.telemetry import late
from turnout.telemetry.late import LateReadings
from turnout.telemetry.readings import Reading, Value

S = 10**9


class Driver:
    """Answers with how often it was asked, when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.now_ns = 100 * S
        self.let = threading.Event()
        self.let.set()
        self.error: Exception | None = None
        self.late = LateReadings(self, lambda: self.now_ns)

    def __call__(self) -> list[Reading]:
        self.asked += 1
        self.let.wait(20)
        if self.error is not None:
            raise self.error
        return [Reading(i.UPTIME, (Value((), self.asked),))]

    def read(self) -> list[float]:
        return [point.value for reading in self.late() for point in reading.points if isinstance(point, Value)]


def test_an_answer_in_time() -> None:
    driver = Driver()
    assert [driver.read(), driver.read()] == [[1], [2]]


def test_one_that_hangs_is_asked_once_and_its_last_answer_used_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "_WAIT_S_MAX", 0.05)
    driver = Driver()
    assert driver.read() == [1]
    driver.let.clear()
    assert driver.read() == [1], "waits, and gives up"
    monkeypatch.setattr(late, "_WAIT_S_MAX", 20.0)
    assert driver.read() == [1], "does not wait again"
    assert driver.asked == 2
    driver.now_ns += 60 * S
    assert driver.read() == []
    asked = driver.late._asked
    driver.let.set()
    assert asked is not None
    asked.result(20)
    assert driver.read() == [3]


def test_one_that_hangs_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "_WAIT_S_MAX", 0.05)
    driver = Driver()
    driver.let.clear()
    assert driver.read() == []
    driver.let.set()


def test_one_that_is_always_late_is_heard_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "_WAIT_S_MAX", 0.05)
    driver = Driver()
    driver.let.clear()
    assert driver.read() == []
    asked = driver.late._asked
    driver.let.set()
    assert asked is not None
    asked.result(20)
    driver.let.clear()
    assert driver.read() == [1]
    driver.let.set()


def test_what_it_raises_is_raised_and_it_is_asked_again() -> None:
    driver = Driver()
    driver.error = OSError("of the driver")
    with pytest.raises(OSError, match="of the driver"):
        driver.read()
    driver.error = None
    assert driver.read() == [2]
