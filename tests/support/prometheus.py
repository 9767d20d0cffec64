"""A real Prometheus, where its program is installed."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.server import until

RULES = Path(__file__).resolve().parents[2] / "docker" / "prometheus"
START_S_MAX = 30.0
_REMEDY = "is not installed (Debian: apt-get install prometheus), so this test is skipped"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} {_REMEDY}")


class Prometheus:
    """One that scrapes every second."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ready(self) -> bool:
        try:
            self._get("/-/ready")
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def query(self, expression: str) -> list[Any]:
        result: list[Any] = self._json("/api/v1/query", query=expression)["result"]
        return result

    def rules(self) -> list[Any]:
        return [rule for group in self._json("/api/v1/rules")["groups"] for rule in group["rules"]]

    def exemplars(self, series: str, start_s: float, end_s: float) -> list[Any]:
        found: list[Any] = self._json("/api/v1/query_exemplars", query=series, start=start_s, end=end_s)
        return [exemplar for each in found for exemplar in each["exemplars"]]

    def targets(self) -> list[Any]:
        targets: list[Any] = self._json("/api/v1/targets")["activeTargets"]
        return targets

    def _json(self, path: str, **parameters: Any) -> Any:
        try:
            answer = json.loads(self._get(f"{path}?{urllib.parse.urlencode(parameters)}"))
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        assert answer["status"] == "success"
        return answer["data"]

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://{self._address}{path}", timeout=10) as answer:
            body: bytes = answer.read()
            return body


@contextmanager
def scraping(target: str, folder: Path) -> Iterator[Prometheus]:
    """Scrapes one ops port as docker/prometheus/prometheus.yaml does, but each second."""
    config = yaml.safe_load((RULES / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
                "--enable-feature=exemplar-storage",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            prometheus = Prometheus(address)
            until(lambda: process.poll() is not None or prometheus.ready(), START_S_MAX)
            assert process.poll() is None, (folder / "log").read_text()
            yield prometheus
        finally:
            process.kill()
            process.wait()
