"""Completes a model's configuration from what its file declares, by Triton's rules, and checks the one against the
other. What can batch: every input and output has a first dimension that the file leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from turnout.core.errors import LoadError
from turnout.core.model import ModelSpec
from turnout.core.tensors import ANY, Signature, TensorSpec
from turnout.store.batching_config import check_preferred
from turnout.store.model_config import BACKEND, PLATFORM, ModelConfiguration
from turnout.store.named_files import ReadFile, no_files, read_labels
from turnout.store.warmup_config import read_samples
from turnout_wire.gen import model_config_pb2 as pb


def complete(
    configuration: ModelConfiguration,
    declared: Signature,
    batch_rows_default: int,
    read_file: ReadFile = no_files,
) -> ModelSpec:
    """The specification that a model serves with. Blocks: reads the files that the configuration names.

    Args:
        declared: what the model file says of itself; an input that it has a default for is optional there.
        batch_rows_default: rows of the largest batch where the file can batch and the configuration is silent; 0: none.

    Raises:
        LoadError: configuration and file contradict each other; naming the tensor, the value and what is expected.
    """
    proto = pb.ModelConfig()
    proto.CopyFrom(configuration.proto)
    configured = {tensor.name for tensor in proto.input}
    used = [spec for spec in declared.inputs if not spec.optional or spec.name in configured]
    open_first = all(spec.shape[:1] == (ANY,) for spec in (*used, *declared.outputs))
    if proto.max_batch_size and not open_first:
        raise LoadError(
            f"config.pbtxt: max_batch_size is {proto.max_batch_size}, but the model file fixes a first dimension: set 0"
        )
    silent = not proto.max_batch_size and not (proto.input and proto.output)
    unbatched = _has_full_dims(proto, declared) or any(tensor.optional for tensor in proto.input)
    inferred = silent and open_first and batch_rows_default > 0 and not unbatched
    if inferred:
        proto.max_batch_size = batch_rows_default
    policy = configuration.policy()
    check_preferred(policy.preferred_rows, proto.max_batch_size)
    signature = Signature(
        _inputs(proto.input, declared.inputs, proto.max_batch_size > 0),
        _outputs(proto.output, declared.outputs, proto.max_batch_size > 0),
        proto.max_batch_size,
    )
    _fill(proto, configuration.name, signature)
    return ModelSpec(
        signature,
        platform=proto.platform,
        config_wire=proto.SerializeToString(deterministic=True),
        batch_inferred=inferred,
        policy=policy,
        warmup=read_samples(proto, signature, read_file),
        labels=read_labels(proto, read_file),
        warnings=configuration.warnings,
    )


def _has_full_dims(proto: pb.ModelConfig, declared: Signature) -> bool:
    """Whether a configured tensor has as many dims as the file gives it: then none of them is a batch dimension."""
    ranks = {spec.name: len(spec.shape) for spec in (*declared.inputs, *declared.outputs)}
    tensors: list[pb.ModelInput | pb.ModelOutput] = [*proto.input, *proto.output]
    return any(len(_model_dims(tensor)) == ranks.get(tensor.name) for tensor in tensors)


def _inputs(
    configured: Sequence[pb.ModelInput], declared: Sequence[TensorSpec], batched: bool
) -> tuple[TensorSpec, ...]:
    """The configured inputs, which must be all that the file has no default for; without any, exactly those."""
    if not configured:
        return tuple(_inferred(spec, batched) for spec in declared if not spec.optional)
    specs = _configured("input", configured, declared, batched)
    names = [spec.name for spec in specs]
    if missing := [spec.name for spec in declared if not spec.optional and spec.name not in names]:
        raise LoadError(
            f"config.pbtxt: {len(names)} inputs {names}, the model file needs {missing} too: give all inputs or none"
        )
    defaults = {spec.name for spec in declared if spec.optional}
    for tensor in configured:
        if tensor.optional and tensor.name not in defaults:
            raise LoadError(
                f"config.pbtxt: input '{tensor.name}' is optional, but the model file has no default for it: an "
                "initializer of that name which is also a graph input (ir_version 4 or later)"
            )
    return tuple(replace(spec, optional=tensor.optional) for spec, tensor in zip(specs, configured, strict=True))


def _outputs(
    configured: Sequence[pb.ModelOutput], declared: Sequence[TensorSpec], batched: bool
) -> tuple[TensorSpec, ...]:
    """The configured outputs in configured order where there are any, else the file's."""
    if not configured:
        return tuple(_inferred(spec, batched) for spec in declared)
    return tuple(_configured("output", configured, declared, batched))


