"""How a variant is made: the methods, what each may be told, and what is usual for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from turnout.core.variants import Scalar


class QuantizeError(Exception):
    """Why there is no variant. The message names the thing, the value, the limit and the remedy."""


class Method(Enum):
    """By the name that the variant has where none is given."""

    INT8 = "int8"  # weights and activations; ranges of activations from calibration
    INT8_DYNAMIC = "int8-dynamic"  # ranges of activations are found in each run
    INT8_WEIGHTS = "int8-weights"  # MatMul weights alone, in blocks
    INT4_WEIGHTS = "int4-weights"
    FP16 = "fp16"
    BF16 = "bf16"


class Calibration(Enum):
    """How the range of an activation is chosen from the calibration samples."""

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"


# What is quantized of each method, where nothing is excluded. Softmax, normalizations and Mul stay in fp32 in static
# int8: they cost next to no time and much accuracy. Conv is left out of dynamic int8, which is slower there than fp32.
OPS: dict[Method, tuple[str, ...]] = {
    Method.INT8: (
        *("Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat"),
        *("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Pad", "Resize"),
    ),
    Method.INT8_DYNAMIC: ("MatMul", "Gemm", "Gather", "Attention", "LSTM", "EmbedLayerNormalization"),
    # No Gather: its blocks need opset 21, and other nodes do not survive the step.
    Method.INT8_WEIGHTS: ("MatMul", "Gemm"),
    Method.INT4_WEIGHTS: ("MatMul", "Gemm"),
}
# Those that a network's arithmetic is in: without one of them there is nothing to quantize.
HEAVY = frozenset({"Conv", "Gemm", "MatMul", "Gather", "Attention", "LSTM", "EmbedLayerNormalization"})
# Of values, relative to the largest element: what a model of some depth loses by the width of its numbers.
ERROR_MAX = {
    Method.INT8: 0.1,
    Method.INT8_DYNAMIC: 0.1,
    Method.INT8_WEIGHTS: 0.05,
    Method.INT4_WEIGHTS: 0.15,
    Method.FP16: 0.01,
    Method.BF16: 0.05,
}
BLOCK_SIZES = (16, 32, 64, 128, 256)
ACCURACY_LEVEL = 4  # of MatMulNBits: activations as 8-bit integers where the processor is fast with them


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to a model.

    Attributes:
        per_channel: weights have a scale for each output channel (int8, int8-dynamic).
        reduce_range: weights have 7 bits (int8, int8-dynamic): without VNNI, 8-bit products add up beyond 16 bits.
        calibration, percentile: of int8.
        block_size: weights that share a scale (int8-weights, int4-weights).
        exclude_nodes, exclude_ops: left as they are, by name and by operator.
        kept: nodes that the search left in fp32.
    """

    method: Method
    per_channel: bool = True
    reduce_range: bool = False
    calibration: Calibration = Calibration.MINMAX
    percentile: float = 99.99
    block_size: int = 32
    exclude_nodes: tuple[str, ...] = ()
    exclude_ops: tuple[str, ...] = ()
    kept: tuple[str, ...] = field(default=())

    @property
    def calibrates(self) -> bool:
        return self.method is Method.INT8

    def plain(self) -> dict[str, Scalar | list[Scalar]]:
        """As the report has it: what this method does not look at is left out."""
        told: dict[str, Scalar | list[Scalar]] = {"method": self.method.value}
        if self.method in (Method.INT8, Method.INT8_DYNAMIC):
            told |= {"per_channel": self.per_channel, "reduce_range": self.reduce_range}
        if self.calibrates:
            told |= {"calibration": self.calibration.value}
            told |= {"percentile": self.percentile} if self.calibration is Calibration.PERCENTILE else {}
        if self.method in (Method.INT8_WEIGHTS, Method.INT4_WEIGHTS):
            told |= {"block_size": self.block_size, "accuracy_level": ACCURACY_LEVEL}
        return {
            **told,
            "exclude_nodes": list(self.exclude_nodes),
            "exclude_ops": list(self.exclude_ops),
            "kept_fp32": list(self.kept),
        }


def check(recipe: Recipe) -> None:
    """Raises:
    QuantizeError: a value that cannot be meant.
    """
    if recipe.block_size not in BLOCK_SIZES:
        raise QuantizeError(
            f"--block-size is {recipe.block_size}, it must be one of {', '.join(map(str, BLOCK_SIZES))}"
        )
    if not 50 <= recipe.percentile <= 100:
        raise QuantizeError(f"--percentile is {recipe.percentile:g}, it must be from 50 to 100")
