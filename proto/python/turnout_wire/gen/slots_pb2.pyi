import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SlotState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SLOT_STATE_UNSPECIFIED: _ClassVar[SlotState]
    SLOT_STATE_EMPTY: _ClassVar[SlotState]
    SLOT_STATE_LOADING: _ClassVar[SlotState]
    SLOT_STATE_WARMING: _ClassVar[SlotState]
    SLOT_STATE_READY: _ClassVar[SlotState]
    SLOT_STATE_DRAINING: _ClassVar[SlotState]
    SLOT_STATE_FAILED: _ClassVar[SlotState]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_PENDING: _ClassVar[Verdict]
    VERDICT_PASS: _ClassVar[Verdict]
    VERDICT_FAIL: _ClassVar[Verdict]
    VERDICT_INCONCLUSIVE: _ClassVar[Verdict]
    VERDICT_ERROR: _ClassVar[Verdict]

class ComparisonMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPARISON_METHOD_UNSPECIFIED: _ClassVar[ComparisonMethod]
    COMPARISON_METHOD_EXACT: _ClassVar[ComparisonMethod]
    COMPARISON_METHOD_ALLCLOSE: _ClassVar[ComparisonMethod]
    COMPARISON_METHOD_ARGMAX: _ClassVar[ComparisonMethod]
    COMPARISON_METHOD_TOPK: _ClassVar[ComparisonMethod]
    COMPARISON_METHOD_COSINE: _ClassVar[ComparisonMethod]
    COMPARISON_METHOD_JS: _ClassVar[ComparisonMethod]

