"""Strict reading of plain data, such as JSON gives: each field must be there, of its type, finite, and known."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from sys import float_info
from typing import Any

# Of one text, and of one number: what is read goes into messages, which have limits of their own.
_CHARACTERS_MAX = 1024
_COUNT_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one object; `at` is where it stands, as in `outputs[0].`

    Every method raises ValueError naming the field.
    """

    values: Mapping[str, Any]
    at: str = ""

    def only(self, known: Collection[str]) -> Fields:
        """Refuse what is not known: it might be a condition that nobody would look at."""
        for name in self.values:
            if name not in known:
                raise ValueError(f"field '{self.at}{name}' is not known")
        return self

    def text(self, name: str) -> str:
        value = self._value(name)
        if not _is_text(value):
            raise self.wrong(name, f"a text of at most {_CHARACTERS_MAX} characters")
        return str(value)

    def texts(self, name: str) -> dict[str, str]:
        value = self._value(name)
        if not isinstance(value, dict) or not all(_is_text(each) for pair in value.items() for each in pair):
            raise self.wrong(name, f"an object of texts of at most {_CHARACTERS_MAX} characters")
        return dict(value)

    def count(self, name: str) -> int:
        value = self._value(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _COUNT_MAX:
            raise self.wrong(name, f"a whole number of at least 0 and at most {_COUNT_MAX}")
        return value

    def number(self, name: str, *, most: float | None = None) -> float:
        value = self._value(name)
        if not is_number(value) or value < 0 or (most is not None and value > most):
            raise self.wrong(name, "a finite number of at least 0" + ("" if most is None else f" and at most {most:g}"))
        return float(value)

    def share(self, name: str) -> float:
        return self.number(name, most=1)

    def object(self, name: str) -> Fields:
        value = self._value(name)
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return Fields(value, f"{self.at}{name}.")

    def objects(self, name: str) -> Iterator[Fields]:
        value = self._value(name)
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self.wrong(name, "a list of objects")
        return (Fields(each, f"{self.at}{name}[{index}].") for index, each in enumerate(value))

    def has(self, name: str) -> bool:
        """Whether the field is there and is not null."""
        return self._value(name) is not None

    def wrong(self, name: str, expected: str) -> ValueError:
        return ValueError(f"field '{self.at}{name}' is {str(self.values[name])[:80]!r}, it must be {expected}")

    def _value(self, name: str) -> Any:
        if name not in self.values:
            raise ValueError(f"field '{self.at}{name}' is missing")
        return self.values[name]


def is_number(value: object) -> bool:
    """Whether it is a number of JSON that a float can hold: NaN and the infinities, which Python's reader takes, are
    none, and its whole numbers have no end."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= float_info.max


def _is_text(value: object) -> bool:
    """Half of a surrogate pair, which JSON can escape, is no text that could be sent."""
    return (
        isinstance(value, str)
        and len(value) <= _CHARACTERS_MAX
        and not any("\ud800" <= character <= "\udfff" for character in value)
    )
