"""What goes wrong between an agent and a core, made to happen; and how an answer that it happens to is looked at."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen

import grpc
import httpx

from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.errors import CoreError
from tests.core_server.conftest import RawAgent
from user_agent.answering.answer import Answer, CommittedBlock, Observer, ProjectedBlock
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

from .conftest import ENVIRONMENT, CoreProcess

SMALL_BUFFER_BYTES = 4096


# See docs/decisions/035-tests.md.
@asynccontextmanager
async def raw_agent(address: str) -> AsyncIterator[RawAgent]:
    """An agent that does on its line what a test says, and nothing else."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield RawAgent(channel, 0)


class Switchboard:
    """A TCP address that leads to one core, and then to another; what leads to the one is cut off, or falls silent.

    Attributes:
        address: of it.
        leads_to: where lines lead that are made from now on.
        silenced: lines that fell silent.
    """

    def __init__(self, leads_to: str) -> None:
        self.address, self.leads_to, self.silenced = "", leads_to, 0
        self._lines: set[asyncio.Task[None]] = set()
        self._flow = _Flow()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.add(line := asyncio.current_task())
        with suppress(OSError, asyncio.CancelledError):
            host, _, port = self.leads_to.rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port), limit=SMALL_BUFFER_BYTES)
            ways = [
                asyncio.create_task(_carry(reader, far_writer, self._flow)),
                asyncio.create_task(_carry(far_reader, writer, self._flow, is_down=True)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                far_writer.transport.abort()
                for way in ways:
                    way.cancel()
        writer.transport.abort()
        self._lines.discard(line)

    def cut(self, leads_to: str) -> None:
        """Break what there is, in the middle of whatever it carries; from now on it leads elsewhere."""
        self.leads_to = leads_to
        for line in self._lines:
            line.cancel()

    def fall_silent(self, leads_to: str) -> None:
        """What there is carries no byte more either way, and ends for neither side; new lines lead elsewhere."""
        self.hold()
        self.silenced += len(self._lines)
        self.leads_to, self._flow = leads_to, _Flow()

    def hold(self) -> None:
        """Carry nothing until it is let go."""
        self._flow.goes_on.clear()

    def release(self) -> None:
        """Carry on."""
        self._flow.goes_on.set()

    def trickle_down(self, pause_s: float) -> None:
        """From now on the agents' side takes a byte at a time, and this long for each."""
        self._flow.pause_s = pause_s


@dataclass
class _Flow:
    """Of all connections of a time: whether they carry anything, and how fast."""

    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    pause_s: float = 0.0

    def __post_init__(self) -> None:
        self.goes_on.set()


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: _Flow, *, is_down: bool = False
) -> None:
    with suppress(OSError):
        while data := await reader.read(1 if is_down and flow.pause_s else 1 << 16):
            await flow.goes_on.wait()
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(flow.pause_s if is_down else 0)
        await flow.goes_on.wait()


@asynccontextmanager
async def switchboard(address: str) -> AsyncIterator[Switchboard]:
    board = Switchboard(address)
    server = await asyncio.start_server(board.connected, "127.0.0.1", 0)
    board.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield board
    board.cut("")
    server.close()


class Fault(Observer):
    """Happens once, at a block and a timestep of it; None: as the block is committed.

    Attributes:
        happened: how often it has.
        waits: how often the agent has waited for the core since.
    """

    def __init__(self, happen: Callable[[], object], block: int, step: int | None) -> None:
        self._happen, self._at, self.happened, self.waits = happen, (block, step), 0, 0

    def waiting(self, error: CoreError, seconds: float) -> None:
        self.waits += 1

    def _maybe(self, block: int, step: int | None) -> None:
        if (block, step) == self._at:
            self.happened += 1
            self._happen()

    def projected(self, seen: ProjectedBlock) -> None:
        self._maybe(seen.block, seen.step)

    def committed(self, seen: CommittedBlock) -> bool:
        self._maybe(seen.block, None)
        return True


def question(instruction: str = "Where is it?", lambda_user: float = 0.3, **changes: object) -> Question:
    """Four blocks of twelve timesteps."""
    params = DecodingParams(block_size=8, max_tokens=32, steps=12, stop=0.4, **changes)
    passages = [Passage("The key is in the blue drawer.", Path("notes.md"), 1)] if lambda_user else ()
    collaboration = CollaborationParams(lambda_user, 1.0 if lambda_user else 0.0)
    return Question(instruction, passages, collaboration, params, Seeds.reproducible(3), speculation=2)


async def answered(
    user: UserModel,
    address: str,
    asked: Question,
    fault: Observer | None = None,
    *,
    within_s: float = 60,
    **client: object,
) -> Answer:
    """An answer over a line of its own, or its error; never later than it has to be there."""
    async with CoreClient(address, **{"ledger": Ledger.in_memory(), **client}) as line, asyncio.timeout(within_s):
        return await Agent(user, line).answer(asked, fault)


def ids(answer: Answer) -> list[int]:
    return [token.token_id for token in answer.tokens]


def metrics_page(core: CoreProcess) -> str:
    return httpx.get(f"{core.ops}/metrics", trust_env=False, timeout=30).text


def figures(core: CoreProcess) -> dict[str, float]:
    """What /metrics says, by the names without their prefix."""
    pairs = (line.rpartition(" ") for line in metrics_page(core).splitlines() if not line.startswith("#"))
    return {name.removeprefix("slingshot_core_"): float(value) for name, _, value in pairs}


def ended(core: CoreProcess, how: str) -> float:
    """How many answers of a core whose model is named tiny have ended in a way."""
    return figures(core)[f'sessions_ended_total{{end="{how}",model="tiny"}}']


async def until(condition: Callable[[], bool], within_s: float) -> None:
    """Wait for what a process shows from outside, but not for ever."""
    async with asyncio.timeout(within_s):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  # it is another process
            await asyncio.sleep(0.05)


async def let_go(cores: Sequence[CoreProcess], within_s: float) -> None:
    """Wait until cores hold no answer, and their engines no slot."""
    await until(lambda: not any(_holds(figures(core)) for core in cores), within_s)


def _holds(seen: dict[str, float]) -> bool:
    slots = seen.get('slots_used_ratio{engine="0"}', 1)  # missing until an engine that was started again has spoken
    return bool(seen["sessions_active"] or slots)


def asking(
    core: CoreProcess, user_folder: Path, environment: Mapping[str, str] = ENVIRONMENT, steps: int = 40
) -> Popen[str]:
    """A process that asks for an answer of four blocks of so many timesteps, on a line as it is by default."""
    asked = ("ask", "Where is it?", "--core", core.address, "--user-model", str(user_folder), "--lambda-user", "0")
    how = ("--max-tokens", "32", "--steps", str(steps), "--patience", "0", "--seed", "3", "--json", "--no-log")
    command = [sys.executable, "-m", "user_agent", *asked, *how]
    return Popen(command, stdout=PIPE, stderr=PIPE, text=True, env=environment)


def result(agent: Popen[str]) -> tuple[list[int], int]:
    """Tokens of a process' answer, and how often it has gone on."""
    out, err = agent.communicate(timeout=240)
    assert agent.returncode == 0, err
    answer = json.loads(out)
    return [token["token_id"] for token in answer["tokens"]], answer["resumed"]


def told_bytes(core: CoreProcess) -> float:
    """What agents have told a core."""
    return figures(core)['message_bytes_total{direction="up"}']


async def in_the_middle(core: CoreProcess, since_bytes: float) -> None:
    """Wait until an agent has told some projections."""
    await until(lambda: told_bytes(core) > since_bytes + 400, 240)
