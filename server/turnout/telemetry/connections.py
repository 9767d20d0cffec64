"""Waitress made to bear hostile clients."""

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
        sockets: of all of it, the listening one among them; emptied when `run` has ended.
        settings: as waitress has them.
    """

    def __init__(
        self,
        app: WsgiApp,
        listening: socket.socket,
        sockets: dict[int, Any],
        **settings: Any,
    ) -> None:
        self._sockets = sockets
        self._accept_at_s = 0.0
        address = (listening.family, listening.type, listening.proto, listening.getsockname())
        super().__init__(app, sockets, True, listening, sockinfo=address, bind_socket=False, **settings)
        self.channel_class = _Channel

    def run(self) -> None:
        """Until no socket is left. Not by select(), which raises at the first descriptor above 1023."""
        while self._sockets:
            pause_s = self._accept_at_s - time.monotonic()
            wasyncore.loop(timeout=pause_s if pause_s > 0 else _POLL_S, use_poll=True, map=self._sockets, count=1)

    def readable(self) -> bool:
        return bool(super().readable()) and time.monotonic() >= self._accept_at_s

    def accept(self) -> Any:
        """A connection that cannot be accepted stays readable: to go on polling for it would take a whole core."""
        try:
            return super().accept()
        except OSError:
            self._accept_at_s = time.monotonic() + _ACCEPT_PAUSE_S
            raise


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection. Waitress takes any byte for activity, and would wait for ever for who sends or reads one at a
    time; here only an answered request is."""

    _since_s = 0.0

    @property
    def last_activity(self) -> float:
        return self._since_s

    @last_activity.setter
    def last_activity(self, now_s: float) -> None:
        self._since_s = self._since_s or now_s

    def service(self) -> None:
        super().service()
        self._since_s = time.time()
