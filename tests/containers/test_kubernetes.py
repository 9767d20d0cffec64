"""docker/kubernetes: every manifest against its schema, and what the manifests say against what the server has."""

from __future__ import annotations

import copy
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from steps.dockerfile import lineage, read
from support.memory import held_bytes_max
from support.schemas import problems
from support.stop_times import STOP_S_MAX
from turnout import cli
from turnout.config import ENV_PREFIX, Config, ConfigError, load
from turnout.telemetry.instruments import INSTRUMENTS, Kind
from turnout_wire.typed import model_service

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "docker" / "kubernetes"
_NAMES = {each.prometheus for each in INSTRUMENTS if each.kind is not Kind.HISTOGRAM} | {
    each.prometheus + suffix for each in INSTRUMENTS if each.kind is Kind.HISTOGRAM for suffix in ("_sum", "_count")
}
_SETTINGS = Config()


def documents(path: Path) -> list[Any]:
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


def kustomizations() -> dict[Path, Any]:
    return {path.parent: documents(path)[0] for path in sorted(MANIFESTS.rglob("kustomization.yaml"))}


def patches() -> set[Path]:
    return {folder / patch["path"] for folder, said in kustomizations().items() for patch in said.get("patches", [])}


def manifests() -> list[Path]:
    return [path for path in sorted(MANIFESTS.rglob("*.yaml")) if path.name != "kustomization.yaml"]


def the(name: str, kind: str) -> Any:
    (found,) = [each for each in documents(MANIFESTS / name) if each["kind"] == kind]
    return found


def pod() -> Any:
    return the("base/statefulset.yaml", "StatefulSet")["spec"]["template"]["spec"]


def runtime() -> Any:
    return the("kserve/clusterservingruntime.yaml", "ClusterServingRuntime")["spec"]


PODS: tuple[Callable[[], Any], ...] = (pod, runtime)


def environment(container: Any) -> dict[str, str]:
    """As the container gets it; what depends on a limit is that limit."""
    said = {}
    for each in container.get("env", []):
        limit = each.get("valueFrom", {}).get("resourceFieldRef", {}).get("resource", "").removeprefix("limits.")
        said[each["name"]] = each.get("value") or str(container["resources"]["limits"][limit])
    return said


# Schemas


