from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SelfConditioning(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SELF_CONDITIONING_UNSPECIFIED: _ClassVar[SelfConditioning]
    SELF_CONDITIONING_OWN: _ClassVar[SelfConditioning]
    SELF_CONDITIONING_PROJECTION: _ClassVar[SelfConditioning]

class LogitsFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOGITS_FORMAT_UNSPECIFIED: _ClassVar[LogitsFormat]
    LOGITS_FORMAT_FLOAT16: _ClassVar[LogitsFormat]
    LOGITS_FORMAT_UINT8: _ClassVar[LogitsFormat]
    LOGITS_FORMAT_TOP_K: _ClassVar[LogitsFormat]
SELF_CONDITIONING_UNSPECIFIED: SelfConditioning
SELF_CONDITIONING_OWN: SelfConditioning
SELF_CONDITIONING_PROJECTION: SelfConditioning
LOGITS_FORMAT_UNSPECIFIED: LogitsFormat
LOGITS_FORMAT_FLOAT16: LogitsFormat
LOGITS_FORMAT_UINT8: LogitsFormat
LOGITS_FORMAT_TOP_K: LogitsFormat

class GetModelCardRequest(_message.Message):
    __slots__ = ("model", "family")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    model: str
    family: str
    def __init__(self, model: _Optional[str] = ..., family: _Optional[str] = ...) -> None: ...

class GetModelCardResponse(_message.Message):
    __slots__ = ("protocol_version", "model", "model_sha256", "vocabulary_sha256", "vocab_size", "block_size", "max_prompt_tokens", "max_block_size", "parameters", "family", "logits_formats", "max_top_k", "measured")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_SHA256_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FORMATS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOP_K_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    model: str
    model_sha256: str
    vocabulary_sha256: str
    vocab_size: int
    block_size: int
    max_prompt_tokens: int
    max_block_size: int
    parameters: int
    family: str
    logits_formats: _containers.RepeatedScalarFieldContainer[LogitsFormat]
    max_top_k: int
    measured: MeasuredDecoding
    def __init__(self, protocol_version: _Optional[int] = ..., model: _Optional[str] = ..., model_sha256: _Optional[str] = ..., vocabulary_sha256: _Optional[str] = ..., vocab_size: _Optional[int] = ..., block_size: _Optional[int] = ..., max_prompt_tokens: _Optional[int] = ..., max_block_size: _Optional[int] = ..., parameters: _Optional[int] = ..., family: _Optional[str] = ..., logits_formats: _Optional[_Iterable[_Union[LogitsFormat, str]]] = ..., max_top_k: _Optional[int] = ..., measured: _Optional[_Union[MeasuredDecoding, _Mapping]] = ...) -> None: ...

class MeasuredDecoding(_message.Message):
    __slots__ = ("stop", "steps", "patience", "self_conditioning")
    STOP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    SELF_CONDITIONING_FIELD_NUMBER: _ClassVar[int]
    stop: float
    steps: int
    patience: int
    self_conditioning: SelfConditioning
    def __init__(self, stop: _Optional[float] = ..., steps: _Optional[int] = ..., patience: _Optional[int] = ..., self_conditioning: _Optional[_Union[SelfConditioning, str]] = ...) -> None: ...

class CollaborateRequest(_message.Message):
    __slots__ = ("open", "projection", "close")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    PROJECTION_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    open: Open
    projection: Projection
    close: Close
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., projection: _Optional[_Union[Projection, _Mapping]] = ..., close: _Optional[_Union[Close, _Mapping]] = ...) -> None: ...

class CollaborateResponse(_message.Message):
    __slots__ = ("opened", "block_logits")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    BLOCK_LOGITS_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    block_logits: BlockLogits
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., block_logits: _Optional[_Union[BlockLogits, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("protocol_version", "model", "vocabulary_sha256", "vocab_size", "prompt_ids", "noise_seed", "timesteps", "block_size", "max_blocks", "simplex_value", "self_conditioning", "model_sha256", "family", "logits_format", "top_k", "speculation", "patience")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_SHA256_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    NOISE_SEED_FIELD_NUMBER: _ClassVar[int]
    TIMESTEPS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SIMPLEX_VALUE_FIELD_NUMBER: _ClassVar[int]
    SELF_CONDITIONING_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FORMAT_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SPECULATION_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    model: str
    vocabulary_sha256: str
    vocab_size: int
    prompt_ids: _containers.RepeatedScalarFieldContainer[int]
    noise_seed: int
    timesteps: _containers.RepeatedScalarFieldContainer[int]
    block_size: int
    max_blocks: int
    simplex_value: float
    self_conditioning: SelfConditioning
    model_sha256: str
    family: str
    logits_format: LogitsFormat
    top_k: int
    speculation: int
    patience: int
    def __init__(self, protocol_version: _Optional[int] = ..., model: _Optional[str] = ..., vocabulary_sha256: _Optional[str] = ..., vocab_size: _Optional[int] = ..., prompt_ids: _Optional[_Iterable[int]] = ..., noise_seed: _Optional[int] = ..., timesteps: _Optional[_Iterable[int]] = ..., block_size: _Optional[int] = ..., max_blocks: _Optional[int] = ..., simplex_value: _Optional[float] = ..., self_conditioning: _Optional[_Union[SelfConditioning, str]] = ..., model_sha256: _Optional[str] = ..., family: _Optional[str] = ..., logits_format: _Optional[_Union[LogitsFormat, str]] = ..., top_k: _Optional[int] = ..., speculation: _Optional[int] = ..., patience: _Optional[int] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class Projection(_message.Message):
    __slots__ = ("number", "block", "step", "token_ids", "counts", "is_commit")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    IS_COMMIT_FIELD_NUMBER: _ClassVar[int]
    number: int
    block: int
    step: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    is_commit: bool
    def __init__(self, number: _Optional[int] = ..., block: _Optional[int] = ..., step: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., counts: _Optional[_Iterable[int]] = ..., is_commit: _Optional[bool] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BlockLogits(_message.Message):
    __slots__ = ("number", "block", "step", "block_size", "vocab_size", "format", "data", "guess")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    GUESS_FIELD_NUMBER: _ClassVar[int]
    number: int
    block: int
    step: int
    block_size: int
    vocab_size: int
    format: LogitsFormat
    data: bytes
    guess: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, number: _Optional[int] = ..., block: _Optional[int] = ..., step: _Optional[int] = ..., block_size: _Optional[int] = ..., vocab_size: _Optional[int] = ..., format: _Optional[_Union[LogitsFormat, str]] = ..., data: _Optional[bytes] = ..., guess: _Optional[_Iterable[int]] = ...) -> None: ...
