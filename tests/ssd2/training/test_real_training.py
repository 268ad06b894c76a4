"""Training on files, from a converted OPT, in parts of a batch; metrics and the shipped recipes."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO_TOKENIZER, demo_shaped_model, experts_of, tiny_model
from typer.testing import CliRunner

from ssd2.cli import app
from ssd2.errors import CheckpointInvalid, InvalidParameter
from ssd2.models.checkpoint import load_checkpoint, save_checkpoint
from ssd2.models.convert import convert_opt, export_opt
from ssd2.models.transformer import DecoderLayer
from ssd2.training.batches import POOL_BATCHES
from ssd2.training.data import Example
from ssd2.training.metrics import METRICS
from ssd2.training.parallel import Execution, Part, parts
from ssd2.training.recipe import EXPERTS, Recipe, find_recipe, read_recipe, shipped_recipes
from ssd2.training.trainer import Trainer

MODEL = f'''tokenizer = "{DEMO_TOKENIZER}"
[model]
hidden_size = 16
num_layers = 2
num_heads = 2
ffn_size = 32
max_positions = 96
block_size = 8
'''
TRAINING = """
[training]
seed = 3
steps = 6
batch_size = 4
learning_rate = 1e-2
learning_rate_warmup = 2
self_conditioning_from = 2
warmup_batch_size = 6
autocast = "none"
checkpoint_every = 4
validation_every = 3
log_every = 2
"""
DOLLY = '[data]\njsonl = ["dolly.jsonl"]\nformat = "dolly"\nheld_out = 0.2\n'
TEXT = '[data]\nhub = "json"\nfiles = ["dolly.jsonl"]\nfield = "response"\nmax_length = 24\nheld_out = 0.2\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {"instruction": f"What is {i}?", "context": f"See {i}." * (i % 2), "response": f"It is {i}. " * (1 + i % 3)}
        for i in range(60)
    ]
    (tmp_path / "dolly.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def make_recipe(folder: Path, *tables: str) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text("".join(tables))
    return read_recipe(path)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / METRICS).read_text().splitlines()]


@pytest.mark.parametrize("data", [DOLLY, TEXT])
def test_a_run_on_files_resumes_bit_for_bit_and_its_metrics_have_every_step_once(folder: Path, data: str) -> None:
    recipe = make_recipe(folder, MODEL, data, TRAINING)
    whole = Trainer(recipe, folder / "whole")
    whole.train(show_progress=False)
    stopped = Trainer(recipe, folder / "stopped")
    stopped.save = lambda: Trainer.save(stopped) if stopped.step == 4 else None  # type: ignore[method-assign]
    stopped.train(show_progress=False)
    resumed = Trainer(recipe, folder / "stopped")
    assert resumed.resume()
    assert resumed.step == 4
    assert not resumed.is_finished
    resumed.train(show_progress=False)
    assert resumed.is_finished
    for name, value in weights(whole).items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    expected, found = lines(folder / "whole"), lines(folder / "stopped")
    assert [line["step"] for line in found] == [2, 3, 4, 6]
    for name in ("loss", "learning_rate", "grad_norm", "validation_loss"):
        assert [line[name] for line in found] == [line[name] for line in expected], name
    assert [line["validation_loss"] is None for line in found] == [True, False, True, False]
    assert all(line["tokens_per_s"] > 0 for line in found)


def test_a_resumed_run_does_not_encode_the_data_before_its_place(folder: Path) -> None:
    recipe = make_recipe(folder, MODEL, DOLLY, TRAINING)
    stopped = Trainer(recipe, folder / "run")
    expected = stopped._batches.examples(3 * POOL_BATCHES + 2)
    stopped.step = 3 * POOL_BATCHES
    stopped.save()
    resumed = Trainer(recipe, folder / "run")
    pools: list[int] = []
    take = resumed._batches.source.take
    resumed._batches.source.take = lambda count: pools.append(count) or take(count)  # type: ignore[method-assign]
    assert resumed.resume()
    assert resumed._batches.examples(3 * POOL_BATCHES + 2) == expected
    assert pools == [POOL_BATCHES * 4]


def test_a_validation_is_the_same_every_time_and_changes_no_training(folder: Path) -> None:
    recipe = make_recipe(folder, MODEL, DOLLY, TRAINING)
    often = Trainer(replace(recipe, training=replace(recipe.training, validation_every=1)), folder / "often")
    assert often.validate() == often.validate()
    often.train(show_progress=False)
    never = Trainer(replace(recipe, training=replace(recipe.training, validation_every=100)), folder / "never")
    never.train(show_progress=False)
    assert all(torch.equal(value, weights(never)[name]) for name, value in weights(often).items())
    losses = [line["validation_loss"] for line in lines(folder / "often")]
    assert len(set(losses)) == 6
    assert losses[-1] < losses[0]


def test_a_run_is_of_its_data(folder: Path) -> None:
    Trainer(make_recipe(folder, MODEL, DOLLY, TRAINING), folder / "run").save()
    other = make_recipe(folder, MODEL, DOLLY.replace("0.2", "0.1"), TRAINING)
    with pytest.raises(CheckpointInvalid, match="another recipe"):
        Trainer(other, folder / "run").resume()


@pytest.mark.parametrize("objective", ["diffusion", "causal"])
@pytest.mark.parametrize(
    "execution", [Execution(micro_batch_size=1), Execution(micro_batch_size=3, activation_checkpointing=True)]
)
def test_a_batch_in_parts_is_the_same_step(folder: Path, execution: Execution, objective: str) -> None:
    recipe = make_recipe(folder, MODEL, DOLLY, TRAINING, f'objective = "{objective}"\n')
    whole, in_parts = Trainer(recipe, folder / "whole"), Trainer(recipe, folder / "parts", execution)
    for _ in range(4):
        examples = whole._batches.source.take(7)
        assert len({len(example.answer_ids) for example in examples}) > 1
        first, second = whole.train_step(examples), in_parts.train_step(examples)
        assert first.loss == pytest.approx(second.loss, abs=1e-5)
        assert first.gradient_norm == pytest.approx(second.gradient_norm, rel=1e-4)
        whole.step, in_parts.step = whole.step + 1, in_parts.step + 1
    assert whole.validate() == pytest.approx(in_parts.validate(), abs=1e-4)


def test_activation_checkpointing_recomputes_layers_in_the_backward_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(folder, MODEL, DOLLY, TRAINING)
    calls: list[int] = []
    forward = DecoderLayer.forward
    monkeypatch.setattr(DecoderLayer, "forward", lambda self, *a: calls.append(1) or forward(self, *a))
    counts = []
    for name, execution in (("kept", Execution()), ("again", Execution(activation_checkpointing=True))):
        calls.clear()
        trainer = Trainer(recipe, folder / name, execution)
        trainer.train_step(trainer._batches.examples(0))
        counts.append(len(calls))
    assert counts == [2, 4]


@pytest.mark.parametrize(("rows", "ranks", "at_once"), [(8, 2, None), (7, 3, 2), (2, 4, 1), (5, 2, 2), (9, 1, 4)])
def test_every_row_is_computed_once_and_all_ranks_make_the_same_number_of_passes(
    rows: int, ranks: int, at_once: int | None
) -> None:
    shares = [parts(rows, Execution(rank=rank, ranks=ranks, micro_batch_size=at_once)) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    counted = [row for share in shares for part in share if part.is_counted for row in part.rows]
    assert counted == list(range(rows))
    assert all(part.rows for share in shares for part in share)
    assert all(len(part.rows) <= (at_once or rows) for share in shares for part in share)


def test_one_process_computes_a_batch_as_one() -> None:
    assert parts(5, Execution()) == [Part(range(5), True)]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"sharding": "zero"}, "'ddp' or 'fsdp'"),
        ({"sharding": "fsdp"}, "start the training with torchrun"),
        ({"micro_batch_size": 0}, "at least 1"),
    ],
)
def test_a_way_to_compute_that_cannot_be_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidParameter, match=says):
        Execution(**values)


@pytest.fixture
def converted(folder: Path) -> Path:
    """A small OPT as SSD-2; its config has more entries than the tokenizer, as OPT's has."""
    opt = tiny_model(5, vocab_size=1790, block_size=8, max_positions=96)
    export_opt(opt, folder / "opt", DEMO_TOKENIZER.read_text())
    convert_opt(str(folder / "opt"), folder / "converted", block_size=8)
    return folder / "converted"


