"""What the demo shows: tables, bars and digits drawn with block characters. Computes shares, decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from steady import Seen
from traffic import Answers
from turnout_wire.gen.slots_pb2 import Model, SlotState

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_SHADES = " ░▒▓█"
_SIDE = 8  # pixels
_PIXEL_MAX = 16
_CLASSES = 10


def versions(
    answers: Mapping[str, Answers], labels: NDArray[np.int64], failed: Mapping[str, int], routed: str
) -> Table:
    """Each version's quality by the true labels, and all that shows without them."""
    table = _table("version", "reached by", ">failed", ">p50", ">confidence", ">wrong", ">accuracy")
    for version, answer in answers.items():
        wrong = int((answer.labels != labels).sum())
        table.add_row(
            version,
            "routing, pin" if version == routed else "pin",
            f"{failed[version]:,}",
            _ms(answer.latencies_ns, 50),
            f"{answer.confidence.mean():.1%}",
            f"{wrong:,}",
            f"{1 - wrong / len(labels):.1%}",
        )
    return table


def shares(stable: str, newest: str, answers: Mapping[str, Answers], labels: NDArray[np.int64]) -> Table:
    """How often each digit is the answer: true, and by two versions. Marked where the versions lie apart."""
    table = _table("digit", ">true", ">version " + stable, "", ">version " + newest, "", ">change")
    share = {v: np.bincount(answers[v].labels, minlength=_CLASSES) / len(labels) for v in (stable, newest)}
    true = np.bincount(labels, minlength=_CLASSES) / len(labels)
    for digit in range(_CLASSES):
        old, new = float(share[stable][digit]), float(share[newest][digit])
        apart = abs(new - old) > 0.01
        style = "yellow" if apart else "green"
        table.add_row(
            str(digit),
            f"{true[digit]:.1%}",
            f"{old:.1%}",
            Text(bar(old / 0.15, 16), "green"),
            f"{new:.1%}",
            Text(bar(new / 0.15, 16), style),
            Text(f"{(new - old) * 100:+.1f}" if apart else "", style),
        )
    return table


def switching(model: Model, seen: Mapping[str, Seen], failed: int) -> Table:
    """What the operator wants of each slot next to what users see of it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("slot", "holds", "state", "wanted", "seen", "", "req/s", "p50", "p99"):
        left = heading in ("slot", "holds", "state", "")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    wanted = {weight.slot: weight.weight_bp / 10_000 for weight in model.route.weights}
    for slot in model.slots:
        users = seen.get(slot.name)
        table.add_row(
            slot.name,
            f"{model.name}/{slot.revision.version}" if slot.revision.version else "-",
            SlotState.Name(slot.state).removeprefix("SLOT_STATE_"),
            f"{wanted.get(slot.name, 0):.0%}",
            f"{users.share:.1%}" if users else "-",
            Text(bar(users.share, 8) if users else "", "cyan"),
            f"{users.per_s:.0f}" if users else "-",
            _ms(users.latencies_ns, 50) if users else "-",
            _ms(users.latencies_ns, 99) if users else "-",
        )
    table.caption = f"failed requests: {failed}"
    table.caption_justify = "left"
    return table


def digits(
    chosen: Sequence[int], images: NDArray[np.float32], labels: NDArray[np.int64], answers: Mapping[str, Answers]
) -> Columns:
    """Pictures side by side, each with its label, every version's answer, and how sure it is of that."""
    cards: list[RenderableType] = []
    for index in chosen:
        card = Text(no_wrap=True)
        card.append(picture(images[index]) + "\n", "bold")
        card.append(f"label   {labels[index]}\n")
        for version, answer in answers.items():
            right = answer.labels[index] == labels[index]
            said = f"v{version} says {answer.labels[index]}  {answer.confidence[index]:4.0%}"
            card.append(said if right else said + " ✗", "green" if right else "bold red")
            card.append("\n")
        card.rstrip()
        cards.append(card)
    return Columns(cards, padding=(0, 2))


def picture(image: NDArray[np.float32]) -> str:
    """[64] pixels 0..16 -> 8 lines of 16 characters, darker for more ink."""
    level = np.clip(image / _PIXEL_MAX * len(_SHADES), 0, len(_SHADES) - 1).astype(int).reshape(_SIDE, _SIDE)
    return "\n".join("".join(_SHADES[shade] * 2 for shade in row) for row in level)


def bar(share: float, width: int) -> str:
    """`share` of `width` characters, to an eighth of one; what is not nothing shows."""
    eighths = min(max(round(share * width * 8), share > 0), width * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _table(*headings: str) -> Table:
    """`>` before a heading: numbers, aligned right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading.removeprefix(">"), justify="right" if heading.startswith(">") else "left")
    return table


def _ms(times_ns: Sequence[int], percent: int) -> str:
    value = np.percentile(times_ns, percent) / 1e6
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"