class Health(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEALTH_UNSPECIFIED: _ClassVar[Health]
    HEALTH_HEALTHY: _ClassVar[Health]
    HEALTH_PROGRESSING: _ClassVar[Health]
    HEALTH_PAUSED: _ClassVar[Health]
    HEALTH_DEGRADED: _ClassVar[Health]

class ModelEventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_EVENT_TYPE_UNSPECIFIED: _ClassVar[ModelEventType]
    MODEL_EVENT_TYPE_INITIAL: _ClassVar[ModelEventType]
    MODEL_EVENT_TYPE_SYNCED: _ClassVar[ModelEventType]
    MODEL_EVENT_TYPE_SLOT: _ClassVar[ModelEventType]
    MODEL_EVENT_TYPE_ROUTE: _ClassVar[ModelEventType]

class ComparisonKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPARISON_KIND_UNSPECIFIED: _ClassVar[ComparisonKind]
    COMPARISON_KIND_SHADOW: _ClassVar[ComparisonKind]
    COMPARISON_KIND_NOISE: _ClassVar[ComparisonKind]

class ComparisonResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPARISON_RESULT_UNSPECIFIED: _ClassVar[ComparisonResult]
    COMPARISON_RESULT_MATCH: _ClassVar[ComparisonResult]
    COMPARISON_RESULT_MISMATCH: _ClassVar[ComparisonResult]
    COMPARISON_RESULT_NEAR_TIE: _ClassVar[ComparisonResult]
    COMPARISON_RESULT_SHAPE: _ClassVar[ComparisonResult]
    COMPARISON_RESULT_LIVE_ERROR: _ClassVar[ComparisonResult]
    COMPARISON_RESULT_SHADOW_ERROR: _ClassVar[ComparisonResult]
    COMPARISON_RESULT_BOTH_ERROR: _ClassVar[ComparisonResult]

class SamplingRule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAMPLING_RULE_UNSPECIFIED: _ClassVar[SamplingRule]
    SAMPLING_RULE_MISMATCH: _ClassVar[SamplingRule]
    SAMPLING_RULE_MATCH_SAMPLE: _ClassVar[SamplingRule]
    SAMPLING_RULE_TOP_DISTANCE: _ClassVar[SamplingRule]
SLOT_STATE_UNSPECIFIED: SlotState
SLOT_STATE_EMPTY: SlotState
SLOT_STATE_LOADING: SlotState
SLOT_STATE_WARMING: SlotState
SLOT_STATE_READY: SlotState
SLOT_STATE_DRAINING: SlotState
SLOT_STATE_FAILED: SlotState
VERDICT_UNSPECIFIED: Verdict
VERDICT_PENDING: Verdict
VERDICT_PASS: Verdict
VERDICT_FAIL: Verdict
VERDICT_INCONCLUSIVE: Verdict
VERDICT_ERROR: Verdict
COMPARISON_METHOD_UNSPECIFIED: ComparisonMethod
COMPARISON_METHOD_EXACT: ComparisonMethod
COMPARISON_METHOD_ALLCLOSE: ComparisonMethod
COMPARISON_METHOD_ARGMAX: ComparisonMethod
COMPARISON_METHOD_TOPK: ComparisonMethod
COMPARISON_METHOD_COSINE: ComparisonMethod
COMPARISON_METHOD_JS: ComparisonMethod
HEALTH_UNSPECIFIED: Health
HEALTH_HEALTHY: Health
HEALTH_PROGRESSING: Health
HEALTH_PAUSED: Health
HEALTH_DEGRADED: Health
MODEL_EVENT_TYPE_UNSPECIFIED: ModelEventType
MODEL_EVENT_TYPE_INITIAL: ModelEventType
MODEL_EVENT_TYPE_SYNCED: ModelEventType
MODEL_EVENT_TYPE_SLOT: ModelEventType
MODEL_EVENT_TYPE_ROUTE: ModelEventType
COMPARISON_KIND_UNSPECIFIED: ComparisonKind
COMPARISON_KIND_SHADOW: ComparisonKind
COMPARISON_KIND_NOISE: ComparisonKind
COMPARISON_RESULT_UNSPECIFIED: ComparisonResult
COMPARISON_RESULT_MATCH: ComparisonResult
COMPARISON_RESULT_MISMATCH: ComparisonResult
COMPARISON_RESULT_NEAR_TIE: ComparisonResult
COMPARISON_RESULT_SHAPE: ComparisonResult
COMPARISON_RESULT_LIVE_ERROR: ComparisonResult
COMPARISON_RESULT_SHADOW_ERROR: ComparisonResult
COMPARISON_RESULT_BOTH_ERROR: ComparisonResult
SAMPLING_RULE_UNSPECIFIED: SamplingRule
SAMPLING_RULE_MISMATCH: SamplingRule
SAMPLING_RULE_MATCH_SAMPLE: SamplingRule
SAMPLING_RULE_TOP_DISTANCE: SamplingRule

class Mutation(_message.Message):
    __slots__ = ("etag", "request_id", "validate_only", "reason")
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    etag: str
    request_id: str
    validate_only: bool
    reason: str
    def __init__(self, etag: _Optional[str] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class Revision(_message.Message):
    __slots__ = ("model", "version", "variant")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    variant: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., variant: _Optional[str] = ...) -> None: ...

class SlotStatus(_message.Message):
    __slots__ = ("name", "state", "revision", "digest", "memory_bytes", "leases", "state_time", "message", "etag", "gates", "providers", "batch_rows_max", "queued_rows", "routed", "pinned", "held", "forced")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    STATE_TIME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    PROVIDERS_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_MAX_FIELD_NUMBER: _ClassVar[int]
    QUEUED_ROWS_FIELD_NUMBER: _ClassVar[int]
    ROUTED_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    FORCED_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: SlotState
    revision: Revision
    digest: str
    memory_bytes: int
    leases: int
    state_time: _timestamp_pb2.Timestamp
    message: str
    etag: str
    gates: _containers.RepeatedCompositeFieldContainer[GateResult]
    providers: _containers.RepeatedScalarFieldContainer[str]
    batch_rows_max: int
    queued_rows: int
    routed: Counts
    pinned: Counts
    held: bool
    forced: str
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[SlotState, str]] = ..., revision: _Optional[_Union[Revision, _Mapping]] = ..., digest: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., leases: _Optional[int] = ..., state_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., message: _Optional[str] = ..., etag: _Optional[str] = ..., gates: _Optional[_Iterable[_Union[GateResult, _Mapping]]] = ..., providers: _Optional[_Iterable[str]] = ..., batch_rows_max: _Optional[int] = ..., queued_rows: _Optional[int] = ..., routed: _Optional[_Union[Counts, _Mapping]] = ..., pinned: _Optional[_Union[Counts, _Mapping]] = ..., held: _Optional[bool] = ..., forced: _Optional[str] = ...) -> None: ...

