"""A repository of many small models, each written down with what the documentation promises of it: the answers of
those that serve, byte for byte, and the reasons of those that are broken.

`write` makes the folder; the tables GOOD and BROKEN say what a server must then answer. Models are ONNX text, and
numbers are chosen so that answers can be computed by eye.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx.parser

from turnout_wire.tensors import Array, DataType, to_bytes


@dataclass(frozen=True)
class Ask:
    """One request and its only right answer.

    Attributes:
        answers: every output that must come, in this order.
        outputs: the outputs asked for; none: all.
        version, by: the version asked for, and the one that must answer.
        classes: asks for those outputs as that many classes; 0: as they are.
        parameters: of the request: priority and timeout.
    """

    inputs: Mapping[str, Array]
    answers: Mapping[str, Array]
    outputs: tuple[str, ...] = ()
    version: str = ""
    by: str = "1"
    classes: int = 0
    parameters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """One request that must be refused, with this status and these words."""

    inputs: Mapping[str, Array]
    words: str
    status: str = "INVALID_ARGUMENT"
    outputs: tuple[str, ...] = ()
    version: str = ""
    classes: int = 0
    parameters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """A symbolic link to a path, which may hold {root}, the repository's."""

    target: str


@dataclass(frozen=True)
class HardLink:
    """A second name of a file outside the repository."""

    outside: str


@dataclass(frozen=True)
class Sums:
    """SHA256SUMS of these files, or wrong ones."""

    names: tuple[str, ...]
    right: bool = True


@dataclass(frozen=True)
class Unreadable:
    """A file that only root may read."""

    content: bytes


class Fifo:
    """Whoever opens it waits for ever."""


Content = str | bytes | Link | HardLink | Sums | Unreadable | Fifo | None  # text: ONNX; None: a folder
Files = Mapping[str, Content]


