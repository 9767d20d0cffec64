"""What a version consists of: its files with their sizes and sha256, the digest over them, and how they are opened
again to be loaded, so that what was hashed is what runs."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from turnout.core.errors import LoadError
from turnout.core.model import OpenArtefact
from turnout.core.variants import variant_file
from turnout.store.checksums import CHECKSUMS, read_checksums
from turnout.store.contained import Folder
from turnout.store.hashes import HashedFile, Identity, identity
from turnout.store.variant_files import Ownership

_NOT_WEIGHTS = {".onnx", ".npz", ".json", ".pbtxt", ".md", ".txt"}
_ENTRIES_MAX = 4096  # of one version; links between its folders can make up any number

_Opened = tuple[int, Identity]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version's files, and where to open them again.

    Attributes:
        model: the model file's name among `files`.
        folder: the model file's; names are relative to it.
        files: the model file and what lies beside it and may hold its weights: everything but other models, samples,
            reports, files of other variants, and what is hidden (uploads under way, Kubernetes' volumes).
        libraries: of custom operators, by name in `libraries_folder`.
    """

    model: str
    folder: Folder
    files: tuple[HashedFile, ...]
    libraries_folder: Folder
    libraries: tuple[HashedFile, ...] = ()

    @property
    def digest(self) -> str:
        """sha256 over names, sizes and sha256 of all of it."""
        total = hashlib.sha256()
        for name, file in self.named():
            total.update(f"{name}\0{file.size}\0{file.sha256}\n".encode(errors="surrogateescape"))
        return total.hexdigest()

    def named(self) -> Iterator[tuple[str, HashedFile]]:
        """All files, by names that tell libraries from the others."""
        for file in self.files:
            yield file.name, file
        for library in self.libraries:
            yield f"../{library.name}", library

    @contextmanager
    def open(self) -> Iterator[OpenArtefact]:
        """The files for as long as the context lasts.

        Raises:
            LoadError: one is not what was hashed, or no longer so when the context ends.
        """
        with ExitStack() as stack:
            files = {file.name: _reopen(self.folder, file, stack) for file in self.files}
            libraries = {file.name: _reopen(self.libraries_folder, file, stack) for file in self.libraries}
            opened = [*files.items(), *libraries.items()]
            try:
                yield OpenArtefact(self.model, _descriptors(files), _descriptors(libraries))
            except LoadError as error:
                _refuse_changed(opened, error)  # the reason, where half a file is what could not be loaded
                raise
            _refuse_changed(opened)


def read_manifest(
    model: Folder, version: int, filename: str, libraries: Sequence[str] = (), variant: str = ""
) -> Manifest:
    """Find and hash a version's files; blocks.

    Args:
        model: the model's folder, which holds the version's and the libraries.
        filename: of the model file in the version's folder; a folder stands for the `model.onnx` in it.
        variant: the one beside it instead.

    Raises:
        LoadError: a file is missing, is of a kind that is not taken, changes meanwhile, or is not what the version's
            SHA256SUMS says.
    """
    try:
        folder = model.folder(str(version))
        base, name = _model_file(folder, filename)
        name = variant_file(name, variant) if variant else name
        ownership = Ownership.of(name, base.names())
        weights = {path for path in _weights(base) if not ownership.is_foreign(path)}
        names = sorted({name, *weights}, key=lambda path: path.split("/"))
        files = tuple(_hashed(base, name) for name in names)
        _check_sums(folder, files, "" if base == folder else f"{filename}/", ownership)
        return Manifest(name, base, files, model, tuple(_hashed(model, library) for library in libraries))
    except LoadError as refusal:
        raise LoadError(f"{_title(version, variant)}: {refusal}") from refusal.__cause__
    except OSError as error:
        raise LoadError(f"{_title(version, variant)}: {error.strerror}") from error


def _title(version: int, variant: str) -> str:
    return f"version {version}" + (f"@{variant}" if variant else "")


