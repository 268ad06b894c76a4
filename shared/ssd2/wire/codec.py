"""Between what the algorithm works with and the messages of collaboration.proto, in pairs.

Everything that arrives is checked here, before any model sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from google.protobuf.message import DecodeError

from ssd2.algorithm.measured import UNMEASURED, MeasuredDecoding
from ssd2.algorithm.params import MAX_SEED, MAX_SIMPLEX_VALUE
from ssd2.algorithm.projection import ProjectedTokens, StepPosition
from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS
from ssd2.errors import (
    BlockShapeMismatch,
    InvalidParameter,
    PromptTooLong,
    ProtocolVersionMismatch,
    ProtocolViolation,
    TokenOutOfRange,
)
from ssd2.logits.format import MAX_TOP_K, AllowedFormats, LogitsFormat
from ssd2.wire import collaboration_pb2 as pb

PROTOCOL_VERSION = 2

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest message that an agent takes: full float16 logits of 25 x 50,272 are 2.5 MB, and a
vocabulary of 256,000 with a block of 64 is 33 MB."""

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""Largest message that a core takes: it holds one before it knows whom it is from. All of a vocabulary of 50,272 at
each of 25 positions is 3.8 MB."""

MAX_PROMPT_IDS = 65_536
"""Longest prompt that is looked at, far above any model's: one message must not occupy a server."""

ERROR_CODE_KEY = "slingshot-error-code"
"""Trailing metadata: the `code` of the error that ended a call."""

_SELF_CONDITIONING_TO_PROTO = {
    "own": pb.SELF_CONDITIONING_OWN,
    "projection": pb.SELF_CONDITIONING_PROJECTION,
}
_SELF_CONDITIONING_FROM_PROTO = {value: name for name, value in _SELF_CONDITIONING_TO_PROTO.items()}

_LOGITS_TO_PROTO = {
    "float16": pb.LOGITS_FORMAT_FLOAT16,
    "uint8": pb.LOGITS_FORMAT_UINT8,
    "top-k": pb.LOGITS_FORMAT_TOP_K,
}
_LOGITS_FROM_PROTO = {value: kind for kind, value in _LOGITS_TO_PROTO.items()}


@dataclass(frozen=True)
class ModelCard:
    """Card of a core's model; fields as in `GetModelCardResponse`, with the formats of logits as one.

    An earlier core measured nothing.
    """

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
    logits_formats: AllowedFormats
    measured: MeasuredDecoding = UNMEASURED


@dataclass(frozen=True)
class OpenRequest:
    """Beginning of an answer; fields as in `Open`, with the format of the logits as one."""

    model: str
    family: str
    model_sha256: str
    vocabulary_sha256: str
    vocab_size: int
    prompt_ids: tuple[int, ...]
    noise_seed: int
    timesteps: tuple[int, ...]
    block_size: int
    max_blocks: int
    simplex_value: float
    self_conditioning: str
    logits_format: LogitsFormat
    speculation: int
    patience: int


@dataclass(frozen=True)
class PackedLogits:
    """Logits of a block as they travel.

    Attributes:
        block_size: L.
        vocab_size: V.
        logits_format: how.
        data: as in `BlockLogits`.
    """

    block_size: int
    vocab_size: int
    logits_format: LogitsFormat
    data: bytes


_CARD_FIELDS = [name for name in ModelCard.__dataclass_fields__ if name not in ("logits_formats", "measured")]


def model_card_to_proto(card: ModelCard) -> pb.GetModelCardResponse:
    """A core's description of itself as a message."""
    return pb.GetModelCardResponse(
        **{name: getattr(card, name) for name in _CARD_FIELDS},
        logits_formats=[_LOGITS_TO_PROTO[allowed.kind] for allowed in card.logits_formats.formats],
        max_top_k=max(allowed.k for allowed in card.logits_formats.formats),
        measured=_measured_to_proto(card.measured),
    )


