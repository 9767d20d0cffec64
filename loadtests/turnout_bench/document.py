"""build/bench.json: what it holds, written and read. The raw rounds lie beside it, in bench-raw.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from turnout_bench.figures.figure import Figure, Measured

SCHEMA = 1


class DocumentError(ValueError):
    """A file that is no result of `make bench`; the message names it and says what is wrong."""


@dataclass(frozen=True, slots=True)
class Result:
    """One figure as it was written down."""

    value: float
    low: float
    high: float
    better: Literal["lower", "higher"]
    rounds: int
    target: float | None = None
    noisy: bool = False


def figure_entry(figure: Figure, measured: Measured, foreign_cores: float, foreign_cores_max: float) -> dict[str, Any]:
    """One entry of `figures`."""
    return {
        "value": measured.estimate.value,
        "low": measured.estimate.low,
        "high": measured.estimate.high,
        "rounds": measured.estimate.rounds,
        "target": figure.target,
        "met": figure.met(measured.estimate.value),
        "better": figure.better,
        "unit": figure.unit,
        "what": figure.what,
        "absolute": measured.absolute,
        "foreign_cores": foreign_cores,
        "noisy": foreign_cores > foreign_cores_max,
        "doubts": list(measured.doubts),
    }


def write(file: Path, document: Mapping[str, Any], raw: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    _write(file, document)
    _write(raw_file(file), raw)


def raw_file(file: Path) -> Path:
    return file.with_name(f"{file.stem}-raw.json")


def read(file: Path) -> dict[str, Any]:
    """The whole document.

    Raises:
        DocumentError: it cannot be read, or is something else.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DocumentError(f"{file}: {error.strerror}") from None
    except ValueError:
        raise DocumentError(f"{file} is not JSON") from None
    if not isinstance(document, dict) or not isinstance(document.get("figures"), dict):
        raise DocumentError(f"{file} has no figures: it is not what `make bench` writes")
    return document


def results(file: Path) -> dict[str, Result]:
    """The figures by name.

    Raises:
        DocumentError: as `read`, or a figure that lacks what a comparison needs.
    """
    kept = {}
    for name, entry in read(file)["figures"].items():
        try:
            low, value, high = (float(entry[key]) for key in ("low", "value", "high"))
            if entry["better"] not in ("lower", "higher") or not low <= value <= high:
                raise ValueError
            noisy, rounds = bool(entry.get("noisy")), int(entry["rounds"])
            kept[name] = Result(value, low, high, entry["better"], rounds, entry.get("target"), noisy)
        except (KeyError, TypeError, ValueError):
            raise DocumentError(f"{file}: figure '{name}' has no value with its interval and direction") from None
    return kept


def _write(file: Path, document: Mapping[str, Any]) -> None:
    """As JSON that any reader takes: what is not a number becomes null."""
    file.write_text(json.dumps(_finite(document), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
