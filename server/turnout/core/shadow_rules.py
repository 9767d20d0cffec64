"""What a shadow rule says: which requests a slot gets copies of, what they may take, and how answers are compared; the
bounds of all that, with the field that is at fault. The comparison itself is `core/divergence`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from turnout.core.buckets import BASIS_POINTS
from turnout.core.comparators import Comparator, ComparatorError, check_comparator
from turnout.core.errors import ControlError, Refusal
from turnout.core.sampling import is_noise, noise_salt, sampled, shadow_salt
from turnout.core.tensors import Signature, TensorSpec

SHADOWS_MAX = 8  # rules of one model: each may copy every request
COMPARATORS_MAX = 64
_SALT_CHARACTERS_MAX = 64
_OUTPUT_CHARACTERS_MAX = 512


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
        object.__setattr__(self, "_sample_salt", shadow_salt(self.salt))
        object.__setattr__(self, "_noise_salt", noise_salt(self.salt))

    def takes(self, inference_id: str) -> bool:
        """Whether a request is copied; the same in every process."""
        return sampled(self._sample_salt, inference_id, self.sample_bp)

    def repeats(self, inference_id: str) -> bool:
        """Whether a request that is copied also goes to its live revision once more, for the noise floor."""
        return is_noise(self._noise_salt, inference_id, self.noise_bp)


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
    _check_each(rule.comparators, signature.output_by_name)


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
    _check_each(comparators, None)


def _check_each(comparators: Sequence[Comparator], outputs: Mapping[str, TensorSpec] | None) -> None:
    for index, comparator in enumerate(comparators):
        try:
            check_comparator(comparator, outputs)
        except ComparatorError as error:
            raise _invalid(str(error), f"comparators[{index}].{error.field}") from None


def _refuse_beyond(name: str, value: float, limit: float, flag: str) -> None:
    if value > limit:
        raise _invalid(f"{name} is {value:g}, the server's limit is {limit:g} ({flag})", name)


def _invalid(message: str, path: str) -> ControlError:
    return ControlError(Refusal.INVALID_SPEC, message, f"rule.{path}")
