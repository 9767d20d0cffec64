"""model_warmup as samples that fit the model."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.core.errors import LoadError
from turnout.core.model import WarmupSample
from turnout.core.tensors import ANY, Signature, TensorSpec
from turnout.store import warmup_config
from turnout.store.model_config import ModelConfiguration
from turnout.store.warmup_config import read_samples
from turnout_wire.tensors import Array, DataType

Y = (TensorSpec("y", DataType.FP32, (ANY, 1)),)
BATCHED = Signature((TensorSpec("x", DataType.FP32, (ANY, 2)),), Y, rows_max=8)


STRINGS = "input_data_file: 's'"


def of(datatype: DataType, *shape: int) -> Signature:
    return Signature((TensorSpec("x", datatype, shape),), Y)


def value(data: str, data_type: str = "TYPE_FP32", dims: str = "[ 2 ]", name: str = "x") -> str:
    return f'inputs {{ key: "{name}" value {{ data_type: {data_type} dims: {dims} {data} }} }}'


def samples(text: str, signature: Signature = BATCHED, **files: bytes) -> tuple[WarmupSample, ...]:
    def read_file(path: str, bytes_max: int) -> bytes:
        content = files[path.removeprefix("warmup/").replace(".", "_")]
        if len(content) > bytes_max:
            raise LoadError(f"'{path}' has more than {bytes_max} bytes")
        return content

    return read_samples(ModelConfiguration.parse("m", text).proto, signature, read_file)


def array(text: str, signature: Signature = BATCHED, **files: bytes) -> Array:
    (sample,) = samples(text, signature, **files)
    return sample.inputs["x"]


def test_no_samples() -> None:
    assert samples("") == ()


def test_names_rows_and_counts() -> None:
    text = f"""
        model_warmup {{ name: "first" batch_size: 4 count: 3 {value("zero_data: true")} }}
        model_warmup {{ {value("zero_data: true")} }}
    """
    first, second = samples(text)
    assert (first.name, first.count, first.inputs["x"].shape) == ("model_warmup 'first'", 3, (4, 2))
    assert (second.name, second.count, second.inputs["x"].shape) == ("model_warmup 1", 1, (1, 2))


@pytest.mark.parametrize("datatype", DataType)
def test_zero_and_random_data_of_every_datatype(datatype: DataType) -> None:
    signature = of(datatype, 3, ANY)
    for kind in ("zero_data", "random_data"):
        text = f"model_warmup {{ {value(f'{kind}: true', datatype.config_name, '[ 3, 50 ]')} }}"
        given = array(text, signature)
        assert (given.shape, given.dtype) == ((3, 50), datatype.dtype)
        if datatype is DataType.BYTES:
            assert set(given.flat) == {""}
        elif kind == "zero_data":
            assert not given.any()
        else:
            assert given.any()
            np.testing.assert_array_equal(given, array(text, signature))


@pytest.mark.parametrize("datatype", [datatype for datatype in DataType if datatype.itemsize])
def test_data_from_a_file_is_one_row_that_is_repeated(datatype: DataType) -> None:
    signature = Signature((TensorSpec("x", datatype, (ANY, 2)),), Y, rows_max=8)
    row = np.array([0, 1]).astype(datatype.dtype)
    data = value("input_data_file: 'd.bin'", datatype.config_name)
    text = f"model_warmup {{ batch_size: 3 {data} }}"
    np.testing.assert_array_equal(array(text, signature, d_bin=row.tobytes()), np.stack([row] * 3))


def test_strings_from_a_file() -> None:
    text = f"model_warmup {{ {value(STRINGS, 'TYPE_STRING')} }}"
    given = array(text, of(DataType.BYTES, 2), s=b"\x03\0\0\0\xc3\xbcx\0\0\0\0")
    assert given.tolist() == ["üx", ""]
    assert all(type(element) is str for element in given)


def test_optional_inputs_may_be_missing() -> None:
    signature = Signature((*BATCHED.inputs, TensorSpec("k", DataType.FP32, (2,), optional=True)), Y)
    signature = Signature((TensorSpec("x", DataType.FP32, (2,)), signature.inputs[1]), Y)
    (sample,) = samples(f"model_warmup {{ {value('zero_data: true')} }}", signature)
    assert sample.inputs.keys() == {"x"}
    both = f"model_warmup {{ {value('zero_data: true')} {value('zero_data: true', name='k')} }}"
    assert samples(both, signature)[0].inputs.keys() == {"x", "k"}


ZERO = value("zero_data: true")
FILE = value('input_data_file: "d.bin"')
REFUSED = [
    (f'name: "w" batch_size: 9 {ZERO}', r"model_warmup 'w' has batch_size 9, but max_batch_size is 8"),
    (f"count: 1001 {ZERO}", "model_warmup 0 has count 1001, the limit is 1000"),
    ("", "model_warmup 0 has no input 'x', which the model needs"),
    (ZERO + value("zero_data: true", name="q"), r"model_warmup 0 has input 'q', the model's are \['x'\]"),
    (value(""), "model_warmup 0: input 'x' has no data: set zero_data, random_data or input_data_file"),
    (value("zero_data: true", "TYPE_FP64"), "input 'x' is TYPE_FP64, the model takes TYPE_FP32"),
    (value("zero_data: true", "TYPE_INVALID"), "input 'x' is TYPE_INVALID, the model takes TYPE_FP32"),
    (value("zero_data: true", "99"), "input 'x' is 99, the model takes TYPE_FP32"),
    (value("zero_data: true", dims="[ 3 ]"), r"input 'x' has dims \[3\], the model takes \[2\]"),
    (value("zero_data: true", dims="[ 1, 2 ]"), r"input 'x' has dims \[1, 2\], the model takes \[2\]"),
    (value("zero_data: true", dims="[ -1 ]"), r"input 'x' has dims \[-1\]: each must have its size"),
    (FILE.replace("d.bin", "../d.bin"), "input_data_file of input 'x' '../d.bin' is not a plain file name"),
    (FILE.replace("d.bin", ""), "input_data_file of input 'x' '' is not a plain file name"),
    (FILE, "input 'x': input_data_file 'd.bin': 'warmup/d.bin' has more than 8 bytes"),
    (FILE.replace("d.bin", "short"), "input 'x': input_data_file 'short': raw contents hold 7 bytes"),
]


@pytest.mark.parametrize(("inner", "words"), REFUSED)
def test_refused_by_name(inner: str, words: str) -> None:
    with pytest.raises(LoadError, match=words) as refused:
        samples(f"model_warmup {{ {inner} }}", d_bin=bytes(9), short=bytes(7))
    assert str(refused.value).startswith("config.pbtxt: model_warmup")


def test_one_row_at_most_for_a_model_without_batches() -> None:
    with pytest.raises(LoadError, match="model_warmup 0 has batch_size 2, but max_batch_size is 0"):
        samples(f"model_warmup {{ batch_size: 2 {ZERO} }}", of(DataType.FP32, 2))


@pytest.mark.parametrize(
    ("content", "words"), [(b"\x01\0\0\0\xff", "is not UTF-8"), (b"\x01\0", "left for its length")]
)
def test_strings_that_are_none(content: bytes, words: str) -> None:
    text = f"model_warmup {{ {value(STRINGS, 'TYPE_STRING', '[ 1 ]')} }}"
    with pytest.raises(LoadError, match=f"input 'x': input_data_file 's': .*{words}"):
        samples(text, of(DataType.BYTES, 1), s=content)


def test_samples_are_bounded_in_number() -> None:
    with pytest.raises(LoadError, match="model_warmup has 101 samples, the limit is 100"):
        samples(f"model_warmup {{ {ZERO} }}" * 101)


def test_samples_are_bounded_in_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is allocated: the claimed size costs a few bytes of text."""
    open_shape = of(DataType.FP32, ANY)
    huge = f"model_warmup {{ {value('zero_data: true', dims='[ 268435457 ]')} }}"
    with pytest.raises(LoadError, match="model_warmup takes more than 1073741824 bytes: use smaller samples"):
        samples(huge, open_shape)
    monkeypatch.setattr(warmup_config, "_BYTES_MAX", 40)
    assert len(samples(f"model_warmup {{ batch_size: 5 {ZERO} }}")) == 1
    for text in (f"model_warmup {{ batch_size: 6 {ZERO} }}", f"model_warmup {{ batch_size: 3 {ZERO} }}" * 2):
        with pytest.raises(LoadError, match="more than 40 bytes"):
            samples(text)
    monkeypatch.setattr(warmup_config, "_BYTES_MAX", 70)
    strings = f"model_warmup {{ {value(STRINGS, 'TYPE_STRING', '[ 1 ]')} }}"
    assert len(samples(strings, of(DataType.BYTES, 1), s=b"\x01\0\0\0a")) == 1
    with pytest.raises(LoadError, match="more than"):
        samples(strings, of(DataType.BYTES, 1), s=b"\x03\0\0\0abc")
