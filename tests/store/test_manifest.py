"""Manifests: which files make a version, their digest, SHA256SUMS, and that what was hashed is what is opened."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from turnout.core.errors import LoadError
from turnout.core.model import OpenArtefact
from turnout.store import manifest as module
from turnout.store.contained import Folder, Root
from turnout.store.manifest import Manifest, read_manifest


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "m" / "1"
    touch(folder / "model.onnx", b"the model")
    return folder


def touch(path: Path, content: bytes = b"-") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def manifest(version: Path, filename: str = "model.onnx", *libraries: str) -> Manifest:
    root = Folder(Root(version.parent.parent))
    return read_manifest(root.folder(version.parent.name), int(version.name), filename, libraries)


def refusal(version: Path, filename: str = "model.onnx") -> str:
    with pytest.raises(LoadError) as refused:
        manifest(version, filename)
    assert str(version.parent) not in str(refused.value)
    assert str(refused.value).startswith(f"version {version.name}: ")
    return str(refused.value)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(version: Path) -> list[str]:
    return [file.name for file in manifest(version).files]


def contents(opened: OpenArtefact) -> dict[str, bytes]:
    return {name: os.pread(fd, 1000, 0) for name, fd in (opened.files | opened.libraries).items()}


# Which files


def test_files_that_may_hold_weights_and_no_others(version: Path) -> None:
    taken = ["model.onnx.data", "model.onnx_data", "w", "w.bin", "weights/a.b/w.bin", "weights.json/w.bin", "ü b.bin"]
    for name in taken:
        touch(version / name)
    for name in ("int8.onnx", "golden.npz", "report.json", "README.md", "labels.txt", "x.pbtxt", ".part", ".git/w.bin"):
        touch(version / name)
    assert names(version) == sorted(["model.onnx", *taken], key=lambda name: name.split("/"))


def test_the_digest_is_over_names_sizes_and_sha256(version: Path) -> None:
    touch(version / "weights" / "w.bin", b"the weights")
    expected = hashlib.sha256()
    for name, content in (("model.onnx", b"the model"), ("weights/w.bin", b"the weights")):
        expected.update(f"{name}\0{len(content)}\0{sha256(content)}\n".encode())
    found = manifest(version)
    assert found.digest == expected.hexdigest()
    assert [(file.name, file.size, file.sha256) for file in found.files] == [
        ("model.onnx", 9, sha256(b"the model")),
        ("weights/w.bin", 11, sha256(b"the weights")),
    ]


def test_a_folder_as_model(version: Path) -> None:
    touch(version / "net" / "model.onnx", b"in a folder")
    touch(version / "net" / "w.bin")
    found = manifest(version, "net")
    assert (found.model, [file.name for file in found.files]) == ("model.onnx", ["model.onnx", "w.bin"])


def test_libraries_of_custom_operators_are_part_of_it(version: Path) -> None:
    touch(version.parent / "ops.so", b"code")
    found = manifest(version, "model.onnx", "ops.so")
    assert [name for name, _ in found.named()] == ["model.onnx", "../ops.so"]
    assert found.digest != manifest(version).digest
    with found.open() as opened:
        assert {name: os.pread(fd, 9, 0) for name, fd in opened.libraries.items()} == {"ops.so": b"code"}
    (version.parent / "ops.so").write_bytes(b"other code")
    with pytest.raises(LoadError, match=r"'ops\.so' changed since it was listed"), found.open():
        pass


def test_a_missing_library_is_named(version: Path) -> None:
    with pytest.raises(LoadError, match=r"version 1: 'ops\.so': No such file"):
        manifest(version, "model.onnx", "ops.so")


def test_a_name_that_is_no_text(version: Path) -> None:
    touch(version / os.fsdecode(b"w\xff.bin"))
    (_, weights) = manifest(version).files
    assert weights.name.encode(errors="surrogateescape") == b"w\xff.bin"
    assert len(manifest(version).digest) == 64


def test_links_between_folders_are_followed_and_circles_left(version: Path) -> None:
    touch(version.parent.parent / "shared" / "w.bin", b"shared")
    (version / "weights").symlink_to("../../shared")
    (version / "again").symlink_to(".")
    (version / "up").symlink_to("..")  # to where this version lies too, whose name is a visible folder's
    assert names(version) == ["model.onnx", "weights/w.bin"]


def test_the_number_of_files_is_bounded(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENTRIES_MAX", 4)
    for number in range(3):
        touch(version / f"{number}.md")
    assert names(version) == ["model.onnx"]
    (version / "folder").mkdir()
    assert "more than 4 files" in refusal(version)


def test_folders_that_links_multiply_are_bounded(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 20 folders has two links to the next one: a million ways to the last."""
    for number in range(20):
        (version / f"f{number}").mkdir()
        for name in ("a", "b"):
            (version / f"f{number}" / name).symlink_to(f"../f{number + 1}")
    (version / "f20").mkdir()
    monkeypatch.setattr(module, "_ENTRIES_MAX", 500)
    assert "more than 500 files" in refusal(version)


