"""Measured decoding settings: what is compared, which are chosen, and what is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO_TOKENIZER, demo_shaped_model, experts_of
from typer.testing import CliRunner

from ssd2.algorithm.block_end import BlockEnd
from ssd2.algorithm.measured import MeasuredDecoding
from ssd2.algorithm.params import CollaborationParams, DecodingParams
from ssd2.algorithm.projection import ProjectedTokens
from ssd2.cli import app
from ssd2.errors import CheckpointInvalid, InvalidParameter
from ssd2.evaluation.grid import Grid
from ssd2.evaluation.intervals import paired_interval
from ssd2.evaluation.measuring import FRESH, Loss, Measurement, Measuring, Trial, label_of
from ssd2.evaluation.pair import Pair
from ssd2.evaluation.tasks import ORDER_FREE
from ssd2.models.checkpoint import load_checkpoint, load_config_and_tokenizer, save_checkpoint, write_measured
from ssd2.models.checksums import SHA256SUMS, check_checksums
from ssd2.models.convert import export_opt

TASK = ORDER_FREE
N = 100
"""Items of the made-up worlds below."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Random models that may be decoded to 0."""
    root = tmp_path_factory.mktemp("pair")
    for seed, name in enumerate(("core", "user")):
        save_checkpoint(root / name, demo_shaped_model(seed, stop=0.0), DEMO_TOKENIZER.read_text())
    return Pair.load(root / "core", root / "user")


def test_a_pair_is_not_decoded_below_its_experts_nor_measured_without_timesteps(pair: Pair, tmp_path: Path) -> None:
    experts = replace(pair.core, model=experts_of(*(demo_shaped_model(seed) for seed in range(3))))
    assert Grid().of_pair(Pair(experts, pair.user)).stops == (0.4,)
    assert Grid().of_pair(pair) == Grid()
    for name in ("core", "user"):
        export_opt(demo_shaped_model(1), tmp_path / name, DEMO_TOKENIZER.read_text())
    with pytest.raises(InvalidParameter, match="token by token"):
        Grid().of_pair(Pair.load(tmp_path / "core", tmp_path / "user"))


def test_batches_decoded_side_by_side_measure_what_one_after_the_other_do(pair: Pair) -> None:
    told: list[int] = []

    def measured(workers: int) -> Trial:
        measuring = Measuring(pair, TASK, CollaborationParams(), 4, 0.01, 0, ("", ""), batch_size=3, workers=workers)
        measuring.on_progress = lambda _label, answers: told.append(answers)
        return measuring._trial(pair.decoding(steps=4, stop=0.0), 0)

    assert measured(3) == measured(1)
    assert told == [3, 3, 3, 3] * 2


def test_settings_measured_before_are_no_part_of_what_is_compared(pair: Pair) -> None:
    model = demo_shaped_model(0, stop=0.2, steps=8, patience=1, self_conditioning="projection")
    measured = Pair(replace(pair.core, model=model), pair.user)
    assert Grid().without_patience(measured) == Grid().without_patience(pair)


