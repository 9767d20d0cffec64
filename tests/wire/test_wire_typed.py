"""A model's own service: its names, its numbers, and the descriptor that both sides make."""

from __future__ import annotations

import keyword
import re

import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from hypothesis import given
from hypothesis import strategies as st

from turnout_wire.datatypes import DataType
from turnout_wire.typed import ANY, KINDS, REQUEST, RESPONSE, Tensor, file_descriptor, file_name, model_service
from turnout_wire.typed_names import field_names, field_numbers, file_stem, service_name

MODELS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True) | st.from_regex(
    r"[a-z1]{1,2}([-_.][a-zR1]{1,2}){0,3}", fullmatch=True
)
TENSORS = st.lists(
    st.text(max_size=12) | st.sampled_from(["a_b", "a.b", "aB", "ab_shape", "ab", "slot", "request_id", "1", "t_1"]),
    unique=True,
    max_size=8,
)
SHAPES = st.lists(st.sampled_from([ANY, 0, 1, 3]), max_size=4).map(tuple)


@pytest.mark.parametrize(
    ("model", "service", "stem"),
    [
        ("digits", "Digits", "digits"),
        ("my_model", "MyModel", "my_model"),
        ("my-model", "My_Model", "my__model"),
        ("llama-3-8b_chat", "Llama_3_8bChat", "llama__3__8b_chat"),
        ("ResNet50", "ResNet50_x17602d15", "resnet50___x17602d15"),
        ("yolo.8", "Yolo8_xc02825e8", "yolo8___xc02825e8"),
        ("9lives", "M9lives_xbc867356", "m9lives___xbc867356"),
        ("yolov8_1", "Yolov81_xc1238ebc", "yolov81___xc1238ebc"),  # else it would be the service of yolov81
        ("stream_request", "StreamRequest_xf00d036a", "streamrequest___xf00d036a"),  # else the message of `stream`
    ],
)
def test_a_model_is_called(model: str, service: str, stem: str) -> None:
    assert (service_name(model), file_stem(model)) == (service, stem)


@given(st.lists(MODELS, unique=True, min_size=2, max_size=6))
def test_no_two_models_share_a_name_whatever_others_there_are(models: list[str]) -> None:
    services = [model_service(model, (), ()) for model in models]
    names = [name for s in services for name in (s.name, s.request_name, s.response_name)]
    assert len(set(names)) == len(names)
    assert len({file_name(service) for service in services}) == len(models)
    assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) for name in names)


@pytest.mark.parametrize(
    ("tensors", "open_shapes", "fields"),
    [
        (["image"], (), ["image"]),
        (["INPUT__0", "input.1", "dense/BiasAdd:0"], (), ["INPUT__0", "input_1", "dense_BiasAdd_0"]),
        (["1", "_x", ""], (), ["t_1", "t__x", "t_"]),
        (["a.b", "a_b", "c"], (), ["a_b_x2e7336dc", "a_b_x648fa9b3", "c"]),
        (["slot", "sticky_key"], (), ["slot_x65588383", "sticky_key"]),  # of a response
        (["mask", "mask_shape"], ("mask",), ["mask_x48bf9b4f", "mask_shape_x12715f91"]),
        (["n" * 65], (), ["n" * 64 + "_x1e3fb6d5"]),
    ],
)
def test_a_tensor_is_called(tensors: list[str], open_shapes: tuple[str, ...], fields: list[str]) -> None:
    named = field_names(tensors, open_shapes, [plain.name for plain in RESPONSE])
    assert [named[tensor] for tensor in tensors] == fields


@given(TENSORS, st.lists(SHAPES, min_size=8, max_size=8))
def test_any_tensors_make_a_file_that_protobuf_takes(names: list[str], shapes: list[tuple[int, ...]]) -> None:
    tensors = [Tensor(name, DataType.FP32, shape) for name, shape in zip(names, shapes, strict=False)]
    service = model_service("m", tensors, reversed(tensors))
    pool = DescriptorPool()
    pool.AddSerializedFile(file_descriptor(service).SerializeToString())
    for message in ("MRequest", "MResponse"):
        fields = pool.FindMessageTypeByName(f"turnout.models.{message}").fields
        assert len({field.json_name.lower() for field in fields}) == len(fields)
        assert len(fields) >= len(names) + 3
    assert [field.number for field in service.inputs] == [f.number for f in reversed(service.outputs)]


@given(TENSORS, st.randoms(use_true_random=False), st.data())
def test_numbers_stay_when_tensors_move_come_and_go(names: list[str], random: object, data: st.DataObject) -> None:
    before = field_numbers((name, "FP32") for name in names)
    order = data.draw(st.permutations(names))
    assert field_numbers((name, "FP32") for name in order) == before
    fewer = field_numbers((name, "FP32") for name in names[1:])
    assert fewer == {name: before[name] for name in names[1:]}
    assert all(number % 2 == 0 and 100_000 <= number < 1_000_000 for number in before.values())


def test_numbers_are_these_for_ever() -> None:
    """Stubs are compiled: a change of the rule would make every one of them wrong."""
    assert field_numbers([("image", "FP32"), ("label", "INT64"), ("", "BYTES")]) == {
        "": 580360, "image": 706342, "label": 229698,
    }  # fmt: skip
    assert field_numbers([("image", "FP16")]) == {"image": 496764}  # another datatype is another field
    assert [plain.number for plain in REQUEST] == [1, 2, 3]
    assert [plain.number for plain in RESPONSE] == list(range(1, 11))


def test_of_two_tensors_with_one_number_the_later_name_gets_another() -> None:
    names: dict[int, str] = {}
    for index in range(5000):
        number = field_numbers([(f"t{index}", "FP32")])[f"t{index}"]
        if number in names:
            break
        names[number] = f"t{index}"
    else:
        raise AssertionError("no two of 5000 names have one number, and about 27 pairs should")
    first, second = sorted([names[number], f"t{index}"])
    both = field_numbers([(second, "FP32"), (first, "FP32")])
    assert both[first] == number != both[second]


def test_every_datatype_has_a_kind() -> None:
    assert set(KINDS) == set(DataType)


@pytest.mark.parametrize(
    ("shape", "follows"),
    [((), True), ((3,), True), ((ANY, 64), True), ((ANY, ANY), False), ((ANY, 0), False), ((2, 0), True)],
)
def test_a_shape_has_a_field_where_the_number_of_values_does_not_tell_it(shape: tuple[int, ...], follows: bool) -> None:
    (field,) = model_service("m", [Tensor("x", DataType.FP32, shape)], ()).inputs
    assert field.shape_number == (0 if follows else field.number + 1)
    assert not keyword.iskeyword(field.shape_name)
