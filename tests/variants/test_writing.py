"""A variant's files come whole or not at all: full disks, folders that cannot be written to, interruptions, two at
once."""

from __future__ import annotations

import fcntl
import os
import resource
from pathlib import Path

import pytest

from turnout.variants.recipes import QuantizeError
from turnout.variants.writing import Target


@pytest.fixture
def made(tmp_path: Path) -> Path:
    file = tmp_path / "made.onnx"
    file.write_bytes(b"x" * 100_000)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "2").mkdir()
    return tmp_path / "2"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_both_files_are_there_in_the_end(folder: Path, made: Path) -> None:
    target = Target(folder, "model.onnx", "int8")
    (folder / ".model.int8.onnx.part").write_bytes(b"left by a run that was killed" * 10_000)
    target.claim(overwrite=False)
    seen = []
    target.write(made, lambda: {"seen": seen.append(names(folder)) or "é"})
    assert seen == [[".model.int8.json.part", "model.int8.onnx"]]  # the report is asked for when the model is there
    target.release()
    target.release()
    assert names(folder) == ["model.int8.json", "model.int8.onnx"]
    assert (folder / "model.int8.onnx").read_bytes() == made.read_bytes()
    assert (folder / "model.int8.json").read_text() == '{\n  "seen": "é"\n}\n'


def test_a_full_disk_leaves_no_half_file(folder: Path, made: Path) -> None:
    target = Target(folder, "model.onnx", "int8")
    target.claim(overwrite=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(QuantizeError) as caught:
            target.write(made, dict)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    target.release()
    assert f"'model.int8.onnx' cannot be written to '{folder}': File too large" in str(caught.value)
    assert names(folder) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(15), QuantizeError("cannot be read again"), OSError(28, "full")])
def test_without_its_report_the_model_does_not_stay(folder: Path, made: Path, error: BaseException) -> None:
    target = Target(folder, "model.onnx", "int8")
    target.claim(overwrite=False)

    def fail() -> dict[str, object]:
        raise error

    with pytest.raises(QuantizeError if isinstance(error, OSError) else type(error)):
        target.write(made, fail)
    target.release()
    assert names(folder) == []


def test_a_folder_that_is_not_there_is_found_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(QuantizeError, match=r"cannot be written to .*: No such file or directory"):
        Target(tmp_path / "gone", "model.onnx", "int8").claim(overwrite=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_to_is_found_before_the_work(folder: Path) -> None:
    folder.chmod(0o500)
    with pytest.raises(QuantizeError, match=r"cannot be written to .*: Permission denied"):
        Target(folder, "model.onnx", "int8").claim(overwrite=False)


def test_one_process_at_a_time_makes_a_variant(folder: Path, made: Path) -> None:
    first, second = Target(folder, "model.onnx", "int8"), Target(folder, "model.onnx", "int8")
    with open(folder / ".model.int8.onnx.part", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(QuantizeError, match="just now: wait for it"):
            first.claim(overwrite=False)
    second.claim(overwrite=False)
    second.write(made, dict)
    second.release()
    assert names(folder) == ["model.int8.json", "model.int8.onnx"]


@pytest.mark.parametrize("taken", [False, True])
def test_an_interruption_within_the_claim_leaves_nothing_but_what_another_run_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """A signal that comes during a system call is told when that has returned."""
    target, opens = Target(folder, "model.onnx", "int8"), os.open

    def interrupted(*arguments: int) -> int:
        monkeypatch.undo()
        os.close(opens(*arguments))  # type: ignore[arg-type]
        raise KeyboardInterrupt(2)

    with open(folder / ".model.int8.onnx.part", "w") as other:
        if taken:
            fcntl.flock(other, fcntl.LOCK_EX)
        monkeypatch.setattr(os, "open", interrupted)
        with pytest.raises(KeyboardInterrupt):
            target.claim(overwrite=False)
        target.release()
        assert names(folder) == ([".model.int8.onnx.part"] if taken else [])


@pytest.mark.parametrize("there", [False, True])
def test_an_interruption_within_a_renaming_leaves_neither(
    folder: Path, made: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """A signal that comes during a system call is told when that has returned."""
    if there:
        (folder / "model.int8.onnx").write_bytes(b"an older one")
        (folder / "model.int8.json").write_bytes(b"{}")
    target, rename = Target(folder, "model.onnx", "int8"), os.replace
    target.claim(overwrite=there)

    def renamed(source: Path, to: Path) -> None:
        rename(source, to)
        raise KeyboardInterrupt(15)

    monkeypatch.setattr(os, "replace", renamed)
    with pytest.raises(KeyboardInterrupt):
        target.write(made, dict)
    target.release()
    assert names(folder) == []


def test_what_cannot_be_renamed_leaves_what_was_there(
    folder: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("model.int8.onnx", "model.int8.json"):
        (folder / name).write_bytes(b"an older one")
    target = Target(folder, "model.onnx", "int8")
    target.claim(overwrite=True)

    def refused(source: Path, to: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(QuantizeError, match="Read-only"):
        target.write(made, dict)
    target.release()
    assert names(folder) == ["model.int8.json", "model.int8.onnx"]


def test_a_claim_that_comes_as_another_run_ends_touches_nothing(
    folder: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has opened the file that the other one renames, and gets its lock when that is served already."""
    first, second, lock = Target(folder, "model.onnx", "int8"), Target(folder, "model.onnx", "int8"), fcntl.flock
    first.claim(overwrite=False)

    def late(fd: int, how: int) -> None:
        monkeypatch.undo()
        first.write(made, dict)
        first.release()
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(QuantizeError, match="has just ended"):
        second.claim(overwrite=False)
    second.release()
    assert (folder / "model.int8.onnx").read_bytes() == made.read_bytes()


def test_a_run_that_ends_leaves_the_hidden_file_of_the_next(folder: Path, made: Path) -> None:
    first, second = Target(folder, "model.onnx", "int8"), Target(folder, "model.onnx", "int8")
    first.claim(overwrite=False)

    def meanwhile() -> dict[str, object]:
        second.claim(overwrite=True)
        return {}

    first.write(made, meanwhile)
    first.release()
    second.write(made, dict)
    second.release()
    assert names(folder) == ["model.int8.json", "model.int8.onnx"]


def test_a_link_in_the_place_of_the_report_leads_nowhere(folder: Path, made: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (folder / ".model.int8.json.part").symlink_to(tmp_path / "precious")
    target = Target(folder, "model.onnx", "int8")
    target.claim(overwrite=False)
    target.write(made, lambda: {"a": 1})
    target.release()
    assert (tmp_path / "precious").read_text() == "kept"
    assert not (folder / "model.int8.json").is_symlink()
