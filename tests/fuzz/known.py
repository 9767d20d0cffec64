"""Defects that were found and are not fixed yet: fuzzing passes over them, and the test of the corpus expects them.

A fix takes the line out, or that test fails. The inputs are `corpus/TARGET/finding-SLUG`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Known:
    """A defect of one target. `pattern` finds its exception, written `Type: text [folder/module.py]`."""

    target: str
    slug: str
    pattern: str


KNOWN: tuple[Known, ...] = ()


def known(target: str, error: BaseException) -> Known | None:
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = "/".join(Path(at.tb_frame.f_code.co_filename).parts[-2:]) if at is not None else ""
    text = f"{type(error).__name__}: {error} [{where}]"
    return next((one for one in KNOWN if one.target == target and re.search(one.pattern, text, re.S)), None)
