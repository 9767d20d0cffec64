"""Target: the text of a config.pbtxt, parsed and completed from several model files' declared signatures."""

from __future__ import annotations

import random
from unittest import mock

from google.protobuf import text_format

from fuzz import oracle
from fuzz.mutation import MessageMutator, Mutate, mutate_text
from turnout.core.errors import LoadError
from turnout.core.model import ModelSpec
from turnout.core.tensors import ANY, Signature, TensorSpec
from turnout.store import warmup_config
from turnout.store.complete import complete
from turnout.store.model_config import ModelConfiguration
from turnout_wire.gen import model_config_pb2 as pb
from turnout_wire.tensors import DataType

NAME = "m"
_ROWS_DEFAULT = 4
_GROWTH_MAX = 64
_WARMUP_BYTES_MAX = 1 << 20  # the real limit is what a model may take, not what a fuzzer's process may


def _declared(inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]], datatype: DataType) -> Signature:
    def specs(shapes: dict[str, tuple[int, ...]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, datatype, shape) for name, shape in shapes.items())

    return Signature(specs(inputs), specs(outputs))


DECLARED = (
    _declared({"x": (ANY, 3)}, {"y": (ANY, 5)}, DataType.FP32),
    _declared({"x": (1, 3)}, {"y": (1, 5)}, DataType.FP32),
    _declared({"x": (ANY,)}, {"y": (ANY,)}, DataType.BYTES),
    _declared({"a": (ANY, ANY, 2), "b": (ANY, 4)}, {"y": (ANY, 5), "z": (ANY,)}, DataType.INT64),
    _declared({"x": ()}, {"y": ()}, DataType.BF16),
    Signature(
        (TensorSpec("x", DataType.UINT8, (ANY, ANY)), TensorSpec("k", DataType.FP32, (2,), optional=True)),
        (TensorSpec("y", DataType.BOOL, (3,)),),
    ),
)


