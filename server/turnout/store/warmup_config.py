"""Reads `model_warmup`: samples that a model is run with before it is READY.

A sample's data is of one row, whatever its `batch_size`: its rows are that one, repeated.
"""

from __future__ import annotations

from math import prod

import numpy as np

from turnout.core.errors import LoadError
from turnout.core.model import WarmupSample
from turnout.core.tensors import Signature, TensorSpec
from turnout.store.named_files import ReadFile, check_plain
from turnout_wire.gen import model_config_pb2 as pb
from turnout_wire.tensors import Array, DataType, TensorError, from_raw

_SAMPLES_MAX = 100
_COUNT_MAX = 1000  # runs of one sample
_BYTES_MAX = 1 << 30  # of all samples of a model: they are in memory together
_STR_BYTES = 64  # what a `str` takes in memory, beside its characters
_FOLDER = "warmup"


def check_warmup(proto: pb.ModelConfig) -> None:
    """What can be told without the model file.

    Raises:
        LoadError: naming the sample, the input and the limit.
    """
    if len(proto.model_warmup) > _SAMPLES_MAX:
        raise LoadError(
            f"config.pbtxt: model_warmup has {len(proto.model_warmup)} samples, the limit is {_SAMPLES_MAX}"
        )
    for index, sample in enumerate(proto.model_warmup):
        if sample.count > _COUNT_MAX:
            raise LoadError(f"{_title(sample, index)} has count {sample.count}, the limit is {_COUNT_MAX}")
        for name, data in sorted(sample.inputs.items()):
            what = f"{_title(sample, index)}: input '{name}'"
            if any(dim < 0 for dim in data.dims):
                raise LoadError(f"{what} has dims {list(data.dims)}: each must have its size, none be open")
            match data.WhichOneof("input_data_type"):
                case None:
                    raise LoadError(f"{what} has no data: set zero_data, random_data or input_data_file")
                case "input_data_file":
                    check_plain(f"model_warmup: input_data_file of input '{name}'", data.input_data_file)


def read_samples(proto: pb.ModelConfig, signature: Signature, read_file: ReadFile) -> tuple[WarmupSample, ...]:
    """The samples, as a client would send them.

    Raises:
        LoadError: a sample does not fit the signature, a file is missing or of another size, or all are too large.
    """
    reader = _Reader(signature, read_file)
    return tuple(reader.sample(_title(sample, index), sample) for index, sample in enumerate(proto.model_warmup))


class _Reader:
    """Makes the samples of a model out of one budget of memory."""

    def __init__(self, signature: Signature, read_file: ReadFile) -> None:
        self._signature = signature
        self._batched = signature.rows_max > 0
        self._read_file = read_file
        self._bytes_left = _BYTES_MAX

    def sample(self, title: str, sample: pb.ModelWarmup) -> WarmupSample:
        rows = max(sample.batch_size, 1)
        if rows > max(self._signature.rows_max, 1):
            raise LoadError(f"{title} has batch_size {rows}, but max_batch_size is {self._signature.rows_max}")
        given = sample.inputs.keys()
        if unknown := sorted(given - self._signature.input_names):
            raise LoadError(f"{title} has input '{unknown[0]}', the model's are {sorted(self._signature.input_names)}")
        if missing := sorted(self._signature.required_names - given):
            raise LoadError(f"{title} has no input '{missing[0]}', which the model needs")
        inputs = {
            spec.name: self._input(f"{title}: input '{spec.name}'", spec, sample.inputs[spec.name], rows)
            for spec in self._signature.inputs
            if spec.name in given
        }
        return WarmupSample(title.removeprefix("config.pbtxt: "), inputs, max(sample.count, 1))

    def _input(self, what: str, spec: TensorSpec, data: pb.ModelWarmup.Input, rows: int) -> Array:
        dims = tuple(data.dims)
        if data.data_type != pb.DataType.Value(spec.datatype.config_name):
            kinds = pb.DataType
            name = kinds.Name(data.data_type) if data.data_type in kinds.values() else data.data_type
            raise LoadError(f"{what} is {name}, the model takes {spec.datatype.config_name}")
        if not spec.admits((rows, *dims) if self._batched else dims):
            wanted = list(spec.shape[self._batched :])
            raise LoadError(f"{what} has dims {list(dims)}, the model takes {wanted} (-1: any)")
        self._take(rows * prod(dims) * (spec.datatype.itemsize or _STR_BYTES))
        match data.WhichOneof("input_data_type"):
            case "input_data_file":
                row = self._from_file(what, spec.datatype, dims, data.input_data_file)
            case kind:
                try:
                    row = (_random if kind == "random_data" else _zeros)(spec.datatype, dims)
                except ValueError:  # no elements, and still beyond what an array can say
                    raise LoadError(f"{what} has dims {list(dims)}, which no array can have") from None
        return np.repeat(row[np.newaxis], rows, axis=0) if self._batched else row

    def _from_file(self, what: str, datatype: DataType, dims: tuple[int, ...], name: str) -> Array:
        what = f"{what}: input_data_file '{name}'"
        bytes_max = prod(dims) * datatype.itemsize if datatype.itemsize else self._bytes_left
        try:
            raw = self._read_file(f"{_FOLDER}/{name}", bytes_max)
            array = from_raw(raw, datatype, dims)
        except (LoadError, TensorError) as refusal:
            raise LoadError(f"{what}: {refusal}") from refusal.__cause__
        if datatype is not DataType.BYTES:
            return array
        self._take(len(raw))
        texts = np.empty(array.size, object)
        try:
            texts[:] = [element.decode() for element in array.flat]
        except UnicodeDecodeError:
            raise LoadError(f"{what}: a string is not UTF-8") from None
        return texts.reshape(dims)

    def _take(self, count: int) -> None:
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise LoadError(f"config.pbtxt: model_warmup takes more than {_BYTES_MAX} bytes: use smaller samples")


def _title(sample: pb.ModelWarmup, index: int) -> str:
    return f"config.pbtxt: model_warmup {repr(sample.name) if sample.name else index}"


def _zeros(datatype: DataType, dims: tuple[int, ...]) -> Array:
    return np.full(dims, "", object) if datatype is DataType.BYTES else np.zeros(dims, datatype.dtype)


def _random(datatype: DataType, dims: tuple[int, ...]) -> Array:
    """Noise for floats; for the others zeros and ones, which more models take than any bytes, as indices, say. The
    same in each run of the server."""
    random = np.random.default_rng(0)
    if datatype is DataType.BYTES:
        return _zeros(datatype, dims)
    if datatype.dtype.kind in "biu":
        return random.integers(0, 2, dims, dtype=np.uint8).astype(datatype.dtype, copy=False)
    return random.standard_normal(dims, np.float32).astype(datatype.dtype)
