"""A token of a causal language model with a real vocabulary: what the product takes for it beside the networks.

A core server and `user-agent ask`, a process each, answer over loopback with a random Llama of one small layer, so that
a token's time is that of the vocabulary. Nothing of the product is imported: with `--against FOLDER` another commit's
checkout is measured in turns with this one, on command lines that both know.

    token_ms   of two answers, the difference of the seconds by that of the tokens: what comes once an answer, and what
               comes once a process, is not in it
    model_ms   a forward pass of the network alone, with its cache, in this process: of the core's row, or of the user
               model's two with and without the documents, whichever takes longer, as they run side by side
    beside_ms  token_ms - model_ms
    ratio      beside_ms of this checkout to that of ours, 1 for ours

Each is a median; every process computes with one thread.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from shutil import copyfile
from statistics import median
from typing import Any

import torch

from tests.bench.progress import say
from tests.conftest import DEMO_TOKENIZER
from tests.end_to_end.conftest import ENVIRONMENT, ROOT, running_core

SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
USER_ROWS = 2
MODEL_TOKENS = 32
FIRST_TOKENS = 8
"""Of the shorter answer."""


def run(*, vocabulary: int, tokens: int, runs: int, against: Path | None) -> Iterator[dict[str, object]]:
    """Measure this checkout, and another one in turns with it.

    Args:
        vocabulary: V.
        tokens: that the longer answer has more than the shorter one.
        runs: pairs of answers of each checkout.
        against: the other checkout; None for none.
    """
    checkouts = {"this": ROOT} | ({"against": against.absolute()} if against else {})
    with tempfile.TemporaryDirectory(prefix="slingshot-bench-") as name, ExitStack() as stack:
        network, folder = _save(vocabulary, Path(name) / "model"), Path(name) / "model"
        environments = {which: _environment(root, Path(name) / which) for which, root in checkouts.items()}
        addresses = {
            which: stack.enter_context(running_core(folder, environment=environment)).address
            for which, environment in environments.items()
        }
        token_s: dict[str, list[float]] = {which: [] for which in checkouts}
        model_s: list[float] = []
        for number in range(runs):
            model_s.append(max(_forward_s(network, rows) for rows in (1, USER_ROWS)))
            for which, environment in environments.items():
                token_s[which].append(_token_s(addresses[which], folder, tokens, environment))
                say(f"run {number + 1} of {runs}: {which}, {1000 * token_s[which][-1]:.2f} ms a token")
    model_ms = 1000 * median(model_s)
    beside_ms = {which: 1000 * median(times) - model_ms for which, times in token_s.items()}
    for which, root in checkouts.items():
        yield {
            "checkout": which,
            "commit": _commit(root),
            "vocabulary": vocabulary,
            "token_ms": round(beside_ms[which] + model_ms, 2),
            "model_ms": round(model_ms, 2),
            "beside_ms": round(beside_ms[which], 2),
            "ratio": round(beside_ms[which] / beside_ms["this"], 2),
            "tokens": tokens,
            "runs": runs,
        }


def _save(vocabulary: int, folder: Path) -> Any:
    """Write a random network; of its ids the tokenizer knows the first ones, which costs an answer no time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    network = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **SHAPE, **IDS)).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    network.save_pretrained(folder)
    copyfile(DEMO_TOKENIZER, folder / "tokenizer.json")
    return network


def _environment(checkout: Path, home: Path) -> dict[str, str]:
    """Variables of a process that runs a checkout, wherever it is started, and keeps what it keeps in a home."""
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
    where = ("--core", address, "--user-model", str(folder), "--lambda-user", "0.3", "--alpha", "1")
    how = ("--max-tokens", str(max_tokens), "--speculation", "0", "--seed", "3", "--json", "--no-log")
    command = [sys.executable, "-m", "user_agent", "ask", "Where is it?", *where, *how]
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
