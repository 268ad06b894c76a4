"""The figures of a server, after answers that ended in every way."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import grpc
import pytest
from prometheus_client import generate_latest

from core_server.access.certs import Authority
from core_server.access.keys import create_key
from core_server.catalogue.distribution import Tally
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend.server import CoreServer
from core_server.observability.metrics import ENDS
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import open_to_proto
from tests.core_server.conftest import PROMPT, Start, ending, eventually, open_request

PARAMS = DecodingParams(block_size=8, max_tokens=24, steps=3, stop=0.4)
CLOSE = pb.CollaborateRequest(close=pb.Close())


def projection(number: int = 0, block: int = 0, step: int = 0, **changes: bool) -> pb.CollaborateRequest:
    return pb.CollaborateRequest(
        projection=pb.Projection(number=number, block=block, step=step, token_ids=[5] * 8, **changes)
    )


def commit() -> pb.CollaborateRequest:
    """The end of the first block, at its first timestep."""
    return projection(is_commit=True)


def figure(server: CoreServer, name: str, **labels: str) -> float | None:
    return server.observation.metrics.registry.get_sample_value(f"slingshot_core_{name}", labels)


def ended(server: CoreServer, end: str) -> float | None:
    return figure(server, "sessions_ended_total", model="core", end=end)


async def test_a_whole_answer_is_counted(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served)
    tokens = await agent.decode(served, PARAMS, Seeds.reproducible(1))
    await eventually(lambda: ended(server, "closed") == 1)
    blocks = len(tokens) // PARAMS.block_size
    assert figure(server, "sessions_opened_total", model="core") == 1
    assert figure(server, "model_batched", model="core") == 1
    assert figure(server, "committed_tokens_total", model="core") == blocks * PARAMS.block_size
    assert figure(server, "timesteps_total", model="core") == blocks * PARAMS.steps
    assert figure(server, "unused_guesses_total", model="core") == 0
    assert figure(server, "client_answer_seconds_count") == blocks * PARAMS.steps - 1, "the last is answered by Close"

    await eventually(lambda: figure(server, "step_seconds_count", engine="0") == blocks * PARAMS.steps)
    assert figure(server, "batch_size_bucket", engine="0", le="1.0") == blocks * PARAMS.steps
    assert figure(server, "batch_size_sum", engine="0") == blocks * PARAMS.steps
    await eventually(lambda: figure(server, "slots_used_ratio", engine="0") == 0)
    assert figure(server, "steps_waiting", engine="0") == 0


async def test_the_last_block_of_every_answer_is_counted(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served)
    params = DecodingParams(block_size=8, max_tokens=8, steps=2)
    for number in range(10):
        await agent.decode(served, params, Seeds.reproducible(number))
    await eventually(lambda: ended(server, "closed") == 10)
    assert figure(server, "committed_tokens_total", model="core") == 10 * 8


@pytest.mark.parametrize("leave", ["cancel", "done_writing"])
async def test_a_block_that_its_agent_left_open_is_not_counted(served: LoadedModel, start: Start, leave: str) -> None:
    server, agent = await start(served)
    call, _ = await agent.open(open_request(served, PARAMS))
    await call.write(commit())
    await call.read()
    if leave == "cancel":
        call.cancel()
    else:
        await call.done_writing()
    await eventually(lambda: figure(server, "sessions_active") == 0)
    assert figure(server, "committed_tokens_total", model="core") == 8, "the first block"
    assert figure(server, "timesteps_total", model="core") == 2


async def test_blocks_that_are_replayed_after_a_break_count_again(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served)
    for is_last in (False, True):
        call, _ = await agent.open(open_request(served, PARAMS))
        await call.write(commit())
        await call.read()
        if is_last:
            await call.write(CLOSE)
            await ending(call)
        else:
            call.cancel()
    await eventually(lambda: ended(server, "closed") == 1)
    assert figure(server, "committed_tokens_total", model="core") == 8 + 16


async def test_guesses_that_nobody_used_are_counted_apart(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served)
    call, _ = await agent.open(open_request(served, PARAMS, speculation=2))
    sent = 1
    for _ in range(2):  # guesses at the projection of the first timestep, and of the second
        assert (await call.read()).block_logits.guess
        sent += 1
    wrong = [(token + 1) % 1782 for token in range(8)]
    await call.write(pb.CollaborateRequest(projection=pb.Projection(token_ids=wrong)))
    while True:
        sent += 1
        if not (await call.read()).block_logits.guess:
            break
    call.cancel()
    await eventually(lambda: figure(server, "sessions_active") == 0)
    assert figure(server, "timesteps_total", model="core") == 2
    assert figure(server, "unused_guesses_total", model="core") >= sent - 2


async def test_what_a_key_used_is_counted_by_its_id(served: LoadedModel, start: Start, tmp_path: Path) -> None:
    (key, entry), (_, unused) = (create_key(tmp_path / "keys.json", name) for name in ("alice", "bob"))
    server, agent = await start(served, keys=tmp_path / "keys.json")
    call = agent.stub.Collaborate(timeout=30, metadata=(("authorization", f"Bearer {key}"),))
    await call.write(pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS))))
    for message in (commit(), projection(1, 1, 0), CLOSE):
        await call.write(message)
    await ending(call)
    await eventually(lambda: ended(server, "closed") == 1)
    assert figure(server, "key_tokens_total", model="core", key=entry.id) == 2 * 8
    assert figure(server, "key_timesteps_total", model="core", key=entry.id) == 3
    assert figure(server, "key_tokens_total", model="core", key=unused.id) is None


async def test_without_keys_nothing_is_counted_by_key(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served)
    await agent.decode(served, PARAMS, Seeds.reproducible(1))
    shown = generate_latest(server.observation.metrics.registry).decode()
    assert not re.search(r"^slingshot_core_key_\w+_total\{", shown, re.MULTILINE)


async def test_bytes_are_those_of_the_messages(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served)
    request = pb.CollaborateRequest(projection=pb.Projection(token_ids=[5] * 8))
    before = figure(server, "message_bytes_total", direction="up")
    call, logits = await agent.open(open_request(served, PARAMS))
    opened = pb.CollaborateResponse(opened=pb.Opened(session_id="0" * 16)).ByteSize()
    sent_down = opened + pb.CollaborateResponse(block_logits=logits).ByteSize()
    await eventually(lambda: figure(server, "message_bytes_total", direction="down") == sent_down)
    sent_up = figure(server, "message_bytes_total", direction="up")
    await call.write(request)
    await call.read()
    assert before == 0
    assert figure(server, "message_bytes_total", direction="up") == sent_up + request.ByteSize()
    call.cancel()


async def test_slots_are_seen_while_they_are_used(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served, max_sessions=4)
    calls = [(await agent.open(open_request(served, PARAMS)))[0] for _ in range(3)]
    assert figure(server, "sessions_active") == 3
    await eventually(lambda: figure(server, "slots_used_ratio", engine="0") == 0.75)
    for call in calls:
        call.cancel()
    await eventually(lambda: figure(server, "sessions_active") == 0)
    await eventually(lambda: figure(server, "slots_used_ratio", engine="0") == 0)


async def test_every_way_to_end_has_its_count(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served, answer_timeout_s=3.0)
    assert {end: ended(server, end) for end in ENDS} == dict.fromkeys(ENDS, 0)
    for _ in range(2):
        call, _ = await agent.open(open_request(served, PARAMS))
        await call.write(CLOSE)
        await ending(call)
    call, _ = await agent.open(open_request(served, PARAMS))
    await call.done_writing()
    await ending(call)
    (await agent.open(open_request(served, PARAMS)))[0].cancel()
    call, _ = await agent.open(open_request(served, PARAMS))
    await call.write(pb.CollaborateRequest(projection=pb.Projection(token_ids=[5] * 7)))
    await ending(call)
    await ending((await agent.open(open_request(served, PARAMS)))[0])
    await agent.open(open_request(served, PARAMS))
    await agent.channel.close()

    expected = {"closed": 2, "block_shape_mismatch": 1, "core_timeout": 1}
    await eventually(lambda: figure(server, "sessions_active") == 0)
    found = {end: ended(server, end) or 0 for end in ENDS}
    # The end of a stream may be read before its cancellation is known.
    assert found["disconnected"] >= 1
    assert found.pop("disconnected") + found.pop("cancelled") == 3
    assert found == dict.fromkeys(found, 0) | expected
    assert figure(server, "sessions_opened_total", model="core") == 7


async def test_what_is_refused_is_counted_by_its_reason(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served, max_sessions=1)
    call, _ = await agent.open(open_request(served, PARAMS))
    opening = pb.CollaborateRequest(open=pb.Open(protocol_version=99))
    assert (await ending(await agent.send(opening))).code == "protocol_version_mismatch"
    opening = pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS)))
    assert (await ending(await agent.send(opening))).code == "core_busy"
    with pytest.raises(grpc.aio.AioRpcError):
        await agent.stub.GetModelCard(pb.GetModelCardRequest(model="other"))
    reasons = {"protocol_version_mismatch": 1, "core_busy": 1, "model_mismatch": 1, "core_timeout": 0}
    for reason, count in reasons.items():
        assert figure(server, "rejected_total", reason=reason) == count, reason
    assert figure(server, "sessions_opened_total", model="core") == 1
    call.cancel()


async def test_no_label_holds_what_an_agent_sent(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served)
    sentinel = "Zq9sentinel"
    await ending(await agent.send(pb.CollaborateRequest(open=pb.Open(protocol_version=2, model=sentinel))))
    with pytest.raises(grpc.aio.AioRpcError):
        await agent.stub.GetModelCard(pb.GetModelCardRequest(model=sentinel, family=sentinel))
    trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    call = agent.stub.Collaborate(metadata=(trace, ("x", sentinel)))
    await call.write(pb.CollaborateRequest(open=pb.Open(protocol_version=2, vocabulary_sha256=sentinel)))
    await ending(call)
    await agent.decode(served, PARAMS, Seeds.reproducible(1))
    shown = generate_latest(server.observation.metrics.registry).decode()
    labels = set(re.findall(r'(\w+)="([^"]*)"', shown))
    values = {name: {value for key, value in labels if key == name} for name, _ in labels}
    assert set(values) == {"model", "end", "reason", "direction", "engine", "le"}
    assert values["model"] == {"core"}
    assert values["engine"] == {"0"}
    assert values["direction"] == {"up", "down"}
    assert values["end"] == set(ENDS)
    assert values["reason"] < set(ENDS)
    assert sentinel not in shown
    assert "4bf92f35" not in shown
    assert str(PROMPT[-1]) not in {value for name, value in labels if name != "le"}


async def test_an_engine_says_how_it_stands_while_it_never_rests(
    served: LoadedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core_server.engine.process.HEARTBEAT_S", 0.0)
    server, agent = await start(served)
    (engine,) = server.observation.readiness.engines
    seen = []
    told = property(lambda _: seen[-1] if seen else None, lambda _, alive: seen.append(alive))
    monkeypatch.setattr(type(engine), "alive", told, raising=False)
    await asyncio.gather(*(agent.decode(served, PARAMS, Seeds.reproducible(number)) for number in range(3)))
    assert max(alive.steps_waiting for alive in seen) > 0, "it told while agents waited"


async def test_the_end_of_the_certificate_is_seen(served: LoadedModel, start: Start, tmp_path: Path) -> None:
    Authority.in_folder(tmp_path).sign_core(["localhost"], tmp_path, days=7)
    server, _ = await start(served, tls_certificate=tmp_path / "core.pem", tls_key=tmp_path / "core.key")
    left_s = figure(server, "certificate_expires_timestamp_seconds") - time.time()
    assert 0 <= 7 * 86_400 - left_s < 60
    without, _ = await start(served)
    assert figure(without, "certificate_expires_timestamp_seconds") is None


async def test_servers_share_no_figures(served: LoadedModel, start: Start) -> None:
    first, agent = await start(served)
    second, _ = await start(served)
    await agent.decode(served, PARAMS, Seeds.reproducible(1))
    await eventually(lambda: ended(first, "closed") == 1)
    assert ended(second, "closed") == 0


def test_a_value_on_a_bound_is_within_it() -> None:
    tally = Tally((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        tally.add(value)
    taken = tally.taken()
    assert (taken.counts, taken.total) == ((2, 2, 1), 7.5)
