"""The committed generated code is fresh, and the check that says so can fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROTO = Path(__file__).resolve().parents[2] / "proto"
GEN = Path("python", "turnout_wire", "gen")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(PROTO, tmp_path / "proto", ignore=shutil.ignore_patterns("__pycache__"))


def generate(proto: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(proto / "generate.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_committed_code_is_fresh() -> None:
    done = generate(PROTO, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["grpc_service_pb2.py", "model_config_pb2.pyi", "inference.binpb", "__init__.py"])
def test_check_names_an_altered_file(copy: Path, name: str) -> None:
    path = copy / GEN / name
    altered = bytearray(path.read_bytes())
    altered[-2] ^= 1
    path.write_bytes(altered)
    done = generate(copy, "--check")
    assert done.returncode == 1
    assert f"turnout_wire/gen/{name} is stale" in done.stdout
    assert "make proto" in done.stdout
    assert len(done.stdout.splitlines()) == 2
    assert path.read_bytes() == altered


def test_check_names_missing_and_left_over_files(copy: Path) -> None:
    (copy / GEN / "inference.binpb").unlink()
    (copy / GEN / "old_pb2.py").write_text("")
    done = generate(copy, "--check")
    assert done.returncode == 1
    assert "inference.binpb is missing" in done.stdout
    assert "old_pb2.py is generated from nothing any more" in done.stdout


def test_regenerating_repairs(copy: Path) -> None:
    (copy / GEN / "inference.binpb").unlink()
    (copy / GEN / "old_pb2.py").write_text("")
    (copy / GEN / "grpc_service_pb2.py").write_text("")
    assert generate(copy).returncode == 0
    assert generate(copy, "--check").returncode == 0


def test_a_changed_protocol_file_makes_the_code_stale(copy: Path) -> None:
    path = copy / "inference" / "grpc_service.proto"
    path.write_text(
        path.read_text().replace("message ServerLiveRequest {}", "message ServerLiveRequest { bool more = 1; }")
    )
    done = generate(copy, "--check")
    assert done.returncode == 1
    assert "inference.binpb is stale" in done.stdout


def test_a_broken_protocol_file_is_reported(copy: Path) -> None:
    path = copy / "inference" / "grpc_service.proto"
    path.write_text(path.read_text().replace('syntax = "proto3";', "nonsense"))
    done = generate(copy)
    assert done.returncode == 1
    assert "protoc ended with status" in done.stderr
    assert (copy / GEN / "grpc_service_pb2.py").read_bytes() == (PROTO / GEN / "grpc_service_pb2.py").read_bytes()


def test_generated_files_name_no_folder_of_this_machine() -> None:
    for path in (PROTO / GEN).iterdir():
        if path.is_file():
            assert str(PROTO.parent).encode() not in path.read_bytes()
            assert b"/tmp" not in path.read_bytes()
