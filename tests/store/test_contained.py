"""Containment: what links, hard links and odd files may lead to, and that nothing outside is ever opened."""

from __future__ import annotations

import gc
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnout.core.errors import LoadError
from turnout.store.contained import Folder, Root

SECRET = b"of another owner"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository beside what it must not reach."""
    (tmp_path / "outside" / "1").mkdir(parents=True)
    (tmp_path / "outside" / "1" / "w").write_bytes(SECRET)
    (tmp_path / "repository" / "m" / "1").mkdir(parents=True)
    (tmp_path / "repository" / "m" / "1" / "w").write_bytes(b"inside")
    return tmp_path / "repository"


@pytest.fixture
def folder(root: Path) -> Folder:
    return Folder(Root(root))


def open_paths(below: Path) -> list[str]:
    """What this process has open there."""
    gc.collect()
    paths = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # of the listing itself
            paths.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [path for path in paths if path.startswith(str(below))]


@pytest.fixture(autouse=True)
def _nothing_but_the_root_stays_open(tmp_path: Path, root: Path) -> Iterator[None]:
    yield
    assert {*open_paths(tmp_path)} <= {str(root)}


def test_the_root_is_open_as_long_as_a_folder_of_it_is_known(root: Path) -> None:
    version = Folder(Root(root)).folder("m").folder("1")
    assert open_paths(root) == [str(root)]
    assert read(version, "w") == b"inside"
    del version
    assert open_paths(root) == []


def link(root: Path, name: str, target: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def read(folder: Folder, relative: str) -> bytes:
    return folder.read(relative, 100)


# Links. Each layout: links by name, then a path, then what is read there or why it is not.

INSIDE: list[tuple[str, dict[str, str], str]] = [
    ("beside", {"m/1/l": "w"}, "m/1/l"),
    ("with a dot", {"m/1/l": "./w"}, "m/1/l"),
    ("doubled slashes", {"m/1/l": ".././/1//w"}, "m/1/l"),
    ("up and down again", {"m/2/l": "../1/w"}, "m/2/l"),
    ("to the root and down", {"m/2/l": "../../m/1/w"}, "m/2/l"),
    ("a version's folder", {"m/2": "1"}, "m/2/w"),
    ("a model's folder", {"n": "m"}, "n/1/w"),
    ("through a hidden folder", {"n": ".store/m", ".store/m": "../m"}, "n/1/w"),
    ("a link to a link", {"m/1/a": "b", "m/1/b": "c", "m/1/c": "w"}, "m/1/a"),
    ("up out of a linked folder", {"n/1": "../m/1", "m/1/l": "../1/w"}, "n/1/l"),
    ("ConfigMap", {"k/1/w": "..data/w", "k/1/..data": "..2026_11_21", "k/1/..2026_11_21": "../../m/1"}, "k/1/w"),
    ("Hugging Face's cache", {"blobs/abc": "../m/1/w", "snapshots/x/w": "../../blobs/abc"}, "snapshots/x/w"),
]


@pytest.mark.parametrize(("links", "path"), [row[1:] for row in INSIDE], ids=[row[0] for row in INSIDE])
def test_links_that_stay_inside_are_followed(root: Path, folder: Folder, links: dict[str, str], path: str) -> None:
    for name, target in links.items():
        link(root, name, target)
    assert read(folder, path) == b"inside"
    above, _, name = path.rpartition("/")
    assert name in folder.folder(above).names()
    assert read(folder.folder(above), name) == b"inside"


OUTSIDE: list[tuple[str, dict[str, str], str, str]] = [
    ("parent", {"m/1/l": "../../../outside/1/w"}, "m/1/l", "leads out of the model repository"),
    ("parent of the root's", {"l": "../outside/1/w"}, "l", "leads out of the model repository"),
    ("out and in again", {"m/1/l": "../../../repository/m/1/w"}, "m/1/l", "leads out of the model repository"),
    ("absolute", {"m/1/l": "{outside}/1/w"}, "m/1/l", "is an absolute link"),
    ("absolute, to inside", {"m/1/l": "{root}/m/1/w"}, "m/1/l", "is an absolute link"),
    ("proc", {"m/1/l": "/proc/self/environ"}, "m/1/l", "is an absolute link"),
    ("a version's folder", {"m/2": "../../outside/1"}, "m/2/w", "leads out of the model repository"),
    ("a model's folder", {"n": "{outside}"}, "n/1/w", "is an absolute link"),
    ("by way of one inside", {"m/1/l": "b", "m/1/b": "../../../outside/1/w"}, "m/1/l", "leads out"),
    ("up out of a linked folder", {"n": "m/1", "m/1/l": "../../../outside/1/w"}, "n/l", "leads out"),
    ("circle of one", {"m/1/l": "l"}, "m/1/l", "more than 40 links"),
    ("circle of two", {"m/1/l": "k", "m/1/k": "l"}, "m/1/l", "more than 40 links"),
    ("circle of folders", {"a": "b", "b": "a"}, "a/1/w", "more than 40 links"),
]


@pytest.mark.parametrize(("links", "path", "words"), [row[1:] for row in OUTSIDE], ids=[row[0] for row in OUTSIDE])
def test_links_that_lead_outside_are_not(
    root: Path, folder: Folder, links: dict[str, str], path: str, words: str
) -> None:
    for name, target in links.items():
        link(root, name, target.format(root=root, outside=root.parent / "outside"))
    for use in (folder.open, lambda path: read(folder, path), folder.status, folder.folder):
        with pytest.raises(LoadError, match=words) as refused:
            use(path)
        assert str(root.parent) not in str(refused.value)


def test_forty_links_are_followed_and_one_more_is_not(root: Path, folder: Folder) -> None:
    for number in range(41):
        link(root, f"l{number}", f"l{number - 1}" if number else "m/1/w")
    assert read(folder, "l39") == b"inside"
    with pytest.raises(LoadError, match="more than 40 links"):
        read(folder, "l40")


def test_a_link_to_nothing_is_missing(root: Path, folder: Folder) -> None:
    link(root, "m/1/l", "nothing")
    with pytest.raises(FileNotFoundError):
        read(folder, "m/1/l")


def test_a_file_is_no_folder_and_a_folder_no_file(root: Path, folder: Folder) -> None:
    link(root, "f", "m/1/w/")
    link(root, "d", "m/1/.")
    for path in ("m/1/w/x", "f", "f/x"):
        with pytest.raises(NotADirectoryError):
            read(folder, path)
    with pytest.raises(NotADirectoryError):
        folder.folder("m/1/w")
    for path in ("m/1", "d"):
        with pytest.raises(LoadError, match="is a folder, no file"):
            read(folder, path)
    assert folder.folder("d").names() == ["w"]


def test_the_root_may_itself_be_reached_by_links(root: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(root)
    assert read(Folder(Root(tmp_path / "linked")), "m/1/w") == b"inside"


def test_a_folder_may_be_passed_through_that_cannot_be_listed(root: Path, folder: Folder) -> None:
    (root / "m").chmod(0o111)
    try:
        assert read(folder, "m/1/w") == b"inside"
    finally:
        (root / "m").chmod(0o755)


# What is no regular file


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    folder = os.open(path.parent, os.O_DIRECTORY)  # a socket's path may have no more than 107 characters
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # as /dev/zero
    except PermissionError:
        pytest.skip("only root may make devices")


@pytest.mark.parametrize(("make", "kind"), [(fifo, "a FIFO"), (listening, "a socket"), (device, "a device")])
@pytest.mark.parametrize("linked", [False, True])
def test_odd_files_are_never_opened(
    root: Path, folder: Folder, make: Callable[[Path], None], kind: str, linked: bool
) -> None:
    make(root / "m" / "1" / "odd")
    link(root, "m/1/l", "odd")
    with pytest.raises(LoadError, match=f"is {kind}, no file"):
        read(folder, "m/1/l" if linked else "m/1/odd")


def test_a_fifo_that_takes_the_place_of_a_file_is_not_waited_for(
    root: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the moment between the look at it and its opening."""
    path = root / "m" / "1" / "w"
    real = os.open

    def swapping(name: str, flags: int, *args: int, **kwargs: int) -> int:
        if name == "w" and path.is_file():
            path.unlink()
            os.mkfifo(path)
        return real(name, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", swapping)
    with pytest.raises(LoadError, match="is a FIFO"):
        read(folder, "m/1/w")


@pytest.mark.parametrize("target", ["../../../outside/1/w", "../1/x"])
def test_a_link_that_takes_the_place_of_a_file_is_not_followed(
    root: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    path = root / "m" / "1" / "w"
    (root / "m" / "1" / "x").write_bytes(SECRET)
    real = os.open

    def swapping(name: str, flags: int, *args: int, **kwargs: int) -> int:
        if name == "w" and not path.is_symlink():
            path.unlink()
            path.symlink_to(target)
        return real(name, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", swapping)
    with pytest.raises(OSError, match="symbolic link"):
        read(folder, "m/1/w")


def test_a_link_that_takes_the_place_of_a_folder_is_not_followed(
    root: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / "m" / "1"
    real = os.open

    def swapping(name: str, flags: int, *args: int, **kwargs: int) -> int:
        if name == "1" and not path.is_symlink():
            path.rename(root / "m" / "old")
            path.symlink_to("../../outside/1")
        return real(name, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", swapping)
    with pytest.raises(NotADirectoryError):
        read(folder, "m/1/w")


# Hard links


def test_a_file_with_two_names_is_refused_unless_allowed(root: Path, folder: Folder) -> None:
    os.link(root.parent / "outside" / "1" / "w", root / "m" / "1" / "h")
    with pytest.raises(LoadError, match=r"'m/1/h' is a file with 2 names \(hard links\).*--allow-hard-links"):
        read(folder, "m/1/h")
    assert read(Folder(Root(root, allow_hard_links=True)), "m/1/h") == SECRET


# Sizes


def test_what_is_read_whole_is_bounded(root: Path, folder: Folder) -> None:
    (root / "f").write_bytes(b"x" * 100)
    assert len(folder.read("f", 100)) == 100
    with pytest.raises(LoadError, match="f is larger than 99 bytes"):
        folder.read("f", 99)


# Names

ODD = [
    "", ".", "..", "/", "//", "/etc/passwd", "m/..", "../outside/1/w", "m/../../outside/1/w", "m//1/w", "m/./1/w",
    "m/1/w/", "m/1/w\0", "\0", "m/1/../1/w",
]  # fmt: skip


@pytest.mark.parametrize("path", ODD)
def test_a_path_that_is_not_plain_is_refused(folder: Folder, path: str) -> None:
    for use in (folder.open, folder.status, folder.folder):
        with pytest.raises(LoadError, match="is no path inside of its folder"):
            use(path)


NOT_THERE = [
    " ..",
    "..\t",
    " ",
    "...",
    "model..",
    "%2e%2e",
    "..\\outside",
    "C:",
    "m/1/w ",
    "M/1/w",
    "x" * 300,
    "\ud800",
]


@pytest.mark.parametrize("path", NOT_THERE)
def test_names_mean_nothing_but_themselves(root: Path, folder: Folder, path: str) -> None:
    with pytest.raises((OSError, UnicodeEncodeError)):
        read(folder, path)


name = st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=300) | st.sampled_from(
    ["..", ".", "m", "1", "w", "%2e%2e", "..%2f", " ..", "..;", "outside", "repository"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(parts=st.lists(name, min_size=1, max_size=8))
def test_no_path_reads_what_is_outside(root: Path, folder: Folder, parts: list[str]) -> None:
    try:
        content = read(folder, "/".join(parts))
    except (LoadError, OSError, UnicodeEncodeError):
        return
    assert content == b"inside"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(targets=st.lists(st.lists(name, min_size=1, max_size=8), min_size=1, max_size=4))
def test_no_link_reads_what_is_outside(root: Path, folder: Folder, targets: list[list[str]]) -> None:
    """Chains of arbitrary links: each is the next one's first part."""
    for old in (root / "m" / "1").glob("l*"):
        old.unlink()
    for number, parts in enumerate(targets):
        target = "/".join([f"l{number + 1}", *parts] if number + 1 < len(targets) else parts)
        try:
            (root / "m" / "1" / f"l{number}").symlink_to(target)
        except (OSError, UnicodeEncodeError):
            return
    try:
        content = read(folder, "m/1/l0")
    except (LoadError, OSError):
        return
    assert content == b"inside"
