"""How a model is run: instance groups, ONNX Runtime's options among the parameters, and accelerators."""

from __future__ import annotations

import pytest

from turnout.core.errors import LoadError
from turnout.core.model import Device, Execution
from turnout.store.model_config import ModelConfiguration


def parse(text: str) -> Execution:
    configuration = ModelConfiguration.parse("m", text, op_libraries=True)
    assert configuration.warnings == ()
    return configuration.execution()


def refusal(text: str) -> str:
    with pytest.raises(LoadError) as refused:
        ModelConfiguration.parse("m", text, op_libraries=True)
    return str(refused.value)


def parameters(**values: str) -> str:
    """Keys with `__` for their dots."""
    return "\n".join(
        f'parameters {{ key: "{key.replace("__", ".")}" value {{ string_value: "{value}" }} }}'
        for key, value in values.items()
    )


def accelerator(name: str, kind: str = "gpu", **options: str) -> str:
    given = " ".join(f'parameters {{ key: "{key}" value: "{value}" }}' for key, value in options.items())
    return f'optimization {{ execution_accelerators {{ {kind}_execution_accelerator {{ name: "{name}" {given} }} }} }}'


def test_nothing_configured() -> None:
    assert parse("") == Execution()


# Instances

INSTANCES = {
    "instance_group { count: 3 }": Execution(instances=3),
    "instance_group { kind: KIND_CPU }": Execution(device=Device.CPU),
    "instance_group { kind: KIND_GPU gpus: [ 0, 2 ] count: 2 }": Execution(2, Device.GPU, (0, 2)),
    "instance_group { }": Execution(),
    "instance_group { } instance_group { count: 2 }": Execution(instances=3),
    "instance_group { kind: KIND_CPU count: 2 } instance_group { kind: KIND_CPU count: 2 }": Execution(4, Device.CPU),
    "instance_group { kind: KIND_GPU } instance_group { kind: KIND_GPU }": Execution(2, Device.GPU),
    "instance_group { kind: KIND_GPU gpus: [ 1 ] } instance_group { kind: KIND_GPU gpus: [ 0, 2 ] }": (
        Execution(1, Device.GPU, (1, 0, 2))
    ),
    "instance_group { kind: KIND_GPU gpus: [ 1, 1 ] }": Execution(2, Device.GPU, (1,)),
    "instance_group { gpus: [ 1 ] } instance_group { gpus: [ 1 ] count: 2 }": Execution(3, Device.AUTO, (1,)),
}


@pytest.mark.parametrize("text", INSTANCES)
def test_instance_groups(text: str) -> None:
    assert parse(text) == INSTANCES[text]


INSTANCES_REFUSED = {
    "instance_group { kind: KIND_MODEL }": "kind KIND_MODEL",
    "instance_group { kind: 9 }": "kind 9",
    "instance_group { kind: KIND_CPU gpus: [ 0 ] }": "KIND_CPU and names gpus",
    "instance_group { passive: true }": "instance_group: Turnout does not support passive",
    "instance_group { secondary_devices { } }": "instance_group: Turnout does not support passive and secondary",
    "instance_group { count: -1 }": "instance_group count is -1",
    "instance_group { gpus: [ -1 ] }": "instance_group names GPU -1",
    "instance_group { } instance_group { kind: KIND_CPU }": "instance_group: all groups must be of one kind",
    "instance_group { gpus: [ 0 ] } instance_group { }": "all or none must name gpus",
    "instance_group { gpus: [ 0 ] } instance_group { gpus: [ 1 ] count: 2 }": "as many instances, asked are {0: 1,",
}


@pytest.mark.parametrize("text", INSTANCES_REFUSED)
def test_instance_groups_that_cannot_be(text: str) -> None:
    assert INSTANCES_REFUSED[text] in refusal(text)


# Options of the session and of its runs

