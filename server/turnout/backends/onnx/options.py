"""What a model's configuration asks of ONNX Runtime, as its own options: of the session, of the providers that it runs
on, of each run, and libraries of custom operators. Values were checked where they were read, in the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

import onnxruntime as ort

from turnout.core.errors import LoadError
from turnout.core.model import Execution, Options, Provider

ProviderChain = list[tuple[str, dict[str, str]]]

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_OPENVINO = "OpenVINOExecutionProvider"
_GRAPH_LEVELS = {
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_FATAL_ONLY = 4  # what else it has to say comes with its exceptions, and is logged from there
_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_registered = count()


def session_options(
    execution: Execution, provider: Provider, intra_op_threads: int, inter_op_threads: int
) -> ort.SessionOptions:
    """The options of a session on `provider`; the thread counts are the server's, for models without their own."""
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.graph_optimization_level = _GRAPH_LEVELS[execution.graph_level]
    intra, inter = execution.intra_op_threads, execution.inter_op_threads
    on_cpu = provider is Provider.CPU
    options.intra_op_num_threads = (intra_op_threads if intra is None else intra) if on_cpu else 1
    options.inter_op_num_threads = inter_op_threads if inter is None else inter
    if execution.parallel:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.enable_cpu_mem_arena = execution.cpu_arena
    options.enable_mem_pattern = execution.memory_pattern
    entries = {
        # Idle workers that spin take the core that the event loop needs.
        "session.intra_op.allow_spinning": "0",
        "session.inter_op.allow_spinning": "0",
        **dict(execution.session_entries),
    }
    if execution.disabled_optimizers:
        # As the constructor's argument does, which is lost when the constructor tries once more with other providers.
        entries["optimization.disable_specified_optimizers"] = ";".join(execution.disabled_optimizers)
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return options


def register_libraries(options: ort.SessionOptions, libraries: Mapping[str, int]) -> None:
    """Load libraries of custom operators, given by name as open descriptors, for sessions with these options.

    Raises:
        LoadError: one is no such library; naming it.
    """
    for name, fd in libraries.items():
        try:
            options.register_custom_ops_library(_unique_path(fd))
        except Exception as error:
            # ONNX Runtime's words are left to the log: they hold the path.
            raise LoadError(
                f"config.pbtxt: model_operations.op_library_filename '{name}' is no library of custom operators that "
                "can be loaded here"
            ) from error


def _unique_path(fd: int) -> str:
    """A path to a descriptor that this process has not loaded a library from: the dynamic loader takes an equal path
    for the same library, while a descriptor's number soon belongs to another file. `/.` changes nothing but the text.
    """
    number = f"{next(_registered):b}".replace("0", "/").replace("1", "/.")
    return f"/proc/self/fd{number}/{fd}"


def provider_chain(execution: Execution, provider: Provider, device: int) -> ProviderChain:
    """The providers of a session with their options, the one that it is to run on first.

    Raises:
        LoadError: the configuration names one that the installed onnxruntime lacks.
    """
    chain: ProviderChain = [(_CPU, {})]  # also for what the others have no kernel for
    if provider is Provider.CPU:
        if execution.openvino is not None:
            chain.insert(0, (_OPENVINO, {"device_type": "CPU", **dict(execution.openvino)}))
    else:
        chain.insert(0, (_CUDA, {"device_id": str(device), **dict(execution.cuda)}))
        if provider is Provider.TENSORRT:
            chain.insert(0, (_TENSORRT, {"device_id": str(device), **dict(execution.tensorrt or ())}))
    first = chain[0][0]
    if first not in ort.get_available_providers():
        wanted = "onnxruntime-openvino in its place" if first == _OPENVINO else "turnout[server-gpu]"
        raise LoadError(
            f"config.pbtxt: optimization.execution_accelerators: the installed onnxruntime lacks {first}: "
            f"install {wanted}"
        )
    return chain


def run_options(execution: Execution, provider: Provider, device: int) -> ort.RunOptions | None:
    """The options of every run of a session, or None for ONNX Runtime's own."""
    entries = dict(execution.run_entries)
    # A run fails that is to shrink the arena of a device which its session is not on.
    here = ("cpu:0",) if provider is Provider.CPU else ("cpu:0", f"gpu:{device}")
    entries[_SHRINKAGE] = ";".join(arena for arena in entries.get(_SHRINKAGE, "").split(";") if arena in here)
    entries = {key: value for key, value in entries.items() if value}
    if not entries:
        return None
    options = ort.RunOptions()
    for key, value in entries.items():
        options.add_run_config_entry(key, value)
    return options


def not_honoured(execution: Execution, provider: Provider) -> tuple[str, ...]:
    """What of a configuration has no effect where the model runs, in words for an operator."""
    return tuple(f"config.pbtxt: not honoured: {what}" for what in _not_honoured(execution, provider))


def _not_honoured(execution: Execution, provider: Provider) -> Iterator[str]:
    if provider is Provider.CPU:
        options: Mapping[str, Options | None] = {"cuda": execution.cuda or None, "tensorrt": execution.tensorrt}
        for name, given in options.items():
            if given is not None:
                yield f"options of {name}, the model runs on the CPU"
        if "gpu" in dict(execution.run_entries).get(_SHRINKAGE, ""):
            yield f"parameters[{_SHRINKAGE}] for GPUs, the model runs on the CPU"
    elif execution.openvino is not None:
        yield "cpu_execution_accelerator openvino, the model runs on a GPU"
