"""A model's own service as a .proto file, with what its fields mean; its descriptor is that of `turnout_wire.typed`."""

from __future__ import annotations

from collections.abc import Iterable

from turnout_wire.tensors import DataType
from turnout_wire.typed import ANY, PACKAGE, REQUEST, RESPONSE, Field, ModelService, Plain

_MEANINGS = {
    DataType.BOOL: "",
    DataType.UINT8: " One byte for each value.",
    DataType.UINT16: " From 0 to 65535.",
    DataType.INT8: " From -128 to 127.",
    DataType.INT16: " From -32768 to 32767.",
    DataType.FP16: " The nearest values of half precision; one that is too large for it is refused.",
    DataType.BF16: " The nearest values of bfloat16; one that is too large for it is refused.",
    DataType.BYTES: " Text.",
}
_HEAD = """\
// The service of model '{model}', written by `turnoutctl codegen`. Change the model, not this file.
//
// Tensors are flat: row by row, the last dimension fastest. A number follows from the tensor's name and datatype alone,
// so it stays when tensors are added, removed or moved, and a tensor of another datatype gets another one.
syntax = "proto3";

package {package};

// Runs '{model}'. Deadlines, errors and metadata (`turnout-slot`: the slot that shall answer; `turnout-sticky-key`) are
// those of inference.GRPCInferenceService/ModelInfer.
service {name} {{
  // One request, one answer.
  rpc Predict({request}) returns ({response});

  // Requests run side by side, answers come in their order. One that fails is answered with error_code and
  // error_message, and the stream goes on.
  rpc PredictStream(stream {request}) returns (stream {response});
}}
"""


def proto_text(service: ModelService, rows_max: int) -> str:
    """The file.

    Args:
        rows_max: of one request; 0: the model has no batch dimension.
    """
    model = _on_one_line(service.model)
    head = _HEAD.format(
        model=model,
        package=PACKAGE,
        name=service.name,
        request=service.request_name,
        response=service.response_name,
    )
    at_most = f" At most {rows_max} rows." if rows_max else ""
    question = f"What '{model}' is asked.{at_most}"
    request = _message(service.request_name, question, REQUEST, service.inputs, rows_max)
    answer = f"What '{model}' answers."
    response = _message(service.response_name, answer, RESPONSE, service.outputs, rows_max)
    return f"{head}\n{request}\n{response}"


def described(field: Field, rows_max: int) -> str:
    """A tensor's datatype and shape, for people: `FP32 [rows, 64]`."""
    tensor = field.tensor
    sizes = ["any" if size == ANY else str(size) for size in tensor.shape]
    if rows_max and sizes:
        sizes[0] = "rows"
    return f"{tensor.datatype.value} [{', '.join(sizes)}]"


def _message(name: str, says: str, envelope: Iterable[Plain], fields: Iterable[Field], rows_max: int) -> str:
    lines = [f"// {says}", f"message {name} {{"]
    for plain in envelope:
        lines += [f"  // {plain.says}", f"  {plain.kind} {plain.name} = {plain.number};", ""]
    for field in fields:
        label = "repeated " if field.repeated else ""
        lines += [f"  // {_meaning(field, rows_max)}", f"  {label}{field.kind} {field.name} = {field.number};"]
        if field.shape_number:
            lines += ["", f"  // The sizes of {field.name}, which its values alone do not tell."]
            lines.append(f"  repeated int64 {field.shape_name} = {field.shape_number};")
        lines.append("")
    lines[-1] = "}"
    return "\n".join(lines) + "\n"


def _meaning(field: Field, rows_max: int) -> str:
    tensor = field.tensor
    plain = tensor.name == field.name
    name = "" if plain else f"Tensor '{_on_one_line(tensor.name)}'. "
    optional = " May be left out." if tensor.optional else ""
    return f"{name}{described(field, rows_max)}.{_MEANINGS.get(tensor.datatype, '')}{optional}"


def _on_one_line(name: str) -> str:
    """A name that somebody else chose must not end a comment."""
    return "".join(c if c.isprintable() else " " for c in name)[:200]
