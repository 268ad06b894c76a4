"""A server under the same load for a long time: what it loses, and whether it grows.

Agents ask without a pause; every eighth answer is left in the middle without a word. One line at the end:

    answers, lost, wrong  as in `rolling`
    untyped               lost ones whose error was of no kind of ours
    growth_mb             of each process of the server: anonymous memory, the median of the last tenth of the time
                          less that of the second tenth; the first one is warming up
    sessions_active       of /metrics, once the agents have gone
    slots_used            of /metrics likewise: share of the slots
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from urllib.request import urlopen

from ssd2 import errors
from tests.bench.load import Load
from tests.bench.progress import say
from tests.end_to_end.conftest import CoreProcess, running_core
from tests.end_to_end.processes import anonymous_mb, engine_processes

SAMPLES = 100


def run(*, core: Path, user: Path, sessions: int, minutes: float, max_tokens: int) -> Iterator[dict[str, object]]:
    """Load a server.

    Args:
        core: folder of θ_core.
        user: folder of θ_user.
        sessions: agents at a time.
        minutes: that it takes.
        max_tokens: longest answer.
    """
    options = ("--max-sessions", str(sessions), "--speculation", "4", "--ops-port", "0")
    with running_core(core, *options) as server:
        load = Load(server.address, user, sessions, max_tokens)
        sampled = asyncio.run(_sample(server, load, minutes * 60))
        outcome, codes = load.outcome, _codes(errors.SlingshotError)
        yield {
            "sessions": sessions,
            "minutes": minutes,
            "answers": outcome.answers,
            "left": outcome.left,
            "lost": outcome.errors.total(),
            "untyped": sum(count for code, count in outcome.errors.items() if code not in codes),
            "errors": dict(outcome.errors),
            "wrong": outcome.wrong,
            "growth_mb": [round(_growth(one), 1) for one in zip(*sampled, strict=True)],
            "memory_mb": [round(one, 1) for one in sampled[-1]],
            **_at_rest(server),
        }


async def _sample(server: CoreProcess, load: Load, seconds: float) -> list[list[float]]:
    """Memory of the server's processes, time after time, while agents ask."""
    sampled = []
    async with load.running():
        for number in range(SAMPLES):
            await asyncio.sleep(seconds / SAMPLES)
            sampled.append([anonymous_mb(pid) for pid in (server.process.pid, *engine_processes(server))])
            if (number + 1) % 10 == 0:
                say(f"{number + 1} % of the time: {load.outcome}, memory {[round(mb) for mb in sampled[-1]]} MB")
    return sampled


def _growth(memory_mb: Sequence[float]) -> float:
    tenth = SAMPLES // 10
    return median(memory_mb[-tenth:]) - median(memory_mb[tenth : 2 * tenth])


def _at_rest(server: CoreProcess) -> dict[str, float]:
    """What is in use when nobody asks any more."""
    wanted = {"sessions_active": "slingshot_core_sessions_active", "slots_used": "slingshot_core_slots_used_ratio"}
    deadline = time.monotonic() + 20
    while True:
        with urlopen(f"{server.ops}/metrics", timeout=10) as response:  # noqa: S310  # of this machine
            page = response.read().decode()
        found = {name: _largest(page, series) for name, series in wanted.items()}
        if not any(found.values()) or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def _largest(page: str, series: str) -> float:
    return max(float(value) for value in re.findall(rf"^{series}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE))


def _codes(kind: type[errors.SlingshotError]) -> set[str]:
    return {kind.code}.union(*(_codes(child) for child in kind.__subclasses__()))
