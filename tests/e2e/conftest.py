"""One server process for all tests that only ask: it serves every model of support/onnx_models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import onnx_models
from support.server import Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("models")
    onnx_models.triton_models(root)
    onnx_models.identity_models(root)
    onnx_models.shaped_models(root)
    onnx_models.lookup_model(root)
    onnx_models.slow_model(root)
    onnx_models.broken_models(root)
    # In child processes so many models would take some seconds more; other servers of these tests have them.
    with serving(root, "--ping-interval-ms-min=50", "--preflight=off") as running:
        yield running
