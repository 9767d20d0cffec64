"""What is sent beside a request: the metadata of every call, the trace; and which requests a stream cannot carry."""

from __future__ import annotations

from turnout_client.requests import InferRequest, check_metadata
from turnout_client.settings import Settings, Streams

Metadata = tuple[tuple[str, str], ...]
_PARENT = "traceparent"


class Headers:
    """The metadata that follows from a client's settings. Raises ValueError where no call could carry it."""

    def __init__(self, settings: Settings) -> None:
        self._fixed = tuple(settings.metadata.items())
        check_metadata(self._fixed)
        self._token = settings.token
        self._trace = settings.trace_headers
        if isinstance(self._token, str):
            self.common()

    def common(self) -> Metadata:
        """Of every call. Raises ValueError: the token has what no header can carry, such as a line's end."""
        if self._token is None:
            return self._fixed
        token = self._token if isinstance(self._token, str) else self._token()
        authorization = ("authorization", f"Bearer {token}")
        check_metadata((authorization,))
        return (*self._fixed, authorization)

    def trace(self) -> Metadata:
        """Of one inference: where it belongs to."""
        return tuple(self._trace().items()) if self._trace is not None else ()


def goes_alone(request: InferRequest, trace: Metadata, streams: Streams) -> bool:
    """Whether a request must be a call of its own, because a stream has no metadata for one message (slot pins, the
    caller's own metadata, a trace that is recorded) or would be held up by it (large ones)."""
    return bool(request.metadata) or request.size_bytes > streams.message_bytes_max or _is_sampled(trace)


def _is_sampled(trace: Metadata) -> bool:
    """By the flags of the W3C traceparent: of a trace that nobody records, a server needs to know nothing."""
    parent = next((value for name, value in trace if name == _PARENT), "")
    flags = parent.rpartition("-")[2]
    return len(flags) == 2 and flags[1] in "13579bdf"
