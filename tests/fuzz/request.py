"""Target: the bytes of a ModelInferRequest by every way of the codec, which must agree, then the check against
signatures, and an echo back out."""

from __future__ import annotations

import random

import numpy as np
from google.protobuf.message import DecodeError

from fuzz import oracle, paths
from fuzz.mutation import MessageMutator, Mutate, integer, mutate_wire, reorder
from turnout.core.classification import classify
from turnout.core.errors import ServingError
from turnout.core.ids import Revision
from turnout.core.tensors import ANY, InferenceRequest, InferenceResponse, Signature, TensorSpec, Timings, check
from turnout.transport import codec
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.tensors import Array, DataType, from_raw, to_bytes

LIMITS = codec.DecodeLimits(bytes_elements_max=64, typed_elements_max=256)
_CLASSES_MAX = 256
_ROWS_MAX = 4096  # the default of --batch-rows-max, which bounds every model's
_REVISION = Revision("m", 3, "int8", "0" * 64)
_ROUND_TRIP_BYTES_MAX = 1 << 16


def _specs(*specs: tuple[str, DataType, tuple[int, ...]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(*spec) for spec in specs)


SIGNATURES = (
    Signature(
        _specs(("INPUT0", DataType.INT32, (ANY, 16)), ("INPUT1", DataType.INT32, (ANY, 16))),
        _specs(("OUTPUT0", DataType.INT32, (ANY, 16)), ("OUTPUT1", DataType.INT32, (ANY, 16))),
        rows_max=8,
    ),
    Signature(_specs(("x", DataType.FP32, (2,))), _specs(("y", DataType.FP32, (2,)))),
    Signature(_specs(("x", DataType.BYTES, (ANY,))), _specs(("y", DataType.BYTES, (ANY,))), rows_max=4),
    Signature(
        (
            TensorSpec("x", DataType.FP16, (ANY, ANY, 3)),
            TensorSpec("flag", DataType.BOOL, (), optional=True),
        ),
        _specs(("y", DataType.FP64, (ANY,))),
    ),
)


def decode(data: bytes) -> InferenceRequest:
    return paths.decode(data, LIMITS, 10**12)


def run(data: bytes) -> None:
    try:
        message = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        message = None
    try:
        request = decode(data)
    except DecodeError:
        oracle.require(message is None, "a message that is refused as none")
        return  # the status table's business
    except ServingError as refusal:
        oracle.require(message is not None, "no message, and it is read")
        assert message is not None
        _refused(refusal, message, data)
        return
    oracle.require(message is not None, "no message, and it is answered")
    assert message is not None
    _check_decoded(request, message, data)
    for signature in SIGNATURES:
        try:
            check(request, signature)
        except ServingError as refusal:
            _refused(refusal, message, data)
    for signature in _own(request):
        try:
            admission = check(request, signature)
        except ServingError as refusal:
            _refused(refusal, message, data)
            asked = [signature.output_by_name[name].datatype for name in request.classes]
            oracle.require(DataType.BYTES in asked, f"its own signature refuses it: {refusal}")
        else:
            oracle.require(1 <= admission.rows <= max(signature.rows_max, 1), f"{admission.rows} rows")
            oracle.require(admission.bytes <= 64 * len(data) + 64, f"{admission.bytes} bytes of {len(data)}")
            hash(admission.shape_key)
            _echo(request, signature, len(data))


def _refused(refusal: ServingError, message: pb.ModelInferRequest, data: bytes) -> None:
    oracle.refused(refusal, data)
    received = codec.Requests(LIMITS).read(data)
    asked = codec.Asked.of(received.plan, received.request_id, LIMITS.id_characters_max)
    answer = pb.ModelStreamInferResponse.FromString(codec.encode_stream_error(asked, refusal, "CODE"))
    oracle.require(bool(answer.error_message), "a stream's error without a text")
    oracle.require(
        answer.infer_response.id == message.id[: LIMITS.id_characters_max], "a stream's error for another request"
    )


def _check_decoded(request: InferenceRequest, message: pb.ModelInferRequest, data: bytes) -> None:
    oracle.require(list(request.inputs) == [tensor.name for tensor in message.inputs], "other inputs")
    oracle.require(list(request.outputs) == [tensor.name for tensor in message.outputs], "other outputs")
    oracle.require(set(request.classes) <= set(request.outputs), "classes of an output that nobody asked for")
    size = 0
    for tensor, array in zip(message.inputs, request.inputs.values(), strict=True):
        datatype = DataType(tensor.datatype)
        oracle.require(array.dtype == datatype.dtype, f"{array.dtype} for {datatype}")
        oracle.require(array.shape == tuple(tensor.shape), f"shape {array.shape} for {list(tensor.shape)}")
        if datatype is DataType.BYTES:
            oracle.require(all(type(element) is str for element in array.flat), "BYTES are not str")
        else:
            oracle.require(not array.flags.writeable, "an input that can be written")
        size += array.nbytes
    oracle.require(size <= 16 * len(data), f"{size} bytes of arrays from {len(data)} bytes")


def _own(request: InferenceRequest) -> list[Signature]:
    """Signatures that fit the request itself: as it is, and with its first dimension as rows."""
    inputs = tuple(TensorSpec(name, DataType.from_numpy(a.dtype), a.shape) for name, a in request.inputs.items())
    shown = inputs or _specs(("", DataType.FP32, (0,)))
    names = request.outputs or tuple(spec.name for spec in shown)
    outputs = [(name, shown[index % len(shown)]) for index, name in enumerate(names)]
    found = [Signature(inputs, tuple(TensorSpec(name, s.datatype, s.shape) for name, s in outputs))]
    rows = {array.shape[:1] for array in request.inputs.values()}
    if len(rows) == 1 and (first := rows.pop()) and 1 <= first[0] <= _ROWS_MAX:
        batched = [(spec.name, spec.datatype, (ANY, *spec.shape[1:])) for spec in inputs]
        found.append(
            Signature(
                _specs(*batched),
                tuple(TensorSpec(name, s.datatype, (ANY, *s.shape[1:])) for name, s in outputs),
                first[0],
            )
        )
    return found


def _echo(request: InferenceRequest, signature: Signature, data_bytes: int) -> None:
    """An answer made of the inputs: encoded, parsed and sent again, it is still the same."""
    arrays: list[Array] = list(request.inputs.values()) or [np.zeros(0, np.float32)]
    outputs: list[tuple[TensorSpec, Array]] = []
    for index, spec in enumerate(signature.outputs):
        array = arrays[index % len(arrays)]
        if classes := request.classes.get(spec.name):
            try:
                array = classify(array, classes, ("cat", "dog"), signature.rows_max > 0, _CLASSES_MAX)
            except ServingError as refusal:
                oracle.refused(refusal, b"")
                continue
            spec = TensorSpec(spec.name, DataType.BYTES, array.shape)
        outputs.append((spec, array))
    response = InferenceResponse(_REVISION, "blue", 7, tuple(outputs), Timings(1, 2, 3, 4, 1))
    streamed = bool(data_bytes & 1)
    encoded = codec.encode(request, response, identity=bool(data_bytes & 2), streamed=streamed)
    answer = (
        pb.ModelStreamInferResponse.FromString(encoded).infer_response
        if streamed
        else pb.ModelInferResponse.FromString(encoded)
    )
    oracle.require(len(answer.raw_output_contents) == len(outputs), "another number of outputs")
    oracle.require(answer.id == request.request_id and answer.model_name == request.model, "an answer for another")
    again = pb.ModelInferRequest(model_name="m")
    for (spec, array), tensor, raw in zip(outputs, answer.outputs, answer.raw_output_contents, strict=True):
        oracle.require(tensor.name == spec.name and tensor.datatype == spec.datatype.value, "another output")
        oracle.require(tuple(tensor.shape) == array.shape, f"shape {list(tensor.shape)} for {array.shape}")
        oracle.require(raw == to_bytes(array, spec.datatype), f"other contents of {spec}")
        from_raw(raw, spec.datatype, tensor.shape)
        again.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        again.raw_input_contents.append(raw)
    if len(encoded) > _ROUND_TRIP_BYTES_MAX or sum(array.size for _, array in outputs) > LIMITS.bytes_elements_max:
        return
    inputs = decode(again.SerializeToString()).inputs
    for spec, array in outputs:
        oracle.require(
            to_bytes(inputs[spec.name], spec.datatype) == to_bytes(array, spec.datatype), "changed on the way"
        )


# Mutations

_NAMES = ("x", "y", "INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1", "flag", "", "\x1b[31m", "n" * 200, "/etc/passwd")
_TEXTS = {
    "datatype": (*(datatype.value for datatype in DataType), "FP8", "fp32", "", "STRING", "TYPE_FP32"),
    "name": _NAMES,
    "model_name": ("m", "", "digits", "..", "m\n"),
    "model_version": ("", "1", "3", "0", "01", "+1", "-1", "1" * 18, "1" * 19, "1" * 400, "latest", "\u0661"),
    "id": ("", "r-1", "\r\n", "i" * 300),
    "key": (
        "timeout",
        "priority",
        "headers",
        "sequence_id",
        "sequence_start",
        "classification",
        "binary_data",
        "triton_enable_empty_final_response",
        "triton_x",
        "shared_memory_region",
        "shared_memory_byte_size",
        "shared_memory_offset",
        "sticky_key",
        "k" * 200,
        "\x1b[2J",
    ),
}


def mutate(data: bytes, bytes_max: int, rng: random.Random, mutate_bytes: Mutate) -> bytes:
    how = rng.random()
    if how < 0.05:
        return mutate_bytes(data, bytes_max)
    if how < 0.2:
        changed = mutate_wire(rng, data) if how < 0.15 else reorder(rng, data)
        return changed if len(changed) <= bytes_max else data
    try:
        message = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        message = pb.ModelInferRequest(model_name="m")
    fields = MessageMutator(rng, _TEXTS, mutate_bytes)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        match rng.randrange(10):
            case 0 | 1 | 2 | 3:
                fields(message)
            case 4 | 5:
                _fit(message, rng)
            case 6:
                _conform(message, rng)
            case 7:
                _to_typed(message) if message.raw_input_contents else _fit(message, rng)
            case 8 if message.raw_input_contents:
                at = rng.randrange(len(message.raw_input_contents))
                message.raw_input_contents[at] = mutate_bytes(message.raw_input_contents[at] or b"\0", 512)
            case _ if message.inputs:
                _reshape(rng.choice(message.inputs), rng)
            case _:
                message.inputs.add(name="x", datatype="FP32", shape=[1])
    out = message.SerializeToString()
    return out if len(out) <= bytes_max else mutate_bytes(data, bytes_max)


def _fit(message: pb.ModelInferRequest, rng: random.Random) -> None:
    """Raw contents of the size that each input claims, where that is small."""
    old = list(message.raw_input_contents)
    del message.raw_input_contents[:]
    for index, tensor in enumerate(message.inputs):
        tensor.ClearField("contents")
        raw = old[index] if index < len(old) else rng.randbytes(8)
        message.raw_input_contents.append(_sized(tensor, raw or b"\0", rng))


def _sized(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes, rng: random.Random) -> bytes:
    count = 1
    for dim in tensor.shape[:40]:
        count *= dim
    if not 0 <= count <= 512 or tensor.datatype not in DataType.__members__:
        return raw
    if tensor.datatype == "BYTES":
        words = (b"", b"a", "☃".encode(), b"\0", b"word" * 4, *((b"\xff",) if rng.random() < 0.1 else ()))
        chosen = [rng.choice(words) for _ in range(count)]
        return b"".join(len(word).to_bytes(4, "little") + word for word in chosen)
    size = count * DataType(tensor.datatype).itemsize
    return (raw * (size // len(raw) + 1))[:size]


def _conform(message: pb.ModelInferRequest, rng: random.Random) -> None:
    """Inputs that one of the signatures takes."""
    signature = rng.choice(SIGNATURES)
    rows = rng.randint(1, signature.rows_max or 3)
    del message.inputs[:], message.outputs[:]
    for spec in signature.inputs:
        if spec.optional and rng.random() < 0.5:
            continue
        dims = [rows if dim == ANY else dim for dim in spec.shape]
        message.inputs.add(name=spec.name, datatype=spec.datatype.value, shape=dims)
    for name in signature.output_names:
        if rng.random() < 0.5:
            output = message.outputs.add(name=name)
            if rng.random() < 0.5:
                output.parameters["classification"].int64_param = rng.choice((1, 2, 5, 2**62))
    _fit(message, rng)


def _to_typed(message: pb.ModelInferRequest) -> None:
    """The same tensors in typed contents, where they have that form."""
    for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=False):
        try:
            datatype = DataType(tensor.datatype)
            values = from_raw(raw, datatype, tensor.shape).reshape(-1).tolist()
        except ValueError:
            continue
        if datatype.contents_field:
            getattr(tensor.contents, datatype.contents_field).extend(values)
    del message.raw_input_contents[:]


def _reshape(tensor: pb.ModelInferRequest.InferInputTensor, rng: random.Random) -> None:
    dims = list(tensor.shape)
    match rng.randrange(6):
        case 0:
            dims.append(1)
        case 1:
            dims.insert(0, rng.choice((0, 1, 2)))
        case 2:
            dims = [0, *(integer(rng, 0, 2**63 - 1) for _ in range(3))]
        case 3:
            dims = [1] * rng.choice((0, 1, 31, 32, 33, 64))
        case 4 if dims:
            dims[rng.randrange(len(dims))] = integer(rng, -(2**63), 2**63 - 1)
        case _:
            dims = dims[::-1]
    tensor.shape[:] = dims
