"""ONNX Runtime tells nobody how it is used: since 1.29 it would, and would leave a device's id under HOME."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_MODEL = ROOT / "models/repository/digits/1/model.onnx"
_RUN = f"""
import turnout.backends.onnx
import onnxruntime
onnxruntime.InferenceSession({str(_MODEL)!r})
print(open("/proc/self/maps").read().count("libonnxruntime"))
"""


def test_nothing_is_left_under_home(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", _RUN],
        env=environment | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) > 0, "ONNX Runtime was loaded"
    assert list(tmp_path.rglob("*")) == []
