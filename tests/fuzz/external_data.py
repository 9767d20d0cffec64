"""Target: an ONNX model's bytes, whose tensors may lie in other files, against what protobuf reads from them.

What is left external must be initializers of the main graph, in files that were asked for: others ONNX Runtime would
look for in the working directory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message

from fuzz import oracle
from fuzz.mutation import MessageMutator, Mutate, mutate_wire
from turnout.backends.onnx.external import resolve
from turnout.core.errors import LoadError

FILES = {"w": bytes(range(64)), "folder/w": b"\1\2\3\4" * 4, "empty": b""}
_LONGEST = max(map(len, FILES.values()))


def run(data: bytes) -> None:
    asked: set[str] = set()

    def read(location: str) -> memoryview:
        if location not in FILES:
            raise LoadError(f"its data is in '{location}', which is not there")
        asked.add(location)
        return memoryview(FILES[location])

    try:
        resolved = resolve(data, read)
    except LoadError as refusal:
        oracle.refused(refusal, data)
        return
    oracle.require(resolved.files <= asked, f"files {resolved.files}, but {asked} were read")
    if data[4:8] == b"ORTM":
        return  # ONNX Runtime reads it in another format
    try:
        before = onnx.ModelProto.FromString(data)
    except DecodeError:
        return  # ONNX Runtime refuses it too
    try:
        after = onnx.ModelProto.FromString(resolved.model)
    except DecodeError:
        raise oracle.Finding("a model is no model any more") from None
    for tensor, place in _external_tensors(after):
        location = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
        oracle.require(
            place == "initializer" and location in resolved.files, f"'{tensor.name}' of {place} is still external"
        )
    for tensor, place in _external_tensors(before):
        if place != "initializer":
            _put_in(tensor)
    for model in (before, after):
        model.DiscardUnknownFields()
    oracle.require(before == after, "another model")
    # A tensor that is there twice is put in twice, though only the last one counts.
    most = len(data) + data.count(b"location") * (_LONGEST + 16)
    oracle.require(len(resolved.model) <= most, f"{len(resolved.model)} bytes, at most {most} could be put in")


def _external_tensors(model: onnx.ModelProto) -> list[tuple[onnx.TensorProto, str]]:
    """Without a location, there is nothing that ONNX Runtime could look for."""
    external = [(t, place) for t, place in _tensors(model, "") if t.data_location == onnx.TensorProto.EXTERNAL]
    return [(t, place) for t, place in external if any(entry.key == "location" for entry in t.external_data)]


def _tensors(message: Message, place: str) -> Iterator[tuple[Any, str]]:
    """Every tensor below a message, and the name of the field that it is in."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in value if field.is_repeated else [value]:
            if isinstance(part, onnx.TensorProto):
                main = field.name == "initializer" and place == "main graph"
                yield part, "initializer" if main else f"{place or 'model'}.{field.name}"
            else:
                inside = "main graph" if isinstance(message, onnx.ModelProto) and field.name == "graph" else field.name
                yield from _tensors(part, inside)


def _put_in(tensor: onnx.TensorProto) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    content = FILES.get(entries.get("location", ""), b"")
    numbers = [entries.get(key, "") for key in ("offset", "length")]
    if any(text and not text.isdecimal() for text in numbers):
        raise oracle.Finding(f"another model: '{tensor.name}' has data at {numbers}")
    start = int(numbers[0] or 0)
    end = start + int(numbers[1]) if numbers[1] else len(content)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    tensor.raw_data = content[start:end]


# Mutations

_TEXTS = {
    "key": ("location", "offset", "length", "checksum", ""),
    "value": ("w", "folder/w", "empty", "../w", "/w", "w2", "", "0", "8", "64", "65", "-1", "9" * 30, "location"),
    "name": ("x", "y", "location", "", "\x1b[31m"),
    "op_type": ("Constant", "Add", "If"),
}


def mutate(data: bytes, bytes_max: int, rng: random.Random, mutate_bytes: Mutate) -> bytes:
    action = rng.random()
    if action < 0.05:
        return mutate_bytes(data, bytes_max)
    if action < 0.45:
        for _ in range(rng.choice((1, 1, 2, 3))):
            data = mutate_wire(rng, data)
        return data[:bytes_max]
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        model = onnx.ModelProto()
    fields = MessageMutator(rng, _TEXTS, mutate_bytes)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if rng.random() < 0.4:
            _add_tensor(model, rng)
        else:
            fields(model)
    out = model.SerializeToString()
    return out if len(out) <= bytes_max else mutate_bytes(data, bytes_max)


def external(name: str, location: str, **numbers: int) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.UINT8, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **numbers}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _add_tensor(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = external("t", rng.choice(("w", "w", "folder/w", "empty", "missing")), length=rng.choice((0, 4, 4, 99)))
    nodes = model.graph.node if rng.random() < 0.5 else model.functions.add().node
    attribute = nodes.add(op_type="Constant").attribute.add(name="a")
    match rng.randrange(8):
        case 0:
            model.graph.initializer.append(tensor)
        case 1:
            model.graph.sparse_initializer.add().values.CopyFrom(tensor)
        case 2:
            attribute.t.CopyFrom(tensor)
        case 3:
            attribute.tensors.append(tensor)
        case 4:
            attribute.g.initializer.append(tensor)
        case 5:
            attribute.graphs.add().node.add().attribute.add().t.CopyFrom(tensor)
        case 6:
            attribute.sparse_tensor.indices.CopyFrom(tensor)
        case _:
            model.functions.add().attribute_proto.add().t.CopyFrom(tensor)
