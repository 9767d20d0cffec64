"""Servers that are fakes: one for most tests, a second where several replicas are meant."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.fake_admin import FakeAdmin, serving


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAdmin]:
    with serving(FakeAdmin.digits()) as running:
        monkeypatch.setenv("TURNOUTCTL_ENDPOINT", running.address)
        monkeypatch.setenv("COLUMNS", "80")
        yield running


@pytest.fixture
def second() -> Iterator[FakeAdmin]:
    with serving(FakeAdmin.digits()) as running:
        yield running
