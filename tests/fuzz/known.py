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


KNOWN: tuple[Known, ...] = (
    Known("request", "control-character", r"^Finding: ServingError has a control character"),
    Known("request", "long-text", r"^Finding: ServingError of \d+ characters"),
    Known("request", "signalling-nan", r"^RuntimeWarning: invalid value encountered in cast"),
    Known("model_config", "long-text", r"^Finding: LoadError of \d+ characters"),
    Known("model_config", "warmup-empty", r"^ValueError: array is too big"),
    Known("external_data", "wire-format", r"^Finding: ('.*' of .* is still external|another model)"),
    Known("settings", "control-character", r"^Finding: ConfigError has a control character"),
    Known("settings", "long-text", r"^Finding: ConfigError of \d+ characters"),
    Known("settings", "yaml-value", r"\[yaml/\w+\.py\]$"),
    Known("settings", "class-name", r"^Finding: ConfigError leaks \"<class '\": .*model_repository = "),
    Known("settings", "yaml-depth", r"^RecursionError: "),
)


def known(target: str, error: BaseException) -> Known | None:
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = "/".join(Path(at.tb_frame.f_code.co_filename).parts[-2:]) if at is not None else ""
    text = f"{type(error).__name__}: {error} [{where}]"
    return next((one for one in KNOWN if one.target == target and re.search(one.pattern, text, re.S)), None)