def test_a_recipe_without_a_tokenizer_trains_the_checkpoint_it_starts_from(folder: Path, converted: Path) -> None:
    recipe = make_recipe(folder, "[model]\nhidden_size = 16\nblock_size = 8\n", DOLLY, TRAINING)
    trainer = Trainer(recipe, folder / "run", start=converted)
    trainer.start_from(converted)
    before = load_checkpoint(converted)
    assert trainer.model.config == before.model.config
    assert trainer.model.config.vocab_size == 1790
    assert all(torch.equal(value, before.model.state_dict()[name]) for name, value in weights(trainer).items())
    trainer.train(show_progress=False)
    trained = load_checkpoint(folder / "run")
    assert trained.tokenizer.sha256 == before.tokenizer.sha256
    assert trained.model.w_pred.weight.any(), "W_pred starts at 0 and is trained"
    resumed = Trainer(recipe, folder / "run", start=converted)
    assert resumed.resume()
    assert resumed.is_finished


def test_a_recipe_without_a_tokenizer_says_what_it_needs(folder: Path, converted: Path, core_folder: Path) -> None:
    recipe = make_recipe(folder, "[model]\nhidden_size = 16\nblock_size = 25\n", DOLLY, TRAINING)
    with pytest.raises(InvalidParameter, match="needs a checkpoint"):
        Trainer(recipe, folder / "run")
    with pytest.raises(CheckpointInvalid, match=r"for block_size 25; the model in .* has 8"):
        Trainer(recipe, folder / "run", start=converted)
    with pytest.raises(CheckpointInvalid, match="not a single SSD-2 model"):
        Trainer(recipe, folder / "run", start=folder / "opt")


