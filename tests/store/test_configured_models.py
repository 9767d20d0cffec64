"""Whole models, from their folder to a warm session on ONNX Runtime: what a config.pbtxt asks for happens."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from support import onnx_models
from turnout.backends.onnx import OnnxBackend, OnnxOptions
from turnout.core.errors import LoadError
from turnout.core.model import ModelSpec, Placement
from turnout.core.tensors import InferenceRequest, check
from turnout.runtime.ports import Loaded
from turnout.runtime.warmup import warm
from turnout.store import ModelLimits, Repository
from turnout.store.model_config import ModelConfiguration

SCALED = "g (float[n] x, float[1] k = {2.0}) => (float[n] y) { y = Mul(x, k) }"
SCALED_CONFIG = """
    input { name: "x" data_type: TYPE_FP32 dims: -1 }
    input { name: "k" data_type: TYPE_FP32 dims: 1 optional: true }
    output { name: "y" data_type: TYPE_FP32 dims: -1 label_filename: "labels.txt" }
"""


def opened(
    root: Path, text: str, config: str, limits: ModelLimits | None = None, **files: bytes
) -> tuple[ModelSpec, Loaded]:
    """The model `m`, with files of its folder."""
    onnx_models.write(root, "m", text, config)
    for name, content in files.items():
        path = root / "m" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    (source,) = Repository(root, limits or ModelLimits()).models()
    assert not source.problem, source.problem
    (artefact,) = source.artefacts
    assert not artefact.problem, artefact.problem
    loaded = OnnxBackend(OnnxOptions(Placement.parse("cpu"), 1, 1)).load(artefact, source.execution)
    spec = source.complete(1, loaded.declared)
    warm(spec.signature, loaded, lambda: 0, spec.warmup)
    return spec, loaded


def test_optional_inputs_and_labels(tmp_path: Path) -> None:
    spec, loaded = opened(tmp_path, SCALED, SCALED_CONFIG, **{"labels.txt": b"one\r\ntwo\n"})
    x, k = np.array([1, 2], np.float32), np.array([5], np.float32)
    for inputs, expected in (({"x": x}, [2, 4]), ({"x": x, "k": k}, [5, 10])):
        check(InferenceRequest("m", inputs), spec.signature)
        assert loaded.sessions[0].run(inputs, ["y"])[0].tolist() == expected
    assert spec.labels == {"y": ("one", "two")}
    with pytest.raises(LoadError, match=r"label_filename 'labels\.txt' of output 'y': there is no file 'labels\.txt'"):
        opened(tmp_path / "2", SCALED, SCALED_CONFIG)


LOOKUP_CONFIG = """
    max_batch_size: 8
    model_warmup {
      name: "index" batch_size: 5
      inputs { key: "index" value { data_type: TYPE_INT64 dims: 1 input_data_file: "index.bin" } }
    }
"""


def test_samples_from_files(tmp_path: Path) -> None:
    """The model refuses indices above 3."""
    opened(tmp_path, onnx_models.LOOKUP, LOOKUP_CONFIG, **{"warmup/index.bin": b"\x03" + bytes(7)})
    with pytest.raises(LoadError, match="the model fails to run on its model_warmup 'index'"):
        opened(tmp_path / "2", onnx_models.LOOKUP, LOOKUP_CONFIG, **{"warmup/index.bin": b"\x04" + bytes(7)})
    with pytest.raises(LoadError, match=r"'index': input 'index': input_data_file 'index\.bin': there is no file"):
        opened(tmp_path / "3", onnx_models.LOOKUP, LOOKUP_CONFIG)
    with pytest.raises(LoadError, match=r"warmup/index\.bin is larger than 8 bytes"):
        opened(tmp_path / "4", onnx_models.LOOKUP, LOOKUP_CONFIG, **{"warmup/index.bin": bytes(16)})


def test_every_option_of_a_session_at_once(tmp_path: Path) -> None:
    given = {
        "execution_mode": "1",
        "intra_op_thread_count": "2",
        "inter_op_thread_count": "2",
        "enable_mem_arena": "1",
        "enable_mem_pattern": "0",
        "session.disable_prepacking": "1",
        "session.set_denormal_as_zero": "1",
        "disabled_optimizers": "ConstantFolding,MatMulAddFusion",
        "memory.enable_memory_arena_shrinkage": "cpu:0",
    }
    config = "\n".join(f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}' for k, v in given.items())
    spec, loaded = opened(tmp_path, onnx_models.SCALE.format(factor=3), config)
    options = loaded.sessions[0]._session.get_session_options()  # type: ignore[attr-defined]
    assert (options.execution_mode.name, options.intra_op_num_threads, options.inter_op_num_threads) == (
        "ORT_PARALLEL",
        2,
        2,
    )
    assert (options.enable_cpu_mem_arena, options.enable_mem_pattern) == (True, False)
    assert options.get_session_config_entry("session.set_denormal_as_zero") == "1"
    assert (spec.warnings, loaded.warnings) == ((), ())
    assert loaded.sessions[0].run({"x": np.ones((2, 3), np.float32)}, ["y"])[0].tolist() == [[3] * 3] * 2


LIBRARY_CONFIG = 'model_operations { op_library_filename: "ops.so" }'


def test_libraries_of_operators_are_refused_unless_allowed(tmp_path: Path) -> None:
    onnx_models.write(tmp_path, "m", SCALED, LIBRARY_CONFIG)
    (source,) = Repository(tmp_path).models()
    assert "op_library_filename: libraries are native code" in source.problem
    allowed = ModelLimits(op_libraries=True)
    with pytest.raises(LoadError, match=r"op_library_filename 'ops\.so' is no library of custom operators"):
        opened(tmp_path / "2", SCALED, LIBRARY_CONFIG, allowed, **{"ops.so": b"no library"})


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_library_of_operators_is_loaded_where_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "ops.c").write_text("void *RegisterCustomOps(void *options, void *api) { return 0; }")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "ops.so", tmp_path / "ops.c"], check=True)
    library = (tmp_path / "ops.so").read_bytes()
    spec, _ = opened(tmp_path / "m", SCALED, LIBRARY_CONFIG, ModelLimits(op_libraries=True), **{"ops.so": library})
    assert spec.warnings == ()


@pytest.mark.parametrize("server", [True, False])
@pytest.mark.parametrize(("config", "model"), [("", None), ("true", True), ("0", False)])
def test_whether_answers_that_are_not_finite_are_errors(
    tmp_path: Path, server: bool, config: str, model: bool | None
) -> None:
    text = f'parameters {{ key: "refuse_nonfinite" value {{ string_value: "{config}" }} }}' if config else ""
    spec, _ = opened(tmp_path, onnx_models.NO_BATCH, text, ModelLimits(refuse_nonfinite=server))
    assert spec.refuse_nonfinite is (server if model is None else model)
    assert spec.warnings == ()


def test_a_refuse_nonfinite_that_is_neither_is_refused() -> None:
    with pytest.raises(LoadError, match=r"parameter refuse_nonfinite is 'maybe', it must be 0 or 1"):
        ModelConfiguration.parse("m", 'parameters { key: "refuse_nonfinite" value { string_value: "maybe" } }')
