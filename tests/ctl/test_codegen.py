"""`turnoutctl codegen`: the .proto means what the server serves, and the Python client takes and gives arrays."""

from __future__ import annotations

import ast
import re
import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

from support.command import turnoutctl
from turnout_client.answers import Answer, TensorMetadata
from turnout_client.ctl import stubs
from turnout_client.ctl.proto_text import proto_text
from turnout_client.ctl.python_text import python_text
from turnout_client.errors import InferenceError
from turnout_client.typed import output, tensor
from turnout_wire.tensors import Array, DataType
from turnout_wire.typed import ANY, ModelService, Tensor, file_descriptor, model_service


def every() -> ModelService:
    """Every datatype, and names and shapes that make trouble."""
    tensors = [Tensor(f"x_{datatype.value.lower()}", datatype, (ANY, 3)) for datatype in DataType]
    tensors += [
        Tensor("a/b\n}:0", DataType.FP32, (ANY, ANY), optional=True),
        Tensor('quo"te\\', DataType.INT64, ()),
        Tensor("class", DataType.BYTES, (2, 0)),
        Tensor("key", DataType.FP32, (ANY,)),
        Tensor("slot", DataType.FP32, (ANY,)),
        Tensor("answer", DataType.FP32, (ANY,)),
        Tensor("message", DataType.FP32, (ANY,)),
        Tensor("tensor", DataType.FP32, (ANY,)),
        Tensor("DataType", DataType.FP32, (ANY,)),
        Tensor("MODEL", DataType.FP32, (ANY,)),
    ]
    return model_service("every-Model", tensors, tensors)


@pytest.mark.parametrize(
    "service", [every(), model_service("m", [Tensor("x", DataType.FP32, (ANY, 4))], [])], ids=["every", "plain"]
)
def test_the_text_is_the_descriptor_that_the_server_serves(service: ModelService, tmp_path: Path) -> None:
    (tmp_path / "turnout" / "models").mkdir(parents=True)
    wanted = file_descriptor(service)
    (tmp_path / wanted.name).write_text(proto_text(service, 8))
    well_known = files("grpc_tools") / "_proto"
    arguments = [f"-I{tmp_path}", f"-I{well_known}", f"--descriptor_set_out={tmp_path / 'set'}", wanted.name]
    assert protoc.main(["protoc", *arguments]) == 0
    (written,) = FileDescriptorSet.FromString((tmp_path / "set").read_bytes()).file
    assert written == wanted


def test_the_text_says_what_a_tensor_is() -> None:
    shape = (ANY, ANY, 3)
    service = model_service("m", [Tensor("ids.1", DataType.FP16, shape, True)], [Tensor("y", DataType.BYTES, ())])
    text = proto_text(service, 8)
    assert "// Tensor 'ids.1'. FP16 [rows, any, 3]. The nearest values of half precision" in text
    assert "May be left out." in text and "At most 8 rows." in text
    assert re.search(r"repeated int64 ids_1_shape = \d+;", text)
    assert "// FP16 [any, any, 3]" in proto_text(service, 0).replace("Tensor 'ids.1'. ", "")


def test_no_name_of_a_model_ends_a_comment() -> None:
    names = ("m", "m\nservice X {}", "m\u2028import os", 'm"""\nimport os\n"""')
    plain, *texts = (proto_text(model_service(name, [], []), 8).splitlines() for name in names)
    for text in texts:
        assert [line.startswith("//") for line in text] == [line.startswith("//") for line in plain]
    for name in names:
        module = module_of(model_service(name, [Tensor("x", DataType.FP32, (ANY,))], []))
        assert name == module.MODEL and not hasattr(module, "os")


def module_of(service: ModelService) -> Any:
    text = python_text(service, 8)
    ast.parse(text)
    module = ModuleType("generated")
    sys.modules["generated"] = module  # dataclasses look there
    try:
        exec(compile(text, "generated", "exec"), module.__dict__)
    finally:
        del sys.modules["generated"]
    return module


