"""Models on an NVIDIA GPU: `make test-gpu`, with turnout[server-gpu] installed. Nothing else collects this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from turnout.backends.onnx import OnnxBackend, OnnxOptions
from turnout.core.errors import LoadError
from turnout.core.ids import Revision
from turnout.core.model import Artefact, Device, Execution, Placement

DIGITS = Path(__file__).parents[2] / "models" / "repository" / "digits" / "2"


def open_digits(provider: str, execution: Execution | None = None):  # type: ignore[no-untyped-def]
    backend = OnnxBackend(OnnxOptions(Placement.parse(provider)))
    backend.start()
    return backend.load(Artefact(Revision("digits", 2, "", "d"), str(DIGITS / "model.onnx")), execution or Execution())


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


def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(LoadError, match="provider 'cuda:63'"):
        open_digits("cuda:63")