@pytest.mark.parametrize("stop", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("steps", [4, 8, 25, 100])
def test_no_block_ends_before_the_fewest_timesteps_of_its_patience(pair: Pair, stop: float, steps: int) -> None:
    """Here every projection is the same from the first timestep on."""
    base = pair.decoding(stop=stop, steps=steps, patience=0)
    vocab_size = pair.core.model.config.vocab_size
    fewest = {decoding.patience: fewest for decoding, fewest in Grid().with_patience(base, vocab_size)}
    for patience in Grid().patiences:
        end, done_after = BlockEnd(replace(base, patience=patience), torch.tensor([False])), steps
        for number, timestep in enumerate(base.timesteps, start=1):
            logits, same = torch.zeros(1, base.block_size, vocab_size), ProjectedTokens((0,) * base.block_size)
            end.see(timestep, logits, (same,), torch.zeros(1, base.block_size, dtype=torch.int64))
            if end.is_over:
                done_after = number
                break
        assert fewest.get(patience, steps) == done_after


@pytest.mark.parametrize(
    ("lost", "gained", "count", "low", "high"),
    [(0, 0, 20, -0.0891, 0.0891), (10, 2, 100, 0.0108, 0.1460), (0, 100, 100, -1.0, -0.9473)],
)
def test_the_interval_of_a_loss_has_a_width_even_where_no_answer_differs(
    lost: int, gained: int, count: int, low: float, high: float
) -> None:
    assert paired_interval(lost, gained, count) == pytest.approx((low, high), abs=1e-4)


def _trial(right: str, kinds: str) -> Trial:
    return Trial(DecodingParams(block_size=8), tuple(kinds), tuple(one == "1" for one in right), 1.0, 1.0)


def test_a_setting_loses_what_it_loses_of_the_kind_that_it_loses_most_of() -> None:
    reference, setting = _trial("1110" + "1100", "rrrrffff"), _trial("1101" + "0001", "rrrrffff")
    loss = Loss.of(setting, reference)
    assert (loss.kind, loss.share) == ("f", 0.25)
    assert loss.interval == paired_interval(2, 1, 4)
    assert Loss.of(reference, reference).share == 0


World = Callable[[DecodingParams, bool], tuple[float, float]]
"""From a setting, and whether the items are fresh, to its accuracy and its timesteps a block."""


def _measure(
    pair: Pair,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    *,
    whole: bool = False,
    results_file: Path | None = None,
    weights: tuple[str, str] = ("c", "u"),
) -> tuple[Measurement, list[str]]:
    """Measure in a made-up world; returns the labels of the settings that were computed too, in order."""
    computed: list[str] = []

    def measured(_: Measuring, decoding: DecodingParams, seed: int) -> dict[str, Any]:
        computed.append(label_of(decoding) + (" fresh" if seed >= FRESH else ""))
        accuracy, timesteps = world(decoding, seed >= FRESH)
        right = [number < round(accuracy * N) for number in range(N)]
        costs = {"timesteps_per_block": timesteps, "core_logits_per_block": timesteps}
        return {"kinds": ["reverse"] * N, "right": right, **costs}

    monkeypatch.setattr(Measuring, "_measured", measured)
    collaboration = CollaborationParams()
    measuring = Measuring(pair, TASK, collaboration, N, 0.01, 0, weights, results_file)
    return measuring.run(Grid(), whole=whole), computed


def few_are_enough(decoding: DecodingParams, _: bool) -> tuple[float, float]:
    """16 timesteps do where the projection is fed back and nothing is stopped; patience loses nothing."""
    enough = decoding.steps >= 16 and decoding.stop == 0 and decoding.self_conditioning == "projection"
    return (0.8 if enough else 0.5), decoding.steps - (3 if decoding.patience else 0)


def test_the_cheapest_setting_that_loses_little_is_chosen(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    measurement, computed = _measure(pair, few_are_enough, monkeypatch)
    chosen = measurement.chosen.decoding
    assert (chosen.steps, chosen.stop, chosen.self_conditioning) == (16, 0.0, "projection")
    assert (chosen.patience, measurement.chosen.timesteps_per_block) == (1, 13)
    assert (measurement.loss.share, measurement.reference.decoding.steps) == (0, 100)
    assert measurement.reference.decoding.self_conditioning == "projection", "the better of the two"
    assert "8 to 0T, no patience, own" in computed
    assert not [label for label in computed if label.startswith("8") and "no patience" not in label], "it loses without"
    assert not [label for label in computed if label.startswith("42 to 0T")], "it cannot be cheaper"


def test_the_whole_grid_is_compared_where_that_is_asked_for(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    measurement, computed = _measure(pair, few_are_enough, monkeypatch, whole=True)
    grid, vocab_size = Grid(), pair.core.model.config.vocab_size
    bases = grid.without_patience(pair)
    variants = [decoding for base in bases for decoding, _ in grid.with_patience(base, vocab_size)]
    assert len(bases) == 36
    assert sorted(label for label in computed if "fresh" not in label) == sorted(map(label_of, [*bases, *variants]))
    assert measurement.chosen.decoding.steps == 16


def test_a_setting_that_was_only_lucky_is_not_chosen(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def lucky(decoding: DecodingParams, is_fresh: bool) -> tuple[float, float]:
        accuracy, timesteps = few_are_enough(decoding, is_fresh)
        return (0.8 if decoding.steps == 4 and not is_fresh else accuracy), timesteps

    measurement, computed = _measure(pair, lucky, monkeypatch)
    assert "4 to 0T, no patience, own fresh" in computed
    assert not [label for label in computed if label.startswith("4") and ", patience" in label], "it loses without"
    assert (measurement.chosen.decoding.steps, measurement.chosen.decoding.patience) == (16, 1)


def test_of_settings_that_cost_the_same_the_more_accurate_one_is_chosen(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def better(decoding: DecodingParams, _: bool) -> tuple[float, float]:
        return (0.9 if (decoding.stop, decoding.self_conditioning) == (0.2, "projection") else 0.8), decoding.steps

    chosen = _measure(pair, better, monkeypatch)[0].chosen.decoding
    assert (chosen.steps, chosen.stop, chosen.self_conditioning) == (4, 0.2, "projection")


def test_where_nothing_else_is_as_good_all_timesteps_are_chosen(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    measurement, _ = _measure(pair, lambda decoding, _: (decoding.steps / 200, decoding.steps), monkeypatch)
    chosen = measurement.chosen.decoding
    assert (chosen.steps, chosen.stop, chosen.patience) == (100, 0.0, None)


def test_a_loss_of_the_tolerance_is_accepted_and_more_is_not(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for lost, steps in ((0.01, 4), (0.02, 100)):
        measurement, _ = _measure(
            pair,
            lambda decoding, _, lost=lost: (0.8 if decoding.steps == 100 else 0.8 - lost, decoding.steps),
            monkeypatch,
        )
        assert measurement.chosen.decoding.steps == steps


def test_an_interrupted_measurement_is_resumed(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "measured.jsonl"
    whole, computed = _measure(pair, few_are_enough, monkeypatch, results_file=file)
    lines = file.read_text().splitlines(keepends=True)
    assert len(lines) == len(computed)
    file.write_text("".join(lines[:5]) + lines[5][:40])  # as a crash leaves it
    again, missing = _measure(pair, few_are_enough, monkeypatch, results_file=file)
    assert (again, missing) == (whole, computed[5:])
    assert file.read_text() == "".join(lines)
    _, others = _measure(pair, few_are_enough, monkeypatch, results_file=file, weights=("other", "u"))
    assert others == computed, "results of other weights are not these"


def test_a_file_of_other_results_is_refused(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "measured.jsonl"
    _measure(pair, few_are_enough, monkeypatch, results_file=file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({"setting": line["setting"]}) + "\n" for line in lines))
    with pytest.raises(InvalidParameter, match="another folder"):
        _measure(pair, few_are_enough, monkeypatch, results_file=file)


@pytest.fixture
def folders(core_folder: Path, user_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of a core and a user model."""
    for name, folder in (("core", core_folder), ("user", user_folder)):
        shutil.copytree(folder, tmp_path / name)
    return tmp_path / "core", tmp_path / "user"


def _run(folders: tuple[Path, Path], *options: str) -> dict[str, Any]:
    core, user = folders
    small = ["--limit", "2", "--stops", "0.4", "--steps", "2,3", "--patiences", "1", "--json"]
    result = CliRunner().invoke(app, ["measure", str(core), "--user", str(user), *small, *options])
    assert result.exit_code == 0, result.output
    outcome: dict[str, Any] = json.loads(result.stdout)
    return outcome


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_settings_and_costs_are_written_into_the_checkpoint(folders: tuple[Path, Path]) -> None:
    core, user = folders
    before, users = _contents(core), _contents(user)
    outcome = _run(folders)
    after = _contents(core)
    assert _contents(user) == users
    assert after.keys() == before.keys() | {"measured.json"}
    assert {name for name in before if after[name] != before[name]} == {"config.json", SHA256SUMS}
    assert json.loads(after["measured.json"]) == outcome
    names = ("stop", "steps", "patience", "self_conditioning")
    chosen = MeasuredDecoding(**{name: outcome[name] for name in names})
    config = load_checkpoint(core).model.config
    assert config.measured == chosen
    assert replace(config.unmeasured(), stop=0.4) == load_checkpoint(user).model.config, "all else is as it was"
    assert (outcome["task"], outcome["items_of_each_kind"], outcome["seed"]) == (TASK.name, 2, 0)
    assert outcome["core_weights_sha256"] in after[SHA256SUMS].decode(), "that of model.safetensors"
    assert outcome["command"].split()[0] == "ssd2"
    assert outcome["cost"]["timesteps_per_block"] <= 3
    assert len(outcome["cost"]["interval_95"]) == 2
    check_checksums(core)


def test_a_dry_run_writes_nothing(folders: tuple[Path, Path]) -> None:
    before = _contents(folders[0])
    outcome = _run(folders, "--dry-run")
    assert _contents(folders[0]) == before
    assert outcome["steps"] in (2, 3)


def test_results_in_their_own_folder_are_reused_once_settings_are_written(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = _run(folders, "--out", str(tmp_path / "out"))
    monkeypatch.setattr(Measuring, "_measured", lambda *_: pytest.fail("it ran"))
    assert _run(folders, "--out", str(tmp_path / "out")) == outcome


def test_the_table_names_the_costs_and_the_choice(folders: tuple[Path, Path]) -> None:
    core, user = folders
    small = ["--limit", "1", "--stops", "0.4", "--steps", "2", "--patiences", "", "--dry-run"]
    result = CliRunner().invoke(app, ["measure", str(core), "--user", str(user), *small])
    assert "| timesteps | stop | patience | fed back | right | lost | 95% | timesteps a block |" in result.stdout
    assert "| 2 | 0.4T | none | own | 0.000 | +0.000 |" in result.stdout
    assert "chosen: 2 timesteps to 0.4T, no patience, own fed back" in result.stdout


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--steps", "8,many"], "steps is '8,many'"),
        (["--patiences", "0"], "patience is 0"),
        (["--stops", ""], "nothing to measure"),
        (["--tolerance", "1"], "tolerance is 1"),
        (["--steps", "700"], "room for 1 to 600"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_runs(
    folders: tuple[Path, Path], options: list[str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Measuring, "_measured", lambda *_: pytest.fail("it ran"))
    core, user = folders
    result = CliRunner().invoke(app, ["measure", str(core), "--user", str(user), *options])
    assert isinstance(result.exception, InvalidParameter)
    assert named in str(result.exception)


def test_a_checkpoint_that_cannot_be_written_is_refused_before_anything_runs(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Measuring, "_measured", lambda *_: pytest.fail("it ran"))
    monkeypatch.setattr(os, "access", lambda _file, mode, **_: mode != os.W_OK)
    core, user = folders
    result = CliRunner().invoke(app, ["measure", str(core), "--user", str(user)])
    assert isinstance(result.exception, InvalidParameter)
    assert "folder of your own" in str(result.exception)


def test_written_settings_hide_no_damage_to_other_files(folders: tuple[Path, Path]) -> None:
    core, _ = folders
    weights = core / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    write_measured(core, MeasuredDecoding(0.4, 8, 1, "own"), {})
    with pytest.raises(CheckpointInvalid, match="damaged"):
        check_checksums(core)


def test_a_checkpoint_without_checksums_stays_without(folders: tuple[Path, Path]) -> None:
    core, _ = folders
    (core / SHA256SUMS).unlink()
    write_measured(core, MeasuredDecoding(0.4, 8, 1, "own"), {})
    assert not (core / SHA256SUMS).exists()
    config, _ = load_config_and_tokenizer(core)
    assert config.measured == MeasuredDecoding(0.4, 8, 1, "own")


def test_settings_that_are_not_measured_again_are_gone(folders: tuple[Path, Path]) -> None:
    core, _ = folders
    write_measured(core, MeasuredDecoding(0.4, 8, 1, "own"), {})
    write_measured(core, MeasuredDecoding(0.4, 16), {})
    config, _ = load_config_and_tokenizer(core)
    assert config.measured == MeasuredDecoding(0.4, 16)


def test_a_checkpoint_loads_whatever_stops_the_writing(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    core, _ = folders
    real = Path.replace

    def full(file: Path, target: Path) -> Path:
        if target.name == "measured.json":
            raise OSError("no space left on device")
        return real(file, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InvalidParameter, match="no space left"):
        write_measured(core, MeasuredDecoding(0.4, 8, 1, "own"), {})
    assert load_checkpoint(core).model.config.measured == MeasuredDecoding(0.4, 8, 1, "own")
