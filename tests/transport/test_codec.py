"""The codec alone: what decodes to what, what is refused in which words, and the bytes of an answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pool
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.grpc import InferInput, InferResult, service_pb2

from fuzz import paths
from turnout.core.errors import Reason, ServingError
from turnout.core.ids import Revision
from turnout.core.tensors import InferenceRequest, InferenceResponse, TensorSpec, Timings
from turnout.transport import codec
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.tensors import DataType, from_raw, to_bytes

NOW_NS = 5_000_000_000
VALUES: dict[DataType, list[Any]] = {
    DataType.BOOL: [True, False, True],
    DataType.UINT8: [0, 7, 255],
    DataType.UINT16: [0, 7, 65535],
    DataType.UINT32: [0, 7, 2**32 - 1],
    DataType.UINT64: [0, 7, 2**64 - 1],
    DataType.INT8: [-128, 0, 127],
    DataType.INT16: [-(2**15), 0, 2**15 - 1],
    DataType.INT32: [-(2**31), 0, 2**31 - 1],
    DataType.INT64: [-(2**63), 0, 2**63 - 1],
    DataType.FP16: [-1.5, 0.0, 65504.0],
    DataType.FP32: [-1.5, 0.0, 2.0**127],
    DataType.FP64: [-1.5, 0.0, 1.0e308],
    DataType.BYTES: [b"", "naïve ☃".encode(), b"a\0b"],
    DataType.BF16: [-1.5, 0.0, 256.0],
}


def message(
    datatype: str = "FP32", shape: tuple[int, ...] = (2,), raw: bytes | None = bytes(8)
) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype=datatype, shape=shape)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


LIMITS = codec.DecodeLimits(bytes_elements_max=100, typed_elements_max=1000, names_max=20, id_characters_max=30)


def decode(request: pb.ModelInferRequest, deadline_ns: int | None = None, slot: str | None = None) -> InferenceRequest:
    return paths.decode(request.SerializeToString(), LIMITS, deadline_ns, slot)


def plain(datatype: DataType) -> list[Any]:
    """The values as they reach a model: BYTES as text."""
    values = VALUES[datatype]
    return [value.decode() for value in values] if datatype is DataType.BYTES else values


# Decoding


@pytest.mark.parametrize("datatype", DataType)
def test_raw_input_of_every_datatype(datatype: DataType) -> None:
    raw = to_bytes(np.array(VALUES[datatype], datatype.dtype), datatype)
    array = decode(message(datatype.value, (1, 3), raw)).inputs["x"]
    assert array.dtype == datatype.dtype and array.shape == (1, 3)
    assert array.reshape(-1).tolist() == plain(datatype)


@pytest.mark.parametrize("datatype", [d for d in DataType if d.contents_field])
def test_typed_input_of_every_datatype(datatype: DataType) -> None:
    request = message(datatype.value, (3, 1), None)
    getattr(request.inputs[0].contents, str(datatype.contents_field)).extend(VALUES[datatype])
    array = decode(request).inputs["x"]
    assert array.dtype == datatype.dtype and array.shape == (3, 1)
    assert array.reshape(-1).tolist() == plain(datatype)


@pytest.mark.parametrize("datatype", [d for d in DataType if d is not DataType.BYTES])
def test_raw_input_is_a_view_of_the_message_that_nobody_can_write(datatype: DataType) -> None:
    array = decode(message(datatype.value, (3,), bytes(3 * datatype.itemsize))).inputs["x"]
    assert array.base is not None and not array.flags.writeable


def test_two_inputs_take_their_own_raw_contents_and_extra_ones_are_ignored() -> None:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"\x01\x02", b"\x03\0\0\0", b"more"])
    request.inputs.add(name="a", datatype="UINT8", shape=[2])
    request.inputs.add(name="b", datatype="INT32", shape=[])
    inputs = decode(request).inputs
    assert list(inputs) == ["a", "b"]
    assert (inputs["a"].tolist(), inputs["b"].tolist()) == ([1, 2], 3)


def test_empty_tensor_needs_no_contents() -> None:
    request = message("FP32", (0, 4), None)
    assert decode(request).inputs["x"].shape == (0, 4)


def test_names_versions_outputs_and_ids_are_taken_over() -> None:
    request = message()
    request.model_version, request.id = "12", "id-1"
    request.outputs.add(name="b")
    request.outputs.add(name="a")
    decoded = decode(request, slot="green")
    assert (decoded.model, decoded.version, decoded.slot) == ("m", 12, "green")
    assert decoded.outputs == ("b", "a")
    assert (decoded.request_id, decoded.inference_id) == ("id-1", "id-1")
    assert decoded.deadline_ns is None


def test_id_is_minted_only_for_requests_without_one() -> None:
    first, second = decode(message()), decode(message())
    assert first.request_id == second.request_id == ""
    assert re.fullmatch("[0-9a-f]{16}", first.inference_id) and first.inference_id != second.inference_id


@pytest.mark.parametrize("timeout_us", [0, 1, 2**63 - 1])  # 0 is Triton's "no timeout"
def test_deadline_and_queue_timeout_are_taken_apart(timeout_us: int) -> None:
    request = message()
    request.parameters["timeout"].int64_param = timeout_us
    decoded = decode(request, NOW_NS)
    assert (decoded.deadline_ns, decoded.timeout_ns) == (NOW_NS, timeout_us * 1000)
    assert (decode(message()).deadline_ns, decode(message()).timeout_ns) == (None, 0)


def test_parameters_that_are_taken() -> None:
    request = message()
    request.parameters["priority"].uint64_param = 3  # as tritonclient sends it
    request.parameters["sequence_id"].int64_param = 7  # ignored: no model here has sequences
    request.parameters["sequence_start"].bool_param = True
    request.parameters["sequence_end"].bool_param = False
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    request.parameters["mine"].double_param = 0.5
    assert decode(request).priority == 3
    request.parameters["priority"].int64_param = 0
    request.parameters["sequence_id"].string_param = "seven"
    assert decode(request).priority == 0
    assert decode(message()).priority == 0


def test_classifications_are_taken_by_output() -> None:
    request = message()
    request.outputs.add(name="y").parameters["classification"].int64_param = 3
    request.outputs.add(name="z")
    decoded = decode(request)
    assert (decoded.outputs, decoded.classes) == (("y", "z"), {"y": 3})


def crowded(field: str, count: int) -> pb.ModelInferRequest:
    request = message()
    for index in range(count):
        match field:
            case "parameters":
                request.parameters[str(index)].int64_param = 1
            case "outputs":
                request.outputs.add(name=str(index))
            case "inputs":
                request.inputs.add(name=str(index), datatype="FP32", shape=[0])
                request.raw_input_contents.append(b"")
            case "parameters of input 'x'":
                request.inputs[0].parameters[str(index)].int64_param = 1
            case "parameters of output 'y'":
                (request.outputs or [request.outputs.add(name="y")])[0].parameters[str(index)].int64_param = 1
    return request


@pytest.mark.parametrize(
    "field", ["parameters", "outputs", "inputs", "parameters of input 'x'", "parameters of output 'y'"]
)
def test_crowds_are_refused_before_they_are_walked_over(field: str) -> None:
    taken = 19 if field == "inputs" else 20  # it has one already
    assert decode(crowded(field, taken)).model == "m"
    with pytest.raises(ServingError, match=rf"the request has 21 {field}, the limit is 20"):
        decode(crowded(field, taken + 1))


def test_ids_are_bounded() -> None:
    request = message()
    request.id = "x" * 30
    assert decode(request).inference_id == "x" * 30
    request.id = "x" * 31
    with pytest.raises(ServingError, match="the id has 31 characters, the limit is 30"):
        decode(request)


Spoil = Callable[[pb.ModelInferRequest], object]


def two_raw_less(request: pb.ModelInferRequest) -> None:
    request.inputs.add(name="z", datatype="FP32", shape=[1])


def twice(request: pb.ModelInferRequest) -> None:
    request.inputs.add(name="x", datatype="FP32", shape=[2])
    request.raw_input_contents.append(bytes(8))


def with_contents(request: pb.ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.extend([1, 2])


def typed(field: str, *values: Any) -> Spoil:
    def spoil(request: pb.ModelInferRequest) -> None:
        del request.raw_input_contents[:]
        getattr(request.inputs[0].contents, field).extend(values)

    return spoil


def fp16_typed(request: pb.ModelInferRequest) -> None:
    request.inputs[0].datatype = "FP16"
    typed("fp32_contents", 1, 2)(request)


def int8_out_of_range(request: pb.ModelInferRequest) -> None:
    request.inputs[0].datatype = "INT8"
    typed("int_contents", 1, 128)(request)


def shape(*dims: int) -> Spoil:
    return lambda request: request.inputs[0].shape.__setitem__(slice(None), dims)


def raw(contents: bytes, datatype: str = "FP32") -> Spoil:
    def spoil(request: pb.ModelInferRequest) -> None:
        request.inputs[0].datatype = datatype
        request.raw_input_contents[0] = contents

    return spoil


def parameter(key: str, **value: Any) -> Spoil:
    return lambda request: request.parameters[key].MergeFrom(pb.InferParameter(**value))


def same_output_twice(request: pb.ModelInferRequest) -> None:
    request.outputs.add(name="y")
    request.outputs.add(name="y")


def output_parameter(key: str, **value: Any) -> Spoil:
    return lambda request: request.outputs.add(name="y").parameters[key].MergeFrom(pb.InferParameter(**value))


REFUSALS: dict[str, tuple[Spoil, Reason, str]] = {
    "unknown datatype": (raw(bytes(8), "FP8"), Reason.INVALID_REQUEST, r"input 'x' has unknown datatype 'FP8'.*BF16"),
    "fewer raw contents": (two_raw_less, Reason.INVALID_REQUEST, r"2 inputs and only 1 raw_input_contents"),
    "input twice": (twice, Reason.INVALID_REQUEST, r"input 'x' is given twice"),
    "raw and typed": (with_contents, Reason.INVALID_REQUEST, r"input 'x' has contents.*raw_input_contents"),
    "no data": (
        lambda request: request.raw_input_contents.pop(),
        Reason.INVALID_REQUEST,
        r"input 'x': it has no data",
    ),
    "empty typed contents": (typed("fp32_contents"), Reason.INVALID_REQUEST, r"input 'x': fp32_contents holds 0"),
    "typed of another datatype": (
        typed("int_contents", 1, 2),
        Reason.INVALID_REQUEST,
        r"input 'x': FP32 belongs into fp32_contents.*int_contents",
    ),
    "typed too few": (typed("fp32_contents", 1), Reason.INVALID_REQUEST, r"input 'x': fp32_contents holds 1 .*\[2\]"),
    "no typed form": (fp16_typed, Reason.INVALID_REQUEST, r"input 'x': FP16 has no typed contents"),
    "typed out of range": (int8_out_of_range, Reason.INVALID_REQUEST, r"input 'x': int_contents holds 128.*127"),
    "raw too short": (raw(bytes(7)), Reason.INVALID_REQUEST, r"input 'x': raw contents hold 7 bytes.*takes 8"),
    "raw too long": (raw(bytes(12)), Reason.INVALID_REQUEST, r"input 'x': raw contents hold 12 bytes.*takes 8"),
    "negative dimension": (shape(-1, 2), Reason.INVALID_REQUEST, r"input 'x': .*negative dimension -1"),
    "overflowing shape": (shape(2**62, 2**62), Reason.INVALID_REQUEST, r"input 'x': raw contents hold 8 bytes"),
    # 3 * 0x5555555555555556 is 2 in 64 bits
    "overflowing to the right size": (
        shape(3, 0x5555555555555556),
        Reason.INVALID_REQUEST,
        r"input 'x': raw contents hold 8 bytes",
    ),
    "too many dimensions": (shape(*[1] * 33), Reason.INVALID_REQUEST, r"input 'x': .*33 dimensions"),
    "BYTES cut in a length": (raw(b"\0\0", "BYTES"), Reason.INVALID_REQUEST, r"input 'x': BYTES element 0 has 2 bytes"),
    "BYTES cut in an element": (
        raw(b"\x05\0\0\0abc", "BYTES"),
        Reason.INVALID_REQUEST,
        r"input 'x': BYTES element 0 says it has 5 bytes.*3",
    ),
    "BYTES too few": (raw(b"\x01\0\0\0a", "BYTES"), Reason.INVALID_REQUEST, r"input 'x': raw contents hold 1 BYTES"),
    "BYTES too many": (raw(b"\x01\0\0\0a" * 3, "BYTES"), Reason.INVALID_REQUEST, r"input 'x': .*too many elements"),
    "not UTF-8": (
        raw(b"\x01\0\0\0a\x01\0\0\0\xff", "BYTES"),
        Reason.INVALID_REQUEST,
        r"input 'x': element 1 is not UTF-8",
    ),
    "version with a sign": (
        lambda request: setattr(request, "model_version", "+1"),
        Reason.INVALID_REQUEST,
        r"model version '\+1'",
    ),
    "version zero": (
        lambda request: setattr(request, "model_version", "0"),
        Reason.INVALID_REQUEST,
        r"model version '0'",
    ),
    "version in words": (
        lambda request: setattr(request, "model_version", "latest" * 50),
        Reason.INVALID_REQUEST,
        r"model version '(latest){10}late'",
    ),
    "timeout as text": (parameter("timeout", string_param="1"), Reason.INVALID_REQUEST, r"'timeout'"),
    "timeout negative": (parameter("timeout", int64_param=-1), Reason.INVALID_REQUEST, r"'timeout'"),
    "priority negative": (parameter("priority", int64_param=-1), Reason.INVALID_REQUEST, r"'priority'"),
    "priority as text": (parameter("priority", string_param="1"), Reason.INVALID_REQUEST, r"'priority'"),
    "reserved key": (parameter("headers", string_param="1"), Reason.INVALID_REQUEST, r"'headers' is reserved"),
    "triton's key": (parameter("triton_x", bool_param=True), Reason.INVALID_REQUEST, r"'triton_x' is reserved"),
    "no value": (parameter("mine"), Reason.INVALID_REQUEST, r"'mine' has no value"),
    "shared memory in": (
        lambda r: r.inputs[0].parameters["shared_memory_region"].MergeFrom(pb.InferParameter(string_param="r")),
        Reason.UNSUPPORTED,
        r"input 'x': parameter 'shared_memory_region'",
    ),
    "shared memory out": (
        output_parameter("shared_memory_offset", int64_param=1),
        Reason.UNSUPPORTED,
        r"output 'y'.*_offset'",
    ),
    "classification of 0": (
        output_parameter("classification", int64_param=0),
        Reason.INVALID_REQUEST,
        r"output 'y': parameter 'classification' must be an int64 from 1",
    ),
    "classification as text": (
        output_parameter("classification", string_param="1"),
        Reason.INVALID_REQUEST,
        r"output 'y': parameter 'classification' must be an int64 from 1",
    ),
    "sequence_id as bool": (
        parameter("sequence_id", bool_param=True),
        Reason.INVALID_REQUEST,
        r"parameter 'sequence_id' is a bool_param, it must be int64_param or uint64_param or string_param",
    ),
    "sequence_start as int": (parameter("sequence_start", int64_param=1), Reason.INVALID_REQUEST, r"'sequence_start'"),
    "final response as int": (
        parameter("triton_enable_empty_final_response", int64_param=1),
        Reason.INVALID_REQUEST,
        r"'triton_enable_empty_final_response' is a int64_param",
    ),
    "output twice": (same_output_twice, Reason.INVALID_REQUEST, r"output 'y' is given twice"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_the_culprit(name: str) -> None:
    spoil, reason, pattern = REFUSALS[name]
    request = message()
    assert decode(request).inputs["x"].tolist() == [0.0, 0.0]  # it is this one change that is refused
    spoil(request)
    with pytest.raises(ServingError, match=pattern) as refused:
        decode(request)
    assert refused.value.reason is reason


@given(
    st.sampled_from([d.value for d in DataType]),
    st.lists(st.integers(-2, 2**63 - 1), max_size=3),
    st.binary(max_size=40),
)
def test_any_shape_and_contents_are_answered(datatype: str, dims: list[int], contents: bytes) -> None:
    request = message(datatype, tuple(dims), contents)
    try:
        array = decode(request).inputs["x"]
    except ServingError as refusal:
        assert refusal.message.startswith("input 'x'")
    else:
        assert array.shape == tuple(dims)


# Encoding


def response(*outputs: tuple[TensorSpec, Any]) -> InferenceResponse:
    return InferenceResponse(Revision("m", 3, "int8", "0" * 64), "green", 7, outputs, Timings(1, 2, 3, 4, 1))


@st.composite
def outputs(draw: st.DrawFn) -> list[tuple[TensorSpec, Any]]:
    drawn = []
    for index in range(draw(st.integers(0, 3))):
        datatype = draw(st.sampled_from(list(DataType)))
        dims = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
        if datatype is DataType.BYTES:
            array = draw(hnp.arrays(object, dims, elements=st.text(max_size=4)))
        else:
            top = 1 if datatype is DataType.BOOL else 255
            bits = draw(hnp.arrays(np.uint8, (*dims, datatype.itemsize), elements=st.integers(0, top)))
            array = np.frombuffer(bits.tobytes(), np.uint8).view(datatype.dtype).reshape(dims)
        if draw(st.booleans()) and array.ndim > 1:
            array = array[::-1]  # shares of a batch need not lie in one piece
        drawn.append((TensorSpec(f"y{index}", datatype, tuple(-1 for _ in dims)), array))
    return drawn


@given(
    outputs(),
    st.booleans(),
    st.booleans(),
    st.text(max_size=5) | st.sampled_from(["x" * 100, "x" * 127, "é" * 64, "x" * 1024, "☃" * 5500]),
)
def test_hand_joined_answer_is_the_message_that_the_class_would_write(
    drawn: list[tuple[TensorSpec, Any]], identity: bool, streamed: bool, request_id: str
) -> None:
    request = InferenceRequest("m", {}, request_id=request_id, inference_id=request_id or "minted")
    encoded = codec.encode(request, response(*drawn), identity=identity, streamed=streamed)

    expected = pb.ModelInferResponse(model_name="m", model_version="3", id=request_id)
    if identity:
        expected.parameters["turnout_slot"].string_param = "green"
        expected.parameters["turnout_revision"].string_param = "m/3@int8"
        expected.parameters["turnout_generation"].int64_param = 7
        expected.parameters["inference_id"].string_param = request_id or "minted"
    if streamed:
        expected.parameters["triton_final_response"].bool_param = True
    for spec, array in drawn:
        expected.outputs.add(name=spec.name, datatype=spec.datatype.value, shape=array.shape)
        expected.raw_output_contents.append(to_bytes(array, spec.datatype))

    whole = pb.ModelStreamInferResponse(infer_response=expected) if streamed else expected
    family = service_pb2.ModelStreamInferResponse if streamed else service_pb2.ModelInferResponse
    assert type(whole).FromString(encoded) == whole
    # A map's order is free: compare bytes where there is at most one entry, and sizes always.
    assert len(encoded) == whole.ByteSize()
    if not identity:
        assert encoded == whole.SerializeToString()
    foreign = family.FromString(encoded)
    assert foreign.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)


def test_elements_that_python_reads_one_by_one_are_bounded_before_they_are_read() -> None:
    strings = message("BYTES", (101,), bytes(4 * 101))
    with pytest.raises(ServingError, match="input 'x': with it the request has 101 BYTES elements, the limit is 100"):
        decode(strings)
    claimed = message("BYTES", (10**15,), b"")
    with pytest.raises(ServingError, match="the limit is 100"):
        decode(claimed)
    typed = message("INT32", (1001,), None)
    typed.inputs[0].contents.int_contents.extend(range(1001))
    with pytest.raises(ServingError, match="has 1001 typed elements, the limit is 1000"):
        decode(typed)
    assert decode(message("BYTES", (100,), bytes(4 * 100))).inputs["x"].shape == (100,)
    assert decode(message("UINT8", (5000,), bytes(5000))).inputs["x"].shape == (5000,), "raw numbers are not read"


@given(outputs())
def test_tritonclient_reads_the_arrays_back(drawn: list[tuple[TensorSpec, Any]]) -> None:
    encoded = codec.encode(InferenceRequest("m", {}), response(*drawn), identity=True)
    result = InferResult(service_pb2.ModelInferResponse.FromString(encoded))
    for spec, array in drawn:
        got = result.as_numpy(spec.name)
        assert got is not None and got.shape == array.shape
        if spec.datatype is DataType.BYTES:
            assert [one.decode() for one in got.reshape(-1)] == array.reshape(-1).tolist()
        elif spec.datatype is not DataType.BF16:  # which as_numpy widens or not, by its version
            assert got.tobytes() == array.tobytes()


@pytest.mark.parametrize("datatype", [d for d in DataType if d is not DataType.BF16])
def test_tritonclient_requests_decode_to_what_was_set(datatype: DataType) -> None:
    array = np.array(VALUES[datatype], datatype.dtype).reshape(1, 3)
    given_input = InferInput("x", [1, 3], datatype.value)
    given_input.set_data_from_numpy(array)
    theirs = service_pb2.ModelInferRequest(model_name="m", inputs=[given_input._get_tensor()])
    theirs.raw_input_contents.append(given_input._get_content())
    decoded = decode(pb.ModelInferRequest.FromString(theirs.SerializeToString()))
    assert decoded.inputs["x"].reshape(-1).tolist() == plain(datatype)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 16383, 16384, 2_097_151, 2_097_152])
def test_lengths_at_the_edges_of_a_varint(size: int) -> None:
    array = np.arange(size, dtype=np.uint64).astype(np.uint8)
    encoded = codec.encode(
        InferenceRequest("m", {}), response((TensorSpec("y", DataType.UINT8, (-1,)), array)), identity=False
    )
    parsed = pb.ModelInferResponse.FromString(encoded)
    assert from_raw(parsed.raw_output_contents[0], DataType.UINT8, [size]).tobytes() == array.tobytes()
    assert encoded == parsed.SerializeToString()


def test_answer_above_2_gib_is_refused_before_it_is_copied() -> None:
    huge = np.empty(2**31, np.uint8)  # never touched, so it takes no memory
    with pytest.raises(ServingError, match=r"answer of 2147483\d{3} bytes .* 2147483647") as refused:
        codec.encode(
            InferenceRequest("m", {}), response((TensorSpec("y", DataType.UINT8, (-1,)), huge)), identity=False
        )
    assert refused.value.reason is Reason.RESPONSE_TOO_LARGE


def test_stream_error_carries_what_the_request_said_of_itself() -> None:
    request = message()
    request.id, request.model_version = "r-9", "4"
    received = codec.Requests(LIMITS).read(request.SerializeToString())
    asked = codec.Asked.of(received.plan, received.request_id, 30)
    encoded = codec.encode_stream_error(asked, ServingError(Reason.NOT_FOUND, "no such model"), "NOT_FOUND")
    reply = service_pb2.ModelStreamInferResponse.FromString(encoded)
    assert reply.error_message == "no such model"
    answer = reply.infer_response
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "4", "r-9")
    assert answer.parameters["triton_final_response"].bool_param is True


def test_stream_error_carries_what_a_status_would_say() -> None:
    encoded = codec.encode_stream_error(codec.Asked(), ServingError(Reason.QUEUE_FULL, "full", 250), "UNAVAILABLE")
    said = pb.ModelStreamInferResponse.FromString(encoded).infer_response.parameters
    assert (said["turnout_code"].string_param, said["turnout_reason"].string_param) == ("UNAVAILABLE", "QUEUE_FULL")
    assert said["turnout_retry_after_ms"].int64_param == 250


def test_the_two_definitions_are_different_classes() -> None:
    """Otherwise the comparisons above would compare a class with itself."""
    assert pb.ModelInferResponse is not service_pb2.ModelInferResponse
    assert descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferResponse").file.name == (
        service_pb2.DESCRIPTOR.name
    )
