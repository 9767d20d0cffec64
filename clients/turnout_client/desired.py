"""What a file declares of models: their slots, revisions, weights, sticky keys, pins and shadow rules; and a model
written as such a file. Knows no server and decides nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from turnout_client import shadows
from turnout_client.shadows import ShadowSpec, shadows_of
from turnout_client.written import BASIS_POINTS, SpecError, mapping, percent, share, text, wrong
from turnout_wire.gen import slots_pb2 as pb

REST = "rest"
_REVISION = re.compile(r"((?P<model>[^/@]+)/)?(?P<version>\d+)(@(?P<variant>[^/@]+))?")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RevisionSpec:
    """Which revision a slot should hold; without a digest, whatever its files are."""

    version: int
    variant: str = ""
    digest: str = ""

    def text(self, model: str) -> str:
        return f"{model}/{self.version}" + (f"@{self.variant}" if self.variant else "")


@dataclass(frozen=True, slots=True)
class Sticky:
    """Where the key is read from; both empty: the server's default. Salt "": the model's name."""

    metadata_key: str = ""
    request_parameter: str = ""
    salt: str = ""


@dataclass(frozen=True, slots=True, order=True)
class PinSpec:
    metadata_key: str
    value: str
    slot: str


@dataclass(frozen=True, slots=True)
class DesiredModel:
    """One model as it should be. None: as it is now. Weights name the slots that get traffic, in basis points."""

    name: str
    slots: Mapping[str, RevisionSpec] = field(default_factory=dict)
    weights: Mapping[str, int] | None = None
    sticky: Sticky | None = None
    pins: tuple[PinSpec, ...] | None = None
    shadows: tuple[ShadowSpec, ...] | None = None


def revision(text: object, model: str, where: str = "revision") -> RevisionSpec:
    """`2`, `2@int8` or `digits/2@int8`."""
    match = _REVISION.fullmatch(str(text)) if isinstance(text, str | int) and not isinstance(text, bool) else None
    if match is None:
        raise SpecError(f"{where}: {text!r} is no revision: write VERSION, VERSION@VARIANT or MODEL/VERSION@VARIANT")
    if match["model"] not in (None, model):
        raise SpecError(f"{where}: {text!r} is a revision of another model than '{model}'")
    return RevisionSpec(int(match["version"]), match["variant"] or "")


def shares(named: Mapping[str, object], where: str = "weights") -> dict[str, int]:
    """Shares as basis points: `10%`, `10.25%`, basis points (`1000`, `1000bp`), and `rest` for one slot. Slots without
    any are left out.

    Raises:
        SpecError: a share that cannot be read, or a sum that is not 100 %.
    """
    found = {slot: share(amount, f"{where}: {slot}", ", or rest") for slot, amount in named.items() if amount != REST}
    rest = [slot for slot, amount in named.items() if amount == REST]
    if len(rest) > 1:
        raise SpecError(f"{where}: only one slot can take the rest, not {' and '.join(rest)}")
    missing = BASIS_POINTS - sum(found.values())
    if rest and missing >= 0:
        found[rest[0]] = missing
    elif missing:
        raise SpecError(
            f"{where}: shares add up to {percent(BASIS_POINTS - missing)}, and must to 100 %"
            + ("" if rest else "; one slot may be given as 'rest'")
        )
    return {slot: amount for slot, amount in found.items() if amount}


def parse(text: str) -> list[DesiredModel]:
    """The models that a file of `turnoutctl apply` declares.

    Raises:
        SpecError
    """
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except SpecError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"not YAML: {' '.join(str(error).split())}") from None
    models = mapping(mapping(raw, "the file", {"models"}).get("models"), "models")
    return [_model(name, mapping(spec, f"models: {name}", _MODEL_KEYS)) for name, spec in models.items()]


class _Loader(yaml.SafeLoader):
    """Refuses a name that is there twice: YAML would take the last one, silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise SpecError(f"'{twice}' is there twice, in line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


_MODEL_KEYS = {"slots", "weights", "sticky_key", "pins", "shadows"}
_STICKY_KEYS = {"metadata_key", "request_parameter", "salt"}


def _model(name: str, spec: Mapping[str, Any]) -> DesiredModel:
    where = f"models: {name}"
    slots = {}
    for slot, held in mapping(spec.get("slots") or {}, f"{where}: slots").items():
        slots[slot] = _held(held, name, f"{where}: slots: {slot}")
    weights = sticky = pins = rules = None
    if "weights" in spec:
        weights = shares(mapping(spec["weights"], f"{where}: weights"), f"{where}: weights")
    if "sticky_key" in spec:
        sticky = _sticky(mapping(spec["sticky_key"] or {}, f"{where}: sticky_key", _STICKY_KEYS), where)
    if "pins" in spec:
        pins = _pins(spec["pins"] or [], f"{where}: pins")
    if "shadows" in spec:
        rules = shadows.parsed(spec["shadows"] or {}, f"{where}: shadows")
    return DesiredModel(name, slots, weights, sticky, pins, rules)


def _held(held: object, model: str, where: str) -> RevisionSpec:
    if not isinstance(held, Mapping):
        return revision(held, model, where)
    held = mapping(held, where, {"revision", "digest"})
    found = revision(held.get("revision"), model, f"{where}: revision")
    digest = held.get("digest", "")
    if not isinstance(digest, str) or (digest and not _DIGEST.fullmatch(digest)):
        raise SpecError(f"{where}: digest: {digest!r} is not 64 hexadecimal digits in lower case")
    return RevisionSpec(found.version, found.variant, digest)


def _sticky(spec: Mapping[str, Any], where: str) -> Sticky:
    values = {key: text(value, f"{where}: sticky_key: {key}") for key, value in spec.items()}
    if values.get("metadata_key") and values.get("request_parameter"):
        raise SpecError(f"{where}: sticky_key: metadata_key or request_parameter, not both")
    return Sticky(**values)


def _pins(spec: object, where: str) -> tuple[PinSpec, ...]:
    if not isinstance(spec, Sequence) or isinstance(spec, str):
        wrong(where, spec, "a list")
    found = []
    for number, raw in enumerate(spec):
        pin = mapping(raw, f"{where}[{number}]", {"metadata_key", "value", "slot"})
        if len(pin) != 3:
            raise SpecError(f"{where}[{number}]: a pin has metadata_key, value and slot")
        found.append(
            PinSpec(*(text(pin[key], f"{where}[{number}]: {key}") for key in ("metadata_key", "value", "slot")))
        )
    return tuple(found)


def exported(models: Sequence[pb.Model], digests: bool = False) -> str:
    """The models as a file of which `apply` is a no-op. Slots that hold nothing usable are left out. What is as by
    default is written too, as an empty value: the file says all there is."""
    written = {"models": {model.name: _exported(model, digests) for model in models}}
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True)