@dataclass(frozen=True)
class Entry:
    """One folder of the repository.

    Attributes:
        files: by path in the folder; "" is the folder itself. The config.pbtxt, if there is one, is `config`.
        states: for each version that the index must list, "" (READY) or words of the reason (UNAVAILABLE). The version
            "" stands for a model that has no version with a state.
        rows_max: the completed max_batch_size.
        shapes: what ModelMetadata must say, of some inputs and outputs.
        notes: words of what the start-up table must say about it, beside reasons; it must say nothing else.
        listed: what the server calls it, where it cannot be shown as it is.
    """

    name: str
    files: Files
    config: str = ""
    states: Mapping[str, str] = field(default_factory=lambda: {"1": ""})
    asks: tuple[Ask | Refusal, ...] = ()
    rows_max: int = 0
    shapes: Mapping[str, list[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    listed: str = ""

    @property
    def title(self) -> str:
        return self.listed or self.name

    @property
    def broken(self) -> bool:
        """Whether no version of it is ready."""
        return all(self.states.values())


def write(root: Path, entries: Iterable[Entry]) -> None:
    """Writes the entries into `root`, what is no model beside them, and into the folder `outside` beside `root` what
    some of them reach for."""
    outside = root.parent / "outside"
    outside.mkdir(parents=True)
    (outside / "model.onnx").write_bytes(onnx_bytes(TWICE))
    (outside / "weights.bin").write_bytes(SECRET)
    _write(root / ".git" / "1" / "model.onnx", TWICE, root)
    _write(root / "README.md", b"no model", root)
    for entry in entries:
        if "" not in entry.files:
            (root / entry.name).mkdir()
        for name, content in entry.files.items():
            _write(root / entry.name / name, content, root)
        if entry.config:
            (root / entry.name / "config.pbtxt").write_text(entry.config)


def _write(path: Path, content: Content, root: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match content:
        case None:
            path.mkdir()
        case str():
            path.write_bytes(onnx_bytes(content))
        case bytes():
            path.write_bytes(content)
        case Link(target):
            path.symlink_to(target.format(root=root))
        case HardLink(name):
            path.hardlink_to(root.parent / "outside" / name)
        case Sums(names, right):
            sums = {name: (path.parent / name).read_bytes() if right else b"another file" for name in names}
            path.write_text("".join(f"{hashlib.sha256(file).hexdigest()}  {name}\n" for name, file in sums.items()))
        case Unreadable(inner):
            path.write_bytes(inner)
            path.chmod(0)
        case Fifo():
            os.mkfifo(path)


def onnx_bytes(text: str) -> bytes:
    """A model from ONNX text, which may have a header of its own."""
    header = "" if text.lstrip().startswith("<") else '<ir_version: 8, opset_import: ["" : 20]>\n'
    raw: bytes = onnx.parser.parse_model(header + text).SerializeToString()
    return raw


f4 = partial(np.array, dtype=np.float32)
f8 = partial(np.array, dtype=np.float64)
i8 = partial(np.array, dtype=np.int64)
flags = partial(np.array, dtype=np.bool_)
halves = partial(np.array, dtype=ml_dtypes.bfloat16)


def texts(nested: Any) -> Array:
    """Nested lists of `str` as a BYTES tensor."""
    array = np.array(nested, dtype=object)
    return np.array([element.encode() for element in array.reshape(-1)] or [], dtype=object).reshape(array.shape)


def _good(
    name: str, model: Content, *asks: Ask | Refusal, config: str = "", files: Files | None = None, **more: Any
) -> Entry:
    """A model whose version 1 serves. `more`: rows_max, shapes, notes."""
    return Entry(name, {"1/model.onnx": model, **(files or {})}, config, asks=asks, **more)


def _io(*tensors: str, rows_max: int = 0) -> str:
    """A config.pbtxt from lines like `x FP32 [3] optional: true`: name, datatype, dims and more; outputs after a >."""
    text = f"max_batch_size: {rows_max}\n" if rows_max else ""
    for tensor in tensors:
        name, datatype, dims, *more = tensor.removeprefix("> ").split(maxsplit=3)
        kind = "output" if tensor.startswith(">") else "input"
        text += f'{kind} {{ name: "{name}" data_type: TYPE_{datatype} dims: {dims} {"".join(more)} }}\n'
    return text


def _twice(dims: str, kind: str = "float") -> str:
    return f"g ({kind}[{dims}] x) => ({kind}[{dims}] y) {{ y = Add(x, x) }}"


def _plus(location: str, offset: int = 0) -> str:
    """y = x + three weights in an external file."""
    data = f'"location": "{location}", "offset": "{offset}", "length": "12"'
    return f"g (float[3] x) => (float[3] y) <float[3] k = [{data}]> {{ y = Add(x, k) }}"


TWICE, TWICE_ROWS = _twice("3"), _twice("b, 3")
TIMES = "g (float[b, 3] x) => (float[b, 3] y) <float[1] k = {{{factor}.0}}> {{ y = Mul(x, k) }}"
LOOKUP = """g (int64[b, 1] index) => (float[b, 1] y) <float[4] table = {10.0, 20.0, 30.0, 40.0}>
{ y = Gather(table, index) }"""
FIRST_ROW = "g (float[n, 3] x) => (float[m, 3] y) <bool[1] first = {1}> { y = Compress<axis = 0>(x, first) }"
WEIGHTS = f4([10, 20, 30]).tobytes()
SECRET = f4([66, 66, 66]).tobytes()
X, X2 = f4([1, -2, 0.5]), f4([2, -4, 1])
ROWS, ROWS2 = f4([[1, -2, 0.5], [3, 4, 5]]), f4([[2, -4, 1], [6, 8, 10]])
ASK, ASK_ROWS = Ask({"x": X}, {"y": X2}), Ask({"x": ROWS}, {"y": ROWS2})
ASK_WEIGHTS = Ask({"x": X}, {"y": f4([11, 18, 30.5])})

# ---------------------------------------------------------------------------------------------------------------------
# Datatypes. Integers answer ~x, because the CPU has no kernel that adds small ones; BF16 is added as FP32.


def _datatype(datatype: DataType, text: str, x: Array, y: Array) -> Entry:
    return _good(
        f"datatype_{datatype.value.lower()}",
        text,
        Ask({"x": x}, {"y": y}),
        Ask({"x": x[:1]}, {"y": y[:1]}),
        Ask({"x": x[:, :0]}, {"y": y[:, :0]}),
        Refusal({"x": x[:0]}, "0 rows"),
        rows_max=4,
        shapes={"x": [-1, -1], "y": [-1, -1]},
    )


def _integer(datatype: DataType) -> Entry:
    low, high = np.iinfo(datatype.dtype).min, np.iinfo(datatype.dtype).max
    x = np.array([[low, 0, high], [1, 2, 100]], datatype.dtype)
    kind = datatype.value.lower()
    return _datatype(datatype, f"g ({kind}[b, n] x) => ({kind}[b, n] y) {{ y = BitwiseNot(x) }}", x, ~x)


def _number(datatype: DataType, kind: str, x: list[list[float]], y: list[list[float]]) -> Entry:
    return _datatype(datatype, _twice("b, n", kind), np.array(x, datatype.dtype), np.array(y, datatype.dtype))


INF = float("inf")
DATATYPES = (
    *(_integer(datatype) for datatype in DataType if datatype.dtype.kind in "iu"),
    _number(DataType.FP16, "float16", [[-1.5, 2**-24, INF], [-0.0, 30000, 1]], [[-3, 2**-23, INF], [-0.0, 60000, 2]]),
    _number(DataType.FP32, "float", [[-1.5, 2**-126, -INF], [-0.0, 1, 3]], [[-3, 2**-125, -INF], [-0.0, 2, 6]]),
    _number(DataType.FP64, "double", [[-1.5, 2**-1000, INF], [-0.0, 1, 3]], [[-3, 2**-999, INF], [-0.0, 2, 6]]),
    _datatype(
        DataType.BOOL,
        "g (bool[b, n] x) => (bool[b, n] y) { y = Not(x) }",
        flags([[True, False], [False, False]]),
        flags([[False, True], [True, True]]),
    ),
    _datatype(
        DataType.BYTES,
        'g (string[b, n] x) => (string[b, n] y) <string[1] mark = {"!"}> { y = StringConcat(x, mark) }',
        texts([["", "a\0b", "\0"], ["naïve", "日本語 \U0001f600", "tail\0"]]),
        texts([["!", "a\0b!", "\0!"], ["naïve!", "日本語 \U0001f600!", "tail\0!"]]),
    ),
    _datatype(
        DataType.BF16,
        "g (bfloat16[b, n] x) => (bfloat16[b, n] y) { a = Cast<to = 1>(x) s = Add(a, a) y = Cast<to = 16>(s) }",
        halves([[-1.5, 0.0, 256], [2.0**-100, INF, 1]]),
        halves([[-3, 0.0, 512], [2.0**-99, INF, 2]]),
    ),
)

# ---------------------------------------------------------------------------------------------------------------------
# Ranks. Where nothing is left beside the batch, dims are [1], reshaped to nothing.


def _rank(name: str, dims: str, x: Array, rows_max: int = 0) -> Entry:
    shape = [-1, *x.shape[1:]] if rows_max else list(x.shape)
    one_more = Refusal({"x": x[np.newaxis]}, "input 'x' has shape")
    return _good(name, _twice(dims), Ask({"x": x}, {"y": x + x}), one_more, rows_max=rows_max, shapes={"x": shape})


def _count(*dims: int) -> Array:
    """0, 1, 2, ... in this shape."""
    return np.arange(np.prod(dims), dtype=np.float32).reshape(dims)


SCALAR = "g (float x) => (float y) { y = Add(x, x) }"
SCALAR_ASKS = (
    Ask({"x": f4([21])}, {"y": f4([42])}),
    Refusal({"x": f4(21)}, "input 'x' has shape []"),
    Refusal({"x": f4([1, 2])}, "input 'x' has shape [2]"),
)
RANKS = (
    _good("rank_0", SCALAR, *SCALAR_ASKS, shapes={"x": [1], "y": [1]}),
    _good(
        "rank_0_text",
        "g (string x) => (string y) { y = Identity(x) }",
        Ask({"x": texts(["é\0"])}, {"y": texts(["é\0"])}),
    ),
    _rank("rank_1", "3", _count(3)),
    _rank("rank_1_batched", "b", _count(3, 1), 4),
    _good(
        "rank_1_batched_text",
        "g (string[b] x) => (string[b] y) { y = Identity(x) }",
        Ask({"x": texts([["é"], [""], ["\0"]])}, {"y": texts([["é"], [""], ["\0"]])}),
        rows_max=4,
        shapes={"x": [-1, 1], "y": [-1, 1]},
    ),
    _rank("rank_2", "2, 3", _count(2, 3)),
    _rank("rank_2_batched", "b, 3", _count(2, 3), 4),
    _rank("rank_4", "1, 2, 2, 2", _count(1, 2, 2, 2)),
    _rank("rank_4_batched", "b, 2, 2, 2", _count(3, 2, 2, 2), 4),
    _rank("rank_8", "1, 2, 1, 2, 1, 2, 1, 2", _count(1, 2, 1, 2, 1, 2, 1, 2)),
    _rank("rank_8_batched", "b, 2, 1, 2, 1, 2, 1, 2", _count(4, 2, 1, 2, 1, 2, 1, 2), 4),
)

# ---------------------------------------------------------------------------------------------------------------------
# Batching


def _all_rows(rows_max: int) -> tuple[Ask | Refusal, ...]:
    """Requests of 1, 2 and `rows_max` rows, and one of more, of a model that doubles."""
    sizes = [_count(rows, 3) for rows in sorted({1, min(2, rows_max), rows_max})]
    more = Refusal({"x": _count(rows_max + 1, 3)}, f"{rows_max + 1} rows")
    return (*(Ask({"x": x}, {"y": x + x}) for x in sizes), more)


BATCHING = (
    _good("batched_by_inference", TWICE_ROWS, *_all_rows(4), rows_max=4, shapes={"x": [-1, 3]}),
    _good("batched_two_symbols", _twice("a, 3").replace("[a, 3] y", "[b, 3] y"), *_all_rows(4), rows_max=4),
    _good("batched_by_config", TWICE_ROWS, *_all_rows(8), config="max_batch_size: 8", rows_max=8),
    _good(
        "batched_one_word_each",  # as classifiers of scikit-learn answer
        """g (float[b, 2] x) => (string[b] label) <string[2] names = {"no", "yes"}>
        { i = ArgMax<axis = 1, keepdims = 0>(x) label = Gather(names, i) }""",
        Ask({"x": f4([[1, 2], [3, 0]])}, {"label": texts([["yes"], ["no"]])}),
        config="max_batch_size: 8",
        rows_max=8,
        shapes={"x": [-1, 2], "label": [-1, 1]},
    ),
    _good("batched_up_to_one", TWICE_ROWS, *_all_rows(1), config="max_batch_size: 1", rows_max=1),
    _good(
        "batched_by_full_config",
        TWICE_ROWS,
        *_all_rows(5),
        config='name: "batched_by_full_config" platform: "onnxruntime_onnx" backend: "onnxruntime"\n'
        + _io("x FP32 3", "> y FP32 3", rows_max=5),
        rows_max=5,
        shapes={"x": [-1, 3], "y": [-1, 3]},
    ),
    _good(
        "not_batched_fixed_input",
        "g (float[b, 3] x, float[3] k) => (float[b, 3] y) { y = Mul(x, k) }",
        Ask({"x": _count(5, 3), "k": f4([2, 2, 2])}, {"y": 2 * _count(5, 3)}),
        shapes={"x": [-1, 3], "k": [3]},
    ),
    _good(
        "not_batched_scalar_output",
        "g (float[n, 3] x) => (float s) { s = ReduceSum<keepdims = 0>(x) }",
        Ask({"x": ROWS}, {"s": f4([11.5])}),
        shapes={"x": [-1, 3], "s": [1]},
    ),
    _good(
        "not_batched_fixed_rows",
        _twice("4, 3"),
        Ask({"x": _count(4, 3)}, {"y": 2 * _count(4, 3)}),
        Refusal({"x": _count(1, 3)}, "has shape [1, 3], model 'not_batched_fixed_rows' takes [4, 3]"),
        shapes={"x": [4, 3]},
    ),
    _good(
        "not_batched_by_config",
        TWICE_ROWS,
        Ask({"x": _count(9, 3)}, {"y": 2 * _count(9, 3)}),
        config=_io("x FP32 [-1,3]", "> y FP32 [-1,3]"),
        shapes={"x": [-1, 3]},
    ),
    # The first dimension is a sequence: batching would mix requests.
    _good(
        "sequence_running_sum",
        "g (float[n, 3] x) => (float[n, 3] y) <int64 axis = {0}> { y = CumSum(x, axis) }",
        Ask({"x": f4([[1, 2, 3]])}, {"y": f4([[1, 2, 3]])}),
        Ask({"x": f4(np.ones((6, 3)))}, {"y": f4([[n, n, n] for n in range(1, 7)])}),
        notes=("not batched",),
    ),
    _good(
        "sequence_to_one",
        FIRST_ROW,
        Ask({"x": ROWS}, {"y": ROWS[:1]}),
        Ask({"x": _count(9, 3)}, {"y": f4([[0, 1, 2]])}),
        notes=("not batched",),
    ),
    _good(
        "sequence_of_words",
        """g (int64[words] x) => (int64[words] y) <int64[1] axis = {0}>
        { most = ReduceMax<keepdims = 1>(x, axis) y = Sub(most, x) }""",
        Ask({"x": i8([3, 9, 4, 9, 1])}, {"y": i8([6, 0, 5, 0, 8])}),
        Ask({"x": i8([7])}, {"y": i8([0])}),
        shapes={"x": [-1]},
        notes=("not batched",),
    ),
)

# ---------------------------------------------------------------------------------------------------------------------
# Inputs and outputs: several, some of them, in any order; open, empty and absent ones; text

SEVERAL = """
g (int64[b, 2] number, float[b, 2] real, string[b, 1] word)
=> (float[b, 2] sum, int64[b, 2] square, string[b, 1] same, bool[b, 2] larger) {
  cast = Cast<to = 1>(number)
  sum = Add(cast, real)
  square = Mul(number, number)
  same = Identity(word)
  larger = Greater(real, cast)
}
"""
SEVERAL_IN = {"number": i8([[3, -4]]), "real": f4([[3.5, -8]]), "word": texts([["naïve\0"]])}
SEVERAL_OUT = {
    "sum": f4([[6.5, -12]]),
    "square": i8([[9, 16]]),
    "same": texts([["naïve\0"]]),
    "larger": flags([[True, False]]),
}
EMPTY = _count(0, 3)


def _several(*names: str) -> Ask:
    """Asks for these outputs, with the inputs in another order than the model's."""
    answers = {name: SEVERAL_OUT[name] for name in names or SEVERAL_OUT}
    return Ask(dict(reversed(SEVERAL_IN.items())), answers, outputs=names)


TENSORS = (
    _good(
        "several_tensors",
        SEVERAL,
        _several(),
        _several("same"),
        _several("larger", "sum"),
        _several("larger", "same", "square", "sum"),
        Refusal(SEVERAL_IN, "has no output 'product'", outputs=("sum", "product")),
        Refusal({**SEVERAL_IN, "more": X}, "the request has 4"),
        Refusal({"number": SEVERAL_IN["number"]}, "the request has 1"),
        Refusal({**SEVERAL_IN, "real": f8([[1, 2]])}, "input 'real' has datatype FP64"),
        Refusal({**SEVERAL_IN, "real": f4([[1, 2], [3, 4]])}, "rows"),
        rows_max=4,
    ),
    _good(
        "configured_order",  # without a choice, outputs come in the configuration's order
        "g (float[b, 3] x) => (float[b, 3] y, float[b, 3] z) { y = Add(x, x) z = Neg(x) }",
        Ask({"x": ROWS}, {"z": -ROWS, "y": ROWS2}),
        Ask({"x": ROWS}, {"y": ROWS2, "z": -ROWS}, outputs=("y", "z")),
        config=_io("x FP32 3", "> z FP32 3", "> y FP32 3", rows_max=4),
        rows_max=4,
    ),
    _good(
        "open_dimensions",
        "g (float[b, n, m] x) => (float[b, m, n] y) { y = Transpose<perm = [0, 2, 1]>(x) }",
        *(Ask({"x": x}, {"y": x.transpose(0, 2, 1)}) for x in (_count(2, 3, 4), _count(1, 1, 7), _count(4, 0, 2))),
        rows_max=4,
        shapes={"x": [-1, -1, -1]},
    ),
    _good(
        "empty_unbatched",
        "g (float[n, m] x, string[k] w) => (float[n, m] y, string[k] v) { y = Add(x, x) v = Identity(w) }",
        Ask({"x": EMPTY, "w": texts([])}, {"y": EMPTY, "v": texts([])}),
        Ask({"x": EMPTY.T, "w": texts(["", ""])}, {"y": EMPTY.T, "v": texts(["", ""])}),
        config=_io("x FP32 [-1,-1]", "w STRING -1", "> y FP32 [-1,-1]", "> v STRING -1"),
    ),
    _good(
        "no_input",
        "g () => (float[3] y) <float[3] k = {1.0, -2.0, 0.5}> { y = Identity(k) }",
        Ask({}, {"y": X}),
        Refusal({"x": X}, "the request has 1"),
    ),
    _good(
        "input_is_output",
        "g (float[b, 3] x) => (float[b, 3] x, float[b, 3] y) { y = Neg(x) }",
        Ask({"x": ROWS}, {"x": ROWS, "y": -ROWS}),
        rows_max=4,
    ),
    _good(
        "unused_input",
        "g (float[b, 3] x, int64[b, 1] unused) => (float[b, 3] y) { y = Add(x, x) }",
        Ask({"x": ROWS, "unused": i8([[1], [2]])}, {"y": ROWS2}),
        rows_max=4,
    ),
    _good(
        "text",
        "g (string[b, n] x) => (string[b, n] y) { y = Identity(x) }",
        Ask({"x": texts([["", "\0", "x" * 5000]])}, {"y": texts([["", "\0", "x" * 5000]])}),
        Refusal({"x": np.array([[b"fine", b"\xff\xfe"]], dtype=object)}, "input 'x': element 1 is not UTF-8"),
        rows_max=4,
    ),
    _good(
        "optional_input",
        "g (float[3] x, float[3] k = {1.0, 2.0, 3.0}) => (float[3] y) { y = Mul(x, k) }",
        Ask({"x": X}, {"y": f4([1, -4, 1.5])}),
        Ask({"x": X, "k": f4([0, 1, 2])}, {"y": f4([0, -2, 1])}),
        Ask({"k": f4([0, 1, 2]), "x": X}, {"y": f4([0, -2, 1])}),
        Refusal({"k": X}, "'x'"),
        Refusal({"x": X, "k": f4([1, 2])}, "input 'k' has shape [2]"),
        Refusal({"x": X, "q": X}, "'q'"),
        config=_io("x FP32 3", "k FP32 3 optional: true", "> y FP32 3"),
    ),
    _good(
        "optional_inputs_only",
        "g (int64[1] a = {1}, int64[1] b = {2}) => (int64[1] y) { y = Add(a, b) }",
        Ask({}, {"y": i8([3])}),
        Ask({"a": i8([10])}, {"y": i8([12])}),
        Ask({"b": i8([20])}, {"y": i8([21])}),
        Ask({"b": i8([20]), "a": i8([10])}, {"y": i8([30])}),
        config=_io("a INT64 1 optional: true", "b INT64 1 optional: true", "> y INT64 1"),
    ),
    _good(
        "optional_beside_bf16",
        """g (bfloat16[2] x, float[2] k = {1.0, 2.0}) => (bfloat16[2] y)
        { a = Cast<to = 1>(x) m = Mul(a, k) y = Cast<to = 16>(m) }""",
        Ask({"x": halves([1, 2])}, {"y": halves([1, 4])}),
        Ask({"x": halves([1, 2]), "k": f4([5, 6])}, {"y": halves([5, 12])}),
        config=_io("x BF16 2", "k FP32 2 optional: true", "> y BF16 2"),
    ),
    _good(
        "old_initializer_inputs",  # before IR version 4, each weight had to be listed as an input
        """<ir_version: 3, opset_import: ["" : 8]>
        g (float[b, 3] x, float[3] k = {2.0, 2.0, 2.0}) => (float[b, 3] y) { y = Mul(x, k) }""",
        ASK_ROWS,
        Refusal({"x": ROWS, "k": X}, "the request has 2"),
        rows_max=4,
    ),
)

# ---------------------------------------------------------------------------------------------------------------------
# Reshape

TRANSPOSE = "g (float[2, 2] x) => (float[2, 2] y) { y = Transpose(x) }"
TRANSPOSE_ROWS = "g (float[b, 2, 2] x) => (float[b, 2, 2] y) { y = Transpose<perm = [0, 2, 1]>(x) }"


def _reshaped(dims: str, shape: str, rows_max: int = 0) -> str:
    reshape = f"reshape {{ shape: {shape} }}"
    return _io(f"x FP32 {dims} {reshape}", f"> y FP32 {dims} {reshape}", rows_max=rows_max)


RESHAPE = (
    _good(
        "reshape_both",
        TRANSPOSE,
        Ask({"x": f4([1, 2, 3, 4])}, {"y": f4([1, 3, 2, 4])}),
        Refusal({"x": f4([[1, 2], [3, 4]])}, "has shape [2, 2]"),
        config=_reshaped("4", "[ 2, 2 ]"),
        shapes={"x": [4], "y": [4]},
    ),
    _good(
        "reshape_batched",
        TRANSPOSE_ROWS,
        Ask({"x": f4([[1, 2, 3, 4], [5, 6, 7, 8]])}, {"y": f4([[1, 3, 2, 4], [5, 7, 6, 8]])}),
        config=_reshaped("4", "[ 2, 2 ]", rows_max=4),
        rows_max=4,
        shapes={"x": [-1, 4], "y": [-1, 4]},
    ),
    _good(
        "reshape_of_input",
        TRANSPOSE_ROWS,
        Ask({"x": f4([[1, 2, 3, 4]])}, {"y": f4([[[1, 3], [2, 4]]])}),
        config=_io("x FP32 4 reshape { shape: [ 2, 2 ] }", "> y FP32 [2,2]", rows_max=2),
        rows_max=2,
        shapes={"x": [-1, 4], "y": [-1, 2, 2]},
    ),
    _good(
        "reshape_to_nothing",
        _twice("b"),
        Ask({"x": f4([[1], [2], [5]])}, {"y": f4([[2], [4], [10]])}),
        Refusal({"x": f4([1, 2])}, "has shape [2]"),
        config=_reshaped("1", "[ ]", rows_max=8),
        rows_max=8,
        shapes={"x": [-1, 1], "y": [-1, 1]},
    ),
    _good("reshape_scalar", SCALAR, *SCALAR_ASKS, config=_reshaped("1", "[ ]"), shapes={"x": [1], "y": [1]}),
    _good(
        "reshape_open",
        _twice("b, n, 1"),
        ASK_ROWS,
        Ask({"x": ROWS[:, :1]}, {"y": ROWS2[:, :1]}),
        config=_reshaped("-1", "[ -1, 1 ]", rows_max=4),
        rows_max=4,
        shapes={"x": [-1, -1]},
    ),
)

# ---------------------------------------------------------------------------------------------------------------------
# Files: weights, names, links, sums, labels, versions

PLUS_BOTH = """g (float[3] x) => (float[3] y)
<float[3] k = ["location": "weights.bin", "offset": "12", "length": "12"],
 float[3] l = ["location": "weights.bin", "offset": "0", "length": "12"]> { p = Mul(x, k) y = Add(p, l) }"""
SCORES = f4([[0.5, 3, -1], [2, 2, 9]])
SCORED = "g (float[b, 3] x) => (float[b, 3] y, int64[b, 3] n) { y = Identity(x) n = Cast<to = 7>(x) }"
LABELS = _io("x FP32 3", '> y FP32 3 label_filename: "labels.txt"', "> n INT64 3", rows_max=4)

FILES = (
    _good("9.Any-name_that.is-allowed", TWICE, ASK),
    _good("external_data", _plus("weights.bin"), ASK_WEIGHTS, files={"1/weights.bin": WEIGHTS}),
    _good(
        "external_data_below",
        _plus("data/deep/weights.bin", 4),
        ASK_WEIGHTS,
        files={"1/data/deep/weights.bin": b"skip" + WEIGHTS},
    ),
    _good(
        "external_data_shared",
        PLUS_BOTH,
        Ask({"x": X}, {"y": f4([12, 28, 30.5])}),
        files={"1/weights.bin": WEIGHTS + X2.tobytes()},
    ),
    _good(
        "other_filename",
        b"not this one",
        ASK,
        config='default_model_filename: "net.onnx"',
        files={"1/net.onnx": TWICE},
    ),
    Entry(
        "folder_as_model",
        {"1/net.onnx/model.onnx": _plus("weights.bin"), "1/net.onnx/weights.bin": WEIGHTS},
        'default_model_filename: "net.onnx"',
        asks=(ASK_WEIGHTS,),
    ),
    Entry(
        "links_to_blobs",  # as the cache of Hugging Face has them
        {
            "blobs/a1": _plus("weights.bin"),
            "blobs/b2": WEIGHTS,
            "1/model.onnx": Link("../blobs/a1"),
            "1/weights.bin": Link("../blobs/b2"),
        },
        asks=(ASK_WEIGHTS,),
    ),
    Entry(
        "links_of_a_config_map",  # as Kubernetes mounts one
        {
            "1/..2026_11_21/model.onnx": TWICE,
            "1/..data": Link("..2026_11_21"),
            "1/model.onnx": Link("..data/model.onnx"),
        },
        asks=(ASK,),
    ),
    Entry("link_of_a_version", {"build/model.onnx": TWICE, "1": Link("build")}, asks=(ASK,)),
    Entry("link_of_a_model", {"": Link("external_data")}, asks=(ASK_WEIGHTS,)),
    _good(
        "sums",
        _plus("weights.bin"),
        ASK_WEIGHTS,
        files={"1/weights.bin": WEIGHTS, "1/SHA256SUMS": Sums(("model.onnx", "weights.bin"))},
    ),
    _good(
        "labels",
        SCORED,
        Ask({"x": SCORES}, {"y": SCORES, "n": i8([[0, 3, -1], [2, 2, 9]])}),
        Ask(
            {"x": SCORES},
            {
                "y": texts([["3.000000:1:chien 🐶", "0.500000:0:Katze"], ["9.000000:2", "2.000000:0:Katze"]]),
                "n": texts([["3:1", "0:0"], ["9:2", "2:0"]]),
            },
            outputs=("y", "n"),
            classes=2,
        ),
        Ask(
            {"x": SCORES[:1]},
            {"y": texts([["3.000000:1:chien 🐶", "0.500000:0:Katze", "-1.000000:2"]])},
            outputs=("y",),
            classes=9,
        ),
        Refusal({"x": SCORES}, "'classification'", outputs=("y",), classes=-1),
        config=LABELS,
        files={"labels.txt": "Katze\nchien 🐶\n".encode()},
        rows_max=4,
    ),
)


def _versions(*versions: int) -> dict[str, Content]:
    """Version v multiplies by v."""
    return {f"{version}/model.onnx": TIMES.format(factor=version) for version in versions}


def _by(version: int) -> tuple[Ask, Ask]:
    """Asks for what the newest version answers, unpinned and pinned."""
    pinned = _pinned(version)
    return replace(pinned, version=""), pinned


def _pinned(version: int) -> Ask:
    return Ask({"x": ROWS}, {"y": ROWS * np.float32(version)}, version=str(version), by=str(version))


def _absent(version: str) -> Refusal:
    return Refusal({"x": ROWS}, f"version {version}", "NOT_FOUND", version=version)


CANNOT_LOAD = "ONNX Runtime cannot load it"
NO_FILE = "has no file 'model.onnx'"
VERSIONS = (
    Entry("versions_default", _versions(1, 2), "", {"2": ""}, (*_by(2), _absent("1"), _absent("7")), 4),
    Entry(
        "versions_latest_two",
        _versions(1, 2, 3),
        "version_policy { latest { num_versions: 2 } }",
        {"2": "", "3": ""},
        (*_by(3), _pinned(2), _absent("1")),
        4,
    ),
    Entry(
        "versions_all",  # the newest by number, not by text
        _versions(1, 9, 10) | {"0/model.onnx": b"-", "011/model.onnx": b"-", "v12/model.onnx": b"-", "+13": None},
        "version_policy { all { } }",
        {"1": "", "9": "", "10": ""},
        (*_by(10), _pinned(9), _pinned(1), _absent("11")),
        4,
    ),
    Entry(
        "versions_specific",
        _versions(1, 2, 3, 4),
        "version_policy { specific { versions: [ 1, 3, 99 ] } }",
        {"1": "", "3": ""},
        (*_by(3), _pinned(1), _absent("2"), _absent("4")),
        4,
    ),
    Entry(
        "versions_of_other_shape",
        {"1/model.onnx": TWICE, "2/model.onnx": "g (int64[2] n) => (int64[2] m) { m = Neg(n) }"},
        "version_policy { all { } }",
        {"1": "", "2": ""},
        (
            replace(ASK, version="1"),
            Ask({"n": i8([1, -2])}, {"m": i8([-1, 2])}, by="2"),
            Refusal({"x": X}, "has no input 'x'"),
        ),
    ),
    Entry(
        "older_version_broken",
        _versions(2) | {"1/model.onnx": b"no model", "3": None},
        "version_policy { specific { versions: [ 1, 2 ] } }",
        {"1": CANNOT_LOAD, "2": ""},
        (*_by(2), Refusal({"x": ROWS}, CANNOT_LOAD, "UNAVAILABLE", version="1")),
        4,
    ),
    Entry(
        "newest_version_broken",  # traffic never falls back to an older version by itself
        _versions(1) | {"2/model.onnx": b"no model", "3": None},
        "version_policy { all { } }",
        {"1": "", "2": CANNOT_LOAD, "3": NO_FILE},
        (
            _pinned(1),
            Refusal({"x": ROWS}, NO_FILE, "UNAVAILABLE"),
            Refusal({"x": ROWS}, CANNOT_LOAD, "UNAVAILABLE", version="2"),
        ),
        4,
    ),
)

# ---------------------------------------------------------------------------------------------------------------------
# How models run: instances, queues, warm-up, parameters


def _warmup(data: str, datatype: str = "INT64", key: str = "index", rows: int = 2) -> str:
    return (
        f'max_batch_size: 4 model_warmup {{ name: "one" batch_size: {rows} count: 3 inputs {{ key: "{key}" '
        f"value {{ data_type: TYPE_{datatype} dims: 1 {data} }} }} }}\n"
    )


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


RUNNING = (
    _good(
        "two_instances",
        TWICE_ROWS,
        *_all_rows(8),
        config="max_batch_size: 8 instance_group [ { count: 2 kind: KIND_CPU } ]",
        rows_max=8,
    ),
    _good(
        "priorities",
        TWICE_ROWS,
        *(replace(ASK_ROWS, parameters={"priority": level}) for level in (0, 1, 2, 3)),
        replace(ASK_ROWS, parameters={"timeout": 20_000_000, "priority": 1}),
        Refusal({"x": ROWS}, "parameter 'timeout'", parameters={"timeout": -1}),
        config="""max_batch_size: 8 dynamic_batching {
          preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 500
          priority_levels: 3 default_priority_level: 2
          default_queue_policy {
            default_timeout_microseconds: 30000000 allow_timeout_override: true max_queue_size: 500
          }
          priority_queue_policy { key: 3 value { timeout_action: DELAY default_timeout_microseconds: 100000 } }
        }""",
        rows_max=8,
    ),
    _good(
        "ordered",
        TWICE_ROWS,
        *_all_rows(4),
        config="max_batch_size: 4 dynamic_batching { preserve_ordering: true } instance_group { count: 2 }",
        rows_max=4,
    ),
    _good(
        "warmup_from_file",
        LOOKUP,
        Ask({"index": i8([[3], [0]])}, {"y": f4([[40], [10]])}),
        Refusal({"index": i8([[9]])}, "failed to run this request", "INTERNAL"),
        config=_warmup('input_data_file: "three.bin"'),
        files={"warmup/three.bin": i8([3]).tobytes()},
        rows_max=4,
    ),
    _good(
        "warmup_of_text",
        "g (string[b, 1] x) => (int64[b, 1] y) { y = Cast<to = 7>(x) }",
        Ask({"x": texts([["-7"], ["12"]])}, {"y": i8([[-7], [12]])}),
        config=_warmup('input_data_file: "number"', "STRING", "x"),
        files={"warmup/number": to_bytes(texts(["42"]), DataType.BYTES)},
        rows_max=4,
    ),
    _good(
        "warmup_at_random",
        _twice("b, 1"),
        Ask({"x": ROWS[:, :1]}, {"y": ROWS2[:, :1]}),
        config=_warmup("random_data: true", "FP32", "x", rows=4),
        rows_max=4,
    ),
    _good(
        "parameters",
        TWICE_ROWS,
        *_all_rows(4),
        config=_parameter("execution_mode", "1")
        + _parameter("intra_op_thread_count", "1")
        + _parameter("inter_op_thread_count", "1")
        + _parameter("enable_mem_arena", "0")
        + _parameter("session.use_device_allocator_for_initializers", "1")
        + _parameter("team", "rails")
        + "optimization { graph { level: -1 } }",
        rows_max=4,
        notes=("not honoured: parameters[team]",),
    ),
)

# ---------------------------------------------------------------------------------------------------------------------
# Broken. `_one`: a version that cannot be loaded; `_none`: a model of which no version is even looked at.


def _one(name: str, why: str, model: Content = TWICE, config: str = "", files: Files | None = None) -> Entry:
    return Entry(name, {"1/model.onnx": model, **(files or {})}, config, {"1": why})


def _none(name: str, why: str, config: str = "", files: Files | None = None, listed: str = "") -> Entry:
    return Entry(name, {"1/model.onnx": TWICE} if files is None else files, config, {"": why}, listed=listed)


BAD_NAME = "its name has other characters than letters, digits, '.', '_' and '-', or over 128"
OUTSIDE = "out of the model repository"
WEIGHTS_OUTSIDE = "its data is at a path that leads out of the version's folder"
BROKEN_FILES = (
    _none("broken_no_version", "it has no version folder: put the model into a folder named 1, 2, ...", files={}),
    _none("broken_no_number", "it has no version folder", files={"latest/model.onnx": TWICE, "01/model.onnx": TWICE}),
    Entry("broken_no_file", {"1/README.md": b"soon"}, states={"1": NO_FILE}),
    Entry("broken_folder", {"1/model.onnx/other.onnx": TWICE}, states={"1": NO_FILE}),
    _one("broken_empty", "the model file is empty", b""),
    _one("broken_garbage", CANNOT_LOAD, b"this is no model"),
    _one("broken_truncated", CANNOT_LOAD, onnx_bytes(TWICE_ROWS)[:-30]),
    _one("broken_operator", "Frobnicate", "g (float[3] x) => (float[3] y) { y = Frobnicate(x) }"),
    _one("broken_opset", "Opset 999", f'<ir_version: 8, opset_import: ["" : 999]>\n{TWICE}'),
    _one("broken_ir", "IR version: 99", f'<ir_version: 99, opset_import: ["" : 20]>\n{TWICE}'),
    _one("broken_kernel", CANNOT_LOAD, _twice("3", "bfloat16")),
    _one("broken_cycle", "not acyclic", "g (float[3] x) => (float[3] y) { a = Add(x, b) b = Add(x, a) y = Neg(b) }"),
    _one("broken_input_twice", CANNOT_LOAD, "g (float[3] x, float[3] x) => (float[3] y) { y = Add(x, x) }"),
    _one("broken_output_missing", CANNOT_LOAD, "g (float[3] x) => (float[3] y, float[3] z) { y = Neg(x) }"),
    _one("broken_complex", "complex64", "g (complex64[3] x) => (complex64[3] y) { y = Identity(x) }"),
    _one("broken_float8", "input 'x'", "g (float8e4m3fn[3] x) => (float8e4m3fn[3] y) { y = Identity(x) }"),
    _one("broken_sequence", "output 'y'", "g (float[3] x) => (seq(float[3]) y) { y = SequenceConstruct(x) }"),
    _one("broken_optional_type", "output 'y'", "g (float[3] x) => (optional(float[3]) y) { y = Optional(x) }"),
    _one(
        "broken_run",
        "the model fails to run on noise of its own input shapes",
        """g (float[3] x) => (float[3] y) <int64 nine = {9}>
        { nil = Sub(x, x) i = Cast<to = 7>(nil) j = Add(i, nine) y = Gather(x, j) }""",
    ),
    _one("broken_weights_missing", "weights.bin", _plus("weights.bin")),
    _one(
        "broken_weights_short", "'weights.bin', which has 12", _plus("weights.bin", 4), files={"1/weights.bin": WEIGHTS}
    ),
    _one("broken_weights_up", WEIGHTS_OUTSIDE, _plus("../weights.bin"), files={"weights.bin": WEIGHTS}),
    _one("broken_weights_outside", WEIGHTS_OUTSIDE, _plus("../../../outside/weights.bin")),
    _one("broken_weights_absolute", WEIGHTS_OUTSIDE, _plus("/etc/hostname")),
    _one(
        "broken_weights_link",
        f"'weights.bin' is a link that leads {OUTSIDE}",
        _plus("weights.bin"),
        files={"1/weights.bin": Link("../../../outside/weights.bin")},
    ),
    _one(
        "broken_weights_hard_link",
        "'weights.bin' is a file with 3 names (hard links)",
        _plus("weights.bin"),
        files={"1/weights.bin": HardLink("weights.bin"), "weights.bin": HardLink("weights.bin")},
    ),
    _one("broken_link", f"'model.onnx' is a link that leads {OUTSIDE}", Link("../../../outside/model.onnx")),
    _one("broken_link_absolute", "'model.onnx' is an absolute link", Link("{root}/rank_1/1/model.onnx")),
    _one("broken_link_loop", "'model.onnx' leads through more than 40 links", Link("model.onnx")),
    _one("broken_link_to_nothing", NO_FILE, Link("nothing.onnx")),
    Entry("broken_link_of_version", {"1": Link("../../outside")}, states={"1": f"leads {OUTSIDE}"}),
    Entry("broken_link_of_model", {"": Link("../outside")}, states={"": f"leads {OUTSIDE}"}),
    _one("broken_hard_link", "'model.onnx' is a file with 2 names (hard links)", HardLink("model.onnx")),
    _one("broken_fifo", "'model.onnx' is a FIFO", Fifo()),
    _one("broken_sums", "but SHA256SUMS says", files={"1/SHA256SUMS": Sums(("model.onnx",), right=False)}),
    _one(
        "broken_sums_unlisted",
        "SHA256SUMS does not list 'weights.bin'",
        _plus("weights.bin"),
        files={"1/weights.bin": WEIGHTS, "1/SHA256SUMS": Sums(("model.onnx",))},
    ),
    _one("broken_sums_form", "SHA256SUMS line 1", files={"1/SHA256SUMS": b"0123 model.onnx\n"}),
    _one(
        "broken_sums_outside",
        "is no path inside of its folder",
        files={"1/SHA256SUMS": Sums(("model.onnx", "../../../outside/weights.bin"))},
    ),
    *(
        (_one("broken_unreadable", "Permission denied", Unreadable(onnx_bytes(TWICE))),)
        if os.geteuid()  # root reads everything
        else ()
    ),
)
BROKEN_CONFIGS = (
    _none("broken name", BAD_NAME),
    _none("-broken_name", BAD_NAME),
    _none("broken_näme", BAD_NAME),
    _none("broken\nready: 203.0.113.1:1\x1b[31m", BAD_NAME, listed=r"broken\nready: 203.0.113.1:1\x1b[31m"),
    _none("broken_syntax", "config.pbtxt: ", "max_batch_size: { 8"),
    _none("broken_field", 'no field named "max_batch_sice"', "max_batch_sice: 8"),
    _none("broken_value", "config.pbtxt: ", "max_batch_size: many"),
    _none("broken_encoding", "config.pbtxt is not UTF-8 text", files={"1": None, "config.pbtxt": b"# \xff"}),
    _none("broken_config_folder", "'config.pbtxt' is a folder, no file", files={"1": None, "config.pbtxt": None}),
    _none("broken_config_link", f"leads {OUTSIDE}", files={"1": None, "config.pbtxt": Link("../../outside/x")}),
    _none("broken_other_name", "name is 'somebody', the folder is 'broken_other_name'", 'name: "somebody"'),
    _none("broken_platform", "platform 'tensorflow_graphdef'", 'platform: "tensorflow_graphdef"'),
    _none("broken_sequence_batching", "'sequence_batching'", "sequence_batching { }"),
    _none("broken_decoupled", "decoupled", "model_transaction_policy { decoupled: true }"),
    _none("broken_policy", "version_policy allows [7], there are [1]", "version_policy { specific { versions: 7 } }"),
    _none("broken_filename", "is not a plain file name", 'default_model_filename: "../../../outside/model.onnx"'),
    _none("broken_instances", "instance_group count is 65, the limit is 64", "instance_group { count: 65 }"),
    _none("broken_parameter", "execution_mode", _parameter("execution_mode", "7")),
    _none("broken_priority", "default_priority_level", "max_batch_size: 4 dynamic_batching { priority_levels: 2 }"),
    _none("broken_dims_zero", "'x' has dims [0]", _io("x FP32 0", "> y FP32 3")),
    _none("broken_reshape", "'x' reshapes [3] to [2, 2]", _reshaped("3", "[ 2, 2 ]", rows_max=2)),
    _one("broken_gpu", "asks for a GPU, but this server runs on the CPU", config="instance_group { kind: KIND_GPU }"),
    _one("broken_datatype", "input 'x' is TYPE_INT32, the model file has TYPE_FP32", config=_io("x INT32 3")),
    _one("broken_dims", "input 'x' has dims [4], the model file has [3]", config=_io("x FP32 4", "> y FP32 3")),
    _one("broken_rank", "input 'x' has dims [1, 3], the model file has [3]", config=_io("x FP32 [1,3]", "> y FP32 3")),
    _one("broken_unknown_output", "output 'z' is not in the model file", config=_io("> z FP32 3")),
    _one(
        "broken_missing_input",
        "'k'",
        "g (float[3] x, float[3] k) => (float[3] y) { y = Add(x, k) }",
        _io("x FP32 3", "> y FP32 3"),
    ),
    _one("broken_max_batch", "the model file fixes a first dimension", config="max_batch_size: 8"),
    _one("broken_rows_together", "set it to 0", FIRST_ROW, "max_batch_size: 8"),
    _none(
        "broken_optional_rows",
        "input 'k' is optional, but max_batch_size is 4",
        _io("k FP32 3 optional: true", rows_max=4),
    ),
    _one("broken_optional", "input 'x' is optional", config=_io("x FP32 3 optional: true", "> y FP32 3")),
    _one("broken_labels", "labels.txt", SCORED, LABELS),
    _one("broken_warmup_file", "missing.bin", LOOKUP, _warmup('input_data_file: "missing.bin"')),
    _one(
        "broken_warmup_size",
        "short.bin",
        LOOKUP,
        _warmup('input_data_file: "short.bin"'),
        {"warmup/short.bin": b"short"},
    ),
)

# Only where a child process tries models first: 80 GB of zeros.
BROKEN_MEMORY = _one(
    "broken_memory",
    "--preflight-memory-bytes-max",
    """g (float[3] x) => (float[3] y) <int64[1] size = {20000000000}>
    { zeros = ConstantOfShape(size) nil = ReduceMax<keepdims = 0>(zeros) y = Add(x, nil) }""",
)

GOOD = (*DATATYPES, *RANKS, *BATCHING, *TENSORS, *RESHAPE, *FILES, *VERSIONS, *RUNNING)
BROKEN = (*BROKEN_FILES, *BROKEN_CONFIGS)
