"""What a data client is told once: retries, keepalive, streams, TLS. Values with their bounds; they open nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Transport = Literal["unary", "stream"]
Token = str | Callable[[], str]
TraceHeaders = Callable[[], Mapping[str, str]]

TIMEOUT_S = 10.0  # of a call that is not told another one
# gRPC 1.83 loses a call, deadline and all, whose backoff comes to 0 ms.
_BACKOFF_S_MIN = 0.01
_ATTEMPTS_MAX = 5  # gRPC's own bound
_TOKENS_MAX = 1000  # gRPC's own bound


@dataclass(frozen=True, slots=True)
class Retry:
    """When a call is sent again: after UNAVAILABLE, after CANCELLED by the server, and after RESOURCE_EXHAUSTED when
    the server says so (pushback). Inference changes nothing on a server, so what may have run can run again. Never
    past the call's deadline, nor when the budget is spent.

    The budget is gRPC's retryThrottling: a bucket of `tokens_max` tokens. Each failure that could be retried takes one,
    each success gives `token_ratio` back, and only while more than half are left is anything sent again.

    Attributes:
        attempts_max: how often one request is sent at most, the first time included; 1: nothing is sent again.
        backoff_s: before the second attempt, give or take a fifth. Each further one waits `backoff_multiplier` times
            as long, up to `backoff_s_max`. A server's pushback takes the place of it.
        message_bytes_max: a larger request is sent once: gRPC keeps in memory what it may have to send again.
    """

    attempts_max: int = 4
    backoff_s: float = 0.05
    backoff_s_max: float = 1.0
    backoff_multiplier: float = 2.0
    tokens_max: int = 520  # half of it lets all calls of a full pool (4 x 64) go again when their connection breaks
    token_ratio: float = 0.1
    message_bytes_max: int = 4 << 20

    def __post_init__(self) -> None:
        _within("attempts_max", self.attempts_max, 1, _ATTEMPTS_MAX)
        _within("backoff_s", self.backoff_s, _BACKOFF_S_MIN, 3600)
        _within("backoff_s_max", self.backoff_s_max, self.backoff_s, 3600)
        _within("backoff_multiplier", self.backoff_multiplier, 1, 100)
        _within("tokens_max", self.tokens_max, 1, _TOKENS_MAX)
        _within("token_ratio", self.token_ratio, 0.001, _TOKENS_MAX)
        _within("message_bytes_max", self.message_bytes_max, 0, 2**31 - 1)


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Pings that find a dead connection. A Turnout server takes them every 10 s (its --ping-interval-ms-min) and sends
    away who pings more often; other servers may allow far less (gRPC's own default: 300 s).

    Attributes:
        interval_s: of silence, before a ping.
        timeout_s: for its answer, before the connection is given up.
        without_calls: ping too while no call is under way.
    """

    interval_s: float = 30.0
    timeout_s: float = 10.0
    without_calls: bool = False

    def __post_init__(self) -> None:
        _within("interval_s", self.interval_s, 1, 86_400)
        _within("timeout_s", self.timeout_s, 0.1, 3600)


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams of `transport="stream"`: opened as they are needed, and kept.

    Attributes:
        streams_max: streams of one client. Several endpoints get them in turn.
        inflight_max: requests under way on one stream; a Turnout server reads no further above its
            --stream-inflight-max (256). Further calls wait for a place, until their deadline.
        age_s_max: an older stream gets no further request and ends when its last one is answered, so that streams
            spread over replicas that came later, and take a new token.
        message_bytes_max: a larger request goes as a call of its own: in a stream it would hold up those behind it.
        packed: requests that are ready at the same time share a message, and so do answers, which costs both sides
            less. The first stream to a server that does not have it (turnout.packed.v1) finds that out; then each
            has a message of its own, for `age_s_max`.
    """

    streams_max: int = 4
    inflight_max: int = 64
    age_s_max: float = 600.0
    message_bytes_max: int = 256 << 10
    packed: bool = True

    def __post_init__(self) -> None:
        _within("streams_max", self.streams_max, 1, 256)
        _within("inflight_max", self.inflight_max, 1, 65_536)
        _within("age_s_max", self.age_s_max, 0.1, 86_400)
        _within("message_bytes_max", self.message_bytes_max, 0, 2**31 - 1)


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS; with `certificate` and `private_key` mutual. All are PEM.

    Attributes:
        root_certificates: whom to trust; None: gRPC's own list.
        server_name: in the server's certificate, where it is not the endpoint's host.
    """

    root_certificates: bytes | None = None
    certificate: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("mutual TLS takes both certificate and private_key: give the other one too")

    @classmethod
    def from_files(
        cls,
        root_certificates: str | Path | None = None,
        certificate: str | Path | None = None,
        private_key: str | Path | None = None,
        server_name: str = "",
    ) -> Tls:
        """The same from files. Raises OSError."""
        read = [None if path is None else Path(path).read_bytes() for path in (root_certificates, certificate)]
        key = None if private_key is None else Path(private_key).read_bytes()
        return cls(read[0], read[1], key, server_name)


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the two clients are made with, besides their endpoint; their own docstrings say what it means."""

    timeout_s: float
    retry: Retry | None
    transport: Transport
    streams: Streams
    wait_for_ready: bool
    keepalive: Keepalive | None
    tls: Tls | None
    token: Token | None
    insecure_token: bool
    metadata: Mapping[str, str]
    trace_headers: TraceHeaders | None
    options: Mapping[str, int | str]

    def __post_init__(self) -> None:
        _within("timeout_s", self.timeout_s, 0.001, 86_400)
        if self.transport not in ("unary", "stream"):
            raise ValueError(f"transport is {self.transport!r}: choose 'unary' or 'stream'")
        if self.token is not None and self.tls is None and not self.insecure_token:
            raise ValueError(
                "a token without TLS can be read by anybody on the way: give tls=Tls(...), or insecure_token=True "
                "where something else encrypts, such as a sidecar"
            )


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # not a number is refused too
        raise ValueError(f"{name} is {value}, and it goes from {low:g} to {high:g}")