def _measured_to_proto(measured: MeasuredDecoding) -> pb.MeasuredDecoding:
    return pb.MeasuredDecoding(
        stop=measured.stop,
        steps=measured.steps,
        patience=measured.patience,
        self_conditioning=_SELF_CONDITIONING_TO_PROTO.get(
            measured.self_conditioning or "", pb.SELF_CONDITIONING_UNSPECIFIED
        ),
    )


def model_card_from_proto(message: pb.GetModelCardResponse) -> ModelCard:
    """The reverse of `model_card_to_proto`.

    Raises:
        ProtocolViolation: if the core allows no format of logits that is known here, or names settings that cannot be.
    """
    return ModelCard(
        **{name: getattr(message, name) for name in _CARD_FIELDS},
        logits_formats=_allowed_formats(message),
        measured=_measured_from_proto(message.measured),
    )


def _measured_from_proto(message: pb.MeasuredDecoding) -> MeasuredDecoding:
    measured = MeasuredDecoding(
        stop=message.stop,
        steps=message.steps if message.HasField("steps") else None,
        patience=message.patience if message.HasField("patience") else None,
        self_conditioning=_SELF_CONDITIONING_FROM_PROTO.get(message.self_conditioning),
    )
    if measured.problem:
        raise ProtocolViolation(f"the core's card says that {measured.problem}; report this to its provider")
    return measured


def _allowed_formats(message: pb.GetModelCardResponse) -> AllowedFormats:
    """The formats of a card that this release knows; a core's may know others."""
    kinds = dict.fromkeys(_LOGITS_FROM_PROTO[f] for f in message.logits_formats if f in _LOGITS_FROM_PROTO)
    max_top_k = min(message.max_top_k, MAX_TOP_K)
    known = [LogitsFormat(kind, max_top_k if kind == "top-k" else 0) for kind in kinds if kind != "top-k" or max_top_k]
    if not known:
        raise ProtocolViolation(
            "the core offers no logits format that this agent supports; install the same release on both sides"
        )
    return AllowedFormats(tuple(known))


# See docs/decisions/002-only-projected-tokens-cross.md.
def open_to_proto(request: OpenRequest) -> pb.Open:
    """The beginning of an answer as a message.

    Raises:
        InvalidParameter: if its self-conditioning cannot cross the trust boundary.
    """
    if request.self_conditioning not in _SELF_CONDITIONING_TO_PROTO:
        raise InvalidParameter(
            f"self-conditioning {request.self_conditioning!r} would send mixed logits, which reveal the user "
            f"model's; use {' or '.join(_SELF_CONDITIONING_TO_PROTO)}"
        )
    return pb.Open(
        protocol_version=PROTOCOL_VERSION,
        model=request.model,
        family=request.family,
        model_sha256=request.model_sha256,
        vocabulary_sha256=request.vocabulary_sha256,
        vocab_size=request.vocab_size,
        prompt_ids=request.prompt_ids,
        noise_seed=request.noise_seed,
        timesteps=request.timesteps,
        block_size=request.block_size,
        max_blocks=request.max_blocks,
        simplex_value=request.simplex_value,
        self_conditioning=_SELF_CONDITIONING_TO_PROTO[request.self_conditioning],
        logits_format=_LOGITS_TO_PROTO[request.logits_format.kind],
        top_k=request.logits_format.k,
        speculation=request.speculation,
        patience=request.patience,
    )


