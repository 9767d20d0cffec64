"""Holds YAML against the schemas in tests/containers/schemas: Kubernetes' kinds, custom resources, compose files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

SCHEMAS = Path(__file__).resolve().parents[1] / "containers" / "schemas"


def problems(document: Mapping[str, Any], *, partial: bool = False) -> list[str]:
    """What is wrong with a manifest, as `path: sentence`. A partial one (a patch) may lack fields, but not add any."""
    kind = str(document.get("kind", ""))
    if not (SCHEMAS / f"{kind}.json").is_file():
        return [f"kind: no schema for '{kind}'"]
    version, validator = _validator(kind, partial)
    found = list(_told(validator.iter_errors(document)))
    return found if document.get("apiVersion") == version else [f"apiVersion: must be {version}", *found]


def compose_problems(document: Mapping[str, Any]) -> list[str]:
    schema = json.loads((SCHEMAS / "compose.json").read_text(encoding="utf-8"))["schema"]
    return list(_told(jsonschema_rs.validator_for(schema).iter_errors(document)))


@cache
def _validator(kind: str, partial: bool) -> tuple[str, Any]:
    told = json.loads((SCHEMAS / f"{kind}.json").read_text(encoding="utf-8"))
    schema = told["schema"]
    if "$ref" in schema:
        schema |= {"definitions": json.loads((SCHEMAS / "definitions.json").read_text("utf-8"))["definitions"]}
    if partial:
        schema = _without_required(schema)
    return told["apiVersion"], jsonschema_rs.Draft7Validator(schema)


def _without_required(node: Any) -> Any:
    """A patch may also say null, which takes a field away."""
    if isinstance(node, list):
        return [_without_required(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {k: _without_required(v) for k, v in node.items() if not (k == "required" and isinstance(v, list))}
    if isinstance(kept.get("type"), str):
        kept["type"] = [kept["type"], "null"]
    return kept


def _told(errors: Iterable[Any]) -> Iterable[str]:
    for error in errors:
        yield f"{'.'.join(map(str, error.instance_path)) or 'document'}: {error.message}"
