"""Small ONNX models, and repositories of them in Triton's layout: for tests that need real files.

Every model is written down in ONNX's own text form. Numbers are chosen so that answers can be computed by eye.
"""

from __future__ import annotations

from pathlib import Path

import onnx.parser

from turnout_wire.tensors import DataType

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'
ONNX_TYPES = {
    DataType.BOOL: "bool",
    DataType.UINT8: "uint8",
    DataType.UINT16: "uint16",
    DataType.UINT32: "uint32",
    DataType.UINT64: "uint64",
    DataType.INT8: "int8",
    DataType.INT16: "int16",
    DataType.INT32: "int32",
    DataType.INT64: "int64",
    DataType.FP16: "float16",
    DataType.FP32: "float",
    DataType.FP64: "double",
    DataType.BYTES: "string",
    DataType.BF16: "bfloat16",
}

_SUM_AND_DIFFERENCE = """
g ({t}[batch, 16] INPUT0, {t}[batch, 16] INPUT1) => ({t}[batch, 16] OUTPUT0, {t}[batch, 16] OUTPUT1) {{
  a = Cast<to = 6>(INPUT0)
  b = Cast<to = 6>(INPUT1)
  sum = Add(a, b)
  difference = Sub(a, b)
  OUTPUT0 = Cast<to = {code}>(sum)
  OUTPUT1 = Cast<to = {code}>(difference)
}}
"""
SIMPLE = _SUM_AND_DIFFERENCE.format(t="int32", code=6)
SIMPLE_INT8 = _SUM_AND_DIFFERENCE.format(t="int8", code=3)
SIMPLE_STRING = _SUM_AND_DIFFERENCE.format(t="string", code=8)  # decimal integers as text
SIMPLE_IDENTITY = "g (string[batch, n] INPUT0) => (string[batch, n] OUTPUT0) { OUTPUT0 = Identity(INPUT0) }"
IDENTITY = "g ({t}[batch, n] x) => ({t}[batch, n] y) {{ y = Identity(x) }}"
SCALE = "g (float[batch, 3] x) => (float[batch, 3] y) <float[1] k = {{{factor}.0}}> {{ y = Mul(x, k) }}"
NO_BATCH = "g (float[3] x) => (float[3] y) { y = Add(x, x) }"
FIXED_BATCH = "g (float[1, 3] x) => (float[1, 3] y) { y = Add(x, x) }"
TWO_DATATYPES = """
g (float[batch, 3] x, int64[batch, 1] k) => (float[batch, 3] y, int64[batch, 1] twice) {
  f = Cast<to = 1>(k)
  y = Mul(x, f)
  twice = Add(k, k)
}
"""
# ONNX Runtime raises for an index outside [-4, 3]; y = 10 * (index + 1) inside.
LOOKUP = """
g (int64[batch, 1] index) => (float[batch, 1] y) <float[4] table = {10.0, 20.0, 30.0, 40.0}> {
  y = Gather(table, index)
}
"""
# y = x, after max(x) products of two 256 x 256 matrices: about half a millisecond each on one core. Each element stays
# 1/256, so the sum of one row is 1.
SLOW = """
g (int64[batch, 1] x) => (int64[batch, 1] y)
<int64[2] size = {256, 256}, bool go = {1}, float side = {256.0}>
{
  m = ConstantOfShape<value = float[1] {0.00390625}>(size)
  flat = Flatten(x)
  trips = ReduceMax<keepdims = 0>(flat)
  last = Loop<body = b (int64 i, bool on, float[256, 256] a) => (bool still, float[256, 256] c) {
    still = Identity(on)
    c = MatMul(a, a)
  }>(trips, go, m)
  mean = ReduceMean<keepdims = 0>(last)
  scaled = Mul(mean, side)
  rounded = Round(scaled)
  factor = Cast<to = 7>(rounded)
  y = Mul(x, factor)
}
"""

SIMPLE_CONFIG = """
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  {{ name: "INPUT0" data_type: {t} dims: [ 16 ] }},
  {{ name: "INPUT1" data_type: {t} dims: [ 16 ] }}
]
output [
  {{ name: "OUTPUT0" data_type: {t} dims: [ 16 ] }},
  {{ name: "OUTPUT1" data_type: {t} dims: [ 16 ] }}
]
"""
SIMPLE_IDENTITY_CONFIG = """
name: "simple_identity"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_STRING dims: [ -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_STRING dims: [ -1 ] } ]
"""


def write(root: Path, name: str, text: str, config: str | None = None, version: int = 1) -> Path:
    """One version of a model, from ONNX text, with its config.pbtxt if there is one. Returns the model's file."""
    folder = root / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    model = onnx.parser.parse_model(HEADER + text)
    onnx.checker.check_model(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    if config is not None:
        (root / name / "config.pbtxt").write_text(config)
    return folder / "model.onnx"


def triton_models(root: Path) -> Path:
    """The models that Triton's public client examples call, with configurations like theirs."""
    for name, text, datatype in (
        ("simple", SIMPLE, "TYPE_INT32"),
        ("simple_int8", SIMPLE_INT8, "TYPE_INT8"),
        ("simple_string", SIMPLE_STRING, "TYPE_STRING"),
    ):
        write(root, name, text, SIMPLE_CONFIG.format(name=name, t=datatype))
    write(root, "simple_identity", SIMPLE_IDENTITY, SIMPLE_IDENTITY_CONFIG)
    return root


def identity_models(root: Path) -> Path:
    """`identity_fp32` and so on: one model for each datatype, without any config.pbtxt."""
    for datatype, onnx_type in ONNX_TYPES.items():
        write(root, f"identity_{datatype.value.lower()}", IDENTITY.format(t=onnx_type))
    return root


def shaped_models(root: Path) -> Path:
    """`no_batch`, `fixed_batch`, `two_datatypes`, and `scale` in versions 1 and 2, which multiply by 2 and by 3."""
    write(root, "no_batch", NO_BATCH)
    write(root, "fixed_batch", FIXED_BATCH)
    write(root, "two_datatypes", TWO_DATATYPES)
    for version in (1, 2):
        write(root, "scale", SCALE.format(factor=version + 1), "version_policy { all {} }", version)
    return root


def lookup_model(root: Path) -> Path:
    """`lookup`: fails to run for an index outside [-4, 3]."""
    write(root, "lookup", LOOKUP, "max_batch_size: 8")
    return root


def slow_model(root: Path, rows_max: int = 4) -> Path:
    """`slow`: answers x after about x half milliseconds on one core; at once for 0, so it is quick to warm."""
    write(root, "slow", SLOW, f"max_batch_size: {rows_max}")
    return root


def broken_models(root: Path) -> Path:
    """`broken` (no ONNX file), `unversioned` (no version folder) and `contradicted` (a config of another model)."""
    (root / "broken" / "1").mkdir(parents=True)
    (root / "broken" / "1" / "model.onnx").write_bytes(b"this is no model")
    (root / "unversioned").mkdir()
    write(root, "contradicted", NO_BATCH, 'input { name: "x" data_type: TYPE_INT32 dims: 3 }')
    return root