class Counts(_message.Message):
    __slots__ = ("requests", "successes", "errors", "rejected", "invalid", "cancelled", "latency_p50", "latency_p99")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    SUCCESSES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    INVALID_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P50_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P99_FIELD_NUMBER: _ClassVar[int]
    requests: int
    successes: int
    errors: int
    rejected: int
    invalid: int
    cancelled: int
    latency_p50: _duration_pb2.Duration
    latency_p99: _duration_pb2.Duration
    def __init__(self, requests: _Optional[int] = ..., successes: _Optional[int] = ..., errors: _Optional[int] = ..., rejected: _Optional[int] = ..., invalid: _Optional[int] = ..., cancelled: _Optional[int] = ..., latency_p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., latency_p99: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GateResult(_message.Message):
    __slots__ = ("gate", "verdict", "observed", "limit", "message")
    GATE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    gate: str
    verdict: Verdict
    observed: float
    limit: float
    message: str
    def __init__(self, gate: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., observed: _Optional[float] = ..., limit: _Optional[float] = ..., message: _Optional[str] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("generation", "weights", "sticky_key", "pins", "shadows", "etag", "intervals")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    STICKY_KEY_FIELD_NUMBER: _ClassVar[int]
    PINS_FIELD_NUMBER: _ClassVar[int]
    SHADOWS_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    INTERVALS_FIELD_NUMBER: _ClassVar[int]
    generation: int
    weights: _containers.RepeatedCompositeFieldContainer[SlotWeight]
    sticky_key: StickyKey
    pins: _containers.RepeatedCompositeFieldContainer[Pin]
    shadows: _containers.RepeatedCompositeFieldContainer[ShadowRule]
    etag: str
    intervals: _containers.RepeatedCompositeFieldContainer[Interval]
    def __init__(self, generation: _Optional[int] = ..., weights: _Optional[_Iterable[_Union[SlotWeight, _Mapping]]] = ..., sticky_key: _Optional[_Union[StickyKey, _Mapping]] = ..., pins: _Optional[_Iterable[_Union[Pin, _Mapping]]] = ..., shadows: _Optional[_Iterable[_Union[ShadowRule, _Mapping]]] = ..., etag: _Optional[str] = ..., intervals: _Optional[_Iterable[_Union[Interval, _Mapping]]] = ...) -> None: ...

class SlotWeight(_message.Message):
    __slots__ = ("slot", "weight_bp")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BP_FIELD_NUMBER: _ClassVar[int]
    slot: str
    weight_bp: int
    def __init__(self, slot: _Optional[str] = ..., weight_bp: _Optional[int] = ...) -> None: ...

class Interval(_message.Message):
    __slots__ = ("start_bp", "end_bp", "slot")
    START_BP_FIELD_NUMBER: _ClassVar[int]
    END_BP_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    start_bp: int
    end_bp: int
    slot: str
    def __init__(self, start_bp: _Optional[int] = ..., end_bp: _Optional[int] = ..., slot: _Optional[str] = ...) -> None: ...

class StickyKey(_message.Message):
    __slots__ = ("metadata_key", "request_parameter", "salt")
    METADATA_KEY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_PARAMETER_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    metadata_key: str
    request_parameter: str
    salt: str
    def __init__(self, metadata_key: _Optional[str] = ..., request_parameter: _Optional[str] = ..., salt: _Optional[str] = ...) -> None: ...

class Pin(_message.Message):
    __slots__ = ("metadata_key", "value", "slot")
    METADATA_KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    metadata_key: str
    value: str
    slot: str
    def __init__(self, metadata_key: _Optional[str] = ..., value: _Optional[str] = ..., slot: _Optional[str] = ...) -> None: ...

class ShadowRule(_message.Message):
    __slots__ = ("slot", "sample_bp", "salt", "comparators", "queue_max", "bytes_max", "deadline", "noise_bp")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_BP_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    COMPARATORS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MAX_FIELD_NUMBER: _ClassVar[int]
    BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    NOISE_BP_FIELD_NUMBER: _ClassVar[int]
    slot: str
    sample_bp: int
    salt: str
    comparators: _containers.RepeatedCompositeFieldContainer[Comparator]
    queue_max: int
    bytes_max: int
    deadline: _duration_pb2.Duration
    noise_bp: int
    def __init__(self, slot: _Optional[str] = ..., sample_bp: _Optional[int] = ..., salt: _Optional[str] = ..., comparators: _Optional[_Iterable[_Union[Comparator, _Mapping]]] = ..., queue_max: _Optional[int] = ..., bytes_max: _Optional[int] = ..., deadline: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., noise_bp: _Optional[int] = ...) -> None: ...

class Comparator(_message.Message):
    __slots__ = ("output", "method", "atol", "rtol", "threshold", "k", "near_tie")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ATOL_FIELD_NUMBER: _ClassVar[int]
    RTOL_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    NEAR_TIE_FIELD_NUMBER: _ClassVar[int]
    output: str
    method: ComparisonMethod
    atol: float
    rtol: float
    threshold: float
    k: int
    near_tie: float
    def __init__(self, output: _Optional[str] = ..., method: _Optional[_Union[ComparisonMethod, str]] = ..., atol: _Optional[float] = ..., rtol: _Optional[float] = ..., threshold: _Optional[float] = ..., k: _Optional[int] = ..., near_tie: _Optional[float] = ...) -> None: ...

class ObservedWeight(_message.Message):
    __slots__ = ("slot", "weight_bp", "actual_bp", "requests")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BP_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_BP_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    slot: str
    weight_bp: int
    actual_bp: int
    requests: int
    def __init__(self, slot: _Optional[str] = ..., weight_bp: _Optional[int] = ..., actual_bp: _Optional[int] = ..., requests: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "health", "message", "route", "slots", "stable_slot", "previous_slot", "active_rollout", "bake_until", "weights", "candidate_slot", "read_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    STABLE_SLOT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_SLOT_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    BAKE_UNTIL_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_SLOT_FIELD_NUMBER: _ClassVar[int]
    READ_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    health: Health
    message: str
    route: Route
    slots: _containers.RepeatedCompositeFieldContainer[SlotStatus]
    stable_slot: str
    previous_slot: str
    active_rollout: str
    bake_until: _timestamp_pb2.Timestamp
    weights: _containers.RepeatedCompositeFieldContainer[ObservedWeight]
    candidate_slot: str
    read_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., health: _Optional[_Union[Health, str]] = ..., message: _Optional[str] = ..., route: _Optional[_Union[Route, _Mapping]] = ..., slots: _Optional[_Iterable[_Union[SlotStatus, _Mapping]]] = ..., stable_slot: _Optional[str] = ..., previous_slot: _Optional[str] = ..., active_rollout: _Optional[str] = ..., bake_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., weights: _Optional[_Iterable[_Union[ObservedWeight, _Mapping]]] = ..., candidate_slot: _Optional[str] = ..., read_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Transition(_message.Message):
    __slots__ = ("seq", "time", "model", "object", "from_state", "to_state", "actor", "reason", "cause", "request_id", "generation")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    FROM_STATE_FIELD_NUMBER: _ClassVar[int]
    TO_STATE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    seq: int
    time: _timestamp_pb2.Timestamp
    model: str
    object: str
    from_state: str
    to_state: str
    actor: str
    reason: str
    cause: str
    request_id: str
    generation: int
    def __init__(self, seq: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., model: _Optional[str] = ..., object: _Optional[str] = ..., from_state: _Optional[str] = ..., to_state: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., cause: _Optional[str] = ..., request_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class ModelEvent(_message.Message):
    __slots__ = ("resume_token", "event_type", "model", "transition")
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TRANSITION_FIELD_NUMBER: _ClassVar[int]
    resume_token: str
    event_type: ModelEventType
    model: Model
    transition: Transition
    def __init__(self, resume_token: _Optional[str] = ..., event_type: _Optional[_Union[ModelEventType, str]] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., transition: _Optional[_Union[Transition, _Mapping]] = ...) -> None: ...

class LoadSlotRequest(_message.Message):
    __slots__ = ("model", "slot", "revision", "wait", "replace", "allow_signature_change", "digest", "accept_outage", "end_bake", "force", "mutation")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    ALLOW_SIGNATURE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_OUTAGE_FIELD_NUMBER: _ClassVar[int]
    END_BAKE_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    MUTATION_FIELD_NUMBER: _ClassVar[int]
    model: str
    slot: str
    revision: Revision
    wait: bool
    replace: bool
    allow_signature_change: bool
    digest: str
    accept_outage: bool
    end_bake: bool
    force: bool
    mutation: Mutation
    def __init__(self, model: _Optional[str] = ..., slot: _Optional[str] = ..., revision: _Optional[_Union[Revision, _Mapping]] = ..., wait: _Optional[bool] = ..., replace: _Optional[bool] = ..., allow_signature_change: _Optional[bool] = ..., digest: _Optional[str] = ..., accept_outage: _Optional[bool] = ..., end_bake: _Optional[bool] = ..., force: _Optional[bool] = ..., mutation: _Optional[_Union[Mutation, _Mapping]] = ...) -> None: ...

class LoadSlotResponse(_message.Message):
    __slots__ = ("model", "cost")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    model: Model
    cost: ReplaceCost
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., cost: _Optional[_Union[ReplaceCost, _Mapping]] = ...) -> None: ...

class ReplaceCost(_message.Message):
    __slots__ = ("share_bp", "leases", "last_load", "memory_bytes")
    SHARE_BP_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    LAST_LOAD_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    share_bp: int
    leases: int
    last_load: _duration_pb2.Duration
    memory_bytes: int
    def __init__(self, share_bp: _Optional[int] = ..., leases: _Optional[int] = ..., last_load: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class UnloadSlotRequest(_message.Message):
    __slots__ = ("model", "slot", "wait", "end_bake", "mutation")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    END_BAKE_FIELD_NUMBER: _ClassVar[int]
    MUTATION_FIELD_NUMBER: _ClassVar[int]
    model: str
    slot: str
    wait: bool
    end_bake: bool
    mutation: Mutation
    def __init__(self, model: _Optional[str] = ..., slot: _Optional[str] = ..., wait: _Optional[bool] = ..., end_bake: _Optional[bool] = ..., mutation: _Optional[_Union[Mutation, _Mapping]] = ...) -> None: ...

class UnloadSlotResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class SwapSlotsRequest(_message.Message):
    __slots__ = ("model", "slot", "bake", "mutation")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    BAKE_FIELD_NUMBER: _ClassVar[int]
    MUTATION_FIELD_NUMBER: _ClassVar[int]
    model: str
    slot: str
    bake: _duration_pb2.Duration
    mutation: Mutation
    def __init__(self, model: _Optional[str] = ..., slot: _Optional[str] = ..., bake: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., mutation: _Optional[_Union[Mutation, _Mapping]] = ...) -> None: ...

class SwapSlotsResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class RollbackModelRequest(_message.Message):
    __slots__ = ("model", "slot", "allow_reload", "mutation")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    ALLOW_RELOAD_FIELD_NUMBER: _ClassVar[int]
    MUTATION_FIELD_NUMBER: _ClassVar[int]
    model: str
    slot: str
    allow_reload: bool
    mutation: Mutation
    def __init__(self, model: _Optional[str] = ..., slot: _Optional[str] = ..., allow_reload: _Optional[bool] = ..., mutation: _Optional[_Union[Mutation, _Mapping]] = ...) -> None: ...

class RollbackModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class SetWeightsRequest(_message.Message):
    __slots__ = ("model", "weights", "sticky_key", "pins", "set_pins", "mutation")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    STICKY_KEY_FIELD_NUMBER: _ClassVar[int]
    PINS_FIELD_NUMBER: _ClassVar[int]
    SET_PINS_FIELD_NUMBER: _ClassVar[int]
    MUTATION_FIELD_NUMBER: _ClassVar[int]
    model: str
    weights: _containers.RepeatedCompositeFieldContainer[SlotWeight]
    sticky_key: StickyKey
    pins: _containers.RepeatedCompositeFieldContainer[Pin]
    set_pins: bool
    mutation: Mutation
    def __init__(self, model: _Optional[str] = ..., weights: _Optional[_Iterable[_Union[SlotWeight, _Mapping]]] = ..., sticky_key: _Optional[_Union[StickyKey, _Mapping]] = ..., pins: _Optional[_Iterable[_Union[Pin, _Mapping]]] = ..., set_pins: _Optional[bool] = ..., mutation: _Optional[_Union[Mutation, _Mapping]] = ...) -> None: ...

class SetWeightsResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class SetShadowRequest(_message.Message):
    __slots__ = ("model", "rule", "mutation")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    MUTATION_FIELD_NUMBER: _ClassVar[int]
    model: str
    rule: ShadowRule
    mutation: Mutation
    def __init__(self, model: _Optional[str] = ..., rule: _Optional[_Union[ShadowRule, _Mapping]] = ..., mutation: _Optional[_Union[Mutation, _Mapping]] = ...) -> None: ...

class SetShadowResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ClearShadowRequest(_message.Message):
    __slots__ = ("model", "slot", "mutation")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    MUTATION_FIELD_NUMBER: _ClassVar[int]
    model: str
    slot: str
    mutation: Mutation
    def __init__(self, model: _Optional[str] = ..., slot: _Optional[str] = ..., mutation: _Optional[_Union[Mutation, _Mapping]] = ...) -> None: ...

class ClearShadowResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model", "available")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    model: str
    available: bool
    def __init__(self, model: _Optional[str] = ..., available: _Optional[bool] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model", "available")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    model: Model
    available: _containers.RepeatedCompositeFieldContainer[AvailableRevision]
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., available: _Optional[_Iterable[_Union[AvailableRevision, _Mapping]]] = ...) -> None: ...

class AvailableRevision(_message.Message):
    __slots__ = ("revision", "digest", "size_bytes", "problem", "doubts", "report")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    DOUBTS_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    revision: Revision
    digest: str
    size_bytes: int
    problem: str
    doubts: _containers.RepeatedScalarFieldContainer[str]
    report: VariantSummary
    def __init__(self, revision: _Optional[_Union[Revision, _Mapping]] = ..., digest: _Optional[str] = ..., size_bytes: _Optional[int] = ..., problem: _Optional[str] = ..., doubts: _Optional[_Iterable[str]] = ..., report: _Optional[_Union[VariantSummary, _Mapping]] = ...) -> None: ...

class VariantSummary(_message.Message):
    __slots__ = ("agreement", "error_relative_max", "size_ratio", "rows", "created_at")
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    ERROR_RELATIVE_MAX_FIELD_NUMBER: _ClassVar[int]
    SIZE_RATIO_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    agreement: float
    error_relative_max: float
    size_ratio: float
    rows: int
    created_at: str
    def __init__(self, agreement: _Optional[float] = ..., error_relative_max: _Optional[float] = ..., size_ratio: _Optional[float] = ..., rows: _Optional[int] = ..., created_at: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchModelRequest(_message.Message):
    __slots__ = ("model", "resume_token", "send_initial_state", "event_types")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEND_INITIAL_STATE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPES_FIELD_NUMBER: _ClassVar[int]
    model: str
    resume_token: str
    send_initial_state: bool
    event_types: _containers.RepeatedScalarFieldContainer[ModelEventType]
    def __init__(self, model: _Optional[str] = ..., resume_token: _Optional[str] = ..., send_initial_state: _Optional[bool] = ..., event_types: _Optional[_Iterable[_Union[ModelEventType, str]]] = ...) -> None: ...

class ListTransitionsRequest(_message.Message):
    __slots__ = ("model", "page_size", "page_token", "since_seq")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SINCE_SEQ_FIELD_NUMBER: _ClassVar[int]
    model: str
    page_size: int
    page_token: str
    since_seq: int
    def __init__(self, model: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., since_seq: _Optional[int] = ...) -> None: ...

class ListTransitionsResponse(_message.Message):
    __slots__ = ("transitions", "next_page_token")
    TRANSITIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    transitions: _containers.RepeatedCompositeFieldContainer[Transition]
    next_page_token: str
    def __init__(self, transitions: _Optional[_Iterable[_Union[Transition, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchComparisonsRequest(_message.Message):
    __slots__ = ("model", "slot")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    model: str
    slot: str
    def __init__(self, model: _Optional[str] = ..., slot: _Optional[str] = ...) -> None: ...

class ComparisonEvent(_message.Message):
    __slots__ = ("comparison", "summary")
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    comparison: Comparison
    summary: ShadowSummary
    def __init__(self, comparison: _Optional[_Union[Comparison, _Mapping]] = ..., summary: _Optional[_Union[ShadowSummary, _Mapping]] = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ("model", "time", "kind", "result", "live_revision", "shadow_revision", "live_slot", "shadow_slot", "route_generation", "inference_id", "shadow_trace_id", "shadow_span_id", "method", "atol", "rtol", "threshold", "distance", "output_name", "output_index", "mismatch_count", "element_count", "live_argmax", "shadow_argmax", "live_margin", "live_batch_size", "shadow_batch_size", "live_duration", "shadow_duration", "shadow_queue_duration", "request_digest", "payload_ref", "sampling_probability", "sampling_rule", "error_type", "rpc_status_code")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    LIVE_REVISION_FIELD_NUMBER: _ClassVar[int]
    SHADOW_REVISION_FIELD_NUMBER: _ClassVar[int]
    LIVE_SLOT_FIELD_NUMBER: _ClassVar[int]
    SHADOW_SLOT_FIELD_NUMBER: _ClassVar[int]
    ROUTE_GENERATION_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    SHADOW_TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SHADOW_SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ATOL_FIELD_NUMBER: _ClassVar[int]
    RTOL_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_NAME_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_INDEX_FIELD_NUMBER: _ClassVar[int]
    MISMATCH_COUNT_FIELD_NUMBER: _ClassVar[int]
    ELEMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    LIVE_ARGMAX_FIELD_NUMBER: _ClassVar[int]
    SHADOW_ARGMAX_FIELD_NUMBER: _ClassVar[int]
    LIVE_MARGIN_FIELD_NUMBER: _ClassVar[int]
    LIVE_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SHADOW_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LIVE_DURATION_FIELD_NUMBER: _ClassVar[int]
    SHADOW_DURATION_FIELD_NUMBER: _ClassVar[int]
    SHADOW_QUEUE_DURATION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_REF_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_RULE_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    RPC_STATUS_CODE_FIELD_NUMBER: _ClassVar[int]
    model: str
    time: _timestamp_pb2.Timestamp
    kind: ComparisonKind
    result: ComparisonResult
    live_revision: Revision
    shadow_revision: Revision
    live_slot: str
    shadow_slot: str
    route_generation: int
    inference_id: str
    shadow_trace_id: str
    shadow_span_id: str
    method: ComparisonMethod
    atol: float
    rtol: float
    threshold: float
    distance: float
    output_name: str
    output_index: int
    mismatch_count: int
    element_count: int
    live_argmax: int
    shadow_argmax: int
    live_margin: float
    live_batch_size: int
    shadow_batch_size: int
    live_duration: _duration_pb2.Duration
    shadow_duration: _duration_pb2.Duration
    shadow_queue_duration: _duration_pb2.Duration
    request_digest: str
    payload_ref: str
    sampling_probability: float
    sampling_rule: SamplingRule
    error_type: str
    rpc_status_code: int
    def __init__(self, model: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[_Union[ComparisonKind, str]] = ..., result: _Optional[_Union[ComparisonResult, str]] = ..., live_revision: _Optional[_Union[Revision, _Mapping]] = ..., shadow_revision: _Optional[_Union[Revision, _Mapping]] = ..., live_slot: _Optional[str] = ..., shadow_slot: _Optional[str] = ..., route_generation: _Optional[int] = ..., inference_id: _Optional[str] = ..., shadow_trace_id: _Optional[str] = ..., shadow_span_id: _Optional[str] = ..., method: _Optional[_Union[ComparisonMethod, str]] = ..., atol: _Optional[float] = ..., rtol: _Optional[float] = ..., threshold: _Optional[float] = ..., distance: _Optional[float] = ..., output_name: _Optional[str] = ..., output_index: _Optional[int] = ..., mismatch_count: _Optional[int] = ..., element_count: _Optional[int] = ..., live_argmax: _Optional[int] = ..., shadow_argmax: _Optional[int] = ..., live_margin: _Optional[float] = ..., live_batch_size: _Optional[int] = ..., shadow_batch_size: _Optional[int] = ..., live_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., shadow_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., shadow_queue_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., request_digest: _Optional[str] = ..., payload_ref: _Optional[str] = ..., sampling_probability: _Optional[float] = ..., sampling_rule: _Optional[_Union[SamplingRule, str]] = ..., error_type: _Optional[str] = ..., rpc_status_code: _Optional[int] = ...) -> None: ...

class ShadowSummary(_message.Message):
    __slots__ = ("model", "live_slot", "live_revision", "shadow_slot", "shadow_revision", "window_start_time", "window_end_time", "start_time", "window", "total", "verdict", "classes", "confusions", "dropped", "worst_pairs", "latency_ratio_p50", "latency_ratio_p99", "reference")
    class DroppedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIVE_SLOT_FIELD_NUMBER: _ClassVar[int]
    LIVE_REVISION_FIELD_NUMBER: _ClassVar[int]
    SHADOW_SLOT_FIELD_NUMBER: _ClassVar[int]
    SHADOW_REVISION_FIELD_NUMBER: _ClassVar[int]
    WINDOW_START_TIME_FIELD_NUMBER: _ClassVar[int]
    WINDOW_END_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    CONFUSIONS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    WORST_PAIRS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_RATIO_P50_FIELD_NUMBER: _ClassVar[int]
    LATENCY_RATIO_P99_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    live_slot: str
    live_revision: Revision
    shadow_slot: str
    shadow_revision: Revision
    window_start_time: _timestamp_pb2.Timestamp
    window_end_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    window: Agreement
    total: Agreement
    verdict: Verdict
    classes: _containers.RepeatedCompositeFieldContainer[ClassAgreement]
    confusions: _containers.RepeatedCompositeFieldContainer[Confusion]
    dropped: _containers.ScalarMap[str, int]
    worst_pairs: _containers.RepeatedCompositeFieldContainer[WorstPair]
    latency_ratio_p50: float
    latency_ratio_p99: float
    reference: ReferenceScore
    def __init__(self, model: _Optional[str] = ..., live_slot: _Optional[str] = ..., live_revision: _Optional[_Union[Revision, _Mapping]] = ..., shadow_slot: _Optional[str] = ..., shadow_revision: _Optional[_Union[Revision, _Mapping]] = ..., window_start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., window_end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., window: _Optional[_Union[Agreement, _Mapping]] = ..., total: _Optional[_Union[Agreement, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., classes: _Optional[_Iterable[_Union[ClassAgreement, _Mapping]]] = ..., confusions: _Optional[_Iterable[_Union[Confusion, _Mapping]]] = ..., dropped: _Optional[_Mapping[str, int]] = ..., worst_pairs: _Optional[_Iterable[_Union[WorstPair, _Mapping]]] = ..., latency_ratio_p50: _Optional[float] = ..., latency_ratio_p99: _Optional[float] = ..., reference: _Optional[_Union[ReferenceScore, _Mapping]] = ...) -> None: ...

class Agreement(_message.Message):
    __slots__ = ("pair_count", "rate", "low", "high", "noise_pair_count", "noise_rate", "distinct_count")
    PAIR_COUNT_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    NOISE_PAIR_COUNT_FIELD_NUMBER: _ClassVar[int]
    NOISE_RATE_FIELD_NUMBER: _ClassVar[int]
    DISTINCT_COUNT_FIELD_NUMBER: _ClassVar[int]
    pair_count: int
    rate: float
    low: float
    high: float
    noise_pair_count: int
    noise_rate: float
    distinct_count: int
    def __init__(self, pair_count: _Optional[int] = ..., rate: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., noise_pair_count: _Optional[int] = ..., noise_rate: _Optional[float] = ..., distinct_count: _Optional[int] = ...) -> None: ...

class ClassAgreement(_message.Message):
    __slots__ = ("output", "live_class", "row_count", "agreeing_count", "near_tie_count")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    LIVE_CLASS_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    AGREEING_COUNT_FIELD_NUMBER: _ClassVar[int]
    NEAR_TIE_COUNT_FIELD_NUMBER: _ClassVar[int]
    output: str
    live_class: str
    row_count: int
    agreeing_count: int
    near_tie_count: int
    def __init__(self, output: _Optional[str] = ..., live_class: _Optional[str] = ..., row_count: _Optional[int] = ..., agreeing_count: _Optional[int] = ..., near_tie_count: _Optional[int] = ...) -> None: ...

class Confusion(_message.Message):
    __slots__ = ("output", "live_class", "shadow_class", "count")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    LIVE_CLASS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_CLASS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    output: str
    live_class: str
    shadow_class: str
    count: int
    def __init__(self, output: _Optional[str] = ..., live_class: _Optional[str] = ..., shadow_class: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class WorstPair(_message.Message):
    __slots__ = ("inference_id", "output", "distance", "live_class", "shadow_class")
    INFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    LIVE_CLASS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_CLASS_FIELD_NUMBER: _ClassVar[int]
    inference_id: str
    output: str
    distance: float
    live_class: str
    shadow_class: str
    def __init__(self, inference_id: _Optional[str] = ..., output: _Optional[str] = ..., distance: _Optional[float] = ..., live_class: _Optional[str] = ..., shadow_class: _Optional[str] = ...) -> None: ...

class ReferenceScore(_message.Message):
    __slots__ = ("both_right", "only_live_right", "only_shadow_right", "both_wrong", "log10_evidence")
    BOTH_RIGHT_FIELD_NUMBER: _ClassVar[int]
    ONLY_LIVE_RIGHT_FIELD_NUMBER: _ClassVar[int]
    ONLY_SHADOW_RIGHT_FIELD_NUMBER: _ClassVar[int]
    BOTH_WRONG_FIELD_NUMBER: _ClassVar[int]
    LOG10_EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    both_right: int
    only_live_right: int
    only_shadow_right: int
    both_wrong: int
    log10_evidence: float
    def __init__(self, both_right: _Optional[int] = ..., only_live_right: _Optional[int] = ..., only_shadow_right: _Optional[int] = ..., both_wrong: _Optional[int] = ..., log10_evidence: _Optional[float] = ...) -> None: ...
