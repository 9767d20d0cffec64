"""What telemetry is exported, from OpenTelemetry's environment variables and Turnout's own flags.

Only what has to be decided here: endpoints, headers, limits, TLS and the like are read by the SDK itself. Nothing of
the SDK is imported: a server that exports nothing never loads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from turnout.core.tracing import RATIO_DEFAULT, Sampling

SIGNALS = ("traces", "metrics", "logs")
_PROTOCOLS = {"grpc": "otlp_grpc", "http/protobuf": "otlp_http"}
_KNOWN_PROPAGATORS = frozenset({"tracecontext", "baggage", "none"})  # baggage has nothing that it could change here
_QUEUES = {"traces": "BSP", "logs": "BLRP"}
_QUEUE_NUMBERS = ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE")
_DIGITS_MAX = 12
_FILES = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")


class Exporter(Enum):
    OTLP_GRPC = "otlp_grpc"
    OTLP_HTTP = "otlp_http"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True)
class Settings:
    """What to export, and how requests are sampled.

    Attributes:
        exporters: of each signal that is exported.
        endpoint: where to, in place of the environment's; "": as that says.
        w3c: whether traceparent is read.
        notes: what of the environment has no effect, for the log.
    """

    exporters: Mapping[str, tuple[Exporter, ...]]
    endpoint: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    w3c: bool = True
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.exporters)


def read(environment: Mapping[str, str], endpoint: str = "") -> Settings:
    """Args:
        endpoint: the flag's, which asks for all signals that the environment does not switch off.

    Raises:
        ValueError: a number or a file of what is exported cannot be used; the SDK would go on without it.
    """
    # As the specification has it, a variable that is empty is not there.
    values = {name: value.strip() for name, value in environment.items() if name.startswith("OTEL_") and value.strip()}
    notes: list[str] = []
    if values.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Settings({}, notes=("OTEL_SDK_DISABLED: telemetry is not exported",) if endpoint else ())
    exporters = {}
    for signal in SIGNALS:
        if found := _exporters(values, signal, endpoint, notes):
            exporters[signal] = found
    for signal, found in exporters.items():
        _refuse_unusable(values, signal, found)
    if "metrics" in exporters and values.get("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based") != "trace_based":
        notes.append(
            "OTEL_METRICS_EXEMPLAR_FILTER has no effect: exemplars are of traced requests, as trace_based has it"
        )
    if "OTEL_CONFIG_FILE" in values:
        notes.append("OTEL_CONFIG_FILE is not read: use the OTEL_ variables")
    propagators = _list(values.get("OTEL_PROPAGATORS", "tracecontext,baggage"))
    for name in propagators:
        if name not in _KNOWN_PROPAGATORS:
            notes.append(f"OTEL_PROPAGATORS: '{name[:64]}' is not supported, tracecontext is")
    return Settings(exporters, endpoint, _sampling(values, notes), "tracecontext" in propagators, tuple(notes))


def _exporters(values: Mapping[str, str], signal: str, endpoint: str, notes: list[str]) -> tuple[Exporter, ...]:
    prefix = f"OTEL_EXPORTER_OTLP_{signal.upper()}_"
    asked = endpoint or values.get("OTEL_EXPORTER_OTLP_ENDPOINT") or values.get(prefix + "ENDPOINT")
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    exporters = []
    for name in _list(values.get(variable, "otlp" if asked else "none")):
        if name == "otlp":
            protocol = values.get(prefix + "PROTOCOL") or values.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
            if protocol in _PROTOCOLS:
                exporters.append(Exporter(_PROTOCOLS[protocol]))
            else:
                notes.append(
                    f"{signal} are not exported: OTLP protocol '{protocol[:64]}' is none of grpc, http/protobuf"
                )
        elif name == "console":
            exporters.append(Exporter.CONSOLE)
        elif name != "none":
            notes.append(f"{variable}: '{name[:64]}' is not supported, otlp, console and none are")
    return tuple(dict.fromkeys(exporters))


def _refuse_unusable(values: Mapping[str, str], signal: str, exporters: tuple[Exporter, ...]) -> None:
    for name in [f"OTEL_{_QUEUES[signal]}_{what}" for what in _QUEUE_NUMBERS if signal in _QUEUES]:
        text = values.get(name, "1")
        if not (text.isascii() and text.isdecimal() and int(text[:_DIGITS_MAX]) and len(text) <= _DIGITS_MAX):
            raise ValueError(f"{name} = '{text[:64]}' is no positive whole number")
    if not {Exporter.OTLP_GRPC, Exporter.OTLP_HTTP} & {*exporters}:
        return
    for name in [f"OTEL_EXPORTER_OTLP_{of}{what}" for of in ("", f"{signal.upper()}_") for what in _FILES]:
        if path := values.get(name):
            try:
                Path(path).open("rb").close()
            except OSError as error:
                raise ValueError(f"{name} = '{path[:256]}' cannot be read: {error.strerror}") from None


def _sampling(values: Mapping[str, str], notes: list[str]) -> Sampling:
    """OpenTelemetry's own default, every trace, costs a model server more than its work: see RATIO_DEFAULT."""
    name = values.get("OTEL_TRACES_SAMPLER", "").lower()
    parent_decides = not name or name.startswith("parentbased_")
    kind = name.removeprefix("parentbased_")
    if kind in ("always_on", "always_off"):
        return Sampling(float(kind == "always_on"), parent_decides)
    if kind not in ("", "traceidratio"):
        notes.append(f"OTEL_TRACES_SAMPLER: '{name[:64]}' is not supported, {RATIO_DEFAULT:.0%} of requests is traced")
        return Sampling()
    text = values.get("OTEL_TRACES_SAMPLER_ARG")
    try:
        return Sampling(float(text) if text else (1.0 if kind else RATIO_DEFAULT), parent_decides)
    except ValueError:
        notes.append(
            f"OTEL_TRACES_SAMPLER_ARG: '{(text or '')[:64]}' is no number from 0 to 1, {RATIO_DEFAULT:.0%} of requests "
            "is traced"
        )
        return Sampling(parent_decides=parent_decides)


def _list(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip().lower())]