PAPER = {
    "0.1b": (768, 12, 12, 3072, 205e9, 102e9),
    "2.7b": (2560, 32, 32, 10240, 13e9, 51e9),
    "13b": (5120, 40, 40, 20480, 19e9, 19e9),
}
"""OPT's shapes, and the tokens of the two phases that App. B gives beside steps and batch sizes."""


@pytest.mark.parametrize("size", PAPER)
def test_the_recipes_of_pretraining_read_as_many_tokens_as_the_paper(size: str) -> None:
    recipe = read_recipe(find_recipe(f"pretrain_{size}"))
    assert recipe.data is not None
    assert recipe.data.max_length is not None
    shape, params = PAPER[size], recipe.training
    tokens = [
        sum(map(params.batch_size_at, steps)) * recipe.data.max_length
        for steps in (range(params.self_conditioning_from), range(params.self_conditioning_from, params.steps))
    ]
    assert tokens == pytest.approx(shape[4:], rel=0.03)
    assert tuple(recipe.model[name] for name in ("hidden_size", "num_layers", "num_heads", "ffn_size")) == shape[:4]
    assert (params.learning_rate, params.weight_decay, recipe.model["block_size"]) == (1e-4, 0.01, 25)


@pytest.mark.parametrize("size", PAPER)
def test_a_recipe_of_finetuning_is_for_the_model_that_pretraining_makes(size: str) -> None:
    before, after = (read_recipe(find_recipe(f"{phase}_{size}")) for phase in ("pretrain", "finetune"))
    assert before.model == after.model
    assert before.tokenizer is after.tokenizer is None
    assert after.training.batch_size == 384
    assert after.training.steps in (500, 1000)
    assert after.data is not None
    assert (after.data.format, after.data.held_out) == ("dolly", 0.05)


def test_the_three_experts_are_of_the_papers_ranges() -> None:
    params = read_recipe(find_recipe("finetune_13b")).training
    ranges = [(p.timesteps_above, p.timesteps_up_to) for p in map(params.of_expert, EXPERTS)]
    assert ranges == [(0.4, 0.6), (0.6, 0.8), (0.8, 1.0)]
    with pytest.raises(InvalidParameter, match=r"use 0\.4-0\.6, 0\.6-0\.8, 0\.8-1\.0"):
        params.of_expert("0-0.4")


def test_a_recipe_is_found_by_name_or_path_and_the_shipped_ones_are_listed(folder: Path) -> None:
    assert len(shipped_recipes()) == 9
    assert all(summary.startswith("SSD-2 ") for summary in shipped_recipes().values())
    path = folder / "mine.toml"
    path.write_text(MODEL)
    assert find_recipe(str(path)) == path
    with pytest.raises(InvalidParameter, match=r"the shipped recipes are: collaborate_0\.1b, "):
        find_recipe("pretrain_70b")


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_shipped_recipe_trains_over_all_timesteps_and_so_says_no_stop(name: str) -> None:
    training = read_recipe(find_recipe(name)).training
    assert (training.timesteps_above, training.timesteps_up_to) == (0, 1)
    assert [training.of_expert(expert).timesteps_above for expert in EXPERTS] == [0.4, 0.6, 0.8]