OPTIONS = [
    ("optimization { graph { level: 1 } }", Execution(graph_level=1)),
    ("optimization { graph { level: -1 } }", Execution(graph_level=-1)),
    (parameters(intra_op_thread_count="2"), Execution(intra_op_threads=2)),
    (parameters(inter_op_thread_count="0"), Execution(inter_op_threads=0)),
    (parameters(execution_mode="0"), Execution()),
    (parameters(execution_mode="1"), Execution(parallel=True)),
    (parameters(enable_mem_arena="0"), Execution(cpu_arena=False)),
    (parameters(enable_mem_arena="True"), Execution()),
    (parameters(enable_mem_pattern="off"), Execution(memory_pattern=False)),
    (
        parameters(session__use_device_allocator_for_initializers="1", session__disable_prepacking="1"),
        Execution(
            session_entries=(
                ("session.disable_prepacking", "1"),
                ("session.use_device_allocator_for_initializers", "1"),
            )
        ),
    ),
    (
        parameters(disabled_optimizers="ConstantFolding, MatMulAddFusion"),
        Execution(disabled_optimizers=("ConstantFolding", "MatMulAddFusion")),
    ),
    (parameters(disabled_optimizers=""), Execution()),
    (
        parameters(memory__enable_memory_arena_shrinkage="cpu:0;gpu:1"),
        Execution(run_entries=(("memory.enable_memory_arena_shrinkage", "cpu:0;gpu:1"),)),
    ),
    (
        'model_operations { op_library_filename: "a.so" op_library_filename: "b.so" }',
        Execution(op_libraries=("a.so", "b.so")),
    ),
]


@pytest.mark.parametrize(("text", "expected"), OPTIONS)
def test_options(text: str, expected: Execution) -> None:
    assert parse(text) == expected


OPTIONS_REFUSED = [
    ("optimization { graph { level: 3 } }", "optimization.graph.level is 3"),
    (parameters(intra_op_thread_count="-1"), "parameter intra_op_thread_count is '-1'"),
    (parameters(inter_op_thread_count="many"), "parameter inter_op_thread_count is 'many'"),
    (parameters(inter_op_thread_count="1025"), "from 0 to 1024"),
    (parameters(execution_mode="2"), "parameter execution_mode is '2', it must be 0 or 1"),
    (parameters(execution_mode="parallel"), "parameter execution_mode is 'parallel'"),
    (parameters(enable_mem_arena="yes!"), "parameter enable_mem_arena is 'yes!', it must be 0 or 1"),
    (parameters(enable_mem_pattern=""), "parameter enable_mem_pattern is ''"),
    *(
        (parameters(**{f"session.{name}": "1"}), f"parameter session.{name} is not passed on")
        for name in (
            "optimized_model_filepath",
            "model_external_initializers_file_folder_path",
            "optimized_model_external_initializers_file_name",
            "collect_node_memory_stats_to_file",
            "node_partition_config_file",
            "use_ort_model_bytes_directly",
            "use_ort_model_bytes_for_initializers",
            "load_model_format",
            "resource_cuda_partitioning_settings",
            "a_library_of_yours",
            "OUTPUT_DIR",
        )
    ),
    (parameters(session__x="1" * 8193), "parameter session.x is too long"),
    (parameters(**{"session." + "x" * 1024: "1"}), "is too long"),
    (parameters(disabled_optimizers="A,,B"), "parameter disabled_optimizers: '' is no optimizer's name"),
    (parameters(disabled_optimizers="A;B"), "parameter disabled_optimizers: 'A;B'"),
    (parameters(disabled_optimizers=",".join(f"A{i}" for i in range(257))), "has 257 names, the limit is 256"),
    (parameters(memory__enable_memory_arena_shrinkage="cpu:1"), "arena_shrinkage is 'cpu:1', it must be like"),
    (parameters(memory__enable_memory_arena_shrinkage="cpu"), "arena_shrinkage is 'cpu', it must be like"),
    (parameters(memory__enable_memory_arena_shrinkage=""), "arena_shrinkage is '', it must be like"),
    (
        parameters(memory__enable_memory_arena_shrinkage="gpu:0;cpu:0", enable_mem_arena="0"),
        "arena_shrinkage names cpu:0, but enable_mem_arena is 0",
    ),
    ('model_operations { op_library_filename: "/lib.so" }', "op_library_filename '/lib.so'"),
    ('model_operations { op_library_filename: "../lib.so" }', "op_library_filename '../lib.so'"),
    ('model_operations { op_library_filename: "" }', "op_library_filename ''"),
    ('model_operations { op_library_filename: ["a", "a"] }', "op_library_filename: at most 16 files, each once"),
]


