"""What is exported for which environment, and how requests are sampled."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnout.core.tracing import Sampling
from turnout.telemetry.settings import Exporter, read

GRPC, HTTP, CONSOLE = (Exporter.OTLP_GRPC,), (Exporter.OTLP_HTTP,), (Exporter.CONSOLE,)
ALL = {"traces": GRPC, "metrics": GRPC, "logs": GRPC}


@pytest.mark.parametrize(
    ("environment", "endpoint", "expected"),
    [
        ({}, "", {}),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"}, "", {}),
        ({}, "http://c:4317", ALL),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, "", ALL),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "  "}, "", {}),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c:4317"}, "", {"logs": GRPC}),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "", {"traces": GRPC}),
        ({"OTEL_TRACES_EXPORTER": "console, OTLP"}, "", {"traces": (*CONSOLE, *GRPC)}),
        ({"OTEL_METRICS_EXPORTER": "none"}, "http://c", {"traces": GRPC, "logs": GRPC}),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http://c", dict.fromkeys(ALL, HTTP)),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"},
            "http://c",
            {"traces": HTTP, "metrics": GRPC, "logs": HTTP},
        ),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_TRACES_EXPORTER": "otlp"}, "http://c", {}),
        ({"OTEL_SDK_DISABLED": "yes"}, "http://c", ALL),
    ],
)
def test_what_is_exported(
    environment: dict[str, str], endpoint: str, expected: dict[str, tuple[Exporter, ...]]
) -> None:
    settings = read(environment, endpoint)
    assert settings.exporters == expected
    assert bool(settings) is bool(expected)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Sampling(0.01)),
        ({"OTEL_TRACES_SAMPLER_ARG": "0.2"}, Sampling(0.2)),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, Sampling(1.0, parent_decides=False)),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, Sampling(0.0, parent_decides=False)),
        ({"OTEL_TRACES_SAMPLER": "traceidratio"}, Sampling(1.0, parent_decides=False)),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}, Sampling(0.5, False)),
        ({"OTEL_TRACES_SAMPLER": "ParentBased_Always_On"}, Sampling(1.0)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, Sampling(0.0)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, Sampling(0.0)),
    ],
)
def test_samplers(environment: dict[str, str], expected: Sampling) -> None:
    settings = read(environment)
    assert settings.sampling == expected and not settings.notes


@pytest.mark.parametrize(
    ("environment", "word"),
    [
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "jaeger_remote"),
        ({"OTEL_TRACES_SAMPLER_ARG": "nan"}, "'nan'"),
        ({"OTEL_TRACES_SAMPLER_ARG": "1.5"}, "'1.5'"),
        ({"OTEL_TRACES_SAMPLER_ARG": "much"}, "'much'"),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, "OTEL_METRICS_EXPORTER: 'prometheus'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json", "OTEL_TRACES_EXPORTER": "otlp"}, "'http/json'"),
        ({"OTEL_CONFIG_FILE": "/x.yaml"}, "OTEL_CONFIG_FILE"),
        ({"OTEL_PROPAGATORS": "tracecontext,b3"}, "'b3'"),
    ],
)
def test_what_has_no_effect_is_noted(environment: dict[str, str], word: str) -> None:
    settings = read(environment)
    [note] = settings.notes
    assert word in note
    assert settings.sampling == Sampling() and not settings.exporters


def test_a_flag_that_the_environment_switches_off_is_noted() -> None:
    assert "OTEL_SDK_DISABLED" in read({"OTEL_SDK_DISABLED": "true"}, "http://c").notes[0]
    assert not read({"OTEL_SDK_DISABLED": "true"}).notes


@pytest.mark.parametrize(("names", "read_"), [("tracecontext", True), ("baggage,tracecontext", True), ("none", False)])
def test_callers_headers_are_read_unless_the_propagators_say_no(names: str, read_: bool) -> None:
    assert read({"OTEL_PROPAGATORS": names}).w3c is read_


@pytest.mark.parametrize("name", ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BLRP_SCHEDULE_DELAY"])
@pytest.mark.parametrize("value", ["abc", "0", "-1", "1.5", "1" * 5000])
def test_a_number_that_the_sdk_would_pass_over_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} = '{value[:64]}' is no positive whole number$"):
        read({name: value}, "http://c")
    assert not read({name: value}), "nothing is exported"
    assert read({name: "2048"}, "http://c")


@pytest.mark.parametrize("name", ["CERTIFICATE", "METRICS_CLIENT_KEY", "LOGS_CLIENT_CERTIFICATE"])
def test_a_file_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    name, file = f"OTEL_EXPORTER_OTLP_{name}", tmp_path / "ca.pem"
    with pytest.raises(ValueError, match=rf"^{name} = '{file}' cannot be read: No such file or directory$"):
        read({name: str(file)}, "https://c")
    console = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    assert read({name: str(file), **console}), "nothing is sent there"
    file.touch()
    assert read({name: str(file)}, "https://c")


def test_an_exemplar_filter_that_has_no_effect_is_noted() -> None:
    assert not read({"OTEL_METRICS_EXEMPLAR_FILTER": "trace_based"}, "http://c").notes
    [note] = read({"OTEL_METRICS_EXEMPLAR_FILTER": "always_off"}, "http://c").notes
    assert "OTEL_METRICS_EXEMPLAR_FILTER" in note
    assert not read({"OTEL_METRICS_EXEMPLAR_FILTER": "always_off"}).notes
