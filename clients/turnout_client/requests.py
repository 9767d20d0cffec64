"""One inference as a client sends it: arguments to a message, written with one copy of each tensor.

All of a message but its id and data is the same from call to call of a program, so it is made once and kept.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from turnout_client.answers import ParameterValue
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.tensors import DataType, TensorError, to_raw
from turnout_wire.varint import to_varint

STICKY_KEY = "turnout-sticky-key"  # request metadata
SLOT_PIN = "turnout-slot"  # request metadata
STICKY_PARAMETER = "sticky_key"  # request parameter
# Written by arguments of their own.
_OWN_PARAMETERS = {"timeout": "timeout_s", "priority": "priority", STICKY_PARAMETER: "key"}
_ID_TAG = b"\x1a"  # ModelInferRequest.id: field 3, length-delimited
_RAW_TAG = b"\x3a"  # ModelInferRequest.raw_input_contents: field 7
_TIMEOUT_S_MAX = 86_400.0
_KEPT_CHARACTERS_MAX = 1024  # of a parameter, in a header that is kept
_KEY = re.compile(r"[a-z0-9_.-]+")

Inputs: TypeAlias = Mapping[str, npt.ArrayLike]
_Tensors: TypeAlias = tuple[tuple[str, DataType, tuple[int, ...]], ...]
_Parameters: TypeAlias = tuple[tuple[str, str, ParameterValue], ...]  # name, field of InferParameter, value


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request that is ready to be written, as often as it is sent."""

    model: str
    version: str
    request_id: str
    key: str
    tensors: _Tensors
    contents: tuple[bytes | memoryview, ...]
    outputs: tuple[tuple[str, int], ...]  # with the number of classes; 0: the tensor itself
    parameters: _Parameters
    metadata: tuple[tuple[str, str], ...]
    size_bytes: int  # of all contents

    @classmethod
    def of(
        cls,
        model: str,
        inputs: Inputs,
        *,
        outputs: Sequence[str],
        classification: Mapping[str, int] | None,
        version: str | int,
        slot: str,
        key: str,
        request_id: str,
        priority: int,
        parameters: Mapping[str, ParameterValue] | None,
        metadata: Mapping[str, str] | None,
    ) -> InferRequest:
        """Raises ValueError, with the name of what cannot be sent."""
        tensors: list[tuple[str, DataType, tuple[int, ...]]] = []
        contents: list[bytes | memoryview] = []
        for name, given in inputs.items():
            array = np.asarray(given)
            try:
                datatype = DataType.from_numpy(array.dtype)
                contents.append(to_raw(array, datatype))
            except TensorError as error:
                raise TensorError(f"input '{name}': {error}") from None
            tensors.append((name, datatype, array.shape))
        sent = (*(metadata or {}).items(), *(((SLOT_PIN, slot),) if slot else ()))
        check_metadata(sent)
        asked = dict.fromkeys(outputs, 0) | dict(classification or {})
        return cls(
            model,
            str(version) if version else "",
            request_id,
            key,
            tuple(tensors),
            tuple(contents),
            tuple(asked.items()),
            _parameters(parameters or {}, priority),
            sent,
            sum(map(len, contents)),
        )

    @property
    def call_metadata(self) -> tuple[tuple[str, str], ...]:
        """Of a call of its own. A key that metadata cannot hold is a parameter instead."""
        return (*self.metadata, (STICKY_KEY, self.key)) if self.key and _is_header(self.key) else self.metadata

    def message(self) -> bytes:
        """For a call of its own: its metadata and deadline are gRPC's."""
        key = "" if _is_header(self.key) else self.key
        return self._join(self._header(key, 0), self.request_id)

    def stream_message(self, request_id: str, timeout_s: float) -> bytes:
        """For a stream, which has no metadata or deadline for one message: both become parameters."""
        return self._join(self._header(self.key, _rounded_us(timeout_s)), request_id)

    def _header(self, key: str, timeout_us: int) -> bytes:
        parameters = self.parameters
        if key:
            parameters += ((STICKY_PARAMETER, "string_param", key),)
        if timeout_us:
            parameters += (("timeout", "int64_param", timeout_us),)
        # Of doubles, -0.0 would find the entry of 0.0; long texts are hardly ever equal, and would be kept.
        apart = any(
            kind == "double_param" or (isinstance(value, str) and len(value) > _KEPT_CHARACTERS_MAX)
            for _, kind, value in parameters
        )
        make = _header.__wrapped__ if apart else _header
        return make(self.model, self.version, self.tensors, self.outputs, parameters)

    def _join(self, header: bytes, request_id: str) -> bytes:
        parts: list[bytes | memoryview] = [header]
        if request_id:
            text = request_id.encode()
            parts += (_ID_TAG, to_varint(len(text)), text)
        for raw in self.contents:
            parts += (_RAW_TAG, to_varint(len(raw)), raw)
        return b"".join(parts)


