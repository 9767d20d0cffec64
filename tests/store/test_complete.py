"""Auto-completion by Triton's rules, and contradictions between a configuration and its model file."""

from __future__ import annotations

import pytest

from turnout.core.errors import LoadError
from turnout.core.model import ModelSpec
from turnout.core.tensors import Signature, TensorSpec
from turnout.store.complete import complete
from turnout.store.model_config import ModelConfiguration
from turnout_wire.gen import model_config_pb2 as pb
from turnout_wire.tensors import DataType

Shapes = dict[str, tuple[int, ...]]


def declared(inputs: Shapes, outputs: Shapes, defaults: Shapes | None = None) -> Signature:
    """What a file of FP32 tensors says of itself, some inputs having defaults in it."""

    def specs(shapes: Shapes, optional: bool = False) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, DataType.FP32, shape, optional=optional) for name, shape in shapes.items())

    return Signature((*specs(inputs), *specs(defaults or {}, optional=True)), specs(outputs))


def completed(text: str, file: Signature, rows: int = 4) -> tuple[ModelSpec, pb.ModelConfig]:
    spec = complete(ModelConfiguration.parse("m", text), file, rows)
    return spec, pb.ModelConfig.FromString(spec.config_wire)


def shapes(signature: Signature) -> list[tuple[str, tuple[int, ...], tuple[int, ...] | None]]:
    return [(s.name, s.shape, s.model_shape) for s in (*signature.inputs, *signature.outputs)]


CAN_BATCH = declared({"x": (-1, 3)}, {"y": (-1, 5)})
FIXED = declared({"x": (1, 3)}, {"y": (1, 5)})


# What can batch


def test_open_first_dimensions_batch_with_triton_s_default() -> None:
    spec, config = completed("", CAN_BATCH)
    assert (spec.signature.rows_max, spec.batch_inferred, config.max_batch_size) == (4, True, 4)
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert [list(t.dims) for t in (*config.input, *config.output)] == [[3], [5]]
    assert shapes(spec.signature) == [("x", (-1, 3), None), ("y", (-1, 5), None)]


@pytest.mark.parametrize(
    "file",
    [
        FIXED,
        declared({"x": (-1, 3)}, {"y": (1, 5)}),  # one output that does not follow
        declared({"x": (-1, 3), "k": ()}, {"y": (-1, 5)}),  # one scalar
        declared({"x": (3,)}, {"y": (5,)}),
    ],
)
def test_anything_else_does_not(file: Signature) -> None:
    spec, config = completed("", file)
    assert (spec.signature.rows_max, spec.batch_inferred, config.max_batch_size) == (0, False, 0)
    assert not config.HasField("dynamic_batching")


def test_batching_is_off_where_the_default_is_0() -> None:
    spec, config = completed("", CAN_BATCH, rows=0)
    assert (spec.signature.rows_max, spec.batch_inferred) == (0, False)
    assert list(config.input[0].dims) == [-1, 3]
    assert shapes(spec.signature)[0] == ("x", (-1, 3), None)


def test_batch_of_one_needs_no_batching() -> None:
    spec, config = completed("", CAN_BATCH, rows=1)
    assert spec.signature.rows_max == 1
    assert not config.HasField("dynamic_batching")


def test_configured_size_is_kept_and_is_no_guess() -> None:
    spec, config = completed("max_batch_size: 16", CAN_BATCH)
    assert (spec.signature.rows_max, spec.batch_inferred, config.max_batch_size) == (16, False, 16)
    assert list(config.dynamic_batching.preferred_batch_size) == [16]


def test_full_configuration_without_a_batch_size_means_none() -> None:
    """Triton's rule: with inputs and outputs given, nothing is guessed."""
    text = """
        input { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ -1, 5 ] }
    """
    spec, config = completed(text, CAN_BATCH)
    assert (spec.signature.rows_max, config.max_batch_size) == (0, 0)
    half, _ = completed('input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }', CAN_BATCH)
    assert (half.signature.rows_max, half.batch_inferred) == (4, True)


def test_batch_size_for_a_file_that_fixes_its_first_dimension() -> None:
    with pytest.raises(LoadError, match="max_batch_size is 8, but the model file fixes a first dimension: set 0"):
        completed("max_batch_size: 8", FIXED)


