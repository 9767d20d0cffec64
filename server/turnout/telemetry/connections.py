"""Waitress made to bear hostile clients: connections that end in time whatever a client does, one request on each."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_ACCEPT_PAUSE_S = 0.2  # after an accept that failed, as it does for want of descriptors
_POLL_S = 1.0


class Connections(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """Takes connections and serves them.

    Args:
        sockets: of all of it, the listening one among them.
        request_s_max: to send a request, from the connection on.
        answer_s_max: to be served and to take the answer, after that.
        settings: as waitress has them.
    """

    def __init__(
        self,
        app: WsgiApp,
        listening: socket.socket,
        sockets: dict[int, Any],
        request_s_max: float,
        answer_s_max: float,
        **settings: Any,
    ) -> None:
        self._sockets = sockets
        self._request_s_max = request_s_max
        self._answer_s_max = answer_s_max
        self._accept_at_s = 0.0
        self._ending = False
        address = (listening.family, listening.type, listening.proto, listening.getsockname())
        super().__init__(app, sockets, True, listening, sockinfo=address, bind_socket=False, **settings)
        self.channel_class = _Channel

    def run(self) -> None:
        """Until `end`, or an error that closes the listening socket. Not by select(), which raises at
        the first descriptor above 1023."""
        while self.accepting and not self._ending:
            self._cut_off()
            pause_s = self._accept_at_s - time.monotonic()
            wasyncore.loop(timeout=pause_s if pause_s > 0 else _POLL_S, use_poll=True, map=self._sockets, count=1)

    def end(self) -> None:
        """Any thread may ask for it. The sockets stay open."""
        self._ending = True
        self.pull_trigger()

    def readable(self) -> bool:
        return bool(super().readable()) and time.monotonic() >= self._accept_at_s

    def accept(self) -> Any:
        """A connection that cannot be accepted stays readable: to go on polling for it would take a whole core."""
        try:
            return super().accept()
        except OSError:
            self._accept_at_s = time.monotonic() + _ACCEPT_PAUSE_S
            raise

    def maintenance(self, now: float) -> None:
        """Not here: it comes between listing descriptors and polling them, and one that is closed now may be a new
        connection's by then."""

    def _cut_off(self) -> None:
        """Waitress' own maintenance waits for who does not read, and spares who has more requests."""
        now_s = time.monotonic()
        for channel in list(self.active_channels.values()):
            answering = channel.requests or channel.total_outbufs_len
            if now_s - channel.since_s > self._request_s_max + (self._answer_s_max if answering else 0):
                channel.handle_close()


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection, closed after one answer: whoever sends more requests at once has them dropped."""

    def __init__(self, *args: Any, **named: Any) -> None:
        self.since_s = time.monotonic()
        super().__init__(*args, **named)

    def service(self) -> None:
        self.requests[0].headers["CONNECTION"] = "close"
        super().service()
