"""Whether and when a request of a stream is sent again, by the rules that gRPC has for unary calls. Pure: time and
chance are arguments. One budget for all streams of a client."""

from __future__ import annotations

import threading
from dataclasses import replace

from turnout_client.errors import InferenceError
from turnout_client.settings import Retry

_JITTER = 0.2  # gRPC's


class Retries:
    """The rules of `retry` with what is left of their budget. May be used by several threads."""

    def __init__(self, retry: Retry | None) -> None:
        self._retry = retry or Retry(attempts_max=1)
        self._tokens = float(self._retry.tokens_max)
        self._lock = threading.Lock()

    @property
    def tokens(self) -> float:
        return self._tokens

    def succeeded(self) -> None:
        with self._lock:
            self._tokens = min(self._tokens + self._retry.token_ratio, self._retry.tokens_max)

    def delay_s(self, error: InferenceError | Alone, attempts: int, remaining_s: float, chance: float) -> float | None:
        """How long to wait before a request that failed with `error` is sent again; None: it is not.

        Args:
            attempts: so far.
            remaining_s: until its deadline.
            chance: drawn from [0, 1).
        """
        if isinstance(error, Alone):  # whatever ended the stream says nothing of this one request
            error = InferenceError("UNAVAILABLE", error.error.message, retry_after_s=0.0)
        if not error.retryable:
            return None
        with self._lock:
            self._tokens = max(self._tokens - 1, 0.0)
            within_budget = self._tokens > self._retry.tokens_max / 2
        if not within_budget or attempts >= self._retry.attempts_max:
            return None
        delay_s = self._backoff_s(attempts, chance) if error.retry_after_s is None else error.retry_after_s
        # What would come too late is not waited for: the caller hears now why it failed.
        return delay_s if delay_s < remaining_s else None

    def _backoff_s(self, attempts: int, chance: float) -> float:
        retry = self._retry
        grown_s = min(retry.backoff_s * retry.backoff_multiplier ** (attempts - 1), retry.backoff_s_max)
        return grown_s * (1 - _JITTER + 2 * _JITTER * chance)


class Alone(Exception):
    """A stream ended with an error that may be about another request than this one, or about streams. As a call of its
    own, each of its requests gets its own answer."""

    def __init__(self, error: InferenceError) -> None:
        super().__init__(str(error))
        self.error = error


class NotPacked(Exception):
    """A packed stream ended with an error that may be about packed streams: the server, or who is before it, has none,
    allows none, or takes no message as large. To be sent again at once, in a stream of the protocol, whose error says
    what it is about."""


def stream_ended(error: InferenceError, packed: bool = False) -> InferenceError | Alone | NotPacked:
    """What a request is told whose stream has ended before its answer. Each request gets an exception of its own."""
    if error.code in ("UNAVAILABLE", "CANCELLED"):  # by a server that stops
        return InferenceError("UNAVAILABLE", error.message, error.reason, error.retry_after_s)
    if error.retryable:
        return InferenceError(error.code, error.message, error.reason, error.retry_after_s)
    return NotPacked() if packed else Alone(replace(error))
