"""The ops port over real sockets: who asks for what, and who may not hold it up."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import os
import resource
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from waitress import wasyncore

from turnout.telemetry import exposition
from turnout.telemetry import http as ops_http
from turnout.telemetry import instruments as i
from turnout.telemetry.exposition import Exposition
from turnout.telemetry.http import LoopStuck, OpsServer, Pages
from turnout.telemetry.readings import Reading, Value


class Ops:
    """A served port. `why_not` and `failing` are the test's to set."""

    def __init__(self) -> None:
        self.why_not = ""
        self.failing = False
        self.asked = 0
        self.threads: set[str] = set()
        self.let = threading.Event()
        self.let.set()
        self.server = OpsServer(asyncio.get_running_loop())
        metrics = Exposition(self.collect, time.monotonic_ns, lambda then_ns: then_ns, {})
        pages = Pages(self.server.on_loop, lambda: self.why_not, metrics)
        self.port = self.server.start(pages, "127.0.0.1", 0)

    def collect(self) -> list[Reading]:
        def take() -> list[Reading]:
            self.threads.add(threading.current_thread().name)
            return [Reading(i.SERVER_READY, (Value((), 1),))]

        self.asked += 1
        self.let.wait(20)
        if self.failing:
            raise OSError("/etc/passwd cannot be read")
        return self.server.on_loop(take)

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
        return await asyncio.to_thread(self.ask, path, method, headers)

    def ask(self, path: str, method: str, headers: dict[str, str]) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace"), dict(answer.getheaders())
        finally:
            connection.close()


@asynccontextmanager
async def ops() -> AsyncIterator[Ops]:
    serving = Ops()
    try:
        yield serving
    finally:
        await asyncio.to_thread(serving.server.stop)


async def test_probes() -> None:
    async with ops() as port:
        assert (await port.get("/livez"))[:2] == (200, "ok\n")
        assert (await port.get("/readyz"))[:2] == (200, "ok\n")
        port.why_not = "no model has a READY slot"
        assert (await port.get("/readyz"))[:2] == (503, "no model has a READY slot\n")
        assert (await port.get("/livez"))[:2] == (200, "ok\n")
        status, body, headers = await port.get("/readyz", "HEAD")
        assert (status, body, headers["Content-Length"]) == (503, "", str(len(port.why_not) + 1))


async def test_metrics_are_read_on_the_loop_thread_and_made_on_another() -> None:
    async with ops() as port:
        status, body, headers = await port.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert status == 200
        assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        assert headers["Vary"] == "Accept, Accept-Encoding"
        assert body.endswith("# EOF\n")
        headers = (await port.get("/metrics", **{"Accept-Encoding": "gzip"}))[2]
        assert headers["Content-Encoding"] == "gzip"
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert port.threads == {threading.current_thread().name}


async def test_what_there_is_not() -> None:
    async with ops() as port:
        status, body, _ = await port.get("/")
        assert (status, body) == (404, "there are /livez, /readyz and /metrics\n")
        status, _, headers = await port.get("/metrics", "POST")
        assert (status, headers["Allow"]) == (405, "GET, HEAD")


async def test_our_own_fault_is_logged_and_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    async with ops() as port:
        port.failing = True
        assert (await port.get("/metrics"))[:2] == (500, "internal error, see the server's log\n")
        assert "/etc/passwd" in "".join(capsys.readouterr())


async def test_a_stuck_loop_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_http, "_LOOP_S_MAX", 0.2)
    async with ops() as port:
        answers: dict[str, Any] = {}

        def ask() -> None:
            for path in ("/livez", "/readyz", "/metrics"):
                answers[path] = port.ask(path, "GET", {})[:2]

        asking = threading.Thread(target=ask)
        asking.start()
        asking.join(20)  # here the loop waits for the thread, and does not turn
        why = "the event loop has not turned for 0.2 s\n"
        assert answers == dict.fromkeys(("/livez", "/readyz", "/metrics"), (503, why))
        assert (await port.get("/livez"))[:2] == (200, "ok\n")


def test_a_loop_that_has_ended_is_told() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(LoopStuck, match="ended"):
        OpsServer(loop).on_loop(lambda: "")


@pytest.mark.parametrize("error", [ZeroDivisionError("of ours"), RuntimeError("of ours"), TimeoutError("of ours")])
async def test_what_is_asked_of_the_loop_may_raise(error: Exception) -> None:
    def ask() -> None:
        raise error

    async with ops() as port:
        with pytest.raises(type(error), match="of ours"):
            await asyncio.to_thread(port.server.on_loop, ask)


async def test_a_used_port_cannot_be_listened_on() -> None:
    async with ops() as port:
        other = OpsServer(asyncio.get_running_loop())
        with pytest.raises(OSError, match="in use"):
            other.start(Pages(other.on_loop, lambda: "", None), "127.0.0.1", port.port)  # type: ignore[arg-type]
        other.stop()


async def test_nothing_is_left_after_the_stop() -> None:
    def ours() -> set[str]:
        return {t.name for t in threading.enumerate() if t.name.startswith(("ops", "waitress"))}

    before = ours()
    async with ops() as port:
        kept = socket.create_connection(("127.0.0.1", port.port))
        await port.get("/livez")
        assert ours() > before
    assert ours() == before
    assert kept.recv(1) == b""
    kept.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port.port))


