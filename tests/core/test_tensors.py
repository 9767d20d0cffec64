"""The check of a request against a signature: every refusal, its order, and what it says."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.core.errors import Reason, ServingError
from turnout.core.tensors import ANY, InferenceRequest, Signature, TensorSpec, check
from turnout_wire.tensors import Array, DataType

A = TensorSpec("a", DataType.FP32, (ANY, 4))
B = TensorSpec("b", DataType.INT64, (ANY, ANY))
Y, Z = TensorSpec("y", DataType.FP32, (ANY, 2)), TensorSpec("z", DataType.FP32, (ANY,))
BATCHED = Signature((A, B), (Y, Z), rows_max=8)
SINGLE = Signature((TensorSpec("a", DataType.FP32, (4,)),), (Y,))


def floats(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def ints(*shape: int) -> Array:
    return np.zeros(shape, np.int64)


def ask(outputs: tuple[str, ...] = (), **inputs: Array) -> InferenceRequest:
    return InferenceRequest("m", inputs, outputs)


def test_a_good_request_tells_its_rows_bytes_and_shape_key() -> None:
    admission = check(ask(a=floats(3, 4), b=ints(3, 5), outputs=("z", "y")), BATCHED)
    assert (admission.rows, admission.bytes) == (3, 3 * 4 * 4 + 3 * 5 * 8)
    assert admission.shape_key == check(ask(a=floats(1, 4), b=ints(1, 5)), BATCHED).shape_key
    assert admission.shape_key != check(ask(a=floats(1, 4), b=ints(1, 6)), BATCHED).shape_key


def test_strings_weigh_what_they_hold() -> None:
    signature = Signature((TensorSpec("s", DataType.BYTES, (ANY, 2)),), (Y,), 8)
    text = np.array([["four", "six666"]], object)
    assert check(ask(s=text), signature).bytes == 2 * (text.itemsize + 64) + 10


def test_without_a_batch_dimension_a_request_is_one_row() -> None:
    assert check(ask(a=floats(4)), SINGLE).rows == 1


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ask(outputs=("q",), a=floats(1, 4), b=ints(1, 1)), "no output 'q', its outputs are 'y', 'z'"),
        (ask(a=floats(1, 4)), "takes 2 input"),
        (ask(a=floats(1, 4), b=ints(1, 1), c=ints(1)), "the request has 3"),
        (ask(a=floats(1, 4), c=ints(1, 1)), "no input 'c', its inputs are 'a', 'b'"),
        (ask(a=floats(), b=ints(1, 1)), "input 'a' has no batch dimension"),
        (ask(a=floats(2, 4), b=ints(3, 1)), "input 'b' has 3 rows, the inputs before it have 2"),
        (ask(a=floats(0, 4), b=ints(0, 1)), "has 0 rows, the model takes from 1 to 8"),
        (ask(a=floats(9, 4), b=ints(9, 1)), "has 9 rows, the model takes from 1 to 8"),
        (ask(a=floats(1, 4).astype("f8"), b=ints(1, 1)), "'a' has datatype FP64, model 'm' takes FP32"),
        (ask(a=floats(1, 4).astype("c8"), b=ints(1, 1)), "'a' has datatype complex64"),
        (ask(a=floats(1, 5), b=ints(1, 1)), r"'a' has shape \[1, 5\], model 'm' takes \[-1, 4\]"),
        (ask(a=floats(1, 4), b=ints(1, 1, 1)), r"'b' has shape \[1, 1, 1\], model 'm' takes \[-1, -1\]"),
    ],
)
def test_refusals_name_the_tensor_the_value_and_the_limit(request_: InferenceRequest, words: str) -> None:
    with pytest.raises(ServingError, match=words) as caught:
        check(request_, BATCHED)
    assert caught.value.reason is Reason.INVALID_REQUEST


C = TensorSpec("c", DataType.FP32, (2,), optional=True)
WITH_OPTIONAL = Signature((TensorSpec("a", DataType.FP32, (4,)), C), (Y, TensorSpec("s", DataType.BYTES, (ANY,))))


def test_optional_inputs_may_be_left_out() -> None:
    with_it, without = ask(a=floats(4), c=floats(2)), ask(a=floats(4))
    assert check(with_it, WITH_OPTIONAL).bytes == 24
    assert check(without, WITH_OPTIONAL).bytes == 16
    assert check(with_it, WITH_OPTIONAL).shape_key != check(without, WITH_OPTIONAL).shape_key


def test_a_classification_of_numbers_passes() -> None:
    assert check(InferenceRequest("m", {"a": floats(4)}, ("y",), classes={"y": 3}), WITH_OPTIONAL).rows == 1


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ask(), r"takes 2 input\(s\) 'a', 'c', 1 of them optional, the request has 0"),
        (ask(c=floats(2)), "the request has no input 'a', which model 'm' needs"),
        (ask(a=floats(4), d=floats(2)), "has no input 'd', its inputs are 'a', 'c'"),
        (ask(a=floats(4), c=floats(3)), r"'c' has shape \[3\], model 'm' takes \[2\]"),
        (
            InferenceRequest("m", {"a": floats(4)}, ("s",), classes={"s": 1}),
            "output 's' is BYTES: parameter 'classification' is for numbers",
        ),
    ],
)
def test_refusals_around_optional_inputs_and_classifications(request_: InferenceRequest, words: str) -> None:
    with pytest.raises(ServingError, match=words) as caught:
        check(request_, WITH_OPTIONAL)
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_the_order_of_checks_is_stable() -> None:
    everything_wrong = ask(outputs=("q",), a=floats(9, 5), c=ints(1, 1))
    with pytest.raises(ServingError, match="no output 'q'"):
        check(everything_wrong, BATCHED)


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (Signature((A,), (Y,), 8), 8 * 4 * 4),
        (SINGLE, 4 * 4),
        (Signature((TensorSpec("i", DataType.INT8, (ANY, 5)),), (Y,), 2), 2 * 5 * 10),  # typed, negative
        (Signature((TensorSpec("i", DataType.UINT8, (ANY, 5)),), (Y,), 2), 2 * 5 * 2),
        (Signature((TensorSpec("h", DataType.FP16, (ANY, 5)),), (Y,), 2), 2 * 5 * 4),  # as floats
        (BATCHED, None),
        (Signature((TensorSpec("s", DataType.BYTES, (ANY, 1)),), (Y,), 8), None),
        (Signature((A,), (Y,), 0), None),
        (Signature((TensorSpec("s", DataType.BOOL, ()),), (Y,)), 1),
    ],
)
def test_the_largest_request(signature: Signature, expected: int | None) -> None:
    assert signature.request_bytes_max() == expected


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (Signature((A,), (Y,), 8), 4 * 4),
        (SINGLE, 4 * 4),
        (Signature((TensorSpec("s", DataType.BYTES, (ANY, 3)),), (Y,), 8), 3 * 4),
        (Signature((A, TensorSpec("o", DataType.INT64, (ANY, 9), optional=True)), (Y,), 8), 4 * 4),
        (Signature((TensorSpec("i", DataType.INT16, (2, ANY, 5)),), (Y,)), 2 * 5 * 2),
    ],
)
def test_the_smallest_request(signature: Signature, expected: int) -> None:
    assert signature.request_bytes_min() == expected