def _configured(
    kind: str,
    configured: Sequence[pb.ModelInput | pb.ModelOutput],
    declared: Sequence[TensorSpec],
    batched: bool,
) -> list[TensorSpec]:
    by_name = {spec.name: spec for spec in declared}
    names = [tensor.name for tensor in configured]
    if len(set(names)) != len(names):
        raise LoadError(f"config.pbtxt: an {kind} is named twice in {names}")
    specs = []
    for tensor in configured:
        if tensor.name not in by_name:
            raise LoadError(f"config.pbtxt: {kind} '{tensor.name}' is not in the model file, it has {sorted(by_name)}")
        spec = by_name[tensor.name]
        what = f"config.pbtxt: {kind} '{tensor.name}'"
        if (name := pb.DataType.Name(tensor.data_type)) != spec.datatype.config_name:
            raise LoadError(f"{what} is {name}, the model file has {spec.datatype.config_name}")
        specs.append(_merged(what, tensor, spec, batched))
    return specs


def _merged(what: str, tensor: pb.ModelInput | pb.ModelOutput, spec: TensorSpec, batched: bool) -> TensorSpec:
    """Configuration and file together: where one side leaves a dimension open, the other's holds."""
    dims, model_dims = tuple(tensor.dims), _model_dims(tensor)
    declared = spec.shape[1:] if batched else spec.shape
    if not batched and not declared and set(model_dims) == {1}:
        model_dims = ()  # Triton's way to write a scalar of a model without batches
    fits = len(declared) == len(model_dims) and all(
        ANY in (want, have) or want == have for want, have in zip(model_dims, declared, strict=True)
    )
    if not fits:
        raise LoadError(f"{what} has dims {list(model_dims)}, the model file has {list(declared)}")
    closed = tuple(have if want == ANY else want for want, have in zip(model_dims, declared, strict=True))
    # The open dimensions of both forms are the same ones, in the same order.
    sizes = iter([size for want, size in zip(model_dims, closed, strict=True) if want == ANY])
    return _spec(spec, tuple(next(sizes) if dim == ANY else dim for dim in dims), closed, batched)


def _model_dims(tensor: pb.ModelInput | pb.ModelOutput) -> tuple[int, ...]:
    """The dims that the configuration says the model itself has."""
    return tuple(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)


def _inferred(spec: TensorSpec, batched: bool) -> TensorSpec:
    """The tensor as Triton would complete it: what is left without the batch dimension, or [1] where nothing is."""
    dims = spec.shape[1:] if batched else spec.shape
    return _spec(spec, dims or (1,), dims, batched)


def _spec(spec: TensorSpec, dims: tuple[int, ...], model_dims: tuple[int, ...], batched: bool) -> TensorSpec:
    first = (ANY,) if batched else ()
    return TensorSpec(spec.name, spec.datatype, first + dims, first + model_dims if dims != model_dims else None)


def _fill(proto: pb.ModelConfig, name: str, signature: Signature) -> None:
    proto.name = name
    proto.platform = PLATFORM
    proto.backend = BACKEND
    proto.default_model_filename = proto.default_model_filename or "model.onnx"
    if proto.version_policy.WhichOneof("policy_choice") is None:
        proto.version_policy.latest.num_versions = 1
    if not proto.instance_group:
        proto.instance_group.add(name=name, count=1)
    for index, group in enumerate(proto.instance_group):
        group.name = group.name or f"{name}_{index}"
        group.count = max(group.count, 1)
    # Turnout batches wherever it can, so the scheduler is named whether it was configured or not.
    batches = signature.rows_max > 1 or (signature.rows_max == 1 and proto.HasField("dynamic_batching"))
    if batches and not proto.dynamic_batching.preferred_batch_size:
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
