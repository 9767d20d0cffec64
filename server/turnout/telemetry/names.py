"""The names of spans, events and their attributes, once. Metrics have theirs in `instruments`."""

from __future__ import annotations

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SCOPE = "turnout"

SERVICE = "inference.GRPCInferenceService/"  # before a method: the name of a server span, and its rpc.method
QUEUE_SPAN = "turnout.queue"
COMPUTE_SPAN = "turnout.compute"
BATCH_SPAN = "turnout.batch"
SHADOW_SPAN = "turnout.shadow.infer"

SLOT_EVENT = "turnout.transition"
JOURNAL_EVENT = "turnout.rollout.transition"
COMPARISON_EVENT = "turnout.shadow.comparison"
SUMMARY_EVENT = "turnout.shadow.summary"

RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"
ERROR_TYPE = "error.type"

FLAG_KEY = "feature_flag.key"
FLAG_PROVIDER = "feature_flag.provider.name"
FLAG_VARIANT = "feature_flag.result.variant"
FLAG_REASON = "feature_flag.result.reason"
FLAG_VERSION = "feature_flag.version"

INFERENCE_ID = "turnout.inference.id"
CAPTURE = "turnout.capture"  # slow failed: why a request is traced that was not sampled
BATCH_ROWS = "turnout.batch.rows"
BATCH_REQUESTS = "turnout.batch.requests"
COMPUTE_INPUT = "turnout.compute.input.duration"  # seconds, as all durations here
COMPUTE_INFER = "turnout.compute.infer.duration"
COMPUTE_OUTPUT = "turnout.compute.output.duration"
# Of a span link: batch_of (a batch's request), in_batch (a request's batch), shadow_of or noise_of (a copy's request).
LINK_KIND = "turnout.link.kind"
COMPARISON_KIND = "turnout.comparison.kind"
COMPARISON_RESULT = "turnout.comparison.result"

DIGEST = "turnout.revision.digest"
SLOT_REASON = "turnout.transition.reason"
TRANSITION_SEQ = "turnout.transition.seq"
TRANSITION_OBJECT = "turnout.transition.object"
TRANSITION_FROM = "turnout.transition.from"
TRANSITION_TO = "turnout.transition.to"
TRANSITION_ACTOR = "turnout.transition.actor"
TRANSITION_CAUSE = "turnout.transition.cause"
REQUEST_ID = "turnout.request.id"
GENERATION = "turnout.route.generation"
