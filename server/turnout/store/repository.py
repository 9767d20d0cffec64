"""Reads a model repository in Triton's layout: `<model>/<version>/model.onnx`, optionally `<model>/config.pbtxt`.

Nothing is ever written, and nothing outside of it opened. A model with a problem is listed with its reason, so that the
others can serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from turnout.core.errors import ControlError, LoadError, Refusal
from turnout.core.gates import Gate
from turnout.core.ids import is_name, parse_version, printable
from turnout.core.model import Artefact, Execution, ModelSpec
from turnout.core.tensors import Signature
from turnout.core.variants import is_variant, variant_file
from turnout.store.checksums import CHECKSUMS
from turnout.store.complete import complete
from turnout.store.contained import Folder, Root
from turnout.store.hashes import Hashes
from turnout.store.manifest import Manifest
from turnout.store.model_config import ModelConfiguration
from turnout.store.named_files import ReadFile, no_files
from turnout.store.versions import Read, read_variants, read_version

_CONFIG = "config.pbtxt"
_CONFIG_BYTES_MAX = 1 << 20
_HASHES_MAX = 16_384  # files that are listed without being read again; half a kilobyte each


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What a model may ask for; each has its flag in config.py.

    Attributes:
        batch_rows_default: max_batch_size for models that can batch and do not say how far (Triton's default is 4).
        batch_rows_max: the largest max_batch_size; warm-up makes inputs of that many rows.
        instances_max: the largest instance_group count; each is a thread.
        op_libraries: models may bring libraries of custom operators: native code that runs inside the server.
        hard_links: files may have other names, which may be outside of the repository.
        refuse_nonfinite: for models that do not say whether an answer with a NaN or an infinity is an error.
    """

    batch_rows_default: int = 4
    batch_rows_max: int = 4096
    instances_max: int = 64
    op_libraries: bool = False
    hard_links: bool = False
    refuse_nonfinite: bool = False


@dataclass(frozen=True)
class Repository:
    """A folder of models."""

    root: Path
    limits: ModelLimits = ModelLimits()
    _listed: Hashes = field(default_factory=partial(Hashes, _HASHES_MAX), init=False, repr=False, compare=False)

    def models(self) -> list[RepositoryModel]:
        """Every model folder, by name; blocks, since all files are hashed.

        Raises:
            LoadError: the repository itself is not there, or cannot be read.
        """
        try:
            root = Folder(Root(self.root, self.limits.hard_links))
            names = root.names()
        except (FileNotFoundError, NotADirectoryError):
            raise LoadError(f"model repository '{self.root}' is not a folder: see --model-repository") from None
        except OSError as error:
            raise LoadError(f"model repository '{self.root}' cannot be read: {error.strerror}") from None
        models = (self._model(root, name) for name in names if not name.startswith("."))
        return [model for model in models if model is not None]

    def find(self, model: str, version: int | None, variant: str = "") -> tuple[RepositoryModel, Artefact]:
        """One version as it is now, also one that the version policy leaves out; blocks, since its files are hashed.

        Args:
            version: None: the newest that the version policy allows.

        Raises:
            ControlError: REVISION_NOT_FOUND, MANIFEST_MISMATCH, or GATE_FAILED where its files cannot be used.
        """
        title = f"{model[:128]}/{version or 'newest'}" + (f"@{variant[:64]}" if variant else "")
        try:
            root = Folder(Root(self.root, self.limits.hard_links))
            found = self._model(root, model, version) if is_name(model) and model in root.names() else None
        except OSError as error:
            raise _not_found(title, f"the repository cannot be read: {error.strerror}") from error
        if found is None:
            raise _not_found(title, f"the model repository has no folder '{model[:128]}'")
        if found.problem or not found.artefacts:
            raise _not_found(title, found.problem or "it is not in the model repository")
        artefact = found.artefacts[0]
        if variant and not artefact.problem:
            artefact = _of_variant(found, artefact, variant, title)
        if artefact.problem:
            mismatch = f"{CHECKSUMS} " in artefact.problem
            refusal = Refusal.MANIFEST_MISMATCH if mismatch else Refusal.GATE_FAILED
            raise ControlError(refusal, artefact.problem, gate=Gate.MANIFEST.value, revision=title)
        return found, artefact

    def offered(self, model: str) -> list[Artefact]:
        """Every version that is there now, also those that the version policy leaves out, each followed by its
        variants; none where the model cannot be used. Blocks; only files that are new to it are read, for it is a list,
        and who loads one of them reads them all."""
        try:
            root = Folder(Root(self.root, self.limits.hard_links, self._listed))
            found = self._model(root, model, all_versions=True) if is_name(model) and model in root.names() else None
        except OSError:
            found = None
        if found is None:
            return []
        return [artefact for artefact, _ in found.entries()]

    def _model(
        self, root: Folder, name: str, version: int | None = None, all_versions: bool = False
    ) -> RepositoryModel | None:
        """None: it is no folder. `version`: that one only, whatever the policy."""
        # Whatever characters the file system has; a backslash of its own stays apart from an escape's.
        title = name if is_name(name) else printable(name.replace("\\", "\\\\"))
        try:
            folder = root.folder(name)
            if not is_name(name):
                raise LoadError("its name has other characters than letters, digits, '.', '_' and '-', or over 128")
            configuration = ModelConfiguration.parse(name, _config_text(folder), self.limits.op_libraries)
            _check_limits(configuration, self.limits)
            artefacts, manifests = _versions(folder, configuration, version, all_versions)
        except NotADirectoryError:
            return None
        except LoadError as refusal:
            return RepositoryModel(title, problem=str(refusal))
        except OSError as error:
            return RepositoryModel(title, problem=f"cannot be read: {error.strerror}")
        return RepositoryModel(
            name,
            artefacts,
            configuration,
            self.limits.batch_rows_default,
            read_file=partial(_read, folder),
            manifests=manifests,
            folder=folder,
            refuse_nonfinite=self.limits.refuse_nonfinite,
        )


