"""Variants of real models, made by rounding weights, with the reports that quantizing would write beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from turnout.core.parity import OutputParity, parity
from turnout.core.variants import Budget, Samples, VariantReport, report_file, variant_file
from turnout.store.contained import Folder, Root
from turnout.store.manifest import Manifest, read_manifest
from turnout_wire.tensors import Array


def rounded(model: Path, variant: str, levels: int = 127) -> Path:
    """The variant `<stem>.<variant>.onnx` beside a model: its weights as 8-bit integers of so many levels, which 127
    hardly shows and 1 makes another model."""
    proto = onnx.load(model)
    dequantize = []
    for tensor in [each for each in proto.graph.initializer if len(each.dims) == 2]:
        weights = numpy_helper.to_array(tensor)
        scale = np.float32(np.abs(weights).max() / levels)
        whole = np.clip(np.round(weights / scale), -levels, levels).astype(np.int8)
        name = tensor.name
        proto.graph.initializer.remove(tensor)
        proto.graph.initializer.append(numpy_helper.from_array(whole, f"{name}_int8"))
        proto.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        dequantize.append(helper.make_node("DequantizeLinear", [f"{name}_int8", f"{name}_scale"], [name]))
    for node in reversed(dequantize):
        proto.graph.node.insert(0, node)
    onnx.checker.check_model(proto)
    path = model.parent / variant_file(model.name, variant)
    onnx.save(proto, path)
    return path


def manifest_of(model: Path, variant: str = "") -> Manifest:
    """Of a version's folder as a repository reads it."""
    folder = Folder(Root(model.parents[2])).folder(model.parents[1].name)
    return read_manifest(folder, int(model.parent.name), model.name, variant=variant)


def measured(model: Path, variant: Path, inputs: Array) -> tuple[OutputParity, ...]:
    sides = []
    for path in (model, variant):
        session = ort.InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        given = session.run(names, {session.get_inputs()[0].name: inputs})
        sides.append(dict(zip(names, given, strict=True)))
    return parity(*sides)


def report_of(model: Path, variant: str, outputs: tuple[OutputParity, ...], **changed: object) -> VariantReport:
    """As it would be of the files as they are, but for what is `changed`."""
    source, result = manifest_of(model), manifest_of(model, variant)
    fields: dict[str, object] = {
        "model": model.parents[1].name,
        "version": int(model.parent.name),
        "variant": variant,
        "recipe": {"method": "weights rounded by a test"},
        "source_digest": source.digest,
        "result_digest": result.digest,
        "source_bytes": sum(file.size for file in source.files),
        "result_bytes": sum(file.size for file in result.files),
        "libraries": {},
        "machine": {},
        "samples": Samples(outputs[0].rows if outputs else 0, "a test"),
        "budget": Budget(error_max=1.0),
        "outputs": outputs,
        "accuracy": None,
        "created_at": "2026-01-01T00:00:00Z",
    }
    return VariantReport(**(fields | changed))  # type: ignore[arg-type]


def write_report(model: Path, variant: str, report: VariantReport) -> Path:
    path = model.parent / report_file(model.name, variant)
    path.write_text(json.dumps(report.to_json()))
    return path


def quantized(model: Path, variant: str, inputs: Array, levels: int = 127) -> Path:
    """The variant with an honest report."""
    path = rounded(model, variant, levels)
    write_report(model, variant, report_of(model, variant, measured(model, path, inputs)))
    return path
