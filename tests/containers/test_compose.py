"""docker/compose.yaml and what its services are given: against the schema, each other and the server."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from support.memory import held_bytes_max
from support.prometheus import needs
from support.schemas import compose_problems
from support.stop_times import STOP_S_MAX
from turnout.config import Config, load
from turnout.telemetry import settings as telemetry

DOCKER = Path(__file__).resolve().parents[2] / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
COLLECTOR = yaml.safe_load((DOCKER / "collector/collector.yaml").read_text(encoding="utf-8"))
PROMETHEUS = yaml.safe_load((DOCKER / "prometheus/prometheus-compose.yaml").read_text(encoding="utf-8"))
SERVERS = ("turnout", "turnout-gpu")
_SETTINGS = Config()


def settings_of(service: str) -> Config:
    return load({}, {k: str(v) for k, v in SERVICES[service]["environment"].items() if k.startswith("TURNOUT_")}, None)


def test_the_file_is_what_the_specification_allows() -> None:
    assert compose_problems(COMPOSE) == []


@pytest.mark.parametrize(
    ("where", "field", "value"),
    [
        ((), "servces", {}),
        (("services", "turnout"), "read_onl", True),
        (("services", "turnout"), "stop_grace_period", 40),
        (("services", "grafana", "healthcheck"), "intervall", "1s"),
        (("services", "turnout", "deploy", "resources", "limits"), "memroy", "2g"),
    ],
)
def test_a_field_that_is_wrong_is_found(where: tuple[str, ...], field: str, value: Any) -> None:
    document = copy.deepcopy(COMPOSE)
    part = document
    for name in where:
        part = part[name]
    part[field] = value
    assert compose_problems(document) != []


# Every service


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_privileges_and_limits(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "devices", "user"}
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "docker.sock" not in json.dumps(service)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_and_asked_how_it_is(name: str) -> None:
    service = SERVICES[name]
    if name in SERVERS:
        target = service["build"]["target"]
        assert service["image"] == f"turnout:{target}"
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert "healthcheck" not in service, "the image brings its own"
    else:
        assert re.fullmatch(r"[a-z-]+/[a-z-]+:v?\d+\.\d+\.\d+", service["image"])
        assert ("healthcheck" in service) == (name != "otel-collector"), "whose image holds nothing to ask with"


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        if volume["type"] == "volume":
            assert volume["source"] in COMPOSE["volumes"]
        else:
            source = re.sub(r"\$\{MODELS:-(.*)\}", r"\1", volume["source"])
            assert (DOCKER / source).exists()
            assert volume["read_only"] is True


def test_ports_are_published_once() -> None:
    published = [port.split(":")[1] for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == len(set(published))


# Turnout


@pytest.mark.parametrize("name", SERVERS)
def test_settings_are_the_servers(name: str) -> None:
    service, settings = SERVICES[name], settings_of(name)
    inside = {int(port.split(":")[2]) for port in service["ports"]}
    assert inside == {_SETTINGS.grpc_port, _SETTINGS.ops_port}, "and not the admin port, which knows no clients"
    assert settings.admin_host == "127.0.0.1"
    assert settings.provider == {"cpu": "cpu", "gpu": "cuda"}[service["build"]["target"]]
    assert {volume["target"] for volume in service["volumes"]} == {"/models", "/state"}
    stop_s = settings.drain_delay_s + settings.drain_grace_s + STOP_S_MAX
    assert stop_s < int(service["stop_grace_period"].removesuffix("s"))


@pytest.mark.parametrize("name", SERVERS)
def test_the_servers_bounds_leave_half_of_the_memory_to_models(name: str) -> None:
    limit = SERVICES[name]["deploy"]["resources"]["limits"]["memory"]
    assert held_bytes_max(settings_of(name)) <= int(limit.removesuffix("g")) * 2**30 / 2


def test_threads_are_as_many_as_cpus() -> None:
    assert settings_of("turnout").intra_op_threads == int(SERVICES["turnout"]["deploy"]["resources"]["limits"]["cpus"])


@pytest.mark.parametrize("name", SERVERS)
def test_telemetry_goes_to_the_collector(name: str) -> None:
    environment = SERVICES[name]["environment"]
    exported = telemetry.read({key: str(value) for key, value in environment.items()})
    assert set(exported.exporters) == {"traces", "logs"}
    assert exported.notes == ()
    endpoint = urlsplit(environment["OTEL_EXPORTER_OTLP_ENDPOINT"])
    assert endpoint.hostname in SERVICES
    assert str(endpoint.port) == COLLECTOR["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].rpartition(":")[2]


# What looks at it


def test_the_collector_uses_what_it_defines_and_sends_to_a_service() -> None:
    for part in ("receivers", "processors", "exporters"):
        used = {name for pipeline in COLLECTOR["service"]["pipelines"].values() for name in pipeline[part]}
        assert used == set(COLLECTOR[part])
    assert set(COLLECTOR["service"]["pipelines"]) == {"traces", "logs"}
    assert COLLECTOR["exporters"]["otlp/jaeger"]["endpoint"].partition(":")[0] in SERVICES
    mounted = {volume["target"] for volume in SERVICES["otel-collector"]["volumes"]}
    assert SERVICES["otel-collector"]["command"] == [f"--config={target}" for target in mounted]


def test_prometheus_scrapes_the_services() -> None:
    turnout, collector = PROMETHEUS["scrape_configs"]
    assert turnout["job_name"] == "turnout", "as rules and dashboard expect"
    (found,) = turnout["dns_sd_configs"]
    assert (set(found["names"]), found["port"]) == (set(SERVERS), _SETTINGS.ops_port)
    (reader,) = COLLECTOR["service"]["telemetry"]["metrics"]["readers"]
    port = reader["pull"]["exporter"]["prometheus"]["port"]
    assert collector["static_configs"] == [{"targets": [f"otel-collector:{port}"]}]
    assert all((DOCKER / "prometheus" / file).is_file() for file in PROMETHEUS["rule_files"])
    configured = {flag.split("=")[1] for flag in SERVICES["prometheus"]["command"] if "config.file" in flag}
    assert configured == {"/etc/prometheus/prometheus-compose.yaml"}
    assert (DOCKER / "prometheus/prometheus-compose.yaml").is_file()


@needs("promtool")
def test_promtool_takes_the_configuration() -> None:
    command = ["promtool", "check", "config", "prometheus-compose.yaml"]
    done = subprocess.run(command, cwd=DOCKER / "prometheus", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_its_sources_and_its_dashboard() -> None:
    provisioning = DOCKER / "grafana/provisioning"
    sources = yaml.safe_load((provisioning / "datasources/turnout.yaml").read_text(encoding="utf-8"))["datasources"]
    assert {urlsplit(source["url"]).hostname for source in sources} == {"prometheus", "jaeger"} <= SERVICES.keys()
    uids = {source["uid"] for source in sources}
    (linked,) = sources[0]["jsonData"]["exemplarTraceIdDestinations"]
    assert linked["datasourceUid"] in uids
    assert f'"{linked["name"]}"' in (DOCKER.parent / "server/turnout/telemetry/exposition.py").read_text("utf-8")
    (provider,) = yaml.safe_load((provisioning / "dashboards/turnout.yaml").read_text("utf-8"))["providers"]
    shown = [v["target"] for v in SERVICES["grafana"]["volumes"] if v["source"] == "grafana/turnout.json"]
    assert [Path(target).parent for target in shown] == [Path(provider["options"]["path"])]
    assert shown == [SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]]
