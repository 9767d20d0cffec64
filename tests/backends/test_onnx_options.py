"""What a configuration asks of ONNX Runtime reaches it: in the options of real sessions, and where possible in what
they do."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

from support.artefacts import artefact_of
from turnout.backends.onnx import OnnxBackend, OnnxOptions
from turnout.backends.onnx.options import provider_chain, register_libraries, run_options, session_options
from turnout.core.errors import LoadError
from turnout.core.model import Artefact, Execution, OpenArtefact, Placement, Provider
from turnout.runtime.ports import Loaded
from turnout_wire.tensors import DataType

CPU = OnnxOptions(Placement.parse("cpu"), intra_op_threads=3, inter_op_threads=4)
SHRINKAGE = "memory.enable_memory_arena_shrinkage"
FOLDED = """
g (float[n] x) => (float[n] y) <float[1] a = {2.0}, float[1] b = {3.0}> { c = Mul(a, b) y = Mul(x, c) }
"""
X = np.ones(3, np.float32)


def parsed(text: str, ir_version: int = 8) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : 17]>\n{text}')


def load(folder: Path, execution: Execution, model: onnx.ModelProto | None = None) -> Loaded:
    (folder / "model.onnx").write_bytes((model or parsed(FOLDED)).SerializeToString())
    return OnnxBackend(CPU).load(artefact_of(folder / "model.onnx"), execution)


def options_of(loaded: Loaded) -> ort.SessionOptions:
    return loaded.sessions[0]._session.get_session_options()  # type: ignore[attr-defined]


LEVELS = ort.GraphOptimizationLevel
EFFECTS: list[tuple[Execution, str, Any]] = [
    (Execution(), "execution_mode", ort.ExecutionMode.ORT_SEQUENTIAL),
    (Execution(parallel=True), "execution_mode", ort.ExecutionMode.ORT_PARALLEL),
    (Execution(), "enable_cpu_mem_arena", True),
    (Execution(cpu_arena=False), "enable_cpu_mem_arena", False),
    (Execution(), "enable_mem_pattern", True),
    (Execution(memory_pattern=False), "enable_mem_pattern", False),
    (Execution(graph_level=0), "graph_optimization_level", LEVELS.ORT_ENABLE_ALL),
    (Execution(graph_level=1), "graph_optimization_level", LEVELS.ORT_ENABLE_EXTENDED),
    (Execution(graph_level=-1), "graph_optimization_level", LEVELS.ORT_ENABLE_BASIC),
    (Execution(graph_level=2), "graph_optimization_level", LEVELS.ORT_DISABLE_ALL),
    (Execution(), "intra_op_num_threads", 3),
    (Execution(intra_op_threads=1), "intra_op_num_threads", 1),
    (Execution(), "inter_op_num_threads", 4),
    (Execution(inter_op_threads=2), "inter_op_num_threads", 2),
]


@pytest.mark.parametrize(("execution", "option", "value"), EFFECTS)
def test_options_of_the_session(tmp_path: Path, execution: Execution, option: str, value: object) -> None:
    loaded = load(tmp_path, execution)
    assert getattr(options_of(loaded), option) == value
    assert loaded.sessions[0].run({"x": X}, ["y"])[0].tolist() == [6, 6, 6]


def test_session_entries_are_passed_on_and_go_before_turnout_s_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    entries = (("session.intra_op.allow_spinning", "1"), ("session.use_device_allocator_for_initializers", "1"))
    options = options_of(load(tmp_path, Execution(session_entries=entries)))
    assert options.get_session_config_entry("session.use_device_allocator_for_initializers") == "1"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert options.get_session_config_entry("session.inter_op.allow_spinning") == "0"
    assert capfd.readouterr().err == "", "an entry that is set twice makes ONNX Runtime write a warning"


def test_an_entry_that_onnx_runtime_refuses_fails_the_load_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its constructor would otherwise print, drop the providers' options and try again."""
    with pytest.raises(LoadError, match="ONNX Runtime does not take its settings"):
        load(tmp_path, Execution(session_entries=(("session.intra_op_thread_affinities", "zz"),)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("disabled", "nodes"), [((), ["Mul"]), (("ConstantFolding",), ["Mul", "Mul"])])
def test_disabled_optimizers(tmp_path: Path, disabled: tuple[str, ...], nodes: list[str]) -> None:
    options = session_options(Execution(disabled_optimizers=disabled), Provider.CPU, 1, 1)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(parsed(FOLDED).SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node] == nodes


# Each run


@pytest.mark.parametrize(
    ("devices", "provider", "device", "kept"),
    [
        ("cpu:0", Provider.CPU, 0, "cpu:0"),
        ("cpu:0;gpu:0", Provider.CPU, 0, "cpu:0"),
        ("gpu:0", Provider.CPU, 0, None),
        ("cpu:0;gpu:0;gpu:1", Provider.CUDA, 1, "cpu:0;gpu:1"),
        ("gpu:0", Provider.CUDA, 1, None),
    ],
)
def test_an_arena_shrinks_only_where_the_session_is(
    devices: str, provider: Provider, device: int, kept: str | None
) -> None:
    options = run_options(Execution(run_entries=((SHRINKAGE, devices),)), provider, device)
    assert (options and options.get_run_config_entry(SHRINKAGE)) == kept


@pytest.mark.parametrize("datatype", ["float", "bfloat16"])
def test_runs_take_their_options(tmp_path: Path, datatype: str) -> None:
    """ONNX Runtime refuses to shrink an arena that is not there: so it has seen the option. BF16 has its own way."""
    model = parsed(f"g ({datatype}[n] x) => ({datatype}[n] y) {{ y = Identity(x) }}")
    x = X.astype(DataType.BF16.dtype) if datatype == "bfloat16" else X
    execution = Execution(run_entries=((SHRINKAGE, "cpu:0"),))
    assert load(tmp_path, execution, model).sessions[0].run({"x": x}, ["y"])[0].tolist() == [1, 1, 1]
    without_arena = Execution(run_entries=execution.run_entries, cpu_arena=False)
    with pytest.raises(Exception, match="arena"):
        load(tmp_path, without_arena, model).sessions[0].run({"x": x}, ["y"])


# Providers

ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "OpenVINOExecutionProvider", "CPUExecutionProvider"]
TUNED = Execution(cuda=(("use_tf32", "0"),), tensorrt=(("trt_fp16_enable", "1"),), openvino=(("num_of_threads", "2"),))
TENSORRT_1 = ("TensorrtExecutionProvider", {"device_id": "1", "trt_fp16_enable": "1"})
CUDA_1 = ("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0"})
OPENVINO = ("OpenVINOExecutionProvider", {"device_type": "CPU", "num_of_threads": "2"})
ON_CPU = ("CPUExecutionProvider", dict[str, str]())


