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
    __slots__ = ("name", "state", "revision", "digest", "memory_bytes", "leases", "state_time", "message", "etag", "gates", "providers", "batch_rows_max", "queued_rows", "routed", "pinned", "held")
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
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[SlotState, str]] = ..., revision: _Optional[_Union[Revision, _Mapping]] = ..., digest: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., leases: _Optional[int] = ..., state_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., message: _Optional[str] = ..., etag: _Optional[str] = ..., gates: _Optional[_Iterable[_Union[GateResult, _Mapping]]] = ..., providers: _Optional[_Iterable[str]] = ..., batch_rows_max: _Optional[int] = ..., queued_rows: _Optional[int] = ..., routed: _Optional[_Union[Counts, _Mapping]] = ..., pinned: _Optional[_Union[Counts, _Mapping]] = ..., held: _Optional[bool] = ...) -> None: ...

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
    __slots__ = ("generation", "weights", "sticky_key", "pins", "etag", "intervals")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    STICKY_KEY_FIELD_NUMBER: _ClassVar[int]
    PINS_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    INTERVALS_FIELD_NUMBER: _ClassVar[int]
    generation: int
    weights: _containers.RepeatedCompositeFieldContainer[SlotWeight]
    sticky_key: StickyKey
    pins: _containers.RepeatedCompositeFieldContainer[Pin]
    etag: str
    intervals: _containers.RepeatedCompositeFieldContainer[Interval]
    def __init__(self, generation: _Optional[int] = ..., weights: _Optional[_Iterable[_Union[SlotWeight, _Mapping]]] = ..., sticky_key: _Optional[_Union[StickyKey, _Mapping]] = ..., pins: _Optional[_Iterable[_Union[Pin, _Mapping]]] = ..., etag: _Optional[str] = ..., intervals: _Optional[_Iterable[_Union[Interval, _Mapping]]] = ...) -> None: ...

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
    __slots__ = ("model", "slot", "revision", "wait", "replace", "allow_signature_change", "digest", "accept_outage", "end_bake", "mutation")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    ALLOW_SIGNATURE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_OUTAGE_FIELD_NUMBER: _ClassVar[int]
    END_BAKE_FIELD_NUMBER: _ClassVar[int]
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
    mutation: Mutation
    def __init__(self, model: _Optional[str] = ..., slot: _Optional[str] = ..., revision: _Optional[_Union[Revision, _Mapping]] = ..., wait: _Optional[bool] = ..., replace: _Optional[bool] = ..., allow_signature_change: _Optional[bool] = ..., digest: _Optional[str] = ..., accept_outage: _Optional[bool] = ..., end_bake: _Optional[bool] = ..., mutation: _Optional[_Union[Mutation, _Mapping]] = ...) -> None: ...

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

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

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