def run(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # the repository's business, before it parses
    try:
        configuration = ModelConfiguration.parse(NAME, text)
    except LoadError as refusal:
        oracle.refused(refusal, data)
        return
    _check_accepted(configuration, data)
    with mock.patch.object(warmup_config, "_BYTES_MAX", _WARMUP_BYTES_MAX):
        for declared in DECLARED:
            try:
                spec = _complete(configuration, declared, data)
            except LoadError as refusal:
                oracle.refused(refusal, data)
            else:
                _check_completed(spec, declared, data)


def _complete(configuration: ModelConfiguration, declared: Signature, data: bytes) -> ModelSpec:
    def read_file(path: str, bytes_max: int) -> bytes:
        """Every file holds the configuration itself, as often as a tensor of that size takes."""
        if path.endswith("missing"):
            raise LoadError(f"there is no file '{path}' of at most {bytes_max} bytes")
        if bytes_max > _WARMUP_BYTES_MAX:
            return data
        return (data * (bytes_max // (len(data) or 1) + 1))[:bytes_max]

    return complete(configuration, declared, _ROWS_DEFAULT, read_file)


def _check_accepted(configuration: ModelConfiguration, data: bytes) -> None:
    for warning in configuration.warnings:
        oracle.refused(LoadError(warning), data)
    execution = configuration.execution()
    oracle.require(execution.instances >= 1, f"{execution.instances} instances")
    oracle.require(configuration.rows_max >= 0, f"batches of {configuration.rows_max} rows")
    name = configuration.filename
    oracle.require(bool(name) and "/" not in name and "\0" not in name and name not in (".", ".."), f"file {name!r}")
    present = {1, 2, 10**17}
    try:
        chosen = configuration.versions(present)
    except LoadError as refusal:
        oracle.refused(refusal, data)
    else:
        oracle.require(bool(chosen) and chosen <= present, f"versions {chosen}")


def _check_completed(spec: ModelSpec, declared: Signature, data: bytes) -> None:
    """What is served is what the file declares, and completing what was completed changes nothing."""
    signature = spec.signature
    files = {tensor.name: tensor for tensor in (*declared.inputs, *declared.outputs)}
    needed = {tensor.name for tensor in declared.inputs if not tensor.optional}
    oracle.require(needed <= signature.input_names <= {tensor.name for tensor in declared.inputs}, "other inputs")
    for tensor in (*signature.inputs, *signature.outputs):
        file = files[tensor.name]
        oracle.require(tensor.datatype is file.datatype, f"{tensor} is not {file}")
        shape = tensor.model_shape if tensor.model_shape is not None else tensor.shape
        fits = len(shape) == len(file.shape) and all(
            ANY in (a, b) or a == b for a, b in zip(shape, file.shape, strict=True)
        )
        oracle.require(fits, f"{tensor} is not {file}")
        oracle.require(all(dim >= ANY and dim != 0 for dim in (*shape, *tensor.shape)), f"{tensor}")
        oracle.require(not signature.rows_max or tensor.shape[:1] == (ANY,), f"{tensor} has no rows")
    oracle.require(len(spec.config_wire) <= _GROWTH_MAX * len(data) + 4096, f"{len(spec.config_wire)} bytes completed")
    completed = pb.ModelConfig.FromString(spec.config_wire)
    again = _complete(ModelConfiguration.parse(NAME, text_format.MessageToString(completed)), declared, data)
    oracle.require(again.signature == signature, f"{again.signature} is not {signature}")
    oracle.require(again.config_wire == spec.config_wire, "completing again changes the configuration")


# Mutations

_TEXTS = {
    "name": (NAME, "x", "y", "a", "b", "z", "", "cuda", "tensorrt", "openvino", "\x1b[31m"),
    "platform": ("onnxruntime_onnx", "tensorflow_graphdef", "onnx_onnxv1"),
    "backend": ("onnxruntime", "python", ""),
    "default_model_filename": ("model.onnx", "other.onnx", "../x", "a/b", "..", "\0", "m" * 300),
    "label_filename": ("labels.txt", "../labels.txt", "/etc/passwd", "missing", ""),
    "input_data_file": ("data", "missing", "../x", "labels.txt", ""),
    "op_library_filename": ("libcustom.so", "../x.so", "missing"),
    "value": ("0", "1", "FP16", "FP32", "99999999999999999999999", "EXHAUSTIVE", "2", "\r"),
    "key": (
        "intra_op_thread_count",
        "inter_op_thread_count",
        "execution_mode",
        "enable_mem_arena",
        "enable_mem_pattern",
        "session.intra_op.allow_spinning",
        "cudnn_conv_algo_search",
        "gpu_mem_limit",
        "arena_extend_strategy",
        "do_copy_in_default_stream",
        "disabled_optimizers",
        "memory.enable_memory_arena_shrinkage",
        "session.load_model_format",
        "trt_fp16_enable",
        "precision_mode",
        "max_workspace_size_bytes",
        "num_streams",
        "x",
        "a",
        "b",
        "\n",
    ),
    "string_value": (
        "",
        "0",
        "1",
        "4",
        "1024",
        "1025",
        "-1",
        "99999999999",
        "1.5",
        "\u0661",
        "true",
        "cpu:0",
        "a;b",
        "FP16",
        " 1",
    ),
}
_TOKENS = (
    *(f"{field.name}: " for field in pb.ModelConfig.DESCRIPTOR.fields),
    *(f" {field.name} {{ " for field in pb.ModelConfig.DESCRIPTOR.fields if field.message_type),
    *(value.name for value in pb.DataType.DESCRIPTOR.values),
    *("{", "}", "[", "]", "<", ">", ",", ";", ":", "\n", '"', "'", "#", "-", " ", "\0", "\t", "\u2028", "/"),
    *('"m"', '"\\xff"', '"\\377"', '"\\u0000"', '"\\ud800"', '"\\U00110000"', '"\\"', "'a' 'b'", '"\\x"', '"\\0"'),
    *("0x7fffffff", "0777", "-0", "1e400", "nan", "inf", "-inf", "true", "1f", "9" * 40, "9" * 5000, "KIND_CPU", "-1"),
    *("[google.protobuf.Any] {", "[type.googleapis.com/inference.ModelConfig] {", "unknown: 1 ", "unknown { a: 1 } "),
    "input { name: 'x' dims: [ -1, 3 ] reshape: { shape: [ ] } } ",
    "parameters { key: 'a' value { string_value: 'b' } } ",
    "sequence_batching { state { initial_state { } } } ",
    "ensemble_scheduling { step { input_map { key: 'a' value: 'b' } } } ",
    "a { " * 150,
)


def mutate(data: bytes, bytes_max: int, rng: random.Random, mutate_bytes: Mutate) -> bytes:
    action = rng.random()
    if action < 0.05:
        return mutate_bytes(data, bytes_max)
    text = data.decode(errors="ignore")
    if action < 0.35:
        return mutate_text(rng, text, _TOKENS).encode()[:bytes_max]
    message = pb.ModelConfig()
    try:
        text_format.Parse(text, message)
    except Exception:
        message.Clear()  # whatever it was: the target looks at that
    fields = MessageMutator(rng, _TEXTS, mutate_bytes)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if rng.random() < 0.2:
            _conform(message, rng)
        else:
            fields(message)
    out = text_format.MessageToString(message, as_one_line=rng.random() < 0.1, as_utf8=rng.random() < 0.5).encode()
    return out if len(out) <= bytes_max else mutate_bytes(data, bytes_max)


def _conform(message: pb.ModelConfig, rng: random.Random) -> None:
    """Inputs, outputs and warm-up for one of the model files, as a user would write them down."""
    declared = rng.choice(DECLARED)
    batches = all(spec.shape[:1] == (ANY,) for spec in (*declared.inputs, *declared.outputs))
    message.max_batch_size = rng.choice((0, 1, 8)) if batches else 0
    skip = 1 if message.max_batch_size else 0
    del message.input[:], message.output[:], message.dynamic_batching.preferred_batch_size[:]
    message.name = NAME
    for fields, specs in ((message.input, declared.inputs), (message.output, declared.outputs)):
        for spec in specs:
            dims = [rng.choice((dim, 2)) if dim == ANY else dim for dim in spec.shape[skip:]]
            tensor = fields.add(name=spec.name, dims=dims or [1])
            tensor.data_type = pb.DataType.Value(spec.datatype.config_name)
            if spec.optional:
                message.input[-1].optional = True
            if not dims:
                tensor.reshape.SetInParent()
            elif rng.random() < 0.3:
                tensor.reshape.shape.extend(dims)
                tensor.dims.insert(0, 1)
    if rng.random() < 0.5:
        _add_warmup(message, declared, rng)


def _add_warmup(message: pb.ModelConfig, declared: Signature, rng: random.Random) -> None:
    sample = message.model_warmup.add(name="sample", batch_size=rng.choice((0, 1, 2)), count=rng.choice((0, 1, 3)))
    given = {tensor.name: tensor for tensor in message.input}
    for spec in declared.inputs:
        dims = [rng.choice((0, 1, 2, 2**20, 2**62)) if dim == ANY else dim for dim in given[spec.name].dims]
        data = sample.inputs[spec.name]
        data.dims.extend(dims)
        data.data_type = given[spec.name].data_type
        match rng.randrange(3):
            case 0:
                data.zero_data = True
            case 1:
                data.random_data = True
            case _:
                data.input_data_file = rng.choice(("data", "missing"))
