"""Variants in the folder of a version: which there are, which files are whose, and their reports."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath

from turnout.core.errors import LoadError
from turnout.core.offers import RESERVED
from turnout.core.variants import VariantReport, is_variant, report_file, variant_file
from turnout.store.contained import Folder

_REPORT_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whose the files beside a model file are, by their names.

    Attributes:
        own: how the names of its own files begin, if it is a variant: `model.int8.`; else "".
        foreign: how those of (other) variants begin: they are not part of it.
    """

    own: str
    foreign: tuple[str, ...]

    @classmethod
    def of(cls, model: str, names: Collection[str]) -> Ownership:
        base = _base(model, names)
        stem = PurePosixPath(base).stem
        owners = [(variant, f"{stem}.{variant}.") for variant in variants_in(base, names)]
        own = next((prefix for variant, prefix in owners if variant_file(base, variant) == model), "")
        return cls(own, tuple(prefix for _, prefix in owners if prefix != own))

    def is_own(self, name: str) -> bool:
        return bool(self.own) and name.startswith(self.own)

    def is_foreign(self, name: str) -> bool:
        return name.startswith(self.foreign)


def variants_in(base: str, names: Collection[str]) -> list[str]:
    """The variants of a model file among the names of its folder: int8, for `model.int8.onnx` beside `model.onnx`."""
    names = frozenset(names)
    path = PurePosixPath(base)
    before, after = f"{path.stem}.", path.suffix
    middles = [name.removeprefix(before).removesuffix(after) for name in names if name != base]
    reserved = RESERVED | {after.removeprefix(".")}  # `model.onnx.data` is the weights of `model.onnx`
    found = {middle for middle in middles if is_variant(middle) and middle not in reserved}
    return sorted(variant for variant in found if variant_file(base, variant) in names)


def read_report(folder: Folder, base: str, variant: str) -> VariantReport:
    """What stands beside a variant's file of how it was made. Blocks.

    Raises:
        LoadError: there is none, or it cannot be read.
    """
    name = report_file(base, variant)
    try:
        return VariantReport.from_json(json.loads(folder.read(name, _REPORT_BYTES_MAX)))
    except FileNotFoundError:
        raise LoadError(f"there is no report '{name}' beside it") from None
    except OSError as error:
        raise LoadError(f"its report '{name}' cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # no text, no JSON, or no report
        raise LoadError(f"its report '{name}' is none: {str(error)[:200]}") from None


def _base(model: str, names: Collection[str]) -> str:
    """The version's own model file: itself, unless it is the variant of another."""
    path = PurePosixPath(model)
    stem, _, variant = path.stem.rpartition(".")
    base = f"{stem}{path.suffix}"
    return base if stem and base in names and variant in variants_in(base, names) else model