def test_tensorboard_gets_what_the_metrics_file_gets(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Trainer(make_recipe(folder, MODEL, DOLLY, TRAINING), folder / "run").train(show_progress=False, tensorboard=True)
    board = EventAccumulator(str(folder / "run" / "tensorboard"))
    board.Reload()
    for name in ("loss", "grad_norm", "learning_rate", "tokens_per_s"):
        expected = [(line["step"], pytest.approx(line[name])) for line in lines(folder / "run")]
        assert [(event.step, event.value) for event in board.Scalars(name)] == expected
    assert [event.step for event in board.Scalars("validation_loss")] == [3, 6]


def test_without_tensorboard_the_error_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    trainer = Trainer(make_recipe(folder, MODEL, DOLLY, TRAINING), folder / "run")
    with pytest.raises(InvalidParameter, match=r"slingshot\[train\]"):
        trainer.train(show_progress=False, tensorboard=True)


def test_a_line_of_metrics_has_the_means_since_the_last_one(folder: Path) -> None:
    recipe = make_recipe(folder, MODEL, DOLLY, TRAINING)
    each = replace(recipe, training=replace(recipe.training, log_every=1, validation_every=100))
    pairs = replace(recipe, training=replace(recipe.training, log_every=2, validation_every=100))
    Trainer(each, folder / "each").train(show_progress=False)
    Trainer(pairs, folder / "pairs").train(show_progress=False)
    singles = [line["loss"] for line in lines(folder / "each")]
    means = [(a + b) / 2 for a, b in zip(singles[::2], singles[1::2], strict=True)]
    assert [line["loss"] for line in lines(folder / "pairs")] == pytest.approx(means)


def test_the_speed_counts_the_making_of_the_examples_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    trainer = Trainer(make_recipe(folder, MODEL, DOLLY, TRAINING), folder / "run")
    take = trainer._batches.source.take

    def slow_take(count: int) -> list[Example]:
        now[0] += 5.0
        return take(count)

    monkeypatch.setattr(trainer._batches.source, "take", slow_take)
    assert [result.seconds for result in trainer._steps()] == [5.0] + [0.0] * 5, "one pool is made, at step 0"


@pytest.mark.parametrize(
    "damaged", [b'{"step": 1, "lo\n', b"\x00\x00\n", b"\xff\xfe\n", b"[]\n", b"{}\n", b'{"step": "1"}\n']
)
def test_a_damaged_line_of_metrics_is_left_out_and_no_other(folder: Path, damaged: bytes) -> None:
    recipe = make_recipe(folder, MODEL, DOLLY, TRAINING)
    stopped = Trainer(recipe, folder / "run")
    stopped.save = lambda: Trainer.save(stopped) if stopped.step == 4 else None  # type: ignore[method-assign]
    stopped.train(show_progress=False)
    file = folder / "run" / METRICS
    first, *others = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join((first, damaged, *others)))
    resumed = Trainer(recipe, folder / "run")
    assert resumed.resume()
    resumed.train(show_progress=False)
    assert [line["step"] for line in lines(folder / "run")] == [2, 3, 4, 6]


def test_the_command_line_trains_resumes_and_says_when_it_is_done(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_recipe(folder, MODEL, DOLLY, TRAINING)
    command = ["train", "--recipe", str(folder / "recipe.toml"), "--out", str(folder / "run"), "--expert", "0.6-0.8"]
    first = CliRunner().invoke(app, [*command, "--micro-batch-size", "2"])
    assert first.exit_code == 0, first.output
    assert first.stdout.count("step ") == 4
    assert "validation loss" in first.stdout
    assert "trained 6 steps, loss " in first.stdout
    state = json.loads((folder / "run" / "state-6" / "run.json").read_text())
    assert (state["params"]["timesteps_above"], state["params"]["timesteps_up_to"]) == (0.6, 0.8)
    again = CliRunner().invoke(app, command)
    assert again.stdout == f"already trained; checkpoint in {folder / 'run'}\n"
    (folder / "run" / "model.safetensors").unlink()
    assert CliRunner().invoke(app, command).stdout == f"trained 6 steps; checkpoint in {folder / 'run'}\n"
    assert (folder / "run" / "model.safetensors").is_file()


def test_the_command_line_lists_the_shipped_recipes() -> None:
    result = CliRunner().invoke(app, ["train", "--list"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(shipped_recipes())


def test_experts_are_no_start_for_one_model(folder: Path) -> None:
    save_checkpoint(
        folder / "experts", experts_of(*(demo_shaped_model(i) for i in range(3))), DEMO_TOKENIZER.read_text()
    )
    recipe = make_recipe(folder, "[model]\nhidden_size = 16\n", DOLLY, TRAINING)
    with pytest.raises(CheckpointInvalid, match="not a single SSD-2 model"):
        Trainer(recipe, folder / "run", start=folder / "experts")


def test_a_checkpoint_of_another_shape_is_no_start(folder: Path, core_folder: Path) -> None:
    recipe = make_recipe(folder, MODEL, DOLLY, TRAINING)
    save_checkpoint(folder / "other", tiny_model(1, vocab_size=1782), DEMO_TOKENIZER.read_text())
    for start in (core_folder, folder / "other"):
        with pytest.raises(CheckpointInvalid, match="in shape or tokenizer"):
            Trainer(recipe, folder / "run").start_from(start)
