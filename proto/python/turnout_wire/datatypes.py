"""The protocol's 14 datatypes and what numpy, typed contents and model configurations call them."""

from __future__ import annotations

import enum
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt


class TensorError(ValueError):
    """Data that is not the tensor it claims to be. Never says which tensor: the caller knows its name."""


# Wire name: little-endian numpy dtype, field of InferTensorContents.
_TABLE: Final[dict[str, tuple[npt.DTypeLike, str | None]]] = {
    "BOOL": ("?", "bool_contents"),
    "UINT8": ("u1", "uint_contents"),
    "UINT16": ("<u2", "uint_contents"),
    "UINT32": ("<u4", "uint_contents"),
    "UINT64": ("<u8", "uint64_contents"),
    "INT8": ("i1", "int_contents"),
    "INT16": ("<i2", "int_contents"),
    "INT32": ("<i4", "int_contents"),
    "INT64": ("<i8", "int64_contents"),
    "FP16": ("<f2", None),
    "FP32": ("<f4", "fp32_contents"),
    "FP64": ("<f8", "fp64_contents"),
    "BYTES": ("O", "bytes_contents"),
    "BF16": (ml_dtypes.bfloat16, None),
}


class DataType(enum.Enum):
    """A datatype of the protocol; the value is its name on the wire, so `DataType("FP32")` parses one.

    The attributes are plain ones, set once from the table above: reading them costs nothing.
    """

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"
    BF16 = "BF16"

    dtype: np.dtype[Any]
    """Little-endian; object for BYTES, whose elements are `bytes`."""
    itemsize: int
    """Bytes of one element; 0 for BYTES, where each element says."""
    contents_field: str | None
    """The field of InferTensorContents; None for FP16 and BF16, which have no typed form."""
    config_name: str
    """The name in a model's configuration, such as TYPE_FP32."""

    __hash__ = object.__hash__  # members are single, and Enum's own is written in Python

    def __init__(self, wire_name: str) -> None:
        numpy_name, self.contents_field = _TABLE[wire_name]
        self.dtype = np.dtype(numpy_name)
        self.itemsize = 0 if wire_name == "BYTES" else self.dtype.itemsize
        self.config_name = "TYPE_STRING" if wire_name == "BYTES" else f"TYPE_{wire_name}"

    @staticmethod
    def from_numpy(dtype: npt.DTypeLike) -> DataType:
        """The datatype of an array's dtype, in any byte order. TensorError if the protocol has none."""
        found = np.dtype(dtype)
        if found == _BFLOAT16:
            return DataType.BF16
        if found.kind in "OSU":
            return DataType.BYTES
        if (datatype := _BY_KIND.get((found.kind, found.itemsize))) is None:
            raise TensorError(
                f"numpy dtype {found} has no datatype in the protocol; convert the array to one of "
                f"{', '.join(member.value for member in DataType)}"
            )
        return datatype


_BFLOAT16: Final = np.dtype(ml_dtypes.bfloat16)
_BY_KIND: Final = {
    (member.dtype.kind, member.itemsize): member
    for member in DataType
    if member is not DataType.BF16 and member is not DataType.BYTES
}
