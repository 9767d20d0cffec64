"""Every setting of the server, once: its name, default, bounds and meaning.

Flags (`--grpc-port`), environment (`TURNOUT_GRPC_PORT`) and a YAML file (`--config`) all fill this one model, in that
order of precedence. Unknown names are refused wherever they stand.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from turnout.core.ids import printable
from turnout.core.model import Placement

ENV_PREFIX = "TURNOUT_"
CONFIG_VARIABLE = "TURNOUT_CONFIG"  # the YAML file, where there is no --config
_CONFIG_BYTES_MAX = 1 << 20
# What Kubernetes puts into every container's environment for a Service whose name begins with "turnout".
_LINK_NAME = re.compile(r"TURNOUT_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://.*")

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=3600)]


# PyYAML's own error, and those that it lets out of values and depths that it cannot build.
_NOT_YAML = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)
_TEXT_CHARACTERS_MAX = 500


class ConfigError(Exception):
    """A setting that is unknown or out of bounds. The message names it, its value, and what is allowed."""


class Config(BaseModel):
    """Settings of `turnout serve`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_repository: Path = Field(Path("models"), description="folder of models in Triton's layout")
    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - the data plane is for other hosts
    grpc_port: Port = Field(8001, description="port of the inference service; 0: a free one")
    server_name: str = Field(
        "turnout", min_length=1, description="what ServerMetadata answers (some tools want 'triton')"
    )

    provider: str = Field(
        "auto", description="auto, cpu, cuda[:ID,...] or tensorrt[:ID,...]; only auto falls back to the CPU"
    )
    intra_op_threads: int = Field(0, ge=0, le=1024, description="threads inside one model run on the CPU; 0: all cores")
    inter_op_threads: int = Field(
        0, ge=0, le=1024, description="threads across operators of one run; 0: ONNX Runtime's choice"
    )
    batch_rows_default: int = Field(
        4, ge=0, le=4096, description="max_batch_size where a model can batch and does not say how far; 0: no batching"
    )

    batch_rows_max: int = Field(4096, ge=1, le=1 << 20, description="a model with a larger max_batch_size is refused")
    instances_max: int = Field(64, ge=1, le=1024, description="a model with a larger instance_group count is refused")
    allow_op_libraries: bool = Field(
        False, description="models may bring libraries of custom operators: native code that runs inside the server"
    )
    allow_hard_links: bool = Field(
        False, description="models may have files with several names (hard links), which may be elsewhere on the disk"
    )
    variant: str = Field(
        "none",
        pattern=r"^[a-z0-9-]{1,32}$",
        description="which variant of a version is loaded by itself where its report stands: a name, such as int8; "
        "auto (fp16 on a GPU, int8 on a processor with VNNI); none: the version's own file. A journal goes before it",
    )
    strict: bool = Field(False, description="a model or version that cannot be used stops the start")
    preflight: Literal["on", "off"] = Field(
        "on", description="each model for the CPU is loaded and run once in a child process before the server loads it"
    )
    preflight_memory_bytes_max: int = Field(
        0, ge=0, description="memory that a model may need there, beyond its files; 0: what is available at the time"
    )
    preflight_timeout_s: float = Field(60, gt=0, le=3600, description="how long that may take")
    trusted_digests: str = Field(
        "", description="revisions that need no preflight: their digests, separated by commas (see turnout manifest)"
    )

    warmup_bytes_max: int = Field(
        1 << 28, ge=1, description="inputs that warm-up makes for one run; larger batches start cold, with a note"
    )

    batching: Literal["gather", "eager"] = Field(
        "gather",
        description="gather: a batch may wait a moment for clients that are about to return, where that is measured to "
        "pay; eager: never. A model's parameter batching goes before it, and its dynamic_batching delay before both",
    )
    queue_rows_max: int = Field(8192, ge=1, description="rows that may wait for one slot; more are refused")
    queue_bytes_max: int = Field(1 << 30, ge=1, description="tensor bytes that may wait for one slot; more are refused")
    inflight_rows_max: int = Field(
        65_536, ge=1, description="rows under way on this server, over all models; more are refused"
    )
    inflight_bytes_max: int = Field(
        2 << 30, ge=1, description="tensor bytes under way on this server, over all models; more are refused"
    )
    calls_max: int = Field(
        8192,
        ge=1,
        description="inference calls and streams under way, from their headers until their answer is sent; more are "
        "refused unread",
    )
    transfer_timeout_s: Seconds = Field(
        60, description="how long a ModelInfer request may take to arrive, and its answer to leave"
    )
    answer_bytes_max: int = Field(
        2 << 30, ge=1, description="answers that clients have not read yet; beyond it new requests are refused"
    )
    overload_code: Literal["resource_exhausted", "unavailable"] = Field(
        "resource_exhausted", description="the status of a full queue or server; Triton's is unavailable"
    )
    isolation_runs_max: int = Field(
        64, ge=0, description="further runs that a failed batch may cost, to find the requests at fault"
    )
    refuse_nonfinite: bool = Field(
        False,
        description="an answer with a NaN or an infinity is an error, for that request alone; a model's "
        "parameter refuse_nonfinite goes before it",
    )
    stream_inflight_max: int = Field(
        256, ge=1, le=65536, description="requests of one stream under way; then it is not read"
    )
    bytes_elements_max: int = Field(65_536, ge=1, description="BYTES elements of one request; more are refused")
    typed_elements_max: int = Field(
        1_048_576,
        ge=1,
        description="elements of one request in typed contents; more are refused (raw has no such limit)",
    )
    classification_elements_max: int = Field(
        8192, ge=1, description="elements of the classified outputs of one request; more are refused"
    )
    request_names_max: int = Field(
        1024, ge=1, description="inputs, outputs and parameters of one request, each; more are refused"
    )
    request_id_characters_max: int = Field(1024, ge=1, description="the longest request id")
    message_bytes_max: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="largest request message; 0: derived from the models' inputs and batch sizes at start, at least "
        "65 MiB where models can be loaded later",
    )
    metadata_bytes_max: int = Field(16384, ge=1024, description="largest request metadata")
    concurrent_streams_max: int = Field(4096, ge=1, description="calls under way on one connection")
    keepalive_interval_ms: int = Field(7_200_000, ge=1000, description="after this silence the server pings the client")
    keepalive_timeout_ms: int = Field(20_000, ge=100, description="how long a ping may go unanswered")
    ping_interval_ms_min: int = Field(10_000, ge=0, description="clients that ping more often are sent away")
    connection_age_ms_max: int = Field(
        0, ge=0, description="connections are renewed at this age, which spreads clients over new replicas; 0: never"
    )

    admin: bool = Field(True, description="serve turnout.admin.v1, which loads models and moves traffic, on a port")
    admin_host: str = Field("127.0.0.1", description="address of the admin service; whoever reaches it may change all")
    admin_port: Port = Field(8003, description="port of the admin service; 0: a free one")
    ops: bool = Field(True, description="serve /livez, /readyz and /metrics over HTTP, on a port")
    ops_host: str = Field("", description="address of that port; nothing: as --host")
    ops_port: Port = Field(8002, description="its number; 0: a free one")
    require_etag: bool = Field(False, description="changes without an etag are refused, but for rollbacks")
    state_dir: Path | None = Field(
        None, description="folder of the journal: slots, traffic and history outlast a restart; none: in memory only"
    )
    bake_s: Annotated[float, Field(ge=0, le=30 * 24 * 3600)] = Field(
        600, description="how long a swap keeps the old slot ready for a rollback, unless the request says"
    )
    shadow_total_bytes_max: int = Field(
        1 << 29, ge=1, description="what the copies of all shadow rules of this server may hold together"
    )
    shadow_capture_dir: Path | None = Field(
        None,
        description="folder in which the tensors of pairs that differ are kept (see turnout_client.captures); without "
        "it none are",
    )
    shadow_capture_bytes_max: int = Field(
        1 << 28, ge=1, description="of all that is kept there; the oldest are deleted for new ones"
    )
    shadow_queue_max: int = Field(
        1024, ge=1, le=1 << 20, description="copies of requests that may wait for one shadow slot; more are dropped"
    )
    shadow_bytes_max: int = Field(
        64 << 20, ge=1, description="tensor bytes of copies that may wait for one shadow slot; more are dropped"
    )
    shadow_deadline_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        30, description="a copy that a shadow slot has not run so long after its request was answered is dropped"
    )
    slot_memory_bytes_max: int = Field(
        0, ge=0, description="memory that all loaded models together may take; more are refused; 0: no bound"
    )
    model_control: Literal["none", "explicit"] = Field(
        "none",
        description="explicit: RepositoryModelLoad and -Unload of the inference port work, for whoever reaches it",
    )
    fallback: bool = Field(
        False, description="a routed request that another slot fails is answered by the stable one, within its deadline"
    )

    model_services: bool = Field(
        True, description="each model also has a service of its own, such as /turnout.models.Digits/Predict"
    )
    response_identity: bool = Field(
        True, description="answers carry turnout_slot, _revision, _generation, inference_id"
    )
    drain_delay_s: Seconds = Field(5, description="after SIGTERM: not ready, still serving, until balancers notice")
    drain_grace_s: Seconds = Field(25, description="then: how long calls under way may take")
    otlp_endpoint: str = Field(
        "",
        description="where traces, metrics and logs are sent by OTLP, such as http://collector:4317; it goes before "
        "OTEL_EXPORTER_OTLP_ENDPOINT. Without it, OTEL_* variables decide, and without them nothing is sent",
    )
    trace_slow_ms: int = Field(
        1000, ge=0, le=3_600_000, description="a request that takes so long is traced even if not sampled; 0: none is"
    )
    trace_captures_per_s_max: float = Field(
        10, ge=0, le=1000, description="requests that are traced only because they were slow or failed; 0: none is"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["auto", "console", "json"] = Field("auto", description="auto: console on a terminal, else json")

    @field_validator("provider")
    @classmethod
    def _known_provider(cls, text: str) -> str:
        Placement.parse(text)
        return text

    @field_validator("preflight", mode="before")
    @classmethod
    def _not_yaml_boolean(cls, value: Any) -> Any:
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @field_validator("trusted_digests", mode="before")
    @classmethod
    def _digests(cls, value: Any) -> Any:
        digests = value if isinstance(value, list) else str(value).split(",")
        digests = [str(digest).strip().lower() for digest in digests]
        for digest in digests:
            if digest and not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise ValueError(f"'{digest[:80]}' is no sha256 of 64 hexadecimal digits")
        return ",".join(digest for digest in digests if digest)

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_url(cls, text: str) -> str:
        if text and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", text):
            raise ValueError("is no URL: http://HOST:PORT, or https:// for TLS")
        return text

    @field_validator("host", "admin_host", "ops_host")
    @classmethod
    def _is_address(cls, text: str, info: ValidationInfo) -> str:
        if not text and info.field_name == "ops_host":
            return text
        try:
            ip_address(text)
        except ValueError:
            raise ValueError("is no IP address: 0.0.0.0 or :: for all, 127.0.0.1 for this machine only") from None
        return text


def load(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None) -> Config:
    """The effective configuration: flags before environment before file before defaults.

    Raises:
        ConfigError: an unknown name, a value out of bounds, or a file that cannot be read; all of a kind at once.
    """
    from_environment = {
        name.removeprefix(ENV_PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(ENV_PREFIX)
        and name != CONFIG_VARIABLE
        and not (_LINK_NAME.fullmatch(name) or _LINK_VALUE.fullmatch(value))
    }
    from_file = _read(file) if file is not None else {}
    _refuse_unknown("environment", from_environment, lambda name: ENV_PREFIX + name.upper())
    _refuse_unknown(str(file), from_file, str)
    try:
        return Config(**{**from_file, **from_environment, **flags})
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(problem) for problem in error.errors())) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _CONFIG_BYTES_MAX:
            raise ConfigError(f"{file}: larger than {_CONFIG_BYTES_MAX} bytes")
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except _NOT_YAML as error:
        raise ConfigError(f"{file}: is not YAML: {printable(str(error)[:_TEXT_CHARACTERS_MAX])}") from None
    if not isinstance(values or {}, dict):
        raise ConfigError(f"{file}: must hold settings as 'name: value' lines")
    return values or {}


def _refuse_unknown(where: str, names: Iterable[str], write: Callable[[str], str]) -> None:
    problems = []
    for name in sorted(map(str, names)):
        if name not in Config.model_fields:
            close = difflib.get_close_matches(name, Config.model_fields, n=1)
            hint = f", did you mean '{write(close[0])}'?" if close else ""
            problems.append(f"{where}: unknown setting '{printable(write(name)[:80])}'{hint}")
    if problems:
        raise ConfigError("\n".join(problems))


def _describe(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    what = "must be a path" if problem["type"] == "path_type" else problem["msg"].removeprefix("Value error, ")
    return f"{printable(name[:80])} = {_quoted(problem['input'])}: {printable(what[:_TEXT_CHARACTERS_MAX])}"


def _quoted(value: object) -> str:
    """Not repr of just anything: in YAML a few bytes can stand for a value of any size."""
    shown = repr(value[:_TEXT_CHARACTERS_MAX]) if isinstance(value, str) else reprlib.repr(value)
    return printable(shown[:_TEXT_CHARACTERS_MAX])