# What is not taken


def test_missing_model(version: Path) -> None:
    assert refusal(version, "other.onnx") == "version 1: it has no file 'other.onnx'"
    (version / "empty").mkdir()
    assert refusal(version, "empty") == "version 1: it has no file 'empty'"


@pytest.mark.parametrize("name", ["model.onnx", "w.bin", "weights/w.bin"])
def test_links_out_and_odd_files_refuse_the_version_and_are_named(version: Path, name: str) -> None:
    path = version / name
    path.parent.mkdir(exist_ok=True)
    for make, words in (
        (lambda: path.symlink_to("/etc/passwd"), "is an absolute link"),
        (lambda: path.symlink_to("../" * 9 + "etc/passwd"), "is a link that leads out of the model repository"),
        (lambda: os.mkfifo(path), "is a FIFO, no file"),
        (lambda: os.link(touch(version.parent / "first"), path), "is a file with 2 names"),
    ):
        path.unlink(missing_ok=True)
        (version.parent / "first").unlink(missing_ok=True)
        make()
        assert f"'{name}' {words}" in refusal(version)


def test_a_link_to_nothing_that_could_be_weights_is_named(version: Path) -> None:
    (version / "w.bin").symlink_to("nothing")
    assert refusal(version) == "version 1: 'w.bin': No such file or directory"


def test_links_that_are_no_weights_are_not_looked_at(version: Path) -> None:
    (version / "README.md").symlink_to("/etc/passwd")
    (version / ".upload").symlink_to("/etc/passwd")
    assert names(version) == ["model.onnx"]


def test_a_file_that_grows_while_it_is_hashed(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = hashlib.file_digest

    def growing(file: object, name: str) -> object:
        digest = real(file, name)  # type: ignore[arg-type]
        (version / "model.onnx").write_bytes(b"more of the model")
        return digest

    monkeypatch.setattr(hashlib, "file_digest", growing)
    assert "'model.onnx' changed while it was read" in refusal(version)


def test_what_cannot_be_read_is_named(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(file: object, name: str) -> object:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hashlib, "file_digest", fails)
    assert refusal(version) == "version 1: 'model.onnx': Input/output error"


def test_too_many_open_files_say_what_to_do(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = manifest(version)

    def fails(folder: Folder, name: str) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Folder, "open", fails)
    with pytest.raises(LoadError, match=r"'model.onnx': Too many open files: .*ulimit -n"), found.open():
        pass


# Opening


def test_what_is_opened_is_what_was_hashed_and_closed_again(version: Path) -> None:
    touch(version / "weights" / "w.bin", b"the weights")
    with manifest(version).open() as opened:
        assert opened.model == "model.onnx"
        assert contents(opened) == {"model.onnx": b"the model", "weights/w.bin": b"the weights"}
        fds = list(opened.files.values())
    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)


def rewrite(path: Path) -> None:
    path.write_bytes(b"THE MODEL")


