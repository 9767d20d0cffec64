"""The random networks: valid, seeded, finite at any depth, written as a model repository."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo import networks


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(["y"], {"x": x})
    return np.asarray(y)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(0, 5), st.integers(0, 2**32))
def test_mlp_is_the_function_its_weights_say(sizes: list[int], rows: int, seed: int) -> None:
    proto = networks.mlp(sizes, seed)
    x = np.random.default_rng(seed).normal(size=(rows, sizes[0])).astype(np.float32)

    arrays = [onnx.numpy_helper.to_array(weights) for weights in proto.graph.initializer]
    expected = x
    for number, (weights, bias) in enumerate(zip(arrays[::2], arrays[1::2], strict=True)):
        expected = (np.maximum(expected, 0) if number else expected) @ weights + bias
    np.testing.assert_allclose(run(proto, x), expected, rtol=1e-3, atol=1e-4)


def test_signals_keep_their_size_through_many_layers() -> None:
    x = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)
    y = run(networks.mlp([256] * 30), x)
    assert np.isfinite(y).all()
    assert 0.05 < y.std() < 20


def test_mlp_is_seeded() -> None:
    one, same, other = (networks.mlp([8, 4], seed).SerializeToString() for seed in (1, 1, 2))
    assert one == same != other


def test_mlp_refuses_sizes_without_a_layer() -> None:
    with pytest.raises(ValueError, match=r"\[7\]"):
        networks.mlp([7])


def test_command_line_writes_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["zoo.networks", "mlp_small", "--out", str(tmp_path)])
    networks.main()
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"mlp_small/config.pbtxt", "mlp_small/1/model.onnx"}
    session = onnxruntime.InferenceSession(tmp_path / "mlp_small" / "1" / "model.onnx")
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [("x", "tensor(float)", ["batch", 784])]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [("y", "tensor(float)", ["batch", 10])]


def test_the_big_network_runs_finite() -> None:
    proto = networks.mlp(networks.NETWORKS["mlp_big"])
    y = run(proto, np.random.default_rng(0).random((4, 784), dtype=np.float32))
    assert y.shape == (4, 10) and np.isfinite(y).all() and y.std() > 0


def test_the_image_network_uses_every_element_of_its_input() -> None:
    proto = networks.image()
    weights, bias = (onnx.numpy_helper.to_array(array) for array in proto.graph.initializer)
    x = np.random.default_rng(0).random((2, *networks.IMAGE_SHAPE), dtype=np.float32)
    assert x[0].nbytes == 602_112
    np.testing.assert_allclose(run(proto, x), x.mean((2, 3)) @ weights + bias, rtol=1e-4, atol=1e-5)
    assert run(proto, x).shape == (2, networks.IMAGE_OUTPUTS)
