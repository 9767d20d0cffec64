"""The folder of models: versions, digests, and problems that stay with their model."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from support import onnx_models
from turnout.core.errors import LoadError
from turnout.core.tensors import Signature
from turnout.store import ModelLimits, Repository
from turnout.store.contained import Folder
from turnout.store.repository import RepositoryModel


def model(root: Path, name: str = "m") -> RepositoryModel:
    (one,) = [found for found in Repository(root).models() if found.name == name]
    return one


def touch(path: Path, content: bytes = b"model") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def loaded(found: RepositoryModel) -> bytes:
    """The bytes of the newest version's model file, as a backend gets them."""
    with found.artefacts[0].open() as files:
        return os.pread(files.files[files.model], 1 << 20, 0)


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
    assert str(artefact.revision) == "m/1"
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
        ("m/2", "version 2: it has no file 'model.onnx'"),
        ("m/1", ""),
    ]


def test_a_folder_name_that_is_no_text_is_a_problem_that_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad\xff")).mkdir()
    (found,) = Repository(tmp_path).models()
    assert found.name == r"bad\udcff"
    assert "its name has other characters" in found.problem
    found.name.encode()


def test_other_file_name_and_a_folder_as_model(tmp_path: Path) -> None:
    touch(tmp_path / "m" / "1" / "other.onnx", b"a")
    touch(tmp_path / "m" / "config.pbtxt", b'default_model_filename: "other.onnx"')
    assert loaded(model(tmp_path)) == b"a"
    touch(tmp_path / "n" / "1" / "model.onnx" / "model.onnx", b"b")
    assert loaded(model(tmp_path, "n")) == b"b"


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
    real = Folder.open

    def fails(folder: Folder, relative: str) -> int:
        if folder.path == ("m", "1"):
            raise OSError(5, "Input/output error")
        return real(folder, relative)

    monkeypatch.setattr(Folder, "open", fails)
    found = model(tmp_path)
    assert [(a.revision.version, a.problem) for a in found.artefacts] == [
        (2, ""),
        (1, "version 1: 'model.onnx': Input/output error"),
    ]
    with pytest.raises(LoadError, match="Input/output error"), found.artefacts[1].open():
        pass
    assert found.manifests.keys() == {2}


# Links and what else a repository must not lead to


def test_a_link_as_model_or_version_is_followed_inside(tmp_path: Path) -> None:
    touch(tmp_path / "m" / "1" / "model.onnx", b"one")
    (tmp_path / "n").symlink_to("m")
    (tmp_path / "m" / "2").symlink_to("1")
    assert [str(a.revision) for a in model(tmp_path, "n").artefacts] == ["n/2"]
    assert loaded(model(tmp_path, "m")) == b"one"


def test_a_mounted_config_map(tmp_path: Path) -> None:
    """As the kubelet lays it out, here for config.pbtxt and the labels beside it."""
    touch(tmp_path / "m" / "1" / "model.onnx")
    touch(tmp_path / "m" / "..2026_11_21_10_00.1" / "config.pbtxt", b"max_batch_size: 3")
    touch(tmp_path / "m" / "..2026_11_21_10_00.1" / "labels.txt", b"cat")
    (tmp_path / "m" / "..data").symlink_to("..2026_11_21_10_00.1")
    for name in ("config.pbtxt", "labels.txt"):
        (tmp_path / "m" / name).symlink_to(f"..data/{name}")
    found = model(tmp_path)
    assert found.configuration is not None and found.configuration.rows_max == 3
    assert found.read_file("labels.txt", 10) == b"cat"


@pytest.mark.parametrize("absolute", [False, True])
def test_links_out_of_the_repository_are_listed_and_not_followed(tmp_path: Path, absolute: bool) -> None:
    root, outside = tmp_path / "models", tmp_path / "outside"
    for name in ("1/model.onnx", "model.onnx", "config.pbtxt"):
        touch(outside / name, b"")
    touch(root / "good" / "1" / "model.onnx")
    touch(root / "config" / "1" / "model.onnx")
    for name, target in {
        "model": outside,
        "version/1": outside / "1",
        "config/config.pbtxt": outside / "config.pbtxt",
        "file/1/model.onnx": outside / "model.onnx",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target if absolute else os.path.relpath(target, path.parent))
    problems = {m.name: m.problem or "".join(a.problem for a in m.artefacts) for m in Repository(root).models()}
    assert problems.pop("good") == ""
    assert problems.keys() == {"model", "version", "config", "file"}
    for problem in problems.values():
        assert ("is an absolute link" if absolute else "leads out of the model repository") in problem
        assert str(tmp_path) not in problem


def test_hard_links_are_refused_unless_allowed(tmp_path: Path) -> None:
    root = tmp_path / "models"
    touch(root / "config" / "1" / "model.onnx")
    (root / "file" / "1").mkdir(parents=True)
    for name in ("config/config.pbtxt", "file/1/model.onnx"):
        os.link(touch(tmp_path / "outside" / name, b""), root / name)
    for found in Repository(root).models():
        assert "--allow-hard-links" in (found.problem or found.artefacts[0].problem)
    for found in Repository(root, ModelLimits(hard_links=True)).models():
        assert (found.problem, found.artefacts[0].problem) == ("", "")


