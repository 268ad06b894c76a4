"""How a core server's costs grow: with an answer's blocks, and with the sessions.

A random model behind a real server. Agents (`tests.bench.scripted_agents`) answer at once with tokens that are made up,
and ask for an answer of many blocks, all at the same time; a block's context is the prompt and all blocks before it.
Each number of sessions has a server of its own with as many slots, and they are measured in turns.

    context_tokens  before the block
    block_ms        of all the block's timesteps, from a projection to the logits that follow it; median over sessions
                    and measurements
    engine_mb       anonymous memory of the engine's process after all measurements
    by_context      block_ms in times of the first block's, over context_tokens in times of the first block's: 1 is
                    linear growth, less is slower growth
    by_sessions     block_ms in times of what it is with the fewest sessions, over the sessions in times of those
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import grpc
import torch

from core_server.engine.loaded_model import LoadedModel
from ssd2.algorithm.params import DecodingParams
from ssd2.demo.paths import TOKENIZER
from ssd2.models.checkpoint import load_checkpoint, save_checkpoint
from ssd2.models.configs import SSD2Config
from ssd2.models.ssd2 import SSD2
from ssd2.models.tokenizer import Tokenizer
from tests.bench.asked import THREADS
from tests.bench.made_up import made_up
from tests.bench.progress import say
from tests.bench.scripted_agents import COLLABORATE, OPTIONS, Meter, Recording, answer
from tests.end_to_end.conftest import CoreProcess, running_core
from tests.end_to_end.processes import anonymous_mb, engine_processes

MODEL = "random"
PROMPT_TOKENS = 16


def run(
    *, sessions: Sequence[int], blocks: int, block_size: int, steps: int, context_timestep: str, runs: int
) -> Iterator[dict[str, object]]:
    """Measure every block of answers that are as long.

    Args:
        sessions: agents at a time.
        blocks: of an answer.
        block_size: L.
        steps: timesteps of a block.
        context_timestep: of the model, see `SSD2Config`: whether a context is encoded anew as t falls.
        runs: measurements of each.
    """
    params = DecodingParams(block_size, blocks * block_size, steps)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = Path(folder) / MODEL
        _save_model(model, params, context_timestep)
        loaded = LoadedModel(MODEL, load_checkpoint(model))
        recordings = [made_up(loaded, params, PROMPT_TOKENS, number) for number in range(max(sessions))]
        servers = {
            count: stack.enter_context(running_core(model, "--max-sessions", str(count), "--threads", str(THREADS)))
            for count in sessions
        }
        block_s: dict[int, list[list[float]]] = {count: [] for count in sessions}
        for number in range(runs + 1):
            for count, server in servers.items():
                measured = asyncio.run(_measure(server, recordings[:count], params))
                block_s[count] += measured if number else []  # the first answers warm a server up
            say(f"run {number} of {runs}" if number else "warm")
        memory_mb = {count: anonymous_mb(engine_processes(server)[0]) for count, server in servers.items()}
    fewest = min(sessions)
    first_ms = {count: _block_ms(block_s[count], 0) for count in sessions}
    for count in sessions:
        for block in range(blocks):
            context, block_ms = PROMPT_TOKENS + block * block_size, _block_ms(block_s[count], block)
            yield {
                "sessions": count,
                "block": block + 1,
                "context_tokens": context,
                "block_ms": round(block_ms, 2),
                "engine_mb": round(memory_mb[count], 1),
                "by_context": round(block_ms / first_ms[count] / (context / PROMPT_TOKENS), 3),
                "by_sessions": round(block_ms / _block_ms(block_s[fewest], block) / (count / fewest), 3),
                "context_timestep": context_timestep,
                "runs": runs,
            }


def _block_ms(block_s: Sequence[Sequence[float]], block: int) -> float:
    return 1000 * median(one[block] for one in block_s)


def _save_model(folder: Path, params: DecodingParams, context_timestep: str) -> None:
    """A random model with room for such an answer."""
    torch.manual_seed(0)
    config = SSD2Config(
        vocab_size=Tokenizer.from_file(TOKENIZER).vocab_size,
        hidden_size=256,
        num_layers=4,
        num_heads=4,
        ffn_size=1024,
        max_positions=PROMPT_TOKENS + params.max_tokens,
        block_size=params.block_size,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        context_timestep=context_timestep,
    )
    save_checkpoint(folder, SSD2(config), TOKENIZER.read_text())


async def _measure(server: CoreProcess, recordings: Sequence[Recording], params: DecodingParams) -> list[list[float]]:
    """Seconds of each block of an answer for each recording, all at the same time."""

    async def one(recording: Recording) -> list[float]:
        meter = Meter(0.0)
        async with grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel:
            await answer(channel.stream_stream(COLLABORATE)(), recording, meter)
        return [sum(meter.step_s[at : at + params.steps]) for at in range(0, len(meter.step_s), params.steps)]

    return await asyncio.gather(*map(one, recordings))
