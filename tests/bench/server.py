"""A core server with many agents: what it computes in a second, and how long each agent waits.

The agents (`tests.bench.scripted_agents`) answer at once, so all of a timestep is the server's: front end, engine and
the way between them. Front end, engine and agents are three processes; the engine computes with one thread. Every
number of sessions has a server of its own, with as many slots, and they are measured in turns; the idle ones take no
time. Nothing is computed on guesses.

    tokens_per_s    of committed blocks, each timestep for its part of its block; median over measurements, as the
                    others
    step_ms_p50     from a projection to the logits that follow it
    engine_mb       anonymous memory of the engine's process after all measurements
    mb_per_session  how much more that is than with the fewest sessions, for each one more: the slots' memory and a
                    batch's intermediate results, with what the allocator keeps
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median

from tests.bench.asked import THREADS, asked_items, question
from tests.bench.progress import say
from tests.bench.scripted_agents import Recording, Window
from tests.end_to_end.conftest import ENVIRONMENT, CoreProcess, recording_relay, running_core
from tests.end_to_end.processes import anonymous_mb, engine_processes
from user_agent.answering.run import Agent
from user_agent.answering.user_model import UserModel
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger


def run(
    *, core: Path, user: Path, sessions: Sequence[int], runs: int, seconds: float, warm_up_s: float, max_tokens: int
) -> Iterator[dict[str, object]]:
    """Measure a server for each number of sessions.

    Args:
        core: folder of θ_core.
        user: folder of θ_user.
        sessions: agents at a time.
        runs: measurements of each.
        seconds: that one takes.
        warm_up_s: before it.
        max_tokens: longest answer.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = {count: stack.enter_context(_server(core, count)) for count in sessions}
        recordings = Path(folder) / "recordings.json"
        recorded = asyncio.run(record(servers[sessions[0]].address, user, max(sessions), max_tokens))
        recordings.write_text(json.dumps([asdict(one) for one in recorded]))
        windows: dict[int, list[Window]] = {count: [] for count in sessions}
        for number in range(runs):
            for count, server in servers.items():
                windows[count].append(measure(server.address, recordings, count, warm_up_s, seconds))
            say(f"run {number + 1} of {runs}")
        memory_mb = {count: anonymous_mb(engine_processes(server)[0]) for count, server in servers.items()}
        for count in sessions:
            yield _figures(count, windows[count], memory_mb)


def _server(core: Path, sessions: int) -> AbstractContextManager[CoreProcess]:
    options = {"--max-sessions": sessions, "--threads": THREADS, "--speculation": 0}
    return running_core(core, *(str(part) for option in options.items() for part in option))


async def record(address: str, user: Path, count: int, max_tokens: int) -> list[Recording]:
    """What an agent with the user model sends for some questions."""
    loaded, recordings = UserModel.load(user, with_weights=True), []
    async with recording_relay(address) as wire, CoreClient(wire.address, Ledger.in_memory()) as client:
        for number, item in enumerate(asked_items(count)):
            wire.messages.clear()
            await Agent(loaded, client).answer(question(loaded, item, number, max_tokens, speculation=0))
            _card, *sent = wire.messages
            recordings.append(Recording.of(sent))
            say(f"recorded {number + 1} of {count}")
    return recordings


def measure(address: str, recordings: Path, sessions: int, warm_up_s: float, seconds: float) -> Window:
    """Have scripted agents keep a server busy."""
    options = {"--sessions": sessions, "--warm-up-s": warm_up_s, "--seconds": seconds}
    command = [sys.executable, "-m", "tests.bench.scripted_agents", address, str(recordings)]
    command += [str(part) for option in options.items() for part in option]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=ENVIRONMENT)
    return Window(**json.loads(done.stdout))


def _figures(sessions: int, windows: Sequence[Window], memory_mb: Mapping[int, float]) -> dict[str, object]:
    fewest = min(memory_mb)
    grown_mb, further = memory_mb[sessions] - memory_mb[fewest], sessions - fewest
    return {
        "sessions": sessions,
        "tokens_per_s": round(median(window.tokens_per_s for window in windows), 1),
        "step_ms_p50": round(median(window.step_ms_p50 for window in windows), 2),
        "step_ms_p99": round(median(window.step_ms_p99 for window in windows), 2),
        "mb_per_session": round(grown_mb / further, 2) if further else None,
        "engine_mb": round(memory_mb[sessions], 1),
        "runs": len(windows),
    }
