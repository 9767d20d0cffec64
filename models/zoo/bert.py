"""Encoders of the shape of BERT (Devlin et al. 2018, https://arxiv.org/abs/1810.04805), from given or seeded weights.

Two ends: scores of classes from the first token, as a fine-tuned BERT has them, and the mean of all tokens as a vector
of length 1, as sentence embeddings have it. Weights have the names that checkpoints give them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from zoo.parts import Graph, tensor

Weights = Mapping[str, NDArray[np.float32]]

_EPSILON = 1e-12  # of layer normalisation
_MASKED = -1e4  # added to what must not be attended to: an exponential of it is 0, and FP16 can hold it
_SEEDED_DEVIATION = 0.02  # as BERT is initialised


@dataclass(frozen=True, slots=True)
class Bert:
    """The size of an encoder; by default that of BERT base: 109 million weights."""

    layers: int = 12
    hidden: int = 768
    heads: int = 12
    inner: int = 3072
    vocabulary: int = 30522
    positions: int = 512
    types: int = 2


def shapes(size: Bert) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The encoder's weights by their names in checkpoints, which keep matrices as [outputs, inputs]."""
    hidden, inner = size.hidden, size.inner
    yield "embeddings.word_embeddings.weight", (size.vocabulary, hidden)
    yield "embeddings.position_embeddings.weight", (size.positions, hidden)
    yield "embeddings.token_type_embeddings.weight", (size.types, hidden)
    yield from _normalisation("embeddings", hidden)
    for number in range(size.layers):
        layer = f"encoder.layer.{number}"
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            yield from _matrix(f"{layer}.{part}", hidden, hidden)
        yield from _normalisation(f"{layer}.attention.output", hidden)
        yield from _matrix(f"{layer}.intermediate.dense", inner, hidden)
        yield from _matrix(f"{layer}.output.dense", hidden, inner)
        yield from _normalisation(f"{layer}.output", hidden)
    yield from _matrix("pooler.dense", hidden, hidden)


