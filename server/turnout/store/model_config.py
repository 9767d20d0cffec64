"""Reads `config.pbtxt`: what Turnout honours, what it warns about, and what it refuses because ignoring it would
change answers. How a model is run, batched and warmed is read by the modules beside this one; the ModelConfig message
goes no further than these and `complete`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf import text_format

from turnout.core.batch_policy import BatchPolicy
from turnout.core.errors import LoadError
from turnout.core.ids import parse_version
from turnout.core.model import Execution
from turnout.core.tensors import ANY
from turnout.store.accelerators import flag
from turnout.store.batching_config import BATCHING, PAD_BATCHES, check_preferred, read_policy
from turnout.store.execution_config import is_honoured, read_execution
from turnout.store.named_files import check_plain
from turnout.store.warmup_config import check_warmup
from turnout_wire.gen import model_config_pb2 as pb

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
NONFINITE = "refuse_nonfinite"
_OWN = {NONFINITE, BATCHING, PAD_BATCHES}  # Turnout's own parameters

# Fields that change what a model answers, or who may ask it: refused, since to ignore them would be silent.
_REFUSED = (
    "sequence_batching",
    "ensemble_scheduling",
    "batch_input",
    "batch_output",
    "model_repository_agents",
)
# Fields that change speed, placement or reporting only: named in a warning.
_NOT_HONOURED = (
    "cc_model_filenames",
    "metric_tags",
    "response_cache",
    "model_metrics",
    "runtime",
)
_PACKAGE = pb.ModelConfig.DESCRIPTOR.file.package
_GROUP_FIELDS = {"name", "count", "kind", "gpus", "passive", "secondary_devices"}
_OPTIMIZATION_FIELDS = {"graph", "execution_accelerators"}


@dataclass(frozen=True)
class ModelConfiguration:
    """A parsed and accepted config.pbtxt, not yet completed from the model file."""

    name: str
    proto: pb.ModelConfig
    warnings: tuple[str, ...]

    @classmethod
    def parse(cls, name: str, text: str, op_libraries: bool = False) -> ModelConfiguration:
        """Args:
            op_libraries: libraries of custom operators, native code out of the repository, may be loaded.

        Raises:
            LoadError: the text does not parse, or asks for what Turnout does not do; naming the field.
        """
        try:
            proto = text_format.Parse(text, pb.ModelConfig())
        except (text_format.ParseError, ValueError) as error:  # the second: a number too large for an enum
            # The messages' package is this process's own: Triton's users know them without.
            raise LoadError(f"config.pbtxt: {str(error).replace(f'{_PACKAGE}.', '')}") from None
        if proto.name and proto.name != name:
            raise LoadError(f"config.pbtxt: name is '{proto.name}', the folder is '{name}': make them equal")
        _refuse(proto)
        configuration = cls(name, proto, tuple(_warnings(proto)))
        configuration.refuse_nonfinite(False)
        # Read now, so that what is wrong is told before a file is opened.
        if configuration.execution().op_libraries and not op_libraries:
            raise LoadError(
                "config.pbtxt: model_operations.op_library_filename: libraries are native code that runs inside the "
                "server; start it with --allow-op-libraries where the repository is trusted"
            )
        if configuration.rows_max:
            check_preferred(configuration.policy().preferred_rows, configuration.rows_max)
        return configuration

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
        return read_execution(self.proto)

    def policy(self) -> BatchPolicy:
        return read_policy(self.proto)

    def refuse_nonfinite(self, default: bool) -> bool:
        """Turnout's own parameter: whether an answer with a NaN or an infinity is an error."""
        if NONFINITE not in self.proto.parameters:
            return default
        return flag(f"config.pbtxt: parameter {NONFINITE}", self.proto.parameters[NONFINITE].string_value)


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
    if proto.default_model_filename:
        check_plain("default_model_filename", proto.default_model_filename)
    if proto.max_batch_size < 0:
        raise LoadError(f"config.pbtxt: max_batch_size is {proto.max_batch_size}, it must be 0 or more")
    for version in proto.version_policy.specific.versions:
        if parse_version(str(version)) is None:
            raise LoadError(f"config.pbtxt: version_policy names version {version}, versions start at 1")
    _refuse_inputs(proto)
    _refuse_outputs(proto)
    check_warmup(proto)


