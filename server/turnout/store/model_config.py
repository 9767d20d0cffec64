"""Reads `config.pbtxt`: what Turnout honours, what it warns about, and what it refuses because ignoring it would
change answers. The only module of the store, with `complete`, that knows the ModelConfig message."""

from __future__ import annotations

import re
from dataclasses import dataclass

from google.protobuf import text_format

from turnout.core.errors import LoadError
from turnout.core.ids import parse_version
from turnout.core.model import Device, Execution
from turnout_wire.gen import model_config_pb2 as pb

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"

# Fields that change what a model answers, or who may ask it: refused, since to ignore them would be silent.
_REFUSED = (
    "sequence_batching",
    "ensemble_scheduling",
    "batch_input",
    "batch_output",
    "model_operations",
    "model_repository_agents",
)
# Fields that change speed, placement or reporting only: named in a warning.
_NOT_HONOURED = (
    "cc_model_filenames",
    "metric_tags",
    "response_cache",
    "model_metrics",
    "model_warmup",
    "runtime",
)
_DEVICES = {
    pb.ModelInstanceGroup.KIND_AUTO: Device.AUTO,
    pb.ModelInstanceGroup.KIND_CPU: Device.CPU,
    pb.ModelInstanceGroup.KIND_GPU: Device.GPU,
}
_GROUP_FIELDS = {"name", "count", "kind", "gpus", "passive", "secondary_devices"}
_THREADS_MAX = 1024
_HONOURED_PARAMETERS = ("intra_op_thread_count", "inter_op_thread_count")


@dataclass(frozen=True)
class ModelConfiguration:
    """A parsed and accepted config.pbtxt, not yet completed from the model file."""

    name: str
    proto: pb.ModelConfig
    warnings: tuple[str, ...]

    @classmethod
    def parse(cls, name: str, text: str) -> ModelConfiguration:
        """Raises:
        LoadError: the text does not parse, or asks for what Turnout does not do; naming the field.
        """
        try:
            proto = text_format.Parse(text, pb.ModelConfig())
        except text_format.ParseError as error:
            raise LoadError(f"config.pbtxt: {error}") from None
        if proto.name and proto.name != name:
            raise LoadError(f"config.pbtxt: name is '{proto.name}', the folder is '{name}': make them equal")
        _refuse(proto)
        return cls(name, proto, tuple(_warnings(proto)))

    @property
    def filename(self) -> str:
        return self.proto.default_model_filename or "model.onnx"

    @property
    def rows_max(self) -> int:
        """The configured max_batch_size; 0: none, or left to the file."""
        return int(self.proto.max_batch_size)

    def versions(self, present: set[int]) -> set[int]:
        """The versions that the policy allows among those present; default: the newest.

        Raises:
            LoadError: the policy allows none of them.
        """
        policy = self.proto.version_policy
        match policy.WhichOneof("policy_choice"):
            case "all":
                return present
            case "specific":
                chosen = present & set(policy.specific.versions)
                if not chosen:
                    raise LoadError(
                        f"version_policy allows {list(policy.specific.versions)}, there are {sorted(present)}"
                    )
                return chosen
            case _:
                return set(sorted(present)[-max(policy.latest.num_versions, 1) :])

    def execution(self) -> Execution:
        groups = self.proto.instance_group
        group = groups[0] if groups else pb.ModelInstanceGroup()
        return Execution(
            instances=max(group.count, 1),
            device=_DEVICES[group.kind],
            gpus=tuple(group.gpus),
            graph_level=self.proto.optimization.graph.level,
            intra_op_threads=self._count("intra_op_thread_count"),
            inter_op_threads=self._count("inter_op_thread_count"),
        )

    def _count(self, key: str) -> int | None:
        return int(self.proto.parameters[key].string_value) if key in self.proto.parameters else None


