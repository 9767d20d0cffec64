"""Models as tables of at most 80 columns. Computes nothing but differences of two readings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from turnout_client.desired import RevisionSpec, Sticky, pins_of, sticky_of, weights_of
from turnout_client.plan import pins_text, split, state_name, sticky_text
from turnout_client.shadows import shadows_of
from turnout_client.written import percent
from turnout_wire.gen import slots_pb2 as pb

NOTHING = "-"
_STATES = {pb.SLOT_STATE_READY: "green", pb.SLOT_STATE_FAILED: "red", pb.SLOT_STATE_EMPTY: "dim"}
_HEALTH = {pb.HEALTH_HEALTHY: "green", pb.HEALTH_DEGRADED: "red"}


def plain_table(*headings: str) -> Table:
    """Without lines; a heading that begins with > stands over numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        if heading.startswith(">"):
            table.add_column(heading[1:], justify="right", no_wrap=True)
        else:
            table.add_column(heading, overflow="fold")
    return table


def models(now: Sequence[pb.Model], before: Sequence[pb.Model] = ()) -> RenderableType:
    """Each model under a line of its own. With an earlier reading, also requests per second."""
    earlier = {model.name: model for model in before}
    parts: list[RenderableType] = []
    for model in now:
        parts += [Text(), *_model(model, earlier.get(model.name))]
    return Group(*parts[1:]) if parts else Text("no models")


def _model(model: pb.Model, before: pb.Model | None) -> Iterable[RenderableType]:
    health = pb.Health.Name(model.health).removeprefix("HEALTH_")
    line = Text.assemble((printable(model.name), "bold"), "  ", (health, _HEALTH.get(model.health, "yellow")))
    if model.HasField("route"):
        line.append(f"  generation {model.route.generation}")
    for role in ("stable", "candidate", "previous"):
        if slot := getattr(model, f"{role}_slot"):
            line.append(f"  {role} {slot}")
    yield line
    if model.HasField("bake_until"):
        yield Text(f"  {model.previous_slot} is kept for a rollback until {clock(model.bake_until)}")
    if model.message:
        yield Text(f"  {printable(model.message)}", "yellow")
    if sticky_of(model) != Sticky():
        yield Text(f"  sticky key: {sticky_text(sticky_of(model))}")
    if model.route.pins:
        yield Text(f"  pins: {pins_text(pins_of(model))}")
    for slot_name, rule in shadows_of(model).items():
        yield Text(f"  shadow {printable(slot_name)}: {printable(rule.brief())}")
    if model.slots:
        yield _slots(model, before)
    for slot in model.slots:
        if slot.message:
            yield Text(f"  {slot.name}: {printable(slot.message)}", "yellow")


def _slots(model: pb.Model, before: pb.Model | None) -> Table:
    table = plain_table("slot", "holds", "state", ">wanted", ">seen", ">req/s", ">p50", ">p99", ">errors", ">etag")
    rates = rates_per_s(model, before)
    wanted = {weight.slot: weight.weight_bp for weight in model.route.weights}
    seen = {weight.slot: weight.actual_bp for weight in model.weights}
    for slot in model.slots:
        rate = rates.get(slot.name)
        table.add_row(
            printable(slot.name),
            holds(slot),
            Text(state_name(slot) + (" *" if slot.held else ""), _STATES.get(slot.state, "yellow")),
            percent(wanted[slot.name]) if wanted.get(slot.name) else NOTHING,
            share(seen.get(slot.name, -1)),
            NOTHING if rate is None else f"{rate:,.0f}",
            *latencies(slot),
            f"{slot.routed.errors + slot.pinned.errors:,}",
            slot.etag,
        )
    return table


def rates_per_s(now: pb.Model, before: pb.Model | None) -> dict[str, float]:
    """Requests per second of each slot between two readings; without those that were filled anew in between."""
    if before is None:
        return {}
    elapsed_s = (now.read_time.ToNanoseconds() - before.read_time.ToNanoseconds()) / 1e9
    if elapsed_s <= 0:
        return {}
    earlier = {slot.name: slot for slot in before.slots}
    found = {}
    for slot in now.slots:
        was = earlier.get(slot.name)
        if was is not None and was.digest == slot.digest and (more := requests(slot) - requests(was)) >= 0:
            found[slot.name] = more / elapsed_s
    return found


def requests(slot: pb.SlotStatus) -> int:
    return slot.routed.requests + slot.pinned.requests


def latencies(slot: pb.SlotStatus) -> tuple[str, str]:
    """p50 and p99 of what routing sent here; where it sent nothing, of what pinned the slot."""
    counts = slot.routed if slot.routed.HasField("latency_p50") else slot.pinned
    if not counts.HasField("latency_p50"):
        return NOTHING, NOTHING
    return milliseconds(counts.latency_p50), milliseconds(counts.latency_p99)


def milliseconds(duration: Duration) -> str:
    value = duration.ToNanoseconds() / 1e6
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def share(share_bp: int) -> str:
    return NOTHING if share_bp < 0 else f"{share_bp / 100:.1f} %"


def holds(slot: pb.SlotStatus) -> str:
    """A revision without its model, which stands above."""
    if not slot.revision.version:
        return NOTHING
    return RevisionSpec(slot.revision.version, slot.revision.variant).text("").removeprefix("/")


def transitions(found: Sequence[pb.Transition], several_models: bool) -> RenderableType:
    """Newest first: a line for what happened, one below for who and why."""
    if not found:
        return Text("nothing was changed")
    parts: list[RenderableType] = []
    for each in found:
        where = f"{each.model} {each.object}" if several_models else each.object
        before, after = each.from_state or NOTHING, each.to_state or NOTHING
        parts.append(
            Text.assemble(
                (f"{each.seq:>5}  ", "dim"),
                clock(each.time, day=True),
                "  ",
                (printable(where), "bold"),
                f"  {printable(before)} → {printable(after)}",
            )
        )
        who = f"       {each.cause} by {printable(each.actor)}, generation {each.generation}"
        parts.append(Text(who + (f": {printable(each.reason)}" if each.reason else ""), "dim"))
    return Group(*parts)


def weights_line(model: pb.Model) -> str:
    return split(weights_of(model)) if weights_of(model) else "no traffic"


def side_by_side(rows: Mapping[str, RenderableType]) -> RenderableType:
    """What each server says, under its endpoint."""
    parts: list[RenderableType] = []
    for endpoint, content in rows.items():
        parts += [Text(), Text(endpoint, "bold underline"), content]
    return Group(*parts[1:])


def clock(stamp: Timestamp, day: bool = False) -> str:
    """In the reader's time zone."""
    local = datetime.fromtimestamp(stamp.ToNanoseconds() / 1e9, UTC).astimezone()
    return local.strftime("%m-%d %H:%M:%S" if day else "%H:%M:%S")


def printable(text: str) -> str:
    """What a server says cannot act on the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
