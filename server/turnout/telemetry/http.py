"""An HTTP server for /livez, /readyz and /metrics, on threads of its own beside the event loop.

A stuck loop must not keep the port from saying so, and a slow or hostile client must not hold up the loop: waitress
reads and writes on one thread, and a few others answer. What they ask about is read on the loop thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import structlog

from turnout.telemetry.connections import Connections
from turnout.telemetry.exposition import Busy, Exposition

T = TypeVar("T")
_LOOP_S_MAX = 5.0  # then the loop counts as stuck; probes give up earlier as they are usually set
_CONNECTIONS_MAX = 64
_THREADS = 4  # two of them may be making metrics at once
_REQUEST_S_MAX = 10.0  # to send a request; there are _LOOP_S_MAX more to be answered and to take it
_HEADER_BYTES_MAX = 8192
_BODY_BYTES_MAX = 1024  # nobody has reason to send one
_STOP_S_MAX = 1.0
_BACKLOG = 128
_TEXT = "text/plain; charset=utf-8"


class LoopStuck(Exception):
    """The event loop does not turn."""


class Pages:
    """What is served under which path; called on several threads.

    Args:
        why_not: why the server is not ready, nothing where it is; called on the loop thread.
        metrics: makes what a scrape is answered with.
    """

    def __init__(
        self, on_loop: Callable[[Callable[[], str]], str], why_not: Callable[[], str], metrics: Exposition
    ) -> None:
        self._on_loop = on_loop
        self._why_not = why_not
        self._metrics = metrics

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """As WSGI has it (PEP 3333)."""
        headers: dict[str, str] = {}
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            status, body, headers["Allow"] = "405 Method Not Allowed", b"only GET and HEAD\n", "GET, HEAD"
        else:
            status, body = self._answer(environ, headers)
        headers = {"Content-Type": _TEXT, "Content-Length": str(len(body)), "Cache-Control": "no-store", **headers}
        start_response(status, list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: dict[str, Any], headers: dict[str, str]) -> tuple[str, bytes]:
        try:
            match environ["PATH_INFO"]:
                case "/livez":
                    return _probe(self._on_loop(lambda: ""))
                case "/readyz":
                    return _probe(self._on_loop(self._why_not))
                case "/metrics":
                    accepted = environ.get("HTTP_ACCEPT_ENCODING", "")
                    page = self._metrics.page(environ.get("HTTP_ACCEPT", ""), accepted)
                    headers |= {"Content-Type": page.content_type, "Vary": "Accept, Accept-Encoding"}
                    if page.compressed:
                        headers["Content-Encoding"] = "gzip"
                    return "200 OK", page.body
                case _:
                    return "404 Not Found", b"there are /livez, /readyz and /metrics\n"
        except (LoopStuck, Busy) as error:
            return _probe(str(error))
        except Exception as error:  # noqa: BLE001 - our own fault; its text is for the log alone
            structlog.get_logger().error("internal error", method=environ["PATH_INFO"][:80], exc_info=error)
            return "500 Internal Server Error", b"internal error, see the server's log\n"


class OpsServer:
    """Serves the pages on one port. `loop` is the event loop that they speak of."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._map: dict[int, Any] = {}  # waitress' sockets
        self._thread: threading.Thread | None = None
        self._stopping = False

    def on_loop(self, ask: Callable[[], T]) -> T:
        """What `ask` returns on the loop thread. Blocks; for other threads.

        Raises:
            LoopStuck: the loop did not come to it within a few seconds, or is closed.
        """
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(ask())
                except Exception as error:  # noqa: BLE001 - it is whoever asked that must learn of it
                    answer.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(run)
        except RuntimeError:
            raise LoopStuck("the event loop has ended") from None
        concurrent.futures.wait((answer,), _LOOP_S_MAX)
        if not answer.done():
            answer.cancel()
            raise LoopStuck(f"the event loop has not turned for {_LOOP_S_MAX:g} s")
        return answer.result()

    def start(self, pages: Pages, host: str, port: int) -> int:
        """Listen and serve; returns the port, which differs from `port` when that is 0.

        Raises:
            OSError: the address cannot be listened on.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server(
            (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6()
        )
        # Both say on standard error what a client did, once for each request that it makes.
        for name in ("waitress", "waitress.queue"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._server: Any = Connections(
            pages,
            listening,
            self._map,
            _REQUEST_S_MAX,
            _LOOP_S_MAX,
            threads=_THREADS,
            connection_limit=_CONNECTIONS_MAX,
            cleanup_interval=1,
            max_request_header_size=_HEADER_BYTES_MAX,
            max_request_body_size=_BODY_BYTES_MAX,
            clear_untrusted_proxy_headers=True,
            ident="turnout",
        )
        self._thread = threading.Thread(target=self._run, name="ops", daemon=True)
        self._thread.start()
        return int(listening.getsockname()[1])

    def stop(self) -> None:
        """Close the port and all connections. Blocks for two seconds at most."""
        if self._thread is None:
            return
        self._stopping = True
        if self._thread.is_alive():
            self._server.end()
            self._thread.join(_STOP_S_MAX)
        self._close()

    def _run(self) -> None:
        cause: BaseException | None = None
        try:
            self._server.run()
        except BaseException as error:  # noqa: BLE001 - whatever it was, probes and scrapes fail from now on
            cause = error
        if not self._stopping:
            structlog.get_logger().error("the ops port has ended", exc_info=cause)
            self._close()  # refused is told sooner than unanswered

    def _close(self) -> None:
        """Once nobody serves the sockets. Threads that answer pull the trigger, so that it must outlive them."""
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()  # with what it has not sent yet
        self._server.task_dispatcher.shutdown(timeout=_STOP_S_MAX)
        for dispatcher in list(self._map.values()):
            dispatcher.close()
        self._map.clear()


def _probe(why_not: str) -> tuple[str, bytes]:
    return ("503 Service Unavailable", f"{why_not}\n".encode()) if why_not else ("200 OK", b"ok\n")