@dataclass(frozen=True)
class RepositoryModel:
    """One model of the repository: the runtime's ModelSource. `manifests` has those of its usable versions."""

    name: str
    artefacts: Sequence[Artefact] = ()
    configuration: ModelConfiguration | None = None
    batch_rows_default: int = 4
    problem: str = ""
    read_file: ReadFile = no_files
    manifests: Mapping[int, Manifest] = field(default_factory=dict)
    folder: Folder | None = None
    refuse_nonfinite: bool = False

    @cached_property
    def execution(self) -> Execution:
        return self.configuration.execution() if self.configuration else Execution()

    def entries(self) -> list[Read]:
        """Its versions by number, each followed by its variants; blocks, since the files of those are hashed."""
        found: list[Read] = []
        for base in sorted(self.artefacts, key=lambda artefact: artefact.revision.version):
            version = base.revision.version
            found += [(base, self.manifests.get(version)), *self.variant_manifests(version)]
        return found

    def variants(self, version: int) -> list[Artefact]:
        """Of a usable version, as they are now; blocks, since their files are hashed."""
        return [artefact for artefact, _ in self.variant_manifests(version)]

    def variant_manifests(self, version: int, only: str = "") -> list[Read]:
        """The same with their manifests, None for one that cannot be used; `only` one of them."""
        if self.folder is None or self.configuration is None or version not in self.manifests:
            return []
        return read_variants(self.folder, self.configuration, version, self.manifests[version], only)

    def complete(self, version: int, declared: Signature, batch: bool = True) -> ModelSpec:
        if self.configuration is None:
            raise LoadError(self.problem)
        spec = complete(self.configuration, declared, self.batch_rows_default if batch else 0, self.read_file)
        return replace(spec, refuse_nonfinite=self.configuration.refuse_nonfinite(self.refuse_nonfinite))


def _config_text(folder: Folder) -> str:
    try:
        return folder.read(_CONFIG, _CONFIG_BYTES_MAX).decode("utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise LoadError(f"{_CONFIG} is not UTF-8 text") from None


def _check_limits(configuration: ModelConfiguration, limits: ModelLimits) -> None:
    rows, instances = configuration.rows_max, configuration.execution().instances
    if rows > limits.batch_rows_max:
        raise LoadError(
            f"config.pbtxt: max_batch_size is {rows}, the limit is {limits.batch_rows_max}: --batch-rows-max"
        )
    if instances > limits.instances_max:
        raise LoadError(
            f"config.pbtxt: instance_group count is {instances}, the limit is {limits.instances_max}: --instances-max"
        )


def _not_found(title: str, why: str) -> ControlError:
    return ControlError(Refusal.REVISION_NOT_FOUND, f"no revision '{title}': {why}", revision=title)


def _of_variant(found: RepositoryModel, base: Artefact, variant: str, title: str) -> Artefact:
    """Raises:
    ControlError: REVISION_NOT_FOUND, naming the file that is missing and the variants that there are.
    """
    version = base.revision.version
    if is_variant(variant) and (one := found.variant_manifests(version, variant)):
        return one[0][0]
    known = ", ".join(each.revision.variant for each in found.variants(version)) or "none"
    file = variant_file(found.manifests[version].model, variant) if is_variant(variant) else variant[:64]
    raise _not_found(title, f"version {version} has no file '{file}', its variants are: {known}")


def _versions(
    folder: Folder, configuration: ModelConfiguration, only: int | None, all_versions: bool
) -> tuple[tuple[Artefact, ...], dict[int, Manifest]]:
    """What the policy allows, newest first; or only one, or all."""
    present = {version for name in folder.names() if (version := parse_version(name)) and _is_version(folder, name)}
    if not present:
        raise LoadError("it has no version folder: put the model into a folder named 1, 2, ...")
    if only is not None and only not in present:
        raise LoadError(f"it has no version {only}, it has {', '.join(map(str, sorted(present)))}")
    allowed = {only} if only is not None else present if all_versions else configuration.versions(present)
    read = [read_version(folder, configuration, version) for version in sorted(allowed, reverse=True)]
    manifests = {artefact.revision.version: manifest for artefact, manifest in read if manifest is not None}
    return tuple(artefact for artefact, _ in read), manifests


def _is_version(folder: Folder, name: str) -> bool:
    """Also a link that is not followed, so that it is listed with its reason."""
    try:
        folder.folder(name)
    except NotADirectoryError:
        return False
    except (LoadError, OSError):
        return True
    return True


def _read(folder: Folder, path: str, bytes_max: int) -> bytes:
    """The ReadFile of a model's folder."""
    try:
        return folder.read(path, bytes_max)
    except FileNotFoundError:
        raise LoadError(f"there is no file '{path}'") from None
    except OSError as error:
        raise LoadError(f"'{path}' cannot be read: {error.strerror}") from None
