"""The training loop: Algorithm 1 over batches, exact resume, recipes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import DEMO_TOKENIZER

from ssd2.algorithm.measured import MeasuredDecoding
from ssd2.algorithm.params import DecodingParams
from ssd2.demo.generator import Conversation, Item
from ssd2.demo.paths import CORE
from ssd2.errors import CheckpointInvalid, InvalidParameter, PromptTooLong
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.tokenizer import Tokenizer
from ssd2.training import state as state_module
from ssd2.training.batches import BatchSource
from ssd2.training.data import collate, encode_conversation, encode_item
from ssd2.training.draws import Partner, draw, draw_noise, draw_partner, narrow, sample_timesteps
from ssd2.training.objective import causal_loss, diffusion_loss
from ssd2.training.parallel import Execution
from ssd2.training.recipe import Recipe, TrainingParams, read_recipe
from ssd2.training.state import RUN
from ssd2.training.trainer import Trainer, learning_rate

RECIPES = CORE.parent / "recipes"
RECIPE = f'''
tokenizer = "{DEMO_TOKENIZER}"

[model]
hidden_size = 16
num_layers = 1
num_heads = 2
ffn_size = 32
max_positions = 256
block_size = 8
context_timestep = "none"
answer_position = 192

[training]
source = "demo-user"
seed = 3
steps = 6
batch_size = 4
learning_rate = 1e-2
learning_rate_warmup = 2
self_conditioning_from = 2
autocast = "none"
checkpoint_every = 3
'''


CAUSAL = RECIPE.replace('source = "demo-user"', 'objective = "causal"\nsource = "demo-conversations"')


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return read_recipe(_written(tmp_path, RECIPE))


def _written(folder: Path, content: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(content)
    return path


def _weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


@pytest.mark.parametrize("content", [RECIPE, CAUSAL])
def test_a_resumed_run_ends_with_the_very_weights_of_one_that_was_not_stopped(content: str, tmp_path: Path) -> None:
    recipe = read_recipe(_written(tmp_path, content))
    whole = Trainer(recipe, tmp_path / "whole")
    whole.train(show_progress=False)

    stopped = Trainer(recipe, tmp_path / "stopped")
    steps = stopped._steps()
    for _ in range(5):  # two steps past the last checkpoint: they are done again
        next(steps)
    resumed = Trainer(recipe, tmp_path / "stopped")
    assert resumed.resume()
    assert resumed.step == 3
    resumed.train(show_progress=False)

    assert _weights(resumed).keys() == _weights(whole).keys()
    for name, value in _weights(whole).items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_training_writes_a_checkpoint_that_loads(recipe: Recipe, tmp_path: Path) -> None:
    trainer = Trainer(recipe, tmp_path / "run")
    assert not trainer.resume()
    assert math.isfinite(trainer.train(show_progress=False))
    loaded = load_checkpoint(tmp_path / "run")
    assert loaded.model.config == trainer.model.config
    assert torch.equal(loaded.model.w_diff.weight, trainer.model.w_diff.weight)


def test_a_checkpoint_stops_where_its_training_did_and_can_be_trained_on_lower(tmp_path: Path) -> None:
    above = RECIPE.replace("steps = 6", "steps = 1\ntimesteps_above = 0.4")
    Trainer(read_recipe(_written(tmp_path, above)), tmp_path / "above").train(show_progress=False)
    assert load_checkpoint(tmp_path / "above").model.config.measured.stop == 0.4
    further = Trainer(read_recipe(_written(tmp_path, RECIPE.replace("steps = 6", "steps = 1"))), tmp_path / "further")
    further.start_from(tmp_path / "above")
    further.train(show_progress=False)
    assert load_checkpoint(tmp_path / "further").model.config.measured.stop == 0


def test_a_checkpoint_forgets_what_was_measured_with_its_first_weights(tmp_path: Path) -> None:
    once = RECIPE.replace("steps = 6", "steps = 1")
    Trainer(read_recipe(_written(tmp_path, once)), tmp_path / "first").train(show_progress=False)
    config = tmp_path / "first" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "stop": 0.2, "steps": 8, "patience": 1}))
    (tmp_path / "first" / "SHA256SUMS").unlink()
    assert load_checkpoint(tmp_path / "first").model.config.measured == MeasuredDecoding(0.2, 8, 1)
    of_the_checkpoint = read_recipe(_written(tmp_path, once.replace(f'tokenizer = "{DEMO_TOKENIZER}"', "")))
    for name, recipe in (("further", of_the_checkpoint), ("again", read_recipe(_written(tmp_path, once)))):
        further = Trainer(recipe, tmp_path / name, start=tmp_path / "first")
        further.start_from(tmp_path / "first")
        further.train(show_progress=False)
        assert load_checkpoint(tmp_path / name).model.config.measured == MeasuredDecoding()


def test_a_model_trained_with_a_partner_is_decoded_with_the_projection_fed_back(tmp_path: Path) -> None:
    once = RECIPE.replace("steps = 6", "steps = 1\npartner_feedback = 0.6")
    Trainer(read_recipe(_written(tmp_path, once)), tmp_path / "run").train(show_progress=False)
    config = load_checkpoint(tmp_path / "run").model.config
    assert config.measured == MeasuredDecoding(self_conditioning="projection")
    assert DecodingParams.for_model(config).self_conditioning == "projection"


def test_a_run_of_a_release_without_measured_settings_is_resumed(recipe: Recipe, tmp_path: Path) -> None:
    trainer = Trainer(recipe, tmp_path / "run")
    trainer.save()
    (file,) = (tmp_path / "run").rglob("run.json")
    run = json.loads(file.read_text())
    run["config"]["feedback_share"] = None  # as it was written there
    assert not {"steps", "patience", "self_conditioning"} & run["config"].keys()
    file.write_text(json.dumps(run))
    assert Trainer(recipe, tmp_path / "run").resume()


@pytest.mark.parametrize("content", [RECIPE, CAUSAL])
@pytest.mark.parametrize("initialisation", ["opt", "mimetic"])
def test_the_loss_falls_on_a_batch_seen_again_and_again(content: str, initialisation: str, tmp_path: Path) -> None:
    content = content.replace("seed = 3", f'seed = 3\ninitialisation = "{initialisation}"')
    trainer = Trainer(read_recipe(_written(tmp_path, content)), tmp_path / "run")
    examples = trainer._batches.examples(0)
    losses = [trainer.train_step(examples).loss for _ in range(60)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize("content", [RECIPE, CAUSAL])
def test_the_loss_of_a_step_is_the_mean_over_the_tokens_of_its_batch(content: str, tmp_path: Path) -> None:
    trainer = Trainer(read_recipe(_written(tmp_path, content)), tmp_path / "run")
    examples, config = trainer._batches.examples(0), trainer.model.config
    batch, draws = collate(examples, config), draw(len(examples), trainer.params, "0")
    noise = draw_noise(draws.key, range(len(examples)), batch.answer_mask, config.vocab_size, "cpu")
    with torch.no_grad():
        expected = (
            causal_loss(trainer.model, batch)
            if content == CAUSAL
            else diffusion_loss(trainer.model, batch, draws.t, noise, self_condition=False)
        )
    assert trainer.train_step(examples).loss == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_runs_on_cuda_in_bf16(tmp_path: Path) -> None:
    recipe = read_recipe(_written(tmp_path, RECIPE.replace('autocast = "none"', 'autocast = "bf16"')))
    assert math.isfinite(Trainer(recipe, tmp_path / "run", Execution("cuda")).train(show_progress=False))


def test_bf16_autocast_trains_on_the_cpu(tmp_path: Path) -> None:
    recipe = read_recipe(_written(tmp_path, RECIPE.replace('autocast = "none"', 'autocast = "bf16"')))
    trainer = Trainer(recipe, tmp_path / "run")
    assert math.isfinite(trainer.train_step(trainer._batches.examples(0)).loss)
    assert trainer.model.w_diff.weight.dtype == torch.float32


def test_self_conditioning_is_fed_back_half_of_the_time_and_not_in_the_warm_up(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(recipe, tmp_path / "run")
    seen: list[bool] = []
    weight = trainer.model.w_diff.weight

    def loss(*arguments: object) -> torch.Tensor:
        seen.append(bool(arguments[-2]))
        return weight.sum()

    monkeypatch.setattr(trainer._parallel, "module", loss)
    examples = trainer._batches.examples(0)
    for trainer.step in range(200):
        trainer.train_step(examples)
    assert not any(seen[:2])
    assert 70 <= sum(seen[2:]) <= 128


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.3, 40, 80), (1.0, 198, 198)])
def test_a_partner_is_fed_back_in_its_share_of_the_steps_and_not_in_the_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, least: int, most: int
) -> None:
    content = RECIPE.replace("steps = 6", f"steps = 6\npartner_feedback = {share}\npartner_right = 0.5")
    trainer = Trainer(read_recipe(_written(tmp_path, content)), tmp_path / "run")
    seen: list[Partner | None] = []
    weight = trainer.model.w_diff.weight

    def loss(*arguments: object) -> torch.Tensor:
        seen.append(arguments[-1])
        return weight.sum()

    monkeypatch.setattr(trainer._parallel, "module", loss)
    examples = trainer._batches.examples(0)
    for trainer.step in range(200):
        trainer.train_step(examples)
    assert seen[:2] == [None, None]
    given = [partner for partner in seen if partner is not None]
    assert least <= len(given) <= most
    if given:
        assert 0.2 < torch.cat([partner.is_right.flatten() for partner in given]).float().mean() < 0.3  # a half of 0.5


PARTNER = TrainingParams(
    seed=0, steps=1, batch_size=1, learning_rate=1e-3, learning_rate_warmup=0, partner_feedback=0.5, partner_right=0.6
)


def test_a_partner_is_right_in_another_share_of_each_row_the_same_in_any_part_of_the_batch() -> None:
    mask, params = torch.ones(64, 400, dtype=torch.bool), replace(PARTNER, partner_stray=0.2, partner_noised=0.5)
    t = torch.arange(1, 65)[:, None].expand(-1, 4) * 15
    whole = draw_partner("3/7", range(64), mask, t, params, 50)
    part = draw_partner("3/7", range(8, 16), mask[8:16], t[8:16], params, 50)
    for name in ("is_right", "strays", "is_noised", "earlier"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[8:16])
    for found, most in ((whole.is_right, 0.6), (whole.strays >= 0, 0.2)):
        shares = found.float().mean(-1)
        assert 0.4 < shares.mean() / most < 0.6
        assert shares.min() < 0.1 * most
        assert 0.8 < shares.max() / most < 1.3
    assert set(whole.strays.unique().tolist()) == set(range(-1, 50))


def test_without_stray_tokens_there_are_none() -> None:
    drawn = draw_partner("3/7", range(4), torch.ones(4, 100), torch.ones(4, dtype=torch.int64), PARTNER, 50)
    assert (drawn.strays == -1).all()


@pytest.mark.parametrize("blocks", [(), (4,)], ids=["sequence", "block"])
def test_the_tokens_of_noised_rows_are_predicted_earlier_and_those_of_others_at_t(blocks: tuple[int, ...]) -> None:
    t = torch.full((400, *blocks), 200)
    params = replace(PARTNER, partner_noised=0.3)
    partner = draw_partner("3/7", range(400), torch.ones(400, 8), t, params, 50)
    assert 0.2 < partner.is_noised.float().mean() < 0.4
    assert torch.equal(partner.earlier[~partner.is_noised], t[~partner.is_noised])
    earlier = partner.earlier[partner.is_noised]
    assert 200 <= earlier.min() < 250
    assert 950 < earlier.max() < 1000
    assert torch.equal(t, torch.full((400, *blocks), 200))  # of the batch, and read again
    assert not draw_partner("3/7", range(400), torch.ones(400, 8), t, PARTNER, 50).is_noised.any()


def test_each_block_gets_a_timestep_of_its_own_where_the_recipe_says_so(recipe: Recipe, tmp_path: Path) -> None:
    params = replace(recipe.training, timesteps_per="block", timesteps_above=0.4)
    t = draw(50, params, "1", blocks=4).t
    assert t.shape == (50, 4)
    assert 400 < t.min() < t.max() <= 1000
    assert all(len(row.unique()) > 1 for row in t)
    trainer = Trainer(replace(recipe, training=params), tmp_path / "run")
    assert math.isfinite(trainer.train_step(trainer._batches.examples(0)).loss)


def test_a_timestep_for_each_block_needs_a_context_without_one(tmp_path: Path) -> None:
    content = RECIPE.replace('"none"\nanswer', '"quantised"\nanswer').replace(
        "steps = 6", 'steps = 6\ntimesteps_per = "block"'
    )
    with pytest.raises(InvalidParameter, match="set context_timestep"):
        Trainer(read_recipe(_written(tmp_path, content)), tmp_path / "run")


def test_the_noise_of_a_row_is_the_same_in_any_part_of_the_batch(recipe: Recipe) -> None:
    mask = torch.arange(8) < torch.tensor([[8], [4], [8]])
    whole = draw_noise("3/7", range(3), mask, 50, "cpu")
    torch.testing.assert_close(draw_noise("3/7", range(1, 3), mask[1:], 50, "cpu"), whole[1:], atol=0, rtol=0)
    assert not whole[1, 4:].any()
    assert 0.9 < whole[0].std() < 1.1
    assert not torch.equal(whole[0], whole[2])
    assert not torch.equal(whole, draw_noise("3/8", range(3), mask, 50, "cpu"))
    first, again, other = (draw(64, recipe.training, key) for key in ("1", "1", "2"))
    assert torch.equal(first.t, again.t)
    assert not torch.equal(first.t, other.t)


def test_causal_training_leaves_the_diffusion_inputs_to_the_run_that_goes_on_from_it(
    recipe: Recipe, tmp_path: Path
) -> None:
    first = Trainer(read_recipe(_written(tmp_path, CAUSAL)), tmp_path / "causal")
    before = _weights(first)
    first.train(show_progress=False)
    after = _weights(first)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in after if not name.startswith(("w_diff", "w_pred", "diffusion_time"))}
    second = Trainer(recipe, tmp_path / "diffusion")
    second.start_from(tmp_path / "causal")
    assert all(torch.equal(value, after[name]) for name, value in _weights(second).items())
    assert math.isfinite(second.train(show_progress=False))


def test_the_recipes_of_the_demo_fit_each_other() -> None:
    causal, user, core = (read_recipe(RECIPES / f"{name}.toml") for name in ("user_causal", "user", "core"))
    assert causal.model == user.model
    assert causal.tokenizer.samefile(core.tokenizer)
    assert causal.training.objective == "causal" != user.training.objective


def test_a_run_of_another_recipe_is_not_resumed(recipe: Recipe, tmp_path: Path) -> None:
    Trainer(recipe, tmp_path / "run").save()
    other = read_recipe(_written(tmp_path, RECIPE.replace("seed = 3", "seed = 4")))
    with pytest.raises(CheckpointInvalid, match="another recipe"):
        Trainer(other, tmp_path / "run").resume()


def test_a_state_half_written_does_not_replace_the_last_whole_one(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(recipe, tmp_path / "run")
    trainer.save()
    before = _files(tmp_path / "run" / "state-0")

    def full_disk(_: object, *, checkpoint_id: Path, no_dist: bool) -> None:
        (checkpoint_id / "__0_0.distcp").write_bytes(b"half")
        raise OSError("no space left")

    trainer.step = 9
    with monkeypatch.context() as patched:
        patched.setattr(state_module.state_dict_saver, "save", full_disk)
        with pytest.raises(OSError, match="no space"):
            trainer.save()
    assert _files(tmp_path / "run" / "state-0") == before
    again = Trainer(recipe, tmp_path / "run")
    assert again.resume()
    assert again.step == 0
    trainer.save()
    assert sorted(path.name for path in (tmp_path / "run").glob("state-*")) == ["state-9"]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", [RUN, ".metadata", "__0_0.distcp"])
def test_a_damaged_state_is_refused(recipe: Recipe, tmp_path: Path, name: str) -> None:
    Trainer(recipe, tmp_path / "run").save()
    file = tmp_path / "run" / "state-0" / name
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointInvalid, match="state-0 is damaged"):
        Trainer(recipe, tmp_path / "run").resume()


def test_training_starts_from_a_finished_checkpoint_of_the_same_shape(recipe: Recipe, tmp_path: Path) -> None:
    first = Trainer(recipe, tmp_path / "first")
    first.train(show_progress=False)
    second = Trainer(recipe, tmp_path / "second")
    second.start_from(tmp_path / "first")
    assert torch.equal(second.model.w_diff.weight, first.model.w_diff.weight)
    other = Trainer(read_recipe(_written(tmp_path, RECIPE.replace("hidden_size = 16", "hidden_size = 32"))), tmp_path)
    with pytest.raises(CheckpointInvalid, match="in shape or tokenizer"):
        other.start_from(tmp_path / "first")


def test_batches_depend_on_the_step_alone(recipe: Recipe, tmp_path: Path) -> None:
    def source() -> BatchSource:
        return Trainer(recipe, tmp_path)._batches

    ahead = source()
    batches = [ahead.examples(step) for step in (0, 40, 0)]
    assert batches[0] == batches[2] != batches[1]
    assert source().examples(40) == batches[1]
    assert [len(batch) for batch in batches] == [4, 4, 4]


def test_an_answer_is_filled_with_eos_and_padding_is_not_in_the_loss(recipe: Recipe, tmp_path: Path) -> None:
    config, tokenizer = Trainer(recipe, tmp_path).model.config, Tokenizer.from_file(DEMO_TOKENIZER)
    short = encode_item(Item("public", (), "When?", "At 9:30."), tokenizer, config)
    long = encode_item(Item("public", (), "When is it?", "It is at 9:30 in the red box."), tokenizer, config)
    assert len(short.answer_ids) == 8
    assert len(long.answer_ids) == 16
    tokens = len(tokenizer.encode("At 9:30."))
    assert set(short.answer_ids[tokens:]) == {config.eos_token_id}
    batch = collate([short, long], config)
    assert batch.answer_mask.sum(-1).tolist() == [8, 16]
    assert batch.prompt_mask.sum(-1).tolist() == [len(short.prompt_ids), len(long.prompt_ids)]
    assert batch.prompt_ids[0, -1] == batch.prompt_ids[1, -1], "prompts end together"
    with pytest.raises(PromptTooLong):
        encode_item(Item("public", (), "why " * 200, "So."), tokenizer, config)


def test_a_conversation_is_plain_text_cut_at_the_last_position(recipe: Recipe, tmp_path: Path) -> None:
    config, tokenizer = Trainer(recipe, tmp_path).model.config, Tokenizer.from_file(DEMO_TOKENIZER)
    short = Conversation(("The bell is red.",), (("What is red?", "The bell is."), ("Who?", "The bell.")))
    example = encode_conversation(short, tokenizer, config)
    bos, eos = config.bos_token_id, config.eos_token_id
    prompt = tokenizer.encode_prompt("What is red?", ("The bell is red.",), bos_token_id=bos)
    second = tokenizer.encode_prompt("Who?", bos_token_id=bos)[1:]
    first_answer, second_answer = tokenizer.encode("The bell is."), tokenizer.encode("The bell.")
    assert list(example.answer_ids) == [*prompt, *first_answer, eos, *second, *second_answer, eos]
    long = encode_conversation(Conversation(short.notes, short.turns * 20), tokenizer, config)
    assert len(long.answer_ids) == config.max_positions
    assert long.answer_ids[: len(example.answer_ids)] == example.answer_ids
    batch = collate([example, long], config)
    assert batch.prompt_ids.shape == (2, 0)
    assert batch.answer_mask.sum(-1).tolist() == [len(example.answer_ids), config.max_positions]


def test_timesteps_are_uniform_and_cover_the_range_evenly() -> None:
    t = torch.cat([sample_timesteps(64, torch.Generator().manual_seed(seed)) for seed in range(200)])
    assert (int(t.min()), int(t.max())) == (1, 1000)
    counts = torch.histc(t.float(), bins=10, min=0.5, max=1000.5)
    assert (counts - len(t) / 10).abs().max() < 40
    batch = sample_timesteps(10, torch.Generator().manual_seed(0))
    assert sorted(((batch - 1) // 100).tolist()) == list(range(10))
    assert batch.tolist() != sorted(batch.tolist())


@pytest.mark.parametrize(("above", "up_to"), [(0.0, 1.0), (0.4, 1.0), (0.4, 0.6), (0.6, 0.8), (0.8, 1.0)])
def test_timesteps_of_a_range_only_and_evenly(above: float, up_to: float) -> None:
    t = narrow(torch.arange(1, 1001), above, up_to)
    values, counts = t.unique(return_counts=True)
    assert values.tolist() == list(range(round(1000 * above) + 1, round(1000 * up_to) + 1))
    assert int(counts.max() - counts.min()) <= 1


def test_the_learning_rate_rises_then_falls_along_a_cosine() -> None:
    params = TrainingParams(0, 110, 1, 1.0, 10)
    assert [round(learning_rate(step, params), 4) for step in (0, 9, 10)] == [0.1, 1.0, 1.0]
    assert learning_rate(60, params) == pytest.approx(0.01 + 0.99 / 2)
    assert learning_rate(110, params) == pytest.approx(0.01)
    constant = replace(params, learning_rate_schedule="constant")
    assert [learning_rate(step, constant) for step in (0, 9, 60, 109)] == [0.1, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("steps = 6", "steps = 0", "at least 1"),
        ("steps = 6", "stepz = 6", "stepz"),
        ("seed = 3\n", "", "seed"),
        ('source = "demo-user"', 'source = "wikipedia"', "demo-core, demo-user"),
        ('source = "demo-user"', 'source = "demo-conversations"', "'diffusion': demo-core, demo-user"),
        ('source = "demo-user"', 'source = "web"\nobjective = "causal"', "'causal': demo-conversations, demo-core"),
        ('source = "demo-user"', 'source = "demo-user"\nobjective = "gan"', "'diffusion' or 'causal'"),
        ('source = "demo-user"', 'source = "demo-user"\ninitialisation = "he"', "'opt' or 'mimetic'"),
        ('autocast = "none"', 'autocast = "fp8"', "fp8"),
        ("[training]", "[train]", "training"),
        ("learning_rate = 1e-2", "learning_rate = -1", "above 0"),
        ("learning_rate = 1e-2", "learning_rate = nan", "learning_rate of a recipe is nan"),
        ("learning_rate = 1e-2", "learning_rate = inf", "finite"),
        ("learning_rate_warmup = 2", "learning_rate_warmup = -5", "learning_rate_warmup of a recipe is -5"),
        ("self_conditioning_from = 2", "self_conditioning_from = -3", "self_conditioning_from of a recipe is -3"),
        ("steps = 6", "steps = 6\nweight_decay = -1", "weight_decay of a recipe is -1"),
        ("steps = 6", "steps = 6\nweight_decay = nan", "weight_decay of a recipe is nan"),
        ("steps = 6", "steps = 6\ngradient_clip = nan", "gradient_clip nan"),
        ("steps = 6", "steps = 6\ntimesteps_above = 0.6\ntimesteps_up_to = 0.6", "shares of T in"),
        ("steps = 6", "steps = 6\ntimesteps_up_to = 1.2", "shares of T in"),
        ("steps = 6", "steps = 6\npartner_feedback = 1.5", "partner_feedback is 1.5"),
        ("steps = 6", "steps = 6\npartner_feedback = nan", "partner_feedback is nan"),
        ("steps = 6", "steps = 6\npartner_noised = -0.5", "partner_noised is -0.5"),
        ("steps = 6", "steps = 6\npartner_right = 0.0", "partner_right is 0.0"),
        ("steps = 6", 'steps = 6\ntimesteps_per = "token"', "'sequence' or 'block'"),
        ("num_heads = 2", "num_heads = 2\nfeedback_share = 1.0", "feedback_share is 1.0"),
        ("num_heads = 2", "num_heads = 2\nfeedback_share = 0.0005", "above 1 / vocab_size"),
        ("num_heads = 2", "num_heads = 3", "not a multiple"),
        ("num_heads = 2", "num_headz = 2", "num_headz"),
        ("steps = 6", "steps =", "cannot read"),
        ("steps = 6", "steps = true", "must be of type int"),
        ("steps = 6", 'steps = 6\nlearning_rate_schedule = "step"', "'cosine' or 'constant'"),
        ("steps = 6", "steps = 6\nwarmup_batch_size = 0", "warmup_batch_size of a recipe is 0"),
        ("checkpoint_every = 3", 'checkpoint_every = 3\n[data]\ntext = ["*.txt"]', "either .data., or a source"),
        ('source = "demo-user"\n', "", "either .data., or a source"),
        ('source = "demo-user"', "data = 1", "unknown key data"),
        ("checkpoint_every = 3", "checkpoint_every = 3\n[data]\ntext = []", "must be of type list of texts"),
        ("checkpoint_every = 3", 'checkpoint_every = 3\n[data]\ntxt = ["a"]', r"\[data\] has the unknown key txt"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused_by_name(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises((InvalidParameter, CheckpointInvalid), match=says):
        Trainer(read_recipe(_written(tmp_path, RECIPE.replace(old, new))), tmp_path)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="cannot read the recipe"):
        read_recipe(tmp_path / "none.toml")
