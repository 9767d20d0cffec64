"""The admin protocol: names that clients rely on, and the house rules of its file."""

from __future__ import annotations

from google.protobuf.descriptor import EnumDescriptor

from turnout_wire import admin
from turnout_wire.descriptors import ADMIN_SET, public_pool
from turnout_wire.gen import feedback_pb2
from turnout_wire.gen import slots_pb2 as pb

RPCS = [
    "LoadSlot", "UnloadSlot", "SwapSlots", "RollbackModel", "SetWeights", "SetShadow", "ClearShadow",
    "GetModel", "ListModels", "WatchModel", "WatchComparisons", "ListTransitions",
]  # fmt: skip


def test_the_rpcs_and_their_paths() -> None:
    assert list(admin.METHODS) == RPCS
    assert admin.METHODS["LoadSlot"].path == "/turnout.admin.v1.SlotService/LoadSlot"
    assert [name for name, method in admin.METHODS.items() if method.stream] == ["WatchModel", "WatchComparisons"]
    (feedback,) = admin.FEEDBACK_METHODS.values()
    assert (feedback.path, feedback.stream) == ("/turnout.admin.v1.FeedbackService/RecordFeedback", False)
    assert feedback.request is feedback_pb2.RecordFeedbackRequest


def test_each_change_carries_a_mutation_as_field_15() -> None:
    for name in RPCS[:7]:
        field = admin.METHODS[name].request.DESCRIPTOR.fields_by_name["mutation"]
        assert (field.number, field.message_type.name) == (15, "Mutation")
    for name in RPCS[7:]:
        assert "mutation" not in admin.METHODS[name].request.DESCRIPTOR.fields_by_name


def test_enum_values_are_prefixed_and_begin_with_unspecified() -> None:
    for enum in pb.DESCRIPTOR.enum_types_by_name.values():
        prefix = _prefix(enum)
        assert all(value.name.startswith(prefix) for value in enum.values), enum.name
        assert (enum.values[0].number, enum.values[0].name) == (0, f"{prefix}UNSPECIFIED")


def test_the_published_descriptors_have_the_public_package() -> None:
    pool = public_pool(public_set=ADMIN_SET)
    service = pool.FindServiceByName(admin.SERVICE)  # type: ignore[no-untyped-call]
    assert [method.name for method in service.methods] == RPCS
    feedback = pool.FindServiceByName("turnout.admin.v1.FeedbackService")  # type: ignore[no-untyped-call]
    assert [method.name for method in feedback.methods] == ["RecordFeedback"]


def _prefix(enum: EnumDescriptor) -> str:
    return "".join("_" * (c.isupper() and i > 0) + c.upper() for i, c in enumerate(enum.name)) + "_"
