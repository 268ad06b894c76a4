"""A core whose model an upstream computes: its tokens are those of the model, and its faults are errors."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from core_server.catalogue.engine_messages import Start, Upstream
from core_server.config import ServerConfig
from core_server.engine.loaded_model import LoadedModel
from core_server.engine.upstream.faults import UpstreamFault
from core_server.engine.upstream.process import serve
from core_server.engine.upstream.replies import read_largest
from core_server.frontend.engine_client import EngineClient, running_engine
from core_server.frontend.engines import Engines
from core_server.frontend.server import CoreServer
from core_server.frontend.session import CoreSession
from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.collaboration import decode_locally
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.algorithm.projection import FIRST
from ssd2.errors import EngineLost, InsecureLine, InvalidParameter, ModelNotFound, SlingshotError, TokenizerMismatch
from ssd2.logits.format import ANY_FORMAT, AllowedFormats, LogitsFormat
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.predict import begin, begin_sampler
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import PackedLogits, commit_to_proto, open_to_proto
from ssd2.wire.tensors import pack_logits, unpack_logits
from tests.core_server.conftest import (
    CORE_ALONE,
    PROMPT,
    RawAgent,
    ending,
    engine_in_this_process,
    eventually,
    open_request,
    serving,
)
from tests.families import save_llama
from tests.upstream_server import Dropped, Endless, Silent, Top, UpstreamServer

VOCAB = 2048
UPSTREAM, UPSTREAM_MODEL = "SLINGSHOT_TEST_UPSTREAM", "SLINGSHOT_TEST_UPSTREAM_MODEL"
QUANTISED = 0.5
"""Two log-probabilities this close may change places: llama.cpp computes with activations of eight bits."""

KINDS = ("vllm", "sglang", "llama.cpp")
TOP_64 = LogitsFormat("top-k", 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llama"
    save_llama(folder, VOCAB)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return LoadedModel("tiny", load_checkpoint(folder))


@lru_cache(maxsize=256)  # a server of each kind is asked the same, and the reference too
def next_logits(loaded: LoadedModel, ids: tuple[int, ...]) -> torch.Tensor:
    """Logits of the next token, [V], by the predictor that our own lanes use."""
    view = BlockView(
        block=0,
        step=0,
        timestep=1000,
        block_size=1,
        answer_ids=torch.zeros(1, 0, dtype=torch.int64),
        trail=(),
        noise_seeds=(0,),
        simplex_value=5.0,
    )
    return begin(loaded.checkpoint.model, [ids], "own").logits(view)[0, 0]


def upstream_of(loaded: LoadedModel, kind: str = "vllm", **more: object) -> UpstreamServer:
    def largest(ids: object, k: int) -> Top:
        found = next_logits(loaded, tuple(ids)).log_softmax(-1).topk(k)
        return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))

    return UpstreamServer(kind, largest, **more)


@asynccontextmanager
async def engine_of(
    url: str,
    folder: Path,
    *,
    slots: int = 4,
    timeout_s: float = 30.0,
    logits: AllowedFormats = ANY_FORMAT,
    model: str = "tiny",
    key_file: Path | None = None,
) -> AsyncIterator[EngineClient]:
    """An upstream engine as a task, on the same kind of line as one that is a process."""
    ours, theirs = socket.socketpair()
    upstream = Upstream(url, model, key_file, timeout_s)
    start = Start({model: folder}, slots, ("cpu",), "float32", logits, 1, False, 60.0, "info", "text", upstream)
    reader, writer = await asyncio.open_connection(sock=theirs)
    engine = asyncio.create_task(serve(start, reader, writer))
    client = EngineClient(*await asyncio.open_connection(sock=ours), 60.0)
    try:
        await client.ready()
        yield client
    finally:
        client.close()
        async with asyncio.timeout(10):
            await engine
        writer.close()


def hosted_by(engine: EngineClient, loaded: LoadedModel) -> LoadedModel:
    """The model under the card that the upstream's engine gives it; its weights are the reference's."""
    hosted = replace(loaded)
    hosted.__dict__["served"] = engine.models[0]  # a cached property
    return hosted


@asynccontextmanager
async def core_of(
    server: UpstreamServer, loaded: LoadedModel, folder: Path, **settings: object
) -> AsyncIterator[tuple[RawAgent, LoadedModel]]:
    async with (
        engine_of(server.url, folder, **settings) as engine,
        serving(Engines([engine]), ServerConfig({}, grace_s=0.0)) as (_, agent),
    ):
        yield agent, hosted_by(engine, loaded)


def params_of(loaded: LoadedModel, tokens: int, projection: str = "greedy") -> DecodingParams:
    return DecodingParams.for_model(loaded.checkpoint.model.config, max_tokens=tokens, projection=projection)


def reference(loaded: LoadedModel, params: DecodingParams, seeds: Seeds) -> list[int]:
    model = loaded.checkpoint.model
    core = begin(model, [PROMPT], params.self_conditioning)
    return decode_locally(core, None, CORE_ALONE, begin_sampler(model.config, params, [seeds]), logits_format=TOP_64)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("projection", ["greedy", "sampling"])
async def test_the_tokens_are_those_of_our_own_predictor(
    loaded: LoadedModel, folder: Path, kind: str, projection: str
) -> None:
    params, seeds = params_of(loaded, 12, projection), Seeds.reproducible(3)
    async with upstream_of(loaded, kind).listening() as server, core_of(server, loaded, folder) as (agent, hosted):
        found = await agent.decode(hosted, params, seeds, TOP_64)
    assert found == reference(loaded, params, seeds)
    assert len(found) == 12 or projection == "greedy"


@pytest.mark.parametrize("k", [1, 5, 64, 1024])
async def test_ids_and_steps_are_those_of_full_logits_and_the_tail_too(
    loaded: LoadedModel, folder: Path, k: int
) -> None:
    how = LogitsFormat("top-k", k)
    async with upstream_of(loaded).listening() as server, core_of(server, loaded, folder) as (agent, hosted):
        request = open_request(hosted, params_of(loaded, 1), logits_format=how)
        call, message = await agent.open(request)
        call.cancel()
    found = unpack_logits(PackedLogits(1, VOCAB, how, message.data)).top_k
    expected_data = pack_logits(next_logits(loaded, PROMPT)[None], how)
    expected = unpack_logits(expected_data).top_k
    assert found
    assert expected
    assert torch.equal(found.ids, expected.ids)
    assert message.data[-k:] == expected_data.data[-k:]  # distances
    assert torch.allclose(found.tail.exp(), expected.tail.exp(), atol=1e-5)


KNOWN = VOCAB - 64
"""V of a user model with fewer rows, as the smaller ones of Gemma have."""


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory, loaded: LoadedModel) -> LoadedModel:
    """A model to which ids that its user model does not have seem the likeliest."""
    likeliest = next_logits(loaded, PROMPT).topk(VOCAB - KNOWN).indices
    folder = tmp_path_factory.mktemp("models") / "padded"
    network = save_llama(folder, VOCAB)
    with torch.no_grad():
        network.lm_head.weight[KNOWN:] = 1.1 * network.lm_head.weight[likeliest]
    network.save_pretrained(folder)
    return LoadedModel("tiny", load_checkpoint(folder))


@pytest.mark.parametrize("kind", KINDS)
async def test_rows_are_cut_to_the_smaller_vocabulary_of_the_user_model(
    padded: LoadedModel, folder: Path, kind: str
) -> None:
    whole = next_logits(padded, PROMPT)
    assert whole.argmax() >= KNOWN, "or nothing is cut"
    async with upstream_of(padded, kind).listening() as server, core_of(server, padded, folder) as (agent, hosted):
        request = open_request(hosted, params_of(padded, 1), logits_format=TOP_64, vocab_size=KNOWN)
        call, message = await agent.open(request)
        call.cancel()
    expected = pack_logits(whole[None, :KNOWN], TOP_64)
    assert message.data[4:] == expected.data[4:]  # ids and distances
    found, tail = (unpack_logits(PackedLogits(1, KNOWN, TOP_64, one)).top_k for one in (message.data, expected.data))
    assert torch.allclose(found.tail.exp(), tail.tail.exp(), atol=1e-4), "what is left out has no part in the tail"


async def test_too_few_entries_of_the_smaller_vocabulary_are_an_error_that_says_so(
    padded: LoadedModel, folder: Path
) -> None:
    few = upstream_of(padded, max_logprobs=64)
    async with few.listening() as server, core_of(server, padded, folder) as (agent, hosted):
        opening = open_to_proto(open_request(hosted, params_of(hosted, 8), logits_format=TOP_64, vocab_size=KNOWN))
        ended = await ending(await agent.send(pb.CollaborateRequest(open=opening)))
        assert (ended.code, "ask for top-k:32" in ended.details) == ("invalid_parameter", True)


async def test_an_agent_learns_how_many_log_probabilities_the_upstream_gives(loaded: LoadedModel, folder: Path) -> None:
    few = upstream_of(loaded, max_logprobs=20)
    async with few.listening() as server, core_of(server, loaded, folder) as (agent, hosted):
        assert str(hosted.served.card.logits_formats) == "top-k:20"
        for how in (TOP_64, LogitsFormat("float16"), LogitsFormat("uint8")):
            ended = await ending(await agent.send(_opening(hosted, how)))
            assert (ended.code, "it offers top-k:20" in ended.details) == ("invalid_parameter", True)


def _opening(hosted: LoadedModel, how: LogitsFormat = TOP_64) -> pb.CollaborateRequest:
    return pb.CollaborateRequest(open=open_to_proto(open_request(hosted, params_of(hosted, 8), logits_format=how)))


def _changed(index: int, entry: tuple[object, object]) -> Callable[[Top], object]:
    return lambda top: [*top[:index], entry, *top[index + 1 :]]


def _status(status: int) -> Callable[[Top], object]:
    return lambda _: (status, b'{"error": {"message": "the prompt was: 1 20 21"}}')


def _texts() -> object:
    return {"choices": [{"logprobs": {"top_logprobs": [{" a": -1.0}]}}]}


FAULTS: dict[str, tuple[str, Callable[[Top], object], str, str]] = {
    "too few": ("vllm", lambda top: top[:-1], "model_broken", "63 log-probabilities where 64"),
    "too many": ("sglang", lambda top: [*top, *((i, -50.0) for i in (2000, 2001))], "model_broken", "66 log-prob"),
    "NaN": ("vllm", _changed(3, (7, math.nan)), "model_broken", "not finite"),
    "infinity": ("llama.cpp", _changed(63, (7, -math.inf)), "model_broken", "not finite"),
    "no number": ("llama.cpp", _changed(3, (7, "x")), "model_broken", "not finite"),
    "true": ("llama.cpp", _changed(0, (7, True)), "model_broken", "not finite"),
    "an id outside V": ("vllm", _changed(63, (VOCAB, -40.0)), "model_broken", "outside the vocabulary"),
    "a negative id": ("llama.cpp", _changed(63, (-1, -40.0)), "model_broken", "outside the vocabulary"),
    "a fraction": ("sglang", _changed(63, (1.5, -40.0)), "model_broken", "outside the vocabulary"),
    "an id twice": ("sglang", lambda top: [*top[:-1], (top[0][0], top[-1][1])], "model_broken", "twice"),
    "unsorted": ("sglang", lambda top: [*top[:-2], top[-1], top[-2]], "model_broken", "do not descend"),
    "above 1": ("vllm", lambda top: [(i, p + 0.5) for i, p in top], "model_broken", "more than 1"),
    "far above 1": ("vllm", _changed(0, (0, 1e300)), "model_broken", "more than 1"),
    "not the largest": ("vllm", lambda top: [(i, p - 9.0) for i, p in top], "model_broken", "smaller ones"),
    "texts": ("vllm", lambda _: _texts(), "model_broken", "no token ids"),
    "another form": ("vllm", lambda _: {"choices": []}, "model_broken", "without log-probabilities"),
    "a list": ("llama.cpp", lambda _: b"[1, 2]", "model_broken", "without log-probabilities"),
    "no JSON": ("vllm", lambda _: b"<html>", "model_broken", "not JSON"),
    "deep JSON": ("vllm", lambda _: b"[" * 60_000, "model_broken", "not JSON"),
    "HTTP 400": ("vllm", _status(400), "model_broken", "HTTP status 400"),
    "HTTP 401": ("vllm", _status(401), "model_broken", "HTTP status 401"),
    "a redirect": ("vllm", _status(307), "model_broken", "HTTP status 307"),
    "HTTP 429": ("vllm", _status(429), "core_busy", "HTTP status 429"),
    "HTTP 500": ("vllm", _status(500), "engine_lost", "HTTP status 500"),
    "HTTP 503": ("sglang", _status(503), "engine_lost", "HTTP status 503"),
    "a body without end": ("vllm", lambda _: Endless(), "model_broken", "more than 131072 bytes"),
    "a broken connection": ("vllm", lambda _: Dropped(), "engine_lost", "could not be reached"),
    "silence": ("vllm", lambda _: Silent(), "core_timeout", "within 0.5 s"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_of_the_upstream_ends_the_answer_with_an_error_and_a_log_line(
    name: str, loaded: LoadedModel, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind, fault, code, words = FAULTS[name]
    params, seeds = params_of(loaded, 3), Seeds.reproducible(3)
    caplog.set_level(logging.INFO)
    async with (
        upstream_of(loaded, kind).listening() as server,
        core_of(server, loaded, folder, timeout_s=0.5 if name == "silence" else 30.0) as (agent, hosted),
    ):
        server.fault = fault
        ended = await ending(await agent.send(_opening(hosted)))
        assert (ended.code, "the server that computes for" in ended.details) == (code, True)
        server.fault = None
        again = await agent.decode(hosted, params, seeds, TOP_64)
    assert again == reference(loaded, params, seeds), "the next answer is served"
    (line,) = [record.message for record in caplog.records if "an answer ended: the upstream" in record.message]
    assert words in line
    assert "1 20 21" not in caplog.text + ended.details, "nothing that an agent sent is in a log"


async def test_an_upstream_that_dies_ends_answers_and_one_that_returns_serves_again(
    loaded: LoadedModel, folder: Path
) -> None:
    params, seeds = params_of(loaded, 3), Seeds.reproducible(3)
    server = upstream_of(loaded)
    async with server.listening():
        core = core_of(server, loaded, folder)
        agent, hosted = await core.__aenter__()
    try:
        ended = await ending(await agent.send(_opening(hosted)))
        assert ended.code == "engine_lost"
        async with server.listening(int(server.url.rpartition(":")[2])):
            found = await agent.decode(hosted, params, seeds, TOP_64)
        assert found == reference(loaded, params, seeds)
    finally:
        await core.__aexit__(None, None, None)


@asynccontextmanager
async def watched(
    server: UpstreamServer, folder: Path, monkeypatch: pytest.MonkeyPatch, idle_s: float = 0.02
) -> AsyncIterator[CoreServer]:
    """A core that asks its upstream, and tells how it stands, every few milliseconds."""
    for name, value in (("watch.IDLE_S", idle_s), ("watch.SUSPECT_S", 0.02), ("process.HEARTBEAT_S", 0.01)):
        monkeypatch.setattr(f"core_server.engine.upstream.{name}", value)
    async with (
        engine_of(server.url, folder) as engine,
        serving(Engines([engine]), ServerConfig({}, grace_s=0.0)) as (core, _),
    ):
        yield core


def obstacle(core: CoreServer) -> str:
    return core.observation.readiness.obstacle or ""


async def test_a_core_is_not_ready_while_its_upstream_is_down_and_ready_again_afterwards(
    loaded: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = upstream_of(loaded)
    async with AsyncExitStack() as running:
        await running.enter_async_context(server.listening())
        core = await running.enter_async_context(watched(server, folder, monkeypatch))
        await eventually(lambda: able(core) == 1)
        assert not obstacle(core)
        server.fault = lambda _: Dropped()
        await eventually(lambda: obstacle(core).startswith("the upstream could not be reached"))
        assert able(core) == 0
        server.fault = None
        await eventually(lambda: not obstacle(core))
        assert able(core) == 1
    said = [record.message for record in caplog.records if record.message.startswith("the core is")]
    assert [line.partition(":")[0] for line in said] == ["the core is not ready", "the core is ready again"]


def able(core: CoreServer) -> float | None:
    return core.observation.metrics.registry.get_sample_value("slingshot_core_engine_able", {"engine": "0"})


async def test_one_failed_question_changes_no_readiness(
    loaded: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, seen = upstream_of(loaded), set[str]()
    every_second = itertools.cycle([(503, b"{}"), None])
    async with server.listening(), watched(server, folder, monkeypatch) as core:
        server.fault = lambda top: next(every_second) or top
        asked = len(server.asked)
        while len(server.asked) < asked + 10:
            seen.add(obstacle(core))
            await asyncio.sleep(0.005)
    assert seen == {""}


async def test_a_busy_upstream_is_no_reason_to_be_not_ready(
    loaded: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = upstream_of(loaded)
    async with server.listening(), watched(server, folder, monkeypatch) as core:
        server.fault, asked = _status(429), len(server.asked)
        await eventually(lambda: len(server.asked) > asked + 4)
        assert not obstacle(core)


async def test_an_answer_that_fails_has_the_upstream_asked_at_once(
    loaded: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = upstream_of(loaded)
    async with server.listening(), watched(server, folder, monkeypatch, idle_s=600.0) as core:
        server.fault = _status(500)
        await asyncio.sleep(0.1)
        assert not obstacle(core), "nobody asks while the last answer is fresh"
        (engine,) = core.observation.readiness.engines
        request = open_request(hosted_by(engine, loaded), params_of(loaded, 2), logits_format=TOP_64)
        with engine.answer(CoreSession(0, request, engine.models[0]).begin()) as frames, pytest.raises(EngineLost):
            await frames.next()
        await eventually(lambda: "HTTP status 500" in obstacle(core))


async def test_many_answers_are_asked_for_side_by_side_and_one_at_a_time_each(
    loaded: LoadedModel, folder: Path
) -> None:
    params = params_of(loaded, 4, "sampling")
    async with upstream_of(loaded).listening() as server, core_of(server, loaded, folder) as (agent, hosted):
        server.delay_s = 0.05
        all_seeds = [Seeds.reproducible(number) for number in range(4)]
        found = await asyncio.gather(*(agent.decode(hosted, params, one, TOP_64) for one in all_seeds))
        assert server.most_open == 4
    assert found == [reference(loaded, params, one) for one in all_seeds]


async def test_it_asks_ahead_on_the_likeliest_token_and_drops_wrong_guesses(loaded: LoadedModel, folder: Path) -> None:
    async with upstream_of(loaded).listening() as server, core_of(server, loaded, folder) as (agent, hosted):
        request = open_request(hosted, params_of(loaded, 8), logits_format=TOP_64, speculation=2)
        call, first = await agent.open(request)
        ahead = [(await call.read()).block_logits for _ in range(2)]
        likeliest = int(next_logits(loaded, PROMPT).argmax())
        assert (first.guess, [len(one.guess) for one in ahead], ahead[0].guess) == ([], [1, 1], [likeliest])
        other = (likeliest + 1) % VOCAB
        await call.write(pb.CollaborateRequest(projection=commit_to_proto(FIRST, [other])))
        due = (await call.read()).block_logits
        assert (due.number, list(due.guess)) == (1, [])
        await eventually(lambda: server.asked[-1]["prompt"][:5] == [*PROMPT, other])
        call.cancel()


async def test_a_wrong_guess_under_way_is_dropped(loaded: LoadedModel, folder: Path) -> None:
    async with upstream_of(loaded).listening() as server, core_of(server, loaded, folder) as (agent, hosted):
        server.delay_s = 0.2  # the guess is being asked for when the token arrives
        request = open_request(hosted, params_of(loaded, 8), logits_format=TOP_64, speculation=1)
        call, _ = await agent.open(request)
        other = (int(next_logits(loaded, PROMPT).argmax()) + 1) % VOCAB
        await call.write(pb.CollaborateRequest(projection=commit_to_proto(FIRST, [other])))
        while (due := (await call.read()).block_logits).guess:
            pass
        call.cancel()
    expected = pack_logits(next_logits(loaded, (*PROMPT, other))[None], TOP_64)
    assert due.data[4:] == expected.data[4:]  # behind the tail


async def test_prefix_caches_are_shared_within_a_scope_only(loaded: LoadedModel, folder: Path) -> None:
    async with upstream_of(loaded).listening() as server, engine_of(server.url, folder) as engine:
        served = engine.models[0]
        request = open_request(hosted_by(engine, loaded), params_of(loaded, 4), logits_format=TOP_64)
        for number, scope in enumerate(["alice", "alice", "bob", None, None]):
            with engine.answer(CoreSession(number, request, served).begin(scope)) as frames:
                await frames.next()
        salts = [body["cache_salt"] for body in server.asked[-5:]]
    assert salts[0] == salts[1]
    assert len(set(salts)) == 4
    assert not any(word in salt for salt in salts for word in ("alice", "bob"))


@pytest.mark.parametrize(
    ("changes", "settings", "error", "words"),
    [
        ({"model": "other"}, {}, ModelNotFound, "no model 'tiny'; it has: other"),
        ({"meta": {"meta": {"n_vocab": 49_152}}}, {}, TokenizerMismatch, "49152"),
        ({"key": "s3cret"}, {}, InvalidParameter, "requires an API key"),
        ({"fault": lambda _: b"{}"}, {}, InvalidParameter, "without log-probabilities"),
        ({"fault": lambda _: _texts()}, {}, InvalidParameter, "no token ids"),
        (
            {"max_logprobs": 20},
            {"logits": AllowedFormats.parse("top-k:64")},
            InvalidParameter,
            "offer fewer, or let the upstream give more",
        ),
    ],
)
async def test_an_upstream_that_cannot_be_used_is_refused_at_the_start(
    changes: dict[str, object],
    settings: dict[str, AllowedFormats],
    error: type[SlingshotError],
    words: str,
    loaded: LoadedModel,
    folder: Path,
) -> None:
    async with upstream_of(loaded, **changes).listening() as server:
        with pytest.raises(error, match=words):
            async with engine_of(server.url, folder, **settings):
                pass


async def test_an_upstream_that_is_not_there_is_refused_at_the_start(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(InvalidParameter, match=r"could not be reached \(ConnectError\)"):
        async with engine_of(url, folder):
            pass


async def test_the_key_comes_from_a_file_or_a_variable_and_never_crosses_unencrypted(
    loaded: LoadedModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text("s3cret\n")
    async with upstream_of(loaded, key="s3cret").listening() as server:
        async with engine_of(server.url, folder, key_file=file):
            pass
        monkeypatch.setenv("SLINGSHOT_UPSTREAM_KEY", "s3cret")
        async with engine_of(server.url, folder):
            assert server.headers["authorization"] == "Bearer s3cret"
    with pytest.raises(InsecureLine, match="unencrypted"):
        async with engine_of("http://192.0.2.1:8000", folder):
            pass
    with pytest.raises(InvalidParameter, match="cannot read the upstream's key"):
        async with engine_of(server.url, folder, key_file=tmp_path / "nothing"):
            pass


async def test_the_upstream_s_context_is_the_model_s(loaded: LoadedModel, folder: Path) -> None:
    short = upstream_of(loaded, meta={"max_model_len": 100})
    async with short.listening() as server, engine_of(server.url, folder) as engine:
        assert engine.models[0].card.max_prompt_tokens == 99


async def test_a_context_may_be_limited_further(loaded: LoadedModel, folder: Path) -> None:
    async with upstream_of(loaded).listening() as server:
        config = ServerConfig(upstream=server.url, upstream_model="tiny", tokenizer=folder, max_context=50)
        async with running_engine(config, 0) as engine:
            assert engine.models[0].card.max_prompt_tokens == 49


async def test_the_front_end_hears_how_the_engine_stands(loaded: LoadedModel, folder: Path) -> None:
    async with upstream_of(loaded).listening() as server, engine_of(server.url, folder, slots=3) as engine:
        await eventually(lambda: engine.alive is not None)
        assert engine.alive
        assert (engine.alive.slots, engine.alive.slots_used) == (3, 0)
        request = open_request(hosted_by(engine, loaded), params_of(loaded, 4), logits_format=TOP_64)
        with engine.answer(CoreSession(0, request, engine.models[0]).begin()) as frames:
            await frames.next()
            await eventually(lambda: engine.alive is not None and engine.alive.slots_used == 1)
        assert sum(engine.alive.step_seconds.counts) == 1


async def test_the_engine_is_a_process_that_ends_with_its_front_end(loaded: LoadedModel, folder: Path) -> None:
    async with upstream_of(loaded).listening() as server:
        config = ServerConfig(upstream=f"{server.url}/v1/", upstream_model="tiny", tokenizer=folder, max_sessions=2)
        async with running_engine(config, 0) as engine, serving(Engines([engine]), config) as (_, agent):
            params, seeds = params_of(loaded, 3), Seeds.reproducible(5)
            found = await agent.decode(hosted_by(engine, loaded), params, seeds, TOP_64)
        assert engine.is_gone
    assert (engine.slots, found) == (2, reference(loaded, params, seeds))


def _log_of(*probabilities: float) -> list[tuple[object, object]]:
    return [(token_id, math.log(p)) for token_id, p in enumerate(probabilities)]


def test_the_tail_is_what_the_sum_leaves() -> None:
    found = read_largest(_log_of(0.5, 0.25, 0.125), 3, 100, are_ordered=True)
    assert found.ids == (0, 1, 2)
    assert math.exp(found.tail) == pytest.approx(0.125)


def test_a_whole_vocabulary_leaves_nothing() -> None:
    assert read_largest(_log_of(0.5, 0.5), 20, 2, are_ordered=True).tail == -math.inf


def test_a_tail_below_rounding_is_not_taken_for_smaller_than_it_may_be() -> None:
    """A tail that is too small would prove more than is true; what has no room for rounding is bounded by it."""
    roomy = read_largest([(0, -1e-7), (1, -18.0)], 2, 50_000, are_ordered=True)
    assert math.exp(roomy.tail) == pytest.approx(1e-5)
    tight = read_largest([(0, -1e-9), (1, -30.0)], 2, 50_000, are_ordered=True)
    assert math.exp(tight.tail) == pytest.approx(49_998 * math.exp(-30.0))


def test_the_token_drawn_may_stand_beside_the_largest_but_is_not_sent() -> None:
    entries = [(7, math.log(0.01)), *_log_of(0.5, 0.2)]
    assert read_largest(entries, 2, 100, are_ordered=False).ids == (0, 1)
    with pytest.raises(UpstreamFault, match="do not descend"):
        read_largest(entries, 2, 100, are_ordered=True)


@pytest.fixture(scope="module")
def smollm2(smollm2_folder: Path) -> LoadedModel:
    return LoadedModel("smollm2", load_checkpoint(smollm2_folder))


def _real_prompt(loaded: LoadedModel, text: str) -> tuple[int, ...]:
    return tuple(loaded.checkpoint.tokenizer.encode(text))


async def _written(agent: RawAgent, hosted: LoadedModel, prompt: tuple[int, ...], tokens: int) -> list[int]:
    """Write greedily with the core alone, by the largest logit as it arrives."""
    request = open_request(hosted, params_of(hosted, tokens), logits_format=TOP_64, prompt_ids=prompt)
    call, message = await agent.open(request)
    found, at = list[int](), FIRST
    while True:
        packed = PackedLogits(1, request.vocab_size, TOP_64, message.data)
        found.append(int(unpack_logits(packed).values.argmax()))
        if len(found) == tokens:
            call.cancel()
            return found
        await call.write(pb.CollaborateRequest(projection=commit_to_proto(at, found[-1:])))
        message, at = (await call.read()).block_logits, at.after(is_commit=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["The capital of France is", "A short list of fruits:"])
async def test_the_tokens_of_a_real_model_are_its_own(
    smollm2: LoadedModel, smollm2_folder: Path, kind: str, text: str
) -> None:
    prompt, server = _real_prompt(smollm2, text), upstream_of(smollm2, kind, model="smollm2")
    async with server.listening(), core_of(server, smollm2, smollm2_folder, model="smollm2") as (agent, hosted):
        found = await _written(agent, hosted, prompt, 12)
    for at, token in enumerate(found):
        assert token == int(next_logits(smollm2, (*prompt, *found[:at])).argmax())


TEXTS = (
    *("The capital of France is", "A short list of fruits:", "Once upon a time", "Water boils at"),
    *("My favourite colour is", "The first president of", "To bake bread, you need", "In the year 1969"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("projection", "speculation"), [("greedy", 2), ("sampling", 0)])
async def test_eight_answers_at_once_have_the_tokens_of_our_own_lane(
    smollm2: LoadedModel, smollm2_folder: Path, projection: str, speculation: int
) -> None:
    params, prompts = params_of(smollm2, 8, projection), [_real_prompt(smollm2, text) for text in TEXTS]

    async def all_of(agent: RawAgent, hosted: LoadedModel) -> list[list[int]]:
        asked = (
            agent.decode(hosted, params, Seeds.reproducible(number), TOP_64, prompt_ids=prompt, speculation=speculation)
            for number, prompt in enumerate(prompts)
        )
        return await asyncio.gather(*asked)

    async with (
        engine_in_this_process(smollm2, slots=8) as engine,
        serving(Engines([engine]), ServerConfig({}, grace_s=0.0)) as (_, agent),
    ):
        expected = await all_of(agent, smollm2)
    server = upstream_of(smollm2, model="smollm2")
    settings = {"model": "smollm2", "slots": 8}
    async with server.listening(), core_of(server, smollm2, smollm2_folder, **settings) as (agent, hosted):
        found = await all_of(agent, hosted)
    assert found == expected
    assert len({tuple(tokens) for tokens in found}) == len(TEXTS)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["The capital of France is", "A short list of fruits:"])
async def test_the_tokens_of_a_real_upstream_are_the_model_s(
    smollm2: LoadedModel, smollm2_folder: Path, text: str
) -> None:
    """Runs against llama.cpp's server, vLLM or SGLang with SmolLM2-135M-Instruct."""
    if not (url := os.environ.get(UPSTREAM)):
        pytest.skip(f"no upstream runs; give the URL of one with {UPSTREAM}, its model's name with {UPSTREAM_MODEL}")
    name, prompt = os.environ.get(UPSTREAM_MODEL, "smollm2"), _real_prompt(smollm2, text)
    hosted_as = LoadedModel(name, smollm2.checkpoint)
    server = UpstreamServer("", lambda _ids, _k: [], url=url)  # stands for the real one
    async with core_of(server, hosted_as, smollm2_folder, model=name) as (agent, hosted):
        found = await _written(agent, hosted, prompt, 24)
    for at, token in enumerate(found):
        own = next_logits(smollm2, (*prompt, *found[:at])).log_softmax(-1)
        assert float(own.max() - own[token]) < QUANTISED
