"""Writes what is made from the table of instruments: docs/metrics.md, and dashboard and rules in docker/."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from monitoring.dashboard import dashboard
from monitoring.rules import alerts, prometheus_rule, recording_rules
from monitoring.table import document

ROOT = Path(__file__).resolve().parents[2]
FILES: dict[str, Callable[[], str]] = {
    "docs/metrics.md": document,
    "docker/grafana/turnout.json": dashboard,
    "docker/prometheus/turnout-recording.yaml": recording_rules,
    "docker/prometheus/turnout-alerts.yaml": alerts,
    "docker/kubernetes/components/monitoring/prometheusrule.yaml": prometheus_rule,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only compare; exit with 1 when a file is stale")
    return report_stale(ROOT) if parser.parse_args().check else write(ROOT)


def write(root: Path) -> int:
    for name, make in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(make(), encoding="utf-8")
    return 0


def report_stale(root: Path) -> int:
    def stale(name: str) -> bool:
        return not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != FILES[name]()

    names = [name for name in FILES if stale(name)]
    for name in names:
        print(f"{name} is stale")
    if names:
        print("remedy: run `make monitoring`")
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
