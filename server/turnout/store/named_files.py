"""Files that a configuration names, beside config.pbtxt: their names are plain, and what they hold is bounded."""

from __future__ import annotations

from collections.abc import Callable

from turnout.core.errors import LoadError
from turnout_wire.gen import model_config_pb2 as pb

# Reads a file by its path in the model's folder, which may not lead out of it, of at most so many bytes. Raises
# LoadError, naming the file, where there is none or it is larger.
ReadFile = Callable[[str, int], bytes]

# ImageNet's 21,841 classes take under 1 MiB; one label for each element that classification may ever return fits.
_LABELS_BYTES_MAX = 16 << 20
_LABELS_MAX = 1_000_000


def no_files(path: str, bytes_max: int) -> bytes:
    """The ReadFile of a model without a folder."""
    raise LoadError(f"there is no file '{path}' of at most {bytes_max} bytes")


def check_plain(field: str, name: str) -> None:
    """Raises:
    LoadError: `name` is no plain file name, so it could lead out of the folder that `field` reads from.
    """
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise LoadError(f"config.pbtxt: {field} {name!r} is not a plain file name")


def read_labels(outputs: pb.ModelConfig, read_file: ReadFile) -> dict[str, tuple[str, ...]]:
    """The labels of each output that has a `label_filename`, one a line.

    Raises:
        LoadError: naming the output and what is wrong with its file.
    """
    return {out.name: _labels(out, read_file) for out in outputs.output if out.label_filename}


def _labels(output: pb.ModelOutput, read_file: ReadFile) -> tuple[str, ...]:
    field = f"config.pbtxt: label_filename '{output.label_filename}' of output '{output.name}'"
    try:
        # Some editors write a byte order mark, which would become part of the first label.
        text = read_file(output.label_filename, _LABELS_BYTES_MAX).decode("utf-8-sig")
    except LoadError as refusal:
        raise LoadError(f"{field}: {refusal}") from refusal.__cause__
    except UnicodeDecodeError as error:
        raise LoadError(f"{field} is not UTF-8 text: byte {error.start} is wrong") from None
    # Not `splitlines`, which also splits at characters that a label may have.
    lines = text.removesuffix("\n").split("\n") if text else []
    if len(lines) > _LABELS_MAX:
        raise LoadError(f"{field} has {len(lines)} lines, the limit is {_LABELS_MAX}")
    return tuple(line.removesuffix("\r") for line in lines)