def seeded(size: Bert, classes: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Random weights, also of a classifier; equal arguments give equal ones."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in (*shapes(size), *_matrix("classifier", classes, size.hidden)):
        array = rng.standard_normal(shape, np.float32) * np.float32(_SEEDED_DEVIATION)
        weights[name] = array + np.float32(1) if name.endswith("LayerNorm.weight") else array
    return weights


def classifier(size: Bert, weights: Weights) -> onnx.ModelProto:
    """Inputs `input_ids`, `attention_mask` and `token_type_ids`, INT64 [batch, sequence]; output `logits` FP32
    [batch, classes]."""
    encoder = _Encoder(size, weights)
    graph = encoder.graph
    first = graph.node("Gather", [encoder.encode(), encoder.number("first", 0)], "first_token", axis=1)
    pooled = graph.node("Tanh", [encoder.dense("pooler.dense", first)], "pooled")
    logits = encoder.dense("classifier", pooled, "logits")
    classes = len(weights["classifier.bias"])
    return graph.model(_inputs(), [tensor(logits, np.float32, "batch", classes)], "bert")


def embedder(size: Bert, weights: Weights) -> onnx.ModelProto:
    """Inputs as of `classifier`; output `sentence_embedding` FP32 [batch, hidden], of length 1."""
    encoder = _Encoder(size, weights)
    graph = encoder.graph
    encoded = encoder.encode()
    mask = graph.node("Unsqueeze", [encoder.mask, encoder.numbers("last_axis", [-1])], "token_mask")
    tokens = encoder.numbers("token_axis", [1])
    kept = graph.node("Mul", [encoded, mask], "kept_tokens")
    total = graph.node("ReduceSum", [kept, tokens], "sum_of_tokens", keepdims=0)
    count = graph.node("ReduceSum", [mask, tokens], "count_of_tokens", keepdims=0)
    mean = graph.node("Div", [total, count], "mean_of_tokens")
    length = graph.node("ReduceL2", [mean], "length_of_mean", axes=[-1], keepdims=1)
    output = graph.node("Div", [mean, length], "sentence_embedding")
    return graph.model(_inputs(), [tensor(output, np.float32, "batch", size.hidden)], "sentence_embedder")


class _Encoder:
    """The embeddings and the layers, added to a graph one after another."""

    def __init__(self, size: Bert, weights: Weights) -> None:
        self.graph = Graph()
        self.mask = ""  # FP32 [batch, sequence]: 1 for a token, 0 for padding; there after `encode`
        self._size = size
        self._weights = weights

    def encode(self) -> str:
        """The name of the last layer's answer, FP32 [batch, sequence, hidden]."""
        graph = self.graph
        self.mask = graph.node("Cast", ["attention_mask"], "mask", to=onnx.TensorProto.FLOAT)
        hidden_tokens = graph.node("Sub", [self._scalar("one", 1), self.mask], "hidden_tokens")
        penalty = graph.node("Mul", [hidden_tokens, self._scalar("masked", _MASKED)], "penalty_by_token")
        penalty = graph.node("Unsqueeze", [penalty, self.numbers("head_and_query_axes", [1, 2])], "penalty")
        signal = self._embed()
        for number in range(self._size.layers):
            signal = self._layer(f"encoder.layer.{number}", signal, penalty)
        return signal

    def dense(self, name: str, source: str, target: str | None = None) -> str:
        """`name`'s matrix and bias applied to the last dimension."""
        matrix = self.graph.weight(f"{name}.weight", self._weights[f"{name}.weight"].T)
        bias = self.graph.weight(f"{name}.bias", self._weights[f"{name}.bias"])
        product = self.graph.node("MatMul", [source, matrix], f"{name}.product")
        return self.graph.node("Add", [product, bias], target or f"{name}.sum")

    def number(self, name: str, value: int) -> str:
        return self.graph.weight(name, np.array(value, np.int64))

    def numbers(self, name: str, values: list[int]) -> str:
        return self.graph.weight(name, np.array(values, np.int64))

    def _embed(self) -> str:
        graph = self.graph
        words = self._table("word_embeddings", "input_ids")
        types = self._table("token_type_embeddings", "token_type_ids")
        table = graph.weight("embeddings.position_embeddings.weight", self._weight("embeddings.position_embeddings"))
        shape = graph.node("Shape", ["input_ids"], "shape_of_ids", start=1, end=2)
        starts = self.numbers("position_axis", [0])
        positions = graph.node("Slice", [table, starts, shape, starts], "embeddings.positions")
        total = graph.node("Add", [words, types], "embeddings.words_and_types")
        return self._normalise("embeddings", graph.node("Add", [total, positions], "embeddings.sum"))

    def _layer(self, layer: str, source: str, penalty: str) -> str:
        graph = self.graph
        attended = self.dense(f"{layer}.attention.output.dense", self._attend(layer, source, penalty))
        added = graph.node("Add", [attended, source], f"{layer}.attention.added")
        signal = self._normalise(f"{layer}.attention.output", added)
        inner = self._gelu(f"{layer}.intermediate", self.dense(f"{layer}.intermediate.dense", signal))
        answer = self.dense(f"{layer}.output.dense", inner)
        return self._normalise(f"{layer}.output", graph.node("Add", [answer, signal], f"{layer}.added"))

    def _attend(self, layer: str, source: str, penalty: str) -> str:
        graph, size = self.graph, self._size
        each = size.hidden // size.heads
        split = self._shared("split_heads", [0, 0, size.heads, each])
        turns = {"query": [0, 2, 1, 3], "key": [0, 2, 3, 1], "value": [0, 2, 1, 3]}
        heads = {}
        for part, turn in turns.items():
            name = f"{layer}.attention.self.{part}"
            parted = graph.node("Reshape", [self.dense(name, source), split], f"{name}.heads")
            heads[part] = graph.node("Transpose", [parted], f"{name}.turned", perm=turn)
        name = f"{layer}.attention"
        scores = graph.node("MatMul", [heads["query"], heads["key"]], f"{name}.scores")
        scaled = graph.node("Div", [scores, self._scalar("root_of_head_size", each**0.5)], f"{name}.scaled")
        shares = graph.node(
            "Softmax", [graph.node("Add", [scaled, penalty], f"{name}.seen")], f"{name}.shares", axis=-1
        )
        mixed = graph.node("MatMul", [shares, heads["value"]], f"{name}.mixed")
        turned = graph.node("Transpose", [mixed], f"{name}.mixed_turned", perm=[0, 2, 1, 3])
        return graph.node("Reshape", [turned, self._shared("join_heads", [0, 0, size.hidden])], f"{name}.joined")

    def _gelu(self, name: str, source: str) -> str:
        """x / 2 * (1 + erf(x / sqrt 2)), in the pattern that ONNX Runtime makes one operator of."""
        graph = self.graph
        divided = graph.node("Div", [source, self._scalar("root_of_two", 2**0.5)], f"{name}.divided")
        above = graph.node(
            "Add", [graph.node("Erf", [divided], f"{name}.erf"), self._scalar("one", 1)], f"{name}.above"
        )
        product = graph.node("Mul", [source, above], f"{name}.gated")
        return graph.node("Mul", [product, self._scalar("half", 0.5)], f"{name}.gelu")

    def _normalise(self, name: str, source: str) -> str:
        name = f"{name}.LayerNorm"
        terms = [self.graph.weight(f"{name}.{part}", self._weights[f"{name}.{part}"]) for part in ("weight", "bias")]
        return self.graph.node("LayerNormalization", [source, *terms], f"{name}.out", axis=-1, epsilon=_EPSILON)

    def _table(self, name: str, ids: str) -> str:
        table = self.graph.weight(f"embeddings.{name}.weight", self._weight(f"embeddings.{name}"))
        return self.graph.node("Gather", [table, ids], f"embeddings.{name}")

    def _weight(self, name: str) -> NDArray[np.float32]:
        return self._weights[f"{name}.weight"]

    def _scalar(self, name: str, value: float) -> str:
        return self._once(name, np.array(value, np.float32))

    def _shared(self, name: str, values: list[int]) -> str:
        return self._once(name, np.array(values, np.int64))

    def _once(self, name: str, array: NDArray[Any]) -> str:
        """A constant that several nodes take."""
        known = any(weight.name == name for weight in self.graph.weights)
        return name if known else self.graph.weight(name, array)


def _inputs() -> list[onnx.ValueInfoProto]:
    names = ("input_ids", "attention_mask", "token_type_ids")
    return [tensor(name, np.int64, "batch", "sequence") for name in names]


def _matrix(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _normalisation(name: str, hidden: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.LayerNorm.weight", (hidden,)
    yield f"{name}.LayerNorm.bias", (hidden,)
