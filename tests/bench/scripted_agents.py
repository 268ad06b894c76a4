"""Agents that run no model: they answer at once, with what real agents answered when they were recorded.

A process of its own, without torch, so that as little as possible of a measurement is the agents'. Each has a
connection of its own and asks one question after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from statistics import quantiles

import grpc

from ssd2.wire import collaboration_pb2 as pb

COLLABORATE = f"/{pb.DESCRIPTOR.services_by_name['CollaborationService'].full_name}/Collaborate"

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # else all channels share one connection
]


@dataclass(frozen=True)
class Recording:
    """One answer as its agent sent it.

    Attributes:
        messages: Open, projections, Close, each as hexadecimal digits.
        tokens: of the answer that each of them stands for: its part of its block. A timestep that counts when it
            is done, and not with its block, makes the throughput of a few seconds exact although the blocks of many
            agents end together.
    """

    messages: list[str]
    tokens: list[float]

    @classmethod
    def of(cls, sent: Sequence[bytes]) -> Recording:
        """Read what an agent sent on one stream."""
        opening, *answers = (pb.CollaborateRequest.FromString(message) for message in sent)
        block_of = list(accumulate((answer.projection.is_commit for answer in answers[:-1]), initial=0))
        timesteps = Counter(block_of)
        tokens = [opening.open.block_size / timesteps[block] for block in block_of]
        return cls([message.hex() for message in sent], [0.0, *tokens])


@dataclass
class Meter:
    """What happens from one moment on.

    Attributes:
        begins: that moment, in seconds of `time.perf_counter`.
        step_s: from each projection to the logits that follow it.
        tokens: of the answers, as in `Recording`.
    """

    begins: float
    step_s: list[float] = field(default_factory=list)
    tokens: float = 0.0

    def step(self, started: float, tokens: float) -> None:
        """Note that logits have come, and for how many tokens they stand."""
        if (now := time.perf_counter()) >= self.begins:
            self.step_s.append(now - started)
            self.tokens += tokens


@dataclass(frozen=True)
class Window:
    """What was measured in some seconds.

    Attributes:
        tokens_per_s: of the blocks of all agents.
        step_ms_p5: from a projection to the logits that follow it; what else the machine does is hardly in it.
        step_ms_p50: of the same.
        step_ms_p99: of the same.
    """

    tokens_per_s: float
    step_ms_p5: float
    step_ms_p50: float
    step_ms_p99: float


async def run(address: str, recordings: Sequence[Recording], sessions: int, warm_up_s: float, seconds: float) -> Window:
    """Keep a core busy for some time.

    Args:
        address: of the core.
        recordings: at least one a session.
        sessions: agents at a time.
        warm_up_s: before anything is counted.
        seconds: that are counted.
    """
    meter = Meter(time.perf_counter() + warm_up_s)
    agents = [asyncio.create_task(_agent(address, recordings[number::sessions], meter)) for number in range(sessions)]
    await asyncio.wait(agents, timeout=warm_up_s + seconds, return_when=asyncio.FIRST_EXCEPTION)
    measured_s = time.perf_counter() - meter.begins
    for agent in agents:
        if agent.done():
            agent.result()
        agent.cancel()
    await asyncio.gather(*agents, return_exceptions=True)
    percentiles = quantiles(meter.step_s, n=100, method="inclusive")
    return Window(meter.tokens / measured_s, *(1000 * percentiles[percent - 1] for percent in (5, 50, 99)))


async def _agent(address: str, recordings: Sequence[Recording], meter: Meter) -> None:
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        ask: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(COLLABORATE)  # bytes as they are
        while True:
            for recording in recordings:
                await answer(ask(), recording, meter)


async def answer(call: grpc.aio.StreamStreamCall[bytes, bytes], recording: Recording, meter: Meter) -> None:
    """Go through one answer.

    Args:
        call: a stream that was just opened.
        recording: what is sent on it.
        meter: is told of each timestep.
    """
    started = time.perf_counter()
    opening, *others = (bytes.fromhex(message) for message in recording.messages)
    await call.write(opening)
    await call.read()  # Opened
    for message, tokens in zip(others, recording.tokens[1:], strict=True):
        await call.read()
        meter.step(started, tokens)
        started = time.perf_counter()
        await call.write(message)
    await call.done_writing()
    await call.read()  # the end: the core has let go of the session


def main() -> None:
    """`python -m tests.bench.scripted_agents ADDRESS RECORDINGS`: one JSON object on stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="HOST:PORT of the core")
    parser.add_argument("recordings", type=Path, help="file with what the agents send")
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--warm-up-s", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    recordings = [Recording(**one) for one in json.loads(options.recordings.read_text())]
    window = asyncio.run(run(options.address, recordings, options.sessions, options.warm_up_s, options.seconds))
    print(json.dumps(asdict(window)))


if __name__ == "__main__":
    main()
