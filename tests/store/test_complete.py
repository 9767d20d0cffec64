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


def declared(inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]) -> Signature:
    """What a file of FP32 tensors says of itself."""

    def specs(shapes: dict[str, tuple[int, ...]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, DataType.FP32, shape) for name, shape in shapes.items())

    return Signature(specs(inputs), specs(outputs))


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


@pytest.mark.parametrize(
    ("dims", "shape"), [("[ 6 ]", "[ 2, 4 ]"), ("[ -1 ]", "[ 2, 3 ]"), ("[ 6 ]", "[ 2, -1 ]"), ("[ 6 ]", "[ ]")]
)
def test_reshape_to_another_number_of_elements(dims: str, shape: str) -> None:
    text = f'max_batch_size: 8 input {{ name: "x" data_type: TYPE_FP32 dims: {dims} reshape {{ shape: {shape} }} }}'
    with pytest.raises(LoadError, match="input 'x' reshapes"):
        completed(text, declared({"x": (-1, 2, 3)}, {"y": (-1, 5)}))


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
    with pytest.raises(LoadError, match=r"1 inputs \['x'\], the model file has \['x', 'z'\]"):
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
            r"2 inputs \['x', 'z'\], the model file has \['x'\]",
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
