"""One contract for whatever runs models: the synthetic backend and ONNX Runtime keep the same promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Thread

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from support.artefacts import artefact_of, synthetic_artefact
from turnout.backends.onnx import OnnxBackend, OnnxOptions
from turnout.backends.onnx.session import OnnxSession
from turnout.backends.synthetic import SyntheticBackend, SyntheticModel
from turnout.core.errors import LoadError
from turnout.core.model import Artefact, Device, Execution, Placement
from turnout.core.tensors import ANY, Signature, TensorSpec
from turnout.runtime.ports import Loaded
from turnout_wire.tensors import Array, DataType

CPU = OnnxOptions(Placement.parse("cpu"))
COPIED = (DataType.BOOL, DataType.BYTES, DataType.BF16)  # for these, ONNX or its CPU kernels have no Add
Load = Callable[[DataType, Execution], Loaded]


def onnx_model(datatype: DataType) -> onnx.ModelProto:
    """y = x + x, or a copy."""
    kind = TensorProto.STRING if datatype is DataType.BYTES else helper.np_dtype_to_tensor_dtype(datatype.dtype)
    copies = datatype in COPIED
    node = helper.make_node("Identity" if copies else "Add", ["x"] if copies else ["x", "x"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", kind, ["batch", 3])],
        [helper.make_tensor_value_info("y", kind, ["batch", 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(params=["synthetic", "onnx"])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Load:
    def load_synthetic(datatype: DataType, execution: Execution) -> Loaded:
        declared = Signature((TensorSpec("x", datatype, (ANY, 3)),), (TensorSpec("y", datatype, (ANY, 3)),))
        return SyntheticBackend({"m": SyntheticModel(declared)}).load(synthetic_artefact("m"), execution)

    def load_onnx(datatype: DataType, execution: Execution) -> Loaded:
        path = tmp_path / "model.onnx"
        onnx.save(onnx_model(datatype), path)
        backend = OnnxBackend(CPU)
        backend.start()
        return backend.load(artefact_of(path), execution)

    return load_synthetic if request.param == "synthetic" else load_onnx


def values(datatype: DataType, rows: int, start: int = 0) -> Array:
    numbers = np.arange(start, start + rows * 3).reshape(rows, 3) % 50
    if datatype is DataType.BYTES:
        strings = np.empty((rows, 3), object)
        strings.flat = [f"ü{number}\0" for number in numbers.flat]
        return strings
    return (numbers % 2).astype(bool) if datatype is DataType.BOOL else numbers.astype(datatype.dtype)


def expected(datatype: DataType, x: Array) -> Array:
    return x if datatype in COPIED else x + x


@pytest.mark.parametrize("datatype", list(DataType))
def test_runs_every_datatype_at_any_batch_size(load: Load, datatype: DataType) -> None:
    loaded = load(datatype, Execution())
    assert [spec.datatype for spec in loaded.declared.inputs] == [datatype]
    assert loaded.declared.inputs[0].shape == (ANY, 3)
    assert loaded.declared.rows_max == 0
    for rows in (1, 4, 2):
        x = values(datatype, rows)
        x.setflags(write=False)
        (y,) = loaded.sessions[0].run({"x": x}, ["y"])
        assert y.dtype == datatype.dtype
        np.testing.assert_array_equal(y, expected(datatype, x))


@pytest.mark.parametrize("datatype", [DataType.FP32, DataType.INT64, DataType.BYTES, DataType.BF16])
def test_outputs_are_never_written_again_and_inputs_may_be(load: Load, datatype: DataType) -> None:
    """Invariant 13, from the session's side: a batch buffer is used again while its answers are still held."""
    session = load(datatype, Execution()).sessions[0]
    buffer = values(datatype, 4)
    (held,) = session.run({"x": buffer}, ["y"])
    before = held.copy()
    for start in range(1, 20):
        buffer[:] = values(datatype, 4, start)
        session.run({"x": buffer}, ["y"])
    np.testing.assert_array_equal(held, before)


def test_a_session_that_reuses_its_outputs_would_be_seen() -> None:
    model = SyntheticModel(
        Signature((TensorSpec("x", DataType.FP32, (ANY, 3)),), (TensorSpec("y", DataType.FP32, (ANY, 3)),)),
        reuse_outputs=True,
    )
    (held,) = model.run({"x": values(DataType.FP32, 4)}, ["y"])
    before = held.copy()
    model.run({"x": values(DataType.FP32, 4, 5)}, ["y"])
    assert not np.array_equal(held, before)


