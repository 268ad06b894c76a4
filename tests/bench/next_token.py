"""Time of a token of a causal language model at a real vocabulary, beside its networks.

A core server and `user-agent ask`, a process each, answer over loopback with random Llamas of one small layer, one of
the vocabulary and one of a small vocabulary. No code of the product is called: with `--against FOLDER` another commit's
checkout is measured in turns with this one, by command lines that both know.

    token_ms       of two answers, the difference of the seconds by that of the tokens: what comes once an answer, and
                   what comes once a process, is not in it
    model_ms       a forward pass of the network alone, with its cache, in this process: of the core's row, or of the
                   user model's two with and without the documents, whichever takes longer, as they run side by side
    beside_ms      token_ms - model_ms
    line_ms        beside_ms with the small vocabulary: processes, line and ledger, which no vocabulary changes
    vocabulary_ms  beside_ms - line_ms
    ratio          vocabulary_ms of this checkout to that of ours, 1 for ours; beside_ratio the same of beside_ms

Each is made of medians; every process computes with one thread.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tests.bench.progress import say
from tests.end_to_end.conftest import ENVIRONMENT, ROOT, running_core
from tests.families import save_llama

USER_ROWS = 2
MODEL_TOKENS = 32
FIRST_TOKENS = 8
"""Length of the shorter answer."""
SMALL = 2048
"""Vocabulary whose logits take next to no time; the tokenizer has 1,782 tokens."""


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
        environments = {which: environment_of(root, Path(name) / which) for which, root in checkouts.items()}
        token_ms = _token_ms(folders, environments, tokens, runs)
        model_ms = {
            size: 1000 * max(_forward_s(network, rows) for rows in (1, USER_ROWS)) for size, network in networks.items()
        }
    beside_ms = {key: median(times) - model_ms[key[1]] for key, times in token_ms.items()}
    line_ms = {which: beside_ms[which, SMALL] for which in checkouts}
    vocabulary_ms = {which: beside_ms[which, vocabulary] - line_ms[which] for which in checkouts}
    for which, root in checkouts.items():
        yield {
            "checkout": which,
            "commit": _commit(root),
            "vocabulary": vocabulary,
            "token_ms": round(median(token_ms[which, vocabulary]), 2),
            "model_ms": round(model_ms[vocabulary], 2),
            "beside_ms": round(beside_ms[which, vocabulary], 2),
            "line_ms": round(line_ms[which], 2),
            "vocabulary_ms": round(vocabulary_ms[which], 2),
            "ratio": round(vocabulary_ms[which] / vocabulary_ms["this"], 2),
            "beside_ratio": round(beside_ms[which, vocabulary] / beside_ms["this", vocabulary], 2),
            "tokens": tokens,
            "runs": runs,
        }


def _token_ms(
    folders: Mapping[int, Path], environments: Mapping[str, Mapping[str, str]], tokens: int, runs: int
) -> dict[tuple[str, int], list[float]]:
    """Time tokens of each checkout and vocabulary, in turns."""
    taken: dict[tuple[str, int], list[float]] = {key: [] for key in product(environments, folders)}
    first, *others = (f"{size}={folder}" for size, folder in folders.items())
    models = [first, *(part for other in others for part in ("--model", other))]
    with ExitStack() as stack:
        addresses = {
            which: stack.enter_context(running_core(*models, environment=environment)).address
            for which, environment in environments.items()
        }
        for number, (which, size) in product(range(runs), taken):
            token_s = _token_s(addresses[which], folders[size], tokens, environments[which])
            taken[which, size].append(1000 * token_s)
            say(f"run {number + 1} of {runs}: {which}, V = {size}, {1000 * token_s:.2f} ms a token")
    return taken


def environment_of(checkout: Path, home: Path) -> dict[str, str]:
    """Environment of a process that runs a checkout from any folder, with its data in `home`."""
    return {
        **ENVIRONMENT,
        "PYTHONPATH": f"{checkout / 'shared'}:{checkout}",
        "PYTHONSAFEPATH": "1",
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
    }


@torch.inference_mode()
def _forward_s(network: Any, rows: int) -> float:
    """Seconds of a token of the network alone."""
    torch.set_num_threads(1)
    token_ids = torch.arange(20).repeat(rows, 1)
    output = network(input_ids=token_ids, use_cache=True, logits_to_keep=1)
    times = []
    for _ in range(MODEL_TOKENS):
        chosen, started = output.logits.argmax(-1), time.perf_counter()
        output = network(input_ids=chosen, past_key_values=output.past_key_values, use_cache=True, logits_to_keep=1)
        times.append(time.perf_counter() - started)
    return median(times)


def _token_s(address: str, folder: Path, tokens: int, environment: Mapping[str, str]) -> float:
    """Seconds of each further token of a longer answer."""
    shorter, longer = (_ask(address, folder, count, environment) for count in (FIRST_TOKENS, FIRST_TOKENS + tokens))
    return (longer["seconds"] - shorter["seconds"]) / (len(longer["tokens"]) - len(shorter["tokens"]))


def _ask(address: str, folder: Path, max_tokens: int, environment: Mapping[str, str]) -> dict[str, Any]:
    models = ("--core", address, "--model", folder.name, "--user-model", str(folder))
    mixed = ("--lambda-user", "0.3", "--alpha", "1")
    how = ("--max-tokens", str(max_tokens), "--speculation", "0", "--seed", "3", "--json", "--no-log")
    command = [sys.executable, "-m", "user_agent", "ask", "Where is it?", *models, *mixed, *how]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _commit(checkout: Path) -> str | None:
    """Short name of a checkout's commit; None where it is none of git's."""
    asked = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