def _model_file(folder: Folder, filename: str) -> tuple[Folder, str]:
    """The folder that the model file lies in, and its name there."""
    base, name = folder, filename
    try:
        if stat.S_ISDIR(folder.status(filename).st_mode):
            base, name = folder.folder(filename), "model.onnx"
            base.status(name)
    except FileNotFoundError:
        raise LoadError(f"it has no file '{filename}'") from None
    return base, name


def _weights(base: Folder) -> Iterator[str]:
    """Paths of what may hold weights, in this folder and in those below it."""
    entries = 0
    left: list[tuple[str, Folder, frozenset[tuple[int, int]]]] = [("", base, frozenset())]
    while left:
        prefix, folder, above = left.pop()
        if (place := folder.place()) in above:
            continue  # by a link in it, it is below itself
        names = folder.names()
        entries += len(names)
        if entries > _ENTRIES_MAX:
            raise LoadError(f"it has more than {_ENTRIES_MAX} files")
        for name in names:
            if name.startswith("."):
                continue
            path = prefix + name
            may_hold_weights = PurePosixPath(name).suffix not in _NOT_WEIGHTS and path != CHECKSUMS
            try:
                if stat.S_ISDIR(base.status(path).st_mode):
                    left.append((f"{path}/", base.folder(path), above | {place}))
                    continue
            except (LoadError, OSError) as error:
                if may_hold_weights:
                    raise _titled(path, error) from error
            if may_hold_weights:
                yield path


def _hashed(folder: Folder, name: str) -> HashedFile:
    """Raises:
    LoadError: naming the file.
    """
    try:
        return folder.hashed(name)
    except OSError as error:
        raise _titled(name, error) from error


def _check_sums(folder: Folder, files: Sequence[HashedFile], prefix: str, ownership: Ownership) -> None:
    """A variant is made where it is served, so its own files need not be listed; those of others are nothing to it.

    Raises:
        LoadError: the version's SHA256SUMS, where it has one, lacks a file or says that one is another.
    """
    expected = read_checksums(folder)
    if expected is None:
        return
    found = {prefix + file.name: file.sha256 for file in files}
    for name, sha256 in expected.items():
        if ownership.is_foreign(name.removeprefix(prefix)):
            continue
        if name not in found:
            found[name] = _hashed(folder, name).sha256
        if found[name] != sha256:
            raise LoadError(f"'{name}' has sha256 {found[name]}, but {CHECKSUMS} says {sha256}: copy it again")
    for name in found:
        if name not in expected and not ownership.is_own(name.removeprefix(prefix)):
            raise LoadError(f"{CHECKSUMS} does not list '{name}', which is loaded: list it, or remove it")


def _reopen(folder: Folder, file: HashedFile, stack: ExitStack) -> _Opened:
    """A descriptor of what was hashed. Network file systems give the same file other numbers: its content decides."""
    try:
        fd = folder.open(file.name)
        stack.callback(os.close, fd)
        found = identity(fd)
        if found == file.identity and file.settled:
            return fd, found
        with open(fd, "rb", closefd=False) as reader:
            sha256 = hashlib.file_digest(reader, "sha256").hexdigest()
    except FileNotFoundError:
        raise LoadError(f"'{file.name}' was removed since it was listed") from None
    except OSError as error:
        raise _titled(file.name, error) from error
    if sha256 != file.sha256:
        raise LoadError(f"'{file.name}' changed since it was listed: give changed files a version of their own")
    return fd, found


def _refuse_changed(opened: Sequence[tuple[str, _Opened]], cause: LoadError | None = None) -> None:
    for name, (fd, found) in opened:
        if identity(fd) != found:
            raise LoadError(
                f"'{name}' changed while it was loaded: give changed files a version of their own"
            ) from cause


def _descriptors(opened: Mapping[str, _Opened]) -> dict[str, int]:
    return {name: fd for name, (fd, _) in opened.items()}


def _titled(name: str, error: LoadError | OSError) -> LoadError:
    if isinstance(error, LoadError):
        return error
    remedy = ": a version's files are open together, raise the limit (ulimit -n)" if error.errno == errno.EMFILE else ""
    return LoadError(f"'{name}': {error.strerror}{remedy}")
