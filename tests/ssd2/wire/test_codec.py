"""The wire format: what one side sends the other reads, and nothing else gets past the codec."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import torch
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd2.algorithm.measured import MeasuredDecoding
from ssd2.algorithm.sampler import tokens_of
from ssd2.errors import (
    BlockShapeMismatch,
    InvalidParameter,
    PromptTooLong,
    ProtocolVersionMismatch,
    ProtocolViolation,
    SlingshotError,
    TokenOutOfRange,
)
from ssd2.logits.format import FLOAT16, PREFERRED, UINT8, AllowedFormats, LogitsFormat
from ssd2.logits.packed import as_received
from ssd2.wire import codec
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.tensors import pack_logits, unpack_logits

M = TypeVar("M", bound=Message)
AT = codec.StepPosition(number=7, block=1, step=2)
CARD = codec.ModelCard(
    protocol_version=2,
    model="demo-core",
    model_sha256="ab" * 32,
    vocabulary_sha256="cd" * 32,
    vocab_size=50_272,
    block_size=25,
    max_prompt_tokens=475,
    max_block_size=64,
    parameters=13_000_000_000,
    family="autoregressive",
    logits_formats=AllowedFormats.parse("uint8,top-k:64"),
)
OPEN = codec.OpenRequest(
    model="demo-core",
    family="ssd-2",
    model_sha256="ab" * 32,
    vocabulary_sha256="cd" * 32,
    vocab_size=32,
    prompt_ids=(1, 5, 31, 5),
    noise_seed=2**63 - 1,
    timesteps=(1000, 700, 1),
    block_size=4,
    max_blocks=3,
    simplex_value=5.0,
    speculation=3,
    patience=2,
    self_conditioning="own",
    logits_format=LogitsFormat("top-k", 8),
)
STREAM: dict[str, Any] = {"block_size": 4, "vocab_size": 32}


def over_the_wire(message: M) -> M:
    return type(message).FromString(message.SerializeToString())


def open_message(**changes: object) -> pb.Open:
    message = codec.open_to_proto(OPEN)
    for name, value in changes.items():
        message.ClearField(name)
        getattr(message, name).extend(value) if isinstance(value, list) else setattr(message, name, value)
    return over_the_wire(message)


@pytest.mark.parametrize("allowed", ["float16", "uint8,top-k:64", "top-k:1,float16,uint8"])
def test_a_model_card_comes_through(allowed: str) -> None:
    card = replace(CARD, logits_formats=AllowedFormats.parse(allowed))
    assert codec.model_card_from_proto(over_the_wire(codec.model_card_to_proto(card))) == card


@pytest.mark.parametrize(
    ("formats", "max_top_k", "known"),
    [
        ([1, 9], 0, "float16"),
        ([3, 3, 2], 64, "top-k:64,uint8"),
        ([3, 1], 0, "float16"),
        ([3], 2**32 - 1, "top-k:65536"),
    ],
)
def test_of_the_formats_on_a_card_those_that_are_known_are_read(formats: list[int], max_top_k: int, known: str) -> None:
    message = codec.model_card_to_proto(CARD)
    message.ClearField("logits_formats")
    message.logits_formats.extend(formats)
    message.max_top_k = max_top_k
    assert str(codec.model_card_from_proto(over_the_wire(message)).logits_formats) == known


@pytest.mark.parametrize(
    "measured",
    [
        MeasuredDecoding(),
        MeasuredDecoding(0.4),
        MeasuredDecoding(0.2, 8, 0, "projection"),
        MeasuredDecoding(0.0, 100, 4, "own"),
        MeasuredDecoding(self_conditioning="projection"),
    ],
)
def test_a_card_carries_the_measured_settings_and_those_that_were_not_measured_as_none(
    measured: MeasuredDecoding,
) -> None:
    message = over_the_wire(codec.model_card_to_proto(replace(CARD, measured=measured)))
    assert codec.model_card_from_proto(message).measured == measured


def test_a_card_of_an_earlier_core_has_no_measured_settings() -> None:
    message = codec.model_card_to_proto(replace(CARD, measured=MeasuredDecoding(0.2, 8, 2, "projection")))
    message.ClearField("measured")
    assert codec.model_card_from_proto(over_the_wire(message)).measured == MeasuredDecoding()


@pytest.mark.parametrize(
    "settings",
    [
        {"stop": 1.0},
        {"stop": -0.1},
        {"stop": float("nan")},
        {"steps": 0},
        {"steps": 601, "stop": 0.4},
        {"steps": 2**32 - 1},
        {"patience": 1001},
    ],
    ids=str,
)
def test_a_card_with_settings_that_cannot_be_is_a_violation(settings: dict[str, Any]) -> None:
    message = codec.model_card_to_proto(CARD)
    message.measured.CopyFrom(pb.MeasuredDecoding(**settings))
    with pytest.raises(ProtocolViolation, match="report this to its provider"):
        codec.model_card_from_proto(over_the_wire(message))


@pytest.mark.parametrize("formats", [[], [0], [9], [3]])
def test_a_card_without_a_known_format_is_a_violation(formats: list[int]) -> None:
    with pytest.raises(ProtocolViolation, match="same release"):
        codec.model_card_from_proto(pb.GetModelCardResponse(logits_formats=formats))


@pytest.mark.parametrize("self_conditioning", ["own", "projection"])
@pytest.mark.parametrize("logits_format", [FLOAT16, UINT8, LogitsFormat("top-k", 64)], ids=str)
def test_an_open_comes_through(self_conditioning: str, logits_format: LogitsFormat) -> None:
    request = replace(OPEN, self_conditioning=self_conditioning, logits_format=logits_format)
    message = codec.open_to_proto(request)
    assert message.protocol_version == codec.PROTOCOL_VERSION
    assert codec.open_from_proto(over_the_wire(message)) == request


def test_mixed_self_conditioning_never_crosses() -> None:
    with pytest.raises(InvalidParameter, match="reveal"):
        codec.open_to_proto(replace(OPEN, self_conditioning="mixed"))


def test_another_protocol_version_is_refused_by_name() -> None:
    with pytest.raises(ProtocolVersionMismatch, match="version 1, the core 2"):
        codec.open_from_proto(open_message(protocol_version=1))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"timesteps": []}, "timesteps"),
        ({"timesteps": [500, 600]}, "timesteps"),
        ({"timesteps": [600, 600]}, "timesteps"),
        ({"timesteps": [1001, 500]}, "timesteps"),
        ({"timesteps": [500, 0]}, "timesteps"),
        ({"self_conditioning": 0}, "OWN or PROJECTION"),
        ({"self_conditioning": 9}, "OWN or PROJECTION"),
        ({"block_size": 0}, "at least 1"),
        ({"max_blocks": 0}, "at least 1"),
        ({"noise_seed": 2**63}, "2\\^63"),
        ({"simplex_value": 0.0}, "simplex_value"),
        ({"simplex_value": -5.0}, "simplex_value"),
        ({"simplex_value": 1000.0}, "simplex_value"),
        ({"simplex_value": float("nan")}, "simplex_value"),
        ({"simplex_value": float("inf")}, "simplex_value"),
        ({"logits_format": 0}, "FLOAT16, UINT8 or TOP_K"),
        ({"logits_format": 9}, "FLOAT16, UINT8 or TOP_K"),
        ({"top_k": 0}, "top-k:K"),
        ({"top_k": 65_537}, "65536"),
        ({"logits_format": 1, "top_k": 8}, "float16"),
    ],
)
def test_an_open_with_a_parameter_outside_its_range_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidParameter, match=named):
        codec.open_from_proto(open_message(**changes))


def test_a_prompt_longer_than_any_models_is_refused_unread() -> None:
    longest = open_message(prompt_ids=[1] * codec.MAX_PROMPT_IDS)
    assert len(codec.open_from_proto(longest).prompt_ids) == codec.MAX_PROMPT_IDS
    with pytest.raises(PromptTooLong, match="shorten it"):
        codec.open_from_proto(open_message(prompt_ids=[1] * (codec.MAX_PROMPT_IDS + 1)))


def tokens_by_position(projected: codec.ProjectedTokens) -> list[list[int]]:
    tokens: list[list[int]] = [[] for _ in range(4)]
    for position, token_id in zip(projected.positions, projected.token_ids, strict=True):
        tokens[position].append(token_id)
    return tokens


def simplex(*positions: list[int]) -> torch.Tensor:
    x0_hat = torch.full((len(positions), 32), -5.0)
    for position, token_ids in enumerate(positions):
        x0_hat[position, token_ids] = 5.0
    return x0_hat


@pytest.mark.parametrize(
    "x0_hat",
    [simplex([3], [0], [31], [3]), simplex([3, 4], [0], [1, 9, 31], [7]), simplex(list(range(32)), *[[0]] * 3)],
)
def test_a_projection_comes_through_without_loss(x0_hat: torch.Tensor) -> None:
    message = over_the_wire(codec.projection_to_proto(AT, tokens_of(x0_hat > 0)))
    assert (message.number, message.block, message.step, message.is_commit) == (7, 1, 2, False)
    projected = codec.projection_from_proto(message, **STREAM)
    assert torch.equal(simplex(*tokens_by_position(projected)), x0_hat)


def test_a_one_hot_projection_is_sent_as_one_id_a_position() -> None:
    message = codec.projection_to_proto(AT, tokens_of(simplex([3], [0], [31], [3]) > 0))
    assert list(message.token_ids) == [3, 0, 31, 3]
    assert not message.counts
    assert message.ByteSize() < 20


def test_a_commit_comes_through_as_one_hot() -> None:
    message = over_the_wire(codec.commit_to_proto(AT, [9, 9, 0, 31]))
    assert message.is_commit
    assert (message.number, message.block, message.step) == (7, 1, 2)
    assert codec.projection_from_proto(message, **STREAM) == codec.ProjectedTokens((9, 9, 0, 31))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"token_ids": [1, 2, 3]}, BlockShapeMismatch),
        ({"token_ids": [1, 2, 3, 4, 5]}, BlockShapeMismatch),
        ({"token_ids": []}, BlockShapeMismatch),
        ({"token_ids": [1, 2, 3, 4], "counts": [2, 2]}, BlockShapeMismatch),
        ({"token_ids": [1, 2, 3, 4], "counts": [2, 2, 0, 0]}, BlockShapeMismatch),
        ({"token_ids": [1, 2, 3, 4], "counts": [1, 1, 1, 2]}, BlockShapeMismatch),
        ({"token_ids": [1, 2, 3, 4], "counts": [1, 1, 1, 2**32 - 1]}, BlockShapeMismatch),
        ({"token_ids": [1, 2, 3, 4, 5], "counts": [1, 1, 1, 2], "is_commit": True}, BlockShapeMismatch),
        ({"token_ids": [1, 2, 3, 5, 4], "counts": [1, 1, 1, 2]}, BlockShapeMismatch),
        ({"token_ids": [1, 4, 4, 3, 5], "counts": [1, 2, 1, 1]}, BlockShapeMismatch),
        ({"token_ids": [1, 2, 3, 32]}, TokenOutOfRange),
        ({"token_ids": [1, 2, 3, 2**32 - 1], "is_commit": True}, TokenOutOfRange),
    ],
)
def test_a_projection_of_another_shape_or_vocabulary_is_refused(
    fields: dict[str, Any], error: type[SlingshotError]
) -> None:
    with pytest.raises(error):
        codec.projection_from_proto(over_the_wire(pb.Projection(**fields)), **STREAM)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=8), st.lists(st.integers(0, 3), max_size=5), st.booleans())
def test_whatever_arrives_is_a_block_of_the_simplex_or_a_typed_error(
    token_ids: list[int], counts: list[int], is_commit: bool
) -> None:
    message = pb.Projection(token_ids=token_ids, counts=counts, is_commit=is_commit)
    try:
        tokens = tokens_by_position(codec.projection_from_proto(message, **STREAM))
    except (BlockShapeMismatch, TokenOutOfRange):
        return
    assert len(tokens) == 4
    assert all(0 <= token_id < 32 for position in tokens for token_id in position)
    assert all(len(position) == 1 if is_commit else position for position in tokens)
    assert all(list(position) == sorted(set(position)) for position in tokens)


def frame(logits: torch.Tensor, how: LogitsFormat, at: codec.StepPosition = AT) -> pb.BlockLogits:
    return codec.logits_to_proto(at, pack_logits(logits, how))


def read(message: pb.BlockLogits, **changes: Any) -> torch.Tensor:
    expected: dict[str, Any] = {"due": AT, "block_size": 4, "vocab_size": 32, "logits_format": FLOAT16, **changes}
    return unpack_logits(codec.logits_from_proto(over_the_wire(message), **expected)).values[0]


def random_logits() -> torch.Tensor:
    return 8 * torch.randn(4, 32, generator=torch.Generator().manual_seed(0))


def test_logits_come_through_up_to_half_precision() -> None:
    logits = random_logits()
    received = read(frame(logits, FLOAT16))
    assert received.dtype == torch.float16
    assert torch.equal(received.float().argmax(-1), logits.argmax(-1))
    exact = logits - logits.max(-1, keepdim=True).values
    assert bool(((received.float() - exact).abs() <= exact.abs() * 2**-11 + 1e-7).all())
    torch.testing.assert_close(received.float().softmax(-1), logits.softmax(-1), atol=2e-3, rtol=2e-2)


@pytest.mark.parametrize("offset", [0.0, -300.0, 1e5, 3e38])
def test_logits_travel_less_their_rows_maximum_so_that_none_overflows(offset: float) -> None:
    logits = torch.round(random_logits()) + torch.tensor([[0.0], [offset], [0.0], [-offset]])
    received = read(frame(logits, FLOAT16)).float()
    assert received.max(-1).values.tolist() == [0.0] * 4
    torch.testing.assert_close(received.softmax(-1), logits.softmax(-1), atol=1e-6, rtol=1e-3)


def test_logits_far_below_the_maximum_stay_finite() -> None:
    logits = random_logits()
    logits[:, 3], logits[:, 4] = -1e9, float("-inf")
    received = read(frame(logits, FLOAT16))
    assert set(received[:, 3:5].flatten().tolist()) == {-65504.0}


def test_logits_are_laid_out_as_the_contract_says() -> None:
    message = frame(torch.tensor([[1.0, 3.0, 2.5], [0.0, -8.0, -1.0]]), FLOAT16)
    assert (message.number, message.block, message.step) == (7, 1, 2)
    assert (message.block_size, message.vocab_size, message.format) == (2, 3, pb.LOGITS_FORMAT_FLOAT16)
    assert struct.unpack("<6e", message.data) == (-2.0, 0.0, -0.5, 0.0, -8.0, -1.0)


@pytest.mark.parametrize(
    "due",
    [codec.StepPosition(6, 1, 2), codec.StepPosition(7, 0, 2), codec.StepPosition(7, 1, 3)],
)
def test_logits_of_another_timestep_are_refused(due: codec.StepPosition) -> None:
    with pytest.raises(ProtocolViolation, match="but those of"):
        read(frame(random_logits(), FLOAT16), due=due)


@pytest.mark.parametrize("sent", [pb.LOGITS_FORMAT_UNSPECIFIED, pb.LOGITS_FORMAT_UINT8, 9])
def test_logits_in_another_format_than_was_asked_for_are_refused(sent: int) -> None:
    message = frame(random_logits(), FLOAT16)
    message.format = sent
    with pytest.raises(ProtocolViolation, match=f"format {sent} instead of float16"):
        read(message)


@pytest.mark.parametrize("changes", [{"block_size": 3}, {"vocab_size": 31}, {"block_size": 32, "vocab_size": 4}])
def test_logits_of_another_shape_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ProtocolViolation, match="instead of"):
        read(frame(random_logits(), FLOAT16), **changes)


@pytest.mark.parametrize("change", [-2, -1, 1])
@pytest.mark.parametrize("how", [FLOAT16, UINT8, LogitsFormat("top-k", 8)], ids=str)
def test_logits_of_another_length_than_they_claim_are_refused(change: int, how: LogitsFormat) -> None:
    message = frame(random_logits(), how)
    message.data = message.data[:change] if change < 0 else message.data + b"\0"
    with pytest.raises(ProtocolViolation, match="bytes of logits"):
        read(message, logits_format=how)


def test_a_smaller_k_than_was_asked_for_is_refused() -> None:
    message = frame(random_logits(), LogitsFormat("top-k", 7))
    with pytest.raises(ProtocolViolation, match="bytes of logits"):
        read(message, logits_format=LogitsFormat("top-k", 8))


@pytest.mark.parametrize("how", [UINT8, LogitsFormat("top-k", 8), LogitsFormat("top-k", 64)], ids=str)
def test_logits_come_through_as_they_do_in_one_process(how: LogitsFormat) -> None:
    received = read(frame(random_logits(), how), logits_format=how)
    assert torch.equal(received, as_received(random_logits(), how).values)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    message = frame(random_logits(), FLOAT16)
    message.data = message.data[:-2] + struct.pack("<e", value)
    with pytest.raises(ProtocolViolation, match="not finite"):
        read(message)


def test_a_broken_model_is_noticed_by_the_other_side() -> None:
    with pytest.raises(ProtocolViolation, match="not finite"):
        read(frame(torch.full((4, 32), float("nan")), FLOAT16))


def test_a_timestep_of_the_papers_size_takes_few_bytes_each_way() -> None:
    """L = 25, V = 50,272: at most 6,000 bytes down with the 64 largest logits, and 150 up."""
    at = codec.StepPosition(number=10**6, block=10**3, step=999)
    logits = torch.randn(25, 50_272, generator=torch.Generator().manual_seed(0))
    down = pb.CollaborateResponse(block_logits=frame(logits, PREFERRED, at))
    assert down.ByteSize() <= 6_000
    x0_hat = torch.full((25, 50_272), -5.0).scatter(-1, torch.arange(50_247, 50_272)[:, None], 5.0)
    up = pb.CollaborateRequest(projection=codec.projection_to_proto(at, tokens_of(x0_hat > 0)))
    assert up.ByteSize() <= 150


@pytest.mark.parametrize(
    ("message", "head"),
    [
        (pb.CollaborateRequest(open=pb.Open(block_size=25)), codec.RequestHead(25, None)),
        (pb.CollaborateRequest(projection=pb.Projection(step=3)), codec.RequestHead(0, 4)),
        (pb.CollaborateRequest(projection=pb.Projection(step=3, is_commit=True)), codec.RequestHead(0, 0)),
        (pb.CollaborateRequest(close=pb.Close()), codec.RequestHead(0, None)),
    ],
)
def test_the_head_of_a_request_says_which_timestep_begins(
    message: pb.CollaborateRequest, head: codec.RequestHead
) -> None:
    assert codec.request_head(message.SerializeToString()) == head


def test_bytes_that_do_not_parse_have_no_head() -> None:
    assert codec.request_head(b"\xff\xff") is None
