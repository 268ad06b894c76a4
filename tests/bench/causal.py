"""A core server of a causal language model: what batches gain, and what a long prompt costs the answers beside it.

The agents (`tests.bench.scripted_agents`) compute nothing and answer at once, with tokens drawn at random. The server
computes with one thread. Nothing is computed on guesses, and no prompts are shared.

    tokens_per_s  of all agents, prompts included in the time
    gain          of as many sessions: their tokens_per_s by that of the fewest
    step_ms_p50   from a token to the logits that follow it
    step_ms_p99   of the same
    long_s        from a long prompt to its first logits; one after the other is read for as long as is measured
    ratio         step_ms_p99 beside long prompts, by the same without
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from statistics import median

import grpc

from core_server.engine.loaded_model import LoadedModel
from ssd2.algorithm.params import DecodingParams
from ssd2.logits.format import PREFERRED
from ssd2.models.checkpoint import load_checkpoint
from tests.bench.asked import THREADS
from tests.bench.made_up import made_up
from tests.bench.progress import say
from tests.bench.scripted_agents import COLLABORATE, OPTIONS, Recording, Window
from tests.bench.server import measure
from tests.end_to_end.conftest import running_core
from tests.families import save_llama

VOCABULARY = 4096
"""Of the random Llama."""


def run(
    *,
    core: Path | None,
    sessions: Sequence[int],
    beside: int,
    prompt_tokens: int,
    long_tokens: int,
    tokens: int,
    runs: int,
    seconds: float,
    warm_up_s: float,
) -> Iterator[dict[str, object]]:
    """Measure a server for each number of sessions, and one beside long prompts.

    Args:
        core: folder of the model; None for a random one.
        sessions: agents at a time.
        beside: the same, beside long prompts.
        prompt_tokens: of a prompt.
        long_tokens: of a long one.
        tokens: of an answer.
        runs: measurements of each number of sessions.
        seconds: that one takes; beside long prompts, at least until one is read.
        warm_up_s: before it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = core or Path(name) / "random"
        if core is None:
            save_llama(folder, VOCABULARY)
        model, file = LoadedModel(folder.name, load_checkpoint(folder)), Path(name) / "recordings.json"
        params = DecodingParams(block_size=1, max_tokens=tokens, steps=1)
        most = max(*sessions, beside)
        recordings = [made_up(model, params, prompt_tokens, seed, PREFERRED) for seed in range(most)]
        long = made_up(model, params, long_tokens, most, PREFERRED)
        file.write_text(json.dumps([asdict(one) for one in recordings]))
        first = 0.0
        for count in sessions:
            windows = _measured(folder, file, count, runs, warm_up_s, seconds)
            tokens_per_s = median(window.tokens_per_s for window in windows)
            first = first or tokens_per_s
            gain = round(tokens_per_s / first, 2)
            yield {"sessions": count, **_figures(windows), "gain": gain, "prompt_tokens": prompt_tokens, "runs": runs}
        yield asyncio.run(_beside_long(folder, file, long, beside, warm_up_s, seconds)) | {"long_tokens": long_tokens}


def _measured(
    folder: Path, recordings: Path, sessions: int, runs: int, warm_up_s: float, seconds: float
) -> list[Window]:
    with running_core(folder, *_options(sessions)) as server:
        windows = [measure(server.address, recordings, sessions, warm_up_s, seconds) for _ in range(runs)]
    say(f"{sessions} sessions")
    return windows


def _options(sessions: int) -> list[str]:
    return ["--max-sessions", str(sessions), "--threads", str(THREADS), "--speculation", "0", "--precision", "float32"]


def _figures(windows: Sequence[Window]) -> dict[str, object]:
    return {
        "tokens_per_s": round(median(window.tokens_per_s for window in windows), 1),
        "step_ms_p50": round(median(window.step_ms_p50 for window in windows), 2),
        "step_ms_p99": round(median(window.step_ms_p99 for window in windows), 2),
    }


async def _beside_long(
    folder: Path, recordings: Path, long: Recording, sessions: int, warm_up_s: float, seconds: float
) -> dict[str, object]:
    """Measure some answers without a long prompt beside them, and with one after the other."""
    with running_core(folder, *_options(sessions + 1)) as server:
        before = await asyncio.to_thread(measure, server.address, recordings, sessions, warm_up_s, seconds)
        say(f"{sessions} sessions without a long prompt")
        long_s = list[float]()
        readers = asyncio.create_task(_read_on(server.address, long, long_s))
        beside = await asyncio.to_thread(measure, server.address, recordings, sessions, warm_up_s, 5 * seconds)
        while not long_s:
            await asyncio.sleep(0.1)
            if readers.done():
                readers.result()
        readers.cancel()
        with suppress(asyncio.CancelledError):
            await readers
    return {
        "sessions": sessions,
        **_figures([beside]),
        "step_ms_p99_before": round(before.step_ms_p99, 2),
        "ratio": round(beside.step_ms_p99 / before.step_ms_p99, 2),
        "long_s": round(median(long_s), 4),
    }


async def _read_on(address: str, long: Recording, taken_s: list[float]) -> None:
    """Ask with the long prompt again and again, and note the seconds until the first logits."""
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        while True:
            call = channel.stream_stream(COLLABORATE)()
            started = time.perf_counter()
            await call.write(bytes.fromhex(long.messages[0]))
            await call.read()  # Opened
            await call.read()
            taken_s.append(time.perf_counter() - started)
            await call.write(bytes.fromhex(long.messages[-1]))
            await call.done_writing()
            await call.read()
