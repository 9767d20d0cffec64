"""A model's variants as clients of the inference protocol are told of them, which has no word for them: as a parameter
of metadata and configuration, and in the reasons of the index."""

from __future__ import annotations

import json
from collections.abc import Mapping

from turnout.core.model import Artefact
from turnout.core.offers import agreement, size_ratio
from turnout.core.slots import SlotState
from turnout.runtime.fleet import Model
from turnout.runtime.slot import Slot
from turnout_wire.varint import to_varint

PARAMETER = "turnout_variants"
_PROPERTIES = 6


def as_parameter(model: Model, version: int | None) -> dict[str, str]:
    """The variants of a version (None: of all), as one JSON text; nothing where there are none."""
    told = [_told(model, each) for each in model.variants if version in (None, each.revision.version)]
    return {PARAMETER: json.dumps(told, separators=(",", ":"))} if told else {}


def as_properties(texts: Mapping[str, str]) -> bytes:
    """The field `properties` (6, a map) of a ModelMetadataResponse, which the Open Inference Protocol has and Triton's
    definitions, which ours equal, have not: clients of the one read it, clients of the other skip it."""
    wire = b""
    for name, text in texts.items():
        entry = _field(1, name.encode()) + _field(2, text.encode())
        wire += _field(_PROPERTIES, entry)
    return wire


def index_note(model: Model, slot: Slot) -> str:
    """Which variant a slot holds; of a version's own file, which variants there are and what keeps them."""
    held = slot.revision
    if held is None:
        return ""
    if held.variant:
        return f"variant {held.variant} in slot '{slot.name}'"
    beside = [each for each in model.variants if each.revision.version == held.version]
    return "variants: " + ", ".join(_brief(model, each) for each in beside) if beside else ""


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + to_varint(len(content)) + content


def _told(model: Model, variant: Artefact) -> dict[str, object]:
    report = variant.report
    return {
        "revision": str(variant.revision),
        "slots": _slots(model, variant),
        "stands": not _why_not(variant),
        "why_not": _why_not(variant),
        "agreement": agreement(report) if report is not None else None,
        "size_ratio": size_ratio(report) if report is not None else None,
    }


def _brief(model: Model, variant: Artefact) -> str:
    slots, name = _slots(model, variant), variant.revision.variant
    if slots:
        return f"{name} in {', '.join(slots)}"
    return f"{name} (refused: {why})" if (why := _why_not(variant)) else f"{name} (not loaded)"


def _why_not(variant: Artefact) -> str:
    return variant.problem or "; ".join(variant.doubts)


def _slots(model: Model, variant: Artefact) -> list[str]:
    """Those that are READY with it."""
    ready = (slot for slot in model.slots.values() if slot.state is SlotState.READY and slot.revision is not None)
    return sorted(slot.name for slot in ready if str(slot.revision) == str(variant.revision))
