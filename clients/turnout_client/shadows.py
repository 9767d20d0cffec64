"""Shadow rules as people write them, as files hold them and as the admin plane takes them. Decides nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from turnout_client.written import SpecError, duration, duration_ns, mapping, percent, share, text, wrong
from turnout_wire.gen import slots_pb2 as pb

_PREFIX = "COMPARISON_METHOD_"
METHODS = tuple(name.removeprefix(_PREFIX).lower() for name in pb.ComparisonMethod.keys()[1:])
_PARAMETERS = ("atol", "rtol", "threshold", "k", "near_tie")
_COMPARATOR = re.compile(rf"(?P<output>.+?)=(?P<method>{'|'.join(METHODS)})(?P<rest>(,[^,=]*=[^,=]*)*)", re.DOTALL)
_INT_MAX = {"queue_max": 2**31 - 1, "bytes_max": 2**63 - 1}


@dataclass(frozen=True, slots=True)
class CompareSpec:
    """How one output is compared. None: what is usual for its datatype."""

    output: str
    method: str  # in lower case
    atol: float | None = None
    rtol: float | None = None
    threshold: float | None = None
    k: int | None = None
    near_tie: float | None = None

    def __str__(self) -> str:
        said = [f",{name}={value!r}" for name in _PARAMETERS if (value := getattr(self, name)) is not None]
        return f"{self.output}={self.method}{''.join(said)}"


@dataclass(frozen=True, slots=True)
class ShadowSpec:
    """Which requests a slot gets copies of. Bounds of 0: as they are, or the server's own."""

    slot: str
    sample_bp: int
    noise_bp: int = 0
    salt: str = ""
    compare: tuple[CompareSpec, ...] = ()
    queue_max: int = 0
    bytes_max: int = 0
    deadline_ns: int = 0

    def __str__(self) -> str:
        """With the bounds that it says."""
        bounds = [f"{name} {value}" for name in _INT_MAX if (value := getattr(self, name))]
        bounds += [f"deadline {duration(self.deadline_ns)}"] if self.deadline_ns else []
        return ", ".join([self.brief(), *bounds])

    def brief(self) -> str:
        said = [f"{percent(self.sample_bp)} of requests"]
        said += [f"noise {percent(self.noise_bp)}"] if self.noise_bp else []
        said += [f"salt {self.salt}"] if self.salt else []
        return ", ".join([*said, *map(str, self.compare)])

    def filled(self, now: ShadowSpec | None) -> ShadowSpec:
        """With the bounds that the rule has now, where it does not say any."""
        if now is None:
            return self
        return replace(
            self,
            queue_max=self.queue_max or now.queue_max,
            bytes_max=self.bytes_max or now.bytes_max,
            deadline_ns=self.deadline_ns or now.deadline_ns,
        )


def comparator(written: object, where: str = "compare") -> CompareSpec:
    """`probabilities=js,threshold=0.01`.

    Raises:
        SpecError
    """
    match = _COMPARATOR.fullmatch(text(written, where))
    if match is None:
        methods = ", ".join(METHODS)
        raise SpecError(f"{where}: {written!r} is no OUTPUT=METHOD[,atol=..], methods are {methods}")
    values: dict[str, Any] = {}
    for part in filter(None, match["rest"].split(",")):
        name, _, value = part.partition("=")
        if name not in _PARAMETERS or name in values:
            raise SpecError(f"{where}: {name!r} in {written!r}: known are {', '.join(_PARAMETERS)}, each once")
        try:
            values[name] = int(value) if name == "k" else float(value)
        except ValueError:
            raise SpecError(f"{where}: {part!r} in {written!r} has no number") from None
        if name == "k" and abs(values[name]) >= 2**31:
            raise SpecError(f"{where}: {part!r} in {written!r} is out of bounds")
    return CompareSpec(match["output"], match["method"], **values)


_KEYS = {"sample", "noise", "salt", "compare", "queue_max", "bytes_max", "deadline"}


def parsed(raw: object, where: str) -> tuple[ShadowSpec, ...]:
    """The rules of one model in a file, by slot."""
    return tuple(
        _rule(slot, mapping(rule, f"{where}: {slot}", _KEYS), f"{where}: {slot}")
        for slot, rule in mapping(raw, where).items()
    )


def _rule(slot: str, raw: dict[str, Any], where: str) -> ShadowSpec:
    if "sample" not in raw:
        raise SpecError(f"{where}: it has no sample: the share of requests that are copied, such as 100 %")
    compare = raw.get("compare", [])
    if not isinstance(compare, Sequence) or isinstance(compare, str):
        wrong(f"{where}: compare", compare, "a list")
    return ShadowSpec(
        slot,
        share(raw["sample"], f"{where}: sample"),
        share(raw.get("noise", 0), f"{where}: noise"),
        text(raw.get("salt", ""), f"{where}: salt"),
        tuple(comparator(each, f"{where}: compare[{number}]") for number, each in enumerate(compare)),
        _count(raw, "queue_max", where),
        _count(raw, "bytes_max", where),
        duration_ns(raw["deadline"], f"{where}: deadline") if "deadline" in raw else 0,
    )


def _count(raw: dict[str, Any], name: str, where: str) -> int:
    value = raw.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _INT_MAX[name]:
        wrong(f"{where}: {name}", value, f"a number from 0 to {_INT_MAX[name]}")
    return value


def exported(rules: Iterable[ShadowSpec]) -> dict[str, Any]:
    """What `parsed` reads."""
    return {rule.slot: _exported(rule) for rule in rules}


def _exported(rule: ShadowSpec) -> dict[str, Any]:
    written: dict[str, Any] = {"sample": percent(rule.sample_bp)}
    if rule.noise_bp:
        written["noise"] = percent(rule.noise_bp)
    if rule.salt:
        written["salt"] = rule.salt
    if rule.compare:
        written["compare"] = [str(each) for each in rule.compare]
    written |= {name: value for name in _INT_MAX if (value := getattr(rule, name))}
    if rule.deadline_ns:
        written["deadline"] = duration(rule.deadline_ns)
    return written


def shadows_of(model: pb.Model) -> dict[str, ShadowSpec]:
    """The rules that are in force, by slot."""
    return {rule.slot: _spec(rule) for rule in model.route.shadows}


def _spec(rule: pb.ShadowRule) -> ShadowSpec:
    return ShadowSpec(
        rule.slot,
        rule.sample_bp,
        rule.noise_bp,
        rule.salt,
        tuple(_compare(each) for each in rule.comparators),
        rule.queue_max,
        rule.bytes_max,
        rule.deadline.ToNanoseconds(),
    )


def _compare(message: pb.Comparator) -> CompareSpec:
    values = {name: getattr(message, name) for name in _PARAMETERS if message.HasField(name)}
    return CompareSpec(message.output, pb.ComparisonMethod.Name(message.method).removeprefix(_PREFIX).lower(), **values)


def rule_message(rule: ShadowSpec) -> pb.ShadowRule:
    message = pb.ShadowRule(
        slot=rule.slot,
        sample_bp=rule.sample_bp,
        salt=rule.salt,
        comparators=[
            pb.Comparator(
                output=each.output,
                method=f"{_PREFIX}{each.method.upper()}",
                **{name: getattr(each, name) for name in _PARAMETERS},
            )
            for each in rule.compare
        ],
        queue_max=rule.queue_max,
        bytes_max=rule.bytes_max,
        noise_bp=rule.noise_bp,
    )
    if rule.deadline_ns:
        message.deadline.FromNanoseconds(rule.deadline_ns)
    return message