def open_from_proto(message: pb.Open) -> OpenRequest:
    """The reverse of `open_to_proto`, checked as far as that goes without a model.

    Raises:
        ProtocolVersionMismatch: if the agent speaks another version.
        InvalidParameter: if a parameter is outside its range.
        PromptTooLong: if the prompt is longer than any model's.
    """
    if message.protocol_version != PROTOCOL_VERSION:
        raise ProtocolVersionMismatch(
            f"the agent speaks protocol version {message.protocol_version}, the core {PROTOCOL_VERSION}; "
            "install the same release on both sides"
        )
    if len(message.prompt_ids) > MAX_PROMPT_IDS:
        raise PromptTooLong(
            f"the prompt has {len(message.prompt_ids)} tokens; no core takes more than {MAX_PROMPT_IDS}: shorten it",
            parameter="question",
            limit=MAX_PROMPT_IDS,
        )
    if len(message.timesteps) > TRAINED_TIMESTEPS:
        raise InvalidParameter(
            f"there are {len(message.timesteps)} timesteps; send at most {TRAINED_TIMESTEPS}",
            parameter="steps",
            limit=TRAINED_TIMESTEPS,
        )
    timesteps = tuple(message.timesteps)
    in_range = all(1 <= t <= TRAINED_TIMESTEPS for t in timesteps)
    if not timesteps or not in_range or list(timesteps) != sorted(set(timesteps), reverse=True):
        raise InvalidParameter(
            f"the timesteps must strictly decrease within [1, {TRAINED_TIMESTEPS}]", parameter="steps"
        )
    if message.self_conditioning not in _SELF_CONDITIONING_FROM_PROTO:
        raise InvalidParameter("self_conditioning must be OWN or PROJECTION", parameter="self_conditioning")
    if message.block_size < 1 or message.max_blocks < 1:
        raise InvalidParameter("block_size and max_blocks must be at least 1")
    if message.noise_seed >= MAX_SEED:
        raise InvalidParameter("noise_seed must be below 2^63", parameter="seed", limit=2**63 - 1)
    if not 0 < message.simplex_value < MAX_SIMPLEX_VALUE:
        raise InvalidParameter(
            f"simplex_value must be above 0 and below {MAX_SIMPLEX_VALUE:g}", parameter="simplex_value"
        )
    if message.logits_format not in _LOGITS_FROM_PROTO:
        raise InvalidParameter("logits_format must be FLOAT16, UINT8 or TOP_K", parameter="logits")
    return OpenRequest(
        model=message.model,
        family=message.family,
        model_sha256=message.model_sha256,
        vocabulary_sha256=message.vocabulary_sha256,
        vocab_size=message.vocab_size,
        prompt_ids=tuple(message.prompt_ids),
        noise_seed=message.noise_seed,
        timesteps=timesteps,
        block_size=message.block_size,
        max_blocks=message.max_blocks,
        simplex_value=message.simplex_value,
        self_conditioning=_SELF_CONDITIONING_FROM_PROTO[message.self_conditioning],
        logits_format=LogitsFormat(_LOGITS_FROM_PROTO[message.logits_format], message.top_k),
        speculation=message.speculation,
        patience=message.patience,
    )


def projection_to_proto(at: StepPosition, projected: ProjectedTokens) -> pb.Projection:
    """A projected simplex as a message.

    Args:
        at: the timestep whose logits were projected.
        projected: the tokens at +K.
    """
    return pb.Projection(
        number=at.number, block=at.block, step=at.step, token_ids=projected.token_ids, counts=projected.counts
    )


def commit_to_proto(at: StepPosition, token_ids: Sequence[int]) -> pb.Projection:
    """The last projection of a block, one token a position, as a message."""
    return pb.Projection(number=at.number, block=at.block, step=at.step, token_ids=token_ids, is_commit=True)


