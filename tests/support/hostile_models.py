"""ONNX models that crash, never end or take all memory: what a server must survive. Found by trying 1.31.1."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import numpy as np
from onnx import FunctionProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, parser

_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
_HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'

DIVISION_TRAPS = platform.machine() in ("x86_64", "AMD64")  # ARM gives a number


def _model(
    nodes: Sequence[NodeProto],
    initializers: Sequence[TensorProto] = (),
    sparse: Sequence[SparseTensorProto] = (),
    functions: Sequence[FunctionProto] = (),
    datatype: int = TensorProto.FLOAT,
) -> ModelProto:
    x, y = (helper.make_tensor_value_info(name, datatype, [1]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "g", [x], [y], initializers)
    graph.sparse_initializer.extend(sparse)
    return helper.make_model(graph, functions=functions, opset_imports=_OPSETS, ir_version=8)


def _int32(name: str, value: int) -> TensorProto:
    return helper.make_tensor(name, TensorProto.INT32, [1], [value])


def crashes_at_load() -> ModelProto:
    """The least integer by -1, which constant folding divides: SIGFPE."""
    nodes = [
        helper.make_node("Div", ["least", "minus"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["k"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "k"], ["y"]),
    ]
    return _model(nodes, [_int32("least", np.iinfo(np.int32).min), _int32("minus", -1)])


def crashes_at_run() -> ModelProto:
    """The same for an input of 0."""
    nodes = [
        helper.make_node("Add", ["x", "least"], ["sum"]),
        helper.make_node("Div", ["sum", "minus"], ["y"]),
    ]
    initializers = [_int32("least", np.iinfo(np.int32).min), _int32("minus", -1)]
    return _model(nodes, initializers, datatype=TensorProto.INT32)


def takes_memory_at_load(elements: int = 250_000_000) -> ModelProto:
    """One number in a sparse tensor, which is made dense."""
    k = helper.make_tensor("k", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("", TensorProto.INT64, [1], [5])
    sparse = SparseTensorProto(values=k, indices=indices, dims=[elements])
    nodes = [helper.make_node("ReduceSum", ["k"], ["s"], keepdims=0), helper.make_node("Add", ["x", "s"], ["y"])]
    return _model(nodes, sparse=[sparse])


def takes_memory_at_run(elements: int = 1 << 33) -> ModelProto:
    return _parsed(f"""
g (int64[1] x) => (int64[1] y) <int64[1] n = {{{elements}}}> {{
  size = Add(x, n)
  big = ConstantOfShape<value = int64[1] {{1}}>(size)
  s = ReduceSum<keepdims = 0>(big)
  y = Add(x, s)
}}""")


def never_loads(doublings: int = 40) -> ModelProto:
    """Each function calls the next one twice: 2^40 nodes when they are expanded."""
    functions = []
    for number in range(doublings):
        last = number == doublings - 1
        name, domain = ("Neg", "") if last else (f"F{number + 1}", "own")
        nodes = [helper.make_node(name, [a], [b], domain=domain) for a, b in (("a", "c"), ("c", "b"))]
        functions.append(helper.make_function("own", f"F{number}", ["a"], ["b"], nodes, _OPSETS))
    return _model([helper.make_node("F0", ["x"], ["y"], domain="own")], functions=functions)


def never_answers() -> ModelProto:
    return _parsed("""
g (int64[1] x) => (int64[1] y) <bool go = {1}, int64[1] many = {9000000000000}> {
  some = Add(x, many)
  trips = Squeeze(some)
  y = Loop<body = b (int64 i, bool on, int64[1] a) => (bool still, int64[1] c) {
    still = Identity(on)
    c = Add(a, x)
  }>(trips, go, x)
}""")


def refuses_made_up_data() -> ModelProto:
    """Of the 4 it takes the last one, and made-up data says neither."""
    return _parsed("""
g (int64[1] x) => (float[1] y) <float[4] table = {1.0, 2.0, 3.0, 4.0}, int64[1] far = {1000}> {
  index = Mul(x, far)
  beyond = Add(index, far)
  y = Gather(table, beyond)
}""")


def _parsed(text: str) -> ModelProto:
    return parser.parse_model(_HEADER + text)
