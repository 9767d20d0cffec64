"""What may never come of any input: another exception than a refusal, a text that leaks or floods, memory beyond the
input's own size. Targets raise `Finding`; atheris, pytest and Hypothesis all report it."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable

from fuzz.known import known

# The longest text that is not itself a flood. Whatever a refusal repeats of the input counts.
TEXT_CHARS_MAX = 2048
# What one input may raise the process' peak by, beside a multiple of its own size: first uses and caches.
PEAK_BYTES_MAX = 64 << 20
PEAK_FACTOR_MAX = 256

_LEAKS = re.compile(
    r"/(?:home|root|tmp|usr|work|var|opt|dev|proc|mnt|etc)\b"
    r"|Traceback \(most recent|File \"[^\"]*\", line|site-packages|\.py\b"
    r"|\b0x[0-9a-fA-F]{6,}\b"
    r"|<[^<>]{1,80} object\b|<class '|<function |<built-in|<enum "
)
# C0 and C1 controls, line and paragraph separators, and what turns the direction of a terminal's text.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Finding(AssertionError):
    """An input that breaks a promise of the server."""


def refused(error: Exception, data: bytes, *, lines: bool = False, own: str = "") -> None:
    """Check the text of a refusal.

    Args:
        data: the input: what it holds itself is repeated, not leaked.
        lines: whether the text may have several lines.
        own: a path that the text names rightly.
    """
    text = str(error)
    shown = text.replace(own, "FILE") if own else text
    kind = type(error).__name__
    if not text.strip():
        raise Finding(f"{kind} says nothing")
    if len(shown) > TEXT_CHARS_MAX:
        raise Finding(f"{kind} of {len(shown)} characters: {shown[:160]!r}")
    if control := _CONTROLS.search(shown.replace("\n", "") if lines else shown):
        raise Finding(f"{kind} has a control character {control.group()!r}: {shown[:400]!r}")
    echoed = data.decode(errors="replace")
    for leak in _LEAKS.finditer(shown):
        if leak.group() not in echoed:
            raise Finding(f"{kind} leaks {leak.group()!r}: {shown[:400]!r}")


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Finding(what)


def watched(target: str, run: Callable[[bytes], None], data: bytes, *, pass_over: bool = False) -> None:
    """Run one input, and look at what it did to the process' peak of memory.

    Args:
        pass_over: whether defects that are known already are no finding.
    """
    before = _peak_bytes()
    try:
        run(data)
    except Exception as error:
        if not pass_over or known(target, error) is None:
            raise
    grown = _peak_bytes() - before
    if grown > PEAK_BYTES_MAX + PEAK_FACTOR_MAX * len(data):
        raise Finding(f"{len(data)} bytes of input raised the peak of memory by {grown >> 20} MiB")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
