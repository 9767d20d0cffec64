"""Applies a recipe to a model, by ONNX Runtime's own quantizers."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from turnout.core.tensors import Tensors
from turnout.variants import graphs
from turnout.variants.bfloat16 import to_bfloat16
from turnout.variants.calibrating import Rows
from turnout.variants.recipes import ACCURACY_LEVEL, OPS, Calibration, Method, QuantizeError, Recipe


class Converter:
    """One model, prepared once and converted as often as it is asked for.

    Args:
        folder: for what is kept between conversions: the ranges that were found in calibration.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path, calibration: Rows | None) -> None:
        self._original = model
        self._model = model
        self._folder = folder
        self._calibration = calibration

    @property
    def model(self) -> onnx.ModelProto:
        """As it is quantized."""
        return self._model

    def prepare(self, recipe: Recipe) -> None:
        """Infer shapes, fold constants and fuse what ONNX Runtime would fuse, so that the quantizer sees it.

        Raises:
            QuantizeError: the model has an operator that ONNX Runtime does not know, or does not fit together.
        """
        match recipe.method:
            case Method.INT8:
                with _refusing("prepared"):
                    self._model = self._preprocessed()
            case Method.INT8_DYNAMIC:
                with _refusing("prepared"):
                    self._model = _without_gemm(self._preprocessed())
            case Method.INT8_WEIGHTS | Method.INT4_WEIGHTS:
                with _refusing("prepared"):
                    self._model = _without_gemm(self._original)

    def convert(self, recipe: Recipe, target: Path) -> None:
        """Write the variant; the prepared model stays as it is.

        Raises:
            QuantizeError: ONNX Runtime cannot do it, or the result is too large for one file.
        """
        with _refusing("quantized"):
            match recipe.method:
                case Method.INT8:
                    self._static(recipe, target)
                case Method.INT8_DYNAMIC:
                    self._dynamic(recipe, target)
                case Method.INT8_WEIGHTS | Method.INT4_WEIGHTS:
                    self._weights(recipe, target)
                case Method.FP16 | Method.BF16:
                    self._half(recipe, target)

    def _preprocessed(self) -> onnx.ModelProto:
        from onnxruntime.quantization.shape_inference import quant_pre_process

        given, path = self._folder / "given.onnx", self._folder / "prepared.onnx"
        _save(self._original, given)
        try:
            # It leaves a file in the working directory where it fails, and without auto_merge (lengths that come from
            # two inputs are one length) it fails for every transformer.
            with contextlib.chdir(self._folder):
                quant_pre_process(given, path, auto_merge=True)
        except Exception:  # noqa: BLE001 - symbolic shapes are a help and no need: it does not know all operators
            quant_pre_process(given, path, skip_symbolic_shape=True)
        return onnx.load(path)

    def _static(self, recipe: Recipe, target: Path) -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        if self._calibration is None:
            raise AssertionError("int8 has calibration samples")
        methods = {
            Calibration.MINMAX: CalibrationMethod.MinMax,
            Calibration.ENTROPY: CalibrationMethod.Entropy,
            Calibration.PERCENTILE: CalibrationMethod.Percentile,
        }
        quantize_static(
            _copy(self._model),
            target,
            _Reader(self._calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=self._ops(recipe),
            per_channel=recipe.per_channel,
            reduce_range=recipe.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=self._left_out(recipe),
            calibrate_method=methods[recipe.calibration],
            extra_options={"CalibPercentile": recipe.percentile} if recipe.percentile else {},
            calibration_cache_path=self._folder / "ranges.json",
        )

    def _dynamic(self, recipe: Recipe, target: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            _copy(self._model),
            target,
            op_types_to_quantize=self._ops(recipe),
            per_channel=recipe.per_channel,
            reduce_range=recipe.reduce_range,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=self._left_out(recipe),
        )

    def _weights(self, recipe: Recipe, target: Path) -> None:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(
            _copy(self._model),
            bits=4 if recipe.method is Method.INT4_WEIGHTS else 8,
            block_size=recipe.block_size,
            accuracy_level=ACCURACY_LEVEL,
            op_types_to_quantize=("MatMul",),
            nodes_to_exclude=self._left_out(recipe),
        )
        quantizer.process()
        _save(quantizer.model.model, target)

    def _half(self, recipe: Recipe, target: Path) -> None:
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

        half = convert_float_to_float16(
            _copy(self._original),
            keep_io_types=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, *recipe.exclude_ops],
            node_block_list=[*recipe.exclude_nodes, *recipe.kept],
        )
        if recipe.method is Method.BF16:
            to_bfloat16(half, self._original)
        _save(half, target)

    def _ops(self, recipe: Recipe) -> list[str]:
        return [op for op in OPS[recipe.method] if op not in recipe.exclude_ops]

    def _left_out(self, recipe: Recipe) -> list[str]:
        return [node.name for node in graphs.nodes(self._model, recipe) if not node.quantized]


class _Reader:
    """Calibration samples as ONNX Runtime takes them, run by run."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._runs = rows.runs()

    def get_next(self) -> Tensors | None:
        return next(self._runs, None)

    def __len__(self) -> int:
        return sum(1 for _ in self._rows.runs())

    def set_range(self, start_index: int, end_index: int) -> None:
        raise AssertionError("strides are not asked for")


@contextlib.contextmanager
def _refusing(done: str) -> Iterator[None]:
    """Without what the quantizers say on the way: a library's words are no progress to a user."""
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (QuantizeError, KeyboardInterrupt, MemoryError):
        raise
    except OSError as error:
        raise QuantizeError(f"temporary files cannot be written: {error.strerror}: see TMPDIR") from error
    except Exception as error:
        words = " ".join(str(error).split())[:400] or type(error).__name__
        raise QuantizeError(f"the model cannot be {done}: {words}") from error
    finally:
        logging.disable(logging.NOTSET)


def _without_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gemm as MatMul and Add: dynamic int8 and weights alone are for MatMul."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    copy: Any = ONNXModel(_copy(model))
    copy.replace_gemm_with_matmul()
    return copy.model  # type: ignore[no-any-return]


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """The quantizers change what they are given."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _save(model: onnx.ModelProto, target: Path) -> None:
    if model.ByteSize() > graphs.BYTES_MAX:
        raise QuantizeError(f"the result has {model.ByteSize()} bytes, one file takes at most {graphs.BYTES_MAX}")
    target.write_bytes(model.SerializeToString())
