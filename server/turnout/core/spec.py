"""What weights, sticky keys and pins may be asked for: their bounds, with the field that is at fault."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from turnout.core.buckets import BASIS_POINTS
from turnout.core.errors import ControlError, Refusal
from turnout.core.routing import Pin, StickyKey

PINS_MAX = 64  # each is compared for every request that pins nothing itself
_SALT_CHARACTERS_MAX = 64
_VALUE_CHARACTERS_MAX = 256
_METADATA_NAME = re.compile(r"[a-z0-9_.-]{1,128}")  # as gRPC takes them, in lower case
_PARAMETER_CHARACTERS_MAX = 128


def check_weights(weights: Mapping[str, int]) -> None:
    """Raises:
    ControlError: INVALID_SPEC, a weight is out of its bounds or they do not add up.
    """
    for slot, weight in weights.items():
        if not 0 <= weight <= BASIS_POINTS:
            raise _invalid(f"the weight of slot '{slot}' is {weight}, it must be from 0 to {BASIS_POINTS}", "weights")
    if (total := sum(weights.values())) != BASIS_POINTS:
        raise _invalid(
            f"the weights add up to {total} basis points, they must to {BASIS_POINTS} (100 %): "
            "a slot that is not named gets nothing",
            "weights",
        )


def check_sticky(sticky: StickyKey) -> None:
    """Raises:
    ControlError: INVALID_SPEC.
    """
    if sticky.metadata:
        _check_metadata(sticky.metadata, "sticky_key.metadata_key")
    if len(sticky.parameter) > _PARAMETER_CHARACTERS_MAX:
        raise _invalid(f"a name has at most {_PARAMETER_CHARACTERS_MAX} characters", "sticky_key.request_parameter")
    if len(sticky.salt) > _SALT_CHARACTERS_MAX:
        raise _invalid(
            f"the salt has {len(sticky.salt)} characters, the limit is {_SALT_CHARACTERS_MAX}", "sticky_key.salt"
        )


def check_pins(pins: Sequence[Pin]) -> None:
    """Raises:
    ControlError: INVALID_SPEC.
    """
    if len(pins) > PINS_MAX:
        raise _invalid(f"there are {len(pins)} pins, the limit is {PINS_MAX}", "pins")
    for index, pin in enumerate(pins):
        _check_metadata(pin.metadata, f"pins[{index}].metadata_key")
        if len(pin.value) > _VALUE_CHARACTERS_MAX:
            raise _invalid(f"a pin's value has at most {_VALUE_CHARACTERS_MAX} characters", f"pins[{index}].value")


def _check_metadata(name: str, field: str) -> None:
    if not _METADATA_NAME.fullmatch(name) or name.endswith("-bin") or name.startswith("grpc-"):
        raise _invalid(
            f"'{name[:128]}' is no name of text metadata: lower-case letters, digits, _ . -, not ending in -bin, not "
            "beginning with grpc-",
            field,
        )


def _invalid(message: str, field: str) -> ControlError:
    return ControlError(Refusal.INVALID_SPEC, message, field)