def _refuse(proto: pb.ModelConfig) -> None:
    for field in _REFUSED:
        if _is_set(proto, field):
            raise LoadError(f"config.pbtxt: Turnout does not support '{field}'")
    if proto.model_transaction_policy.decoupled:
        raise LoadError("config.pbtxt: Turnout does not support decoupled models")
    if proto.platform not in ("", PLATFORM, "onnx_onnxv1"):
        raise LoadError(f"config.pbtxt: platform '{proto.platform}', Turnout serves ONNX models ('{PLATFORM}')")
    if proto.backend not in ("", BACKEND):
        raise LoadError(f"config.pbtxt: backend '{proto.backend}', Turnout serves ONNX models ('{BACKEND}')")
    filename = proto.default_model_filename
    if "/" in filename or "\0" in filename or filename in (".", ".."):
        raise LoadError(f"config.pbtxt: default_model_filename {filename!r} is not a plain file name")
    if proto.max_batch_size < 0:
        raise LoadError(f"config.pbtxt: max_batch_size is {proto.max_batch_size}, it must be 0 or more")
    if proto.optimization.graph.level not in (-1, 0, 1, 2):
        raise LoadError(f"config.pbtxt: optimization.graph.level is {proto.optimization.graph.level}, known: -1 to 2")
    _refuse_tensors(proto)
    _refuse_instances(proto)
    _refuse_parameters(proto)


def _refuse_tensors(proto: pb.ModelConfig) -> None:
    tensors: list[pb.ModelInput | pb.ModelOutput] = [*proto.input, *proto.output]
    for tensor in tensors:
        for field in ("is_shape_tensor", "is_non_linear_format_io"):
            if getattr(tensor, field):
                raise LoadError(f"config.pbtxt: '{tensor.name}': Turnout does not support {field}")
        if any(dim == 0 or dim < -1 for dim in tensor.dims):
            raise LoadError(f"config.pbtxt: '{tensor.name}' has dims {list(tensor.dims)}: from 1, or -1 for any")
    for given in proto.input:
        if given.allow_ragged_batch or given.optional:
            field = "optional" if given.optional else "allow_ragged_batch"
            raise LoadError(f"config.pbtxt: input '{given.name}': Turnout does not support {field}")


def _refuse_instances(proto: pb.ModelConfig) -> None:
    if len(proto.instance_group) > 1:
        raise LoadError("config.pbtxt: Turnout takes one instance_group, give its count and gpus")
    for group in proto.instance_group:
        if group.kind not in _DEVICES:
            raise LoadError("config.pbtxt: instance_group kind KIND_MODEL is not for ONNX models")
        if group.kind == pb.ModelInstanceGroup.KIND_CPU and group.gpus:
            raise LoadError("config.pbtxt: instance_group is KIND_CPU and names gpus")
        if group.passive or group.secondary_devices:
            raise LoadError("config.pbtxt: instance_group: Turnout does not support passive and secondary_devices")
        if group.count < 0:
            raise LoadError(f"config.pbtxt: instance_group count is {group.count}, it must be 1 or more")


def _refuse_parameters(proto: pb.ModelConfig) -> None:
    for key in _HONOURED_PARAMETERS:
        text = proto.parameters[key].string_value if key in proto.parameters else "0"
        if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) > _THREADS_MAX:
            raise LoadError(f"config.pbtxt: parameter {key} is '{text}', it must be a number from 0 to {_THREADS_MAX}")
    for version in proto.version_policy.specific.versions:
        if parse_version(str(version)) is None:
            raise LoadError(f"config.pbtxt: version_policy names version {version}, versions start at 1")


def _warnings(proto: pb.ModelConfig) -> list[str]:
    ignored = [field for field in _NOT_HONOURED if _is_set(proto, field)]
    batching = proto.dynamic_batching
    if batching.max_queue_delay_microseconds or batching.preferred_batch_size:
        ignored.append("dynamic_batching's delay and preferred sizes (a free instance takes what waits, at once)")
    if batching.priority_levels or batching.HasField("default_queue_policy") or batching.priority_queue_policy:
        ignored.append("dynamic_batching's priorities and queue policies")
    if batching.preserve_ordering and proto.instance_group and proto.instance_group[0].count > 1:
        ignored.append("dynamic_batching.preserve_ordering")
    ignored += [f"parameters[{key}]" for key in sorted(proto.parameters) if key not in _HONOURED_PARAMETERS]
    unread = {f.name for group in proto.instance_group for f, _ in group.ListFields()} - _GROUP_FIELDS
    ignored += [f"instance_group.{field}" for field in sorted(unread)]
    ignored += [f"optimization.{f.name}" for f, _ in proto.optimization.ListFields() if f.name != "graph"]
    ignored += [f"label_filename of '{out.name}'" for out in proto.output if out.label_filename]
    return [f"config.pbtxt: not honoured: {what}" for what in ignored]


def _is_set(proto: pb.ModelConfig, field: str) -> bool:
    return any(descriptor.name == field for descriptor, _ in proto.ListFields())
