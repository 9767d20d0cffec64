"""The 10000 buckets that a model's traffic falls into: who owns which, which one a key falls into, and how a split
becomes another while as few buckets as possible change hands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, TypeVar

BASIS_POINTS = 10_000

Owner = TypeVar("Owner")


@dataclass(frozen=True)  # no slots: typing marks instances of a named `Span[...]`, and trips over both together
class Span(Generic[Owner]):
    """The buckets from `start_bp` up to, not including, `end_bp`."""

    start_bp: int
    end_bp: int
    target: Owner


def salted(salt: str, purpose: str = "salt") -> bytes:
    """What `bucket_of` takes: a salt of any length as a key of blake2b, which takes at most 64 bytes. The same salt for
    another `purpose` (8 characters at most) spreads keys anew."""
    return blake2b(salt.encode(), digest_size=32, person=f"turnout-{purpose}".encode()).digest()


def bucket_of(salt: bytes, key: str) -> int:
    """The bucket of a sticky key, in [0, 10000): the same in every process, as long as the salt is.

    A keyed 64-bit hash, scaled by integers: buckets differ in size by less than one part in 10^15.
    """
    digest = blake2b(key.encode(errors="surrogatepass"), digest_size=8, key=salt).digest()
    return (int.from_bytes(digest, "big") * BASIS_POINTS) >> 64


def weights_of(spans: Sequence[Span[Owner]]) -> dict[Owner, int]:
    """Each owner's share in basis points, in the order of their first buckets."""
    weights: dict[Owner, int] = {}
    for span in spans:
        weights[span.target] = weights.get(span.target, 0) + span.end_bp - span.start_bp
    return weights


def laid_out(weights: Mapping[Owner, int]) -> tuple[Span[Owner], ...]:
    """The first split: owners side by side, in the order given. The weights add up to 10000."""
    spans, start = [], 0
    for owner, weight in weights.items():
        if weight:
            spans.append(Span(start, start + weight, owner))
            start += weight
    return tuple(spans)


def reweigh(spans: Sequence[Span[Owner]], weights: Mapping[Owner, int]) -> tuple[Span[Owner], ...]:
    """The split with these weights that is nearest to `spans`: who grows takes buckets from those who shrink, and no
    bucket moves between two others, so exactly the sum of what is grown changes hands.

    A growing canary takes the buckets that lie next to its own, and gives back the same ones when it shrinks, so a ramp
    up and down leaves few spans.

    Args:
        spans: cover all buckets, or are empty: then the split is laid out anew.
        weights: in basis points, not negative, adding up to 10000; who is not named gets nothing.
    """
    if not spans:
        return laid_out(weights)
    before = weights_of(spans)
    surplus = {owner: weight - weights.get(owner, 0) for owner, weight in before.items()}
    grown = {owner: weight - before.get(owner, 0) for owner, weight in weights.items()}
    kept: list[Span[Owner | None]] = []
    for owner_spans in _by_owner(spans).values():
        kept += _shrunk(owner_spans, surplus[owner_spans[0].target], _gives_high(owner_spans, spans, grown))
    first = {owner: next((s.start_bp for s in spans if s.target == owner), -1) for owner in grown}
    takers = sorted((owner for owner in grown if grown[owner] > 0), key=lambda owner: first[owner])
    return _merged(_dealt(sorted(kept, key=lambda span: span.start_bp), takers, grown))


def _by_owner(spans: Sequence[Span[Owner]]) -> dict[Owner, list[Span[Owner]]]:
    by_owner: dict[Owner, list[Span[Owner]]] = {}
    for span in spans:
        by_owner.setdefault(span.target, []).append(span)
    return by_owner


def _gives_high(own: Sequence[Span[Owner]], spans: Sequence[Span[Owner]], grown: Mapping[Owner, int]) -> bool:
    """Whether the buckets above its highest one go to somebody who grows."""
    return any(span.start_bp == own[-1].end_bp and grown.get(span.target, 0) > 0 for span in spans)


def _shrunk(own: Sequence[Span[Owner]], surplus: int, from_high: bool) -> list[Span[Owner | None]]:
    """An owner's spans, of which `surplus` buckets at one end are nobody's now."""
    out: list[Span[Owner | None]] = []
    for span in reversed(own) if from_high else own:
        given = min(max(surplus, 0), span.end_bp - span.start_bp)
        surplus -= given
        cut = span.end_bp - given if from_high else span.start_bp + given
        low, high = (span.target, None) if from_high else (None, span.target)
        out += [Span(span.start_bp, cut, low), Span(cut, span.end_bp, high)]
    return [span for span in out if span.start_bp < span.end_bp]


def _dealt(
    spans: Sequence[Span[Owner | None]], takers: Sequence[Owner], grown: Mapping[Owner, int]
) -> list[Span[Owner]]:
    """What is nobody's, given to the takers in order."""
    out: list[Span[Owner]] = []
    wants = [(owner, grown[owner]) for owner in reversed(takers)]
    for span in spans:
        if span.target is not None:
            out.append(Span(span.start_bp, span.end_bp, span.target))
            continue
        start = span.start_bp
        while start < span.end_bp:
            owner, want = wants.pop()
            taken = min(want, span.end_bp - start)
            out.append(Span(start, start + taken, owner))
            start += taken
            if want > taken:
                wants.append((owner, want - taken))
    return out


def _merged(spans: Sequence[Span[Owner]]) -> tuple[Span[Owner], ...]:
    out: list[Span[Owner]] = []
    for span in spans:
        if out and out[-1].target == span.target:
            out[-1] = Span(out[-1].start_bp, span.end_bp, span.target)
        else:
            out.append(span)
    return tuple(out)
