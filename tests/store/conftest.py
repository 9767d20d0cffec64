"""What tests of the repository on disk share."""

from __future__ import annotations

import hashlib

import pytest


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The files that are read to be hashed from now on."""
    read: list[object] = []
    real = hashlib.file_digest

    def counting(file: object, name: str) -> object:
        read.append(file)
        return real(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", counting)
    return read
