"""Loads ONNX files into ONNX Runtime sessions: session options, providers chosen explicitly, the signature read."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import onnxruntime as ort

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
_GRAPH_LEVELS = {
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_EXECUTION_PROVIDERS = {Provider.CUDA: "CUDAExecutionProvider", Provider.TENSORRT: "TensorrtExecutionProvider"}
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
    """Creates sessions where the server's placement and the model's instance group say."""

    def __init__(self, options: OnnxOptions) -> None:
        self._options = options
        self._placement = options.placement

    def start(self) -> None:
        """Settle where models run; blocks.

        Raises:
            LoadError: a GPU was asked for and is not there. Only `auto` falls back to the CPU.
        """
        placement = self._options.placement
        if placement.provider is Provider.AUTO:
            gpu = Placement(Provider.CUDA, placement.devices)
            self._placement = Placement(Provider.CPU) if _missing(gpu) else gpu
        elif why := _missing(placement):
            raise LoadError(why)

    def load(self, artefact: Artefact, execution: Execution) -> Loaded:
        """Create the sessions of an artefact and read its signature; blocks.

        On the CPU one session serves all instances, because its runs are thread-safe; on a GPU each instance and
        device has a session of its own.

        Raises:
            LoadError: the file is no model that ONNX Runtime runs here, or has an input or output that is no tensor.
        """
        sessions: list[OnnxSession] = []
        names = []
        placement = self._place(execution)
        for device in placement.devices:
            on_cpu = placement.provider is Provider.CPU
            names.append("cpu" if on_cpu else f"{placement.provider.value}:{device}")
            own = [
                self._open(artefact, execution, placement.provider, device)
                for _ in range(1 if on_cpu else execution.instances)
            ]
            sessions += own * execution.instances if on_cpu else own
        return Loaded(sessions[0].declared, tuple(sessions), tuple(names))

    def _place(self, execution: Execution) -> Placement:
        if execution.device is Device.CPU:
            return Placement(Provider.CPU)
        if (execution.device is Device.GPU or execution.gpus) and self._placement.provider is Provider.CPU:
            raise LoadError("its instance_group asks for a GPU, but this server runs on the CPU: see --provider")
        return Placement(self._placement.provider, execution.gpus) if execution.gpus else self._placement

    def _open(self, artefact: Artefact, execution: Execution, provider: Provider, device: int) -> OnnxSession:
        try:
            session = ort.InferenceSession(
                artefact.path, self._session_options(execution, provider), providers=_provider_list(provider, device)
            )
        except Exception as error:
            if "onnxruntime" not in type(error).__module__:
                raise LoadError("ONNX Runtime does not take its settings") from error  # the text shows addresses
            raise LoadError(f"ONNX Runtime cannot load it: {without_paths(str(error), artefact.path)}") from error
        session.disable_fallback()
        if provider in _EXECUTION_PROVIDERS and session.get_providers()[0] != _EXECUTION_PROVIDERS[provider]:
            raise LoadError(f"it was to run on {provider.value}:{device}, but ONNX Runtime did not take it there")
        declared = Signature(
            tuple(_spec(node, "input") for node in session.get_inputs()),
            tuple(_spec(node, "output") for node in session.get_outputs()),
        )
        return OnnxSession(session, declared)

    def _session_options(self, execution: Execution, provider: Provider) -> ort.SessionOptions:
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        options.graph_optimization_level = _GRAPH_LEVELS[execution.graph_level]
        # Idle workers that spin take the core that the event loop needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        intra, inter = execution.intra_op_threads, execution.inter_op_threads
        on_cpu = provider is Provider.CPU
        options.intra_op_num_threads = (self._options.intra_op_threads if intra is None else intra) if on_cpu else 1
        options.inter_op_num_threads = self._options.inter_op_threads if inter is None else inter
        return options


def without_paths(text: str, path: str | None = None) -> str:
    """An error text of ONNX Runtime without host paths, shortened: clients read it in RepositoryIndex."""
    # Literally first, whatever characters the path has, and as ONNX Runtime may have resolved it.
    for known in (os.path.realpath(path), path) if path else ():
        text = text.replace(known, "<path>").replace(os.path.dirname(known) or known, "<path>")
    return re.sub(r"(?<!\w)/[^\s:'\",)]*", "<path>", " ".join(text.split()))[:400]


def _provider_list(provider: Provider, device: int) -> list[str | tuple[str, dict[str, str]]]:
    chain: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]  # for what the GPU has no kernel for
    if provider in (Provider.CUDA, Provider.TENSORRT):
        chain.insert(0, ("CUDAExecutionProvider", {"device_id": str(device)}))
    if provider is Provider.TENSORRT:
        chain.insert(0, ("TensorrtExecutionProvider", {"device_id": str(device)}))
    return chain


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
            session = ort.InferenceSession(_TINY_MODEL, options, providers=_provider_list(placement.provider, device))
        except Exception as error:  # noqa: BLE001 - whatever it is, the device is not usable
            return f"provider '{asked}:{device}' was asked for and cannot start: {without_paths(str(error))}"
        if session.get_providers()[0] != name:
            return f"provider '{asked}:{device}' was asked for, but the device or its libraries are missing"
    return ""


def _spec(node: ort.NodeArg, kind: str) -> TensorSpec:
    try:
        datatype = _DATATYPES[node.type]
    except KeyError:
        raise LoadError(f"{kind} '{node.name}' is a {node.type}, Turnout serves tensors of plain datatypes") from None
    return TensorSpec(node.name, datatype, tuple(dim if isinstance(dim, int) else ANY for dim in node.shape))
