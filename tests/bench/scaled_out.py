"""What Ray Serve's proxy adds to a timestep, and what a second replica gives.

The same model behind `core-server` and behind Ray Serve, with one replica and with two, and the same scripted agents
(`tests.bench.scripted_agents`) on all of them in turns. Each engine computes with one thread; nothing is computed on
guesses. On two processors agents, proxy, replicas and engines share these two, so a second replica shows little there.

    step_ms_p5    from a projection to the logits that follow it, as on a machine that does nothing else; median over
                  measurements, as the others
    step_ratio    of that to the plain server's with as many sessions
    tokens_per_s  of committed blocks
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median

from tests.bench.asked import THREADS
from tests.bench.progress import say
from tests.bench.scripted_agents import Window
from tests.bench.server import measure, record
from tests.end_to_end.conftest import running_core
from tests.end_to_end.ray_cluster import running_on_ray


def run(
    *,
    core: Path,
    user: Path,
    sessions: Sequence[int],
    replicas: Sequence[int],
    runs: int,
    seconds: float,
    warm_up_s: float,
    max_tokens: int,
) -> Iterator[dict[str, object]]:
    """Measure every way with every number of sessions.

    Args:
        core: folder of θ_core.
        user: folder of θ_user.
        sessions: agents at a time.
        replicas: on Ray.
        runs: measurements of each.
        seconds: that one takes.
        warm_up_s: before it.
        max_tokens: longest answer.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        options = {"--max-sessions": max(sessions), "--threads": THREADS, "--speculation": 0}
        plain = running_core(core, *(str(part) for option in options.items() for part in option))
        addresses = {0: stack.enter_context(plain).address}
        for count in replicas:
            same = {"sessions_per_replica": max(sessions), "speculation": 0}
            cluster = running_on_ray(core, cpus=(count,), min_replicas=count, max_replicas=count, **same)
            addresses[count] = stack.enter_context(cluster).address
            say(f"{count} replicas are running")
        recordings = Path(folder) / "recordings.json"
        recorded = asyncio.run(record(addresses[0], user, max(sessions), max_tokens))
        recordings.write_text(json.dumps([asdict(one) for one in recorded]))
        windows: dict[tuple[int, int], list[Window]] = {(way, count): [] for count in sessions for way in addresses}
        for number in range(runs):
            for (way, count), measured in windows.items():
                measured.append(measure(addresses[way], recordings, count, warm_up_s, seconds))
            say(f"run {number + 1} of {runs}")
    for (way, count), measured in windows.items():
        yield _figures(way, count, measured, windows[0, count])


def _figures(replicas: int, sessions: int, windows: Sequence[Window], plain: Sequence[Window]) -> dict[str, object]:
    fastest, plain_fastest = (median(window.step_ms_p5 for window in of) for of in (windows, plain))
    return {
        "path": "Ray Serve" if replicas else "core-server",
        "replicas": replicas or 1,
        "sessions": sessions,
        "step_ms_p5": round(fastest, 2),
        "step_ratio": round(fastest / plain_fastest, 2),
        "step_ms_p50": round(median(window.step_ms_p50 for window in windows), 2),
        "step_ms_p99": round(median(window.step_ms_p99 for window in windows), 2),
        "tokens_per_s": round(median(window.tokens_per_s for window in windows), 1),
        "runs": len(windows),
    }
