"""config.pbtxt: what is honoured, what is warned about, and what is refused by name."""

from __future__ import annotations

import re

import pytest

from turnout.core.errors import LoadError
from turnout.core.model import Execution
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


TENSOR = 'name: "x" data_type: TYPE_FP32 dims: [ 3 ]'
REFUSED = {
    "sequence_batching { }": "'sequence_batching'",
    "ensemble_scheduling { }": "'ensemble_scheduling'",
    'batch_input { target_name: "x" }': "'batch_input'",
    'batch_output { target_name: "x" }': "'batch_output'",
    "model_repository_agents { }": "'model_repository_agents'",
    "model_transaction_policy { decoupled: true }": "decoupled",
    'platform: "tensorflow_graphdef"': "platform 'tensorflow_graphdef'",
    'backend: "python"': "backend 'python'",
    'name: "n"': "name is 'n', the folder is 'm'",
    "max_batch_size: -1": "max_batch_size is -1",
    'default_model_filename: "../../etc/passwd"': "default_model_filename '../../etc/passwd'",
    'default_model_filename: "/etc/passwd"': "default_model_filename '/etc/passwd'",
    'default_model_filename: ".."': "default_model_filename '..'",
    'default_model_filename: "a\\000b"': r"default_model_filename 'a\x00b'",
    "version_policy { specific { versions: [ 0 ] } }": "version_policy names version 0",
    "max_batch_sice: 8": 'no field named "max_batch_sice"',
    "max_batch_size: eight": "max_batch_size",
    "dynamic_batching { } dynamic_batching { }": 'Message type "ModelConfig" should not have multiple',
    "{": "config.pbtxt: 1:1",
    # A configured tensor is given whole.
    "input { data_type: TYPE_FP32 dims: [ 3 ] }": "an input has no name",
    "output { data_type: TYPE_FP32 dims: [ 3 ] }": "an output has no name",
    'input { name: "x" dims: [ 3 ] }': "input 'x' has no data_type: set it, or leave out every input",
    'output { name: "y" dims: [ 3 ] }': "output 'y' has no data_type: set it, or leave out every output",
    'input { name: "x" data_type: TYPE_FP32 }': "input 'x' has no dims",
    'input { name: "x" data_type: 99 dims: [ 3 ] }': "input 'x' has data_type 99",
    'input { name: "x" data_type: TYPE_FP32 dims: [ 0 ] }': "'x' has dims [0]",
    'output { name: "y" data_type: TYPE_FP32 dims: [ 3, -2 ] }': "'y' has dims [3, -2]",
    f"input {{ {TENSOR} is_shape_tensor: true }}": "'x': Turnout does not support is_shape_tensor",
    f"output {{ {TENSOR} is_shape_tensor: true }}": "'x': Turnout does not support is_shape_tensor",
    f"input {{ {TENSOR} is_non_linear_format_io: true }}": "'x': Turnout does not support is_non_linear_format_io",
    f"input {{ {TENSOR} allow_ragged_batch: true }}": "input 'x': Turnout does not support allow_ragged_batch",
    f"max_batch_size: 4 input {{ {TENSOR} optional: true }}": "input 'x' is optional, but max_batch_size is 4",
    f'output {{ {TENSOR} label_filename: "../labels.txt" }}': "label_filename of output 'x' '../labels.txt'",
    f'output {{ {TENSOR} label_filename: "/labels.txt" }}': "label_filename of output 'x' '/labels.txt'",
    # The same elements in another form
    f"input {{ {TENSOR} reshape {{ shape: [ 4 ] }} }}": "input 'x' reshapes [3] to [4]",
    f"output {{ {TENSOR} reshape {{ shape: [ ] }} }}": "output 'x' reshapes [3] to []",
    f"input {{ {TENSOR} reshape {{ shape: [ 3, 0 ] }} }}": "input 'x' has reshape [3, 0]",
    f"input {{ {TENSOR} reshape {{ shape: [ -1 ] }} }}": "input 'x' reshapes [3] to [-1]",
    'input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] reshape { shape: [ 3 ] } }': "input 'x' reshapes [-1] to [3]",
    'input { name: "x" data_type: TYPE_FP32 dims: [ -1, 2, -1 ] reshape { shape: [ -1, -1, 2 ] } }': (
        "input 'x' reshapes [-1, 2, -1] to [-1, -1, 2]"
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused_by_name(text: str) -> None:
    told = refusal(text)
    assert told.startswith("config.pbtxt: ")
    assert REFUSED[text] in told


NOT_HONOURED = {
    "response_cache { enable: true }": "response_cache",
    "model_metrics { }": "model_metrics",
    'metric_tags { key: "a" value: "b" }': "metric_tags",
    'cc_model_filenames { key: "7.0" value: "b" }': "cc_model_filenames",
    'runtime: "r"': "runtime",
    'instance_group { host_policy: "p" }': "instance_group.host_policy",
    'instance_group { profile: "p" }': "instance_group.profile",
    "instance_group { rate_limiter { } }": "instance_group.rate_limiter",
    'parameters { key: "owner" value { string_value: "team" } }': "parameters[owner]",
    "optimization { priority: PRIORITY_MAX }": "optimization.priority",
    "optimization { eager_batching: true }": "optimization.eager_batching",
    "optimization { cuda { graphs: true } }": "optimization.cuda",
    "optimization { input_pinned_memory { enable: true } }": "optimization.input_pinned_memory",
    "optimization { gather_kernel_buffer_threshold: 1 }": "optimization.gather_kernel_buffer_threshold",
}


@pytest.mark.parametrize("text", NOT_HONOURED)
def test_what_is_not_honoured_is_said(text: str) -> None:
    (warning,) = parse(text).warnings
    assert re.match("config.pbtxt: not honoured: ", warning) and NOT_HONOURED[text] in warning


HONOURED = """
    name: "m"
    platform: "onnxruntime_onnx"
    backend: "onnxruntime"
    max_batch_size: 8
    default_model_filename: "m.onnx"
    version_policy { latest { num_versions: 2 } }
    input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 6 ] reshape { shape: [ -1, 2, 3 ] } } ]
    output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } label_filename: "labels.txt" } ]
    instance_group [ { count: 1 kind: KIND_GPU gpus: [ 0 ] }, { count: 1 kind: KIND_GPU gpus: [ 1 ] } ]
    dynamic_batching {
      preferred_batch_size: [ 4, 8 ]
      max_queue_delay_microseconds: 100
      priority_levels: 2
      default_priority_level: 2
      default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5 allow_timeout_override: true }
      priority_queue_policy { key: 1 value { max_queue_size: 3 } }
    }
    model_warmup [ {
      name: "w" batch_size: 4 count: 2
      inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 2, 6 ] zero_data: true } }
    } ]
    optimization {
      graph { level: 1 }
      execution_accelerators {
        gpu_execution_accelerator [
          { name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } },
          { name: "cuda" parameters { key: "use_tf32" value: "0" } }
        ]
        cpu_execution_accelerator [ { name: "openvino" } ]
      }
    }
    parameters { key: "execution_mode" value { string_value: "1" } }
    parameters { key: "intra_op_thread_count" value { string_value: "2" } }
    parameters { key: "inter_op_thread_count" value { string_value: "2" } }
    parameters { key: "enable_mem_arena" value { string_value: "1" } }
    parameters { key: "enable_mem_pattern" value { string_value: "0" } }
    parameters { key: "session.disable_prepacking" value { string_value: "1" } }
    parameters { key: "disabled_optimizers" value { string_value: "ConstantFolding" } }
    parameters { key: "memory.enable_memory_arena_shrinkage" value { string_value: "cpu:0;gpu:0" } }
    parameters { key: "cudnn_conv_algo_search" value { string_value: "1" } }
    parameters { key: "gpu_mem_limit" value { string_value: "1073741824" } }
    parameters { key: "do_copy_in_default_stream" value { string_value: "1" } }
    parameters { key: "arena_extend_strategy" value { string_value: "1" } }
    model_operations { op_library_filename: "ops.so" }
"""


def test_what_is_honoured_is_not_warned_about() -> None:
    assert ModelConfiguration.parse("m", HONOURED, op_libraries=True).warnings == ()


def test_libraries_of_operators_need_the_server_s_leave() -> None:
    text = 'model_operations { op_library_filename: "ops.so" }'
    assert "op_library_filename: libraries are native code" in refusal(text)
    assert "--allow-op-libraries" in refusal(text)
    assert ModelConfiguration.parse("m", text, op_libraries=True).execution().op_libraries == ("ops.so",)


def test_a_preferred_size_above_a_configured_batch_size_is_told_before_any_file_is_opened() -> None:
    assert "preferred_batch_size names 9, but max_batch_size is 8" in refusal(
        "max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 9, 4 ] }"
    )