@pytest.mark.parametrize(("text", "words"), OPTIONS_REFUSED)
def test_options_that_cannot_be(text: str, words: str) -> None:
    told = refusal(text)
    assert told.startswith("config.pbtxt: ")
    assert words in told


# Providers

PROVIDERS = [
    (parameters(cudnn_conv_algo_search="0"), {"cuda": (("cudnn_conv_algo_search", "EXHAUSTIVE"),)}),
    (parameters(cudnn_conv_algo_search="1"), {"cuda": (("cudnn_conv_algo_search", "HEURISTIC"),)}),
    (parameters(cudnn_conv_algo_search="2"), {"cuda": (("cudnn_conv_algo_search", "DEFAULT"),)}),
    (parameters(gpu_mem_limit="1073741824"), {"cuda": (("gpu_mem_limit", "1073741824"),)}),
    (parameters(do_copy_in_default_stream="false"), {"cuda": (("do_copy_in_default_stream", "0"),)}),
    (parameters(arena_extend_strategy="0"), {"cuda": (("arena_extend_strategy", "kNextPowerOfTwo"),)}),
    (parameters(arena_extend_strategy="1"), {"cuda": (("arena_extend_strategy", "kSameAsRequested"),)}),
    (accelerator("cuda"), {}),
    (
        accelerator("cuda", cudnn_conv_use_max_workspace="0", use_tf32="True"),
        {"cuda": (("cudnn_conv_use_max_workspace", "0"), ("use_tf32", "1"))},
    ),
    (
        accelerator("cuda", gpu_mem_limit="5") + parameters(gpu_mem_limit="5", arena_extend_strategy="1"),
        {"cuda": (("arena_extend_strategy", "kSameAsRequested"), ("gpu_mem_limit", "5"))},
    ),
    (accelerator("tensorrt"), {"tensorrt": ()}),
    (accelerator("tensorrt", precision_mode="FP32"), {"tensorrt": ()}),
    (accelerator("tensorrt", precision_mode="FP16"), {"tensorrt": (("trt_fp16_enable", "1"),)}),
    (accelerator("tensorrt", precision_mode="BF16"), {"tensorrt": (("trt_bf16_enable", "1"),)}),
    (
        accelerator("tensorrt", precision_mode="INT8", trt_fp16_enable="true"),
        {"tensorrt": (("trt_fp16_enable", "1"), ("trt_int8_enable", "1"))},
    ),
    (
        accelerator("tensorrt", max_workspace_size_bytes="64", trt_builder_optimization_level="2"),
        {"tensorrt": (("trt_builder_optimization_level", "2"), ("trt_max_workspace_size", "64"))},
    ),
    (
        accelerator("tensorrt", trt_profile_min_shapes="x:1x3"),
        {"tensorrt": (("trt_profile_min_shapes", "x:1x3"),)},
    ),
    (accelerator("openvino", "cpu"), {"openvino": ()}),
    (accelerator("openvino", "cpu", num_of_threads="2"), {"openvino": (("num_of_threads", "2"),)}),
]


@pytest.mark.parametrize(("text", "expected"), PROVIDERS)
def test_providers(text: str, expected: dict[str, object]) -> None:
    assert parse(text) == Execution(**expected)  # type: ignore[arg-type]


