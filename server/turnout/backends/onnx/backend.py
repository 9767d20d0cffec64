"""Loads ONNX files into ONNX Runtime sessions: session options, providers chosen explicitly, the signature read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

import onnxruntime as ort

from turnout.backends.onnx.contents import Contents
from turnout.backends.onnx.external import is_ort_format
from turnout.backends.onnx.memory import give_large_buffers_back
from turnout.backends.onnx.options import (
    not_honoured,
    provider_chain,
    register_libraries,
    run_options,
    session_options,
)
from turnout.backends.onnx.preflight import Preflight
from turnout.backends.onnx.reasons import reason
from turnout.backends.onnx.sealed import sealed_file
from turnout.backends.onnx.session import OnnxSession
from turnout.core.errors import LoadError
from turnout.core.model import Artefact, Device, Execution, Placement, Provider
from turnout.core.tensors import ANY, Signature, TensorSpec
from turnout.runtime.ports import Loaded
from turnout_wire.tensors import DataType

_DATATYPES = {
    "tensor(bool)": DataType.BOOL,
    "tensor(uint8)": DataType.UINT8,
    "tensor(uint16)": DataType.UINT16,
    "tensor(uint32)": DataType.UINT32,
    "tensor(uint64)": DataType.UINT64,
    "tensor(int8)": DataType.INT8,
    "tensor(int16)": DataType.INT16,
    "tensor(int32)": DataType.INT32,
    "tensor(int64)": DataType.INT64,
    "tensor(float16)": DataType.FP16,
    "tensor(float)": DataType.FP32,
    "tensor(double)": DataType.FP64,
    "tensor(string)": DataType.BYTES,
    "tensor(bfloat16)": DataType.BF16,
}
_EXECUTION_PROVIDERS = {Provider.CUDA: "CUDAExecutionProvider", Provider.TENSORRT: "TensorrtExecutionProvider"}
# For a tensor whose data is not in what it is given, ONNX Runtime would look into the working directory. Nothing can be
# below a device.
_NO_FOLDER = ("session.model_external_initializers_file_folder_path", "/dev/null/nothing")
_FATAL_ONLY = 4  # what else it has to say comes with its exceptions, and is logged from there

# y = Identity(x) over one float: loaded on a device to see whether the device is there.
_TINY_MODEL = bytes.fromhex(
    "08083a390a120a017812017922084964656e746974793a001201675a0f0a0178120a0a08080112040a02080162"
    "0f0a0179120a0a08080112040a02080142040a001011"
)


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """Server-wide settings of ONNX Runtime; a model's own configuration goes before the thread counts."""

    placement: Placement
    intra_op_threads: int = 0  # 0: as many as physical cores
    inter_op_threads: int = 0


