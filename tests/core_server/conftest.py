"""A core server on a free port, and an agent made of nothing but the stubs and the sampler."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from core_server.config import ServerConfig
from core_server.engine.loaded_model import LoadedModel
from core_server.engine.process import Engine
from core_server.frontend.engine_client import EngineClient
from core_server.frontend.engines import Engines
from core_server.frontend.server import CoreServer
from core_server.observability.observation import Observation
from ssd2.algorithm.collaboration import Mixer, UserLogits, decode_locally
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.algorithm.projection import StepPosition
from ssd2.logits.format import FLOAT16, LogitsFormat
from ssd2.models.checkpoint import Checkpoint, load_checkpoint
from ssd2.models.denoiser import Denoiser
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.predict import begin_sampler
from ssd2.models.ssd2 import SSD2
from ssd2.models.tokenizer import Tokenizer
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire import collaboration_pb2_grpc as pb_grpc
from ssd2.wire.codec import (
    ERROR_CODE_KEY,
    MAX_MESSAGE_BYTES,
    OpenRequest,
    commit_to_proto,
    logits_from_proto,
    open_to_proto,
    projection_to_proto,
)
from ssd2.wire.tensors import unpack_logits
from tests.conftest import DEMO_TOKENIZER

CORE_ALONE = CollaborationParams(lambda_user=0.0)
PROMPT = (1, 20, 21, 22)


def serve_in_memory(model: SSD2 | TimeRangeExperts, name: str = "tiny") -> LoadedModel:
    """A model that was never on disk, as if it had been loaded."""
    return LoadedModel(name, Checkpoint(model, Tokenizer.from_file(DEMO_TOKENIZER), sha256="0" * 64, parameters=1))


def open_request(loaded: LoadedModel, params: DecodingParams, noise_seed: int = 7, **changes: Any) -> OpenRequest:
    """A request that the model can serve, unless changed."""
    served = loaded.served
    request = OpenRequest(
        model=served.name,
        family=served.card.family,
        model_sha256=served.card.model_sha256,
        vocabulary_sha256=served.card.vocabulary_sha256,
        vocab_size=served.card.vocab_size,
        prompt_ids=PROMPT,
        noise_seed=noise_seed,
        timesteps=params.timesteps,
        block_size=params.block_size,
        max_blocks=params.max_blocks,
        simplex_value=params.simplex_value,
        self_conditioning=params.self_conditioning,
        speculation=0,
        patience=0,
        logits_format=FLOAT16,
    )
    return replace(request, **changes)


def decode_alone(
    served: LoadedModel, params: DecodingParams, seeds: Seeds, logits_format: LogitsFormat = FLOAT16
) -> list[int]:
    """The reference: the same decode in one process."""
    model = served.checkpoint.model
    core = Denoiser(model, [PROMPT], params.self_conditioning)
    return decode_locally(
        core, None, CORE_ALONE, begin_sampler(model.config, params, [seeds]), logits_format=logits_format
    )[0]


@dataclass(frozen=True)
class Ending:
    """End of a call, as the agent sees it."""

    status: grpc.StatusCode
    details: str
    metadata: dict[str, str | bytes]

    @property
    def code(self) -> str | bytes | None:
        return self.metadata.get(ERROR_CODE_KEY)


class RawAgent:
    """The agent's side of the wire, message by message."""

    def __init__(self, channel: grpc.aio.Channel, port: int) -> None:
        self.channel, self.port = channel, port
        self.stub = pb_grpc.CollaborationServiceStub(channel)

    async def send(self, *messages: pb.CollaborateRequest) -> grpc.aio.StreamStreamCall:
        """Begin a stream with these messages."""
        call = self.stub.Collaborate(timeout=30)
        for message in messages:
            await call.write(message)
        return call

    async def open(self, request: OpenRequest) -> tuple[grpc.aio.StreamStreamCall, pb.BlockLogits]:
        """Open a stream and read the first logits."""
        call = await self.send(pb.CollaborateRequest(open=open_to_proto(request)))
        assert (await call.read()).opened.session_id
        return call, (await call.read()).block_logits

    async def decode(
        self,
        served: LoadedModel,
        params: DecodingParams,
        seeds: Seeds,
        logits_format: LogitsFormat = FLOAT16,
        **changes: Any,
    ) -> list[int]:
        """Decode with the core alone: the sampler here, the core's logits from the server."""
        request = open_request(served, params, seeds.noise, logits_format=logits_format, **changes)
        call, message = await self.open(request)
        sampler = begin_sampler(served.checkpoint.model.config, params, [seeds])
        while asked := sampler.due:
            at = StepPosition(message.number, asked.block, asked.step)
            packed = logits_from_proto(
                message,
                due=at,
                block_size=params.block_size,
                vocab_size=request.vocab_size,
                logits_format=logits_format,
            )
            sampler.step(Mixer(CORE_ALONE).mix(unpack_logits(packed).values, UserLogits(), 0).logits)
            if following := sampler.due:
                if following.projected:
                    answer = projection_to_proto(at, following.projected[0])
                else:
                    answer = commit_to_proto(at, following.answer_ids[0, -params.block_size :].tolist())
                await call.write(pb.CollaborateRequest(projection=answer))
                message = (await call.read()).block_logits
        await call.write(pb.CollaborateRequest(close=pb.Close()))
        assert (await ending(call)).status is grpc.StatusCode.OK
        return sampler.answers[0]


async def ending(call: grpc.aio.StreamStreamCall) -> Ending:
    """Read a call to its end."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError:
        pass
    return Ending(await call.code(), await call.details(), dict(await call.trailing_metadata()))


async def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until something becomes true, but not for ever."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # what is waited for is a plain number
            await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def served(core_folder: Path) -> LoadedModel:
    """The random core model, loaded."""
    return LoadedModel("core", load_checkpoint(core_folder))


@asynccontextmanager
async def engine_in_this_process(
    *models: LoadedModel, slots: int, timeout_s: float = 60.0
) -> AsyncIterator[EngineClient]:
    """An engine as a thread, on the same kind of line as one that is a process."""
    ours, theirs = socket.socketpair()

    def run() -> None:
        try:
            Engine(models, slots, theirs).run()
        finally:
            theirs.shutdown(socket.SHUT_RDWR)  # as the end of its process does

    client = EngineClient(*await asyncio.open_connection(sock=ours), timeout_s)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    await client.ready()
    try:
        yield client
    finally:
        client.close()
        await asyncio.to_thread(thread.join, 10)
        theirs.close()
    assert not thread.is_alive(), "the engine ends when the front end has hung up"


@asynccontextmanager
async def serving(
    engines: Engines, config: ServerConfig, observation: Observation | None = None
) -> AsyncIterator[tuple[CoreServer, RawAgent]]:
    """A server in this process, and an agent."""
    server = CoreServer(engines, config, observation)
    port = await server.start()
    limits = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=limits) as channel:
        try:
            yield server, RawAgent(channel, port)
        finally:
            await server.stop()


Start = Callable[..., Awaitable[tuple[CoreServer, RawAgent]]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a server in this process: `await start(served, max_sessions=2)` gives it and an agent."""
    async with AsyncExitStack() as stack:

        async def start_one(*served: LoadedModel, **settings: Any) -> tuple[CoreServer, RawAgent]:
            config = ServerConfig({}, **{"grace_s": 0.0, **settings})
            engine = await stack.enter_async_context(engine_in_this_process(*served, slots=config.max_sessions))
            return await stack.enter_async_context(serving(Engines([engine]), config))

        yield start_one