def _exported(model: pb.Model, digests: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {"slots": {}}
    for slot in model.slots:
        if slot.state in (pb.SLOT_STATE_READY, pb.SLOT_STATE_WARMING, pb.SLOT_STATE_LOADING):
            name = RevisionSpec(slot.revision.version, slot.revision.variant).text(model.name)
            spec["slots"][slot.name] = {"revision": name, "digest": slot.digest} if digests and slot.digest else name
    if weights := weights_of(model):
        spec["weights"] = {slot: percent(weight) for slot, weight in weights.items()}
    sticky = sticky_of(model)
    if model.HasField("route"):
        spec["sticky_key"] = {key: value for key in sorted(_STICKY_KEYS) if (value := getattr(sticky, key))}
    spec["pins"] = [{"metadata_key": pin.metadata_key, "value": pin.value, "slot": pin.slot} for pin in pins_of(model)]
    spec["shadows"] = shadows.exported(shadows_of(model).values())
    return spec


def weights_of(model: pb.Model) -> dict[str, int]:
    return {weight.slot: weight.weight_bp for weight in model.route.weights if weight.weight_bp}


def sticky_of(model: pb.Model) -> Sticky:
    key = model.route.sticky_key
    return Sticky(key.metadata_key, key.request_parameter, "" if key.salt == model.name else key.salt)


def pins_of(model: pb.Model) -> tuple[PinSpec, ...]:
    return tuple(PinSpec(pin.metadata_key, pin.value, pin.slot) for pin in model.route.pins)
