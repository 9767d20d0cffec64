"""What a repository offers beside a version's own file: which variant a server takes by itself, and what a variant's
report says of it in short."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from turnout.core.comparators import Precision
from turnout.core.ids import NO_VARIANT
from turnout.core.model import Artefact, Device
from turnout.core.variants import VariantReport

AUTO = "auto"
RESERVED = frozenset({AUTO, NO_VARIANT})

_HALF = re.compile(r"b?float16|fp16|bf16")
_INT8 = re.compile(r"int8")


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where models run by default, and what that makes cheaper. `vnni`: the processor multiplies 8-bit integers."""

    gpu: bool
    vnni: bool


def choose(
    wanted: str, hardware: Hardware, device: Device, base: Artefact, variants: Sequence[Artefact]
) -> tuple[Artefact, str]:
    """What a server loads by itself of a version, and what an operator should know of that; "": nothing.

    Args:
        wanted: `none`, `auto`, or a variant's name.
        device: where the model's configuration has it run.
    """
    if wanted == NO_VARIANT:
        return base, ""
    if wanted != AUTO:
        found = [each for each in variants if each.revision.variant == wanted]
        if not found:
            return base, f"--variant {wanted}: {base.revision} has no such variant, so its own file is used"
        return _standing(wanted, base, found)
    gpu = hardware.gpu if device is Device.AUTO else device is Device.GPU
    family, where = (_HALF, "fp16 on a GPU") if gpu else (_INT8, "int8 on this processor")
    found = [each for each in variants if family.match(each.revision.variant)]
    if not variants:
        return base, ""
    if not gpu and not hardware.vnni:
        found, where = [], "int8 on a processor with VNNI, which this is not"
    if not found:
        return base, f"--variant auto would take {where}: its own file is used"
    return _standing(AUTO, base, sorted(found, key=lambda each: (len(each.revision.variant), each.revision.variant)))


def _standing(wanted: str, base: Artefact, found: Sequence[Artefact]) -> tuple[Artefact, str]:
    """The first that may serve."""
    for each in found:
        if not each.problem and not each.doubts:
            return each, f"--variant {wanted}: {each.revision} ({summary(each)})"
    why = "; ".join(f"{each.revision.variant}: {each.problem or ', '.join(each.doubts)}" for each in found)
    return base, f"--variant {wanted}: its own file is used, {why}"


def agreement(report: VariantReport) -> float | None:
    """The least of its outputs' agreement with the version's; None: it has no classes and no labels."""
    shares = [share for output in report.outputs for share in (output.top1_agreement, output.agreement)]
    return min((share for share in shares if share is not None), default=None)


def size_ratio(report: VariantReport) -> float | None:
    """How many times smaller it is than the version."""
    return report.source_bytes / report.result_bytes if report.result_bytes else None


def summary(variant: Artefact) -> str:
    """What its report says, in a few words."""
    report = variant.report
    if report is None:
        return "no report"
    share, ratio = agreement(report), size_ratio(report)
    parts = [f"agreement {share:.4g}"] if share is not None else []
    parts += [f"{ratio:.3g} times smaller"] if ratio is not None else []
    return ", ".join(parts) or "a report without figures"


def precision_of(variant: str, report: VariantReport | None = None) -> Precision:
    """How coarse the numbers of a revision are, whatever datatype its outputs have. A variant of which neither the name
    nor the recipe says otherwise is taken for the coarsest."""
    if not variant:
        return Precision.SINGLE
    method = report.recipe.get("method") if report is not None else None
    half = any(_HALF.match(str(text)) for text in (variant, method))
    return Precision.HALF if half else Precision.QUANTIZED


def coarser(one: Precision, other: Precision) -> Precision:
    order = list(Precision)
    return max(one, other, key=order.index)
