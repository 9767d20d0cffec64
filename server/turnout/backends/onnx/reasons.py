"""What ONNX Runtime says, for operators and clients: without its source locations, and without the host's paths."""

from __future__ import annotations

import re

_CHARACTERS_MAX = 400
_READ_CHARACTERS_MAX = 4000  # a model's own names are in it
_STATUS = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
# A location is a file, a line and a function: the whole signature after a whole path, the bare name after a bare name.
_LOCATION = re.compile(r"/\S+\.(?:cc|h|cpp|cu):\d+ (?=[^()]*\()")
_SHORT_LOCATION = re.compile(r"(?<![\w/.])\w+\.(?:cc|h|cpp|cu):\d+ \S+ ")
_AFTER_SIGNATURE = re.compile(r"\s*(?:const\b\s*)?(?:\[with [^\]]*\]\s*)?")
# The file that it was given is not the operator's: see sealed.py.
_FILE = re.compile(r"Load model from /proc/self/fd/\d+ failed: ?")
_PATH = re.compile(r"(?<!\w)/[^\s:'\",)]*")


def reason(error: BaseException) -> str:
    """One line."""
    text = _FILE.sub("", _STATUS.sub("", " ".join(str(error)[:_READ_CHARACTERS_MAX].split())))
    while match := _LOCATION.search(text):
        text = text[: match.start()] + text[_signature_end(text, match.end()) :]
    return _PATH.sub("<path>", _SHORT_LOCATION.sub("", text))[:_CHARACTERS_MAX]


def _signature_end(text: str, start: int) -> int:
    """Where a C++ function's signature ends; its arguments may have parentheses of their own."""
    depth = 0
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if text[at] == ")" and depth == 0:
            after = _AFTER_SIGNATURE.match(text, at + 1)
            return after.end() if after else at + 1
    return len(text)
