"""Time of a token of a causal language model at a real vocabulary, beside its networks.

Once both models are decoded in one process, without a line. Then a core server and `user-agent serve`, a process each,
answer over loopback. The models are random Llamas of one small layer, one of the vocabulary and one of a small one.
With `--against FOLDER` another commit's checkout is measured in turns with this one, by a script of the few functions
that decode in one process, and by command lines and a REST route that both know.

    decode_ms      in one process, beside the networks

    token_ms       of two answers, the difference of the seconds by that of the tokens, so that what comes once an
                   answer is left out
    model_ms       a forward pass of the network alone, with its cache, in this process: of the core's row, or of the
                   user model's two with and without the documents, whichever takes longer, as they run side by side
    beside_ms      token_ms - model_ms
    line_ms        beside_ms with the small vocabulary: processes, line and ledger, which no vocabulary changes
    vocabulary_ms  beside_ms - line_ms
    cpu_ms         the same as vocabulary_ms in processor time of all processes, which a busy machine changes little
    ratio          vocabulary_ms of a checkout to that of ours, 1 for ours; decode_, beside_ and cpu_ratio likewise

Each is made of medians; every process computes with one thread.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import torch

from tests.bench.progress import say
from tests.end_to_end.conftest import ENVIRONMENT, ROOT, running_core
from tests.end_to_end.processes import children
from tests.families import save_llama

USER_ROWS = 2
MODEL_TOKENS = 32
FIRST_TOKENS = 8
"""Length of the shorter answer."""
SMALL = 2048
"""Vocabulary whose logits take next to no time; the tokenizer has 1,782 tokens."""
KEY = "sk-bench"
DECODE = Path(__file__).with_name("decode_in_process.py")


@dataclass(frozen=True)
class Cost:
    """Wall and processor time of a token, or of an answer, in ms."""

    wall: float
    cpu: float


def run(*, vocabulary: int, tokens: int, runs: int, against: Path | None) -> Iterator[dict[str, object]]:
    """Measure this checkout, and another one in turns with it.

    Args:
        vocabulary: V.
        tokens: by which the longer answer is longer.
        runs: pairs of answers of each checkout and vocabulary.
        against: the other checkout; None for none.
    """
    checkouts = {"this": ROOT} | ({"against": against.absolute()} if against else {})
    with tempfile.TemporaryDirectory(prefix="slingshot-bench-") as name:
        folders = {size: Path(name) / str(size) for size in (vocabulary, SMALL)}
        networks = {size: save_llama(folder, size) for size, folder in folders.items()}
        decode = _decode_ms(folders[vocabulary], checkouts, tokens, runs)
        token = _costs(folders, checkouts, tokens, runs)
    model = {size: _forward_cost(network) for size, network in networks.items()}
    beside = {key: Cost(one.wall - model[key[1]].wall, one.cpu - model[key[1]].cpu) for key, one in token.items()}
    ours = _of_vocabulary(beside, "this", vocabulary)
    for which, root in checkouts.items():
        cost, own = beside[which, vocabulary], _of_vocabulary(beside, which, vocabulary)
        yield {
            "checkout": which,
            "commit": _commit(root),
            "vocabulary": vocabulary,
            "decode_ms": round(decode[which], 2),
            "token_ms": round(token[which, vocabulary].wall, 2),
            "model_ms": round(model[vocabulary].wall, 2),
            "beside_ms": round(cost.wall, 2),
            "line_ms": round(beside[which, SMALL].wall, 2),
            "vocabulary_ms": round(own.wall, 2),
            "cpu_ms": round(own.cpu, 2),
            "decode_ratio": _ratio(decode[which], decode["this"]),
            "ratio": _ratio(own.wall, ours.wall),
            "beside_ratio": _ratio(cost.wall, beside["this", vocabulary].wall),
            "cpu_ratio": _ratio(own.cpu, ours.cpu),
            "tokens": tokens,
            "runs": runs,
        }


def _ratio(theirs: float, ours: float) -> float | None:
    """Ratio of two times; None where too little was measured to tell."""
    return round(theirs / ours, 2) if ours > 0 else None


def _of_vocabulary(beside: Mapping[tuple[str, int], Cost], which: str, vocabulary: int) -> Cost:
    large, small = beside[which, vocabulary], beside[which, SMALL]
    return Cost(large.wall - small.wall, large.cpu - small.cpu)


def _decode_ms(folder: Path, checkouts: Mapping[str, Path], tokens: int, runs: int) -> dict[str, float]:
    """Measure a token that one process decodes beside its networks, of each checkout, in turns."""
    taken: dict[str, list[float]] = {which: [] for which in checkouts}
    command = [sys.executable, str(DECODE), str(folder), str(tokens), "5"]
    for number, which in product(range(runs), checkouts):
        environment = environment_of(checkouts[which], folder.parent / which)
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        taken[which].append(json.loads(done.stdout.splitlines()[-1])["decode_ms"])
        say(f"run {number + 1} of {runs}: {which}, in one process, {taken[which][-1]:.2f} ms a token")
    return {which: median(times) for which, times in taken.items()}


def _costs(
    folders: Mapping[int, Path], checkouts: Mapping[str, Path], tokens: int, runs: int
) -> dict[tuple[str, int], Cost]:
    """Measure a token of each checkout and vocabulary, in turns."""
    taken: dict[tuple[str, int], list[Cost]] = {key: [] for key in product(checkouts, folders)}
    first, *others = (f"{size}={folder}" for size, folder in folders.items())
    models = [first, *(part for other in others for part in ("--model", other))]
    with ExitStack() as stack:
        agents = {}
        for which, root in checkouts.items():
            environment = environment_of(root, folders[SMALL].parent / which)
            core = stack.enter_context(running_core(*models, environment=environment))
            for size, folder in folders.items():
                agent = stack.enter_context(_running_agent(core.address, folder, environment))
                agents[which, size] = agent, [core.process.pid, *children(core.process.pid)]
        for number, (which, size) in product(range(-1, runs), taken):
            cost = _token_cost(*agents[which, size], tokens)
            say(f"run {number + 1} of {runs}: {which}, V = {size}, {cost.wall:.2f} ms a token")
            if number >= 0:  # the first one warms the processes up
                taken[which, size].append(cost)
    return {key: Cost(median(c.wall for c in costs), median(c.cpu for c in costs)) for key, costs in taken.items()}


def environment_of(checkout: Path, home: Path) -> dict[str, str]:
    """Environment of a process that runs a checkout from any folder, with its data in `home`."""
    return {
        **ENVIRONMENT,
        "PYTHONPATH": f"{checkout / 'shared'}:{checkout}",
        "PYTHONSAFEPATH": "1",
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
    }


@dataclass(frozen=True)
class _Agent:
    """A running agent."""

    http: httpx.Client
    pid: int


@contextmanager
def _running_agent(core: str, folder: Path, environment: Mapping[str, str]) -> Iterator[_Agent]:
    settings = {
        "CORE": core,
        "MODEL": folder.name,
        "USER_MODEL": str(folder),
        "LAMBDA_USER": "0.3",
        "ALPHA": "1",
        "SPECULATION": "0",
        "API_KEY": KEY,
        "DATA_DIR": f"{environment['XDG_DATA_HOME']}/{folder.name}",
    }
    variables = {**environment, **{f"SLINGSHOT_{name}": value for name, value in settings.items()}}
    command = [sys.executable, "-m", "user_agent", "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables)
    try:
        url = re.search(r"listening on (http://\S+)", process.stdout.readline())[1]
        with httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=120, trust_env=False
        ) as http:
            yield _Agent(http, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=20)
        process.stdout.close()


def _token_cost(agent: _Agent, core_pids: list[int], tokens: int) -> Cost:
    """Cost of each further token of a longer answer."""
    (short, few), (long, many) = (
        _answer_cost(agent, core_pids, count) for count in (FIRST_TOKENS, FIRST_TOKENS + tokens)
    )
    return Cost((long.wall - short.wall) / (many - few), (long.cpu - short.cpu) / (many - few))


def _answer_cost(agent: _Agent, core_pids: list[int], max_tokens: int) -> tuple[Cost, int]:
    """Cost of an answer, and its tokens."""
    pids = [agent.pid, *core_pids]
    asked = {"model": "slingshot", "messages": [{"role": "user", "content": "Where is it?"}], "seed": 3}
    cpu_ms, started = sum(map(_cpu_ms, pids)), time.perf_counter()
    answer = agent.http.post("/v1/chat/completions", json={**asked, "max_tokens": max_tokens}).raise_for_status().json()
    wall_ms = 1000 * (time.perf_counter() - started)
    return Cost(wall_ms, sum(map(_cpu_ms, pids)) - cpu_ms), answer["usage"]["completion_tokens"]


def _cpu_ms(pid: int) -> float:
    """Processor time that a process has taken."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return 1000 * (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _forward_cost(network: Any) -> Cost:
    """Cost of a token of the networks alone: of both sides in processor time, of the slower one in wall time."""
    seconds = [_forward_s(network, rows) for rows in (1, USER_ROWS)]
    return Cost(1000 * max(seconds), 1000 * sum(seconds))


@torch.inference_mode()
def _forward_s(network: Any, rows: int) -> float:
    torch.set_num_threads(1)
    token_ids = torch.arange(20).repeat(rows, 1)
    output = network(input_ids=token_ids, use_cache=True, logits_to_keep=1)
    times = []
    for _ in range(MODEL_TOKENS):
        chosen, started = output.logits.argmax(-1), time.perf_counter()
        output = network(input_ids=chosen, past_key_values=output.past_key_values, use_cache=True, logits_to_keep=1)
        times.append(time.perf_counter() - started)
    return median(times)


def _commit(checkout: Path) -> str | None:
    """Short name of a checkout's commit; None where it is none of git's."""
    asked = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
