"""Values that are made for each request: frozen for type checkers, and not at run time.

Python's own frozen dataclasses set each field by way of `object.__setattr__`, at some 500 instructions a field: for the
values of one request a tenth of all that it costs in Python.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """A dataclass with slots, whose fields nobody may set."""
    return dataclass(slots=True)(cls)
