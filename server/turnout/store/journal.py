"""The journal in a state directory: one SQLite database, and a lock that keeps a second server out.

Write-ahead log with `synchronous=FULL`: a commit that has returned outlasts a crash of the machine, where NORMAL could
lose the last ones. Each method is one transaction.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields, replace
from pathlib import Path
from threading import Lock

from turnout.core.snapshot import Line, Remembered, dump, load
from turnout.core.traffic import Traffic
from turnout.runtime.ports import JournalConflict, JournalError
from turnout.store.memory_journal import LINES_MAX, REMEMBER_NS, REQUESTS_MAX

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x7475726E  # "turn"
_FILE = "journal.sqlite"
_LOCK = "lock"
_BUSY_S_MAX = 5.0  # for readers such as a backup
_CLOSE_S_MAX = 0.5  # for a call that is under way

_SCHEMA = """
CREATE TABLE models (model TEXT PRIMARY KEY, version INTEGER NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE transitions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, model TEXT NOT NULL, object TEXT NOT NULL,
    from_state TEXT NOT NULL, to_state TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL, cause TEXT NOT NULL,
    request_id TEXT NOT NULL, generation INTEGER NOT NULL
);
CREATE INDEX transitions_of_model ON transitions (model, seq);
CREATE TABLE request_ids (
    request_id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, time_ns INTEGER NOT NULL, answer BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX request_ids_by_time ON request_ids (time_ns);
"""
_COLUMNS = [field.name for field in fields(Line)]
_INSERT = f"INSERT INTO transitions ({', '.join(_COLUMNS[1:])}) VALUES ({', '.join('?' * len(_COLUMNS[1:]))})"  # noqa: S608
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM transitions"  # noqa: S608


class StateDirectoryError(Exception):
    """The state directory cannot be used; the message says why and what to do."""


class SqliteJournal:
    """The runtime's Journal on disk. `open()` before anything else; the methods may be called on any thread.

    Args:
        folder: the state directory; made where it is not there.
        connection: what SQLite connections are made of; tests inject faults there.
    """

    def __init__(self, folder: Path, connection: type[sqlite3.Connection] = sqlite3.Connection) -> None:
        self._folder = folder
        self._factory = connection
        self._lock_fd = -1
        self._connection: sqlite3.Connection | None = None
        self._turn = Lock()

    def open(self) -> None:
        """Take the lock, and make or check the database.

        Raises:
            StateDirectoryError: another process has it, it cannot be written, or a newer Turnout wrote it.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise StateDirectoryError(
                f"state directory '{self._folder}' cannot be used: {error.strerror}; choose another --state-dir"
            ) from error
        try:
            self._connection = self._connect()
        except (sqlite3.Error, StateDirectoryError) as error:
            self.close()
            if isinstance(error, StateDirectoryError):
                raise
            raise StateDirectoryError(
                f"the journal in state directory '{self._folder}' cannot be opened: {error}; restore it from a backup, "
                "or move it away to start without history"
            ) from error

    def _take_lock(self) -> None:
        fd = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            raise StateDirectoryError(
                f"state directory '{self._folder}' is in use by another server"
                + (f" (process {owner})" if owner else "")
                + ": stop that one, or choose another --state-dir"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = fd

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._folder / _FILE,
            timeout=_BUSY_S_MAX,
            isolation_level=None,
            check_same_thread=False,
            factory=self._factory,
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            _migrate(connection, self._folder)
        except BaseException:
            connection.close()
            raise
        return connection

    def states(self) -> dict[str, Traffic]:
        with self._transaction() as connection:
            rows = connection.execute("SELECT model, state FROM models ORDER BY model").fetchall()
        states = {}
        for model, text in rows:
            try:
                states[model] = load(text)
            except ValueError as error:
                raise JournalError(f"the journal's state of model '{model}' cannot be read: {error}") from error
        return states

    def version(self, model: str) -> int:
        with self._transaction() as connection:
            return _version(connection, model)

    def commit(
        self,
        expected: int,
        state: Traffic,
        lines: Sequence[Line],
        request: Remembered | None = None,
        forget: Sequence[str] = (),
    ) -> list[Line]:
        with self._transaction(write=True) as connection:
            if (found := _version(connection, state.model)) != expected:
                raise JournalConflict(f"model '{state.model}' is at version {found}, not {expected}")
            connection.execute(
                "INSERT INTO models VALUES (?, ?, ?) "
                "ON CONFLICT (model) DO UPDATE SET version = excluded.version, state = excluded.state",
                (state.model, state.version, dump(state)),
            )
            numbered = []
            for line in lines:
                seq = connection.execute(_INSERT, astuple(line)[1:]).lastrowid or 0
                numbered.append(replace(line, seq=seq))
            if numbered:
                connection.execute("DELETE FROM transitions WHERE seq <= ?", (numbered[-1].seq - LINES_MAX,))
            for request_id in forget:
                connection.execute("DELETE FROM request_ids WHERE request_id = ?", (request_id,))
            if request is not None:
                _remember(connection, request)
        return numbered

    def remembered(self, request_id: str, now_ns: int) -> Remembered | None:
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT request_id, fingerprint, time_ns, answer FROM request_ids WHERE request_id = ? AND time_ns > ?",
                (request_id, now_ns - REMEMBER_NS),
            ).fetchone()
        return Remembered(*row) if row else None

    def remember_answer(self, request_id: str, answer: bytes) -> None:
        with self._transaction(write=True) as connection:
            connection.execute("UPDATE request_ids SET answer = ? WHERE request_id = ?", (answer, request_id))

    def lines(self, model: str | None, limit: int, before_seq: int | None = None, since_seq: int = 0) -> list[Line]:
        before = before_seq if before_seq is not None else 2**63 - 1
        where, values = "WHERE seq > ? AND seq < ?", [since_seq, before]
        named = [model] if model is not None else []
        with self._transaction() as connection:
            rows = connection.execute(
                f"{_SELECT} {where}{' AND model = ?' if named else ''} ORDER BY seq DESC LIMIT ?",
                [*values, *named, limit],
            ).fetchall()
        return [Line(*row) for row in rows]

    def close(self) -> None:
        """Give the directory free. A second call does nothing.

        A call that hangs in the disk keeps the connection and the lock, to the process's end: who stops cannot wait for
        it, and another server must not write beside it.
        """
        if not self._turn.acquire(timeout=_CLOSE_S_MAX):
            return
        try:
            if self._connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.close()
                self._connection = None
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1
        finally:
            self._turn.release()

    @contextmanager
    def _transaction(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; SQLite's errors as the port's."""
        with self._turn:
            connection = self._connection
            if connection is None:
                raise JournalError("the journal is closed")
            try:
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise JournalError(f"the journal cannot be {'written' if write else 'read'}: {error}") from error
                raise


def _migrate(connection: sqlite3.Connection, folder: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if version == SCHEMA_VERSION and application == _APPLICATION_ID:
        return
    if version or application:
        raise StateDirectoryError(
            f"the journal in state directory '{folder}' has schema version {version}, this server knows "
            f"{SCHEMA_VERSION}: start the Turnout that wrote it, or choose another --state-dir"
        )
    connection.executescript(
        f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; "
        f"PRAGMA application_id = {_APPLICATION_ID}; COMMIT;"
    )


def _version(connection: sqlite3.Connection, model: str) -> int:
    row = connection.execute("SELECT version FROM models WHERE model = ?", (model,)).fetchone()
    return int(row[0]) if row else 0


def _remember(connection: sqlite3.Connection, request: Remembered) -> None:
    connection.execute("DELETE FROM request_ids WHERE time_ns <= ?", (request.time_ns - REMEMBER_NS,))
    connection.execute(
        "DELETE FROM request_ids WHERE request_id IN "
        "(SELECT request_id FROM request_ids ORDER BY time_ns DESC LIMIT -1 OFFSET ?)",
        (REQUESTS_MAX - 1,),
    )
    connection.execute("INSERT OR REPLACE INTO request_ids VALUES (?, ?, ?, ?)", astuple(request))
