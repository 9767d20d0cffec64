"""The examples in other languages: what each needs, how it is built, and how it is run.

`EXAMPLES=all` (make examples) builds every one whose toolchain is here. Without it nothing is fetched but pip packages:
those run that are built already.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "clients" / "examples"
BUILD_S_MAX = 600
_BIN = ROOT / "build" / "examples"
_GO = EXAMPLES / "go"
_GO_MODULE = "turnout.example/client"
_PACKAGES = {"digits.proto": f"{_GO_MODULE}/gen/models", "turnout/admin/v1/slots.proto": f"{_GO_MODULE}/gen/admin"}
# What package managers say when their registry cannot be reached.
_NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "ECONNREFUSED", "ECONNRESET", "dial tcp", "Could not transfer",
               "Unknown host", "network is unreachable")  # fmt: skip


@dataclass(frozen=True)
class Example:
    """One example.

    Attributes:
        tools: programs that must be on the PATH.
        built: is there once it is built.
    """

    language: str
    tools: Sequence[str]
    built: Path
    build: Sequence[Sequence[str]]
    folder: Path
    run: Sequence[str]

    def ready(self) -> None:
        """Builds it, or skips the test with a sentence that says what is missing."""
        for tool in self.tools:
            if shutil.which(tool) is None:
                pytest.skip(f"the {self.language} example needs {tool} on the PATH")
        if os.environ.get("EXAMPLES") == "all":
            self._build()
        elif not self.built.exists():
            pytest.skip(f"the {self.language} example is not built: `make examples` fetches its packages and builds it")

    def _build(self) -> None:
        _BIN.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"GOBIN": str(_BIN), "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}"}
        for command in self.build:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=BUILD_S_MAX,
                check=False,
            )
            said = done.stdout + done.stderr
            if done.returncode and any(sign in said for sign in _NO_NETWORK):
                pytest.skip(f"the {self.language} example: its packages cannot be fetched from here")
            assert done.returncode == 0, f"{' '.join(command)}\n{said}"

    def output(self, endpoint: str, admin: str) -> str:
        command = [part.format(endpoint=endpoint, admin=admin) for part in self.run]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return re.sub("\x1b\\[[0-9;]*m", "", done.stdout)  # Maven's, on a pipe too


def _protoc() -> list[str]:
    options = [f"M{file}={package}" for file, package in _PACKAGES.items()] + [f"module={_GO_MODULE}"]
    plugins = [f"--{plugin}_opt={option}" for plugin in ("go", "go-grpc") for option in options]
    folders = [f"-I{EXAMPLES / 'proto'}", f"-I{ROOT / 'proto'}"]
    return [sys.executable, "-m", "grpc_tools.protoc", *folders, "--go_out=.", "--go-grpc_out=.", *plugins, *_PACKAGES]


GO = Example(
    "Go",
    ("go",),
    _BIN / "go-example",
    (
        ("go", "install", "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.6"),
        ("go", "install", "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1"),
        _protoc(),
        ("go", "build", "-o", str(_BIN / "go-example"), "."),
    ),
    _GO,
    (str(_BIN / "go-example"), "{endpoint}", "{admin}"),
)
NODE = Example(
    "Node.js",
    ("node", "npm"),
    EXAMPLES / "node" / "node_modules",
    (("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--fetch-retries=0"),),
    EXAMPLES / "node",
    ("node", "example.mjs", "{endpoint}", "{admin}"),
)
JAVA = Example(
    "Java",
    ("java", "mvn"),
    EXAMPLES / "java" / "target" / "classes" / "Example.class",
    (("mvn", "-q", "-B", "compile"),),
    EXAMPLES / "java",
    ("mvn", "-q", "-B", "exec:java", "-Dexec.args={endpoint} {admin}"),
)
PYTHON = Example("Python", (), EXAMPLES, (), EXAMPLES, (sys.executable, "python_sync.py", "{endpoint}", "{admin}"))
