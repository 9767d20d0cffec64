"""The operator of a scenario: each step through the admin client, and a look at the model whether it is in force."""

from __future__ import annotations

import time

import gevent

from turnout_client.admin import AdminClient, Watch
from turnout_client.errors import AdminError
from turnout_locust.scenarios import ALL_BP, Action, LoadTestError, Step
from turnout_wire.gen import slots_pb2 as pb

_LOAD_S_MAX = 120.0
_SUMMARY_S_MAX = 10.0
_LOOK_S = 0.05
_REASON = "load test"


class Operator:
    """Changes `model` on the server at `admin`. `slot`: where `version` is loaded."""

    def __init__(self, admin: str, model: str, version: str, slot: str) -> None:
        self._client = AdminClient(admin)
        self._model, self._version, self._slot = model, version, slot
        self._live = ""
        self._watch: Watch[pb.ComparisonEvent] | None = None
        self._summaries: list[pb.ShadowSummary] = []

    def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._client.close()

    def look(self) -> pb.Model:
        return self._client.model(self._model)

    def clear(self) -> None:
        """Back to where a scenario begins, after one that ran on this server before: all traffic away from the slot,
        which is then empty.

        Raises:
            LoadTestError: nothing else can take the traffic.
            AdminError: the server refused.
        """
        model = self.look()
        if any(rule.slot == self._slot for rule in model.route.shadows):
            self._client.clear_shadow(pb.ClearShadowRequest(model=self._model, slot=self._slot))
        weights = {weight.slot: weight.weight_bp for weight in model.route.weights}
        if self._slot in weights:
            others = [each for each in (model.previous_slot, *weights) if each and each != self._slot]
            if not others:
                raise LoadTestError(f"slot '{self._slot}' has all traffic of model '{self._model}': choose another")
            self._client.swap(pb.SwapSlotsRequest(model=self._model, slot=others[0]))
        if any(each.name == self._slot and each.state != pb.SLOT_STATE_EMPTY for each in model.slots):
            request = pb.UnloadSlotRequest(model=self._model, slot=self._slot, wait=True, end_bake=True)
            self._client.unload(request, _LOAD_S_MAX)
        self._live = self.look().stable_slot

    def perform(self, step: Step) -> str:
        """Takes the step and checks that it is in force; what is in force then, in words.

        Raises:
            LoadTestError: it is not.
            AdminError: the server refused.
        """
        mutation = pb.Mutation(reason=f"{_REASON}: {step.title}")
        match step.action:
            case Action.LOAD:
                self._load(mutation)
            case Action.WEIGHTS:
                shares = {self._live: ALL_BP - step.share_bp, self._slot: step.share_bp}
                weights = [pb.SlotWeight(slot=slot, weight_bp=share) for slot, share in shares.items() if share]
                self._client.set_weights(pb.SetWeightsRequest(model=self._model, weights=weights, mutation=mutation))
                self._expect_weights(shares)
            case Action.SWAP:
                self._client.swap(pb.SwapSlotsRequest(model=self._model, slot=self._slot, mutation=mutation))
                self._expect_weights({self._slot: ALL_BP})
            case Action.ROLLBACK:
                self._client.rollback(pb.RollbackModelRequest(model=self._model, mutation=mutation))
                self._expect_weights({self._live: ALL_BP})
            case Action.SHADOW:
                self._listen()
                rule = pb.ShadowRule(slot=self._slot, sample_bp=step.share_bp)
                self._client.set_shadow(pb.SetShadowRequest(model=self._model, rule=rule, mutation=mutation))
                if self._slot not in {each.slot for each in self.look().route.shadows}:
                    raise LoadTestError(f"slot '{self._slot}' has no shadow rule after it was set")
            case Action.SHADOW_OFF:
                told = len(self._summaries)
                self._client.clear_shadow(pb.ClearShadowRequest(model=self._model, slot=self._slot, mutation=mutation))
                if self.look().route.shadows:
                    raise LoadTestError(f"slot '{self._slot}' still has a shadow rule")
                return self._shadowed(told)
            case Action.STORM | Action.CALM:
                return ""
        return traffic_of(self.look())

    def _load(self, mutation: pb.Mutation) -> None:
        request = pb.LoadSlotRequest(
            model=self._model,
            slot=self._slot,
            revision=pb.Revision(version=int(self._version)),
            wait=True,
            mutation=mutation,
        )
        self._client.load(request, _LOAD_S_MAX)
        found = [slot for slot in self.look().slots if slot.name == self._slot]
        if not found or found[0].state != pb.SLOT_STATE_READY or str(found[0].revision.version) != self._version:
            raise LoadTestError(f"slot '{self._slot}' does not hold version {self._version}, READY, after its load")

    def _expect_weights(self, shares: dict[str, int]) -> None:
        route = self.look().route
        got = {weight.slot: weight.weight_bp for weight in route.weights}
        if got != {slot: share for slot, share in shares.items() if share}:
            raise LoadTestError(f"the route has the weights {got}, wanted were {shares}")

    def _listen(self) -> None:
        """For what is told of copies, from before there are any."""
        watch = self._watch = self._client.watch_comparisons(self._model, self._slot)

        def hear() -> None:
            for event in watch:
                if event.HasField("summary"):
                    self._summaries.append(event.summary)

        gevent.spawn(hear)

    def _shadowed(self, told: int) -> str:
        """The last summary, which comes when a rule ends. `told`: how many there were before."""
        until = time.monotonic() + _SUMMARY_S_MAX
        while len(self._summaries) == told and time.monotonic() < until:
            gevent.sleep(_LOOK_S)
        total = self._summaries[-1].total if self._summaries else None
        if total is None or not total.pair_count:
            raise LoadTestError(f"no copy was compared, or none was told of within {_SUMMARY_S_MAX:g} s")
        return f"{total.pair_count} copies compared, {total.rate:.1%} agree"


def traffic_of(model: pb.Model) -> str:
    """Who has how much of a model's traffic, in words."""
    held = {slot.name: revision_text(slot.revision) for slot in model.slots}
    return ", ".join(
        f"{weight.slot} ({held.get(weight.slot, '?')}) {weight.weight_bp / 100:g} %" for weight in model.route.weights
    )


def revision_text(revision: pb.Revision) -> str:
    """As answers name it."""
    variant = f"@{revision.variant}" if revision.variant else ""
    return f"{revision.model}/{revision.version}{variant}"


def routed(model: pb.Model) -> tuple[str, ...]:
    """The revisions that have traffic."""
    weighted = {weight.slot for weight in model.route.weights if weight.weight_bp}
    return tuple(revision_text(slot.revision) for slot in model.slots if slot.name in weighted)


def ready(model: pb.Model) -> tuple[str, ...]:
    """The revisions that may get traffic by one change."""
    return tuple(revision_text(slot.revision) for slot in model.slots if slot.state == pb.SLOT_STATE_READY)


def keys_stick(model: pb.Model) -> bool:
    """Whether the users' keys decide: the route has no key of its own, no pins."""
    own = model.route.sticky_key
    return not (own.metadata_key or own.request_parameter or model.route.pins)


def said(error: AdminError | LoadTestError) -> str:
    """For the statistics."""
    return f"{error.reason or error.code}: {error}" if isinstance(error, AdminError) else str(error)
