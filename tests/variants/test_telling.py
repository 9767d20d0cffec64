"""Progress of offline commands: a bar on a terminal that is taken away again, notes as lines everywhere."""

from __future__ import annotations

import io

import pytest

from turnout.commands.telling import Told, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_notes_are_lines_and_the_bar_is_for_terminals(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with Told.on(stream) as told:
        told.stage("running [b]the version[/b]", 64)
        told.advance(32)
        told.note("search: node '[red]\x1b[0m' costs 1")
    said = stream.getvalue()
    assert "search: node '[red]\\x1b[0m' costs 1\n" in said
    assert ("32/64" in said) == stream.isatty()


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    assert table([("node", "op"), ("a\nb", "MatMul"), ("longer", "")]) == [
        "node    op",
        "a\\nb    MatMul",
        "longer",
    ]
