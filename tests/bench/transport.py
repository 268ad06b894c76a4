"""What the way between device and core costs, timestep by timestep, and what going on with guesses wins back.

The same questions in one process, over loopback gRPC, encrypted, and over connections whose round trip takes longer
(`tests.bench.delaying_proxy`: delay alone, no loss and no limit of bandwidth), with and without speculation. All ways
in turns, with one server, and one more for TLS; each process computes with one thread.

    step_ms_p50   between the logits of one timestep and of the next, over all answers
    block_s       from the open stream to a block's last logits, a block; median over answers
    answer_s      the whole answer with connecting, the core's card, Open and Close; median over answers
    bytes_*       payload of the messages, without gRPC's framing
    hit_rate      share of timesteps whose logits the core had sent ahead
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.collaboration import decode_locally
from ssd2.algorithm.projection import StepPosition
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.model import Model
from ssd2.models.predict import Predictor, begin, begin_sampler
from ssd2.wire.codec import OpenRequest
from tests.bench.asked import THREADS, asked_items, committed_tokens, question
from tests.bench.delaying_proxy import delayed
from tests.bench.progress import say
from tests.end_to_end.certificates import certificates
from tests.end_to_end.conftest import running_core
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.line.client import CoreClient
from user_agent.line.credentials import CoreCredentials
from user_agent.line.patience import OnWait
from user_agent.line.resuming_stream import ResumingStream
from user_agent.store.ledger import Ledger


@dataclass(frozen=True)
class Line:
    """What lies between device and core.

    Attributes:
        rtt_ms: added to a round trip.
        tls: whether the connection is encrypted.
    """

    rtt_ms: float = 0.0
    tls: bool = False


@dataclass(frozen=True)
class Way:
    """How the two models are connected.

    Attributes:
        path: "in process" or "grpc".
        line: of gRPC.
        speculation: timesteps that the core may send ahead.
    """

    path: str
    line: Line = Line()
    speculation: int = 0


@dataclass(frozen=True)
class CoreEnd:
    """Where a line ends.

    Attributes:
        address: HOST:PORT.
        ca: file of the authority that the core's certificate is signed by.
    """

    address: str
    ca: Path | None = None


@dataclass
class Trip:
    """One answer.

    Attributes:
        times: when the stream was open, and then when each timestep's logits were there, in seconds.
        seconds: of the whole answer.
        tokens: of the answer.
        bytes_up: payload to the core.
        bytes_down: payload from it.
        hits: timesteps whose logits had been sent ahead.
    """

    times: list[float] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    hits: int = 0


def run(
    *, core: Path, user: Path, runs: int, rtt_ms: Sequence[float], speculation: int, max_tokens: int
) -> Iterator[dict[str, object]]:
    """Measure all ways.

    Args:
        core: folder of θ_core.
        user: folder of θ_user.
        runs: questions that each way is asked.
        rtt_ms: round trips to be added.
        speculation: timesteps ahead, where there is speculation.
        max_tokens: longest answer.
    """
    torch.set_num_threads(THREADS)
    loaded, network = UserModel.load(user, with_weights=True), load_checkpoint(core).model
    questions = [question(loaded, item, n, max_tokens) for n, item in enumerate(asked_items(runs))]
    ways = [Way("in process")]
    lines = [Line(), Line(tls=True), *(Line(rtt) for rtt in rtt_ms)]
    ways += [Way("grpc", line, ahead) for line in lines for ahead in (0, speculation)]
    trips: dict[Way, list[Trip]] = {way: [] for way in ways}
    with ExitStack() as stack:
        options = ("--threads", str(THREADS), "--speculation", str(speculation))
        ends = _core_ends(stack, core, lines, options)
        for line in lines:  # the first answer warms both processes up
            _over_grpc(questions[0], ends[line], loaded, 0)
        for number, asked in enumerate(questions):
            for way in ways:
                if way.path == "in process":
                    trips[way].append(_in_process(asked, network, loaded))
                else:
                    trips[way].append(_over_grpc(asked, ends[way.line], loaded, way.speculation))
            say(f"run {number + 1} of {runs}")
    for way in ways:
        yield _figures(way, trips[way], questions)


def _core_ends(stack: ExitStack, core: Path, lines: Sequence[Line], options: Sequence[str]) -> dict[Line, CoreEnd]:
    """A core server, one with TLS, and the ways there, ended with the stack."""
    files = certificates(Path(stack.enter_context(tempfile.TemporaryDirectory())))
    near = stack.enter_context(running_core(core, *options)).address
    encrypted = stack.enter_context(running_core(core, *options, *files.core_options)).address
    of_its_name = encrypted.replace("127.0.0.1", "localhost")
    return {
        line: CoreEnd(of_its_name, files.ca)
        if line.tls
        else CoreEnd(stack.enter_context(delayed(near, line.rtt_ms)) if line.rtt_ms else near)
        for line in lines
    }


def _in_process(asked: Question, core: Model, user: UserModel) -> Trip:
    params, started = asked.params, time.perf_counter()
    trip = Trip()
    prompt = user.core_prompt(asked.instruction)
    (tokens,) = decode_locally(
        _Timed(begin(core, [prompt], params.self_conditioning), trip.times),
        user.terms(asked.instruction, asked.passages, asked.collaboration, params.self_conditioning),
        asked.collaboration,
        begin_sampler(user.config, params, [asked.seeds]),
    )
    trip.seconds, trip.tokens = time.perf_counter() - started, len(tokens)
    return trip


def _over_grpc(asked: Question, end: CoreEnd, user: UserModel, speculation: int) -> Trip:
    async def ask() -> Trip:
        trip = Trip()
        async with _TimedClient(end, trip.times) as client:
            answer = await Agent(user, client).answer(replace(asked, speculation=speculation))
        trip.seconds, trip.tokens, trip.hits = answer.seconds, len(answer.tokens), answer.guessed_timesteps
        trip.bytes_up, trip.bytes_down = answer.bytes_up, answer.bytes_down
        return trip

    return asyncio.run(ask())


class _Timed:
    """A predictor that notes when its logits are there."""

    def __init__(self, predictor: Predictor, times: list[float]) -> None:
        self._predictor, self._times = predictor, times
        times.append(time.perf_counter())

    def logits(self, view: BlockView) -> Tensor:
        """See `Predictor.logits`."""
        logits = self._predictor.logits(view)
        self._times.append(time.perf_counter())
        return logits


class _TimedClient(CoreClient):
    """A client whose streams note when logits have arrived."""

    def __init__(self, end: CoreEnd, times: list[float]) -> None:
        super().__init__(end.address, Ledger.in_memory(), credentials=CoreCredentials(end.ca))
        self._times = times

    async def open(self, request: OpenRequest, on_wait: OnWait | None = None) -> ResumingStream:
        """See `CoreClient.open`."""
        stream = await super().open(request, on_wait)
        self._times.append(time.perf_counter())
        take = stream.logits

        async def noted(due: StepPosition) -> Tensor:
            logits = await take(due)
            self._times.append(time.perf_counter())
            return logits

        stream.logits = noted  # type: ignore[method-assign]
        return stream


def _figures(way: Way, trips: Sequence[Trip], questions: Sequence[Question]) -> dict[str, object]:
    steps = [later - earlier for trip in trips for earlier, later in pairwise(trip.times)]
    params = questions[0].params
    blocks = [committed_tokens(trip.tokens, params) // params.block_size for trip in trips]
    return {
        "path": way.path,
        "rtt_ms": way.line.rtt_ms,
        "tls": way.line.tls,
        "speculation": way.speculation,
        "step_ms_p50": round(1000 * median(steps), 2),
        "block_s": round(median((t.times[-1] - t.times[0]) / n for t, n in zip(trips, blocks, strict=True)), 3),
        "answer_s": round(median(trip.seconds for trip in trips), 3),
        "bytes_down_per_step": round(sum(trip.bytes_down for trip in trips) / len(steps), 1),
        "bytes_up_per_step": round(sum(trip.bytes_up for trip in trips) / len(steps), 1),
        "hit_rate": round(sum(trip.hits for trip in trips) / len(steps), 3),
        "runs": len(trips),
    }
