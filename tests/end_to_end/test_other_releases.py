"""An agent and a core of different releases: they work together, or the user is told what to do.

Messages of protocol version 2 are written here by field number, independent of the contract in this tree. So a change
of the contract that it cannot follow, without a new protocol version, fails a test. Version 1 compared the hashes of
tokenizer files, in the fields that hold the fingerprint of the vocabulary now.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from core_server.catalogue import served_model
from core_server.engine.loaded_model import LoadedModel
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.errors import ModelMismatch, ProtocolVersionMismatch, ProtocolViolation, SlingshotError
from ssd2.models.checkpoint import load_checkpoint
from ssd2.wire import codec
from tests.core_server.conftest import Ending, Start, ending, start  # noqa: F401  # a fixture
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

COLLABORATE, GET_MODEL_CARD = (
    f"/slingshot.collaboration.v1.CollaborationService/{name}" for name in ("Collaborate", "GetModelCard")
)
VOCAB, LENGTH = 1782, 4
FLOAT16_IN_V2, OWN_IN_V2 = 1, 1


class Fixed64(int):
    """A number that takes 8 bytes."""


def encoded(fields: Mapping[int, Any]) -> bytes:
    """Write a message by the numbers of its fields."""
    return b"".join(_encoded_field(number, value) for number, value in fields.items())


def _encoded_field(number: int, value: Any) -> bytes:
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, Fixed64):
        return _varint(number << 3 | 1) + struct.pack("<Q", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, list):
        value = b"".join(_varint(one) for one in value)
    elif isinstance(value, dict):
        value = encoded(value)
    elif isinstance(value, str):
        value = value.encode()
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def decoded(data: bytes) -> dict[int, Any]:
    """Read a message by the numbers of its fields, the last of each; what has a length as bytes."""
    fields: dict[int, Any] = {}
    stream = iter(data)
    for first in stream:
        tag = _read_varint(stream, first)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            fields[number] = _read_varint(stream, next(stream))
        else:
            size = {1: 8, 5: 4}.get(kind) or _read_varint(stream, next(stream))
            fields[number] = bytes(next(stream) for _ in range(size))
    return fields


def _read_varint(stream: Iterator[int], byte: int) -> int:
    value, shift = byte & 127, 7
    while byte > 127:
        byte = next(stream)
        value, shift = value | (byte & 127) << shift, shift + 7
    return value


def numbers(data: bytes) -> list[int]:
    """Read a repeated field of numbers."""
    stream = iter(data)
    return [_read_varint(stream, first) for first in stream]


@pytest.fixture(scope="module")
def served(core_folder: Path) -> LoadedModel:
    return LoadedModel("core", load_checkpoint(core_folder))


def open_of_v2(served: LoadedModel, **changes: Any) -> bytes:
    """First message of an agent of version 2, with some fields changed."""
    fields: dict[int, Any] = {
        1: 2,  # protocol_version
        2: "core",
        3: served.checkpoint.vocabulary_sha256,
        4: VOCAB,
        5: [1, 20, 21, 22],  # prompt_ids
        6: Fixed64(7),  # noise_seed
        7: [900, 500],  # timesteps
        8: LENGTH,
        9: 2,  # max_blocks
        10: 5.0,  # simplex_value
        11: OWN_IN_V2,
        12: served.checkpoint.sha256,
        13: "ssd-2",
        14: FLOAT16_IN_V2,
        16: 0,  # speculation
        17: 0,  # patience
    }
    return encoded({1: {**fields, **{int(name.lstrip("_")): value for name, value in changes.items()}}})


def projection_of_v2(number: int, block: int, step: int, *, is_commit: bool) -> bytes:
    return encoded({2: {1: number, 2: block, 3: step, 4: [5] * LENGTH, 6: int(is_commit)}})


async def test_an_agent_of_v2_is_answered(served: LoadedModel, start: Start) -> None:  # noqa: F811
    _, agent = await start(served)
    card = decoded(await agent.channel.unary_unary(GET_MODEL_CARD)(encoded({1: "", 2: "ssd-2"})))
    assert (card[1], card[2], card[5], card[10]) == (2, b"core", VOCAB, b"ssd-2")
    assert card[4].decode() == served.checkpoint.vocabulary_sha256

    call = agent.channel.stream_stream(COLLABORATE)()
    await call.write(open_of_v2(served))
    assert decoded(decoded(await call.read())[1])[1], "it has no session id"
    for number, (block, step) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        logits = decoded(decoded(await call.read())[2])
        at = {1: number, 2: block, 3: step}  # what is 0 is not written
        assert {name: logits.get(name, 0) for name in at} == at
        assert (logits[4], logits[5], logits[6]) == (LENGTH, VOCAB, FLOAT16_IN_V2)
        assert len(logits[7]) == LENGTH * VOCAB * 2
        if number < 3:
            await call.write(projection_of_v2(number, block, step, is_commit=step == 1))
    await call.write(encoded({3: b""}))
    assert (await ending(call)).status is grpc.StatusCode.OK


async def refusal(served: LoadedModel, start: Start, opening: bytes) -> Ending:  # noqa: F811
    _, agent = await start(served)
    call = agent.channel.stream_stream(COLLABORATE)()
    await call.write(opening)
    return await ending(call)


async def test_an_agent_of_v2_is_told_what_to_do_by_a_core_of_another_protocol(
    served: LoadedModel,
    start: Start,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (codec, served_model):
        monkeypatch.setattr(module, "PROTOCOL_VERSION", 3)
    end = await refusal(LoadedModel("core", served.checkpoint), start, open_of_v2(served))
    assert (end.status, end.code) == (grpc.StatusCode.FAILED_PRECONDITION, "protocol_version_mismatch")
    assert end.details.endswith("install the same release on both sides")


async def test_an_agent_that_compares_tokenizer_files_is_told_what_to_do(served: LoadedModel, start: Start) -> None:  # noqa: F811
    opening = open_of_v2(served, _1=1, _3=served.checkpoint.tokenizer.sha256)
    end = await refusal(served, start, opening)
    assert (end.status, end.code) == (grpc.StatusCode.FAILED_PRECONDITION, "protocol_version_mismatch")
    assert end.details.endswith("install the same release on both sides")


async def test_what_a_newer_agent_adds_to_an_opening_is_passed_over(served: LoadedModel, start: Start) -> None:  # noqa: F811
    _, agent = await start(served)
    call = agent.channel.stream_stream(COLLABORATE)()
    await call.write(open_of_v2(served, _98=7, _99="of a later release"))
    assert 1 in decoded(await call.read())
    assert 2 in decoded(await call.read())
    call.cancel()


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"_13": "block-diffusion", "_2": ""}, "model_mismatch", "there are: core (ssd-2)"),
        ({"_14": 9}, "invalid_parameter", "logits_format"),
        ({"_11": 9}, "invalid_parameter", "self_conditioning must be OWN or PROJECTION"),
        ({"_1": 3}, "protocol_version_mismatch", "install the same release on both sides"),
    ],
)
async def test_a_newer_agent_is_told_what_this_core_does_not_have(
    served: LoadedModel,
    start: Start,  # noqa: F811
    changes: dict[str, Any],
    code: str,
    words: str,
) -> None:
    end = await refusal(served, start, open_of_v2(served, **changes))
    assert end.code == code
    assert words in end.details


class OtherCore(grpc.GenericRpcHandler):
    """Core of another release, by the bytes that it sends.

    Attributes:
        opened: what it was sent as Open.
        projections: that it was sent, each as its fields.
    """

    def __init__(self, card: bytes) -> None:
        self._card = card
        self.address = ""
        self.opened: list[dict[int, Any]] = []
        self.projections: list[dict[int, Any]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method == GET_MODEL_CARD:
            return grpc.unary_unary_rpc_method_handler(self._tell_card)
        return grpc.stream_stream_rpc_method_handler(self._answer) if details.method == COLLABORATE else None

    async def _tell_card(self, _: bytes, __: object) -> bytes:
        return self._card

    async def _answer(self, requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        """Give each timestep the same logits: token 10 at the first position, 11 at the next, and so on."""
        number = block = step = 0
        async for data in requests:
            ((kind, value),) = decoded(data).items()
            if kind == 3:
                return
            fields = decoded(value)
            if kind == 1:
                self.opened.append(fields)
                yield encoded({1: {1: "session"}})
            else:
                self.projections.append(fields)
                number, block, step = number + 1, *((block + 1, 0) if fields.get(6) else (block, step + 1))
            at = {1: number, 2: block, 3: step, 4: LENGTH, 5: VOCAB, 6: FLOAT16_IN_V2}
            yield encoded({2: {**at, 7: _float16_logits()}})


def _float16_logits() -> bytes:
    rows = ([0.0 if token == 10 + position else -5.0 for token in range(VOCAB)] for position in range(LENGTH))
    return b"".join(struct.pack(f"<{VOCAB}e", *row) for row in rows)


def card_of_v2(vocabulary_sha256: str, **changes: Any) -> bytes:
    """Model card of a core of version 2, with some fields changed."""
    limits = {5: VOCAB, 6: 8, 7: 96, 8: 64, 9: 1000}
    fields = {1: 2, 2: "core", 3: "0" * 64, 4: vocabulary_sha256, **limits, 10: "ssd-2", 11: [FLOAT16_IN_V2]}
    return encoded({**fields, **{int(name.lstrip("_")): value for name, value in changes.items()}})


@asynccontextmanager
async def other_core(card: bytes) -> AsyncIterator[OtherCore]:
    core, server = OtherCore(card), grpc.aio.server()
    server.add_generic_rpc_handlers((core,))
    core.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield core
    finally:
        await server.stop(0)


@pytest.fixture(scope="module")
def user(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=False)


async def asked(user: UserModel, core: OtherCore) -> list[int]:
    params = DecodingParams(block_size=LENGTH, max_tokens=8, steps=2, stop=0.4, projection="greedy")
    question = Question("Where is it?", (), CollaborationParams(0.0, 0.0), params, Seeds.reproducible(1))
    async with CoreClient(core.address, Ledger.in_memory(), patience_s=0) as client:
        return [token.token_id for token in (await Agent(user, client).answer(question)).tokens]


async def test_a_core_of_v2_is_asked_in_its_own_words(user: UserModel) -> None:
    async with other_core(card_of_v2(user.vocabulary_sha256)) as core:
        tokens = await asked(user, core)
    assert tokens == [10, 11, 12, 13] * 2
    (opened,) = core.opened
    assert (opened[1], opened[4], opened[8], opened[9], opened[11], opened[14]) == (2, VOCAB, LENGTH, 2, 1, 1)
    assert opened[3].decode() == user.vocabulary_sha256
    assert (opened[12], opened[13]) == (b"0" * 64, b"ssd-2")
    assert numbers(opened[5]) == user.core_prompt("Where is it?")
    assert len(numbers(opened[7])) == 2
    assert set(opened) <= set(range(1, 18)), "a core of version 2 would pass over the others"
    assert [numbers(projection[4]) for projection in core.projections] == [[10, 11, 12, 13]] * 3
    assert [projection.get(6, 0) for projection in core.projections] == [0, 1, 0]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"_1": 1, "_4": "the hash of a tokenizer.json"}, ProtocolVersionMismatch),
        ({"_1": 3}, ProtocolVersionMismatch),
        ({"_1": 3, "_50": "of a later release", "_51": [1, 2, 3]}, ProtocolVersionMismatch),
        ({"_11": [8, 9]}, ProtocolViolation),
    ],
)
async def test_an_agent_sends_no_question_to_a_core_of_another_protocol(
    user: UserModel, changes: dict[str, Any], error: type[SlingshotError]
) -> None:
    async with other_core(card_of_v2(user.vocabulary_sha256, **changes)) as core:
        with pytest.raises(error, match="install the same release on both sides"):
            await asked(user, core)
    assert core.opened == []


async def test_an_agent_takes_of_a_newer_card_what_it_knows(user: UserModel) -> None:
    """Of the same protocol: a format and a field more."""
    card = card_of_v2(user.vocabulary_sha256, _11=[9, FLOAT16_IN_V2], _50="of a later release")
    async with other_core(card) as core:
        assert await asked(user, core) == [10, 11, 12, 13] * 2


async def test_an_agent_says_which_family_a_core_offers(user: UserModel) -> None:
    async with other_core(card_of_v2(user.vocabulary_sha256, _10="block-diffusion")) as core:
        with pytest.raises(ModelMismatch, match="use a user model of the core's family"):
            await asked(user, core)
    assert core.opened == []