def replace(path: Path) -> None:
    other = touch(path.parent.parent / "other", b"THE MODEL")
    other.rename(path)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"!")


def replace_by_link(path: Path) -> None:
    touch(path.parent.parent / "other", b"THE MODEL")
    path.unlink()
    path.symlink_to("../other")


def keep_times(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """As somebody would who hides it; the kernel's own time of change remains."""

    def changed(path: Path) -> None:
        before = path.stat()
        change(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return changed


CHANGES = [rewrite, replace, grow, replace_by_link, keep_times(rewrite), keep_times(replace)]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["model.onnx", "w.bin"])
def test_a_change_between_listing_and_load(version: Path, change: Callable[[Path], None], name: str) -> None:
    touch(version / "w.bin", b"the model")
    found = manifest(version)
    change(version / name)
    with pytest.raises(LoadError) as refused, found.open():
        pass
    assert f"'{name}' changed since it was listed: give changed files a version" in str(refused.value)


@pytest.mark.parametrize("change", [rewrite, grow, keep_times(rewrite)])
def test_a_change_during_the_load(version: Path, change: Callable[[Path], None]) -> None:
    found = manifest(version)
    with pytest.raises(LoadError, match=r"'model\.onnx' changed while it was loaded"), found.open():
        before = (version / "model.onnx").stat().st_ctime_ns
        while (version / "model.onnx").stat().st_ctime_ns == before:  # older kernels have clocks that tick slowly
            change(version / "model.onnx")


def test_a_change_is_the_reason_where_the_load_failed_too(version: Path) -> None:
    found = manifest(version)
    with pytest.raises(LoadError, match=r"'model\.onnx' changed while it was loaded") as refused, found.open():
        rewrite(version / "model.onnx")
        raise LoadError("half a model")
    assert str(refused.value.__cause__) == "half a model"
    with pytest.raises(LoadError, match=r"^half a model$"), manifest(version).open():
        raise LoadError("half a model")


def test_what_is_read_stays_the_same_where_another_file_takes_its_place_during_the_load(version: Path) -> None:
    """It is refused all the same: the kernel tells of one more change, not of which."""
    found = manifest(version)
    with pytest.raises(LoadError, match=r"'model\.onnx' changed while it was loaded"), found.open() as opened:
        replace(version / "model.onnx")
        assert contents(opened) == {"model.onnx": b"the model"}


def test_the_same_bytes_in_another_file_are_the_same(version: Path) -> None:
    """As network file systems number their files anew, and `touch` sets times."""
    found = manifest(version)
    touch(version.parent / "copy", b"the model").rename(version / "model.onnx")
    with found.open() as opened:
        assert contents(opened) == {"model.onnx": b"the model"}


def test_only_files_that_changed_lately_are_hashed_again(
    version: Path, hashed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for since_change_ns, count in ((0, 2), (10**12, 1)):
        hashed.clear()
        monkeypatch.setattr(time, "time_ns", lambda: (version / "model.onnx").stat().st_ctime_ns + since_change_ns)  # noqa: B023
        with manifest(version).open():
            pass
        assert len(hashed) == count


def test_what_was_removed_or_hidden_behind_a_link_out(version: Path) -> None:
    found = manifest(version)
    (version / "model.onnx").unlink()
    with pytest.raises(LoadError, match=r"'model\.onnx' was removed since it was listed"), found.open():
        pass
    (version / "model.onnx").symlink_to("/etc/passwd")
    with pytest.raises(LoadError, match=r"'model\.onnx' is an absolute link"), found.open():
        pass


# SHA256SUMS


def sums(version: Path, text: str) -> None:
    touch(version / "SHA256SUMS", text.encode(errors="surrogateescape"))


def line(name: str, content: bytes, marker: str = " ") -> str:
    return f"{sha256(content)} {marker}{name}\n"


@pytest.mark.parametrize("marker", [" ", "*"])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_sums_that_match(version: Path, marker: str, prefix: str) -> None:
    touch(version / "weights" / "w x.bin", b"the weights")
    before = manifest(version).digest
    text = line(f"{prefix}model.onnx", b"the model", marker) + line(f"{prefix}weights/w x.bin", b"the weights", marker)
    sums(version, f"# a comment\n\n{text}")
    assert manifest(version).digest == before


def test_sums_in_upper_case(version: Path) -> None:
    sums(version, f"{sha256(b'the model').upper()}  model.onnx\n")
    manifest(version)


def test_sums_as_sha256sum_writes_them(version: Path) -> None:
    for name in ("w.bin", "a\\b.bin", "line\nbreak.bin", "carriage\rreturn.bin", os.fsdecode(b"w\xff.bin"), "ü.bin"):
        touch(version / name, name.encode(errors="surrogateescape"))
    for command in ("sha256sum * > SHA256SUMS", "sha256sum -b -- * > SHA256SUMS"):
        subprocess.run(command, shell=True, cwd=version, check=True)
        assert len(manifest(version).files) == 7
    command = "find . -type f -print0 | xargs -0 sha256sum > ../SUMS && mv ../SUMS SHA256SUMS"
    subprocess.run(command, shell=True, cwd=version, check=True)
    manifest(version)


def test_sums_also_hold_for_files_that_are_not_loaded(version: Path) -> None:
    touch(version / "labels.txt", b"labels")
    sums(version, line("model.onnx", b"the model") + line("labels.txt", b"labels"))
    manifest(version)
    sums(version, line("model.onnx", b"the model") + line("labels.txt", b"others"))
    assert f"'labels.txt' has sha256 {sha256(b'labels')}, but SHA256SUMS says {sha256(b'others')}" in refusal(version)


def test_sums_of_a_model_in_a_folder(version: Path) -> None:
    touch(version / "net" / "model.onnx", b"in a folder")
    sums(version, line("net/model.onnx", b"in a folder"))
    manifest(version, "net")
    sums(version, line("model.onnx", b"the model"))
    assert "SHA256SUMS does not list 'net/model.onnx'" in refusal(version, "net")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (line("model.onnx", b"other"), f"'model.onnx' has sha256 {sha256(b'the model')}, but SHA256SUMS says "),
        ("", "SHA256SUMS does not list 'model.onnx', which is loaded: list it, or remove it"),
        (line("model.onnx", b"the model") + line("w.bin", b""), "'w.bin': No such file or directory"),
        (line("model.onnx", b"the model") + line("../2/w", b""), "'../2/w' is no path inside of its folder"),
        (line("model.onnx", b"the model") + line("/etc/passwd", b""), "'/etc/passwd' is no path inside of its folder"),
        (line("model.onnx", b"the model") + line("model.onnx", b""), "SHA256SUMS lists 'model.onnx' twice"),
        ("model.onnx\n", "SHA256SUMS line 1 is not '<sha256>  <name>'"),
        (f"{'0' * 63}  model.onnx\n", "SHA256SUMS line 1 is not"),
        (f"SHA256 (model.onnx) = {sha256(b'the model')}\n", "SHA256SUMS line 1 is not"),
        (line("model.onnx", b"the model").replace("\n", "\r\n"), r"'model.onnx\r': No such file"),
        (f"# {'x' * (1 << 20)}", "SHA256SUMS is larger than 1048576 bytes"),
    ],
)
def test_sums_that_do_not_match(version: Path, text: str, words: str) -> None:
    sums(version, text)
    assert words in refusal(version)


def test_weights_that_are_not_listed(version: Path) -> None:
    touch(version / "w.bin")
    sums(version, line("model.onnx", b"the model"))
    assert "SHA256SUMS does not list 'w.bin'" in refusal(version)


def test_sums_behind_a_link_out_are_not_read(version: Path) -> None:
    (version / "SHA256SUMS").symlink_to("/etc/passwd")
    assert "'SHA256SUMS' is an absolute link" in refusal(version)
