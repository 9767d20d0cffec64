"""A real Prometheus that scrapes a loaded server: every panel and every rule shows something, and no alert fires."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml
from tritonclient.utils import InferenceServerException

from monitoring.dashboard import ROWS, Panel
from monitoring.rules import ALERTS, RECORDS, Record
from support.command import turnoutctl
from support.prometheus import RULES, Prometheus, needs, scraping
from support.server import Server, address_of, serving, until

ROOT = Path(__file__).resolve().parents[2]
_SCALED = ROOT / "docker/kubernetes/components/autoscaling/scaledobject.yaml"
TRIGGERS = yaml.safe_load(_SCALED.read_text(encoding="utf-8"))["spec"]["triggers"]
_VARIABLES = {"$__rate_interval": "15s", "$__range": "1m", "$instance": ".*", "$model": ".*"}


def shown(query: str) -> str:
    for name, value in _VARIABLES.items():
        query = query.replace(name, value)
    return query


@contextmanager
def load(server: Server) -> Iterator[None]:
    """Clients that ask without a pause, and now and then for what there is not."""
    over = threading.Event()

    def client() -> None:
        with triton.InferenceServerClient(server.address) as asking:
            given = triton.InferInput("image", [1, 64], "FP32")
            given.set_data_from_numpy(np.zeros((1, 64), np.float32))
            while not over.is_set():
                asking.infer("digits", [given])
                try:
                    asking.infer("of a client's choice", [given])
                except InferenceServerException:
                    time.sleep(0.002)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for each in clients:
        each.start()
    try:
        yield
    finally:
        over.set()
        for each in clients:
            each.join()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """After some seconds of load, in which the traffic was moved there and back."""
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copytree(ROOT / "models" / "repository" / "digits", folder / "models" / "digits")
    with serving(folder / "models", f"--state-dir={folder / 'state'}") as server, load(server):
        admin = address_of(server, "admin")
        with scraping(address_of(server, "ops"), folder) as scraper:
            for command in (
                ["swap", "digits", "v2"],
                ["rollback", "digits"],
                ["weights", "digits", "v2=10%", "blue=rest"],
                ["shadow", "set", "digits", "v1", "--sample", "100%", "--noise", "50%", "--queue-max", "4"],
            ):
                done = turnoutctl("--endpoint", admin, *command)
                assert done.status == 0, done.stderr
            until(lambda: scraper.query("count_over_time(turnout_server_ready[1m]) > 5"), 60)
            yield scraper


@needs("prometheus")
def test_the_server_is_scraped(prometheus: Prometheus) -> None:
    (target,) = prometheus.targets()
    assert (target["health"], target["lastError"]) == ("up", "")


@needs("prometheus")
@pytest.mark.parametrize("panel", [panel for _, row in ROWS for panel in row], ids=lambda panel: panel.title)
def test_every_panel_shows_something(prometheus: Prometheus, panel: Panel) -> None:
    for query, _ in panel.queries:
        found = prometheus.query(shown(query))
        if panel.needs == "a GPU" and not found:
            pytest.skip("this machine has no GPU that nvidia-ml-py sees, so its panels are empty")
        assert found, query
        assert all(float(each["value"][1]) == float(each["value"][1]) for each in found), f"{query}: {found}"


@needs("prometheus")
@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_every_recording_rule_records(prometheus: Prometheus, record: Record) -> None:
    until(lambda: prometheus.query(record.name))


@needs("prometheus")
@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger["name"])
def test_the_autoscaler_gets_one_number(prometheus: Prometheus, trigger: Any) -> None:
    found = prometheus.query(trigger["metadata"]["query"])
    assert len(found) == 1, "KEDA refuses more than one"
    assert float(found[0]["value"][1]) >= 0


@needs("prometheus")
def test_rules_are_sound_and_nobody_is_called(prometheus: Prometheus) -> None:
    rules = prometheus.rules()
    assert {rule["name"] for rule in rules} == {rule.name for rule in (*RECORDS, *ALERTS)}
    assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []


@needs("prometheus")
def test_numbers_agree_under_both_names(prometheus: Prometheus) -> None:
    ours = 'sum(turnout_request_duration_seconds_count{turnout_outcome="success"} offset 1s)'
    ((_, count),) = [each["value"] for each in prometheus.query(ours)]
    ((_, triton_s),) = [each["value"] for each in prometheus.query("sum(nv_inference_request_success offset 1s)")]
    assert float(count) > 100
    assert float(triton_s) == pytest.approx(float(count), rel=0.5), "one scrape later at most"
    rejected = prometheus.query('turnout_request_rejected_total{turnout_model_name!="_OTHER"}')
    assert rejected == [], "what a client calls a model is no label"


@needs("promtool")
def test_rules_and_alerts_hold_their_unit_tests() -> None:
    for command in (
        ["check", "rules", "turnout-recording.yaml", "turnout-alerts.yaml"],
        ["check", "config", "prometheus.yaml"],
        ["test", "rules", "turnout-alerts-test.yaml"],
    ):
        done = subprocess.run(["promtool", *command], cwd=RULES, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
