"""What a model and its tensors are called in a service of the model's own, and the numbers of their fields.

Each name follows from the model's or tensor's own, whatever other models there are, so that stubs stay right when a
model comes beside theirs. A number follows from a tensor's name and datatype alone: order, additions and removals
change none, and a tensor of another datatype is another field, which nobody misreads.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256
from typing import Final

# Words of letters and digits joined by `_` begin with a letter, because the capital tells where one begins; `-` may
# come before a digit, because it stays visible. So two plain names never read alike.
_WORDS: Final = r"[a-z][a-z0-9]*(?:_[a-z][a-z0-9]*)*"
_PLAIN: Final = re.compile(rf"{_WORDS}(?:-(?:[0-9]+[a-z0-9]*(?:_[a-z][a-z0-9]*)*|{_WORDS}))*")
_MESSAGE_ENDS: Final = ("Request", "Response")  # a service of that name would be another one's message
_NAME_CHARACTERS_MAX: Final = 64
_MARK_DIGITS: Final = 8

# Numbers of tensors: an even one for its values, the next for its shape. Below are those of the envelope.
NUMBER_MIN: Final = 100_000
_PAIRS: Final = 450_000


def service_name(model: str) -> str:
    """`digits` is Digits, `my_model` MyModel, `my-model` My_Model; a name that is not lower-case words is followed by
    `_x` and eight digits of its SHA-256: `ResNet50` is ResNet50_x17602d15."""
    words = re.split(r"([-_.])", model)
    capital = "".join("_" if word == "-" else "" if word in "_." else word[:1].upper() + word[1:] for word in words)
    plain = _PLAIN.fullmatch(model) and len(model) <= _NAME_CHARACTERS_MAX and not capital.endswith(_MESSAGE_ENDS)
    if plain:
        return capital
    kept = re.sub("[^A-Za-z0-9_]", "", capital)[:_NAME_CHARACTERS_MAX]
    return f"{kept if kept[:1].isalpha() else f'M{kept}'}_x{_mark(model)}"


def file_stem(model: str) -> str:
    """The name of the model's files, without ending: `digits`, `my_model`, `my__model` for `my-model`."""
    name = service_name(model)
    plain, _, mark = name.rpartition("_x")
    if mark == _mark(model):
        return f"{plain.lower()}___x{mark}"  # no plain name has three in a row
    return model.replace("-", "__")


def field_names(tensors: Sequence[str], open_shapes: Collection[str], envelope: Iterable[str]) -> dict[str, str]:
    """The field of each tensor: its own name with `_` for whatever is no letter or digit, and `t_` before one that
    does not begin with a letter. Several that read alike, or like a field of the envelope or of a shape, each get `_x`
    and eight digits of their SHA-256; so does one of more than 64 characters.

    Args:
        open_shapes: the tensors beside which there is a field `NAME_shape`.
    """
    plain = {tensor: _field(tensor) for tensor in tensors}
    alike = Counter(map(_read, plain.values()))
    taken = {_read(name) for name in envelope} | {_read(shape_name(plain[tensor])) for tensor in open_shapes}
    return {
        tensor: f"{name[:_NAME_CHARACTERS_MAX]}_x{_mark(tensor)}"
        if alike[_read(name)] > 1
        or _read(name) in taken
        or (tensor in open_shapes and _read(shape_name(name)) in alike)
        or len(name) > _NAME_CHARACTERS_MAX
        else name
        for tensor, name in plain.items()
    }


def shape_name(field: str) -> str:
    return f"{field}_shape"


def field_numbers(tensors: Iterable[tuple[str, str]]) -> dict[str, int]:
    """By name, of tensors of one message given as name and datatype. Where two would have one number (of ten tensors,
    once in 10,000 models), the one whose name sorts later gets the next that is free of its own row of numbers."""
    numbers: dict[str, int] = {}
    for name, datatype in sorted(tensors):
        attempt = 0
        while (number := _number(f"{datatype} {name}", attempt)) in numbers.values():
            attempt += 1
        numbers[name] = number
    return numbers


def _number(text: str, attempt: int) -> int:
    digest = sha256(f"{text}\0{attempt}".encode()).digest()
    return NUMBER_MIN + 2 * (int.from_bytes(digest[:8], "big") % _PAIRS)


def _field(tensor: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]", "_", tensor)
    return name if name[:1].isalpha() else f"t_{name}"


def _read(name: str) -> str:
    """What is left of a name in languages that drop underscores or capitals, and in JSON."""
    return name.replace("_", "").lower()


def _mark(name: str) -> str:
    return sha256(name.encode()).hexdigest()[:_MARK_DIGITS]