def test_one_session_per_executor(load: Load) -> None:
    assert len(load(DataType.FP32, Execution(instances=3)).sessions) == 3


def test_executors_may_run_at_the_same_time(load: Load) -> None:
    sessions = load(DataType.FP32, Execution(instances=4)).sessions
    wrong: list[int] = []

    def run(index: int) -> None:
        for turn in range(200):
            x = np.full((3, 3), index * 1000 + turn, np.float32)
            (y,) = sessions[index].run({"x": x}, ["y"])
            if not (y == x + x).all():
                wrong.append(turn)

    threads = [Thread(target=run, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_a_failed_run_raises_and_the_next_one_works(load: Load) -> None:
    session = load(DataType.FP32, Execution()).sessions[0]
    with pytest.raises(Exception):  # noqa: B017 - any exception is a failed run
        session.run({}, ["y"])
    (y,) = session.run({"x": np.ones((1, 3), np.float32)}, ["y"])
    assert (y == 2).all()


# What only ONNX Runtime has to promise.


def save(tmp_path: Path, model: onnx.ModelProto | bytes) -> Artefact:
    path = tmp_path / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return artefact_of(path)


@pytest.mark.parametrize("folder", ["plain", "with a blank", "quo'te", "b(racket"])
@pytest.mark.parametrize("relative", [False, True])
def test_a_file_that_is_no_model_is_refused_without_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, relative: bool
) -> None:
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    saved = save(Path(folder) if relative else tmp_path / folder, b"not a model")
    with pytest.raises(LoadError, match="ONNX Runtime cannot load it") as caught:
        OnnxBackend(CPU).load(saved, Execution())
    for piece in (tmp_path.name, folder, "model.onnx", "/"):
        assert piece not in str(caught.value)


def test_an_operator_that_nobody_has_is_named(tmp_path: Path) -> None:
    model = onnx_model(DataType.FP32)
    model.graph.node[0].op_type = "Frobnicate"
    with pytest.raises(LoadError, match="Frobnicate"):
        OnnxBackend(CPU).load(save(tmp_path, model), Execution())


def test_an_input_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node("SequenceLength", ["x"], ["y"])],
        "g",
        [sequence],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(LoadError, match="input 'x' is a seq"):
        OnnxBackend(CPU).load(save(tmp_path, model), Execution())


def test_idle_workers_do_not_spin(tmp_path: Path) -> None:
    loaded = OnnxBackend(CPU).load(save(tmp_path, onnx_model(DataType.FP32)), Execution())
    options = loaded.sessions[0]._session.get_session_options()  # type: ignore[attr-defined]
    for pool in ("intra_op", "inter_op"):
        assert options.get_session_config_entry(f"session.{pool}.allow_spinning") == "0"


@pytest.mark.parametrize("provider", ["cuda", "cuda:1", "tensorrt"])
def test_a_gpu_that_was_asked_for_and_is_missing_is_an_error(provider: str) -> None:
    with pytest.raises(LoadError, match=f"provider '{provider[:4]}.* was asked for"):
        OnnxBackend(OnnxOptions(Placement.parse(provider))).start()


def test_auto_falls_back_to_the_cpu_and_a_gpu_instance_group_then_says_so(tmp_path: Path) -> None:
    backend = OnnxBackend(OnnxOptions(Placement.parse("auto")))
    backend.start()
    saved = save(tmp_path, onnx_model(DataType.FP32))
    assert backend.load(saved, Execution()).providers == ("cpu",)
    assert backend.load(saved, Execution(device=Device.CPU)).providers == ("cpu",)
    with pytest.raises(LoadError, match="asks for a GPU"):
        backend.load(saved, Execution(device=Device.GPU))
    with pytest.raises(LoadError, match="asks for a GPU"):
        backend.load(saved, Execution(gpus=(0, 1)))


def test_the_model_s_bytes_are_not_kept_for_life(tmp_path: Path) -> None:
    """They are as large as its weights. The size of a file that nothing else here has finds them."""
    model = onnx_model(DataType.FP32)
    model.doc_string = "x" * 1_000_003
    onnx.save(model, tmp_path / "model.onnx")
    size = (tmp_path / "model.onnx").stat().st_size
    loaded = OnnxBackend(CPU).load(artefact_of(tmp_path / "model.onnx"), Execution())
    held = [vars(session._session).values() for session in loaded.sessions if isinstance(session, OnnxSession)]
    assert held
    assert not [value for values in held for value in values if isinstance(value, bytes) and len(value) == size]
