"""A version of a model, and the variants beside it, as artefacts: hashed, with what their reports and their own files
say against them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from turnout.core.errors import LoadError
from turnout.core.ids import Revision
from turnout.core.model import Artefact, OpenArtefact
from turnout.core.variants import stands
from turnout.store.contained import Folder
from turnout.store.golden import read_golden
from turnout.store.manifest import Manifest, read_manifest
from turnout.store.model_config import ModelConfiguration
from turnout.store.variant_files import read_report, variants_in

VARIANTS_MAX = 64  # of one version: each is hashed and held against what lies beside it, and told to whoever asks

Read = tuple[Artefact, Manifest | None]


def read_version(folder: Folder, configuration: ModelConfiguration, version: int) -> Read:
    """The version's own model file; blocks. An upload that has not come far costs that version alone."""
    revision = Revision(configuration.name, version, "", "")
    try:
        manifest = read_manifest(folder, version, configuration.filename, configuration.execution().op_libraries)
    except LoadError as refusal:
        return _refused(revision, refusal), None
    return _artefact(revision, manifest), manifest


def read_variants(
    folder: Folder, configuration: ModelConfiguration, version: int, base: Manifest, only: str = ""
) -> list[Read]:
    """The variants beside a version's model file, by name, or `only` one; blocks. Of more than VARIANTS_MAX the next
    one stands for all that are left out.

    Args:
        base: the version's own manifest, which the reports must be of.
    """
    try:
        names = variants_in(base.model, base.folder.names())
    except (LoadError, OSError):
        return []  # the version has gone since it was read, which its own load tells
    named = [Revision(configuration.name, version, name, "") for name in names if only in ("", name)]
    read = [_read_variant(folder, configuration, revision, base) for revision in named[:VARIANTS_MAX]]
    if left_out := named[VARIANTS_MAX:]:
        many = f"version {version} has {len(named)} variants, the limit is {VARIANTS_MAX}: remove some"
        read.append((_refused(left_out[0], LoadError(many)), None))
    return read


def _read_variant(folder: Folder, configuration: ModelConfiguration, revision: Revision, base: Manifest) -> Read:
    libraries = configuration.execution().op_libraries
    try:
        manifest = read_manifest(folder, revision.version, configuration.filename, libraries, revision.variant)
    except LoadError as refusal:
        return _refused(revision, refusal), None
    artefact = _artefact(revision, manifest)
    try:
        report = read_report(manifest.folder, base.model, revision.variant)
    except LoadError as missing:
        return replace(artefact, doubts=(str(missing),)), manifest
    return replace(artefact, report=report, doubts=stands(report, base.digest, manifest.digest)), manifest


def _artefact(revision: Revision, manifest: Manifest) -> Artefact:
    size = sum(file.size for _, file in manifest.named())
    named = replace(revision, digest=manifest.digest)
    return Artefact(named, manifest.open, golden=partial(read_golden, manifest.folder), size_bytes=size)


def _refused(revision: Revision, refusal: LoadError) -> Artefact:
    return Artefact(revision, partial(_refuse, str(refusal)), str(refusal))


@contextmanager
def _refuse(problem: str) -> Iterator[OpenArtefact]:
    raise LoadError(problem)
    yield
