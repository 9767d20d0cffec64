"""The start-up table: names and reasons are shown as they are, and cannot do anything to who reads them."""

from __future__ import annotations

import pytest

from turnout.app import Started
from turnout.banner import announce
from turnout.config import Config
from turnout.runtime.fleet import Fleet, Model


def table(capsys: pytest.CaptureFixture[str], *models: Model) -> list[str]:
    fleet = Fleet()
    for model in models:
        fleet.add(model)
    announce(Started(Config(), fleet, 8001, 1 << 22))
    return capsys.readouterr().out.splitlines()


def test_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    lines = table(capsys, Model("[bold]m[/bold]", problem="'[red]x' is no file"))
    assert lines[2].split()[:4] == ["[bold]m[/bold]", "-", "-", "FAILED"]
    assert lines[3] == "note  [bold]m[/bold]: '[red]x' is no file"


def test_a_repository_s_path_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    announce(Started(Config.model_validate({"model_repository": "/srv/[1]"}), Fleet(), 8001, 1 << 22))
    assert capsys.readouterr().out.splitlines()[0].endswith(": models of /srv/[1]")


def test_a_note_is_one_line_however_long_and_whatever_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = table(capsys, Model("m", problem=f"\x1b[31m\nready: 203.0.113.1:1 {'long ' * 100}"))
    assert [line for line in lines if line.startswith("ready: ")] == ["ready: 0.0.0.0:8001"]
    (note,) = [line for line in lines if line.startswith("note  ")]
    assert note.startswith(r"note  m: \x1b[31m\nready: 203.0.113.1:1 long") and len(note) > 500


def test_a_server_that_serves_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    lines = table(capsys, Model("m"))
    assert lines[2].split()[:4] == ["m", "-", "-", "EMPTY"]
    assert lines[3] == "nothing is served: no slot is READY, load one"
