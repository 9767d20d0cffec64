"""What a shadow rule says: which requests a slot gets copies of, what they may take, and how answers are compared; the
bounds of all that, with the field that is at fault. The comparison itself is `core/divergence`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from turnout.core.buckets import BASIS_POINTS, bucket_of, salted
from turnout.core.errors import ControlError, Refusal
from turnout.core.tensors import Signature
from turnout_wire.tensors import DataType

SHADOWS_MAX = 8  # rules of one model: each may copy every request
COMPARATORS_MAX = 64
K_MAX = 1000
_SALT_CHARACTERS_MAX = 64
_OUTPUT_CHARACTERS_MAX = 512


class Method(Enum):
    """How two tensors are compared."""

    EXACT = "EXACT"  # equal elements
    ALLCLOSE = "ALLCLOSE"  # elements within atol + rtol * |live|
    ARGMAX = "ARGMAX"  # the same class in each row
    TOPK = "TOPK"  # the same k classes in each row, in any order
    COSINE = "COSINE"  # 1 - cosine of rows
    JS = "JS"  # Jensen-Shannon, of rows that are probabilities


@dataclass(frozen=True, slots=True)
class Comparator:
    """How one output is compared. None: what is usual for its datatype."""

    output: str
    method: Method
    atol: float | None = None
    rtol: float | None = None
    threshold: float | None = None
    k: int | None = None
    near_tie: float | None = None


@dataclass(frozen=True, slots=True)
class ShadowRule:
    """Copies of requests for one slot.

    Attributes:
        sample_bp: share of the requests that other slots answer, by a hash of the inference id.
        salt: rules with the same one choose the same requests.
        queue_max, bytes_max: of copies that wait; beyond them they are dropped.
        deadline_ns: a copy that has not run so long after its request was answered is dropped.
        noise_bp: share of the sampled requests that the live revision gets a second time.
    """

    slot: str
    sample_bp: int
    salt: str
    comparators: tuple[Comparator, ...]
    queue_max: int
    bytes_max: int
    deadline_ns: int
    noise_bp: int
    # Derived once, for the hot path.
    _sample_salt: bytes = field(init=False, repr=False, compare=False)
    _noise_salt: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Not the salt alone: it may be that of a sticky key, and sampled requests are to be of all keys.
        object.__setattr__(self, "_sample_salt", salted(f"shadow/{self.salt}"))
        object.__setattr__(self, "_noise_salt", salted(f"noise/{self.salt}"))

    def takes(self, inference_id: str) -> bool:
        """Whether a request is copied; the same in every process."""
        return bucket_of(self._sample_salt, inference_id) < self.sample_bp

    def repeats(self, inference_id: str) -> bool:
        """Whether a request that is copied also goes to its live revision once more, for the noise floor."""
        return bucket_of(self._noise_salt, inference_id) < self.noise_bp


@dataclass(frozen=True, slots=True)
class ShadowLimits:
    """What one rule may take of the server at most, and takes where it does not say. Each has its flag in config.py."""

    queue_max: int = 1024
    bytes_max: int = 64 << 20
    deadline_ns: int = 30 * 10**9

    def bounded(self, rule: ShadowRule) -> ShadowRule:
        """The rule with its zeroes filled in.

        Raises:
            ControlError: INVALID_SPEC, it asks for more.
        """
        _refuse_beyond("queue_max", rule.queue_max, self.queue_max, "--shadow-queue-max")
        _refuse_beyond("bytes_max", rule.bytes_max, self.bytes_max, "--shadow-bytes-max")
        _refuse_beyond("deadline", rule.deadline_ns / 1e9, self.deadline_ns / 1e9, "--shadow-deadline-s")
        return replace(
            rule,
            queue_max=rule.queue_max or self.queue_max,
            bytes_max=rule.bytes_max or self.bytes_max,
            deadline_ns=rule.deadline_ns or self.deadline_ns,
        )


def check_rule(rule: ShadowRule) -> None:
    """Raises:
    ControlError: INVALID_SPEC, naming the field.
    """
    if not 1 <= rule.sample_bp <= BASIS_POINTS:
        raise _invalid(f"the sample is {rule.sample_bp}, it must be from 1 to {BASIS_POINTS} basis points", "sample_bp")
    if not 0 <= rule.noise_bp <= BASIS_POINTS:
        raise _invalid(f"the noise is {rule.noise_bp}, it must be from 0 to {BASIS_POINTS} basis points", "noise_bp")
    if len(rule.salt) > _SALT_CHARACTERS_MAX:
        raise _invalid(f"the salt has {len(rule.salt)} characters, the limit is {_SALT_CHARACTERS_MAX}", "salt")
    for name, value in (("queue_max", rule.queue_max), ("bytes_max", rule.bytes_max), ("deadline", rule.deadline_ns)):
        if value < 1:
            raise _invalid(f"{name} is {value}, it must be at least 1", name)
    _check_comparators(rule.comparators)


def check_outputs(rule: ShadowRule, signature: Signature) -> None:
    """Raises:
    ControlError: INVALID_SPEC, a comparator is of no output of the model, or of one that it cannot compare.
    """
    for index, comparator in enumerate(rule.comparators):
        spec = signature.output_by_name.get(comparator.output)
        if spec is None:
            known = ", ".join(f"'{name}'" for name in signature.output_names)
            raise _invalid(
                f"the model has no output '{comparator.output[:128]}', it has {known}", f"comparators[{index}].output"
            )
        if spec.datatype is DataType.BYTES and comparator.method is not Method.EXACT:
            raise _invalid(
                f"output '{comparator.output}' is of BYTES, which only EXACT can compare",
                f"comparators[{index}].method",
            )


# What each method can be told, beyond which output.
_PARAMETERS: dict[Method, frozenset[str]] = {
    Method.EXACT: frozenset(),
    Method.ALLCLOSE: frozenset({"atol", "rtol"}),
    Method.ARGMAX: frozenset({"near_tie"}),
    Method.TOPK: frozenset({"k", "threshold"}),
    Method.COSINE: frozenset({"threshold"}),
    Method.JS: frozenset({"threshold"}),
}
_THRESHOLD_MAX = {Method.TOPK: 1.0, Method.COSINE: 2.0, Method.JS: 1.0}


def _check_comparators(comparators: Sequence[Comparator]) -> None:
    if len(comparators) > COMPARATORS_MAX:
        raise _invalid(f"there are {len(comparators)} comparators, the limit is {COMPARATORS_MAX}", "comparators")
    seen = set()
    for index, comparator in enumerate(comparators):
        at = f"comparators[{index}]"
        if not 1 <= len(comparator.output) <= _OUTPUT_CHARACTERS_MAX:
            raise _invalid(
                f"the name of an output has from 1 to {_OUTPUT_CHARACTERS_MAX} characters, this one has "
                f"{len(comparator.output)}",
                f"{at}.output",
            )
        if (key := (comparator.output, comparator.method)) in seen:
            raise _invalid(f"output '{comparator.output}' is compared by {comparator.method.value} twice", at)
        seen.add(key)
        _check_parameters(comparator, at)


def _check_parameters(comparator: Comparator, at: str) -> None:
    method = comparator.method
    for name in ("atol", "rtol", "threshold", "k", "near_tie"):
        value = getattr(comparator, name)
        if value is None:
            continue
        if name not in _PARAMETERS[method]:
            known = ", ".join(sorted(_PARAMETERS[method])) or "nothing"
            raise _invalid(f"{method.value} takes no {name}, it takes {known}", f"{at}.{name}")
        low, high = 0.0, math.inf
        if name == "k":
            low, high = 1, K_MAX
        elif name == "threshold":
            high = _THRESHOLD_MAX[method]
        if not (low <= value <= high and math.isfinite(value)):
            to = f" to {high:g}" if math.isfinite(high) else ", and finite"
            raise _invalid(f"{name} of {method.value} is {value:g}, it must be from {low:g}{to}", f"{at}.{name}")


def _refuse_beyond(name: str, value: float, limit: float, flag: str) -> None:
    if value > limit:
        raise _invalid(f"{name} is {value:g}, the server's limit is {limit:g} ({flag})", name)


def _invalid(message: str, path: str) -> ControlError:
    return ControlError(Refusal.INVALID_SPEC, message, f"rule.{path}")
