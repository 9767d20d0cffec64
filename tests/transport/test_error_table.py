"""The error table of ModelInfer over a real socket: every row with its code, and the order in which rows are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from support.edge import Edge, Served, edge
from turnout.backends.synthetic import SyntheticModel
from turnout.core.tensors import Signature, TensorSpec
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.tensors import DataType

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
OK = grpc.StatusCode.OK

# x and s go in, y and t come out; up to 8 rows.
DECLARED = Signature(
    (TensorSpec("x", DataType.FP32, (-1, 4)), TensorSpec("s", DataType.BYTES, (-1, 1))),
    (TensorSpec("y", DataType.FP32, (-1, 4)), TensorSpec("t", DataType.BYTES, (-1, 1))),
)
MODELS = {
    "m": Served(
        SyntheticModel(DECLARED),
        "max_batch_size: 8 version_policy { all {} }",
        versions=(1, 2),
        failing={1: "the file is no model"},
    ),
    "sick": Served(failing={1: "the file is no model"}),
}

Spoil = Callable[[pb.ModelInferRequest], Any]


def good() -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", id="r")
    request.inputs.add(name="x", datatype="FP32", shape=[2, 4])
    request.inputs.add(name="s", datatype="BYTES", shape=[2, 1])
    request.raw_input_contents.append(np.zeros((2, 4), "<f4").tobytes())
    request.raw_input_contents.append(b"\1\0\0\0a\1\0\0\0b")
    return request


def typed(*x: float) -> Spoil:
    def spoil(request: pb.ModelInferRequest) -> None:
        del request.raw_input_contents[:]
        request.inputs[0].contents.fp32_contents.extend(x)
        request.inputs[1].contents.bytes_contents.extend([b"a", b"b"])

    return spoil


def parameter(key: str, **value: Any) -> Spoil:
    return lambda request: request.parameters[key].CopyFrom(pb.InferParameter(**value))


def tensor(index: int, raw: bytes | None = None, **fields: Any) -> Spoil:
    def spoil(request: pb.ModelInferRequest) -> None:
        for field, value in fields.items():
            if field == "shape":
                request.inputs[index].shape[:] = value
            else:
                setattr(request.inputs[index], field, value)
        if raw is not None:
            request.raw_input_contents[index] = raw

    return spoil


def more_input(name: str, raw: bytes = b"", shape: tuple[int, ...] = (0,)) -> Spoil:
    def spoil(request: pb.ModelInferRequest) -> None:
        request.inputs.add(name=name, datatype="FP32", shape=shape)
        request.raw_input_contents.append(raw)

    return spoil


def fewer_inputs(request: pb.ModelInferRequest) -> None:
    request.inputs.pop()
    request.raw_input_contents.pop()


def output(*names: str, **parameter: Any) -> Spoil:
    def spoil(request: pb.ModelInferRequest) -> None:
        for name in names:
            added = request.outputs.add(name=name)
            for key, value in parameter.items():
                added.parameters[key].CopyFrom(value)

    return spoil


def shared(request: pb.ModelInferRequest) -> None:
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"


def name(field: str, value: str) -> Spoil:
    return lambda request: setattr(request, field, value)


def two_fields(request: pb.ModelInferRequest) -> None:
    typed(*[0.0] * 8)(request)
    request.inputs[0].contents.int_contents.append(1)


def as_int8(request: pb.ModelInferRequest) -> None:
    typed()(request)
    request.inputs[0].datatype = "INT8"
    request.inputs[0].contents.int_contents.extend([128] * 8)


@dataclass
class Row:
    """`stage` counts up along the order of validation; what is wrong in an earlier stage is told first."""

    stage: int
    what: str
    spoil: Spoil
    code: grpc.StatusCode
    words: str = ""


INT = pb.InferParameter(int64_param=1)
ROWS = [
    Row(1, "version in words", name("model_version", "one"), INVALID, "model version 'one'"),
    Row(1, "version 0", name("model_version", "0"), INVALID, "model version '0'"),
    Row(1, "version with a sign", name("model_version", "+2"), INVALID, "model version '+2'"),
    Row(1, "version with garbage", name("model_version", "2x"), INVALID, "model version '2x'"),
    Row(2, "unknown version", name("model_version", "9"), NOT_FOUND, "no ready version 9"),
    Row(2, "version that failed", name("model_version", "1"), UNAVAILABLE, "slot 'v1' of model 'm' is FAILED"),
    Row(2, "no version ready", name("model_name", "sick"), NOT_FOUND, "the file is no model"),
    Row(2, "unknown model", name("model_name", "nobody"), NOT_FOUND, "unknown model 'nobody', this server has 'm'"),
    Row(2, "no model name", name("model_name", ""), NOT_FOUND, "unknown model ''"),
    Row(3, "priority as text", parameter("priority", string_param="1"), INVALID, "parameter 'priority'"),
    Row(3, "priority as float", parameter("priority", double_param=1), INVALID, "parameter 'priority'"),
    Row(3, "priority negative", parameter("priority", int64_param=-1), INVALID, "is -1, it must be 0 or more"),
    Row(3, "timeout as uint64", parameter("timeout", uint64_param=1), INVALID, "parameter 'timeout' is a uint64_param"),
    Row(3, "timeout negative", parameter("timeout", int64_param=-5), INVALID, "parameter 'timeout' is -5"),
    Row(3, "triton's key", parameter("triton_final", bool_param=True), INVALID, "'triton_final' is reserved"),
    Row(3, "headers", parameter("headers", string_param="x"), INVALID, "'headers' is reserved"),
    Row(3, "no value", parameter("mine"), INVALID, "parameter 'mine' has no value"),
    Row(3, "sequence on a model without", parameter("sequence_id", int64_param=4), OK),
    Row(3, "custom parameters", parameter("mine", uint64_param=4), OK),
    Row(4, "input twice", more_input("x"), INVALID, "input 'x' is given twice"),
    Row(4, "output twice", output("y", "y"), INVALID, "output 'y' is given twice"),
    Row(5, "unknown datatype", tensor(0, datatype="FP8"), INVALID, "input 'x' has unknown datatype 'FP8'"),
    Row(5, "fewer raw than inputs", lambda r: r.raw_input_contents.pop(), INVALID, "only 1 raw_input_contents"),
    Row(5, "more raw than inputs", lambda r: r.raw_input_contents.append(b"x"), OK),
    Row(5, "no data", lambda r: r.raw_input_contents.__delitem__(slice(None)), INVALID, "input 'x': it has no data"),
    Row(5, "typed", typed(*[0.0] * 8), OK),
    Row(5, "typed, too few", typed(0.0), INVALID, "input 'x': fp32_contents holds 1 values"),
    Row(5, "typed, of two fields", two_fields, INVALID, "input 'x': FP32 belongs into fp32_contents alone"),
    Row(5, "typed, out of range", as_int8, INVALID, "input 'x': int_contents holds 128"),
    Row(
        5,
        "raw and typed",
        lambda r: r.inputs[1].contents.bytes_contents.append(b"a"),
        INVALID,
        "input 's' has contents",
    ),
    Row(5, "shared memory in", shared, UNIMPLEMENTED, "Turnout has no shared memory"),
    Row(5, "shared memory out", output("y", shared_memory_offset=INT), UNIMPLEMENTED, "Turnout has no shared memory"),
    Row(5, "negative dimension", tensor(0, shape=[-2, 4]), INVALID, "negative dimension -2"),
    Row(5, "raw too short", tensor(0, bytes(31)), INVALID, "hold 31 bytes, but shape [2, 4] of FP32 takes 32 bytes"),
    Row(5, "raw too long", tensor(0, bytes(33)), INVALID, "hold 33 bytes"),
    Row(5, "a gigabyte declared", tensor(0, shape=[8, 1 << 25]), INVALID, "takes 1073741824 bytes"),
    Row(5, "a product above 64 bits", tensor(0, shape=[1 << 62, 1 << 62]), INVALID, "hold 32 bytes"),
    Row(5, "BYTES, cut in a length", tensor(1, b"\1\0\0\0a\1\0"), INVALID, "BYTES element 1 has 2 bytes left"),
    Row(
        5, "BYTES, cut in an element", tensor(1, b"\1\0\0\0a\4\0\0\0b"), INVALID, "BYTES element 1 says it has 4 bytes"
    ),
    Row(5, "BYTES, a lying length", tensor(1, b"\xff\xff\xff\xff"), INVALID, "says it has 4294967295 bytes"),
    Row(5, "BYTES, too few", tensor(1, b"\1\0\0\0a"), INVALID, "hold 1 BYTES elements"),
    Row(5, "BYTES, too many", tensor(1, b"\0\0\0\0" * 3), INVALID, "too many elements"),
    Row(5, "BYTES, not UTF-8", tensor(1, b"\1\0\0\0\xff\0\0\0\0"), INVALID, "input 's': element 0 is not UTF-8"),
    Row(5, "BYTES, beyond the limit", tensor(1, b"", shape=[2, 10**15]), INVALID, "BYTES elements, the limit is 1000"),
    Row(5, "classification 0", output("y", classification=pb.InferParameter(int64_param=0)), INVALID, "from 1"),
    Row(5, "classification as text", output("y", classification=pb.InferParameter(string_param="1")), INVALID, "int64"),
    Row(5, "classification", output("y", classification=INT), OK),
    Row(6, "unknown output", output("q"), INVALID, "has no output 'q', its outputs are 't', 'y'"),
    Row(7, "classification on BYTES", output("t", classification=INT), INVALID, "output 't' is BYTES"),
    Row(8, "too few inputs", fewer_inputs, INVALID, "takes 2 input(s) 's', 'x', the request has 1"),
    Row(8, "too many inputs", more_input("z"), INVALID, "takes 2 input(s) 's', 'x', the request has 3"),
    Row(9, "unknown input", tensor(0, name="z"), INVALID, "has no input 'z', its inputs are 's', 'x'"),
    Row(10, "no batch dimension", tensor(0, bytes(4), shape=[]), INVALID, "input 'x' has no batch dimension"),
    Row(
        10,
        "rows disagree",
        tensor(0, bytes(48), shape=[3, 4]),
        INVALID,
        "input 's' has 2 rows, the inputs before it have 3",
    ),
    Row(
        11,
        "no rows",
        lambda r: (tensor(0, b"", shape=[0, 4])(r), tensor(1, b"", shape=[0, 1])(r)),
        INVALID,
        "has 0 rows",
    ),
    Row(
        11,
        "above the largest batch",
        lambda r: (tensor(0, bytes(144), shape=[9, 4])(r), tensor(1, bytes(36), shape=[9, 1])(r)),
        INVALID,
        "has 9 rows, the model takes from 1 to 8: split it",
    ),
    Row(12, "wrong datatype", tensor(0, datatype="INT32"), INVALID, "'x' has datatype INT32, model 'm' takes FP32"),
    Row(
        13, "wrong shape", tensor(0, bytes(40), shape=[2, 5]), INVALID, "'x' has shape [2, 5], model 'm' takes [-1, 4]"
    ),
    Row(13, "wrong rank", tensor(0, shape=[2, 4, 1]), INVALID, "'x' has shape [2, 4, 1], model 'm' takes [-1, 4]"),
]
# One row of each stage: together they make a request that is wrong in every way that leaves the others visible.
ORDER = [
    "version in words",
    "unknown model",
    "timeout negative",
    "output twice",
    "raw too short",
    "unknown output",
    "classification on BYTES",
    "too many inputs",
]


async def outcome(server: Edge, request: pb.ModelInferRequest) -> tuple[grpc.StatusCode, str]:
    try:
        await server.stub.ModelInfer(request)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return OK, ""


async def test_every_row_has_its_code_and_names_its_culprit() -> None:
    async with edge(MODELS) as server:
        for row in ROWS:
            request = good()
            assert await outcome(server, request) == (OK, "")  # it is this one change that is refused
            row.spoil(request)
            code, details = await outcome(server, request)
            assert code is row.code, (row.what, details)
            assert row.words in details, (row.what, details)
        assert not server.seen.handler_failures
        assert server.slot().leases == 0


async def test_every_row_says_the_same_inside_a_stream() -> None:
    async with edge(MODELS) as server:
        call = server.stub.ModelStreamInfer()
        for row in ROWS:
            request = good()
            row.spoil(request)
            await call.write(request)
        await call.done_writing()
        replies = [reply async for reply in call]
    for row, reply in zip(ROWS, replies, strict=True):
        assert row.words in reply.error_message, row.what
        assert bool(reply.error_message) == (row.code is not OK), row.what
        assert reply.infer_response.id == "r"


async def test_what_is_wrong_earlier_in_the_order_is_told_first() -> None:
    rows = [next(row for row in ROWS if row.what == what) for what in ORDER]
    assert [row.stage for row in rows] == sorted({row.stage for row in rows})
    async with edge(MODELS) as server:
        for first in range(len(rows)):
            request = good()
            for row in rows[first:]:
                row.spoil(request)
            code, details = await outcome(server, request)
            assert (code, rows[first].words in details) == (rows[first].code, True), (rows[first].what, details)