class OnnxBackend:
    """Creates sessions where the server's placement and the model's instance group say.

    Args:
        preflight: loads and runs each model in a child process first, unless that is for a GPU: a child would take
            the memory of a device that others run on.
        alone: no event loop runs in this process, and it may write no files: models are passed as bytes.
    """

    def __init__(self, options: OnnxOptions, preflight: Preflight | None = None, alone: bool = False) -> None:
        self._options = options
        self._alone = alone
        self._preflight = preflight
        self._placement = options.placement

    def start(self) -> None:
        """Settle where models run; blocks.

        Raises:
            LoadError: a GPU was asked for and is not there. Only `auto` falls back to the CPU.
        """
        ort.set_default_logger_severity(_FATAL_ONLY)
        placement = self._options.placement
        if placement.provider is Provider.AUTO:
            gpu = Placement(Provider.CUDA, placement.devices)
            self._placement = Placement(Provider.CPU) if _missing(gpu) else gpu
        elif why := _missing(placement):
            raise LoadError(why)

    @property
    def on_gpu(self) -> bool:
        """Once it has started: whether models run on a GPU unless their configuration says otherwise."""
        return self._placement.provider in _EXECUTION_PROVIDERS

    def load(self, artefact: Artefact, execution: Execution) -> Loaded:
        """Create the sessions of an artefact and read its signature; blocks.

        On the CPU one session serves all instances, because its runs are thread-safe; on a GPU each instance and
        device has a session of its own.

        Raises:
            LoadError: the file is no model that ONNX Runtime runs here, or has an input or output that is no tensor.
        """
        give_large_buffers_back()
        sessions: list[OnnxSession] = []
        names = []
        placement = self._place(execution)
        provider = placement.provider
        memory_bytes = None
        with artefact.open() as files:
            if provider is Provider.CPU and self._preflight is not None:
                threads = self._options.intra_op_threads, self._options.inter_op_threads
                memory_bytes = self._preflight.check(artefact.revision.digest, files, execution, threads)
            contents = Contents.read(files)
            for device in placement.devices:
                # On the CPU one session serves all instances, because its runs are thread-safe.
                count = 1 if provider is Provider.CPU else execution.instances
                own = [self._open(contents, files.libraries, execution, provider, device) for _ in range(count)]
                sessions += own * (execution.instances // count)
                names.append("cpu" if provider is Provider.CPU else f"{provider.value}:{device}")
        warnings = not_honoured(execution, provider)
        return Loaded(sessions[0].declared, tuple(sessions), tuple(names), warnings, memory_bytes)

    def _place(self, execution: Execution) -> Placement:
        if execution.device is Device.CPU:
            return Placement(Provider.CPU)
        if (execution.device is Device.GPU or execution.gpus) and self._placement.provider is Provider.CPU:
            raise LoadError("its instance_group asks for a GPU, but this server runs on the CPU: see --provider")
        provider = self._placement.provider
        if provider is Provider.CUDA and execution.tensorrt is not None:
            provider = Provider.TENSORRT
        return Placement(provider, execution.gpus or self._placement.devices)

    def _open(
        self, contents: Contents, libraries: Mapping[str, int], execution: Execution, provider: Provider, device: int
    ) -> OnnxSession:
        options = session_options(execution, provider, self._options.intra_op_threads, self._options.inter_op_threads)
        register_libraries(options, libraries)
        providers = provider_chain(execution, provider, device)
        try:
            options.add_session_config_entry(*_NO_FOLDER)
            options.add_external_initializers_from_files_in_memory(
                list(contents.files), list(contents.files.values()), [len(data) for data in contents.files.values()]
            )
            # By a path, ONNX Runtime knows its own format by the name alone.
            as_bytes = self._alone or is_ort_format(contents.model)
            with nullcontext(bytes(contents.model)) if as_bytes else sealed_file(contents.model) as model:
                session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except OSError as error:
            raise LoadError(f"it cannot be put into memory for ONNX Runtime: {error.strerror}") from error
        except Exception as error:
            if "onnxruntime" not in type(error).__module__:
                raise LoadError("ONNX Runtime does not take its settings") from error  # the text shows addresses
            raise LoadError(f"ONNX Runtime cannot load it: {reason(error)}") from error
        session.disable_fallback()
        session._model_bytes = None  # kept for making the session anew, which nothing does: the model's size in memory
        if session.get_providers()[0] != providers[0][0]:
            raise LoadError(f"it was to run on {providers[0][0]}, but ONNX Runtime did not take it there")
        declared = Signature(
            (*(_spec(node, "input") for node in session.get_inputs()), *_with_defaults(session)),
            tuple(_spec(node, "output") for node in session.get_outputs()),
        )
        _refuse_unservable(declared)
        return OnnxSession(session, declared, run_options(execution, provider, device))


def _missing(placement: Placement) -> str:
    """Why this placement cannot be had here, or ""."""
    name = _EXECUTION_PROVIDERS.get(placement.provider)
    if name is None:
        return ""
    asked = placement.provider.value
    if name not in ort.get_available_providers():
        return f"provider '{asked}' was asked for, but the installed onnxruntime lacks it: install turnout[server-gpu]"
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls(directory="")  # CUDA's libraries from their wheels, where they are
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    for device in placement.devices:
        try:
            session = ort.InferenceSession(
                _TINY_MODEL, options, providers=provider_chain(Execution(), placement.provider, device)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the device is not usable
            return f"provider '{asked}:{device}' was asked for and cannot start: {reason(error)}"
        if session.get_providers()[0] != name:
            return f"provider '{asked}:{device}' was asked for, but the device or its libraries are missing"
    return ""


def _refuse_unservable(declared: Signature) -> None:
    """What ONNX Runtime loads, and no request could be answered with."""
    names = [spec.name for spec in declared.outputs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise LoadError(f"output '{min(twice)}' is there twice: give each its own name")
    datatypes = {spec.datatype for spec in (*declared.inputs, *declared.outputs)}
    if {DataType.BF16, DataType.BYTES} <= datatypes:
        raise LoadError("it has BF16 and string tensors: ONNX Runtime's Python interface cannot pass both in one run")


def _spec(node: ort.NodeArg, kind: str) -> TensorSpec:
    try:
        datatype = _DATATYPES[node.type]
    except KeyError:
        raise LoadError(f"{kind} '{node.name}' is a {node.type}, Turnout serves tensors of plain datatypes") from None
    return TensorSpec(node.name, datatype, tuple(dim if isinstance(dim, int) else ANY for dim in node.shape))


def _with_defaults(session: ort.InferenceSession) -> Iterator[TensorSpec]:
    """Inputs that the model has a default for. Some exporters list every weight so: one that no client could send is
    left out, and stops nothing."""
    for node in session.get_overridable_initializers():
        if node.type in _DATATYPES:
            yield replace(_spec(node, "input"), optional=True)
