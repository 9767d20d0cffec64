"""Writes the seeds of the corpus, `corpus/TARGET/seed-*`: `PYTHONPATH=tests python -m fuzz.seeds`.

What fuzzing adds beside them has other names: `finding-*` for what found a defect, digests for what reached new code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from tritonclient.grpc import InferInput, InferRequestedOutput, service_pb2

from fuzz import tensors, typed_request
from fuzz.external_data import external
from fuzz.targets import CORPUS
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.tensors import DataType, from_raw, to_bytes

PREFIX = "seed-"
_WORDS = np.array(["", "a", "naïve ☃", "a\0b", "word" * 8], dtype=object)


def main() -> None:
    for target, seeds in all_seeds().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{PREFIX}*"):
            old.unlink()
        for name, data in seeds.items():
            (folder / f"{PREFIX}{name}").write_bytes(data)


def all_seeds() -> dict[str, dict[str, bytes]]:
    return {
        "request": _requests(),
        "typed_request": typed_request.seeds(),
        "tensors": _tensors(),
        "model_config": {name: text.encode() for name, text in _MODEL_CONFIGS.items()},
        "settings": {name: text.encode() for name, text in _SETTINGS.items()},
        "checksums": {name: text.encode() for name, text in _CHECKSUMS.items()},
        "external_data": _models(),
    }


# Requests


def _requests() -> dict[str, bytes]:
    messages = {f"raw-{d.value.lower()}": _raw(d, (2, 3)) for d in DataType}
    messages |= {f"typed-{d.value.lower()}": _typed(d, (2, 3)) for d in DataType if d.contents_field}
    messages |= {f"scalar-{d.value.lower()}": _raw(d, ()) for d in (DataType.FP32, DataType.BYTES)}
    messages |= {f"empty-{d.value.lower()}": _raw(d, (0, 3)) for d in (DataType.FP32, DataType.BYTES)}
    messages["rank-32"] = _raw(DataType.INT8, (1,) * 31 + (2,))
    messages["rank-33"] = _raw(DataType.INT8, (1,) * 33)
    messages["simple"] = _simple()
    messages["strings"] = _raw(DataType.BYTES, (4,))
    messages["pair"] = _raw(DataType.FP32, (2,))
    messages["optional"] = _optional()
    messages |= {name: _spoilt(spoil) for name, spoil in _SPOILS.items()}
    seeds = {name: message.SerializeToString(deterministic=True) for name, message in messages.items()}
    seeds |= _encodings(_simple())
    return seeds | {f"tritonclient-{name}": data for name, data in _tritonclient().items()}


def _encodings(message: pb.ModelInferRequest) -> dict[str, bytes]:
    """The same message in other bytes: what is data first, ids between the fields, a model named twice, a length in
    more bytes than it needs; and bytes that are no message."""
    raws = pb.ModelInferRequest(raw_input_contents=message.raw_input_contents).SerializeToString()
    ids = [pb.ModelInferRequest(id=text).SerializeToString() for text in ("first", "\u2603", "last")]
    message.ClearField("raw_input_contents")
    header = message.SerializeToString(deterministic=True)
    return {
        "data-first": raws + header,
        "ids-between": ids[0] + header + ids[1] + raws + ids[2],
        "named-twice": header + raws + pb.ModelInferRequest(model_name="m").SerializeToString(),
        "long-length": header + raws + b"\x1a\x81\x00x",
        "id-no-utf8": header + b"\x1a\x01\xff" + raws + ids[0],
        "id-cut": header + raws + ids[0][:-1],
        "unknown-field": header + raws + b"\x42\x00",
    }


def _raw_contents(datatype: DataType, count: int) -> bytes:
    if datatype is DataType.BYTES:
        return to_bytes(np.resize(_WORDS, count), datatype)
    values = np.arange(count) % 2 if datatype is DataType.BOOL else np.arange(count)
    return values.astype(datatype.dtype).tobytes()


def _raw(datatype: DataType, shape: Sequence[int]) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", id="r-1")
    request.inputs.add(name="x", datatype=datatype.value, shape=shape)
    request.raw_input_contents.append(_raw_contents(datatype, int(np.prod(shape, dtype=int))))
    return request


def _typed(datatype: DataType, shape: Sequence[int]) -> pb.ModelInferRequest:
    request = _raw(datatype, shape)
    values = from_raw(request.raw_input_contents.pop(), datatype, shape).reshape(-1).tolist()
    getattr(request.inputs[0].contents, str(datatype.contents_field)).extend(values)
    return request


def _simple() -> pb.ModelInferRequest:
    """Triton's first example: two inputs, two outputs, [1, 16] INT32."""
    request = pb.ModelInferRequest(model_name="simple", model_version="3")
    for index in range(2):
        request.inputs.add(name=f"INPUT{index}", datatype="INT32", shape=[1, 16])
        request.outputs.add(name=f"OUTPUT{index}")
        request.raw_input_contents.append(_raw_contents(DataType.INT32, 16))
    return request


