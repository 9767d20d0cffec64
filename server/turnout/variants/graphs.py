"""Models as onnx's messages: read from an artefact's open files with all weights inside, and asked for their nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from turnout.core.model import OpenArtefact
from turnout.variants.recipes import HEAVY, OPS, Method, QuantizeError, Recipe

# A file of protobuf ends there, and a variant is one file.
BYTES_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Node:
    """One node: whether a recipe quantizes it, and what its constant inputs take."""

    name: str
    op: str
    weight_bytes: int
    quantized: bool


def read(files: OpenArtefact) -> onnx.ModelProto:
    """The model, with its external weights inside and a name for each node.

    Raises:
        QuantizeError: it is no ONNX model, or too large.
    """
    model = onnx.ModelProto()
    size = os.fstat(files.files[files.model]).st_size
    try:
        model.ParseFromString(_bytes(files.files[files.model], 0, size))
    except QuantizeError:
        raise
    except Exception as error:  # protobuf's own
        raise QuantizeError(f"'{files.model}' is no ONNX model: turnout quantize takes *.onnx, no *.ort") from error
    if not model.graph.node:
        raise QuantizeError(f"'{files.model}' has no node: there is nothing to quantize")
    external = [tensor for tensor in _tensors(model.graph) if uses_external_data(tensor)]
    total = size + sum(_length(tensor, files.files) for tensor in external)
    if total > BYTES_MAX:
        raise QuantizeError(
            f"the model has {total} bytes with its weights, turnout quantize takes at most {BYTES_MAX} (a variant is "
            "one file of protobuf): quantize it where it was exported, and give the result a version of its own"
        )
    for tensor in external:
        info = ExternalDataInfo(tensor)
        tensor.raw_data = _bytes(_file(info, files.files), info.offset or 0, _length(tensor, files.files))
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    _name_nodes(model)
    return model


def nodes(model: onnx.ModelProto, recipe: Recipe) -> list[Node]:
    """All nodes of the main graph, in order."""
    sizes = {each.name: _size(each) for each in model.graph.initializer}
    ops, method = OPS.get(recipe.method), recipe.method
    out = frozenset(recipe.exclude_nodes) | frozenset(recipe.kept)
    listed = []
    for node in model.graph.node:
        weight_bytes = sum(sizes.get(name, 0) for name in node.input)
        takes = ops is None or node.op_type in ops
        if node.op_type in HEAVY and method is not Method.INT8:
            takes = takes and weight_bytes > 0
        excluded = node.name in out or node.op_type in recipe.exclude_ops
        listed.append(Node(node.name, node.op_type, weight_bytes, takes and not excluded))
    return listed


def check(model: onnx.ModelProto, recipe: Recipe) -> None:
    """Raises:
    QuantizeError: an exclusion of what is not there, a model that is quantized already, or nothing to do.
    """
    known = {node.name for node in model.graph.node}
    ops = {node.op_type for node in model.graph.node}
    for name in recipe.exclude_nodes:
        if name not in known:
            raise QuantizeError(f"--exclude-node '{name}': the model has no node of that name, see --dry-run")
    for op in recipe.exclude_ops:
        if op not in ops:
            raise QuantizeError(f"--exclude-op '{op}': the model has {', '.join(sorted(ops))}")
    if before := sorted(op for op in ops if op in _QUANTIZED):
        raise QuantizeError(f"the model is quantized already, it has {', '.join(before)}: quantize what it was made of")
    listed = nodes(model, recipe)
    if not any(node.quantized and (recipe.method not in OPS or node.op in HEAVY) for node in listed):
        takes = ", ".join(op for op in OPS.get(recipe.method, ()) if op in HEAVY)
        found = ", ".join(sorted(ops))
        raise QuantizeError(
            f"there is nothing to quantize: {recipe.method.value} takes nodes of {takes or 'any operator'}"
            f"{'' if recipe.method is Method.INT8 else ' with constant weights'}, the model has {found}"
            + (", less what is excluded" if recipe.exclude_nodes or recipe.exclude_ops else "")
        )


_QUANTIZED = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"),
        *("QLinearMatMul", "QLinearConv", "MatMulNBits", "QGemm", "QAttention", "DynamicQuantizeMatMul"),
    }
)


def _name_nodes(model: onnx.ModelProto) -> None:
    """The quantizer tells nodes apart by name, and exporters may give none, or one twice."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)


def _file(info: ExternalDataInfo, files: Mapping[str, int]) -> int:
    name = os.path.normpath(info.location)
    if name not in files:
        raise QuantizeError(f"its weights are in '{info.location}', which is none of the version's files")
    return files[name]


def _length(tensor: onnx.TensorProto, files: Mapping[str, int]) -> int:
    info = ExternalDataInfo(tensor)
    fd = _file(info, files)
    return int(info.length) if info.length is not None else os.fstat(fd).st_size - int(info.offset or 0)


def _bytes(fd: int, offset: int, length: int) -> bytes:
    pieces = []
    while length > 0:
        piece = os.pread(fd, min(length, 1 << 30), offset)
        if not piece:
            raise QuantizeError("its weights end too soon: copy the version again")
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return b"".join(pieces)


def _size(tensor: onnx.TensorProto) -> int:
    return len(tensor.raw_data) or int(numpy_helper.to_array(tensor).nbytes)
