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
        address = (listening.family, listening.type, listening.proto, listening.getsockname())
        super().__init__(app, sockets, True, listening, sockinfo=address, bind_socket=False, **settings)
        self.channel_class = _Channel

    def run(self) -> None:
        """Until no socket is left. Not by select(), which raises at the first descriptor above 1023."""
        while self._sockets:
            wasyncore.loop(timeout=_POLL_S, use_poll=True, map=self._sockets, count=1)


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