# Scalars: dims [1] with a reshape to nothing


def test_scalar_output_of_a_batch() -> None:
    spec, config = completed("", declared({"x": (-1, 3)}, {"label": (-1,)}))
    assert shapes(spec.signature)[1] == ("label", (-1, 1), (-1,))
    (output,) = config.output
    assert (list(output.dims), output.HasField("reshape"), list(output.reshape.shape)) == ([1], True, [])


def test_scalars_without_a_batch() -> None:
    spec, config = completed("", declared({"x": ()}, {"y": ()}))
    assert shapes(spec.signature) == [("x", (1,), ()), ("y", (1,), ())]
    assert (list(config.input[0].dims), config.input[0].HasField("reshape")) == ([1], True)


def test_configured_reshape() -> None:
    text = """
        max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 dims: [ 6 ] reshape { shape: [ 2, 3 ] } }
        output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
    """
    spec, config = completed(text, declared({"x": (-1, 2, 3)}, {"y": (-1,)}))
    assert shapes(spec.signature) == [("x", (-1, 6), (-1, 2, 3)), ("y", (-1, 1), (-1,))]
    assert list(config.input[0].reshape.shape) == [2, 3]


RESHAPES = [
    # dims, reshape, the file's: what clients send, what the model takes
    ("[ -1, 6 ]", "[ -1, 2, 3 ]", (-1, 2, 3), (-1, 6), (-1, 2, 3)),
    ("[ 2, 4, -1, 6 ]", "[ 8, -1, 1, 6 ]", (8, -1, 1, 6), (2, 4, -1, 6), (8, -1, 1, 6)),
    ("[ -1, -1 ]", "[ -1, 1, -1 ]", (-1, 1, -1), (-1, -1), (-1, 1, -1)),
    ("[ -1, 6 ]", "[ -1, 2, 3 ]", (5, 2, 3), (5, 6), (5, 2, 3)),  # the file knows the open one
    ("[ -1, -1 ]", "[ -1, 1, -1 ]", (-1, 1, 4), (-1, 4), (-1, 1, 4)),
    ("[ 4, 6 ]", "[ 4, 2, 3 ]", (-1, 2, -1), (4, 6), (4, 2, 3)),  # the configuration knows them
    ("[ 1 ]", "[ ]", (), (1,), ()),
    ("[ 1, 1 ]", "[ ]", (), (1, 1), ()),
]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(("dims", "shape", "file", "client", "model"), RESHAPES)
def test_reshapes(
    dims: str, shape: str, file: tuple[int, ...], client: tuple[int, ...], model: tuple[int, ...], batched: bool
) -> None:
    first = (-1,) if batched else ()
    text = f"""
        max_batch_size: {8 if batched else 0}
        input {{ name: "x" data_type: TYPE_FP32 dims: {dims} reshape {{ shape: {shape} }} }}
        output {{ name: "y" data_type: TYPE_FP32 dims: {dims} reshape {{ shape: {shape} }} }}
    """
    spec, config = completed(text, declared({"x": first + file}, {"y": first + file}))
    assert shapes(spec.signature) == [(name, first + client, first + model) for name in "xy"]
    assert (tuple(config.input[0].dims), tuple(config.input[0].reshape.shape)) == (client, model)


def test_a_reshape_that_does_not_fit_the_file() -> None:
    text = 'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 6 reshape { shape: [ 3, 2 ] } }'
    with pytest.raises(LoadError, match=r"input 'x' has dims \[3, 2\], the model file has \[2, 3\]"):
        completed(text, declared({"x": (-1, 2, 3)}, {"y": (-1, 5)}))


def test_triton_s_way_to_write_a_scalar_of_a_model_without_batches() -> None:
    file = declared({"x": ()}, {"y": ()})
    text = """
        input { name: "x" data_type: TYPE_FP32 dims: 1 }
        output { name: "y" data_type: TYPE_FP32 dims: [ 1, 1 ] }
    """
    spec, _ = completed(text, file)
    assert shapes(spec.signature) == [("x", (1,), ()), ("y", (1, 1), ())]
    with pytest.raises(LoadError, match=r"input 'x' has dims \[2\], the model file has \[\]"):
        completed(text.replace("dims: 1 ", "dims: 2 "), file)


