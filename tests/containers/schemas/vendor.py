"""Writes the schemas beside it again, from the Go modules that publish them; run as a program.

Needs Go and the network, and is no part of the tests. What is written is smaller than what is published (without
descriptions) and stricter: a field that an object does not have is refused.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
KUBERNETES = "k8s.io/kubernetes@v1.36.3"
KINDS = {
    "io.k8s.api.apps.v1.StatefulSet": ("apps/v1", "StatefulSet"),
    "io.k8s.api.core.v1.Service": ("v1", "Service"),
    "io.k8s.api.core.v1.ServiceAccount": ("v1", "ServiceAccount"),
    "io.k8s.api.networking.v1.NetworkPolicy": ("networking.k8s.io/v1", "NetworkPolicy"),
    "io.k8s.api.policy.v1.PodDisruptionBudget": ("policy/v1", "PodDisruptionBudget"),
}
_MONITORING = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
RESOURCES = (
    ("sigs.k8s.io/gateway-api@v1.6.3", "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml"),
    ("github.com/kedacore/keda/v2@v2.21.0", "config/crd/bases/keda.sh_scaledobjects.yaml"),
    ("github.com/kserve/kserve@v0.19.0", "config/crd/full/serving.kserve.io_clusterservingruntimes.yaml"),
    (_MONITORING, "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"),
    (_MONITORING, "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"),
)
COMPOSE = ("github.com/compose-spec/compose-go/v2@v2.16.2", "schema/compose-spec.json")


def main() -> None:
    definitions = json.loads(text_of(KUBERNETES, "api/openapi-spec/swagger.json"))["definitions"]
    kept = {name: strict(definitions[name]) for name in sorted(reached(definitions, KINDS))}
    for name, (version, kind) in KINDS.items():
        write(kind, {"origin": KUBERNETES, "apiVersion": version, "schema": {"$ref": f"#/definitions/{name}"}})
    write("definitions", {"origin": KUBERNETES, "definitions": kept})
    for module, path in RESOURCES:
        spec = yaml.safe_load(text_of(module, path))["spec"]
        version = spec["versions"][0]
        schema = strict(version["schema"]["openAPIV3Schema"])
        group = f"{spec['group']}/{version['name']}"
        write(spec["names"]["kind"], {"origin": module, "apiVersion": group, "schema": schema})
    module, path = COMPOSE
    write("compose", {"origin": module, "schema": stripped(json.loads(text_of(module, path)))})


def text_of(module: str, path: str) -> str:
    done = subprocess.run(["go", "mod", "download", "-json", module], capture_output=True, text=True, check=True)
    return (Path(json.loads(done.stdout)["Dir"]) / path).read_text(encoding="utf-8")


def write(name: str, content: dict[str, Any]) -> None:
    (HERE / f"{name}.json").write_text(json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n")


def reached(definitions: dict[str, Any], names: Any) -> set[str]:
    found: set[str] = set()
    wanted = list(names)
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted.extend(ref.rpartition("/")[2] for ref in references(definitions[name]))
    return found


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def strict(node: Any) -> Any:
    """Kubernetes' own dialect as JSON schema, and nothing but the named fields in an object that names any."""
    if isinstance(node, list):
        return [strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    if node.get("format") == "int-or-string" or node.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "A quantity" in str(node.get("description", "")) or str(node.get("description", "")).startswith("Quantity is"):
        return {"type": ["string", "number"]}
    kept = {
        key: value for key, value in node.items() if not key.startswith("x-kubernetes-") and not is_text(key, value)
    }
    kept = {key: strict(value) if key != "default" else value for key, value in kept.items()}
    if "(?" in str(kept.get("pattern", "")):
        del kept["pattern"]  # Go's dialect of regular expressions, which JSON schema does not know
    open_object = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
    if isinstance(node.get("properties"), dict) and node.get("type", "object") == "object" and not open_object:
        kept["additionalProperties"] = False
    return kept


def stripped(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: stripped(value) for key, value in node.items() if not is_text(key, value)}
    return [stripped(each) for each in node] if isinstance(node, list) else node


def is_text(key: str, value: Any) -> bool:
    return key == "description" and isinstance(value, str)  # a field may be called description, too


if __name__ == "__main__":
    main()
