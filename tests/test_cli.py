"""The command line and the settings: precedence, refusals with suggestions, and what a base install says."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.server import environment
from turnout import __version__, cli
from turnout.config import ENV_PREFIX, Config, ConfigError, load
from turnout.store import Repository
from turnout.telemetry.logs import LogObserver, start_logging


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


def turnout(*arguments: str) -> int:
    """The exit status of `turnout ...` in this process."""
    try:
        cli.main(arguments)
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        return ended.code
    return 0


def effective(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert turnout("config", *arguments) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(settings, dict)
    return settings


# Precedence


def test_flag_before_environment_before_file_before_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "turnout.yaml"
    assert effective(capsys)["grpc_port"] == 8001
    file.write_text("grpc_port: 1\nqueue_rows_max: 11\nserver_name: file\n")
    given = ("--config", str(file))
    assert effective(capsys, *given)["grpc_port"] == 1
    monkeypatch.setenv("TURNOUT_GRPC_PORT", "2")
    monkeypatch.setenv("TURNOUT_QUEUE_ROWS_MAX", "22")
    assert effective(capsys, *given)["grpc_port"] == 2
    settings = effective(capsys, *given, "--grpc-port", "3")
    assert (settings["grpc_port"], settings["queue_rows_max"], settings["server_name"]) == (3, 22, "file")


def test_config_file_from_the_environment_and_the_flag_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(f"server_name: {name}\n")
    monkeypatch.setenv("TURNOUT_CONFIG", str(tmp_path / "one.yaml"))
    assert effective(capsys)["server_name"] == "one"
    assert effective(capsys, "--config", str(tmp_path / "two.yaml"))["server_name"] == "two"


def test_printed_config_loads_as_the_same_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "--grpc-port=0",
        "--no-response-identity",
        "--drain-delay-s=0.5",
        "--model-repository=/m",
        "--host=::1",
    )
    assert turnout("config", *arguments) == 0
    printed = capsys.readouterr().out
    file = tmp_path / "turnout.yaml"
    file.write_text(printed)
    again = load({}, {}, file)
    assert again == load(
        {
            "grpc_port": 0,
            "response_identity": False,
            "drain_delay_s": 0.5,
            "model_repository": Path("/m"),
            "host": "::1",
        },
        {},
        None,
    )
    assert turnout("config", "--config", str(file)) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("name", list(Config.model_fields))
def test_every_setting_has_a_flag_with_help_and_a_variable(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert turnout("serve", "--help") == 0
    help_text = capsys.readouterr().out
    assert f"--{name.replace('_', '-')} " in help_text
    assert f"[TURNOUT_{name.upper()}]" in "".join(help_text.split())
    field = Config.model_fields[name]
    assert field.description
    load({}, {f"TURNOUT_{name.upper()}": str(field.default)}, None)


def test_empty_file_is_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert load({}, {}, tmp_path / "empty.yaml") == Config()


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("preflight: on", "on"),
        ("preflight: off", "off"),
        ("preflight: 'off'", "off"),
        ("preflight: yes", "on"),
        ("", "on"),
    ],
)
def test_preflight_as_yaml_reads_it(tmp_path: Path, line: str, value: str) -> None:
    """To YAML, a bare `on` is a boolean."""
    (tmp_path / "turnout.yaml").write_text(line)
    assert load({}, {}, tmp_path / "turnout.yaml").preflight == value


def test_trusted_digests_as_list_or_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = "a" * 64, "0" * 64
    file = tmp_path / "turnout.yaml"
    for text in (f"[{one}, {two.upper()!r}]", f"\n- {one}\n- '{two}'", f'"{one}, {two},"'):
        file.write_text(f"trusted_digests: {text}")
        assert load({}, {}, file).trusted_digests == f"{one},{two}"
    assert load({}, {"TURNOUT_TRUSTED_DIGESTS": f"{one},{two}"}, None).trusted_digests == f"{one},{two}"
    assert turnout("config", f"--trusted-digests={one},abc") == 2
    assert f"trusted_digests = '{one},abc': 'abc' is no sha256 of 64 hexadecimal digits" in capsys.readouterr().err
    file.write_text("trusted_digests: [1]")
    with pytest.raises(ConfigError, match="'1' is no sha256"):
        load({}, {}, file)


# Manifests


def repository(root: Path, models: dict[str, bytes]) -> Path:
    for name, content in models.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_manifest_lists_the_files_and_digests_of_every_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"m/config.pbtxt": b"version_policy { all {} }", "m/1/model.onnx": b"one", "m/2/model.onnx": b"two"}
    repository(tmp_path, files | {"m/2/weights/w.bin": b"", "n/7/model.onnx": b"one"})
    assert turnout("manifest", f"--model-repository={tmp_path}") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [(row["model"], row["version"]) for row in printed] == [("m", 1), ("m", 2), ("n", 7)]
    first, second, third = printed
    sha256 = hashlib.sha256(b"one").hexdigest()
    assert first["files"] == [{"name": "model.onnx", "size": 3, "sha256": sha256}]
    assert first["digest"] == third["digest"] == hashlib.sha256(f"model.onnx\0003\0{sha256}\n".encode()).hexdigest()
    assert [file["name"] for file in second["files"]] == ["model.onnx", "weights/w.bin"]


def test_manifest_says_what_it_could_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository(tmp_path, {"good/1/model.onnx": b"one", "bad/2/w.bin": b"", "a b/1/model.onnx": b""})
    assert turnout("manifest", f"--model-repository={tmp_path}") == 1
    told = capsys.readouterr()
    assert [row["model"] for row in json.loads(told.out)] == ["good"]
    assert told.err.splitlines() == [
        "turnout: a b: its name has other characters than letters, digits, '.', '_' and '-', or over 128",
        "turnout: bad/2: version 2: it has no file 'model.onnx'",
    ]


def test_manifest_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert turnout("manifest", f"--model-repository={tmp_path}") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert turnout("manifest", f"--model-repository={tmp_path / 'nowhere'}") == 1
    told = capsys.readouterr()
    assert (told.out, told.err.count("is not a folder: see --model-repository")) == ("", 1)


def test_a_printed_digest_is_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository(tmp_path, {"m/1/model.onnx": b"one"})
    assert turnout("manifest", f"--model-repository={tmp_path}") == 0
    (row,) = json.loads(capsys.readouterr().out)
    (found,) = Repository(tmp_path).models()
    assert found.artefacts[0].revision.digest == row["digest"]
    assert effective(capsys, f"--trusted-digests={row['digest']}")["trusted_digests"] == row["digest"]


# Refusals


def test_unknown_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert turnout("serve", "--grpc-prot", "1") == 2
    told = capsys.readouterr().err
    assert "unknown arguments: --grpc-prot 1" in told and "turnout serve --help" in told


def test_abbreviated_flag_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert turnout("config", "--grpc=1") == 2
    assert "--grpc=1" in capsys.readouterr().err


def test_unknown_variable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TURNOUT_GRPC_PROT", "1")
    monkeypatch.setenv("TURNOUT_ZZZ", "1")
    assert turnout("config") == 2
    assert capsys.readouterr().err == (
        "turnout: environment: unknown setting 'TURNOUT_GRPC_PROT', did you mean 'TURNOUT_GRPC_PORT'?\n"
        "turnout: environment: unknown setting 'TURNOUT_ZZZ'\n"
    )


def test_unknown_key_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "turnout.yaml"
    file.write_text("queue_row_max: 3\n")
    assert turnout("config", "--config", str(file)) == 2
    assert capsys.readouterr().err == (
        f"turnout: {file}: unknown setting 'queue_row_max', did you mean 'queue_rows_max'?\n"
    )


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--grpc-port=65536", "grpc_port = '65536'"),
        ("--grpc-port=x", "grpc_port = 'x'"),
        ("--queue-rows-max=0", "queue_rows_max = '0'"),
        ("--drain-delay-s=-1", "drain_delay_s = '-1'"),
        ("--provider=tpu", "provider = 'tpu': provider 'tpu' is none of auto, cpu"),
        ("--host=example.org", "host = 'example.org': is no IP address"),
        ("--log-level=loud", "log_level = 'loud'"),
        ("--server-name=", "server_name = ''"),
    ],
)
def test_value_out_of_bounds(flag: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert turnout("serve", flag) == 2
    told = capsys.readouterr().err
    assert told.startswith("turnout: ") and told.count("\n") == 1
    assert words in told


def test_all_problems_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert turnout("config", "--grpc-port=x", "--host=y", "--log-level=z") == 2
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["host", "grpc_port", "log_level"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"- a\n- b\n", "must hold settings as 'name: value' lines"),
        (b"just text", "must hold settings"),
        (b"a: [", "is not YAML"),
        (b"\xff\xfe\xff", "is not YAML"),
        (b"!!python/object/apply:os.system ['true']", "is not YAML"),
        (b"x" * ((1 << 20) + 1), "larger than 1048576 bytes"),
    ],
)
def test_file_that_holds_no_settings(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "turnout.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load({}, {}, file)
    assert str(refused.value).startswith(f"{file}: ") and words in str(refused.value)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load({}, {}, tmp_path / "nothing.yaml")


def test_version_and_missing_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert turnout("--version") == 0
    assert capsys.readouterr().out == f"turnout {__version__}\n"
    assert turnout() == 2
    assert "COMMAND" in capsys.readouterr().err


# A base install

WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
sys.meta_path.insert(0, Absent())
from turnout import cli
cli.main({arguments!r})
"""
SERVER_PACKAGES = ["pydantic", "yaml", "onnxruntime", "uvloop", "structlog", "rich", "grpc_health", "grpc_reflection"]


