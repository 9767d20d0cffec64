"""Our generated code beside other definitions of `inference.*`, each combination in a process of its own."""

import os
import subprocess
import sys

import pytest

OURS = """
import turnout_wire.descriptors, turnout_wire.service, turnout_wire.tensors
from turnout_wire.gen import grpc_service_pb2, model_config_pb2
"""
THEIRS = """
import tritonclient.grpc, tritonclient.grpc.aio
from tritonclient.grpc import model_config_pb2 as their_config, service_pb2
"""
# Bytes of one family are read by the other: neither import has disturbed it.
EXCHANGE = """
theirs = service_pb2.ModelInferRequest(model_name="digits", raw_input_contents=[b"1234"])
ours = grpc_service_pb2.ModelInferRequest.FromString(theirs.SerializeToString())
assert ours.model_name == "digits" and ours.SerializeToString() == theirs.SerializeToString()
"""
# What kserve or mlserver may have registered: the same names with other contents, under the usual file names.
ALTERED = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
for name, message in FILES:
    file = descriptor_pb2.FileDescriptorProto(name=name, package="inference", syntax="proto3")
    file.message_type.add(name=message).field.add(name="altered", number=99, type=9, label=1)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
"""
WORKS = """
request = grpc_service_pb2.ModelInferRequest(model_name="digits")
assert grpc_service_pb2.ModelInferRequest.FromString(request.SerializeToString()) == request
assert model_config_pb2.ModelConfig(name="digits").name == "digits"
services = turnout_wire.descriptors.public_pool()
assert services.FindServiceByName("inference.GRPCInferenceService")
"""
IMPLEMENTATIONS = ["upb", "python"]


def run_python(code: str, implementation: str = "upb") -> None:
    environment = os.environ | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation}
    check = f"""
from google.protobuf.internal import api_implementation
assert api_implementation.Type() == {implementation!r}
"""
    done = subprocess.run(
        [sys.executable, "-c", code + check], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("order", [OURS + THEIRS, THEIRS + OURS], ids=["ours-first", "theirs-first"])
def test_imports_beside_tritonclient(order: str, implementation: str) -> None:
    run_python(order + EXCHANGE + WORKS, implementation)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("folder", ["", "inference/"], ids=["triton-file-names", "our-public-file-names"])
def test_imports_after_an_altered_definition(folder: str, implementation: str) -> None:
    files = [
        (f"{folder}grpc_service.proto", "ModelInferRequest"),
        (f"{folder}model_config.proto", "ModelConfig"),
    ]
    run_python(f"FILES = {files!r}" + ALTERED + OURS + WORKS, implementation)


def test_the_altered_definition_does_collide_with_the_public_files() -> None:
    """The control of the test above: without private names the import would have failed."""
    files = [("grpc_service.proto", "ModelInferRequest"), ("model_config.proto", "ModelConfig")]
    refused = """
try:
    import tritonclient.grpc
except TypeError:
    pass
else:
    raise SystemExit("accepted")
"""
    run_python(f"FILES = {files!r}" + ALTERED + refused)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_default_pool_gets_no_public_symbol(implementation: str) -> None:
    code = """
from google.protobuf import descriptor_pool
turnout_wire.descriptors.public_pool()
pool = descriptor_pool.Default()
for file in grpc_service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR:
    names = [*file.message_types_by_name, *file.enum_types_by_name, *file.services_by_name]
    assert names
    for name in names:
        try:
            pool.FindFileContainingSymbol(f"inference.{name}")
        except KeyError:
            continue
        raise SystemExit(f"inference.{name} is in the default pool")
"""
    run_python(OURS + code, implementation)


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("turnout_wire", ["google.protobuf", "grpc", "numpy"]),
        ("turnout_wire.tensors", ["google.protobuf", "grpc"]),
        ("turnout_wire.service", ["grpc", "numpy"]),
        ("turnout_wire.descriptors", ["grpc", "numpy", "turnout_wire.gen"]),
    ],
)
def test_imports_no_more_than_needed(module: str, unwanted: list[str]) -> None:
    code = f"import sys, {module}\nfound = {{*sys.modules}} & {set(unwanted)!r}\nassert not found, found\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
