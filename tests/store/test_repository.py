"""The folder of models: versions, digests, and problems that stay with their model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from support import onnx_models
from turnout.core.errors import LoadError
from turnout.core.tensors import Signature
from turnout.store import ModelLimits, Repository
from turnout.store.repository import RepositoryModel


def model(root: Path, name: str = "m") -> RepositoryModel:
    (one,) = [found for found in Repository(root).models() if found.name == name]
    return one


def touch(path: Path, content: bytes = b"model") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def versions(found: RepositoryModel) -> list[int]:
    return [artefact.revision.version for artefact in found.artefacts]


def test_every_folder_is_a_model_by_name(tmp_path: Path) -> None:
    for name in ("b", "a", ".git", "c"):
        touch(tmp_path / name / "1" / "model.onnx")
    touch(tmp_path / "README.md")
    assert [found.name for found in Repository(tmp_path).models()] == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["nowhere", "a-file"])
def test_repository_that_is_no_folder(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "a-file")
    with pytest.raises(LoadError, match="is not a folder: see --model-repository"):
        Repository(tmp_path / name).models()


def test_only_numbers_from_1_are_versions(tmp_path: Path) -> None:
    for folder in ("1", "2", "10", "0", "01", "-3", "v4", "+5", "6 ", "labels"):
        touch(tmp_path / "m" / folder / "model.onnx")
    touch(tmp_path / "m" / "7")  # a file
    touch(tmp_path / "m" / "config.pbtxt", b"version_policy { all { } }")
    assert versions(model(tmp_path)) == [10, 2, 1]


def test_newest_is_by_number_and_not_by_text(tmp_path: Path) -> None:
    for version in ("9", "10"):
        touch(tmp_path / "m" / version / "model.onnx")
    assert versions(model(tmp_path)) == [10]


def digest(root: Path) -> str:
    (artefact,) = model(root).artefacts
    return artefact.revision.digest


def test_the_digest_is_of_all_that_the_model_runs_with(tmp_path: Path) -> None:
    path = touch(tmp_path / "m" / "1" / "model.onnx", b"some model")
    (artefact,) = model(tmp_path).artefacts
    assert (str(artefact.revision), artefact.path) == ("m/1", str(path))
    plain = digest(tmp_path)
    assert len(plain) == 64
    weights = touch(tmp_path / "m" / "1" / "weights.bin", b"one")
    with_weights = digest(tmp_path)
    weights.write_bytes(b"two")
    other_weights = digest(tmp_path)
    weights.rename(weights.with_name("moved.bin"))
    assert len({plain, with_weights, other_weights, digest(tmp_path)}) == 4
    path.write_bytes(b"another one")
    assert digest(tmp_path) not in {plain, with_weights, other_weights}


def test_what_lies_beside_a_model_and_is_not_its_own_changes_no_digest(tmp_path: Path) -> None:
    touch(tmp_path / "m" / "1" / "model.onnx", b"some model")
    plain = digest(tmp_path)
    for name in ("model.int8.onnx", "golden.npz", "model.int8.json", ".upload.bin", "..2026_11_21/weights.bin"):
        touch(tmp_path / "m" / "1" / name, b"x")
    assert digest(tmp_path) == plain


def test_a_version_without_its_file_costs_only_itself(tmp_path: Path) -> None:
    touch(tmp_path / "m" / "1" / "model.onnx", b"some model")
    touch(tmp_path / "m" / "config.pbtxt", b"version_policy { all {} }")
    (tmp_path / "m" / "2").mkdir()
    found = model(tmp_path)
    assert found.problem == ""
    assert [(str(a.revision), a.problem) for a in found.artefacts] == [
        ("m/2", "version 2 has no file 'model.onnx'"),
        ("m/1", ""),
    ]


def test_a_folder_name_that_is_no_text_is_a_problem_that_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad\xff")).mkdir()
    (found,) = Repository(tmp_path).models()
    assert found.name == "bad\ufffd"
    assert "its name has other characters" in found.problem
    found.name.encode()


def test_other_file_name_and_a_folder_as_model(tmp_path: Path) -> None:
    touch(tmp_path / "m" / "1" / "other.onnx", b"a")
    touch(tmp_path / "m" / "config.pbtxt", b'default_model_filename: "other.onnx"')
    assert model(tmp_path).artefacts[0].path.endswith("/m/1/other.onnx")
    touch(tmp_path / "n" / "1" / "model.onnx" / "model.onnx", b"b")
    assert model(tmp_path, "n").artefacts[0].path.endswith("/n/1/model.onnx/model.onnx")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "it has no version folder"),
        ({"0/model.onnx": b""}, "it has no version folder"),
        ({"1/model.onnx": b"", "config.pbtxt": b"{"}, "config.pbtxt: "),
        ({"1/model.onnx": b"", "config.pbtxt": b"\xff"}, "config.pbtxt is not UTF-8 text"),
        ({"1/model.onnx": b"", "config.pbtxt": b"#" * ((1 << 20) + 1)}, "config.pbtxt is larger than 1048576 bytes"),
        (
            {"1/model.onnx": b"", "config.pbtxt": b"version_policy { specific { versions: 2 } }"},
            "version_policy allows [2], there are [1]",
        ),
    ],
)
def test_problem_stays_with_its_model(tmp_path: Path, files: dict[str, bytes], problem: str) -> None:
    touch(tmp_path / "good" / "1" / "model.onnx")
    (tmp_path / "m").mkdir()
    for name, content in files.items():
        touch(tmp_path / "m" / name, content)
    found = model(tmp_path)
    assert problem in found.problem and str(tmp_path) not in found.problem
    assert found.artefacts == ()
    assert model(tmp_path, "good").problem == ""


@pytest.mark.parametrize("name", ["-m", "a b", "ü", "a" * 129])
def test_folder_with_a_name_that_no_model_may_have(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name / "1" / "model.onnx")
    assert "its name has other characters" in model(tmp_path, name).problem


def test_nothing_is_written(tmp_path: Path) -> None:
    onnx_models.triton_models(tmp_path)
    onnx_models.broken_models(tmp_path)

    def files() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    before = files()
    Repository(tmp_path).models()
    assert files() == before


def test_a_model_with_a_problem_cannot_be_completed(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(LoadError, match="it has no version folder"):
        model(tmp_path).complete(1, Signature((), ()))


def test_batching_can_be_taken_back(tmp_path: Path) -> None:
    """What warm-up does when it finds that a guessed batch dimension is none."""
    from turnout.core.tensors import TensorSpec
    from turnout_wire.tensors import DataType

    touch(tmp_path / "m" / "1" / "model.onnx")
    file = Signature((TensorSpec("x", DataType.FP32, (-1, 2)),), (TensorSpec("y", DataType.FP32, (-1, 2)),))
    (found,) = Repository(tmp_path, ModelLimits(batch_rows_default=7)).models()
    assert found.complete(1, file).signature.rows_max == 7
    assert found.complete(1, file, batch=False).signature.rows_max == 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("max_batch_size: 9", "max_batch_size is 9, the limit is 8: --batch-rows-max"),
        ("instance_group { count: 5 }", "count is 5, the limit is 4: --instances-max"),
    ],
)
def test_what_a_model_may_ask_for_is_bounded(tmp_path: Path, config: str, words: str) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(b"-")
    (tmp_path / "m" / "config.pbtxt").write_text(config)
    limits = ModelLimits(batch_rows_max=8, instances_max=4)
    (found,) = Repository(tmp_path, limits).models()
    assert words in found.problem
    (tmp_path / "m" / "config.pbtxt").write_text("max_batch_size: 8 instance_group { count: 4 }")
    (found,) = Repository(tmp_path, limits).models()
    assert found.problem == ""


def test_a_file_that_cannot_be_read_costs_its_version_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "m" / "1" / "model.onnx", b"one")
    touch(tmp_path / "m" / "2" / "model.onnx", b"two")
    touch(tmp_path / "m" / "config.pbtxt", b"version_policy { all {} }")
    real = Path.open

    def fails(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.parent.name == "1" and path.name == "model.onnx":
            raise OSError(5, "Input/output error", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", fails)
    found = model(tmp_path)
    assert [(a.revision.version, a.problem) for a in found.artefacts] == [(2, ""), (1, "version 1: Input/output error")]
