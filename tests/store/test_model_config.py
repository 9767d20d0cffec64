"""config.pbtxt: what is honoured, what is warned about, and what is refused by name."""

from __future__ import annotations

import re

import pytest

from turnout.core.errors import LoadError
from turnout.core.model import Device, Execution
from turnout.store.model_config import ModelConfiguration


def parse(text: str) -> ModelConfiguration:
    return ModelConfiguration.parse("m", text)


def refusal(text: str) -> str:
    with pytest.raises(LoadError) as refused:
        parse(text)
    return str(refused.value)


def test_empty_config_is_all_defaults() -> None:
    configuration = parse("")
    assert configuration.execution() == Execution()
    assert (configuration.filename, configuration.warnings) == ("model.onnx", ())
    assert configuration.versions({1, 2, 10}) == {10}


def test_triton_s_text_form_with_commas_and_comments() -> None:
    configuration = parse("""
        # as in Triton's documentation
        name: "m"
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        input [
          { name: "a", data_type: TYPE_FP32, dims: [ 16 ] },
          { name: "b" data_type: TYPE_STRING dims: [ -1, 2 ] }
        ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 16 ] } ]
        dynamic_batching { }
    """)
    assert configuration.proto.max_batch_size == 8
    assert [list(tensor.dims) for tensor in configuration.proto.input] == [[16], [-1, 2]]
    assert configuration.warnings == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("instance_group { count: 3 }", Execution(instances=3)),
        ("instance_group { kind: KIND_CPU }", Execution(device=Device.CPU)),
        ("instance_group { kind: KIND_GPU gpus: [ 0, 2 ] count: 2 }", Execution(2, Device.GPU, (0, 2))),
        ("instance_group { }", Execution()),
        ("optimization { graph { level: 1 } }", Execution(graph_level=1)),
        ("optimization { graph { level: -1 } }", Execution(graph_level=-1)),
        (
            'parameters { key: "intra_op_thread_count" value { string_value: "2" } }',
            Execution(intra_op_threads=2),
        ),
        (
            'parameters { key: "inter_op_thread_count" value { string_value: "0" } }',
            Execution(inter_op_threads=0),
        ),
    ],
)
def test_how_a_model_is_run(text: str, expected: Execution) -> None:
    configuration = parse(text)
    assert configuration.execution() == expected
    assert configuration.warnings == ()


def test_file_name() -> None:
    assert parse('default_model_filename: "other.onnx"').filename == "other.onnx"


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        ("", {7}),
        ("version_policy { latest { num_versions: 1 } }", {7}),
        ("version_policy { latest { num_versions: 2 } }", {3, 7}),
        ("version_policy { latest { num_versions: 9 } }", {1, 3, 7}),
        ("version_policy { latest { } }", {7}),
        ("version_policy { all { } }", {1, 3, 7}),
        ("version_policy { specific { versions: [ 1, 3 ] } }", {1, 3}),
        ("version_policy { specific { versions: [ 3, 99 ] } }", {3}),
    ],
)
def test_version_policies(policy: str, chosen: set[int]) -> None:
    assert parse(policy).versions({1, 3, 7}) == chosen


def test_version_policy_that_allows_nothing_there() -> None:
    configuration = parse("version_policy { specific { versions: [ 5 ] } }")
    with pytest.raises(LoadError, match=r"version_policy allows \[5\], there are \[1, 3\]"):
        configuration.versions({3, 1})