@contextmanager
def descriptors_taken(to: int) -> Iterator[None]:
    """All below `to`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, to + 100), hard))
    with contextlib.ExitStack() as taken:
        while (descriptor := os.dup(2)) < to:
            taken.callback(os.close, descriptor)
        os.close(descriptor)
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_descriptors_above_those_of_select() -> None:
    async with ops() as port:
        with descriptors_taken(1100):
            assert (await port.get("/livez"))[0] == 200
        assert (await port.get("/livez"))[0] == 200


async def test_connections_that_cannot_be_accepted_take_no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    def accept(_: Any) -> Any:
        nonlocal tries
        tries += 1
        raise OSError(errno.EMFILE, "too many open files")

    async with ops() as port:
        with monkeypatch.context() as patched:
            patched.setattr(wasyncore.dispatcher, "accept", accept)
            waiting = socket.create_connection(("127.0.0.1", port.port))
            started_s = time.monotonic()
            while tries < 3:
                await asyncio.to_thread(time.sleep, 0.05)
            assert tries <= 1 + (time.monotonic() - started_s) / 0.19
        assert (await port.get("/livez"))[0] == 200
        waiting.close()


@pytest.mark.parametrize("broken", ["readable", "handle_accept"])
async def test_an_end_that_nobody_asked_for_is_logged(broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with ops() as port:
        setattr(port.server._server, broken, None)  # not callable
        with socket.create_connection(("127.0.0.1", port.port)):
            await asyncio.to_thread(port.server._thread.join, 20)  # type: ignore[union-attr]
        assert "the ops port has ended" in "".join(capsys.readouterr())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port.port))


# Clients that are slow, or worse


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_http, "_REQUEST_S_MAX", 1)


def ended(connection: socket.socket, drip: bytes = b"") -> bool:
    """Whether the server ends the connection within 10 s, while `drip` is sent again and again."""
    connection.settimeout(0.1)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if drip:
                connection.send(drip)
            if connection.recv(1 << 16) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("drip", [b"", b"X"])
async def test_a_request_that_never_ends_is_given_up(drip: bytes) -> None:
    async with ops() as port:
        with socket.create_connection(("127.0.0.1", port.port)) as slow:
            slow.send(b"GET /metrics HTTP/1.1\r\nX-Padding: ")
            assert await asyncio.to_thread(ended, slow, drip)
        assert (await port.get("/livez"))[0] == 200


@pytest.mark.usefixtures("impatient")
async def test_who_sends_requests_and_reads_no_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_http, "_LOOP_S_MAX", 1.0)
    monkeypatch.setattr(ops_http, "_CONNECTIONS_MAX", 8)
    async with ops() as port:
        port.why_not = "x" * 4_000_000  # more than sockets hold
        greedy = [socket.create_connection(("127.0.0.1", port.port)) for _ in range(8)]
        for connection in greedy:
            connection.send(b"GET /readyz HTTP/1.1\r\n\r\n" * 30)
        assert (await port.get("/livez"))[0] == 200
        for connection in greedy:
            connection.close()


@pytest.mark.parametrize(
    "version", ["HTTP/1.1", "HTTP/1.1\r\nConnection: keep-alive", "HTTP/1.0\r\nConnection: keep-alive"]
)
async def test_a_connection_has_one_answer(version: str) -> None:
    async with ops() as port:
        with socket.create_connection(("127.0.0.1", port.port), timeout=20) as asking:
            asking.send(f"GET /livez {version}\r\n\r\n".encode() * 2)
            answer = await asyncio.to_thread(_all_of, asking)
        assert answer.count("HTTP/1.") == answer.count("Connection: close") == 1


def _all_of(connection: socket.socket) -> str:
    return b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()


async def test_long_headers_and_bodies_are_refused() -> None:
    async with ops() as port:
        assert (await port.get("/livez", Padding="x" * 10_000))[0] == 431
        status, _, _ = await port.get("/livez", **{"Content-Length": "5000"})
        assert status == 413


@pytest.mark.usefixtures("impatient")
async def test_connections_are_bounded_and_come_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_http, "_CONNECTIONS_MAX", 8)
    async with ops() as port:
        idle = [socket.create_connection(("127.0.0.1", port.port)) for _ in range(20)]
        try:
            assert (await port.get("/livez"))[0] == 200, "when those before it were given up"
        finally:
            for connection in idle:
                connection.close()


async def test_many_scrapers_cost_one_page() -> None:
    async with ops() as port:
        started_s = time.monotonic()
        assert (await port.get("/metrics"))[0] == 200
        while time.monotonic() - started_s < 0.9:
            answers = await asyncio.gather(*(port.get("/metrics") for _ in range(10)))
            if time.monotonic() - started_s < 0.9:
                assert {status for status, _, _ in answers} == {200}
        assert port.asked <= 1 + (time.monotonic() - started_s)


async def test_scrapes_that_hang_leave_threads_to_probes() -> None:
    async with ops() as port:
        port.let.clear()
        waiting = [asyncio.create_task(port.get("/metrics")) for _ in range(10)]
        done: set[asyncio.Task[Any]] = set()
        while len(done) < 8:
            await asyncio.sleep(0.01)
            done = {each for each in waiting if each.done()}
        assert {each.result()[:2] for each in done} == {(503, "2 scrapes are being answered; ask again in a moment\n")}
        assert (await port.get("/livez"))[0] == (await port.get("/readyz"))[0] == 200
        port.let.set()
        assert [(await each)[0] for each in waiting if each not in done] == [200, 200]
        assert port.asked == 1


async def test_a_scrape_waits_for_the_one_before_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "_WAIT_S_MAX", 0.1)
    async with ops() as port:
        port.let.clear()
        first = asyncio.create_task(port.get("/metrics"))
        while not port.asked:
            await asyncio.sleep(0.01)
        status, why, _ = await port.get("/metrics")
        assert (status, why) == (503, "another scrape has been under way for 0.1 s; ask again in a moment\n")
        port.let.set()
        assert (await first)[0] == 200
