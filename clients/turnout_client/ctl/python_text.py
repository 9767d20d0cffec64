"""A model's own client as a Python module over turnout_client: arguments and answers with a field for each tensor."""

from __future__ import annotations

import keyword
from collections.abc import Collection, Iterable

from turnout_client.ctl.proto_text import described
from turnout_wire.tensors import DataType
from turnout_wire.typed import Field, ModelService

_OPTIONS = ("key", "version", "slot", "request_id", "timeout_s")
# What the module calls beside its arguments: an argument of that name would be called in its place.
_OWN = ("self", "inputs", "tensor", "DataType", "MODEL", *_OPTIONS)
_TYPES = {
    DataType.BOOL: "np.bool_",
    DataType.UINT8: "np.uint8",
    DataType.UINT16: "np.uint16",
    DataType.UINT32: "np.uint32",
    DataType.UINT64: "np.uint64",
    DataType.INT8: "np.int8",
    DataType.INT16: "np.int16",
    DataType.INT32: "np.int32",
    DataType.INT64: "np.int64",
    DataType.FP16: "np.float16",
    DataType.FP32: "np.float32",
    DataType.FP64: "np.float64",
    DataType.BYTES: "np.object_",
    DataType.BF16: "Any",  # ml_dtypes.bfloat16, which has no types
}
_MODULE = '''\
"""Client of the model '{model}', written by `turnoutctl codegen`. Change the model, not this file."""

from __future__ import annotations

from dataclasses import dataclass
{typing}
import numpy as np
import numpy.typing as npt

from turnout_client import Client, aio
from turnout_client.answers import Answer
from turnout_client.typed import output, tensor
from turnout_wire.tensors import DataType

MODEL = {literal}


@dataclass(frozen=True, slots=True)
class {name}Answer:
    """What '{model}' answers.

    Attributes:
{attributes}
        answer: who gave it: version, slot, revision, generation, inference_id.
    """

{fields}
    answer: Answer


class {name}Client:
    """Calls '{model}' through a client, which brings connections, deadlines, retries and streams."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def predict(
{parameters}
    ) -> {name}Answer:
        """One inference. What is no tensor is as in `turnout_client.Client.infer`.

        Args:
{arguments}

        Raises:
            InferenceError: there is no answer.
            ValueError: an input is not what the model takes; the message begins with its name.
        """
        inputs = _inputs({given})
        return _answer(
            self._client.infer(
                MODEL, inputs, key=key, version=version, slot=slot, request_id=request_id, timeout_s=timeout_s
            )
        )


class Aio{name}Client:
    """The same on an event loop."""

    def __init__(self, client: aio.Client) -> None:
        self._client = client

    async def predict(
{parameters}
    ) -> {name}Answer:
        """As `{name}Client.predict`."""
        inputs = _inputs({given})
        return _answer(
            await self._client.infer(
                MODEL, inputs, key=key, version=version, slot=slot, request_id=request_id, timeout_s=timeout_s
            )
        )


def _inputs(
{taken}
) -> dict[str, npt.ArrayLike]:
    inputs: dict[str, npt.ArrayLike] = {{}}
{filled}
    return inputs


def _answer(answer: Answer) -> {name}Answer:
    return {name}Answer(
{read}
        answer,
    )
'''


def python_text(service: ModelService, rows_max: int) -> str:
    """The module; `rows_max` as for `proto_text`."""
    inputs = sorted(service.inputs, key=lambda field: field.tensor.optional)  # as Python wants its defaults
    names = {field: _name(field, _OWN) for field in inputs}
    outputs = {field: _name(field, ("answer",)) for field in service.outputs}
    taken = [f"{name}: {_taken(field)}" for field, name in names.items()]
    options = ['key: str = ""', 'version: str | int = ""', 'slot: str = ""', 'request_id: str = ""']
    options.append("timeout_s: float | None = None")
    return _MODULE.format(
        model=_plain(service.model),
        literal=_literal(service.model),
        name=service.name,
        typing="from typing import Any\n" if any(f.tensor.datatype is DataType.BF16 for f in outputs) else "",
        attributes=_indented(8, (f"{name}: {described(field, rows_max)}." for field, name in outputs.items())),
        fields=_indented(4, (f"{name}: npt.NDArray[{_TYPES[f.tensor.datatype]}]" for f, name in outputs.items())),
        parameters=_indented(8, (f"{line}," for line in ("self", *taken, "*", *options))),
        arguments=_indented(12, (_said(field, name, rows_max) for field, name in names.items())),
        given=", ".join(names.values()),
        taken=_indented(4, (f"{line}," for line in taken)),
        filled="\n".join(_filled(field, name) for field, name in names.items()),
        read=_indented(8, (f"{_output(field, name)}," for field, name in outputs.items())),
    )


def _name(field: Field, taken: Collection[str]) -> str:
    return f"{field.name}_" if keyword.iskeyword(field.name) or field.name in taken else field.name


def _taken(field: Field) -> str:
    return "npt.ArrayLike | None = None" if field.tensor.optional else "npt.ArrayLike"


def _said(field: Field, name: str, rows_max: int) -> str:
    rows = f", at most {rows_max} rows" if rows_max else ""
    return f"{name}: {described(field, rows_max)}{rows}."


def _filled(field: Field, name: str) -> str:
    tensor, datatype = field.tensor, f"DataType.{field.tensor.datatype.value}"
    line = f'inputs[{_literal(tensor.name)}] = tensor("{name}", {name}, {datatype}, {tensor.shape!r})'
    return f"    if {name} is not None:\n        {line}" if tensor.optional else f"    {line}"


def _output(field: Field, name: str) -> str:
    return f'output(answer, "{name}", {_literal(field.tensor.name)}, DataType.{field.tensor.datatype.value})'


def _literal(text: str) -> str:
    """In double quotes, as formatters want them, where that is plain."""
    return f'"{text}"' if text.isprintable() and not set(text) & set("\\\"'") else repr(text)


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() and c not in "\\\"'" else " " for c in text)


def _indented(blanks: int, lines: Iterable[str]) -> str:
    return "\n".join(" " * blanks + line for line in lines)