PROVIDERS_REFUSED = [
    (
        parameters(cudnn_conv_algo_search="3"),
        "parameter cudnn_conv_algo_search is '3', it must be one of 0 (EXHAUSTIVE)",
    ),
    (parameters(arena_extend_strategy="kSameAsRequested"), "parameter arena_extend_strategy is 'kSameAsRequested'"),
    (parameters(gpu_mem_limit="1G"), "parameter gpu_mem_limit is '1G'"),
    (parameters(do_copy_in_default_stream="2"), "parameter do_copy_in_default_stream is '2'"),
    (accelerator("rocm"), "gpu_execution_accelerator 'rocm' is unknown, known: cuda, tensorrt"),
    (accelerator("openvino"), "gpu_execution_accelerator 'openvino' is unknown"),
    (accelerator("tensorrt", "cpu"), "cpu_execution_accelerator 'tensorrt' is unknown, known: openvino"),
    (
        "optimization { execution_accelerators { gpu_execution_accelerator [ { name: 'cuda' }, { name: 'cuda' } ] } }",
        "gpu_execution_accelerator 'cuda' is there twice",
    ),
    (accelerator("cuda", use_tf32="maybe"), "'cuda': parameter use_tf32 is 'maybe'"),
    (accelerator("cuda", arena_extend_strategy="1"), "'cuda': parameter arena_extend_strategy is '1'"),
    *(
        (accelerator("cuda", **{name: "1"}), f"'cuda': parameter {name} is not one that Turnout passes on")
        for name in ("user_compute_stream", "gpu_external_alloc", "enable_cuda_graph", "device_id", "use_tf23")
    ),
    *(
        (accelerator("tensorrt", **{name: "1"}), f"'tensorrt': parameter {name} is not one that Turnout passes on")
        for name in (
            "trt_engine_cache_enable",
            "trt_engine_cache_path",
            "trt_extra_plugin_lib_paths",
            "trt_engine_decryption_lib_path",
            "trt_int8_calibration_table_name",
            "trt_onnx_bytestream",
            "trt_dump_subgraphs",
            "trt_ep_context_file_path",
            "trt_cuda_graph_enable",
            "user_compute_stream",
            "precision",
        )
    ),
    (accelerator("tensorrt", precision_mode="FP8"), "precision_mode is 'FP8', known: FP32, FP16, BF16, INT8"),
    (
        accelerator("tensorrt", precision_mode="FP16", trt_fp16_enable="0"),
        "precision_mode FP16 means trt_fp16_enable=1, which contradicts trt_fp16_enable=0",
    ),
    (
        accelerator("tensorrt", precision_mode="FP32", trt_int8_enable="1"),
        "precision_mode FP32 means trt_int8_enable=0, which contradicts trt_int8_enable=1",
    ),
    (
        accelerator("tensorrt", max_workspace_size_bytes="1", trt_max_workspace_size="2"),
        "max_workspace_size_bytes means trt_max_workspace_size=1, which contradicts trt_max_workspace_size=2",
    ),
    (accelerator("tensorrt", max_workspace_size_bytes="big"), "max_workspace_size_bytes is 'big'"),
    (
        accelerator("cuda", gpu_mem_limit="5") + parameters(gpu_mem_limit="6"),
        "parameter gpu_mem_limit means gpu_mem_limit=6, which contradicts gpu_mem_limit=5",
    ),
    (accelerator("openvino", "cpu", cache_dir="/tmp"), "'openvino': parameter cache_dir is not one"),
    (accelerator("openvino", "cpu", device_type="GPU"), "'openvino': parameter device_type is not one"),
]


@pytest.mark.parametrize(("text", "words"), PROVIDERS_REFUSED)
def test_providers_that_cannot_be(text: str, words: str) -> None:
    told = refusal(text)
    assert told.startswith("config.pbtxt: ")
    assert words in told
