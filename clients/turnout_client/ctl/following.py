"""Streams of several servers followed at once, until all have refused, the time is over or Ctrl-C. One thread per
server, which comes back when the connection was lost."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from turnout_client.admin import AdminClient, Watch
from turnout_client.ctl.report import complain, said
from turnout_client.ctl.session import Session
from turnout_client.errors import AdminError

_STOP_S_MAX = 10.0
_AGAIN_S = 1.0
_EVENTS_WAITING = 10_000

E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)


class Screen(AbstractContextManager["Screen[E_contra]"], Protocol[E_contra]):
    """Where events are shown."""

    @property
    def done(self) -> bool:
        """Whether enough was shown."""

    def event(self, endpoint: str, event: E_contra) -> None: ...

    def note(self, text: str) -> None:
        """What happened to the stream itself."""

    def look(self) -> None:
        """Some time has passed."""


@dataclass(frozen=True, slots=True)
class _News(Generic[E]):
    """An event of one server, or the error that ended its stream; `lost`: it will be tried again."""

    endpoint: str
    event: E | None = None
    error: AdminError | None = None
    lost: bool = False


@dataclass
class Follower(Generic[E]):
    """Follows one server until it is stopped, or refuses.

    Attributes:
        begin: starts the stream, after the event that the token is of.
        token_of: of an event, to go on from; "": no event can be gone on from.
        answered: the server was there: when it is not, it is waited for.
    """

    endpoint: str
    begin: Callable[[AdminClient, str], Watch[E]]
    token_of: Callable[[E], str]
    token: str = ""
    answered: bool = False
    stopped: threading.Event = field(default_factory=threading.Event)
    _watch: Watch[E] | None = None
    _thread: threading.Thread | None = None

    def start(self, news: queue.Queue[_News[E]]) -> None:
        self._thread = threading.Thread(target=self._follow, args=(news,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.stopped.set()
        if self._watch is not None:
            self._watch.cancel()
        if self._thread is not None:
            self._thread.join(_STOP_S_MAX)

    def _follow(self, news: queue.Queue[_News[E]]) -> None:
        with AdminClient(self.endpoint) as client:
            while not self.stopped.is_set():
                try:
                    self._watch = self.begin(client, self.token)
                    for event in self._watch:
                        self.answered = True
                        self.token = self.token_of(event) or self.token
                        news.put(_News(self.endpoint, event))
                except AdminError as error:
                    expired = error.reason == "TOKEN_EXPIRED" and bool(self.token)
                    again = expired or (self.answered and error.code == "UNAVAILABLE")
                    news.put(_News(self.endpoint, None, error, again))
                    if not again:
                        return
                    self.token = "" if expired else self.token
                self.stopped.wait(_AGAIN_S)


def follow(
    session: Session,
    followers: Sequence[Follower[E]],
    screen: Screen[E],
    interval_s: float,
    for_s: float | None,
    **known: str,
) -> dict[str, AdminError]:
    """Show what comes, until the screen is done, `for_s` seconds have passed, or Ctrl-C.

    Args:
        interval_s: between two looks of the screen.
        known: names for the next steps.

    Returns:
        What ended the streams that have ended, by endpoint.
    """
    news: queue.Queue[_News[E]] = queue.Queue(_EVENTS_WAITING)
    end = time.monotonic() + for_s if for_s is not None else float("inf")
    ended: dict[str, AdminError] = {}
    for follower in followers:
        follower.start(news)
    try:
        with screen:
            while time.monotonic() < end and len(ended) < len(followers) and not screen.done:
                until = min(time.monotonic() + interval_s, end)
                for endpoint, error in _taken(screen, news, until):
                    ended[endpoint] = error
                    complain(session, endpoint, error, **known)
                    if len(ended) == len(followers):
                        break
                else:
                    screen.look()
    except KeyboardInterrupt:
        pass  # how a watch ends
    finally:
        for follower in followers:
            follower.stop()
    return ended


def _taken(screen: Screen[E], news: queue.Queue[_News[E]], until: float) -> Iterator[tuple[str, AdminError]]:
    """Shows what comes until then; yields what ends a stream."""
    while (left := until - time.monotonic()) >= 0 and not screen.done:
        try:
            each = news.get(timeout=max(left, 0.001))
        except queue.Empty:
            return
        if each.event is not None:
            screen.event(each.endpoint, each.event)
        elif each.error is not None and each.lost:
            screen.note(f"{each.endpoint}: {said(each.error)}; trying again")
        elif each.error is not None:
            yield each.endpoint, each.error