@pytest.mark.parametrize("path", manifests(), ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_every_manifest_is_what_its_kind_allows(path: Path) -> None:
    for document in documents(path):
        assert problems(document, partial=path in patches()) == []


def _probe(doc: Any) -> None:
    doc["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["periodSecond"] = 5


def _no_selector(doc: Any) -> None:
    del doc["spec"]["selector"]


def _text_for_number(doc: Any) -> None:
    doc["spec"]["replicas"] = "two"


def _backend(doc: Any) -> None:
    doc["spec"]["rules"][0]["backendRefs"][0]["weigth"] = 1


def _trigger(doc: Any) -> None:
    doc["spec"]["triggers"][0]["metricTyp"] = "Value"


def _no_type(doc: Any) -> None:
    del doc["spec"]["triggers"][0]["type"]


def _endpoint(doc: Any) -> None:
    doc["spec"]["endpoints"][0]["intervall"] = "15s"


def _rule(doc: Any) -> None:
    del doc["spec"]["groups"][0]["rules"][0]["expr"]


def _format(doc: Any) -> None:
    doc["spec"]["supportedModelFormats"][0]["autoselect"] = True


def _budget(doc: Any) -> None:
    doc["spec"]["maxUnavailble"] = 1


def _port(doc: Any) -> None:
    doc["spec"]["ports"][0]["appProtocoll"] = "x"


def _ingress(doc: Any) -> None:
    doc["spec"]["ingress"][0]["port"] = 1


def _version(doc: Any) -> None:
    doc["apiVersion"] = "v2"


@pytest.mark.parametrize(
    ("name", "kind", "spoil"),
    [
        ("base/statefulset.yaml", "StatefulSet", _probe),
        ("base/statefulset.yaml", "StatefulSet", _no_selector),
        ("base/statefulset.yaml", "StatefulSet", _text_for_number),
        ("base/account.yaml", "ServiceAccount", _version),
        ("base/disruption.yaml", "PodDisruptionBudget", _budget),
        ("base/network.yaml", "NetworkPolicy", _ingress),
        ("components/gateway/grpcroute.yaml", "GRPCRoute", _backend),
        ("components/autoscaling/scaledobject.yaml", "ScaledObject", _trigger),
        ("components/autoscaling/scaledobject.yaml", "ScaledObject", _no_type),
        ("components/monitoring/servicemonitor.yaml", "ServiceMonitor", _endpoint),
        ("components/monitoring/prometheusrule.yaml", "PrometheusRule", _rule),
        ("kserve/clusterservingruntime.yaml", "ClusterServingRuntime", _format),
    ],
)
def test_a_field_that_is_wrong_is_found(name: str, kind: str, spoil: Callable[[Any], None]) -> None:
    document = copy.deepcopy(the(name, kind))
    assert problems(document) == []
    spoil(document)
    assert len(problems(document)) >= 1


def test_a_wrong_field_of_a_service_is_found() -> None:
    document = documents(MANIFESTS / "base/services.yaml")[0]
    _port(document)
    assert problems(document) != []


def test_a_patch_may_lack_fields_but_has_no_others() -> None:
    patch = the("overlays/gpu/statefulset.yaml", "StatefulSet")
    assert problems(patch, partial=True) == []
    assert problems(patch) != []
    patch["spec"]["template"]["spec"]["tolerations"][0]["opertor"] = "Exists"
    assert problems(patch, partial=True) != []


# Kustomize


def test_kustomizations_name_every_file_and_only_those_that_are_there() -> None:
    named: set[Path] = set()
    for folder, said in kustomizations().items():
        assert said.keys() <= {"apiVersion", "kind", "resources", "patches", "images"}
        for entry in (*said.get("resources", []), *(patch["path"] for patch in said.get("patches", []))):
            target = (folder / entry).resolve()
            assert (target / "kustomization.yaml").is_file() if target.is_dir() else target.is_file(), entry
            named.add(target)
    assert set(manifests()) - named == {MANIFESTS / "kserve/clusterservingruntime.yaml"}, "it is applied by itself"


def test_patches_are_of_what_there_is() -> None:
    for path in patches():
        (patch,) = documents(path)
        assert (patch["kind"], patch["metadata"]["name"]) == ("StatefulSet", "turnout")
        containers = patch["spec"].get("template", {}).get("spec", {}).get("containers", [])
        assert {container["name"] for container in containers} <= {"turnout"}


def _build(folder: Path) -> list[Any]:
    done = subprocess.run(["kustomize", "build", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.skipif(shutil.which("kustomize") is None, reason="kustomize is not installed, so nothing is built with it")
@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_kustomize_builds_what_its_schemas_allow(overlay: str, tmp_path: Path) -> None:
    built = _build(MANIFESTS / "overlays" / overlay)
    shutil.copytree(MANIFESTS, tmp_path / "all")
    file = tmp_path / "all" / "overlays" / overlay / "kustomization.yaml"
    plain = file.read_text(encoding="utf-8")
    file.write_text(re.sub(r"^# (components:|  - )", r"\1", plain, flags=re.MULTILINE))
    everything = _build(file.parent)
    assert {each["kind"] for each in everything} - {each["kind"] for each in built} == {
        "GRPCRoute",
        "PrometheusRule",
        "ScaledObject",
        "ServiceMonitor",
    }
    for document in (*built, *everything):
        assert problems(document) == []
    (server,) = [each for each in everything if each["kind"] == "StatefulSet"]
    (container,) = server["spec"]["template"]["spec"]["containers"]
    settings = load({}, environment(container), None)
    assert (settings.provider, settings.admin_host) == ({"cpu": "cpu", "gpu": "cuda"}[overlay], "0.0.0.0")
    assert container["image"] == f"turnout:{overlay}"
    assert "replicas" not in server["spec"], "the autoscaler says how many"


# What the server has


@pytest.mark.parametrize("of", PODS, ids=["statefulset", "kserve"])
def test_settings_are_the_servers(of: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> None:
    (container,) = of()["containers"]
    settings = load({}, environment(container), None)
    assert settings.intra_op_threads == int(container["resources"]["limits"]["cpu"])
    assert settings.log_format == "json" or "--log-format=json" in container["args"]
    cli.main(["config", *container.get("args", [])])
    assert yaml.safe_load(capsys.readouterr().out).keys() <= Config.model_fields.keys()


@pytest.mark.parametrize("of", PODS, ids=["statefulset", "kserve"])
def test_the_servers_bounds_leave_half_of_the_memory_to_models(of: Callable[[], Any]) -> None:
    """Else the kernel kills a pod whose clients do not read, where the server would refuse."""
    (container,) = of()["containers"]
    limit = container["resources"]["limits"]["memory"]
    assert held_bytes_max(load({}, environment(container), None)) <= int(limit.removesuffix("Gi")) * 2**30 / 2


@pytest.mark.parametrize("path", sorted(patches()), ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_settings_of_patches_are_the_servers(path: Path) -> None:
    containers = documents(path)[0]["spec"].get("template", {}).get("spec", {}).get("containers", [])
    for container in containers:
        said = environment(container)
        assert all(name.startswith(ENV_PREFIX) for name in said)
        load({}, said, None)


def test_a_setting_that_the_server_does_not_have_is_found() -> None:
    with pytest.raises(ConfigError, match="TURNOUT_DRAIN_DELAY_S"):
        load({}, {"TURNOUT_DRAIN_DELAYS": "10"}, None)


@pytest.mark.parametrize("of", PODS, ids=["statefulset", "kserve"])
def test_ports_and_probes_are_the_servers(of: Callable[[], Any]) -> None:
    (container,) = of()["containers"]
    names = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert names["grpc" if "grpc" in names else "h2c"] == _SETTINGS.grpc_port
    source = (ROOT / "server/turnout/telemetry/http.py").read_text(encoding="utf-8")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert names.get(asked["port"], asked["port"]) == _SETTINGS.ops_port
        assert f'case "{asked["path"]}"' in source
    assert container["startupProbe"]["httpGet"]["path"] != "/readyz", "a server that is to be repaired is never ready"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_services_policies_and_monitors_lead_to_ports_of_the_pod() -> None:
    (container,) = pod()["containers"]
    (admin,) = the("components/admin/statefulset.yaml", "StatefulSet")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in (*container["ports"], *admin["ports"])}
    assert ports == {"grpc": _SETTINGS.grpc_port, "ops": _SETTINGS.ops_port, "grpc-admin": _SETTINGS.admin_port}
    services = {each["metadata"]["name"]: each for each in documents(MANIFESTS / "base/services.yaml")}
    for service in services.values():
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    assert the("base/statefulset.yaml", "StatefulSet")["spec"]["serviceName"] in services
    monitor = the("components/monitoring/servicemonitor.yaml", "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (replicas,) = [each for each in services.values() if wanted <= each["metadata"]["labels"].items()]
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in replicas["spec"]["ports"]}
    assert replicas["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "turnout", "as rules and dashboard expect"
    route = the("components/gateway/grpcroute.yaml", "GRPCRoute")["spec"]["rules"][0]["backendRefs"][0]
    assert route["port"] in {port["port"] for port in services[route["name"]]["spec"]["ports"]}


def test_the_route_names_the_services_of_the_inference_port() -> None:
    """A gateway answers what no match names, so a model's own service must be in the example of one."""
    path = MANIFESTS / "components/gateway/grpcroute.yaml"
    text = path.read_text(encoding="utf-8")
    whole = yaml.safe_load(re.sub(r"^( +)# (- method:|    service:)", r"\1\2", text, flags=re.MULTILINE))
    routed = [match["method"]["service"] for match in whole["spec"]["rules"][0]["matches"]]
    predict = model_service("digits", (), ()).predict_path
    assert [f"/{service}/Predict" for service in routed[3:]] == [predict]
    assert routed[:3] == ["inference.GRPCInferenceService", "turnout.packed.v1.PackedService", "grpc.health.v1.Health"]


def test_nobody_connects_to_the_admin_port_unless_the_component_says_who() -> None:
    open_to_all = [
        port["port"]
        for rule in the("base/network.yaml", "NetworkPolicy")["spec"]["ingress"]
        if not rule.get("from")
        for port in rule["ports"]
    ]
    assert open_to_all == ["grpc"]
    (rule,) = the("components/admin/network.yaml", "NetworkPolicy")["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["grpc-admin"]
    assert rule["from"]
    assert "TURNOUT_ADMIN_HOST" not in environment(pod()["containers"][0])
    assert _SETTINGS.admin_host == "127.0.0.1"


@pytest.mark.parametrize(("of", "until_killed_s"), [(pod, None), (runtime, 30)], ids=["statefulset", "kserve"])
def test_a_stop_ends_before_kubernetes_ends_it(of: Callable[[], Any], until_killed_s: int | None) -> None:
    (container,) = of()["containers"]
    flags = {}
    for argument in container.get("args", []):
        name, _, value = argument.removeprefix("--").partition("=")
        flags[name.replace("-", "_")] = value
    settings = load(flags, environment(container), None)
    limit_s = until_killed_s or of()["terminationGracePeriodSeconds"]
    assert settings.drain_delay_s + settings.drain_grace_s + STOP_S_MAX < limit_s
    assert settings.drain_delay_s >= 5, "Services and gateways take a moment"


@pytest.mark.parametrize("of", PODS, ids=["statefulset", "kserve"])
def test_the_pod_is_restricted_and_writes_where_the_image_does(of: Callable[[], Any]) -> None:
    spec = of()
    (container,) = spec["containers"]
    security = spec.get("securityContext", {}) | container["securityContext"]
    image = lineage(read((ROOT / "docker/Dockerfile").read_text(encoding="utf-8")), "cpu")
    (user,) = [each.value for stage in image for each in stage.all("USER")]
    assert f"{security['runAsUser']}:{security['runAsUser']}" == user
    assert security["runAsNonRoot"] is security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert (security["capabilities"], security["seccompProfile"]) == ({"drop": ["ALL"]}, {"type": "RuntimeDefault"})
    said = {name: value for stage in image for each in stage.all("ENV") for name, value in each.pairs().items()}
    written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert written == {said["TURNOUT_STATE_DIR"], said["HOME"]}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} - written <= {said["TURNOUT_MODEL_REPOSITORY"]}


# Autoscaling


def triggers() -> list[Any]:
    found: list[Any] = the("components/autoscaling/scaledobject.yaml", "ScaledObject")["spec"]["triggers"]
    return found


@pytest.mark.parametrize("trigger", triggers(), ids=lambda trigger: trigger["name"])
def test_the_autoscaler_asks_for_metrics_that_there_are(trigger: Any) -> None:
    words = set(re.findall(r"turnout_\w+(?=\{)", trigger["metadata"]["query"]))
    assert words
    assert words <= _NAMES
    labels = set(re.findall(r"(turnout_\w+)[=~]", trigger["metadata"]["query"]))
    assert labels <= {attribute.replace(".", "_") for each in INSTRUMENTS for attribute in each.attributes}
    assert 'job="turnout"' in trigger["metadata"]["query"]
    assert math.isfinite(float(trigger["metadata"]["threshold"]))


def test_the_autoscaler_scales_the_server_that_there_is() -> None:
    spec = the("components/autoscaling/scaledobject.yaml", "ScaledObject")["spec"]
    server = the("base/statefulset.yaml", "StatefulSet")
    target = spec["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"], target["name"]) == (
        server["apiVersion"],
        server["kind"],
        server["metadata"]["name"],
    )
    assert spec["minReplicaCount"] >= server["spec"]["replicas"]


def test_the_example_of_an_overlay_names_folders_that_are_there() -> None:
    page = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    (overlay,) = [
        yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "Kustomization" in text
    ]
    for entry in (*overlay["resources"], *overlay["components"]):
        assert (ROOT / entry.removeprefix("turnout/") / "kustomization.yaml").is_file()