def check_metadata(metadata: Iterable[tuple[str, str]]) -> None:
    """Raises ValueError for what gRPC would refuse, each of its two clients in another way and without a name. No value
    is in the message: it may be a secret."""
    for key, value in metadata:
        if not _KEY.fullmatch(key):
            raise ValueError(f"metadata key '{key}': give lower-case letters, digits, '-', '_' and '.'")
        if not key.endswith("-bin") and not (isinstance(value, str) and value.isascii() and value.isprintable()):
            raise ValueError(f"metadata '{key}' is no printable ASCII (nor is a line's end): no header can carry it")


def mint_id() -> str:
    """An id for a request that has none, as a Turnout server makes them."""
    return secrets.token_hex(8)


def timeout_of(given_s: float | None, default_s: float) -> float:
    """Raises ValueError: every call has a deadline."""
    if given_s is None:
        return default_s
    if not isfinite(given_s) or given_s > _TIMEOUT_S_MAX:
        raise ValueError(f"timeout_s is {given_s}: give at most {_TIMEOUT_S_MAX:g} seconds")
    return given_s


@lru_cache(maxsize=1024)
def _header(
    model: str, version: str, tensors: _Tensors, outputs: tuple[tuple[str, int], ...], parameters: _Parameters
) -> bytes:
    """The fields before and between the id and the raw contents."""
    message = pb.ModelInferRequest(model_name=model, model_version=version)
    for name, field, value in parameters:
        setattr(message.parameters[name], field, value)
    for name, datatype, shape in tensors:
        message.inputs.add(name=name, datatype=datatype.value, shape=shape)
    for name, classes in outputs:
        output = message.outputs.add(name=name)
        if classes:
            output.parameters["classification"].int64_param = classes
    return message.SerializeToString(deterministic=True)


def _parameters(given: Mapping[str, ParameterValue], priority: int) -> _Parameters:
    found: list[tuple[str, str, ParameterValue]] = []
    for name, value in given.items():
        if name in _OWN_PARAMETERS:
            raise ValueError(f"parameter '{name}': use the argument {_OWN_PARAMETERS[name]}")
        kind = _KINDS.get(type(value))
        if kind is None:
            raise ValueError(f"parameter '{name}' is a {type(value).__name__}: give bool, int, float or str")
        if kind == "int64_param" and not -(2**63) <= value < 2**63:  # type: ignore[operator]
            raise ValueError(f"parameter '{name}' is {value}, and an int64 goes from -2^63 to 2^63 - 1")
        found.append((name, kind, value))
    if priority:
        found.append(("priority", "uint64_param", priority))
    return tuple(found)


_KINDS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


def _is_header(text: str) -> bool:
    """gRPC's metadata takes printable ASCII, and drops blanks at both ends."""
    return text.isascii() and text.isprintable() and text == text.strip(" ")


def _rounded_us(timeout_s: float) -> int:
    """Up to two digits: what is left of equal deadlines differs by microseconds, and headers that differ are made, and
    read by the server, anew."""
    timeout_us = max(int(timeout_s * 1e6), 1)
    unit = int(10 ** max(len(str(timeout_us)) - 2, 0))
    return -(-timeout_us // unit) * unit