@pytest.mark.parametrize(
    ("execution", "provider", "chain"),
    [
        (Execution(), Provider.CPU, [ON_CPU]),
        (TUNED, Provider.CPU, [OPENVINO, ON_CPU]),
        (TUNED, Provider.CUDA, [CUDA_1, ON_CPU]),
        (TUNED, Provider.TENSORRT, [TENSORRT_1, CUDA_1, ON_CPU]),
        (Execution(), Provider.CUDA, [("CUDAExecutionProvider", {"device_id": "1"}), ON_CPU]),
    ],
)
def test_providers_and_their_options(
    monkeypatch: pytest.MonkeyPatch, execution: Execution, provider: Provider, chain: list[tuple[str, dict[str, str]]]
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ALL)
    assert provider_chain(execution, provider, 1) == chain


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        (Provider.CPU, "lacks OpenVINOExecutionProvider: install onnxruntime-openvino"),
        (Provider.CUDA, r"lacks CUDAExecutionProvider: install turnout\[server-gpu\]"),
        (Provider.TENSORRT, r"lacks TensorrtExecutionProvider: install turnout\[server-gpu\]"),
    ],
)
def test_a_provider_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, provider: Provider, words: str
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(LoadError, match=f"execution_accelerators: the installed onnxruntime {words}"):
        provider_chain(TUNED, provider, 0)


def test_openvino_is_asked_for_and_missing(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="lacks OpenVINOExecutionProvider"):
        load(tmp_path, Execution(openvino=()))


def test_a_model_may_ask_for_tensorrt_on_a_server_with_cuda() -> None:
    def placed(server: str, execution: Execution) -> Placement:
        return OnnxBackend(OnnxOptions(Placement.parse(server)))._place(execution)

    assert placed("cuda:0,1", Execution(tensorrt=())) == Placement(Provider.TENSORRT, (0, 1))
    assert placed("cuda:0,1", Execution(tensorrt=(), gpus=(3,))) == Placement(Provider.TENSORRT, (3,))
    assert placed("cuda:0,1", Execution(cuda=(("use_tf32", "0"),))) == Placement(Provider.CUDA, (0, 1))
    assert placed("cpu", Execution(tensorrt=())) == Placement(Provider.CPU)


def test_options_for_a_gpu_have_no_effect_on_the_cpu_and_that_is_said(tmp_path: Path) -> None:
    execution = Execution(
        cuda=(("use_tf32", "0"),), tensorrt=(), run_entries=((SHRINKAGE, "gpu:0"),), session_entries=()
    )
    loaded = load(tmp_path, execution)
    assert [warning.removeprefix("config.pbtxt: not honoured: ") for warning in loaded.warnings] == [
        "options of cuda, the model runs on the CPU",
        "options of tensorrt, the model runs on the CPU",
        f"parameters[{SHRINKAGE}] for GPUs, the model runs on the CPU",
    ]
    assert loaded.sessions[0].run({"x": X}, ["y"])[0].tolist() == [6, 6, 6]
    assert load(tmp_path, Execution()).warnings == ()


# Inputs with a default