def without(absent: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    program = WITHOUT.format(absent=absent, arguments=list(arguments))
    return subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("absent", "named"),
    [
        (SERVER_PACKAGES, {"pydantic", "yaml"}),  # whichever is imported first
        (["pydantic"], {"pydantic"}),
        (["onnxruntime"], {"onnxruntime"}),
        (["uvloop"], {"uvloop"}),
    ],
)
def test_serve_without_the_server_says_what_to_install(absent: list[str], named: set[str]) -> None:
    ended = without(absent, "serve", "--grpc-port", "0", "--model-repository=/nowhere")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr in {
        f"turnout: the server is not installed (no module '{name}'): "
        'pip install "turnout[server]" for CPU, or "turnout[server-gpu]" for NVIDIA GPUs\n'
        for name in named
    }


def test_version_needs_no_server() -> None:
    ended = without(SERVER_PACKAGES, "--version")
    assert (ended.returncode, ended.stdout) == (0, f"turnout {__version__}\n")


def test_what_kubernetes_says_of_a_service_named_turnout_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_GRPC",
        "PORT",
        "PORT_8001_TCP",
        "PORT_8001_TCP_ADDR",
        "PORT_8001_TCP_PROTO",
        "SERVER_SERVICE_HOST",
        "GRPC_PORT",  # of a Service named turnout-grpc: by chance the name of a setting, but not its value
        "GRPC_PORT_8001_TCP",
    ):
        monkeypatch.setenv(f"TURNOUT_{name}", "tcp://10.0.0.1:8001")
    assert effective(capsys)["grpc_port"] == 8001
    monkeypatch.setenv("TURNOUT_PORTS", "1")
    assert turnout("config") == 2


def test_an_empty_name_of_a_file_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TURNOUT_CONFIG", "")
    assert effective(capsys)["grpc_port"] == 8001


def test_a_log_whose_reader_has_gone_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            tried.append(text)
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    start_logging("info", "json")
    LogObserver().event("nobody reads this")
    assert "nobody reads this" in "".join(tried)
