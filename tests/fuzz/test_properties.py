"""Properties of the same entry points over generated messages, tensors and configurations: Hypothesis, derandomised."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fuzz import checksums, model_config, oracle, request, tensors
from fuzz import settings as server_settings
from turnout.config import Config
from turnout.core.errors import ServingError
from turnout.core.ids import Revision
from turnout.core.tensors import ANY, InferenceResponse, Signature, TensorSpec, Timings, check
from turnout.store.complete import complete
from turnout.store.model_config import ModelConfiguration
from turnout.transport import codec
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.gen import model_config_pb2
from turnout_wire.tensors import Array, DataType, from_raw, to_bytes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of protobuf's text parser
repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=150)

int64s = st.integers(-(2**63), 2**63 - 1)
names = st.sampled_from(["x", "y", "INPUT0", "INPUT1", "OUTPUT0"]) | st.text(max_size=5)
dims = st.lists(st.integers(-1, 4) | int64s, max_size=4) | st.integers(0, 40).map(lambda rank: [1] * rank)


# Requests


@st.composite
def parameters(draw: st.DrawFn, known: list[str]) -> tuple[str, pb.InferParameter]:
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "int64_param": int64s,
        "uint64_param": st.integers(0, 2**64 - 1),
        "bool_param": st.booleans(),
        "string_param": st.text(max_size=5),
        "double_param": st.floats(),
    }
    kind = draw(st.sampled_from([*kinds, None]))
    value = pb.InferParameter() if kind is None else pb.InferParameter(**{kind: draw(kinds[kind])})
    return draw(st.sampled_from(known) | st.text(max_size=5)), value


@st.composite
def messages(draw: st.DrawFn) -> pb.ModelInferRequest:
    """Anything that is a message, with contents of the claimed size more often than chance would have it."""
    message = pb.ModelInferRequest(model_name=draw(names), id=draw(st.text(max_size=3)))
    message.model_version = draw(st.sampled_from(["", "", "1", "01", "9" * 18, "9" * 19]) | st.text(max_size=3))
    datatypes = st.sampled_from([*DataType.__members__, "FP8", "fp32"])
    raw = draw(st.booleans())
    for name in draw(st.lists(names, max_size=3)):
        tensor = message.inputs.add(name=name, datatype=draw(datatypes), shape=draw(dims))
        count = int(np.prod(tensor.shape, dtype=object)) if len(tensor.shape) else 1
        datatype = DataType.__members__.get(tensor.datatype, DataType.UINT8)
        size = count * (datatype.itemsize or 4) if 0 <= count <= 64 else 8
        if raw:
            message.raw_input_contents.append(draw(st.just(bytes(size)) | st.binary(max_size=size)))
        elif datatype.contents_field and draw(st.booleans()):
            zero = b"" if datatype is DataType.BYTES else 0
            getattr(tensor.contents, datatype.contents_field).extend([zero] * min(max(count, 0), 64))
        if draw(st.integers(0, 9)) == 0:
            key, value = draw(parameters(["shared_memory_region", "binary_data_size"]))
            tensor.parameters[key].CopyFrom(value)
    for name in draw(st.lists(names, max_size=2)):
        output = message.outputs.add(name=name)
        for key, value in draw(st.lists(parameters(["classification", "shared_memory_offset"]), max_size=1)):
            output.parameters[key].CopyFrom(value)
    for key, value in draw(st.lists(parameters(["timeout", "priority", "headers", "sequence_id"]), max_size=2)):
        message.parameters[key].CopyFrom(value)
    return message


@given(messages())
@repeatable
def test_any_message_is_answered_or_refused(message: pb.ModelInferRequest) -> None:
    oracle.watched("request", request.run, message.SerializeToString(), pass_over=True)


def _crowd(count: int) -> dict[str, Callable[[pb.ModelInferRequest], object]]:
    """Things that a request may have very many of, as far as its bytes go."""
    spread = [f"{index:x}" for index in range(count)]
    return {
        "outputs": lambda message: [message.outputs.add(name=name) for name in spread],
        "inputs": lambda message: [message.inputs.add(name=name, datatype="FP32", shape=[0]) for name in spread],
        "parameters": lambda message: [message.parameters[name].SetInParent() for name in spread],
        "output parameters": lambda message: [message.outputs[0].parameters[name].SetInParent() for name in spread],
        "input parameters": lambda message: [message.inputs[0].parameters[name].SetInParent() for name in spread],
        "dimensions": lambda message: message.inputs[0].shape.extend([1] * count),
        "raw contents": lambda message: message.raw_input_contents.extend([b""] * count),
        "typed contents": lambda message: message.inputs[0].contents.int_contents.extend([1] * count),
        "a name": lambda message: setattr(message.inputs[0], "name", "x" * 10 * count),
        "strings": lambda message: message.raw_input_contents.append(bytes(4 * count)),
    }


@pytest.mark.parametrize("what", _crowd(0))
@pytest.mark.timeout(30)  # each takes well under a second; what is quadratic takes minutes
def test_a_crowd_costs_no_more_than_its_bytes(what: str) -> None:
    message = pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="BYTES" if what == "strings" else "FP32", shape=[1])
    message.outputs.add(name="")
    _crowd(200_000)[what](message)
    if not message.raw_input_contents and what not in ("inputs", "typed contents"):
        message.raw_input_contents.append(bytes(4))
    with contextlib.suppress(ServingError):
        decoded = request.decode(message.SerializeToString())
        for signature in request.SIGNATURES:
            with contextlib.suppress(ServingError):
                check(decoded, signature)


# Tensors


@st.composite
def arrays(draw: st.DrawFn, datatype: DataType) -> Array:
    """Any bits in any shape: scalars, without elements, 32 dimensions."""
    shape = draw(
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
        | st.sampled_from([(), (0,), (0, 2**40), (1,) * 32, (1,) * 31 + (3,), (1,) * 31 + (0,)])
    )
    if datatype is DataType.BYTES:
        return draw(hnp.arrays(object, shape, elements=st.text(max_size=4)))
    top = 1 if datatype is DataType.BOOL else 255
    size = int(np.prod(shape, dtype=object)) * datatype.itemsize
    return from_raw(bytes(draw(st.lists(st.integers(0, top), min_size=size, max_size=size))), datatype, shape)


def _answered(array: Array, datatype: DataType, message: pb.ModelInferRequest) -> None:
    """The message decodes to the array, and an answer of what it decoded to holds the array again."""
    decoded = request.decode(message.SerializeToString())
    got = decoded.inputs["x"]
    assert (got.dtype, got.shape) == (datatype.dtype, array.shape)
    spec = TensorSpec("x", datatype, got.shape)
    response = InferenceResponse(Revision("m", 1, "", "0" * 64), "blue", 1, ((spec, got),), Timings(1, 2, 3, 4, 1))
    answer = pb.ModelInferResponse.FromString(codec.encode(decoded, response, identity=True))
    assert (answer.outputs[0].datatype, tuple(answer.outputs[0].shape)) == (datatype.value, array.shape)
    assert answer.raw_output_contents[0] == to_bytes(array, datatype)


@pytest.mark.parametrize("datatype", DataType)
@given(st.data())
@settings(repeatable, max_examples=40)
def test_what_is_sent_raw_or_typed_is_what_comes_back(datatype: DataType, data: st.DataObject) -> None:
    array = data.draw(arrays(datatype))
    raw = pb.ModelInferRequest(model_name="m", raw_input_contents=[to_bytes(array, datatype)])
    raw.inputs.add(name="x", datatype=datatype.value, shape=array.shape)
    _answered(array, datatype, raw)
    typed = pb.ModelInferRequest(model_name="m")
    typed.inputs.add(name="x", datatype=datatype.value, shape=array.shape)
    if datatype.contents_field is None:
        with pytest.raises(ServingError, match="no typed contents"):
            request.decode(typed.SerializeToString())
        return
    values = from_raw(raw.raw_input_contents[0], datatype, array.shape).reshape(-1).tolist()
    if datatype is DataType.FP32 and np.isnan(array).any():
        return  # protobuf's Python floats turn a signalling NaN into a quiet one
    getattr(typed.inputs[0].contents, datatype.contents_field).extend(values)
    _answered(array, datatype, typed)


@given(st.sampled_from(DataType), dims, st.binary(max_size=64), st.sampled_from(DataType))
@repeatable
def test_any_shape_and_bytes_are_a_tensor_or_refused(
    datatype: DataType, shape: list[int], contents: bytes, other: DataType
) -> None:
    tensors.run(tensors.pack(datatype, shape, contents, other))


# Model configurations


@st.composite
def configured_models(draw: st.DrawFn) -> tuple[Signature, model_config_pb2.ModelConfig]:
    """What a model file declares, and a configuration that does not contradict it."""
    batched = draw(st.booleans())
    inner = st.lists(st.sampled_from([ANY, 1, 2, 3]), min_size=1, max_size=3)
    config = model_config_pb2.ModelConfig(max_batch_size=draw(st.integers(1, 64)) if batched else 0)
    declared: list[list[TensorSpec]] = []
    for fields, kind in ((config.input, "x"), (config.output, "y")):
        specs = []
        for index in range(draw(st.integers(1, 3))):
            datatype, shape = draw(st.sampled_from(DataType)), draw(inner)
            specs.append(TensorSpec(f"{kind}{index}", datatype, ((ANY,) if batched else ()) + tuple(shape)))
            tensor = fields.add(name=f"{kind}{index}")
            tensor.data_type = model_config_pb2.DataType.Value(datatype.config_name)
            tensor.dims.extend(draw(st.sampled_from((dim, 2))) if dim == ANY else dim for dim in shape)
        declared.append(specs)
    return Signature(tuple(declared[0]), tuple(declared[1])), config


@given(configured_models())
@repeatable
def test_a_configuration_that_fits_its_file_is_what_is_served(
    model: tuple[Signature, model_config_pb2.ModelConfig],
) -> None:
    declared, config = model
    spec = complete(ModelConfiguration.parse("m", str(config)), declared, 4)
    served = model_config_pb2.ModelConfig.FromString(spec.config_wire)
    assert spec.signature.rows_max == served.max_batch_size == config.max_batch_size
    first = (ANY,) if config.max_batch_size else ()
    for specs, wanted, kept in (
        (spec.signature.inputs, config.input, served.input),
        (spec.signature.outputs, config.output, served.output),
    ):
        assert [tensor.shape for tensor in specs] == [(*first, *tensor.dims) for tensor in wanted]
        assert [list(tensor.dims) for tensor in kept] == [list(tensor.dims) for tensor in wanted]
    again = complete(ModelConfiguration.parse("m", str(served)), declared, 4)
    assert (again.signature, again.config_wire) == (spec.signature, spec.config_wire)


numbers = st.integers(-2, 9) | int64s
quoted = (st.sampled_from(["m", "x", "y", "0", "1", "onnxruntime"]) | st.text(max_size=4)).map(
    lambda text: '"' + "".join(f"\\{byte:03o}" for byte in text.encode()) + '"'
)
tensor_texts = st.builds(
    "{} {{ name: {} data_type: {} dims: {} {} }}".format,
    st.sampled_from(["input", "output"]),
    quoted,
    st.sampled_from([datatype.config_name for datatype in DataType]) | st.integers(-1, 20).map(str),
    st.lists(numbers, max_size=3),
    st.just("") | st.lists(numbers, max_size=3).map("reshape {{ shape: {} }}".format),
)
sections = st.one_of(
    numbers.map("max_batch_size: {}".format),
    quoted.map("name: {}".format),
    quoted.map("backend: {}".format),
    quoted.map("default_model_filename: {}".format),
    tensor_texts,
    st.builds("instance_group {{ count: {} kind: {} gpus: [{}] }}".format, numbers, st.integers(0, 5), numbers),
    st.builds(
        "parameters {{ key: {} value {{ string_value: {} }} }}".format,
        st.sampled_from(['"intra_op_thread_count"', '"execution_mode"', '"session.x"']) | quoted,
        quoted,
    ),
    numbers.map("version_policy {{ specific {{ versions: {} }} }}".format),
    numbers.map("optimization {{ graph {{ level: {} }} }}".format),
    st.builds("dynamic_batching {{ preferred_batch_size: {} priority_levels: {} }}".format, numbers, numbers),
    st.builds(
        (
            "model_warmup {{ count: {} inputs {{ key: {} "
            "value {{ data_type: TYPE_UINT8 dims: {} zero_data: true }} }} }}"
        ).format,
        numbers,
        quoted,
        st.lists(st.integers(-1, 9), max_size=3),
    ),
)


@given(st.lists(sections, max_size=5))
@repeatable
def test_any_configuration_is_served_or_refused(parts: list[str]) -> None:
    oracle.watched("model_config", model_config.run, "\n".join(parts).encode(), pass_over=True)


# Settings and checksums


@given(
    st.dictionaries(
        st.sampled_from(sorted(Config.model_fields)) | st.text(max_size=5),
        st.one_of(st.none(), st.booleans(), numbers, st.floats(), st.text(max_size=5), st.lists(numbers, max_size=2)),
        max_size=4,
    )
)
@repeatable
def test_any_settings_are_taken_or_refused(values: dict[str, Any]) -> None:
    data = yaml.safe_dump(values, allow_unicode=True).encode(errors="replace")
    oracle.watched("settings", server_settings.run, data, pass_over=True)


@given(st.dictionaries(st.text(min_size=1, max_size=6), st.binary(min_size=32, max_size=32).map(bytes.hex), max_size=4))
@repeatable
def test_what_sha256sum_writes_is_read_again(sums: dict[str, str]) -> None:
    checksums.run("".join(map(checksums.line, sums.items())).encode(errors="surrogateescape"))
