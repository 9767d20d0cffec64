"""A request by every way of reading it, which must agree: seen first, seen before, and by the generated parser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from google.protobuf.message import DecodeError

from fuzz.oracle import require
from turnout.core.errors import ServingError
from turnout.core.tensors import InferenceRequest
from turnout.transport import codec
from turnout_wire.tensors import Array

Refusal = ServingError | DecodeError


def decode(
    data: bytes, limits: codec.DecodeLimits, deadline_ns: int | None = None, slot: str | None = None
) -> InferenceRequest:
    """What the handlers do with a message, in their order (change it here when they do), each way.

    Raises:
        DecodeError, ServingError: what every way raises.
        Finding: they do not agree.
    """
    requests = codec.Requests(limits)
    first, *others = [_read(way, data, deadline_ns, slot) for way in (requests.read, requests.read, requests.parse)]
    for other in others:
        _require_same(first, other)
    if isinstance(first[1], Exception):
        raise first[1]
    return first[1]


def _read(
    way: Callable[[bytes], codec.Received], data: bytes, deadline_ns: int | None, slot: str | None
) -> tuple[codec.Asked, InferenceRequest | Refusal]:
    asked = codec.Asked()
    try:
        received = way(data)
        asked = codec.Asked.of(received.plan, received.request_id, 30)
        version = codec.version_of(received.plan.model_version)
        return asked, received.request(deadline_ns, version, slot)
    except (DecodeError, ServingError) as refusal:
        return asked, refusal


def _require_same(
    one: tuple[codec.Asked, InferenceRequest | Refusal], other: tuple[codec.Asked, InferenceRequest | Refusal]
) -> None:
    (asked, a), (also_asked, b) = one, other
    require(asked == also_asked, f"asked as {asked} and as {also_asked}")
    if isinstance(a, InferenceRequest) and isinstance(b, InferenceRequest):
        plain = {"inputs": {}} if a.request_id else {"inputs": {}, "inference_id": ""}
        require(replace(a, **plain) == replace(b, **plain), f"{a} and {b}")  # type: ignore[arg-type]
        require(list(a.inputs) == list(b.inputs), f"inputs {list(a.inputs)} and {list(b.inputs)}")
        for name, array in a.inputs.items():
            _require_same_array(array, b.inputs[name])
        return
    require(type(a) is type(b), f"{a!r} and {b!r}")
    if isinstance(a, ServingError) and isinstance(b, ServingError):
        require((a.reason, a.message) == (b.reason, b.message), f"{a!r} and {b!r}")


def _require_same_array(a: Array, b: Array) -> None:
    require((a.dtype, a.shape) == (b.dtype, b.shape), f"{a.dtype} {a.shape} and {b.dtype} {b.shape}")
    same = a.reshape(-1).tolist() == b.reshape(-1).tolist() if a.dtype == object else a.tobytes() == b.tobytes()
    require(same, "other contents")
    for array in (a, b):
        require(array.flags.aligned and array.flags.c_contiguous, f"an array that lies as {array.flags}")
        require(array.dtype == object or not array.flags.writeable, "an input that can be written")
