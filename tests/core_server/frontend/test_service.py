from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import pytest
from torch import Tensor

from core_server.catalogue.errors import INTERNAL_MESSAGE
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend import service as service_module
from core_server.frontend.engines import Engines
from core_server.frontend.service import CollaborationService
from core_server.observability.logs import TextFormatter
from ssd2.algorithm.measured import MeasuredDecoding
from ssd2.algorithm.params import PROJECTIONS, DecodingParams, Seeds
from ssd2.algorithm.projection import StepPosition
from ssd2.logits.format import FLOAT16, UINT8, AllowedFormats, LogitsFormat
from ssd2.models.lane import Row
from ssd2.models.ssd2_lane import BatchLane
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import ModelCard, model_card_from_proto, open_to_proto
from tests.conftest import tiny_model
from tests.core_server.conftest import (
    Start,
    decode_alone,
    ending,
    engine_in_this_process,
    eventually,
    open_request,
    serve_in_memory,
)

PARAMS = DecodingParams(block_size=8, max_tokens=24, steps=3, stop=0.4)


def opening(served: LoadedModel, **changes: Any) -> pb.CollaborateRequest:
    """An Open whose fields are changed behind the codec's back."""
    message = open_to_proto(open_request(served, PARAMS))
    for name, value in changes.items():
        if isinstance(value, list):
            message.ClearField(name)
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    return pb.CollaborateRequest(open=message)


def projection(number: int = 0, block: int = 0, step: int = 0, **changes: Any) -> pb.CollaborateRequest:
    fields = {"token_ids": [5] * 8, **changes}
    return pb.CollaborateRequest(projection=pb.Projection(number=number, block=block, step=step, **fields))


CLOSE = pb.CollaborateRequest(close=pb.Close())


@pytest.mark.parametrize("self_conditioning", ["own", "projection"])
@pytest.mark.parametrize("kind", PROJECTIONS)
async def test_tokens_over_the_wire_are_those_of_one_process(
    served: LoadedModel, start: Start, kind: str, self_conditioning: str
) -> None:
    server, agent = await start(served)
    params = replace(PARAMS, projection=kind, self_conditioning=self_conditioning)
    seeds = [Seeds.reproducible(number) for number in range(5)]
    assert await agent.decode(served, params, seeds[0]) == decode_alone(served, params, seeds[0])

    answers = await asyncio.gather(*(agent.decode(served, params, pair) for pair in seeds[1:]))
    assert answers == [decode_alone(served, params, pair) for pair in seeds[1:]]
    assert len({tuple(answer) for answer in answers}) > 1
    await eventually(lambda: server.sessions_active == 0)


async def test_tokens_are_the_same_with_a_context_that_sees_the_timestep(start: Start) -> None:
    served = serve_in_memory(tiny_model(3, max_positions=64, context_timestep="quantised"))
    _, agent = await start(served)
    params = DecodingParams(block_size=4, max_tokens=12, steps=15, stop=0.4)
    seeds = Seeds.reproducible(1)
    assert await agent.decode(served, params, seeds) == decode_alone(served, params, seeds)


async def test_full_logits_of_the_papers_size_pass(start: Start) -> None:
    served = serve_in_memory(tiny_model(4, vocab_size=50_272, hidden_size=8, max_positions=64, block_size=25))
    _, agent = await start(served)
    params = DecodingParams(block_size=25, max_tokens=25, steps=2, stop=0.4, projection="multi-hot", top_p=0.9)
    seeds = Seeds.reproducible(1)
    assert await agent.decode(served, params, seeds) == decode_alone(served, params, seeds)


async def test_the_model_card_describes_the_model(served: LoadedModel, start: Start) -> None:
    _, agent = await start(served)
    card = model_card_from_proto(await agent.stub.GetModelCard(pb.GetModelCardRequest()))
    assert card == ModelCard(
        protocol_version=2,
        model="core",
        model_sha256=served.checkpoint.sha256,
        vocabulary_sha256=served.checkpoint.vocabulary_sha256,
        vocab_size=1782,
        block_size=8,
        max_prompt_tokens=96,
        max_block_size=64,
        parameters=sum(p.numel() for p in served.checkpoint.model.parameters()),
        family="ssd-2",
        logits_formats=AllowedFormats.parse("float16,uint8,top-k:1024"),
        measured=MeasuredDecoding(stop=0.4),
    )


