"""Rows in, rows out: stacking, reuse of buffers, reshaping, cutting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from turnout.core.tensors import ANY, Signature, TensorSpec
from turnout.runtime.assembly import InputBuffers, split
from turnout_wire.tensors import Array, DataType

X = TensorSpec("x", DataType.FP32, (ANY, 2))
SIGNATURE = Signature((X,), (TensorSpec("y", DataType.FP32, (ANY, 2)),), rows_max=8)


def rows(*values: float) -> dict[str, Array]:
    return {"x": np.array([[value, value] for value in values], np.float32)}


def test_one_request_is_not_copied() -> None:
    given_ = rows(1, 2)
    assert InputBuffers(SIGNATURE).assemble([given_])["x"] is given_["x"]


def test_requests_are_stacked_in_order_in_a_buffer_that_is_used_again() -> None:
    buffers = InputBuffers(SIGNATURE)
    first = buffers.assemble([rows(1), rows(2, 3)])["x"]
    assert first[:, 0].tolist() == [1, 2, 3]
    second = buffers.assemble([rows(7), rows(8)])["x"]
    assert second[:, 0].tolist() == [7, 8]
    assert np.shares_memory(first, second)


def test_another_shape_takes_another_buffer() -> None:
    signature = Signature((TensorSpec("x", DataType.FP32, (ANY, ANY)),), (), rows_max=8)
    buffers = InputBuffers(signature)
    buffers.assemble([rows(1), rows(2)])
    wide = {"x": np.ones((1, 3), np.float32)}
    assert buffers.assemble([wide, wide])["x"].shape == (2, 3)


def test_strings_are_stacked_without_a_buffer_that_would_keep_them() -> None:
    signature = Signature((TensorSpec("x", DataType.BYTES, (ANY, 1)),), (), rows_max=8)
    buffers = InputBuffers(signature)
    part = {"x": np.array([["a"]], object)}
    first = buffers.assemble([part, part])["x"]
    assert first.tolist() == [["a"], ["a"]]
    assert not np.shares_memory(first, buffers.assemble([part, part])["x"])


def test_reshape_between_what_clients_send_and_what_the_model_takes() -> None:
    spec = TensorSpec("x", DataType.FP32, (ANY, 2, 2), (ANY, 4))
    label = TensorSpec("y", DataType.FP32, (ANY, 1), (ANY,))
    batched = Signature((spec,), (label,), rows_max=8)
    part = {"x": np.arange(4, dtype=np.float32).reshape(1, 2, 2)}
    assert InputBuffers(batched).assemble([part, part])["x"].shape == (2, 4)
    shares = split(batched, {"y": np.array([1, 2, 3], np.float32)}, [1, 2])
    assert [share["y"].tolist() for share in shares] == [[[1]], [[2], [3]]]
    single = Signature((TensorSpec("x", DataType.FP32, (1,), ()),), (TensorSpec("y", DataType.FP32, (1,), ()),))
    assert InputBuffers(single).assemble([{"x": np.ones(1, np.float32)}])["x"].shape == ()
    assert split(single, {"y": np.float32(3) * np.ones(())}, [1])[0]["y"].tolist() == [3]


@pytest.mark.parametrize("rows_max", [0, 8])
def test_open_dimensions_keep_their_sizes_through_a_reshape(rows_max: int) -> None:
    first = (ANY,) if rows_max else ()
    x = TensorSpec("x", DataType.FP32, (*first, 2, 4, ANY, ANY), (*first, 8, ANY, 1, ANY))
    y = TensorSpec("y", DataType.FP32, (*first, ANY, 6), (*first, ANY, 2, 3))
    signature = Signature((x,), (y,), rows_max)
    one = (1,) if rows_max else ()
    sent = np.arange(2 * 4 * 5 * 7, dtype=np.float32).reshape(*one, 2, 4, 5, 7)
    taken = InputBuffers(signature).assemble([{"x": sent}])["x"]
    assert taken.shape == (*one, 8, 5, 1, 7)
    assert taken.ravel().tolist() == sent.ravel().tolist()
    empty = np.zeros((*one, 2, 4, 0, 7), np.float32)
    assert InputBuffers(signature).assemble([{"x": empty}])["x"].shape == (*one, 8, 0, 1, 7)
    answer = np.arange(9 * 6, dtype=np.float32).reshape(*one, 9, 2, 3)
    assert split(signature, {"y": answer}, [1])[0]["y"].shape == (*one, 9, 6)


def test_a_model_may_answer_with_another_rank_than_it_declares() -> None:
    """ONNX Runtime does not hold it to that."""
    signature = Signature((), (TensorSpec("y", DataType.FP32, (ANY, 1), (ANY,)),), rows_max=8)
    assert split(signature, {"y": np.ones((2, 1), np.float32)}, [2])[0]["y"].shape == (2, 1)
    with pytest.raises(ValueError, match="reshape"):
        split(signature, {"y": np.ones((2, 3), np.float32)}, [2])


@pytest.mark.parametrize("shape", [(), (3, 2), (1, 2)])
def test_an_output_that_does_not_follow_the_batch_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="'y' has shape"):
        split(SIGNATURE, {"y": np.zeros(shape)}, [1, 1])


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([np.float32, np.int64, np.bool_, np.uint8]).flatmap(
        lambda dtype: st.lists(st.integers(1, 4).flatmap(lambda n: hnp.arrays(dtype, (n, 3))), min_size=1, max_size=5)
    )
)
def test_what_goes_in_comes_out_for_each_request(parts: list[Array]) -> None:
    datatype = DataType.from_numpy(parts[0].dtype)
    spec = TensorSpec("x", datatype, (ANY, 3))
    signature = Signature((spec,), (spec,), rows_max=32)
    stacked = InputBuffers(signature).assemble([{"x": part} for part in parts])["x"]
    shares = split(signature, {"x": stacked}, [len(part) for part in parts])
    for part, share in zip(parts, shares, strict=True):
        np.testing.assert_array_equal(part, share["x"])


def test_buffers_grow_with_the_batch_and_large_batches_leave_none() -> None:
    signature = Signature((TensorSpec("x", DataType.FP32, (ANY, ANY)),), (), 4096)
    buffers = InputBuffers(signature)

    def stacked(rows: int, width: int) -> Array:
        return buffers.assemble([{"x": np.full((1, width), row, np.float32)} for row in range(rows)])["x"]

    assert stacked(3, 4)[:, 0].tolist() == [0, 1, 2]
    assert buffers._buffers["x"].shape == (4, 4)
    assert stacked(5, 4)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert buffers._buffers["x"].shape == (8, 4)
    assert stacked(2, 4).base is buffers._buffers["x"], "a smaller batch uses it too"
    large = stacked(2, 3 << 20)  # 24 MiB
    assert (large.shape, large[1, 0]) == ((2, 3 << 20), 1)
    assert buffers._buffers["x"].shape == (8, 4)