def test_what_is_no_folder_is_no_model(tmp_path: Path) -> None:
    touch(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("file")
    touch(tmp_path / "m" / "1" / "model.onnx")
    os.mkfifo(tmp_path / "m" / "2")
    assert [found.name for found in Repository(tmp_path).models()] == ["m"]
    assert versions(model(tmp_path)) == [1]


def test_a_link_to_nothing_is_listed(tmp_path: Path) -> None:
    (tmp_path / "m").symlink_to("later")
    assert model(tmp_path).problem == "cannot be read: No such file or directory"


def test_a_config_that_is_no_file(tmp_path: Path) -> None:
    touch(tmp_path / "m" / "1" / "model.onnx")
    os.mkfifo(tmp_path / "m" / "config.pbtxt")
    assert model(tmp_path).problem == "'config.pbtxt' is a FIFO, no file"


# Files that a configuration names


def test_read_file_reads_in_the_model_folder_and_nowhere_else(tmp_path: Path) -> None:
    touch(tmp_path / "m" / "1" / "model.onnx", b"one")
    touch(tmp_path / "m" / "warmup" / "x", b"sample")
    touch(tmp_path / "n" / "labels.txt")
    read_file = model(tmp_path).read_file
    assert read_file("warmup/x", 6) == b"sample"
    for path, words in (
        ("labels.txt", "there is no file 'labels.txt'"),
        ("../n/labels.txt", "'../n/labels.txt' is no path inside of its folder"),
        ("/etc/passwd", "is no path inside"),
        ("1/model.onnx/x", "'1/model.onnx/x' cannot be read: Not a directory"),
        ("warmup", "'warmup' is a folder, no file"),
        ("a" * 300, "cannot be read: File name too long"),
    ):
        with pytest.raises(LoadError) as refused:
            read_file(path, 6)
        assert words in str(refused.value)
    with pytest.raises(LoadError, match="warmup/x is larger than 5 bytes"):
        read_file("warmup/x", 5)


# Names

file_name = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=80)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    name=file_name
    | st.sampled_from(["%2e%2e", "..\t", " ..", "model..", "...", "C:", "m\n", "\x1b[31m", "a ", "\u202e"])
)
@example("m\r\nready: 203.0.113.1:1")
@example("\x9b31m")
@example("m\\x1b")
def test_any_name_is_listed_printable_with_its_reason(tmp_path: Path, name: str) -> None:
    assume(name not in (".", ".."))  # other folders, and no names
    root = tmp_path / "models"
    shutil.rmtree(root, ignore_errors=True)
    try:
        touch(root / name / "1" / "model.onnx")
    except OSError:  # too long for a file name
        return
    found = Repository(root).models()
    if name.startswith("."):
        assert found == []
        return
    (one,) = found
    assert one.name.isprintable() and one.problem.isprintable()
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", name):
        assert (one.name, one.problem) == (name, "")
    else:
        assert "its name has other characters" in one.problem


def test_odd_names_stay_apart(tmp_path: Path) -> None:
    for name in ("m\x1b", "m\\x1b", "m\\\\x1b", "m\x85", os.fsdecode(b"m\x85")):
        touch(tmp_path / name / "1" / "model.onnx")
    assert len({found.name for found in Repository(tmp_path).models()}) == 5


def test_odd_names_of_files_are_printable_in_reasons(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    touch(tmp_path / "m" / "1" / "model.onnx")
    (tmp_path / "m" / "1" / "w\x1b[31m\n.bin").symlink_to("/etc/passwd")
    (artefact,) = model(tmp_path).artefacts
    assert artefact.problem.isprintable()
    assert r"'w\x1b[31m\n.bin' is an absolute link" in artefact.problem


def test_quotes_of_a_config_are_printable(tmp_path: Path) -> None:
    touch(tmp_path / "m" / "1" / "model.onnx")
    touch(tmp_path / "m" / "config.pbtxt", rb'name: "\033[31m\nm"')
    assert model(tmp_path).problem.startswith(r"config.pbtxt: name is '\x1b[31m\nm'")


# Changes


def test_what_is_loaded_is_what_was_listed(tmp_path: Path) -> None:
    path = touch(tmp_path / "m" / "1" / "model.onnx", b"one")
    found = model(tmp_path)
    assert loaded(found) == b"one"
    path.unlink()
    touch(path, b"two")
    with pytest.raises(LoadError, match=r"'model\.onnx' changed since it was listed"):
        loaded(found)
    path.unlink()
    (tmp_path / "m" / "1").rename(tmp_path / "old")
    (tmp_path / "m" / "1").symlink_to("../old")
    touch(tmp_path / "old" / "model.onnx", b"one")
    assert loaded(found) == b"one"  # the same bytes, and inside


def test_the_repository_may_be_replaced_and_the_open_one_is_still_read(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "m" / "1" / "model.onnx", b"one")
    touch(tmp_path / "b" / "m" / "1" / "model.onnx", b"two")
    (tmp_path / "models").symlink_to("a")
    found = model(tmp_path / "models")
    (tmp_path / "models").unlink()
    (tmp_path / "models").symlink_to("b")
    assert loaded(found) == b"one"
    assert loaded(model(tmp_path / "models")) == b"two"
