"""What data clients give back, as values: an answer with its tensors and who gave it, and what a server has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from turnout_wire.tensors import Array

ParameterValue = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Class:
    """One of the largest elements of an output that was asked for with `classification`."""

    value: float
    index: int
    label: str  # "": the model has no labels


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one inference. `answer["label"]` is the output tensor of that name.

    Attributes:
        outputs: by name, in the server's order. Read-only arrays over the received bytes: `.copy()` one to write to
            it. BYTES are object arrays of `bytes`, BF16 is ml_dtypes.bfloat16.
        model: that answered.
        version: that ran, as written on the wire.
        slot, revision, generation: who answered, and by which route; "" and 0 from a server that does not say.
        inference_id: joins this answer with logs, traces, shadow pairs and feedback; "" as above.
        parameters: all that the answer carried beside its tensors.
    """

    outputs: Mapping[str, Array]
    model: str
    version: str
    slot: str
    revision: str
    generation: int
    inference_id: str
    parameters: Mapping[str, ParameterValue]

    def __getitem__(self, output: str) -> Array:
        try:
            return self.outputs[output]
        except KeyError:
            raise KeyError(f"no output '{output}' in the answer, it has {', '.join(self.outputs)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def classes(self, output: str) -> list[list[Class]]:
        """An output that was asked for with `classification`: the largest elements of each row, largest first.

        Raises:
            ValueError: it is no such output.
        """
        tensor = self[output]
        rows: Sequence[Sequence[object]] = tensor.reshape(-1, tensor.shape[-1] if tensor.ndim else 1).tolist()
        return [[_class(output, element) for element in row] for row in rows]


def _class(output: str, element: object) -> Class:
    text = element.decode(errors="replace") if isinstance(element, bytes) else ""
    value, _, rest = text.partition(":")
    index, _, label = rest.partition(":")
    try:
        return Class(float(value), int(index), label)
    except ValueError:
        raise ValueError(f"output '{output}' is no classification: ask for it with classification={{...}}") from None


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """A tensor that a model takes or gives. -1 in `shape`: any size; the first one is the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a model is called with."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """What a server is, and which extensions of the protocol it has."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One version of a model in the repository, or a model without any. `state` is READY, LOADING, UNAVAILABLE, ..."""

    name: str
    version: str
    state: str
    reason: str
