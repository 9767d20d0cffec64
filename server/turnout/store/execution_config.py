"""Reads how a model is to be run: `instance_group`, `optimization`, and the `parameters` that are ONNX Runtime's
options, as Triton's backend names them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from turnout.core.errors import LoadError
from turnout.core.model import Device, Execution, Options
from turnout.store.accelerators import CUDA_PARAMETERS, flag, read_accelerators
from turnout.store.named_files import check_plain
from turnout_wire.gen import model_config_pb2 as pb

_DEVICES = {
    pb.ModelInstanceGroup.KIND_AUTO: Device.AUTO,
    pb.ModelInstanceGroup.KIND_CPU: Device.CPU,
    pb.ModelInstanceGroup.KIND_GPU: Device.GPU,
}
_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_SESSION = "session."
_PARAMETERS = {
    "execution_mode",
    "intra_op_thread_count",
    "inter_op_thread_count",
    "enable_mem_arena",
    "enable_mem_pattern",
    "disabled_optimizers",
    _SHRINKAGE,
    *CUDA_PARAMETERS,
}
_THREADS_MAX = 1024
_OPTIMIZERS_MAX = 256
_OP_LIBRARIES_MAX = 16
# ONNX Runtime's own limits for a configuration entry.
_KEY_CHARACTERS_MAX = 1024
_VALUE_CHARACTERS_MAX = 8192
# A configuration must not make ONNX Runtime open files, nor change how it reads what it is given. The first of the
# three names a file in its value, the second takes the model for one of another format than was checked, and with the
# third weights stay in memory that is freed.
_OPENS_FILES = ("file", "folder", "path", "dir", "library")
_NOT_PASSED = (
    "session.resource_cuda_partitioning_settings",
    "session.load_model_format",
    "session.use_ort_model_bytes_for_initializers",
)


def read_execution(proto: pb.ModelConfig) -> Execution:
    """Raises:
    LoadError: a value that is out of bounds or not passed on, or two that contradict each other; naming them.
    """
    parameters = {key: value.string_value for key, value in proto.parameters.items()}
    instances, device, gpus = _instances(proto.instance_group)
    accelerators = read_accelerators(proto)
    execution = Execution(
        instances=instances,
        device=device,
        gpus=gpus,
        graph_level=_graph_level(proto),
        intra_op_threads=_threads(parameters, "intra_op_thread_count"),
        inter_op_threads=_threads(parameters, "inter_op_thread_count"),
        parallel=_parallel(parameters),
        cpu_arena=_flag(parameters, "enable_mem_arena"),
        memory_pattern=_flag(parameters, "enable_mem_pattern"),
        session_entries=_session_entries(parameters),
        run_entries=_run_entries(parameters),
        disabled_optimizers=_optimizers(parameters),
        cuda=accelerators.cuda,
        tensorrt=accelerators.tensorrt,
        openvino=accelerators.openvino,
        op_libraries=_op_libraries(proto.model_operations.op_library_filename),
    )
    if not execution.cpu_arena and "cpu:0" in dict(execution.run_entries).get(_SHRINKAGE, ""):
        raise LoadError(f"config.pbtxt: parameter {_SHRINKAGE} names cpu:0, but enable_mem_arena is 0: drop one")
    return execution


def is_honoured(parameter: str) -> bool:
    """Whether a key of `parameters` is read here; all others are the user's own."""
    return parameter in _PARAMETERS or parameter.startswith(_SESSION)


def _instances(groups: Sequence[pb.ModelInstanceGroup]) -> tuple[int, Device, tuple[int, ...]]:
    """All groups together: how many instances (on each GPU, where those are named), and where."""
    if not groups:
        return 1, Device.AUTO, ()
    for group in groups:
        _check_group(group)
    if len({(group.kind, bool(group.gpus)) for group in groups}) > 1:
        raise LoadError("config.pbtxt: instance_group: all groups must be of one kind, and all or none must name gpus")
    counts = Counter[int]()
    for group in groups:
        for gpu in group.gpus or (-1,):
            counts[gpu] += max(group.count, 1)
    if len(set(counts.values())) > 1:
        raise LoadError(f"config.pbtxt: instance_group: each GPU must have as many instances, asked are {dict(counts)}")
    return counts.most_common(1)[0][1], _DEVICES[groups[0].kind], tuple(gpu for gpu in counts if gpu >= 0)