# What is filled in


def test_the_rest_of_the_configuration_is_filled_in() -> None:
    _, config = completed("", CAN_BATCH)
    assert (config.name, config.platform, config.backend) == ("m", "onnxruntime_onnx", "onnxruntime")
    assert config.default_model_filename == "model.onnx"
    assert config.version_policy.latest.num_versions == 1
    assert [(g.name, g.count) for g in config.instance_group] == [("m", 1)]
    assert config.input[0].data_type == config.output[0].data_type == pb.TYPE_FP32


def test_what_was_configured_stays() -> None:
    text = """
        default_model_filename: "other.onnx"
        version_policy { all { } }
        instance_group { count: 2 }
        dynamic_batching { preferred_batch_size: [ 2 ] }
        max_batch_size: 8
    """
    _, config = completed(text, CAN_BATCH)
    assert config.default_model_filename == "other.onnx"
    assert config.version_policy.WhichOneof("policy_choice") == "all"
    assert [g.count for g in config.instance_group] == [2]
    assert list(config.dynamic_batching.preferred_batch_size) == [2]


@pytest.mark.parametrize("datatype", DataType)
def test_every_datatype(datatype: DataType) -> None:
    file = Signature((TensorSpec("x", datatype, (-1, 3)),), (TensorSpec("y", datatype, (-1, 3)),))
    spec, config = completed("", file)
    assert pb.DataType.Name(config.input[0].data_type) == datatype.config_name
    assert spec.signature.inputs[0].datatype is datatype
    completed(f'input {{ name: "x" data_type: {datatype.config_name} dims: [ 3 ] }}', file)


def test_open_dimensions_take_the_other_side_s_value() -> None:
    text = 'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] }'
    spec, _ = completed(text, declared({"x": (-1, -1, 7)}, {"y": (-1, 5)}))
    assert shapes(spec.signature)[0] == ("x", (-1, 3, 7), None)


def test_configured_order_is_the_order_of_the_answers() -> None:
    text = 'output { name: "b" data_type: TYPE_FP32 dims: [ 1 ] } output { name: "a" data_type: TYPE_FP32 dims: [ 1 ] }'
    spec, _ = completed(text, declared({"x": (-1, 3)}, {"a": (-1, 1), "b": (-1, 1)}))
    assert [s.name for s in spec.signature.outputs] == ["b", "a"]


def test_outputs_may_be_left_out_and_inputs_may_not() -> None:
    file = declared({"x": (-1, 3), "z": (-1, 3)}, {"a": (-1, 1), "b": (-1, 1)})
    spec, _ = completed('output { name: "b" data_type: TYPE_FP32 dims: [ 1 ] }', file)
    assert [s.name for s in spec.signature.outputs] == ["b"]
    with pytest.raises(LoadError, match=r"1 inputs \['x'\], the model file needs \['z'\] too"):
        completed('input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }', file)


# Contradictions


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('input { name: "q" data_type: TYPE_FP32 dims: 3 }', r"input 'q' is not in the model file, it has \['x'\]"),
        ('output { name: "q" data_type: TYPE_FP32 dims: 5 }', r"output 'q' is not in the model file, it has \['y'\]"),
        ('input { name: "x" data_type: TYPE_FP16 dims: 3 }', "input 'x' is TYPE_FP16, the model file has TYPE_FP32"),
        ('output { name: "y" data_type: TYPE_INT8 dims: 5 }', "output 'y' is TYPE_INT8, the model file has TYPE_FP32"),
        ('input { name: "x" data_type: TYPE_FP32 dims: 4 }', r"input 'x' has dims \[4\], the model file has \[3\]"),
        ('input { name: "x" data_type: TYPE_FP32 dims: [ 1, 3 ] }', r"input 'x' has dims \[1, 3\].* \[3\]"),
        (
            'output { name: "y" data_type: TYPE_FP32 dims: 5 } output { name: "y" data_type: TYPE_FP32 dims: 5 }',
            "an output is named twice",
        ),
        (
            'input { name: "x" data_type: TYPE_FP32 dims: 3 } input { name: "z" data_type: TYPE_FP32 dims: 3 }',
            r"input 'z' is not in the model file, it has \['x'\]",
        ),
    ],
)
def test_contradictions_name_the_tensor(text: str, words: str) -> None:
    with pytest.raises(LoadError, match=words) as refused:
        completed(f"max_batch_size: 8 {text}", CAN_BATCH)
    assert str(refused.value).startswith("config.pbtxt: ")