class Echo:
    """A client that answers with what it is given."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def infer(self, model: str, inputs: dict[str, Array], **options: Any) -> Answer:
        self.asked = {"model": model, **options}
        wire = {name: _as_bytes(array) for name, array in inputs.items()}
        return Answer(wire, model, "1", "blue", f"{model}/1", 1, "id", {})


def _as_bytes(array: Array) -> Array:
    """BYTES are bytes where they come from the wire."""
    if array.dtype.kind not in "OU":
        return array
    found = np.empty(array.shape, dtype=object)
    found.reshape(-1)[:] = [text.encode() for text in array.reshape(-1)]
    return found


def test_a_client_of_every_datatype_takes_and_gives_arrays() -> None:
    module = module_of(every())
    values = {f"x_{d.value.lower()}": [[1, 0, 1]] for d in DataType if d is not DataType.BYTES}
    values |= {
        "x_bool": [[True, False, True]],
        "x_bytes": [["a", "", "ü"]],
        "quo_te_": 7,
        "class_": np.empty((2, 0), str),
    }
    values |= {"key_": [1.0], "slot_": [2], "answer": [3], "message": [4], "a_b___0": [[5.0]]}
    values |= {"tensor_": [6], "DataType_": [7], "MODEL_": [8]}  # which the module calls beside its arguments
    client = Echo()
    got = getattr(module, "Every_Model_x" + re.search(r"_x(\w{8})Client", python_text(every(), 8))[1] + "Client")(
        client
    ).predict(**values, key="k", version=2)
    assert (client.asked["model"], client.asked["key"], client.asked["version"]) == ("every-Model", "k", 2)
    for datatype in DataType:
        array = getattr(got, f"x_{datatype.value.lower()}")
        assert array.dtype == datatype.dtype and array.shape == (1, 3), datatype
    assert got.x_bytes.tolist() == [["a", "", "ü"]]
    assert (got.quo_te_, got.answer_.tolist(), got.answer.slot) == (7, [3.0], "blue")


@pytest.mark.parametrize(
    ("value", "datatype", "wanted"),
    [
        ([[1, 2]], DataType.FP32, np.array([[1, 2]], np.float32)),
        ([[1.5, 2]], DataType.FP16, np.array([[1.5, 2]], np.float16)),
        ([[1.5, 2]], DataType.BF16, np.array([[1.5, 2]], ml_dtypes.bfloat16)),
        (np.array([[1, 2]], ">i4"), DataType.INT64, np.array([[1, 2]], np.int64)),
        ([[True, False]], DataType.BOOL, np.array([[True, False]])),
        ([[float("nan"), float("inf")]], DataType.FP32, np.array([[np.nan, np.inf]], np.float32)),
    ],
)
def test_an_input_becomes_its_datatype(value: Any, datatype: DataType, wanted: Array) -> None:
    array = tensor("x", value, datatype, (ANY, 2))
    assert array.dtype == wanted.dtype
    np.testing.assert_array_equal(array, wanted)


@pytest.mark.parametrize(
    ("value", "datatype", "says"),
    [
        ([1, 2], DataType.FP32, r"x: has shape \[2\], and the model takes \[-1, 2\]"),
        ([[1, 2, 3]], DataType.FP32, r"x: has shape \[1, 3\]"),
        ([[1], [1, 2]], DataType.FP32, "x: is no array"),
        ([[1.5, 2]], DataType.INT32, "x: is float64, and the model takes INT32: convert it with astype"),
        ([[1, 0]], DataType.BOOL, "x: is int64, and the model takes BOOL"),
        ([[1, 300]], DataType.UINT8, "x: has the value 300, which UINT8 cannot hold"),
        ([[1, -1]], DataType.UINT64, "x: has the value -1, which UINT64 cannot hold"),
        ([[1, 1e39]], DataType.FP32, r"x: has the value 1e\+39, which FP32 cannot hold"),
        ([[1, 70000]], DataType.FP16, "x: has the value 70000, which FP16 cannot hold"),
        ([["a", "b"]], DataType.FP32, "x: is <U1, and the model takes FP32"),
        ([[1, 2]], DataType.BYTES, "x: is int64, and the model takes strings"),
    ],
)
def test_an_input_that_is_none_is_refused_by_its_name(value: Any, datatype: DataType, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tensor("x", value, datatype, (ANY, 2))


def test_an_answer_of_another_signature_is_refused_by_its_name() -> None:
    answer = Answer({"y": np.zeros(1, np.float32)}, "m", "2", "green", "m/2", 1, "id", {})
    assert output(answer, "y", "y", DataType.FP32) is answer.outputs["y"]
    for name, datatype in (("z", DataType.FP32), ("y", DataType.FP64)):
        with pytest.raises(InferenceError, match=f"f: m/2 gives no output '{name}' of {datatype.value}") as refused:
            output(answer, "f", name, datatype)
        assert refused.value.code == "UNIMPLEMENTED"


def test_what_cannot_be_asked_ends_with_a_sentence() -> None:
    several = turnoutctl("codegen", "digits", "--server", "a:1,b:2")
    assert (several.status, "give one HOST:PORT" in several.stderr) == (2, True)
    nobody = turnoutctl("codegen", "digits", "--server", "127.0.0.1:1", "--timeout", "2")
    assert nobody.status in (2, 3)
    nobody = turnoutctl("--timeout", "2", "--json", "codegen", "digits", "--server", "127.0.0.1:1")
    assert (nobody.status, nobody.json["ok"], nobody.json["exit_status"]) == (3, False, 3)


def test_a_datatype_that_is_none_of_the_protocol_s_is_an_error_with_its_name() -> None:
    given = TensorMetadata("x", "FP8", (1,))
    with pytest.raises(InferenceError, match="tensor 'x' has datatype 'FP8', which the protocol does not have"):
        stubs._tensor(given)