def _check_group(group: pb.ModelInstanceGroup) -> None:
    if group.kind not in _DEVICES:
        kinds = pb.ModelInstanceGroup.Kind
        name = kinds.Name(group.kind) if group.kind in kinds.values() else group.kind
        raise LoadError(f"config.pbtxt: instance_group kind {name} is not for ONNX models")
    if group.kind == pb.ModelInstanceGroup.KIND_CPU and group.gpus:
        raise LoadError("config.pbtxt: instance_group is KIND_CPU and names gpus")
    if group.passive or group.secondary_devices:
        raise LoadError("config.pbtxt: instance_group: Turnout does not support passive and secondary_devices")
    if group.count < 0:
        raise LoadError(f"config.pbtxt: instance_group count is {group.count}, it must be 1 or more")
    if group.gpus and min(group.gpus) < 0:
        raise LoadError(f"config.pbtxt: instance_group names GPU {min(group.gpus)}, numbers start at 0")


def _graph_level(proto: pb.ModelConfig) -> int:
    level = proto.optimization.graph.level
    if level not in (-1, 0, 1, 2):
        raise LoadError(f"config.pbtxt: optimization.graph.level is {level}, known: -1 to 2")
    return level


def _threads(parameters: Mapping[str, str], key: str) -> int | None:
    if key not in parameters:
        return None
    text = parameters[key]
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) > _THREADS_MAX:
        raise LoadError(f"config.pbtxt: parameter {key} is '{text[:80]}', it must be a number from 0 to {_THREADS_MAX}")
    return int(text)


def _parallel(parameters: Mapping[str, str]) -> bool:
    mode = parameters.get("execution_mode", "0")
    if mode not in ("0", "1"):
        raise LoadError(f"config.pbtxt: parameter execution_mode is '{mode[:80]}', it must be 0 or 1 (parallel)")
    return mode == "1"


def _flag(parameters: Mapping[str, str], key: str) -> bool:
    return flag(f"config.pbtxt: parameter {key}", parameters.get(key, "1"))


def _session_entries(parameters: Mapping[str, str]) -> Options:
    keys = sorted(key for key in parameters if key.startswith(_SESSION))
    for key in keys:
        if key in _NOT_PASSED or any(word in key.lower() for word in _OPENS_FILES):
            raise LoadError(f"config.pbtxt: parameter {key} is not passed on: ONNX Runtime could read unchecked data")
        if len(key) > _KEY_CHARACTERS_MAX or len(parameters[key]) > _VALUE_CHARACTERS_MAX:
            raise LoadError(
                f"config.pbtxt: parameter {key[:80]} is too long: ONNX Runtime takes {_KEY_CHARACTERS_MAX} characters "
                f"as name, {_VALUE_CHARACTERS_MAX} as value"
            )
    return tuple((key, parameters[key]) for key in keys)


def _run_entries(parameters: Mapping[str, str]) -> Options:
    if _SHRINKAGE not in parameters:
        return ()
    devices = parameters[_SHRINKAGE]
    # Anything else fails each run, not the load.
    if not re.fullmatch(r"(cpu:0|gpu:[0-9]{1,3})(;(cpu:0|gpu:[0-9]{1,3}))*", devices):
        raise LoadError(f"config.pbtxt: parameter {_SHRINKAGE} is '{devices[:80]}', it must be like cpu:0;gpu:0")
    return ((_SHRINKAGE, devices),)


def _optimizers(parameters: Mapping[str, str]) -> tuple[str, ...]:
    text = parameters.get("disabled_optimizers", "")
    names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
    for name in names:
        if not re.fullmatch(r"\w{1,128}", name, re.ASCII):
            raise LoadError(f"config.pbtxt: parameter disabled_optimizers: '{name[:80]}' is no optimizer's name")
    if len(names) > _OPTIMIZERS_MAX:
        raise LoadError(
            f"config.pbtxt: parameter disabled_optimizers has {len(names)} names, the limit is {_OPTIMIZERS_MAX}"
        )
    return names


def _op_libraries(names: Sequence[str]) -> tuple[str, ...]:
    field = "model_operations.op_library_filename"
    for name in names:
        check_plain(field, name)
    if len(set(names)) != len(names) or len(names) > _OP_LIBRARIES_MAX:
        raise LoadError(f"config.pbtxt: {field}: at most {_OP_LIBRARIES_MAX} files, each once")
    return tuple(names)
