"""Kept pairs: written whole, read back as they were, bounded, private."""

from __future__ import annotations

import os
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from turnout.store.captures import CaptureFolderError, Captures
from turnout_client.captures import read_capture

ABOUT = {"turnout.model.name": "m", "turnout.inference.id": "../x"}


def folder(tmp_path: Path, bytes_max: int = 1 << 20) -> Captures:
    captures = Captures(tmp_path / "kept", bytes_max)
    captures.open()
    return captures


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "kept").iterdir())


def named(number: int) -> str:
    return f"turnout-m-green-{number}-0a1b2c3d4e5f"


def noise(seed: int, size: int = 1000) -> dict[str, dict[str, np.ndarray]]:
    return {"input": {"x": np.random.default_rng(seed).standard_normal(size)}}


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    tensors = {
        "input": {"x": np.arange(4, dtype=np.float32).reshape(1, 4), "s": np.array([["ä", b"\xff"]], object)},
        "live": {"y": np.array([[1, 2]], ml_dtypes.bfloat16), "label": np.array([3], np.int64)},
        "shadow": {},
    }
    assert folder(tmp_path).keep(named(1), tensors, ABOUT)
    capture = read_capture(tmp_path / "kept" / f"{named(1)}.npz")
    assert capture.about == ABOUT
    np.testing.assert_array_equal(capture.inputs["x"], tensors["input"]["x"])
    assert capture.inputs["s"].tolist() == [["ä", b"\xff"]]
    assert capture.live["y"].dtype == ml_dtypes.bfloat16
    assert capture.live["y"].tolist() == [[1, 2]]
    assert capture.live["label"].tolist() == [3]
    assert capture.shadow == {}


@pytest.mark.parametrize(
    ("elements", "read"),
    [
        ([b"a\0\0", b"", "\0"], ["a\0\0", "", "\0"]),
        ([["x", "yz"], [b"\xc3\xa4", b"\xc3"]], [["x", "yz"], ["ä", b"\xc3"]]),
        (["\ud800"], [b"\xed\xa0\x80"]),
        ([], []),
        ([[], []], [[], []]),
    ],
)
def test_elements_of_bytes_are_what_they_were(tmp_path: Path, elements: list[Any], read: list[Any]) -> None:
    array = np.array(elements, object)
    folder(tmp_path).keep(named(1), {"input": {"s": array, "offsets.s": array}, "live": {"shape.s": array}}, ABOUT)
    capture = read_capture(tmp_path / "kept" / f"{named(1)}.npz")
    for found in (capture.inputs["s"], capture.inputs["offsets.s"], capture.live["shape.s"]):
        assert (found.tolist(), found.shape) == (read, array.shape)


def test_one_long_string_makes_no_other_long(tmp_path: Path) -> None:
    tensors = {"input": {"s": np.array([b"x" * 1_000_000] + [b""] * 400, object)}}
    captures = folder(tmp_path, 2 << 20)
    tracemalloc.start()
    try:
        assert captures.keep(named(1), tensors, ABOUT)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_what_is_only_small_when_compressed_is_not_kept(tmp_path: Path) -> None:
    captures = folder(tmp_path, 5_000)
    assert not captures.keep(named(1), {"input": {"x": np.zeros(5_000)}}, ABOUT)
    assert not captures.keep(named(1), {"input": {"s": np.array([b"x" * 6_000], object)}}, ABOUT)
    assert names(tmp_path) == []


def test_only_the_servers_user_reads_it(tmp_path: Path) -> None:
    folder(tmp_path).keep(named(1), noise(1), ABOUT)
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "kept" / f"{named(1)}.npz").stat().st_mode) == 0o600


def test_the_oldest_go_for_new_ones_also_after_a_restart(tmp_path: Path) -> None:
    captures = folder(tmp_path, 30_000)
    for number in range(5):
        assert captures.keep(named(number), noise(number), ABOUT)
        os.utime(tmp_path / "kept" / f"{named(number)}.npz", ns=(number, number))
    assert names(tmp_path) == [f"{named(2)}.npz", f"{named(3)}.npz", f"{named(4)}.npz"]
    again = folder(tmp_path, 30_000)
    assert again.keep(named(5), noise(5), ABOUT)
    assert names(tmp_path) == [f"{named(3)}.npz", f"{named(4)}.npz", f"{named(5)}.npz"]
    assert sum(path.stat().st_size for path in (tmp_path / "kept").iterdir()) <= 30_000


def test_one_that_is_larger_than_all_may_be(tmp_path: Path) -> None:
    captures = folder(tmp_path, 5_000)
    assert not captures.keep(named(1), noise(1), ABOUT)
    assert names(tmp_path) == []


OTHERS = [
    ".mine.npz",
    "digits-green-1-0a1b2c3d4e5f.npz",
    "notes.txt",
    "training.npz",
    "turnout-data.npz",
    "turnout-m-green-1-0a1b2c3d4e5f.npz.bak",
    "turnout-m-green-1-0a1b2c3d4e5f0.npz",
]


def test_others_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir(mode=0o700)
    for name in OTHERS:
        (tmp_path / "kept" / name).write_text("x" * 50_000)
    (tmp_path / "kept" / f"{named(7)}.npz").symlink_to("training.npz")
    captures = folder(tmp_path, 10_000)
    captures.keep(named(1), noise(1), ABOUT)
    captures.keep(named(2), noise(2), ABOUT)
    assert names(tmp_path) == sorted([f"{named(2)}.npz", f"{named(7)}.npz", *OTHERS])


def test_what_a_crash_left_half_written_goes(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir(mode=0o700)
    (tmp_path / "kept" / f".{named(1)}.npz").write_text("half")
    (tmp_path / "kept" / ".half.npz").write_text("not ours")
    folder(tmp_path)
    assert names(tmp_path) == [".half.npz"]


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o720, 0o755])
def test_a_folder_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept").chmod(mode)
    with pytest.raises(CaptureFolderError, match=f"kept' has mode 0{mode:o}, .*: chmod it to 0700, or"):
        folder(tmp_path)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(CaptureFolderError, match="cannot be used: File exists; see --shadow-capture-dir"):
        folder(tmp_path)


def test_somebody_took_it(tmp_path: Path) -> None:
    captures = folder(tmp_path, 10_000)
    captures.keep(named(1), noise(1), ABOUT)
    (tmp_path / "kept" / f"{named(1)}.npz").unlink()
    assert captures.keep(named(2), noise(2), ABOUT)
    assert names(tmp_path) == [f"{named(2)}.npz"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captures = folder(tmp_path)

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="No space"):
        captures.keep(named(1), noise(1), ABOUT)
    assert names(tmp_path) == []


def test_no_capture(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", y=np.zeros(1))
    with pytest.raises(ValueError, match="no capture"):
        read_capture(tmp_path / "x.npz")