def test_warnings_reach_the_specification() -> None:
    spec, _ = completed("response_cache { enable: true }", CAN_BATCH)
    assert spec.warnings == ("config.pbtxt: not honoured: response_cache",)


def test_inputs_written_with_all_their_dims_say_that_there_is_no_batch() -> None:
    file = declared({"x": (-1, 4)}, {"y": (-1, 4)})
    text = 'input { name: "x" data_type: TYPE_FP32 dims: [%s] }'
    spec, _ = completed(text % "-1, 4", file)
    assert (spec.signature.rows_max, spec.signature.inputs[0].shape) == (0, (-1, 4))
    spec, _ = completed(text % "4", file)
    assert (spec.signature.rows_max, spec.signature.inputs[0].shape) == (4, (-1, 4))


# Optional inputs

DEFAULTS = declared({"x": (3,)}, {"y": (3,)}, defaults={"k": (3,), "w": (3, 3)})
X = 'input { name: "x" data_type: TYPE_FP32 dims: 3 }'
K = 'input { name: "k" data_type: TYPE_FP32 dims: 3 %s }'


def optional(spec: ModelSpec) -> list[tuple[str, bool]]:
    return [(tensor.name, tensor.optional) for tensor in spec.signature.inputs]


def test_inputs_that_the_file_has_defaults_for_are_left_out_unless_configured() -> None:
    spec, config = completed("", DEFAULTS)
    assert optional(spec) == [("x", False)]
    assert [tensor.name for tensor in config.input] == ["x"]


def test_a_configured_one_is_needed_unless_it_is_optional() -> None:
    assert optional(completed(X + K % "optional: true", DEFAULTS)[0]) == [("x", False), ("k", True)]
    assert optional(completed(K % "" + X, DEFAULTS)[0]) == [("k", False), ("x", False)]
    spec, config = completed(X + K % "optional: true", DEFAULTS)
    assert spec.signature.required_names == {"x"}
    assert [tensor.optional for tensor in config.input] == [False, True]


def test_an_optional_input_needs_a_default_in_the_file() -> None:
    text = 'input { name: "x" data_type: TYPE_FP32 dims: 3 optional: true }'
    with pytest.raises(LoadError, match="input 'x' is optional, but the model file has no default for it"):
        completed(text, DEFAULTS)


def test_all_others_must_be_there() -> None:
    with pytest.raises(LoadError, match=r"1 inputs \['k'\], the model file needs \['x'\] too"):
        completed(K % "optional: true", DEFAULTS)


def test_weights_that_could_be_overridden_are_no_reason_not_to_batch() -> None:
    file = declared({"x": (-1, 3)}, {"y": (-1, 3)}, defaults={"k": (3,)})
    spec, _ = completed("", file)
    assert (spec.signature.rows_max, optional(spec)) == (4, [("x", False)])
    assert completed("max_batch_size: 8", file)[0].signature.rows_max == 8


def test_an_optional_input_is_one_however() -> None:
    file = declared({"x": (-1, 3)}, {"y": (-1, 3)}, defaults={"k": (-1, 3)})
    inputs = """
        input { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] }
        input { name: "k" data_type: TYPE_FP32 dims: [ -1, 3 ] optional: true }
    """
    spec, _ = completed(inputs, file)
    assert (spec.signature.rows_max, optional(spec)) == (0, [("x", False), ("k", True)])
    with pytest.raises(LoadError, match="max_batch_size is 8, but the model file fixes a first dimension"):
        completed(f"max_batch_size: 8 {X} {K % ''}", declared({"x": (-1, 3)}, {"y": (-1, 3)}, defaults={"k": (3,)}))


# Batching

