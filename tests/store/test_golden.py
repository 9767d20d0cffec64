"""golden.npz: what is read from it, and what is refused with which words; and revisions found while the server runs."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turnout.core.errors import ControlError, LoadError, Refusal
from turnout.store import Repository
from turnout.store.golden import parse_golden

DIGITS = Path(__file__).parents[2] / "models" / "repository" / "digits"
ONE = np.ones((2, 3), "f4")


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def test_the_committed_samples_are_read() -> None:
    golden = parse_golden((DIGITS / "2" / "golden.npz").read_bytes())
    assert golden.inputs["image"].shape == (64, 64)
    assert sorted(golden.outputs) == ["label", "probabilities"]
    assert golden.rtol is None


def test_a_tolerance_and_strings_are_read() -> None:
    golden = parse_golden(npz(**{"input.s": np.array(["a", "b"]), "output.y": ONE, "rtol": 0.25}))
    assert golden.inputs["s"].dtype == object
    assert golden.rtol == 0.25


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no archive of arrays"),
        (b"PK\x05\x06" + b"\0" * 18, "needs an input.NAME"),
        (npz(**{"input.x": ONE, "output.y": ONE})[:-40], "no archive of arrays"),
        (npz(**{"input.x": ONE}), "needs an input.NAME and an output.NAME"),
        (npz(**{"input.x": ONE, "output.y": ONE, "other": ONE}), "holds 'other'"),
        (npz(**{"input.x": ONE, "output.y": ONE, "rtol": 2}), "rtol must be one number from 0 to 1"),
        (npz(**{"input.x": ONE, "output.y": ONE, "rtol": ONE}), "rtol must be one number"),
        (npz(**{"input.x": ONE, "output.y": np.array([object()])}), "no archive of arrays"),
        (npz(**{"input.x": ONE, "output.y": np.array([1j])}), "dtype complex128"),
        (npz(**{f"input.{n}": ONE for n in range(300)}), "300 arrays, the limit is 256"),
    ],
)
def test_what_is_no_such_file_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(LoadError, match=words):
        parse_golden(content)


def test_a_file_that_unpacks_to_too_much_is_not_unpacked() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("input.x.npy", b"\0" * (257 << 20))
    with pytest.raises(LoadError, match="unpacks to 269484032 bytes"):
        parse_golden(file.getvalue())


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    shutil.copytree(DIGITS, tmp_path / "digits")
    (tmp_path / "digits" / "config.pbtxt").write_text("version_policy { latest { num_versions: 1 } }")
    return Repository(tmp_path)


def test_any_version_is_found_and_the_newest_by_policy(repository: Repository) -> None:
    assert [a.revision.version for m in repository.models() for a in m.artefacts] == [3]
    source, artefact = repository.find("digits", 1)
    assert (source.name, artefact.revision.version) == ("digits", 1)
    assert artefact.size_bytes == (DIGITS / "1" / "model.onnx").stat().st_size
    golden = artefact.golden()
    assert golden is not None
    assert set(golden.inputs) == {"image"}
    assert repository.find("digits", None)[1].revision.version == 3
    (repository.root / "digits" / "1" / "golden.npz").unlink()
    assert repository.find("digits", 1)[1].golden() is None


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("digits", 9), "it has no version 9, it has 1, 2, 3"),
        (("nobody", 1), "no folder 'nobody'"),
        (("../digits", 1), "no folder"),
        (("digits", 1, "int8"), "version 1 has no file 'model.int8.onnx', its variants are: none"),
    ],
)
def test_what_is_not_there_is_not_found(repository: Repository, asked: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ControlError, match=words) as caught:
        repository.find(*asked)
    assert caught.value.refusal is Refusal.REVISION_NOT_FOUND


def test_files_that_are_not_what_their_sums_say_are_a_mismatch(repository: Repository) -> None:
    folder = repository.root / "digits" / "1"
    (folder / "SHA256SUMS").write_text("0" * 64 + "  model.onnx\n")
    with pytest.raises(ControlError, match="SHA256SUMS says") as caught:
        repository.find("digits", 1)
    assert caught.value.refusal is Refusal.MANIFEST_MISMATCH
    (folder / "SHA256SUMS").unlink()
    (folder / "model.onnx").unlink()
    with pytest.raises(ControlError, match=r"no file .model\.onnx.") as caught:
        repository.find("digits", 1)
    assert caught.value.refusal is Refusal.GATE_FAILED
