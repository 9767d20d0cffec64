"""Reads `optimization.execution_accelerators`: options of the CUDA, TensorRT and OpenVINO providers of ONNX Runtime.

Only options that are known to be harmless pass. Others of these providers open files or libraries, write caches, or
take addresses in memory, all of which a configuration must not do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from turnout.core.errors import LoadError
from turnout.core.model import Options
from turnout_wire.gen import model_config_pb2 as pb

_FIELD = "config.pbtxt: optimization.execution_accelerators"
_FLAGS = {"1": "1", "true": "1", "on": "1", "0": "0", "false": "0", "off": "0"}

_FLAG = "a flag"
_NUMBER = r"[0-9]{1,20}"
_TEXT = r"[ -~]{1,4096}"
_CUDA = {
    "gpu_mem_limit": _NUMBER,
    "arena_extend_strategy": "kNextPowerOfTwo|kSameAsRequested",
    "cudnn_conv_algo_search": "EXHAUSTIVE|HEURISTIC|DEFAULT",
    "cudnn_conv_use_max_workspace": _FLAG,
    "cudnn_conv1d_pad_to_nc1d": _FLAG,
    "do_copy_in_default_stream": _FLAG,
    "enable_skip_layer_norm_strict_mode": _FLAG,
    "fuse_conv_bias": _FLAG,
    "prefer_nhwc": _FLAG,
    "sdpa_kernel": _NUMBER,
    "tunable_op_enable": _FLAG,
    "tunable_op_max_tuning_duration_ms": _NUMBER,
    "tunable_op_tuning_enable": _FLAG,
    "use_ep_level_unified_stream": _FLAG,
    "use_tf32": _FLAG,
}
_TENSORRT = {
    "trt_auxiliary_streams": r"-?[0-9]{1,3}",
    "trt_bf16_enable": _FLAG,
    "trt_build_heuristics_enable": _FLAG,
    "trt_builder_optimization_level": _NUMBER,
    "trt_context_memory_sharing_enable": _FLAG,
    "trt_detailed_build_log": _FLAG,
    "trt_dla_core": _NUMBER,
    "trt_dla_enable": _FLAG,
    "trt_engine_hw_compatible": _FLAG,
    "trt_force_sequential_engine_build": _FLAG,
    "trt_fp16_enable": _FLAG,
    "trt_int8_enable": _FLAG,
    "trt_layer_norm_fp32_fallback": _FLAG,
    "trt_load_user_initializer": _FLAG,
    "trt_max_partition_iterations": _NUMBER,
    "trt_max_workspace_size": _NUMBER,
    "trt_min_subgraph_size": _NUMBER,
    "trt_op_types_to_exclude": _TEXT,
    "trt_preview_features": _TEXT,
    "trt_profile_max_shapes": _TEXT,
    "trt_profile_min_shapes": _TEXT,
    "trt_profile_opt_shapes": _TEXT,
    "trt_sparsity_enable": _FLAG,
    "trt_tactic_sources": _TEXT,
}
_OPENVINO = {
    "model_priority": "LOW|MEDIUM|HIGH|DEFAULT",
    "num_of_threads": r"[1-9][0-9]{0,3}",
    "num_streams": r"[1-9][0-9]{0,3}",
    "precision": "FP32|FP16|ACCURACY",
}
_PRECISIONS = {"FP32": "", "FP16": "trt_fp16_enable", "BF16": "trt_bf16_enable", "INT8": "trt_int8_enable"}

# Triton's older place for four of the CUDA options.
CUDA_PARAMETERS = ("cudnn_conv_algo_search", "gpu_mem_limit", "do_copy_in_default_stream", "arena_extend_strategy")


@dataclass(frozen=True, slots=True)
class Accelerators:
    """Options by provider; None: the configuration does not name it."""

    cuda: Options = ()
    tensorrt: Options | None = None
    openvino: Options | None = None


def read_accelerators(proto: pb.ModelConfig) -> Accelerators:
    """Raises:
    LoadError: an accelerator or an option that is not known to be harmless, or two that contradict each other.
    """
    asked = proto.optimization.execution_accelerators
    gpu = _by_name("gpu_execution_accelerator", asked.gpu_execution_accelerator, ("cuda", "tensorrt"))
    cpu = _by_name("cpu_execution_accelerator", asked.cpu_execution_accelerator, ("openvino",))
    cuda = _options("cuda", _CUDA, gpu.get("cuda", {}))
    for key, value in _cuda_parameters(proto).items():
        _put(cuda, key, value, f"config.pbtxt: parameter {key}")
    return Accelerators(
        tuple(sorted(cuda.items())),
        tuple(sorted(_tensorrt(gpu["tensorrt"]).items())) if "tensorrt" in gpu else None,
        tuple(sorted(_options("openvino", _OPENVINO, cpu["openvino"]).items())) if "openvino" in cpu else None,
    )


def flag(where: str, text: str) -> bool:
    """A yes or no as Triton reads it.

    Raises:
        LoadError: naming `where` it stands.
    """
    if text.lower() not in _FLAGS:
        raise LoadError(f"{where} is '{text[:80]}', it must be 0 or 1")
    return _FLAGS[text.lower()] == "1"


def _by_name(
    field: str,
    accelerators: Iterable[pb.ModelOptimizationPolicy.ExecutionAccelerators.Accelerator],
    known: tuple[str, ...],
) -> dict[str, Mapping[str, str]]:
    by_name: dict[str, Mapping[str, str]] = {}
    for accelerator in accelerators:
        if accelerator.name not in known:
            raise LoadError(f"{_FIELD}.{field} '{accelerator.name}' is unknown, known: {', '.join(known)}")
        if accelerator.name in by_name:
            raise LoadError(f"{_FIELD}.{field} '{accelerator.name}' is there twice: join them")
        by_name[accelerator.name] = accelerator.parameters
    return by_name


def _options(name: str, known: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for key in sorted(given):
        where = f"{_FIELD} '{name}': parameter {key}"
        if key not in known:
            raise LoadError(f"{where} is not one that Turnout passes on, those are: {', '.join(sorted(known))}")
        options[key] = _value(where, known[key], given[key])
    return options


def _value(where: str, form: str, text: str) -> str:
    if form == _FLAG:
        return "1" if flag(where, text) else "0"
    if not re.fullmatch(form, text):
        raise LoadError(f"{where} is '{text[:80]}', it must match {form}")
    return text


def _tensorrt(given: Mapping[str, str]) -> dict[str, str]:
    own = {key: value for key, value in given.items() if key not in ("precision_mode", "max_workspace_size_bytes")}
    options = _options("tensorrt", _TENSORRT, own)
    where = f"{_FIELD} 'tensorrt': parameter"
    if "precision_mode" in given:
        mode = given["precision_mode"]
        if mode not in _PRECISIONS:
            raise LoadError(f"{where} precision_mode is '{mode[:80]}', known: {', '.join(_PRECISIONS)}")
        # TensorRT mixes precisions, so another one beside this is no contradiction; beside FP32 it is.
        for key in [_PRECISIONS[mode]] if _PRECISIONS[mode] else options.keys() & set(_PRECISIONS.values()):
            _put(options, key, "1" if _PRECISIONS[mode] else "0", f"{where} precision_mode {mode}")
    if "max_workspace_size_bytes" in given:
        where = f"{where} max_workspace_size_bytes"
        _put(options, "trt_max_workspace_size", _value(where, _NUMBER, given["max_workspace_size_bytes"]), where)
    return options


def _cuda_parameters(proto: pb.ModelConfig) -> dict[str, str]:
    options = {}
    for key in CUDA_PARAMETERS:
        if key in proto.parameters:
            where, text = f"config.pbtxt: parameter {key}", proto.parameters[key].string_value
            names = _CUDA[key].split("|")
            options[key] = _choice(where, text, names) if len(names) > 1 else _value(where, _CUDA[key], text)
    return options


def _choice(where: str, text: str, names: Sequence[str]) -> str:
    """Triton's `parameters` have a number where the accelerator's have a name."""
    if text not in map(str, range(len(names))):
        numbered = ", ".join(f"{number} ({name})" for number, name in enumerate(names))
        raise LoadError(f"{where} is '{text[:80]}', it must be one of {numbered}")
    return names[int(text)]


def _put(options: dict[str, str], key: str, value: str, where: str) -> None:
    if options.setdefault(key, value) != value:
        raise LoadError(f"{where} means {key}={value}, which contradicts {key}={options[key]}: give one of them")
