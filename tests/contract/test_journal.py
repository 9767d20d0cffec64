"""One contract for both journals; then what only the one on disk can show: durability, the lock, faults of the disk."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import pytest

from support.shadows import shadow_rule
from turnout.core.commands import Load, Loaded, SetShadow, SetWeights, Swap
from turnout.core.comparators import Comparator, Method
from turnout.core.control import step
from turnout.core.ids import Revision
from turnout.core.routing import Pin, StickyKey
from turnout.core.snapshot import FORM, Line, Remembered, dump
from turnout.core.traffic import Traffic
from turnout.runtime.ports import Journal, JournalConflict, JournalError
from turnout.store.journal import SCHEMA_VERSION, SqliteJournal, StateDirectoryError
from turnout.store.memory_journal import LINES_MAX, REMEMBER_NS, REQUESTS_MAX, MemoryJournal

Opened = Callable[[], Journal]


@pytest.fixture(params=["memory", "sqlite"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    if request.param == "memory":
        yield MemoryJournal()
        return
    opened = SqliteJournal(tmp_path / "state")
    opened.open()
    yield opened
    opened.close()


def state(model: str = "m", steps: int = 0) -> Traffic:
    """A full state: three slots, a canary, a key, a pin and a shadow rule of its own, something to go back to."""
    now = Traffic(model)
    revisions = [Revision(model, v, "int8" if v == 3 else "", f"{v:064x}") for v in (1, 2, 3)]
    commands = [
        Load("blue", revisions[0]), Loaded("blue"), Swap("blue", 0), Load("green", revisions[1]), Loaded("green"),
        Swap("green", 10**12), Load("red", revisions[2]),
        SetWeights({"green": 9_000, "blue": 1_000}, StickyKey("x-user", "", "salt"), (Pin("a", "b", "blue"),)),
        SetShadow(shadow_rule("blue", 1_000, comparators=(Comparator("y", Method.JS, threshold=0.1),))),
    ]  # fmt: skip
    for command in commands[: steps or None]:
        now = step(now, command, 10**18).state
    return now


def line(model: str = "m", **more: Any) -> Line:
    whole = Line(0, 10**18, model, "route", "blue=10000", "green=10000", "ipv4:1", "why", "swap", "id-1", 7)
    return replace(whole, **more)


def test_what_was_committed_is_read_back(journal: Journal) -> None:
    assert (journal.states(), journal.version("m")) == ({}, 0)
    whole, other = state(), state("other", 2)
    journal.commit(0, whole, [line()])
    journal.commit(0, other, [])
    assert journal.states() == {"m": whole, "other": other}
    assert journal.version("m") == whole.version


def test_a_state_of_another_version_is_not_overwritten(journal: Journal) -> None:
    journal.commit(0, state(steps=1), [line()])
    for wrong in (0, 2):
        with pytest.raises(JournalConflict, match=f"at version 1, not {wrong}"):
            journal.commit(wrong, state(steps=2), [line(), line()], Remembered("id", "f", 1))
    assert journal.states() == {"m": state(steps=1)}
    assert len(journal.lines(None, 10)) == 1
    assert journal.remembered("id", 2) is None
    journal.commit(1, state(steps=2), [])
    assert journal.version("m") == 2


def test_lines_are_numbered_and_read_newest_first(journal: Journal) -> None:
    first = journal.commit(0, state(steps=1), [line(object="slots/blue"), line()])
    journal.commit(0, state("other", 1), [line("other")])
    last = journal.commit(1, state(steps=2), [line(reason="\u00fc'\"")])
    assert [entry.seq for entry in (*first, *last)] == [1, 2, 4]
    assert [entry.seq for entry in journal.lines(None, 10)] == [4, 3, 2, 1]
    assert journal.lines("m", 10) == [*last, first[1], first[0]]
    assert journal.lines("m", 1, before_seq=4) == [first[1]]
    assert [entry.seq for entry in journal.lines(None, 10, since_seq=2)] == [4, 3]
    assert journal.lines("unknown", 10) == []


def test_requests_are_forgotten_with_what_is_written_next_or_not_at_all(journal: Journal) -> None:
    for number, name in enumerate(("a", "b", "c")):
        journal.commit(number, replace(state(), version=number + 1), [], Remembered(name, "f", 1))
    with pytest.raises(JournalConflict):
        journal.commit(0, replace(state(), version=1), [], None, ["a"])
    assert journal.remembered("a", 2) is not None
    journal.commit(3, replace(state(), version=4), [], Remembered("b", "g", 2), ["a", "b", "unknown"])
    assert journal.remembered("a", 3) is None
    assert journal.remembered("b", 3) == Remembered("b", "g", 2), "it came again"
    assert journal.remembered("c", 3) is not None


def test_a_request_is_remembered_with_its_answer_for_a_day(journal: Journal) -> None:
    journal.commit(0, state(steps=1), [], Remembered("id", "f", 1_000))
    assert journal.remembered("id", 2_000) == Remembered("id", "f", 1_000)
    journal.remember_answer("id", b"\0answer")
    journal.remember_answer("unknown", b"x")
    assert journal.remembered("id", 2_000) == Remembered("id", "f", 1_000, b"\0answer")
    assert journal.remembered("unknown", 2_000) is None
    assert journal.remembered("id", 1_000 + REMEMBER_NS) is None
    journal.commit(1, state(steps=2), [], Remembered("id", "g", 1_000 + REMEMBER_NS))
    assert journal.remembered("id", 1_001 + REMEMBER_NS) == Remembered("id", "g", 1_000 + REMEMBER_NS)


def test_both_are_bounded(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("journal", "memory_journal"):
        monkeypatch.setattr(f"turnout.store.{module}.LINES_MAX", 10)
        monkeypatch.setattr(f"turnout.store.{module}.REQUESTS_MAX", 3)
    now = state(steps=1)
    for number in range(20):
        journal.commit(
            journal.version("m"), replace(now, version=number + 1), [line()], Remembered(str(number), "", number)
        )
    assert len(journal.lines(None, 100)) == 10
    assert [n for n in range(20) if journal.remembered(str(n), 20)] == [17, 18, 19]
    assert (LINES_MAX, REQUESTS_MAX) == (100_000, 100_000)


def test_threads_write_at_the_same_time_and_lose_nothing(journal: Journal) -> None:
    """Each call comes on a thread of its own; those of different models do not wait for each other."""
    models = ["a", "b", "c", "d"]
    commits = 500 if isinstance(journal, MemoryJournal) else 50  # enough to show it where there is no lock
    begin = Barrier(len(models))

    def write(model: str) -> None:
        begin.wait(20)
        for number in range(commits):
            request = Remembered(f"{model}-{number}", "f", number)
            journal.commit(number, Traffic(model, version=number + 1), [line(model), line(model)], request)
            journal.remember_answer(request.request_id, b"answer")
            assert len(journal.lines(model, 2)) == 2

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(models)) as threads:
            assert list(threads.map(write, models)) == [None] * len(models)
    finally:
        sys.setswitchinterval(interval)
    written = 2 * commits * len(models)
    assert [entry.seq for entry in journal.lines(None, 2 * written)] == list(range(written, 0, -1))
    assert {model: journal.version(model) for model in models} == dict.fromkeys(models, commits)
    remembered = [journal.remembered(f"{model}-{number}", commits) for model in models for number in range(commits)]
    assert all(found is not None and found.answer == b"answer" for found in remembered)


# What only a disk can show.


def opened(folder: Path, **more: Any) -> SqliteJournal:
    journal = SqliteJournal(folder, **more)
    journal.open()
    return journal


def test_it_is_durable_by_its_pragmas(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    assert journal._connection is not None
    assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    journal.close()


def test_another_opening_finds_it_all(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.commit(0, state(), [line()], Remembered("id", "f", 1, b"a"))
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.states()
    again = opened(tmp_path)
    assert again.states() == {"m": state()}
    assert again.lines(None, 9) == [line(seq=1)]
    assert again.remembered("id", 2) == Remembered("id", "f", 1, b"a")
    again.close()


def test_a_second_server_is_refused(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    with pytest.raises(
        StateDirectoryError, match=rf"in use by another server \(process {os.getpid()}\): stop that one"
    ):
        opened(tmp_path)
    journal.close()
    opened(tmp_path).close()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from turnout.store.journal import SqliteJournal; "
        "SqliteJournal(Path(sys.argv[1])).open(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -9
    opened(tmp_path).close()


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0])
def test_a_journal_of_another_schema_is_refused(tmp_path: Path, version: int) -> None:
    opened(tmp_path).close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as other:
        other.execute(f"PRAGMA user_version = {version}")
    other.close()
    with pytest.raises(StateDirectoryError, match=f"schema version {version}, this server knows {SCHEMA_VERSION}"):
        opened(tmp_path)
    assert not _locked(tmp_path)


def test_what_is_no_database_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(StateDirectoryError, match="restore it from a backup"):
        opened(tmp_path)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDirectoryError, match="choose another --state-dir"):
        opened(tmp_path / "file")


def test_a_state_that_cannot_be_read_names_the_model(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.commit(0, state(), [])
    assert journal._connection is not None
    for text in ("{}", dump(state()).replace(f'"form":{FORM}', '"form":99')):
        journal._connection.execute("UPDATE models SET state = ?", (text,))
        with pytest.raises(JournalError, match="state of model 'm' cannot be read"):
            journal.states()
    journal.close()


class Faulty(sqlite3.Connection):
    """Fails as a disk does, at the n-th statement that begins with a word; `after`: once it has done its work."""

    word, nth, after = "COMMIT", 0, False

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:  # type: ignore[override]
        mine = sql.startswith(Faulty.word)
        if mine:
            Faulty.nth -= 1
        if mine and Faulty.nth == 0 and not Faulty.after:
            raise sqlite3.OperationalError("disk I/O error")
        cursor = super().execute(sql, *values)
        if mine and Faulty.nth == 0:
            raise sqlite3.OperationalError("disk I/O error")
        return cursor


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("word", ["BEGIN", "SELECT", "INSERT", "DELETE", "COMMIT"])
def test_a_fault_at_any_statement_leaves_the_old_state_or_the_new(
    tmp_path: Path, word: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "word", word)
    monkeypatch.setattr(Faulty, "after", after)
    monkeypatch.setattr(Faulty, "nth", 0)
    journal = opened(tmp_path, connection=Faulty)
    journal.commit(0, state(steps=1), [line()])
    for nth in range(1, 10):
        before = journal.states()["m"]
        wanted = replace(before, version=before.version + 1, changes=nth)
        Faulty.nth = nth
        try:
            journal.commit(before.version, wanted, [line(), line()], Remembered(str(nth), "f", nth))
        except JournalError as error:
            assert "disk I/O error" in str(error)
            Faulty.nth = 0
            now = journal.states()["m"]
            assert now in (before, wanted)
            assert (now == wanted) == (after and word == "COMMIT"), "only then it was too late to fail"
            assert (journal.remembered(str(nth), nth + 1) is not None) == (now == wanted)
        else:
            break
        finally:
            Faulty.nth = 0
    else:
        raise AssertionError("it never stopped to fail")
    assert nth > 1, "it failed at least once"
    journal.commit(journal.version("m"), replace(state(), version=99), [])
    journal.close()


def test_a_full_disk_loses_nothing_and_ends(tmp_path: Path) -> None:
    """A real write that fails: no file of this process may grow."""
    journal = opened(tmp_path)
    kept = 0
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, hard))
    try:
        with pytest.raises(JournalError, match="journal cannot be written"):
            for number in range(1, 100):
                journal.commit(number - 1, replace(state(), version=number), [line(reason="x" * 1_000)])
                kept = number
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 0 < kept < 99
    assert journal.version("m") == kept
    assert len(journal.lines(None, 1_000)) == kept
    journal.commit(kept, replace(state(), version=kept + 1), [line()])
    journal.close()
    again = opened(tmp_path)
    assert again.version("m") == kept + 1
    again.close()


class Hung(sqlite3.Connection):
    """A disk that hangs at the commit of a write, once it is `armed`, until it is `freed`."""

    armed, reached, freed = Event(), Event(), Event()

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:  # type: ignore[override]
        if sql == "COMMIT" and Hung.armed.is_set():
            Hung.reached.set()
            assert Hung.freed.wait(60)
        return super().execute(sql, *values)


def test_a_disk_that_hangs_does_not_keep_who_closes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("armed", "reached", "freed"):
        monkeypatch.setattr(Hung, name, Event())
    monkeypatch.setattr("turnout.store.journal._CLOSE_S_MAX", 0.01)
    journal = opened(tmp_path, connection=Hung)
    Hung.armed.set()
    writing = Thread(target=journal.commit, args=(0, state(steps=1), []), daemon=True)
    closing = Thread(target=journal.close, daemon=True)
    writing.start()
    try:
        assert Hung.reached.wait(20)
        closing.start()
        closing.join(20)
        assert not closing.is_alive()
        assert _locked(tmp_path), "what hangs may yet write"
    finally:
        Hung.freed.set()
    writing.join(20)
    assert journal.version("m") == 1
    journal.close()
    assert not _locked(tmp_path)


def _locked(folder: Path) -> bool:
    try:
        opened(folder).close()
    except StateDirectoryError as error:
        return "in use" in str(error)
    return False