SCALED = "g (float[n] x, float[1] k = {2.0}, int8[1] unused = {1}) => (float[n] y) { y = Mul(x, k) }"


def test_inputs_that_the_file_has_defaults_for_are_optional(tmp_path: Path) -> None:
    loaded = load(tmp_path, Execution(), parsed(SCALED))
    assert [(s.name, s.datatype, s.shape, s.optional) for s in loaded.declared.inputs] == [
        ("x", DataType.FP32, (-1,), False),
        ("k", DataType.FP32, (1,), True),
        ("unused", DataType.INT8, (1,), True),
    ]
    session = loaded.sessions[0]
    assert session.run({"x": X}, ["y"])[0].tolist() == [2, 2, 2]
    assert session.run({"x": X, "k": np.array([5], np.float32)}, ["y"])[0].tolist() == [5, 5, 5]
    assert session.run({"x": X}, ["y"])[0].tolist() == [2, 2, 2]


def test_in_old_files_every_initializer_is_a_graph_input_and_none_can_be_overridden(tmp_path: Path) -> None:
    loaded = load(tmp_path, Execution(), parsed(SCALED, ir_version=3))
    assert [spec.name for spec in loaded.declared.inputs] == ["x"]
    assert loaded.sessions[0].run({"x": X}, ["y"])[0].tolist() == [2, 2, 2]


def test_a_default_of_a_type_that_no_client_can_send_stops_nothing(tmp_path: Path) -> None:
    model = parsed("g (float[n] x, float8e4m3fn[1] k) => (float[n] y) { y = Neg(x) }", 10)
    model.graph.initializer.append(
        onnx.TensorProto(dims=[1], data_type=onnx.TensorProto.FLOAT8E4M3FN, name="k", raw_data=b"\0")
    )
    assert [spec.name for spec in load(tmp_path, Execution(), model).declared.inputs] == ["x"]


def test_a_default_in_bfloat16_takes_the_binding_only_when_it_is_sent(tmp_path: Path) -> None:
    model = parsed(
        "g (float[n] x, bfloat16[1] k) => (float[n] y) { f = Cast<to = 1>(k) y = Mul(x, f) }",
    )
    two = np.array([2], DataType.BF16.dtype)
    model.graph.initializer.append(
        onnx.TensorProto(dims=[1], data_type=onnx.TensorProto.BFLOAT16, name="k", raw_data=two.tobytes())
    )
    session = load(tmp_path, Execution(), model).sessions[0]
    assert session.run({"x": X}, ["y"])[0].tolist() == [2, 2, 2]
    assert session.run({"x": X, "k": two + two}, ["y"])[0].tolist() == [4, 4, 4]


# Libraries of custom operators


def compiled(folder: Path, name: str, source: str) -> Path:
    (folder / f"{name}.c").write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / name, folder / f"{name}.c"], check=True)
    return folder / name


def register(paths: Sequence[Path]) -> None:
    descriptors = {path.name: os.open(path, os.O_RDONLY) for path in paths}
    try:
        register_libraries(ort.SessionOptions(), descriptors)
    finally:
        for fd in descriptors.values():
            os.close(fd)


@pytest.mark.parametrize("content", [b"", b"not a library", b"\x7fELF" + bytes(200)])
def test_a_file_that_is_no_library_is_refused_without_its_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ops.so").write_bytes(content)
    with pytest.raises(LoadError, match=r"op_library_filename 'ops\.so' is no library of custom") as refused:
        register([tmp_path / "ops.so"])
    assert "/" not in str(refused.value)
    assert "/proc/self/fd" in str(refused.value.__cause__)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_libraries_are_loaded_from_their_descriptors(tmp_path: Path) -> None:
    """Two libraries under the same descriptor number are two libraries, although the dynamic loader goes by path."""
    good = compiled(tmp_path, "good.so", "void *RegisterCustomOps(void *options, void *api) { return 0; }")
    bad = compiled(tmp_path, "bad.so", "int nothing;")
    register([good])
    with pytest.raises(LoadError, match=r"'bad\.so'"):
        register([bad])
    register([good])
    with pytest.raises(LoadError, match=r"'bad\.so'"):
        register([good, bad])


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_model_is_loaded_with_its_libraries(tmp_path: Path) -> None:
    """The library says no: it was asked."""
    (tmp_path / "1").mkdir()
    model = tmp_path / "1" / "model.onnx"
    model.write_bytes(parsed(FOLDED).SerializeToString())
    bad = compiled(tmp_path, "bad.so", "int nothing;")
    plain = artefact_of(model)

    @contextmanager
    def opened() -> Iterator[OpenArtefact]:
        with plain.open() as files, bad.open("rb") as library:
            yield OpenArtefact(files.model, files.files, {"bad.so": library.fileno()})

    with pytest.raises(LoadError, match=r"op_library_filename 'bad\.so'"):
        OnnxBackend(CPU).load(Artefact(plain.revision, opened), Execution(op_libraries=("bad.so",)))