def projection_from_proto(message: pb.Projection, *, block_size: int, vocab_size: int) -> ProjectedTokens:
    """The reverse of `projection_to_proto` and `commit_to_proto`.

    Args:
        message: from the agent.
        block_size: L of the stream.
        vocab_size: V.

    Raises:
        BlockShapeMismatch: if it is not a block of L positions, the tokens of one do not ascend, or a commit is not
            one token each.
        TokenOutOfRange: if a token id is outside the vocabulary.
    """
    counts = tuple(message.counts) or (1,) * len(message.token_ids)
    if len(counts) != block_size or sum(counts) != len(message.token_ids) or min(counts) < 1:
        raise BlockShapeMismatch(
            f"the projection has {len(message.token_ids)} tokens at {len(counts)} positions; this stream's "
            f"blocks have {block_size} positions with at least one token each"
        )
    if message.is_commit and max(counts) > 1:
        raise BlockShapeMismatch("a committed block has exactly one token at every position")
    if max(message.token_ids) >= vocab_size:
        raise TokenOutOfRange(
            f"token id {max(message.token_ids)} is outside the vocabulary of {vocab_size}; use the core's tokenizer"
        )
    if max(counts) == 1:
        return ProjectedTokens(tuple(message.token_ids))
    begins = set(accumulate(counts))
    if any(b <= a and at not in begins for at, (a, b) in enumerate(pairwise(message.token_ids), 1)):
        raise BlockShapeMismatch("the tokens of a position must ascend, each occurring once")
    return ProjectedTokens(tuple(message.token_ids), counts)


def position_from_proto(message: pb.Projection | pb.BlockLogits) -> StepPosition:
    """The timestep that a message belongs to."""
    return StepPosition(message.number, message.block, message.step)


@dataclass(frozen=True)
class RequestHead:
    """The fields of a stream's request that decide what it is charged, read without any check.

    Attributes:
        block_size: L that an Open asks for; 0 in any other message.
        next_step: step of the timestep that a projection begins; None in any other message.
    """

    block_size: int
    next_step: int | None


def request_head(data: bytes) -> RequestHead | None:
    """Read the head of a `CollaborateRequest`; None if the bytes do not parse."""
    try:
        message = pb.CollaborateRequest.FromString(data)
    except DecodeError:
        return None
    projection = message.projection if message.HasField("projection") else None
    begins = (0 if projection.is_commit else projection.step + 1) if projection else None
    return RequestHead(message.open.block_size, begins)


def logits_to_proto(at: StepPosition, logits: PackedLogits, guess: Sequence[int] = ()) -> pb.BlockLogits:
    """Logits of one timestep as a message.

    Args:
        at: the timestep.
        logits: as they travel.
        guess: tokens of the projection that they assume, where it has not arrived yet.
    """
    return pb.BlockLogits(
        number=at.number,
        block=at.block,
        step=at.step,
        block_size=logits.block_size,
        vocab_size=logits.vocab_size,
        format=_LOGITS_TO_PROTO[logits.logits_format.kind],
        data=logits.data,
        guess=guess,
    )


def logits_from_proto(
    message: pb.BlockLogits, *, due: StepPosition, block_size: int, vocab_size: int, logits_format: LogitsFormat
) -> PackedLogits:
    """The reverse of `logits_to_proto`.

    Args:
        message: from the core.
        due: the timestep that the agent asked for.
        block_size: L of the stream.
        vocab_size: V.
        logits_format: that the agent asked for.

    Raises:
        ProtocolViolation: if these are not the logits that were due, or they are damaged.
    """
    at = position_from_proto(message)
    if at != due:
        raise ProtocolViolation(
            f"the core sent the logits of {at}, but those of {due} were due; report this to its provider"
        )
    if message.format != _LOGITS_TO_PROTO[logits_format.kind]:
        raise ProtocolViolation(
            f"the core sent logits in format {message.format} instead of {logits_format}; report this to its provider"
        )
    shape, width = (message.block_size, message.vocab_size), logits_format.bytes_per_position(vocab_size)
    if shape != (block_size, vocab_size) or len(message.data) != block_size * width:
        raise ProtocolViolation(
            f"the core sent {len(message.data)} bytes of logits as {shape} instead of {block_size * width} "
            f"for {block_size} x {vocab_size}; report this to its provider"
        )
    return PackedLogits(block_size, vocab_size, logits_format, message.data)
