"""What to do about a refusal: one sentence for each reason that the admin API names. Computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from turnout_client.errors import AdminError

# {model} and {slot} are filled in where they are known.
NEXT_STEPS: Final[Mapping[str, str]] = {
    "ETAG_MISMATCH": "somebody changed it since: look with `turnoutctl status {model}`, then repeat with the new etag",
    "OPERATION_IN_PROGRESS": "wait until it has ended (`turnoutctl watch {model}`), then repeat; "
    "`turnoutctl unload {model} {slot}` calls off a load",
    "ETAG_REQUIRED": "this server wants to know what you saw: `turnoutctl status {model}` shows the etags, "
    "give one with --etag",
    "REQUEST_ID_REUSED": "repeat it word for word, or leave --request-id out for a new one",
    "INVALID_SPEC": "correct what is named above; `turnoutctl COMMAND --help` says what is allowed",
    "INVALID_REQUEST": "correct what is named above; if you did not write it, turnoutctl and the server may be of "
    "different versions",
    "MODEL_NOT_FOUND": "`turnoutctl status` lists the models; `turnoutctl load` brings in a new one",
    "SLOT_NOT_FOUND": "`turnoutctl status {model}` lists its slots; `turnoutctl load` makes one",
    "REVISION_NOT_FOUND": "put its files into the model repository of this server, or name a version that is there",
    "SLOT_ROUTED": "move its traffic first: `turnoutctl swap {model} OTHER-SLOT` or `turnoutctl weights {model} ...` "
    "(its pins: --no-pins); to replace it where it is, --accept-outage",
    "SLOT_OCCUPIED": "load into another slot, or give --replace; `turnoutctl unload {model} {slot}` empties it",
    "SLOT_NOT_READY": "`turnoutctl status {model}` says why; load it first: `turnoutctl load {model} {slot} REVISION`",
    "ROLLBACK_TARGET_UNLOADED": "name a READY slot: `turnoutctl rollback {model} SLOT`, or give --allow-reload, "
    "which takes as long as a load",
    "GATE_FAILED": "the revision is not fit to serve, and was not let in: correct the model, or what the gate compares "
    "it with",
    "SIGNATURE_MISMATCH": "if clients are ready for other tensors, give --allow-signature-change",
    "MANIFEST_MISMATCH": "the files are damaged or were changed: copy them again, or write SHA256SUMS anew",
    "DIGEST_MISMATCH": "give changed files a version of their own; `turnout manifest` prints the digests",
    "VARIANT_REFUSED": "`turnoutctl revisions {model}` says what stands; to load it all the same, and have that in the "
    "journal, give --force --reason WHY",
    "SLOT_MEMORY": "make room: `turnoutctl unload` a slot that is named above, or replace in place: "
    "load --replace (--accept-outage if it has traffic)",
    "STATE_STORE": "requests are served as before; see to the server's state directory (disk full? permissions?), "
    "then repeat",
    "TOKEN_EXPIRED": "start watching again, without a resume token",
    "STOPPING": "this server stops: ask the one that takes its place, or wait until it is back",
    "INTERNAL": "this is a fault of the server: its log has the details under the error id",
}
# SLOT_ROUTED with metadata sample_bp: it has no traffic, and gets copies.
SHADOWED: Final = "no more copies for it: `turnoutctl shadow clear {model} {slot}`"
# SLOT_ROUTED with metadata bake_until_ns: it has no traffic, and is kept for a rollback.
HELD: Final = "wait for the end of the bake (`turnoutctl status {model}`), or give the rollback up with --end-bake"
# Of turnoutctl itself: comparisons are watched where no slot gets copies.
NO_SHADOW_RULE: Final = "NO_SHADOW_RULE"
SET_SHADOW: Final = "`turnoutctl shadow set {model} {slot}` sends a READY slot copies of requests"
UNREACHABLE: Final = "is the server there, and is this its admin port? see `turnout serve --help`, --admin-port"
NO_ANSWER: Final = (
    "it may have been carried out all the same: look with `turnoutctl status {model}`; repeating it with "
    "--request-id {request_id} does nothing twice"
)
NOT_TURNOUT: Final = "is this the admin port? the inference service is on another one"


def next_step(error: AdminError, **known: str) -> str:
    """What to do now; "" where nothing is known that helps."""
    names = _Names({**error.metadata, **{name: text for name, text in known.items() if text}})
    if error.reason == "SLOT_ROUTED" and "bake_until_ns" in error.metadata:
        sentence = HELD
    elif error.reason == "SLOT_ROUTED" and "sample_bp" in error.metadata:
        sentence = SHADOWED
    elif error.reason == NO_SHADOW_RULE:
        sentence = SET_SHADOW
    elif error.reason:
        sentence = NEXT_STEPS.get(error.reason, "")
    elif error.code == "UNAVAILABLE":
        sentence = UNREACHABLE
    elif error.code == "DEADLINE_EXCEEDED":
        sentence = NO_ANSWER if names.get("request_id") else "give it longer with --timeout"
    else:
        sentence = NOT_TURNOUT if error.code == "UNIMPLEMENTED" else ""
    return " ".join(sentence.format_map(names).split())


class _Names(dict[str, str]):
    """A name that is not known shows as a placeholder."""

    def __missing__(self, key: str) -> str:
        return key.upper()
