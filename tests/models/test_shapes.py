"""ResNet-50 and BERT base: the published number of weights at full size, the right arithmetic at a small one."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import pytest

from zoo import bert, networks
from zoo.bert import Bert
from zoo.resnet import EXPANSION, Resnet, convolutions, resnet

TINY_RESNET = Resnet(blocks=(2, 1), width=4, side=32, classes=5)
TINY_BERT = Bert(layers=2, hidden=8, heads=2, inner=12, vocabulary=30, positions=16)


def answer(proto: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def test_resnet50_has_the_published_layers_and_weights() -> None:
    layers = list(convolutions(Resnet()))
    assert len(layers) == 53
    filters = sum(math.prod(layer.shape) for layer in layers)
    channels = sum(layer.shape[0] for layer in layers)
    head = 2048 * 1000 + 1000
    # 25,557,032 in the usual implementation, with two for each channel where a folded one has a bias.
    assert filters + 2 * channels + head == 25_557_032


def test_bert_base_has_the_published_number_of_weights() -> None:
    assert sum(math.prod(shape) for _, shape in bert.shapes(Bert())) == 109_482_240


def test_resnet_halves_its_images_and_mixes_no_rows() -> None:
    proto = onnx.shape_inference.infer_shapes(resnet(TINY_RESNET))
    shapes = {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim[1:]] for info in proto.graph.value_info
    }
    assert shapes["stem"] == [4, 16, 16] and shapes["pooled"] == [4, 8, 8]
    assert shapes["stage1_block2_added"] == [4 * EXPANSION, 8, 8]
    assert shapes["stage2_block1_added"] == [8 * EXPANSION, 4, 4]
    x = np.random.default_rng(0).standard_normal((3, 3, 32, 32), np.float32)
    together = answer(proto, {"x": x})
    assert together.shape == (3, 5) and np.isfinite(together).all() and together.std() > 0
    np.testing.assert_allclose(together[1:2], answer(proto, {"x": x[1:2]}), rtol=1e-4, atol=1e-5)


def test_resnet_adds_what_a_block_was_given_to_what_it_answers() -> None:
    proto = resnet(Resnet(blocks=(1,), width=2, side=8, classes=3))
    weights = {array.name: onnx.numpy_helper.to_array(array) for array in proto.graph.initializer}
    for name in list(weights):
        # With 1x1 filters at 0, a block answers its bias, whatever it is given.
        if "expand_weights" in name:
            weights[name] = np.zeros_like(weights[name])
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    proto.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in ("stage1_block1_added", "stage1_block1_shortcut")
    )
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8), np.float32)
    added, shortcut = session.run(["stage1_block1_added", "stage1_block1_shortcut"], {"x": x})
    bias = weights["stage1_block1_expand_bias"][None, :, None, None]
    np.testing.assert_allclose(added, shortcut + bias, rtol=1e-5, atol=1e-6)


def test_the_encoder_is_the_function_of_the_paper() -> None:
    weights = bert.seeded(TINY_BERT, 3, seed=4)
    # Larger than a BERT's, so that attention is not uniform and the curve of GELU counts.
    weights = {name: 20 * w if w.ndim == 2 else w for name, w in weights.items()}
    inputs = tokens([[5, 7, 9, 11], [3, 2, 0, 0]], [4, 2])
    encoded = reference(TINY_BERT, weights, inputs)
    pooled = np.tanh(encoded[:, 0] @ weights["pooler.dense.weight"].T + weights["pooler.dense.bias"])
    logits = pooled @ weights["classifier.weight"].T + weights["classifier.bias"]
    np.testing.assert_allclose(answer(bert.classifier(TINY_BERT, weights), inputs), logits, rtol=1e-3, atol=1e-4)
    mask = inputs["attention_mask"][:, :, None]
    mean = (encoded * mask).sum(1) / mask.sum(1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(answer(bert.embedder(TINY_BERT, weights), inputs), mean, rtol=1e-3, atol=1e-4)


def test_padding_changes_no_answer() -> None:
    proto = bert.embedder(TINY_BERT, bert.seeded(TINY_BERT, 3))
    short = answer(proto, tokens([[5, 7, 9]], [3]))
    padded = answer(proto, tokens([[5, 7, 9, 1, 0, 0], [8, 7, 6, 5, 4, 3]], [3, 6]))
    np.testing.assert_allclose(padded[:1], short, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", networks.ALL)
def test_random_inputs_fit_their_network(name: str) -> None:
    inputs = networks.inputs(name, 3, seed=1)
    assert {len(array) for array in inputs.values()} == {3}
    if name == networks.BERT:
        assert inputs["input_ids"].max() < Bert().vocabulary
        assert inputs["attention_mask"].sum(1).min() >= networks.TOKENS // 4
        assert not inputs["input_ids"][inputs["attention_mask"] == 0].any()


def test_the_list_names_every_network(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["zoo.networks", "--list"])
    networks.main()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(networks.ALL)


def test_a_name_without_a_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["zoo.networks", "resnet50"])
    with pytest.raises(SystemExit, match="2"):
        networks.main()
    assert not list(tmp_path.iterdir())


def tokens(ids: list[list[int]], lengths: list[int]) -> dict[str, np.ndarray]:
    array = np.array(ids, np.int64)
    mask = (np.arange(array.shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    return {"input_ids": array, "attention_mask": mask, "token_type_ids": 1 - mask}


def reference(size: Bert, weights: bert.Weights, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The encoder, written down once more in numpy."""

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return np.asarray(x @ weights[f"{name}.weight"].T.astype("f8") + weights[f"{name}.bias"])

    def normalise(name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return np.asarray(scaled * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"])

    def embedded(name: str, ids: np.ndarray) -> np.ndarray:
        return weights[f"embeddings.{name}_embeddings.weight"][ids].astype("f8")

    ids = inputs["input_ids"]
    rows, length = ids.shape
    x = (
        embedded("word", ids)
        + embedded("token_type", inputs["token_type_ids"])
        + embedded("position", np.arange(length))
    )
    x = normalise("embeddings", x)
    for number in range(size.layers):
        layer = f"encoder.layer.{number}"
        each = size.hidden // size.heads
        query, key, value = (
            dense(f"{layer}.attention.self.{part}", x).reshape(rows, length, size.heads, each).swapaxes(1, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(-1, -2) / math.sqrt(each)
        scores = np.where(inputs["attention_mask"][:, None, None, :] == 1, scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = (shares @ value).swapaxes(1, 2).reshape(rows, length, size.hidden)
        x = normalise(f"{layer}.attention.output", dense(f"{layer}.attention.output.dense", mixed) + x)
        inner = dense(f"{layer}.intermediate.dense", x)
        inner = inner / 2 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = normalise(f"{layer}.output", dense(f"{layer}.output.dense", inner) + x)
    return x