def _optional() -> pb.ModelInferRequest:
    request = _raw(DataType.FP16, (2, 1, 3))
    request.inputs.add(name="flag", datatype="BOOL")
    request.raw_input_contents.append(b"\2")
    return request


def _parameters(request: pb.ModelInferRequest) -> None:
    request.parameters["timeout"].int64_param = 1000
    request.parameters["priority"].uint64_param = 2
    request.parameters["sequence_id"].string_param = "s"
    request.parameters["sequence_end"].bool_param = True
    request.parameters["mine"].double_param = 0.5


def _classification(request: pb.ModelInferRequest) -> None:
    request.outputs.add(name="y").parameters["classification"].int64_param = 2


def _shape(*dims: int) -> Callable[[pb.ModelInferRequest], None]:
    def spoil(request: pb.ModelInferRequest) -> None:
        request.inputs[0].shape[:] = dims

    return spoil


def _twice(request: pb.ModelInferRequest) -> None:
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def _output_twice(request: pb.ModelInferRequest) -> None:
    request.outputs.add(name="y")
    request.outputs.add(name="y")


def _both_contents(request: pb.ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.append(1)


def _lying_length(request: pb.ModelInferRequest) -> None:
    request.inputs[0].datatype = "BYTES"
    request.raw_input_contents[0] = b"\xff\xff\xff\xffabcd"


def _no_utf8(request: pb.ModelInferRequest) -> None:
    request.inputs[0].datatype = "BYTES"
    request.raw_input_contents[0] = b"\1\0\0\0a\1\0\0\0\xff"


_SPOILS: dict[str, Callable[[pb.ModelInferRequest], None]] = {
    "parameters": _parameters,
    "classification": _classification,
    "negative-dimension": _shape(-1, 2),
    "overflowing-shape": _shape(3, 0x5555555555555556),
    "largest-dimension": _shape(2**63 - 1, 2**63 - 1, 0),
    "input-twice": _twice,
    "output-twice": _output_twice,
    "raw-and-typed": _both_contents,
    "lying-length": _lying_length,
    "no-utf8": _no_utf8,
    "no-contents": lambda request: request.raw_input_contents.__delitem__(slice(None)),
    "unknown-datatype": lambda request: setattr(request.inputs[0], "datatype", "FP8"),
    "unknown-version": lambda request: setattr(request, "model_version", "latest"),
    "reserved-parameter": lambda request: request.parameters["headers"].MergeFrom(pb.InferParameter(string_param="h")),
    "shared-memory": lambda request: (
        request.inputs[0].parameters["shared_memory_region"].MergeFrom(pb.InferParameter(string_param="region"))
    ),
}


def _spoilt(spoil: Callable[[pb.ModelInferRequest], None]) -> pb.ModelInferRequest:
    request = _raw(DataType.FP32, (2,))
    spoil(request)
    return request


def _tritonclient() -> dict[str, bytes]:
    """The stock client's own bytes."""
    found = {}
    for datatype in (DataType.FP32, DataType.INT64, DataType.BOOL, DataType.BYTES):
        array = from_raw(_raw_contents(datatype, 4), datatype, (1, 4))
        tensor = InferInput("x", [1, 4], datatype.value)
        tensor.set_data_from_numpy(array)
        theirs = service_pb2.ModelInferRequest(model_name="m", id="7", inputs=[tensor._get_tensor()])
        theirs.raw_input_contents.append(tensor._get_content())
        theirs.outputs.append(InferRequestedOutput("y", class_count=2)._get_tensor())
        found[datatype.value.lower()] = theirs.SerializeToString(deterministic=True)
    return found


# Tensors


def _tensors() -> dict[str, bytes]:
    seeds = {d.value.lower(): tensors.pack(d, (2, 3), _raw_contents(d, 6)) for d in DataType}
    for other in (DataType.FP32, DataType.INT64, DataType.BYTES):
        for d in (DataType.INT8, DataType.FP16, DataType.BF16, DataType.BYTES):
            name = f"{d.value.lower()}-as-{other.value.lower()}"
            seeds[name] = tensors.pack(d, (6,), _raw_contents(d, 6), other)
    seeds["empty"] = tensors.pack(DataType.FP32, (0, 2**62, 4), b"")
    seeds["scalar"] = tensors.pack(DataType.FP64, (), bytes(8))
    seeds["rank-32"] = tensors.pack(DataType.UINT8, (1,) * 32, b"\1")
    seeds["rank-33"] = tensors.pack(DataType.UINT8, (1,) * 33, b"\1")
    seeds["overflow"] = tensors.pack(DataType.FP32, (3, 0x5555555555555556), bytes(8))
    seeds["typed-int16"] = tensors.pack(DataType.INT16, (2,), np.array([1, 2**15], "<i4").tobytes())
    seeds["typed-bytes"] = tensors.pack(DataType.BYTES, (3,), b"a\0b\0")
    return seeds


# Model configurations, in the forms of Triton's documentation

_MODEL_CONFIGS = {
    "empty": "",
    "simple": """
name: "m"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  { name: "x", data_type: TYPE_FP32, dims: [ 3 ] }
]
output [
  { name: "y" data_type: TYPE_FP32 dims: [ 5 ] label_filename: "labels.txt" }
]
""",
    "strings": """
backend: "onnxruntime"
max_batch_size: 0
input { name: "x" data_type: TYPE_STRING dims: [ -1 ] }
output { name: "y" data_type: TYPE_STRING dims: [ -1 ] }
""",
    "reshape": """
max_batch_size: 4
input { name: "a" data_type: TYPE_INT64 dims: [ -1, 1, 2 ] reshape: { shape: [ -1, 2 ] } }
input { name: "b" data_type: TYPE_INT64 dims: [ 2, 2 ] reshape { shape: 4 } }
output { name: "z" data_type: TYPE_INT64 dims: [ 1 ] reshape: { shape: [ ] } }
""",
    "scalar": """
input { name: "x" data_type: TYPE_BF16 dims: 1 reshape { } }
output { name: "y" data_type: TYPE_BF16 dims: 1 }
""",
    "optional": """
input [
  { name: "x" data_type: TYPE_UINT8 dims: [ -1, -1 ] }, { name: "k" data_type: TYPE_FP32 dims: 2 optional: true }
]
""",
    "batching": """
max_batch_size: 8
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  preserve_ordering: false
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 1000 allow_timeout_override: true }
  priority_queue_policy { key: 1 value { timeout_action: REJECT max_queue_size: 10 } }
}
""",
    "instances": """
instance_group [ { name: "g" count: 2 kind: KIND_GPU gpus: [ 0, 1 ] } ]
version_policy: { specific { versions: [ 1, 2 ] } }
""",
    "versions": "version_policy { latest { num_versions: 2 } } default_model_filename: 'other.onnx' # comment\n",
    "all-versions": "version_policy { all { } } instance_group { kind: KIND_CPU }",
    "parameters": """
parameters { key: "intra_op_thread_count" value { string_value: "4" } }
parameters { key: "inter_op_thread_count" value: { string_value: "1" } }
parameters { key: "execution_mode" value: { string_value: "1" } }
parameters { key: "enable_mem_arena" value: { string_value: "0" } }
parameters { key: "disabled_optimizers" value: { string_value: "ConstantFolding;MatMulAddFusion" } }
parameters { key: "session.intra_op.allow_spinning" value: { string_value: "0" } }
parameters { key: "mine" value: { string_value: "\\303\\251" } }
""",
    "accelerators": """
optimization {
  graph { level: 1 }
  priority: PRIORITY_MAX
  input_pinned_memory { enable: true }
  execution_accelerators {
    gpu_execution_accelerator [
      { name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } },
      { name: "cuda" parameters { key: "use_tf32" value: "0" } }
    ]
    cpu_execution_accelerator { name: "openvino" parameters { key: "num_streams" value: "2" } }
  }
}
""",
    "warmup": """
input { name: "x" data_type: TYPE_UINT8 dims: [ -1, -1 ] }
output { name: "y" data_type: TYPE_BOOL dims: 3 }
model_warmup [
  { name: "zero" inputs { key: "x" value { data_type: TYPE_UINT8 dims: [ 2, 3 ] zero_data: true } } },
  { name: "random" count: 2 inputs { key: "x" value { data_type: TYPE_UINT8 dims: [ 1, 1 ] random_data: true } } },
  { inputs { key: "x" value { data_type: TYPE_UINT8 dims: [ 4, 4 ] input_data_file: "data" } } }
]
""",
    "warmup-strings": """
max_batch_size: 2
model_warmup {
  batch_size: 2
  inputs { key: "x" value { data_type: TYPE_STRING dims: 1 zero_data: true } }
}
""",
    "refused-sequence": "sequence_batching { max_sequence_idle_microseconds: 1 }",
    "refused-ensemble": "ensemble_scheduling { step [ { model_name: 'a' model_version: -1 } ] }",
    "refused-decoupled": "model_transaction_policy { decoupled: true }",
    "refused-platform": 'platform: "tensorflow_savedmodel"',
    "refused-name": 'name: "other"',
    "refused-file": 'default_model_filename: "../other.onnx"',
    "refused-dims": "input { name: 'x' data_type: TYPE_FP32 dims: [ 0, -2 ] }",
    "refused-library": "model_operations { op_library_filename: 'libcustom.so' }",
    "unknown-field": "max_batch_sizes: 1",
    "unclosed": 'input { name: "x',
    "escapes": r"""metric_tags { key: "\x41\101\u00e9\n" value: 'a' "b" }""",
}


# Settings

_SETTINGS = {
    "empty": "",
    "plain": "model_repository: /models\nhost: 127.0.0.1\ngrpc_port: 8001\nprovider: auto\ndrain_grace_s: 25\n",
    "flow": "{grpc_port: 0, provider: 'cuda:0,1', log_format: json, response_identity: no, drain_delay_s: 1.5}",
    "anchors": "grpc_port: &p 8001\nqueue_rows_max: *p\n",
    "merge": "<<: {grpc_port: 1}\nhost: '::'\n",
    "comment": "# settings of the server\n---\nserver_name: triton # some tools want this\n...\n",
    "unknown": "grpc_prot: 1\nmodel-repository: x\n",
    "out-of-bounds": "grpc_port: 65536\ndrain_grace_s: -1\nlog_level: loud\nhost: localhost\nprovider: tpu\n",
    "list": "- grpc_port\n- 1\n",
    "text": "grpc_port",
    "types": "grpc_port: 0x1F\nintra_op_threads: 0b1\nqueue_rows_max: 1_000\ndrain_delay_s: 1:30\nserver_name: ~\n",
    "tags": "grpc_port: !!int '1'\nhost: !!binary MTI3LjAuMC4x\nserver_name: !!str 1\ndrain_delay_s: !!float .inf\n",
    "python-tag": "host: !!python/object/apply:os.system [id]\n",
}


# Checksums

_DIGEST = "0123456789abcdef" * 4
_CHECKSUMS = {
    "empty": "",
    "text": f"{_DIGEST}  model.onnx\n{_DIGEST}  weights/part 1.bin\n",
    "binary": f"# made by hand\n{_DIGEST.upper()} *./model.onnx",
    "escaped": f"\\{_DIGEST}  a\\nb\\\\c\n",
    "itself": f"{_DIGEST}  SHA256SUMS\n{'0' * 64}  SHA256SUMS\n",
    "twice": f"{_DIGEST}  model.onnx\n{'0' * 64}  model.onnx\n",
    "short": f"{_DIGEST[1:]}  model.onnx\n",
    "bsd": f"SHA256 (model.onnx) = {_DIGEST}\n",
}


# Models with external data


def _models() -> dict[str, bytes]:
    seeds = {"plain": onnx.ModelProto(ir_version=8, graph=onnx.GraphProto(name="g")).SerializeToString()}
    for name, location, numbers in (
        ("whole", "w", {}),
        ("part", "folder/w", {"offset": 4, "length": 4}),
        ("beyond", "w", {"offset": 60, "length": 8}),
        ("missing", "missing", {}),
        ("outside", "../w", {}),
    ):
        tensor = external("t", location, **numbers)
        for place, model in _places(tensor).items():
            seeds[f"{place}-{name}"] = model.SerializeToString(deterministic=True)
    return seeds


def _places(tensor: onnx.TensorProto) -> dict[str, onnx.ModelProto]:
    node = onnx.NodeProto(op_type="Constant", attribute=[onnx.AttributeProto(name="value", t=tensor)])
    branch = onnx.GraphProto(name="then", initializer=[tensor], node=[node])
    nested = onnx.NodeProto(op_type="If", attribute=[onnx.AttributeProto(name="then_branch", g=branch)])
    sparse = onnx.SparseTensorProto(values=tensor, indices=tensor, dims=[4])
    function = onnx.FunctionProto(name="f", node=[node], attribute_proto=[onnx.AttributeProto(name="a", t=tensor)])
    return {
        "initializer": onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor])),
        "constant": onnx.ModelProto(graph=onnx.GraphProto(node=[node])),
        "branch": onnx.ModelProto(graph=onnx.GraphProto(node=[nested])),
        "sparse": onnx.ModelProto(graph=onnx.GraphProto(sparse_initializer=[sparse])),
        "function": onnx.ModelProto(functions=[function]),
    }


if __name__ == "__main__":
    main()
