"""No value of a header, and no password of an endpoint, in what is said of OpenTelemetry's variables."""

from __future__ import annotations

import pytest

from turnout.telemetry import otel
from turnout.telemetry.masking import new_mask
from turnout.telemetry.pipeline import Limits
from turnout.telemetry.settings import read

HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"


@pytest.mark.parametrize(
    ("environment", "said", "written"),
    [
        ({HEADERS: "api-key: TOKEN1"}, "Format invalid! Header: api-key: TOKEN1", "Format invalid! Header: ***"),
        ({HEADERS: "a=1,key=Bearer%20TOKEN1%0A"}, "b'Bearer TOKEN1\\n' or Bearer TOKEN1\n", "b'***' or ***\n"),
        ({HEADERS: "key=Bearer%20TOKEN1"}, "no such thing: TOKEN1", "no such thing: ***"),
        ({HEADERS: "key=Basic dG9rZW4="}, "dG9rZW4= or dG9rZW4", "*** or dG9rZW4"),
        ({HEADERS: "key=a1"}, "a1 in na1me, at once", "*** in na1me, at once"),
        ({"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "k=TOKEN1,j=TOKEN2"}, "k=TOKEN1,j=TOKEN2; TOKEN2", "***; ***"),
        ({HEADERS: " , ="}, "nothing = nothing, said", "nothing = nothing, said"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:TOKEN1@c:1"}, "to me:TOKEN1@c:1, TOKEN1", "to ***@c:1, ***"),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://me:TO/KEN@c:1"}, "http://me:TO/KEN@c:1", "http://***@c:1"),
        ({}, "via http://me:TOKEN1@proxy:3128/x and me@c", "via http://***@proxy:3128/x and me@c"),
        ({"OTHER_HEADERS": "k=TOKEN1", "OTEL_SERVICE_NAME": "name"}, "TOKEN1 name", "TOKEN1 name"),
    ],
)  # fmt: skip
def test_what_is_masked(environment: dict[str, str], said: str, written: str) -> None:
    assert new_mask(environment)(said) == written


def test_the_flags_endpoint_is_masked() -> None:
    assert new_mask({}, "http://me:TOKEN1@c:1")("me:TOKEN1@c:1 failed") == "***@c:1 failed"


def test_why_a_start_is_refused_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1", "OTEL_EXPORTER_OTLP_HEADERS": "key=TOKEN1"}
    environment["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"] = "TOKEN1"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"\*\*\*") as refusal:
        otel.build(read(environment), Limits(10**9, 10), "s", new_mask(environment))
    assert "TOKEN1" not in str(refusal.value)