REFUSED = {
    "sequence_batching { }": "'sequence_batching'",
    "ensemble_scheduling { }": "'ensemble_scheduling'",
    'batch_input { target_name: "x" }': "'batch_input'",
    'batch_output { target_name: "x" }': "'batch_output'",
    'model_operations { op_library_filename: "/lib.so" }': "'model_operations'",
    "model_repository_agents { }": "'model_repository_agents'",
    "model_transaction_policy { decoupled: true }": "decoupled",
    'platform: "tensorflow_graphdef"': "platform 'tensorflow_graphdef'",
    'backend: "python"': "backend 'python'",
    'name: "n"': "name is 'n', the folder is 'm'",
    "max_batch_size: -1": "max_batch_size is -1",
    "optimization { graph { level: 3 } }": "optimization.graph.level is 3",
    'default_model_filename: "../../etc/passwd"': "default_model_filename '../../etc/passwd'",
    'default_model_filename: "/etc/passwd"': "default_model_filename '/etc/passwd'",
    'default_model_filename: ".."': "default_model_filename '..'",
    'default_model_filename: "a\\000b"': r"default_model_filename 'a\x00b'",
    'input { name: "x" dims: [ 0 ] }': "'x' has dims [0]",
    'output { name: "y" dims: [ 3, -2 ] }': "'y' has dims [3, -2]",
    'input { name: "x" is_shape_tensor: true }': "'x': Turnout does not support is_shape_tensor",
    'output { name: "y" is_shape_tensor: true }': "'y': Turnout does not support is_shape_tensor",
    'input { name: "x" is_non_linear_format_io: true }': "'x': Turnout does not support is_non_linear_format_io",
    'input { name: "x" allow_ragged_batch: true }': "input 'x': Turnout does not support allow_ragged_batch",
    'input { name: "x" optional: true }': "input 'x': Turnout does not support optional",
    "instance_group { } instance_group { }": "one instance_group",
    "instance_group { kind: KIND_MODEL }": "KIND_MODEL",
    "instance_group { kind: KIND_CPU gpus: [ 0 ] }": "KIND_CPU and names gpus",
    "instance_group { passive: true }": "instance_group: Turnout does not support passive",
    "instance_group { secondary_devices { } }": "instance_group: Turnout does not support passive and secondary",
    "instance_group { count: -1 }": "instance_group count is -1",
    'parameters { key: "intra_op_thread_count" value { string_value: "-1" } }': "intra_op_thread_count is '-1'",
    'parameters { key: "inter_op_thread_count" value { string_value: "many" } }': "inter_op_thread_count is 'many'",
    "version_policy { specific { versions: [ 0 ] } }": "version_policy names version 0",
    "max_batch_sice: 8": 'no field named "max_batch_sice"',
    "max_batch_size: eight": "max_batch_size",
    "{": "config.pbtxt: 1:1",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused_by_name(text: str) -> None:
    told = refusal(text)
    assert told.startswith("config.pbtxt: ")
    assert REFUSED[text] in told


NOT_HONOURED = {
    "response_cache { enable: true }": "response_cache",
    'model_warmup { name: "w" }': "model_warmup",
    "model_metrics { }": "model_metrics",
    'metric_tags { key: "a" value: "b" }': "metric_tags",
    'cc_model_filenames { key: "7.0" value: "b" }': "cc_model_filenames",
    'runtime: "r"': "runtime",
    "dynamic_batching { max_queue_delay_microseconds: 5 }": "dynamic_batching's delay",
    "dynamic_batching { preferred_batch_size: [ 4 ] }": "dynamic_batching's delay and preferred sizes",
    "dynamic_batching { priority_levels: 2 }": "dynamic_batching's priorities",
    "dynamic_batching { default_queue_policy { max_queue_size: 1 } }": "queue policies",
    "dynamic_batching { preserve_ordering: true } instance_group { count: 2 }": "preserve_ordering",
    'instance_group { host_policy: "p" }': "instance_group.host_policy",
    'instance_group { profile: "p" }': "instance_group.profile",
    'parameters { key: "execution_mode" value { string_value: "1" } }': "parameters[execution_mode]",
    "optimization { priority: PRIORITY_MAX }": "optimization.priority",
    "optimization { eager_batching: true }": "optimization.eager_batching",
    'output { name: "y" label_filename: "labels.txt" }': "label_filename of 'y'",
}


@pytest.mark.parametrize("text", NOT_HONOURED)
def test_what_is_not_honoured_is_said(text: str) -> None:
    (warning,) = parse(text).warnings
    assert re.match("config.pbtxt: not honoured: ", warning) and NOT_HONOURED[text] in warning


def test_ordering_is_kept_by_one_instance_anyway() -> None:
    assert parse("dynamic_batching { preserve_ordering: true }").warnings == ()
