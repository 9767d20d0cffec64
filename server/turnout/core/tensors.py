"""What goes through a model: tensor specs, a model's signature, requests and responses, and the check of the one
against the other. Arrays are numpy; BYTES tensors are object arrays of `str`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

from turnout.core.assignment import Choice
from turnout.core.errors import Reason, ServingError
from turnout.core.frozen import frozen
from turnout.core.ids import Revision
from turnout.core.tracing import TraceContext
from turnout_wire.tensors import Array, DataType, TensorError

ANY = -1  # a dimension that the model leaves open

# What one element may take, where that is more than in raw contents. Typed contents carry integers as varints: seven
# bits a byte, and a negative one always ten bytes; a model's own service has halves as floats.
_TYPED_BYTES_MAX = {
    DataType.FP16: 4,
    DataType.BF16: 4,
    DataType.INT8: 10,
    DataType.INT16: 10,
    DataType.INT32: 10,
    DataType.INT64: 10,
    DataType.UINT8: 2,
    DataType.UINT16: 3,
    DataType.UINT32: 5,
    DataType.UINT64: 10,
}
_LENGTH_BYTES = 4  # before each element of BYTES
_STR_BYTES = 64  # what a short `str` takes in memory, beside its characters

Tensors = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: `shape` as clients see it, with the batch dimension (ANY) first where there is one."""

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    model_shape: tuple[int, ...] | None = None  # what the model itself takes or gives, where it differs (`reshape`)
    optional: bool = False  # an input that the model has a default for

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape fits: same rank, each dimension equal or open."""
        return len(shape) == len(self.shape) and all(
            want in (ANY, have) for want, have in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives. `rows_max` is Triton's max_batch_size: 0 means that it has no batch dimension."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    rows_max: int = 0
    # Derived once, for the hot path.
    input_names: frozenset[str] = field(init=False, repr=False, compare=False)
    required_names: frozenset[str] = field(init=False, repr=False, compare=False)
    output_names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    output_by_name: Mapping[str, TensorSpec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_names", frozenset(spec.name for spec in self.inputs))
        required = frozenset(spec.name for spec in self.inputs if not spec.optional)
        object.__setattr__(self, "required_names", required)
        object.__setattr__(self, "output_names", tuple(spec.name for spec in self.outputs))
        object.__setattr__(self, "output_by_name", {spec.name: spec for spec in self.outputs})

    def request_bytes_max(self) -> int | None:
        """Tensor bytes of the largest request, raw or typed, or None where an open dimension or BYTES leaves it
        unbounded."""
        total = 0
        for spec in self.inputs:
            dims = (self.rows_max, *spec.shape[1:]) if self.rows_max else spec.shape
            if ANY in dims or not spec.datatype.itemsize:
                return None
            total += prod(dims) * max(spec.datatype.itemsize, _TYPED_BYTES_MAX.get(spec.datatype, 0))
        return total

    def request_bytes_min(self) -> int:
        """Tensor bytes of the smallest request: raw, one row, one element for each open dimension, no BYTES longer than
        their length, nothing optional."""
        total = 0
        for spec in self.inputs:
            if not spec.optional:
                total += prod(1 if dim == ANY else dim for dim in spec.shape) * (
                    spec.datatype.itemsize or _LENGTH_BYTES
                )
        return total


@frozen
class InferenceRequest:
    """A decoded request. The arrays are views over the received bytes: nothing may write into them."""

    model: str
    inputs: Tensors
    outputs: tuple[str, ...] = ()  # the requested ones, in order; none: all, in signature order
    version: int | None = None  # a pin: only a slot that holds this version may answer
    slot: str | None = None  # a pin: only this slot may answer; `@stable` and `@candidate` are roles
    variant: str | None = None  # a pin: only a slot that holds this variant may answer; `none`: the version's own file
    sticky_key: str | None = None  # requests with the same key go to the same slot; None: chance decides
    request_id: str = ""  # the client's, echoed
    inference_id: str = ""  # the request's id, or one that the server minted; joins logs, shadows and feedback
    deadline_ns: int | None = None  # monotonic; None: the client waits for ever
    timeout_ns: int = 0  # how long it may wait in the queue, as far as the model's queue policy lets it say; 0: no wish
    priority: int = 0  # 1 is the highest; 0: no wish
    classes: Mapping[str, int] = field(default_factory=dict)  # outputs to answer as their k largest elements
    # The same for requests whose inputs have the same names, datatypes and shapes, none of them BYTES, and that want
    # the same outputs in the same way: what one of them was found to be, the others are too. None: nobody has looked.
    form: object | None = field(default=None, compare=False, repr=False)
    trace: TraceContext | None = None  # its span, where it is traced


@frozen
class Timings:
    """Where one request's time went, in nanoseconds; the compute figures are its whole batch's. `started_ns` is when
    that began, monotonic; `batch` its span, where a request in it is traced."""

    queue_ns: int
    compute_input_ns: int
    compute_infer_ns: int
    compute_output_ns: int
    batch_rows: int
    started_ns: int = 0
    batch: TraceContext | None = None


@frozen
class InferenceResponse:
    """The answer, and who gave it. The arrays are never written again while anyone holds this (invariant 13)."""

    revision: Revision
    slot: str
    generation: int
    outputs: tuple[tuple[TensorSpec, Array], ...]
    timings: Timings
    choice: Choice = Choice.ONLY


@frozen
class Admission:
    """What the check of a request found: its rows, and the key that only equal requests share a batch under."""

    rows: int
    shape_key: Hashable
    bytes: int


def check(request: InferenceRequest, signature: Signature) -> Admission:
    """Check a request against a signature, in Triton's order, so that the named culprit is stable.

    Raises:
        ServingError: INVALID_REQUEST, naming the tensor, the value and the limit.
    """
    _check_names(request, signature)
    rows = _rows(request.inputs, signature) if signature.rows_max else 1
    size = 0
    key: list[Hashable] = []
    for spec in signature.inputs:
        array = request.inputs.get(spec.name)
        if array is None:
            key.append(None)
            continue
        if array.dtype != spec.datatype.dtype:
            raise _invalid(
                f"input '{spec.name}' has datatype {_datatype_name(array)}, "
                f"model '{request.model}' takes {spec.datatype.value}"
            )
        if not spec.admits(array.shape):
            raise _invalid(
                f"input '{spec.name}' has shape {list(array.shape)}, "
                f"model '{request.model}' takes {list(spec.shape)} (-1: any)"
            )
        key.append(array.shape[1:] if signature.rows_max else array.shape)
        size += bytes_of(array)
    return Admission(rows, tuple(key), size)


def bytes_of(array: Array) -> int:
    """What a tensor takes in memory, with its strings."""
    if array.dtype.kind != "O":
        return array.nbytes
    return array.nbytes + array.size * _STR_BYTES + sum(map(len, array.flat))


def _check_names(request: InferenceRequest, signature: Signature) -> None:
    for name in request.outputs:
        if name not in signature.output_by_name:
            known = _list(signature.output_names)
            raise _invalid(f"model '{request.model}' has no output '{name}', its outputs are {known}")
    for name in request.classes:
        if signature.output_by_name[name].datatype is DataType.BYTES:
            raise _invalid(f"output '{name}' is BYTES: parameter 'classification' is for numbers")
    names = request.inputs.keys()
    if names == signature.input_names:
        return
    known = _list(signature.input_names)
    if not len(signature.required_names) <= len(names) <= len(signature.input_names):
        optional = len(signature.input_names) - len(signature.required_names)
        raise _invalid(
            f"model '{request.model}' takes {len(signature.input_names)} input(s) {known}"
            + (f", {optional} of them optional" if optional else "")
            + f", the request has {len(names)}"
        )
    for name in names:
        if name not in signature.input_names:
            raise _invalid(f"model '{request.model}' has no input '{name}', its inputs are {known}")
    if missing := signature.required_names - names:
        raise _invalid(f"the request has no input {_list(missing)}, which model '{request.model}' needs")


def _rows(inputs: Tensors, signature: Signature) -> int:
    rows: int | None = None
    for name, array in inputs.items():
        if array.ndim == 0:
            raise _invalid(f"input '{name}' has no batch dimension, send shape [rows, ...] with rows from 1")
        if rows is not None and array.shape[0] != rows:
            raise _invalid(f"input '{name}' has {array.shape[0]} rows, the inputs before it have {rows}")
        rows = array.shape[0]
    rows = rows or 0
    if not 1 <= rows <= signature.rows_max:
        raise _invalid(f"the request has {rows} rows, the model takes from 1 to {signature.rows_max}: split it")
    return rows


def _datatype_name(array: Array) -> str:
    try:
        return str(DataType.from_numpy(array.dtype).value)
    except TensorError:
        return str(array.dtype)


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))


def _invalid(message: str) -> ServingError:
    return ServingError(Reason.INVALID_REQUEST, message)
