"""Completes a model's configuration from what its file declares, by Triton's rules, and checks the one against the
other. What can batch: every input and output has a first dimension that the file leaves open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

from turnout.core.errors import LoadError
from turnout.core.model import ModelSpec
from turnout.core.tensors import ANY, Signature, TensorSpec
from turnout.store.model_config import BACKEND, PLATFORM, ModelConfiguration
from turnout_wire.gen import model_config_pb2 as pb


def complete(configuration: ModelConfiguration, declared: Signature, batch_rows_default: int) -> ModelSpec:
    """The specification that a model serves with.

    Args:
        batch_rows_default: rows of the largest batch where the file can batch and the configuration is silent; 0: none.

    Raises:
        LoadError: configuration and file contradict each other; naming the tensor, the value and what is expected.
    """
    proto = pb.ModelConfig()
    proto.CopyFrom(configuration.proto)
    open_first = all(spec.shape[:1] == (ANY,) for spec in (*declared.inputs, *declared.outputs))
    if proto.max_batch_size and not open_first:
        raise LoadError(
            f"config.pbtxt: max_batch_size is {proto.max_batch_size}, but the model file fixes a first dimension: set 0"
        )
    silent = not proto.max_batch_size and not (proto.input and proto.output)
    inferred = silent and open_first and batch_rows_default > 0 and not _has_full_dims(proto, declared)
    if inferred:
        proto.max_batch_size = batch_rows_default
    signature = Signature(
        _specs("input", proto.input, declared.inputs, proto.max_batch_size > 0),
        _specs("output", proto.output, declared.outputs, proto.max_batch_size > 0),
        proto.max_batch_size,
    )
    _fill(proto, configuration.name, signature)
    return ModelSpec(
        signature,
        platform=proto.platform,
        config_wire=proto.SerializeToString(deterministic=True),
        batch_inferred=inferred,
        warnings=configuration.warnings,
    )


def _has_full_dims(proto: pb.ModelConfig, declared: Signature) -> bool:
    """Whether a configured tensor has as many dims as the file gives it: then none of them is a batch dimension."""
    ranks = {spec.name: len(spec.shape) for spec in (*declared.inputs, *declared.outputs)}
    tensors: list[pb.ModelInput | pb.ModelOutput] = [*proto.input, *proto.output]
    return any(tensor.dims and len(tensor.dims) == ranks.get(tensor.name) for tensor in tensors)


def _specs(
    kind: str, configured: Iterable[pb.ModelInput | pb.ModelOutput], declared: Sequence[TensorSpec], batched: bool
) -> tuple[TensorSpec, ...]:
    """The configured tensors in configured order where there are any, else the file's."""
    tensors = list(configured)
    by_name = {spec.name: spec for spec in declared}
    if not tensors:
        return tuple(_spec(spec, _inferred_dims(spec, batched), batched) for spec in declared)
    names = [tensor.name for tensor in tensors]
    if kind == "input" and len(names) != len(by_name):
        raise LoadError(f"config.pbtxt: {len(names)} inputs {names}, the model file has {sorted(by_name)}")
    if len(set(names)) != len(names):
        raise LoadError(f"config.pbtxt: an {kind} is named twice in {names}")
    specs = []
    for tensor in tensors:
        if tensor.name not in by_name:
            raise LoadError(f"config.pbtxt: {kind} '{tensor.name}' is not in the model file, it has {sorted(by_name)}")
        spec = by_name[tensor.name]
        _check_type(kind, tensor, spec)
        specs.append(_configured(kind, tensor, spec, batched))
    return tuple(specs)


def _check_type(kind: str, tensor: pb.ModelInput | pb.ModelOutput, spec: TensorSpec) -> None:
    configured = pb.DataType.Name(tensor.data_type)
    if tensor.data_type != pb.TYPE_INVALID and configured != spec.datatype.config_name:
        raise LoadError(
            f"config.pbtxt: {kind} '{tensor.name}' is {configured}, the model file has {spec.datatype.config_name}"
        )


def _configured(kind: str, tensor: pb.ModelInput | pb.ModelOutput, spec: TensorSpec, batched: bool) -> TensorSpec:
    dims = tuple(tensor.dims)
    model_dims = tuple(tensor.reshape.shape) if tensor.HasField("reshape") else dims
    if not dims:
        return _spec(spec, _inferred_dims(spec, batched), batched)
    if tensor.HasField("reshape") and (ANY in dims or ANY in model_dims or prod(dims) != prod(model_dims)):
        raise LoadError(
            f"config.pbtxt: {kind} '{tensor.name}' reshapes {list(dims)} to {list(model_dims)}: "
            "both must be fixed and hold the same number of elements"
        )
    declared = spec.shape[1:] if batched else spec.shape
    # Where one side leaves a dimension open, the other's holds.
    fits = len(declared) == len(model_dims) and all(
        ANY in (want, have) or want == have for want, have in zip(model_dims, declared, strict=True)
    )
    if not fits:
        raise LoadError(
            f"config.pbtxt: {kind} '{tensor.name}' has dims {list(model_dims)}, the model file has {list(declared)}"
        )
    if not tensor.HasField("reshape"):
        dims = model_dims = tuple(have if want == ANY else want for want, have in zip(dims, declared, strict=True))
    return _spec(spec, dims, batched, model_dims)


def _inferred_dims(spec: TensorSpec, batched: bool) -> tuple[int, ...]:
    """The dims that Triton would complete: what is left without the batch dimension, and [1] where nothing is left."""
    return (spec.shape[1:] if batched else spec.shape) or (1,)


def _spec(
    spec: TensorSpec, dims: tuple[int, ...], batched: bool, model_dims: tuple[int, ...] | None = None
) -> TensorSpec:
    inner = model_dims if model_dims is not None else (spec.shape[1:] if batched else spec.shape)
    first = (ANY,) if batched else ()
    differs = len(dims) != len(inner) or (model_dims is not None and dims != inner)
    return TensorSpec(spec.name, spec.datatype, first + dims, first + inner if differs else None)


def _fill(proto: pb.ModelConfig, name: str, signature: Signature) -> None:
    proto.name = name
    proto.platform = PLATFORM
    proto.backend = BACKEND
    proto.default_model_filename = proto.default_model_filename or "model.onnx"
    if proto.version_policy.WhichOneof("policy_choice") is None:
        proto.version_policy.latest.num_versions = 1
    if not proto.instance_group:
        proto.instance_group.add(name=name, count=1)
    if signature.rows_max > 1 and not proto.dynamic_batching.preferred_batch_size:
        proto.dynamic_batching.preferred_batch_size.append(signature.rows_max)
    _fill_tensors(proto.input, signature.inputs, signature.rows_max > 0)
    _fill_tensors(proto.output, signature.outputs, signature.rows_max > 0)


def _fill_tensors(fields: Any, specs: Sequence[TensorSpec], batched: bool) -> None:
    existing = {field.name: field for field in fields}
    skip = 1 if batched else 0
    for spec in specs:
        field = existing.get(spec.name) or fields.add(name=spec.name)
        field.data_type = pb.DataType.Value(spec.datatype.config_name)
        field.dims[:] = spec.shape[skip:]
        if spec.model_shape is not None:
            field.reshape.shape[:] = spec.model_shape[skip:]
            field.reshape.SetInParent()
