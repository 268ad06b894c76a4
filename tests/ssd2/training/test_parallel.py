"""The same run on one rank and on two: losses, gradient norms, validation, weights, states.

Of a batch of 7 one rank has 4 rows and the other 3, so a mean of the ranks' means would be another loss.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO_TOKENIZER
from torch import distributed as dist

from ssd2.errors import InvalidParameter
from ssd2.models.checkpoint import load_checkpoint
from ssd2.training.metrics import METRICS
from ssd2.training.parallel import Execution, joined_ranks
from ssd2.training.recipe import read_recipe
from ssd2.training.trainer import Trainer

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'shared'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
STEPS = 10
RECIPE = f"""
tokenizer = "{DEMO_TOKENIZER}"
[model]
hidden_size = 32
num_layers = 2
num_heads = 2
ffn_size = 64
max_positions = 120
block_size = 8
[data]
jsonl = ["dolly.jsonl"]
format = "dolly"
held_out = 0.1
[training]
seed = 3
steps = {STEPS}
batch_size = 7
learning_rate = 1e-2
learning_rate_warmup = 2
self_conditioning_from = 3
gradient_clip = 0.5
autocast = "none"
checkpoint_every = 5
validation_every = 4
log_every = 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    rows = [
        {"instruction": f"What is {i}?", "context": f"See {i}." * (i % 4), "response": f"It is {i}. " * (1 + i % 11)}
        for i in range(300)
    ]
    (folder / "dolly.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def one(folder: Path) -> list[dict[str, Any]]:
    """Metrics of the run in this process; its state in the middle stays, for others to go on from."""
    trainer = Trainer(read_recipe(folder / "recipe.toml"), folder / "one")
    trainer.save = lambda: Trainer.save(trainer) if trainer.step == 5 else None  # type: ignore[method-assign]
    trainer.train(show_progress=False)
    return metrics(folder / "one")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / METRICS).read_text().splitlines()]


WHOLE = {
    "ddp": ("--sharding", "ddp", "--micro-batch-size", "3", "--activation-checkpointing"),
    "fsdp": ("--sharding", "fsdp"),
    "fsdp-in-parts": ("--sharding", "fsdp", "--micro-batch-size", "3", "--activation-checkpointing"),
}
"""Runs and their options."""
RUNS = """
import gc, json, os, runpy, sys
from contextlib import redirect_stderr, redirect_stdout
from torch import distributed as dist
from ssd2.training.trainer import Trainer

save = Trainer.save

def save_and_stop(trainer):
    save(trainer)
    sys.exit(0)

for out, (next_port, options) in json.loads(sys.argv[1]).items():
    Trainer.save = save_and_stop if out.startswith("two-to-one") else save
    sys.argv[1:] = ["train", "--recipe", "recipe.toml", "--out", out, *options]
    try:
        with open(f"{out}-{os.environ['RANK']}.log", "w") as log, redirect_stdout(log), redirect_stderr(log):
            runpy.run_module("ssd2", run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
    if dist.is_initialized():  # it was stopped
        gc.collect()
        dist.destroy_process_group()
    # Where torchrun has them meet they can meet only once.
    os.environ.update(TORCHELASTIC_USE_AGENT_STORE="False", MASTER_ADDR="127.0.0.1", MASTER_PORT=next_port)
"""
"""The command line, run after run in the same ranks; some end after their first state, as if stopped there."""


@pytest.fixture(scope="module")
def two(folder: Path, one: list[dict[str, Any]]) -> None:
    """All runs on two ranks, which take long to start; what a rank says is in OUT-RANK.log."""
    runs = dict(WHOLE)
    for sharding in ("ddp", "fsdp"):
        runs[f"two-to-one-{sharding}"] = runs[f"one-to-two-{sharding}"] = ("--sharding", sharding)
        shutil.copytree(folder / "one", folder / f"one-to-two-{sharding}")
    (folder / "runs.py").write_text(RUNS)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    with_next_port = {out: (str(free_port()), options) for out, options in runs.items()}
    command = [sys.executable, *launcher, "runs.py", json.dumps(with_next_port)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    logs = "".join(log.read_text() for log in folder.glob("*.log"))
    assert result.returncode == 0, result.stderr[-3000:] + logs[-3000:]


def assert_same_run(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    for line, other in zip(found, expected, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], abs=1e-4), line["step"]
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], abs=1e-4), line["step"]
        assert line["validation_loss"] == (
            None if other["validation_loss"] is None else pytest.approx(other["validation_loss"], abs=1e-4)
        )
    assert sum(line["validation_loss"] is not None for line in found) == 2
    assert min(line["grad_norm"] for line in found) > 0.5, "every gradient is clipped"


def assert_same_weights(out: Path, expected: Path) -> None:
    found = load_checkpoint(out).model.state_dict()
    for name, value in load_checkpoint(expected).model.state_dict().items():
        torch.testing.assert_close(found[name], value, atol=1e-3, rtol=0, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("out", WHOLE)
def test_two_ranks_make_the_run_of_one(folder: Path, one: list[dict[str, Any]], two: None, out: str) -> None:
    assert_same_run(metrics(folder / out), one)
    assert_same_weights(folder / out, folder / "one")
    first, second = ((folder / f"{out}-{rank}.log").read_text() for rank in range(2))
    assert len(re.findall(r"^step \d+ ", first, re.MULTILINE)) == STEPS
    assert first.count("trained 10 steps") == 1
    assert not re.search("^step |trained", second, re.MULTILINE), "only the first rank prints"


@pytest.fixture
def only_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment of the one rank that torchrun --nproc-per-node 1 starts."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", **meeting}
    for name, value in {**place, "TORCHELASTIC_RUN_ID": "test"}.items():
        monkeypatch.setenv(name, value)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def fail_among_ranks(recipe: Path, out: Path) -> None:
    with joined_ranks("cpu") as ranks:
        Trainer(read_recipe(recipe), out, replace(ranks, sharding="fsdp"))
        raise InvalidParameter("bad data")


def test_ranks_part_after_a_good_run_and_not_while_an_error_holds_the_model(folder: Path, only_rank: None) -> None:
    with pytest.raises(InvalidParameter, match="bad data"):
        fail_among_ranks(folder / "recipe.toml", folder / "alone")
    assert dist.is_initialized()
    dist.destroy_process_group()
    with joined_ranks("cpu") as ranks:
        assert ranks == Execution("cpu", 0, 1)
        assert dist.is_initialized()
    assert not dist.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_a_state_of_two_ranks_goes_on_with_one(
    folder: Path, one: list[dict[str, Any]], two: None, sharding: str
) -> None:
    out = folder / f"two-to-one-{sharding}"
    assert len(list((out / "state-5").glob("*.distcp"))) == 2
    trainer = Trainer(read_recipe(folder / "recipe.toml"), out)
    assert trainer.resume()
    assert trainer.step == 5
    trainer.train(show_progress=False)
    assert_same_run(metrics(out), one)
    assert_same_weights(out, folder / "one")


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_a_state_of_one_rank_goes_on_with_two(
    folder: Path, one: list[dict[str, Any]], two: None, sharding: str
) -> None:
    out = folder / f"one-to-two-{sharding}"
    assert "resuming at step 5 of 10" in (folder / f"{out.name}-0.log").read_text()
    assert_same_run(metrics(out), one)
    assert_same_weights(out, folder / "one")
