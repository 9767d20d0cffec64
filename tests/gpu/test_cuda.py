"""Models on an NVIDIA GPU: `make test-gpu`, with turnout[server-gpu] installed. Nothing else collects this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from support.artefacts import artefact_of
from turnout.backends.onnx import OnnxBackend, OnnxOptions, Preflight, PreflightLimits
from turnout.core.errors import LoadError
from turnout.core.model import Device, Execution, Placement

DIGITS = Path(__file__).parents[2] / "models" / "repository" / "digits" / "2"


def open_digits(provider: str, execution: Execution | None = None):  # type: ignore[no-untyped-def]
    backend = OnnxBackend(OnnxOptions(Placement.parse(provider)))
    backend.start()
    return backend.load(artefact_of(DIGITS / "model.onnx"), execution or Execution())


def test_cuda_gives_the_golden_answers() -> None:
    golden = np.load(DIGITS / "golden.npz")
    loaded = open_digits("cuda:0")
    assert loaded.providers == ("cuda:0",)
    label, probabilities = loaded.sessions[0].run({"image": golden["input.image"]}, ["label", "probabilities"])
    np.testing.assert_array_equal(label, golden["output.label"])
    np.testing.assert_allclose(probabilities, golden["output.probabilities"], rtol=1e-2, atol=1e-3)  # TF32 products


def test_each_instance_has_its_own_session() -> None:
    sessions = open_digits("cuda:0", Execution(instances=2)).sessions
    assert len(sessions) == 2
    assert sessions[0] is not sessions[1]


def test_auto_takes_the_gpu_and_an_instance_group_may_keep_a_model_on_the_cpu() -> None:
    assert open_digits("auto").providers == ("cuda:0",)
    assert open_digits("auto", Execution(device=Device.CPU)).providers == ("cpu",)


def test_a_model_for_the_gpu_is_not_tried_in_a_child_process() -> None:
    """It would take the memory of a device that others run on. One that is kept on the CPU is tried."""
    backend = OnnxBackend(OnnxOptions(Placement.parse("cuda:0")), Preflight(PreflightLimits(), ["/nothing/here"]))
    backend.start()
    artefact = artefact_of(DIGITS / "model.onnx")
    assert backend.load(artefact, Execution()).memory_bytes is None
    with pytest.raises(LoadError, match="no child process"):
        backend.load(artefact, Execution(device=Device.CPU))


def test_weights_beside_the_model_reach_the_gpu(tmp_path: Path) -> None:
    onnx.save(onnx.load(DIGITS / "model.onnx"), tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0)
    backend = OnnxBackend(OnnxOptions(Placement.parse("cuda:0")))
    backend.start()
    golden = np.load(DIGITS / "golden.npz")
    loaded = backend.load(artefact_of(tmp_path / "model.onnx"), Execution())
    (label,) = loaded.sessions[0].run({"image": golden["input.image"]}, ["label"])
    np.testing.assert_array_equal(label, golden["output.label"])


def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(LoadError, match="provider 'cuda:63'"):
        open_digits("cuda:63")