BAD_OPENINGS: list[tuple[dict[str, Any], grpc.StatusCode, str, str]] = [
    ({"protocol_version": 1}, grpc.StatusCode.FAILED_PRECONDITION, "protocol_version_mismatch", "version 1"),
    ({"model": "other"}, grpc.StatusCode.FAILED_PRECONDITION, "model_mismatch", "there are: core (ssd-2)"),
    (
        {"vocabulary_sha256": "ab"},
        grpc.StatusCode.FAILED_PRECONDITION,
        "tokenizer_mismatch",
        "another vocabulary",
    ),
    ({"vocab_size": 1783}, grpc.StatusCode.FAILED_PRECONDITION, "tokenizer_mismatch", "1783"),
    ({"block_size": 65}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_parameter", "at most 64"),
    ({"block_size": 0}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_parameter", "block_size"),
    (
        {"max_blocks": 9},
        grpc.StatusCode.INVALID_ARGUMENT,
        "prompt_too_long",
        "an answer of 72 tokens leaves no room for a prompt; ask for one of at most 64 tokens",
    ),
    ({"max_blocks": 2**32 - 1}, grpc.StatusCode.INVALID_ARGUMENT, "prompt_too_long", "of at most 64 tokens"),
    ({"prompt_ids": [5] * 97}, grpc.StatusCode.INVALID_ARGUMENT, "prompt_too_long", "97 tokens"),
    ({"prompt_ids": []}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_parameter", "empty"),
    ({"prompt_ids": [5, 1782]}, grpc.StatusCode.INVALID_ARGUMENT, "token_out_of_range", "1782"),
    ({"timesteps": [400, 500]}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_parameter", "decrease"),
    ({"noise_seed": 2**63}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_parameter", "noise_seed"),
    ({"simplex_value": float("nan")}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_parameter", "simplex_value"),
    ({"self_conditioning": 0}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_parameter", "self_conditioning"),
    ({"logits_format": 0}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_parameter", "logits_format"),
    (
        {"logits_format": 3, "top_k": 1025},
        grpc.StatusCode.INVALID_ARGUMENT,
        "invalid_parameter",
        "it offers float16,uint8,top-k:1024",
    ),
]


@pytest.mark.parametrize(("changes", "status", "code", "words"), BAD_OPENINGS)
async def test_an_opening_that_cannot_be_served_is_refused(
    served: LoadedModel, start: Start, changes: dict[str, Any], status: grpc.StatusCode, code: str, words: str
) -> None:
    server, agent = await start(served)
    end = await ending(await agent.send(opening(served, **changes)))
    assert (end.status, end.code) == (status, code)
    assert words in end.details
    await eventually(lambda: server.sessions_active == 0)


@pytest.mark.parametrize("asked", [FLOAT16, UINT8, LogitsFormat("top-k", 65)], ids=str)
async def test_a_provider_that_allows_no_full_logits_sends_none(
    served: LoadedModel, start: Start, asked: LogitsFormat
) -> None:
    server, agent = await start(replace(served, logits_formats=AllowedFormats.parse("top-k:64")))
    card = model_card_from_proto(await agent.stub.GetModelCard(pb.GetModelCardRequest()))
    assert str(card.logits_formats) == "top-k:64"
    opening = pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS, logits_format=asked)))
    end = await ending(await agent.send(opening))
    assert (end.status, end.code) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_parameter")
    assert "it offers top-k:64" in end.details
    assert server.sessions_active == 0
    seeds, few = Seeds.reproducible(1), LogitsFormat("top-k", 64)
    assert await agent.decode(served, PARAMS, seeds, few) == decode_alone(served, PARAMS, seeds, few)


async def test_a_prompt_beyond_the_positions_is_refused(start: Start) -> None:
    served = serve_in_memory(tiny_model(6, max_positions=48))  # prompts begin at position 0
    _, agent = await start(served)
    params = DecodingParams(block_size=4, max_tokens=4, steps=2, stop=0.4)
    for prompt_tokens in (45, 5000):
        request = open_request(served, params, prompt_ids=(5,) * prompt_tokens)
        end = await ending(await agent.send(pb.CollaborateRequest(open=open_to_proto(request))))
        assert end.code == "prompt_too_long"
        assert "takes at most 44" in end.details


async def test_a_model_may_be_asked_for_by_no_name(served: LoadedModel, start: Start) -> None:
    _, agent = await start(served)
    call = await agent.send(opening(served, model=""))
    assert (await call.read()).WhichOneof("message") == "opened"
    call.cancel()


BAD_ANSWERS: list[tuple[pb.CollaborateRequest, str, str]] = [
    (projection(number=1), "protocol_violation", "number=0"),
    (projection(block=1), "protocol_violation", "block=0"),
    (projection(step=1), "protocol_violation", "step=0"),
    (projection(token_ids=[5] * 7), "block_shape_mismatch", "8 positions"),
    (projection(token_ids=[5] * 9, counts=[2] + [1] * 7, is_commit=True), "block_shape_mismatch", "exactly one"),
    (projection(token_ids=[1782] * 8), "token_out_of_range", "1782"),
    (pb.CollaborateRequest(), "protocol_violation", "something else"),
]


@pytest.mark.parametrize(("message", "code", "words"), BAD_ANSWERS)
async def test_an_answer_that_makes_no_sense_ends_the_stream(
    served: LoadedModel, start: Start, message: pb.CollaborateRequest, code: str, words: str
) -> None:
    server, agent = await start(served)
    call, _ = await agent.open(open_request(served, PARAMS))
    await call.write(message)
    end = await ending(call)
    assert (end.status, end.code) == (grpc.StatusCode.INVALID_ARGUMENT, code)
    assert words in end.details
    await eventually(lambda: server.sessions_active == 0)


async def test_a_second_open_ends_the_stream(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served)
    call, _ = await agent.open(open_request(served, PARAMS))
    await call.write(opening(served))
    end = await ending(call)
    assert (end.status, end.code) == (grpc.StatusCode.INVALID_ARGUMENT, "protocol_violation")
    await eventually(lambda: server.sessions_active == 0)


@pytest.mark.parametrize("first", [projection(), CLOSE, pb.CollaborateRequest()])
async def test_a_stream_begins_with_open(served: LoadedModel, start: Start, first: pb.CollaborateRequest) -> None:
    _, agent = await start(served)
    end = await ending(await agent.send(first))
    assert (end.status, end.code) == (grpc.StatusCode.INVALID_ARGUMENT, "protocol_violation")
    assert "Open" in end.details


async def test_bytes_that_are_no_message_are_a_violation(served: LoadedModel, start: Start) -> None:
    _, agent = await start(served)
    stream = agent.channel.stream_stream(f"/{service_module.SERVICE_NAME}/Collaborate")()
    await stream.write(b"\xff\xff\xff")
    card = agent.channel.unary_unary(f"/{service_module.SERVICE_NAME}/GetModelCard")(b"\xff\xff\xff")
    for call in (stream, card):
        trailer = dict(await call.trailing_metadata())
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert trailer["slingshot-error-code"] == "protocol_violation"
        assert "bytes that do not parse" in await call.details()


async def test_the_slot_is_free_after_a_half_close_without_close(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served)
    call, _ = await agent.open(open_request(served, PARAMS))
    assert server.sessions_active == 1
    await call.done_writing()
    await ending(call)
    await eventually(lambda: server.sessions_active == 0)


async def test_the_slot_is_free_after_a_cancel(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served)
    call, _ = await agent.open(open_request(served, PARAMS))
    assert server.sessions_active == 1
    call.cancel()
    await eventually(lambda: server.sessions_active == 0)


async def test_the_slot_is_free_after_the_connection_is_gone(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served)
    await agent.open(open_request(served, PARAMS))
    assert server.sessions_active == 1
    await agent.channel.close()
    await eventually(lambda: server.sessions_active == 0)


@dataclass
class Blocked:
    """Computations of one timestep that stand still until they are let go."""

    at: StepPosition
    computing: threading.Event = field(default_factory=threading.Event)
    going_on: threading.Event = field(default_factory=threading.Event)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Blocked:
        compute = BatchLane.logits

        def compute_when_let(lane: BatchLane, rows: Sequence[Row]) -> Tensor:
            if any(row.state.at == self.at for row in rows):
                self.computing.set()
                assert self.going_on.wait(10)
            return compute(lane, rows)

        monkeypatch.setattr(BatchLane, "logits", compute_when_let)
        return self


async def test_a_cancel_during_a_computation_frees_the_slot(
    served: LoadedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = Blocked(StepPosition(1, 0, 1)).install(monkeypatch)
    server, agent = await start(served, max_sessions=1)
    call, _ = await agent.open(open_request(served, PARAMS))
    await call.write(projection())
    await eventually(blocked.computing.is_set)
    assert server.sessions_active == 1
    call.cancel()
    await eventually(lambda: server.sessions_active == 0)
    blocked.going_on.set()
    (await agent.open(open_request(served, PARAMS)))[0].cancel()


async def test_an_agent_that_answers_a_wrong_guess_ends_its_own_answer_and_no_other(
    served: LoadedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two projections at once, the second for logits that assumed another first: the engine has none to go with it."""
    blocked = Blocked(StepPosition(2, 0, 2)).install(monkeypatch)
    server, agent = await start(served, speculation=2)
    bystander, _ = await agent.open(open_request(served, PARAMS))
    call, _ = await agent.open(open_request(served, PARAMS, speculation=2))
    guess = (await call.read()).block_logits.guess
    assert guess
    await eventually(blocked.computing.is_set)
    await call.write(projection(token_ids=[token ^ 1 for token in guess]))
    await call.write(projection(1, step=1))
    answered = server.observation.metrics.client_answer_seconds
    await eventually(lambda: sum(answered.taken().counts) == 2)
    blocked.going_on.set()
    end = await ending(call)
    assert (end.status, end.code) == (grpc.StatusCode.INVALID_ARGUMENT, "protocol_violation")
    assert "wait for those that are due" in end.details
    await bystander.write(projection())
    assert (await bystander.read()).block_logits.number == 1
    await bystander.write(CLOSE)
    await eventually(lambda: server.sessions_active == 0)


async def test_no_more_is_computed_ahead_than_the_provider_allows(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served, speculation=1)
    call, _ = await agent.open(open_request(served, PARAMS, speculation=2))

    seen, figure = server.observation.metrics.registry, ("slingshot_core_step_seconds_count", {"engine": "0"})
    await eventually(lambda: seen.get_sample_value(*figure) == 2)  # what is due and one guess, said once it rests
    call.cancel()


async def test_one_session_too_many_is_told_that_the_core_is_busy(served: LoadedModel, start: Start) -> None:
    _, agent = await start(served, max_sessions=1)
    first, _ = await agent.open(open_request(served, PARAMS))
    end = await ending(await agent.send(opening(served)))
    assert (end.status, end.code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "core_busy")
    assert "limit of 1 answer" in end.details

    await first.write(CLOSE)
    assert (await ending(first)).status is grpc.StatusCode.OK
    third, _ = await agent.open(open_request(served, PARAMS))
    third.cancel()


async def test_the_front_end_answers_while_the_engine_computes(
    served: LoadedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = Blocked(StepPosition(0, 0, 0)).install(monkeypatch)
    _, agent = await start(served)
    opening_one = asyncio.create_task(agent.open(open_request(served, PARAMS)))
    await eventually(blocked.computing.is_set)
    await agent.stub.GetModelCard(pb.GetModelCardRequest(), timeout=5)
    assert not opening_one.done()
    blocked.going_on.set()
    (await opening_one)[0].cancel()


@pytest.mark.parametrize("has_opened", [True, False])
async def test_a_silent_agent_is_given_up(served: LoadedModel, start: Start, has_opened: bool) -> None:
    server, agent = await start(served, answer_timeout_s=0.2)
    call = (await agent.open(open_request(served, PARAMS)))[0] if has_opened else await agent.send()
    end = await ending(call)
    assert (end.status, end.code) == (grpc.StatusCode.DEADLINE_EXCEEDED, "core_timeout")
    assert "sent nothing for 0.2 s" in end.details
    await eventually(lambda: server.sessions_active == 0)


async def test_the_time_that_the_engine_takes_is_not_the_agent_s(
    served: LoadedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = Blocked(StepPosition(1, 0, 1)).install(monkeypatch)
    _, agent = await start(served, answer_timeout_s=0.4)
    call, _ = await agent.open(open_request(served, PARAMS))
    await call.write(projection())
    await eventually(blocked.computing.is_set)
    await asyncio.sleep(1)
    blocked.going_on.set()
    assert (await call.read()).block_logits.step == 1
    call.cancel()


async def test_an_agent_has_a_moment_for_open_and_no_longer(
    served: LoadedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No limit of sessions holds streams back on which nothing has come."""
    monkeypatch.setattr(service_module, "OPEN_TIMEOUT_S", 0.2)
    _, agent = await start(served)
    call = await agent.send()
    end = await ending(call)
    assert (end.status, end.code) == (grpc.StatusCode.DEADLINE_EXCEEDED, "core_timeout")
    call, _ = await agent.open(open_request(served, PARAMS))
    await asyncio.sleep(0.4)
    await call.write(CLOSE)
    assert (await ending(call)).status is grpc.StatusCode.OK


async def test_an_agent_that_is_never_silent_and_never_done_is_given_up(served: LoadedModel, start: Start) -> None:
    """Else it would keep a slot from others for as long as it likes."""
    server, agent = await start(served, session_timeout_s=2.0)
    call, _ = await agent.open(open_request(served, PARAMS))
    for number in range(2):
        await call.write(projection(number, step=number))
        await asyncio.sleep(0.1)
    end = await ending(call)
    assert (end.status, end.code) == (grpc.StatusCode.DEADLINE_EXCEEDED, "core_timeout")
    assert "took more than 2 s" in end.details
    await eventually(lambda: server.sessions_active == 0)


async def test_an_unexpected_exception_stays_inside(
    served: LoadedModel, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> list[Tensor | None]:
        raise RuntimeError("/srv/secret/model.bin")

    server, agent = await start(served)
    call, _ = await agent.open(open_request(served, PARAMS))
    monkeypatch.setattr(BatchLane, "logits", fail)
    await call.write(projection())
    end = await ending(call)
    assert (end.status, end.details, end.code) == (grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE, None)
    assert "secret" not in str(end.metadata)
    assert "an answer failed with RuntimeError" in caplog.text
    log = "\n".join(map(TextFormatter().format, caplog.records))
    assert re.search(r"\n  \S+test_service.py:\d+ in fail\n", log), "the log says where"
    assert "secret" not in log
    await eventually(lambda: server.sessions_active == 0)


async def test_the_log_holds_nothing_that_an_agent_sent(
    served: LoadedModel, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="core_server")
    _, agent = await start(served)
    await ending(await agent.send(opening(served, prompt_ids=[5, 987654321])))
    call, _ = await agent.open(open_request(served, PARAMS))
    await call.write(projection(token_ids=[987654321] * 8))
    assert "987654321" in (await ending(call)).details
    assert "token_out_of_range" in caplog.text
    assert "987654321" not in caplog.text


class StuckPeer:
    """An rpc context whose agent reads nothing more."""

    def __init__(self, message: pb.CollaborateRequest) -> None:
        self.message = message
        self.aborted_with: grpc.StatusCode | None = None
        self.on_abort: Callable[[], object] = lambda: None

    def invocation_metadata(self) -> None:
        return None

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def peer(self) -> str:
        return "unix:"

    async def read(self) -> bytes:
        return self.message.SerializeToString()

    async def write(self, message: bytes) -> None:
        await asyncio.sleep(60)

    async def abort(self, status: grpc.StatusCode, *_: object) -> None:
        self.aborted_with = status
        self.on_abort()
        await asyncio.sleep(60)


async def test_an_agent_that_reads_nothing_is_given_up(served: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "ABORT_TIMEOUT_S", 0.05)
    async with engine_in_this_process(served, slots=1) as engine:
        service = CollaborationService(Engines([engine]), max_sessions=1, answer_timeout_s=0.05)
        peer, held = StuckPeer(opening(served)), []
        peer.on_abort = lambda: held.append(service.sessions_active)
        async with asyncio.timeout(5):
            await service.Collaborate(None, peer)  # type: ignore[arg-type]
        assert peer.aborted_with is grpc.StatusCode.DEADLINE_EXCEEDED
        assert held == [0], "its place is free before it is told, which it may never hear"