SCHEDULER = [
    # configuration, rows of the largest batch, whether and with which sizes clients are told of dynamic batching
    ("", 4, [4]),
    ("max_batch_size: 16", 16, [16]),
    ("max_batch_size: 16 dynamic_batching { }", 16, [16]),
    ("max_batch_size: 16 dynamic_batching { preferred_batch_size: [ 8, 4 ] }", 16, [8, 4]),
    ("max_batch_size: 1", 1, None),
    ("max_batch_size: 1 dynamic_batching { }", 1, [1]),
    ("dynamic_batching { preferred_batch_size: 2 }", 4, [2]),
]


@pytest.mark.parametrize(("text", "rows", "told"), SCHEDULER)
def test_what_clients_are_told_of_batching(text: str, rows: int, told: list[int] | None) -> None:
    spec, config = completed(text, CAN_BATCH)
    assert spec.signature.rows_max == rows
    assert config.WhichOneof("scheduling_choice") == (None if told is None else "dynamic_batching")
    assert list(config.dynamic_batching.preferred_batch_size) == (told or [])
    # Only sizes that were asked for make a batch leave early.
    assert spec.policy.preferred_rows == (tuple(sorted(told or ())) if "preferred" in text else ())


def test_queue_policies_of_a_model_without_batches() -> None:
    spec, config = completed("dynamic_batching { default_queue_policy { max_queue_size: 3 } }", FIXED)
    assert (spec.signature.rows_max, spec.policy.queue.requests_max) == (0, 3)
    assert config.HasField("dynamic_batching")
    assert list(config.dynamic_batching.preferred_batch_size) == []


def test_preferred_sizes_above_what_the_file_allows() -> None:
    text = "dynamic_batching { preferred_batch_size: 8 }"
    with pytest.raises(LoadError, match="preferred_batch_size names 8, but max_batch_size is 4: raise max_batch_size"):
        completed(text, CAN_BATCH)
    with pytest.raises(LoadError, match="preferred_batch_size names 8, but max_batch_size is 0: set max_batch_size"):
        completed(text, FIXED)


def test_instance_groups_are_named_and_counted() -> None:
    _, config = completed('instance_group { } instance_group { name: "b" count: 2 }', FIXED)
    assert [(group.name, group.count) for group in config.instance_group] == [("m_0", 1), ("b", 2)]


# Labels

LABELLED = """
    output { name: "y" data_type: TYPE_FP32 dims: [ 1, 5 ] label_filename: "labels.txt" }
    output { name: "y2" data_type: TYPE_FP32 dims: [ 1, 5 ] }
"""
TWO_OUTPUTS = declared({"x": (1, 3)}, {"y": (1, 5), "y2": (1, 5)})


def labels(content: bytes) -> tuple[str, ...]:
    def read_file(path: str, bytes_max: int) -> bytes:
        assert path == "labels.txt"
        assert bytes_max == 16 << 20
        return content

    spec = complete(ModelConfiguration.parse("m", LABELLED), TWO_OUTPUTS, 4, read_file)
    assert spec.labels.keys() == {"y"}
    return spec.labels["y"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"cat\ndog\n", ("cat", "dog")),
        (b"cat\ndog", ("cat", "dog")),
        (b"cat\r\ndog\r\n", ("cat", "dog")),
        (b"cat\n\ndog\n\n", ("cat", "", "dog", "")),
        ("\ufeffKätzchen\nline\u2028separator\n".encode(), ("Kätzchen", "line\u2028separator")),
        (b"", ()),
        (b"\n", ("",)),
    ],
)
def test_labels_are_lines(content: bytes, expected: tuple[str, ...]) -> None:
    assert labels(content) == expected


def test_labels_that_cannot_be_read_are_named() -> None:
    name = "config.pbtxt: label_filename 'labels.txt' of output 'y'"
    with pytest.raises(LoadError, match=f"{name}: there is no file"):
        completed(LABELLED, TWO_OUTPUTS)
    with pytest.raises(LoadError, match=f"{name} is not UTF-8 text: byte 3 is wrong"):
        labels(b"cat\xff")
    with pytest.raises(LoadError, match=f"{name} has 1000001 lines, the limit is 1000000"):
        labels(b"\n" * 1_000_001)
