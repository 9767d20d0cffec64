"""What must not be written of OpenTelemetry's variables: the values of headers, and who endpoints are opened as.

The SDK and its libraries quote such values in what they say of them, as they were given and as they were decoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias
from urllib.parse import unquote

Mask: TypeAlias = Callable[[str], str]

_MASK = "***"
_SHORT = 4  # characters: below it, what is found within a word is chance
_USERINFO = re.compile(r"(?<=://)[^/\s@]*@")


def new_mask(environment: Mapping[str, str], endpoint: str = "") -> Mask:
    """Makes a text fit to be written. `endpoint`: the flag's."""
    secrets = set(_of_endpoint(endpoint))
    for name, value in environment.items():
        if name.startswith("OTEL_") and name.endswith("HEADERS"):
            secrets |= set(_of_headers(value))
        elif name.startswith("OTEL_") and name.endswith("ENDPOINT"):
            secrets |= set(_of_endpoint(value))
    # The longest first: a part must not hide that it stands within a whole.
    patterns = [_pattern(secret) for secret in sorted(_forms(secrets), key=len, reverse=True)]
    found = re.compile("|".join(patterns)) if patterns else None

    def mask(text: str) -> str:
        return _USERINFO.sub(f"{_MASK}@", found.sub(_MASK, text) if found is not None else text)

    return mask


def _of_headers(value: str) -> Iterator[str]:
    """The whole, each header, and what comes after each separator, however it was meant."""
    yield value
    for header in value.split(","):
        yield header
        for separator in re.finditer("[=:]", header):
            yield header[separator.end() :]


def _of_endpoint(value: str) -> Iterator[str]:
    userinfo, at, _ = value.partition("://")[2].rpartition("@")
    if at:
        yield userinfo
        yield userinfo.partition(":")[2]


def _forms(secrets: Iterable[str]) -> set[str]:
    """As they are, decoded, escaped, and word by word; nothing that has no letter or digit."""
    wholes = {form for secret in secrets for form in (secret, unquote(secret))}
    words = {word for whole in wholes for word in whole.split() if len(word) >= _SHORT}
    escaped = {repr(whole)[1:-1] for whole in wholes}
    return {form.strip() for form in wholes | words | escaped if any(map(str.isalnum, form))}


def _pattern(secret: str) -> str:
    pattern = re.escape(secret)
    return rf"(?<!\w){pattern}(?!\w)" if len(secret) < _SHORT else pattern
