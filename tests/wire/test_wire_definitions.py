"""Our protocol files against tritonclient's descriptors: the same names and numbers, the same bytes."""

import math
import random
from importlib.resources import files
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.message import Message
from tritonclient.grpc import model_config_pb2 as their_config
from tritonclient.grpc import service_pb2 as their_service

from turnout_wire.descriptors import public_pool
from turnout_wire.gen import grpc_service_pb2 as our_service
from turnout_wire.gen import model_config_pb2 as our_config

PRIVATE_PACKAGE = "turnout.wire.oip"
FILES = [
    pytest.param(our_config, their_config, "inference/model_config.proto", id="model_config"),
    pytest.param(our_service, their_service, "inference/grpc_service.proto", id="grpc_service"),
]
MESSAGES = [
    pytest.param(getattr(ours, name), getattr(theirs, name), id=name)
    for ours, theirs in ((our_config, their_config), (our_service, their_service))
    for name in theirs.DESCRIPTOR.message_types_by_name
]
SEEDS = range(8)


@pytest.mark.parametrize(("ours", "theirs", "public"), FILES)
def test_names_and_numbers_equal(ours: Any, theirs: Any, public: str) -> None:
    expected = file_of(theirs)
    assert facts(file_of(ours), PRIVATE_PACKAGE) == facts(expected, "inference")
    # The published set is what reflection shows: it must say the same.
    published = FileDescriptorProto()
    pool: Any = public_pool()
    pool.FindFileByName(public).CopyToProto(published)
    assert published.package == "inference"
    assert facts(published, "inference") == facts(expected, "inference")


def test_facts_see_a_difference() -> None:
    """The control of the test above."""
    changed = file_of(their_service)
    changed.message_type[0].field.add(name="more", number=1, type=9, label=1)
    assert facts(changed, "inference") != facts(file_of(their_service), "inference")


def test_service_has_20_rpcs() -> None:
    assert len(our_service.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods) == 20


@pytest.mark.parametrize(("ours", "theirs"), MESSAGES)
def test_random_messages_keep_their_bytes(ours: type[Message], theirs: type[Message]) -> None:
    for seed in SEEDS:
        message = theirs()
        fill(message, random.Random(seed))
        wire = message.SerializeToString(deterministic=True)
        read = ours.FromString(wire)
        assert read.SerializeToString(deterministic=True) == wire, f"SEED={seed}"
        # Unknown fields would keep the bytes just as well, but not the text.
        assert str(read) == str(message), f"SEED={seed}"
        back = theirs.FromString(read.SerializeToString(deterministic=True))
        assert back.SerializeToString(deterministic=True) == wire, f"SEED={seed}"


def test_published_set_holds_no_private_name() -> None:
    serialised = files("turnout_wire").joinpath("gen/inference.binpb").read_bytes()
    assert b"turnout.wire" not in serialised and b"turnout_wire" not in serialised
    names = [file.name for file in FileDescriptorSet.FromString(serialised).file]
    assert names == [
        "inference/model_config.proto",
        "inference/grpc_service.proto",
        "turnout/packed/v1/packed.proto",
    ]


def test_pool_takes_extra_files_in_any_order() -> None:
    base = FileDescriptorProto(name="extra/base.proto", package="extra", syntax="proto3")
    base.message_type.add(name="Base")
    user = FileDescriptorProto(
        name="extra/user.proto", package="extra", syntax="proto3", dependency=["extra/base.proto"]
    )
    user.message_type.add(name="User").field.add(name="base", number=1, type=11, label=1, type_name=".extra.Base")
    pool: Any = public_pool(user.SerializeToString(), base.SerializeToString())
    assert pool.FindMessageTypeByName("extra.User").fields_by_name["base"].message_type.full_name == "extra.Base"
    without_extra: Any = public_pool()
    with pytest.raises(KeyError):
        without_extra.FindMessageTypeByName("extra.User")
    with pytest.raises(ValueError, match=r"extra/base\.proto"):
        public_pool(user.SerializeToString())


def file_of(module: Any) -> FileDescriptorProto:
    file = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file


def facts(file: FileDescriptorProto, package: str) -> dict[str, Any]:
    """All that the wire, text and JSON depend on: not package, file names and order of declaration."""

    def plain(type_name: str) -> str:
        assert not type_name or type_name.startswith(f".{package}."), type_name
        return type_name.removeprefix(f".{package}.")

    def message(found: DescriptorProto) -> dict[str, Any]:
        oneofs = [oneof.name for oneof in found.oneof_decl]
        return {
            "fields": {
                field.name: (
                    field.number,
                    field.type,
                    field.label,
                    plain(field.type_name),
                    oneofs[field.oneof_index] if field.HasField("oneof_index") else None,
                    field.proto3_optional,
                    str(field.options),
                )
                for field in found.field
            },
            "map_entry": found.options.map_entry,
            "messages": {nested.name: message(nested) for nested in found.nested_type},
            "enums": {nested.name: enum(nested) for nested in found.enum_type},
        }

    def enum(found: EnumDescriptorProto) -> dict[str, int]:
        return {value.name: value.number for value in found.value}

    return {
        "syntax": file.syntax,
        "messages": {found.name: message(found) for found in file.message_type},
        "enums": {found.name: enum(found) for found in file.enum_type},
        "services": {
            service.name: {
                method.name: (
                    plain(method.input_type),
                    plain(method.output_type),
                    method.client_streaming,
                    method.server_streaming,
                )
                for method in service.method
            }
            for service in file.service
        },
    }


def fill(message: Any, rng: random.Random) -> None:
    """Sets most fields, and of each oneof at most one, to values that use their type's range."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.2 or (field.containing_oneof and message.WhichOneof(field.containing_oneof.name)):
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields
            for _ in range(rng.randint(1, 3)):
                entries = getattr(message, field.name)
                if value.message_type:
                    fill(entries[scalar(key, rng)], rng)
                else:
                    entries[scalar(key, rng)] = scalar(value, rng)
        elif field.message_type:
            if field.is_repeated:
                for _ in range(rng.randint(1, 3)):
                    fill(getattr(message, field.name).add(), rng)
            else:
                getattr(message, field.name).SetInParent()
                fill(getattr(message, field.name), rng)
        elif field.is_repeated:
            getattr(message, field.name).extend(scalar(field, rng) for _ in range(rng.randint(1, 4)))
        else:
            setattr(message, field.name, scalar(field, rng))


def scalar(field: FieldDescriptor, rng: random.Random) -> Any:
    match field.type:
        case FieldDescriptor.TYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.TYPE_INT32:
            return rng.choice([-(2**31), -1, 0, 7, 2**31 - 1])
        case FieldDescriptor.TYPE_INT64:
            return rng.choice([-(2**63), -1, 0, 7, 2**63 - 1])
        case FieldDescriptor.TYPE_UINT32:
            return rng.choice([0, 7, 2**32 - 1])
        case FieldDescriptor.TYPE_UINT64:
            return rng.choice([0, 7, 2**64 - 1])
        case FieldDescriptor.TYPE_FLOAT | FieldDescriptor.TYPE_DOUBLE:
            return rng.choice([0.0, -0.5, 1.5, math.inf])
        case FieldDescriptor.TYPE_STRING:
            return rng.choice(["", "digits", "é\0", str(rng.random())])
        case FieldDescriptor.TYPE_BYTES:
            return rng.randbytes(rng.randint(0, 9))
        case FieldDescriptor.TYPE_ENUM:
            # Proto3 enums are open: an unknown number must survive too.
            return rng.choice([*(value.number for value in field.enum_type.values), 77])
    raise AssertionError(f"no values for {field.full_name}")
