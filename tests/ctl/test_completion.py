"""Shell completion asks the server for names, and stays silent where none answers."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from support.command import turnoutctl
from support.fake_admin import FakeAdmin, revision
from turnout.core.commands import Load
from turnout_client.ctl.main import turnoutctl as command


def completed(*words: str) -> list[str]:
    shell = ShellComplete(command, {}, "turnoutctl", "_TURNOUTCTL_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    assert "_TURNOUTCTL_COMPLETE" in turnoutctl("completion", shell).stdout


def test_commands_models_slots_revisions_and_shares(fake: FakeAdmin) -> None:
    fake.do("digits", Load("green", revision("digits", 2)))
    assert completed("sw") == ["swap"]
    assert completed("swap", "") == ["digits"] and completed("swap", "x") == []
    assert completed("swap", "digits", "") == ["blue", "green"]
    assert completed("load", "digits", "green", "digits/") == ["digits/1", "digits/2", "digits/3"]
    assert completed("shadow", "") == ["clear", "set", "watch"]
    assert completed("shadow", "set", "digits", "g") == ["green"]
    assert completed("shadow", "watch", "") == completed("feedback", "") == ["digits"]
    assert completed("weights", "digits", "g") == ["green="]
    assert completed("weights", "digits", "green=10%", "b") == ["blue="]


def test_the_endpoint_that_was_typed_is_asked(fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TURNOUTCTL_ENDPOINT")
    assert completed("-e", fake.address, "swap", "") == ["digits"]


@pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "nonsense"])
def test_a_server_that_does_not_answer_completes_nothing(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUTCTL_ENDPOINT", endpoint)
    assert completed("swap", "") == []