def _refuse_inputs(proto: pb.ModelConfig) -> None:
    for tensor in proto.input:
        _refuse_tensor("input", tensor)
        if tensor.allow_ragged_batch:
            raise LoadError(f"config.pbtxt: input '{tensor.name}': Turnout does not support allow_ragged_batch")
        if tensor.optional and proto.max_batch_size:
            # A request without it and one with it could not share a batch, and rows of a default mean nothing.
            raise LoadError(
                f"config.pbtxt: input '{tensor.name}' is optional, but max_batch_size is {proto.max_batch_size}: "
                "only models without batches may have optional inputs, set it to 0"
            )


def _refuse_outputs(proto: pb.ModelConfig) -> None:
    for tensor in proto.output:
        _refuse_tensor("output", tensor)
        if tensor.label_filename:
            check_plain(f"label_filename of output '{tensor.name}'", tensor.label_filename)


def _refuse_tensor(kind: str, tensor: pb.ModelInput | pb.ModelOutput) -> None:
    """Triton's rule for a tensor that is configured at all: its name, type and dims are given."""
    if not tensor.name:
        raise LoadError(f"config.pbtxt: an {kind} has no name")
    what = f"config.pbtxt: {kind} '{tensor.name}'"
    for field in ("is_shape_tensor", "is_non_linear_format_io"):
        if getattr(tensor, field):
            raise LoadError(f"{what}: Turnout does not support {field}")
    if tensor.data_type not in pb.DataType.values():
        raise LoadError(f"{what} has data_type {tensor.data_type}, which is unknown")
    missing = "data_type" if tensor.data_type == pb.TYPE_INVALID else "" if tensor.dims else "dims"
    if missing:
        raise LoadError(f"{what} has no {missing}: set it, or leave out every {kind} to take them from the model file")
    for field, dims in (("dims", tensor.dims), ("reshape", tensor.reshape.shape)):
        if any(dim == 0 or dim < -1 for dim in dims):
            raise LoadError(f"{what} has {field} {list(dims)}: from 1, or -1 for any")
    # Between dimensions that are open on both sides the elements must be as many, so that the forms map one to one.
    if tensor.HasField("reshape") and _elements(tensor.dims) != _elements(tensor.reshape.shape):
        raise LoadError(
            f"{what} reshapes {list(tensor.dims)} to {list(tensor.reshape.shape)}: both must hold the same number of "
            "elements, also between open dimensions"
        )


def _elements(dims: Iterable[int]) -> list[int]:
    """The number of elements before, between and after the open dimensions."""
    counts = [1]
    for dim in dims:
        if dim == ANY:
            counts.append(1)
        else:
            counts[-1] *= dim
    return counts


def _warnings(proto: pb.ModelConfig) -> list[str]:
    ignored = [field for field in _NOT_HONOURED if _is_set(proto, field)]
    ignored += [f"parameters[{key}]" for key in sorted(proto.parameters) if not (is_honoured(key) or key in _OWN)]
    unread = {f.name for group in proto.instance_group for f, _ in group.ListFields()} - _GROUP_FIELDS
    ignored += [f"instance_group.{field}" for field in sorted(unread)]
    unread = {f.name for f, _ in proto.optimization.ListFields()} - _OPTIMIZATION_FIELDS
    ignored += [f"optimization.{field}" for field in sorted(unread)]
    return [f"config.pbtxt: not honoured: {what}" for what in ignored]


def _is_set(proto: pb.ModelConfig, field: str) -> bool:
    return any(descriptor.name == field for descriptor, _ in proto.ListFields())
