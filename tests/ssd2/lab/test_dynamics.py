"""When tokens change, counted by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import block_view
from typer.testing import CliRunner

from ssd2.algorithm.collaboration import Timestep
from ssd2.algorithm.ensemble import weighted_average
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.cli import app
from ssd2.demo.generator import unseen_items
from ssd2.evaluation.pair import Pair, answer_batch
from ssd2.lab.dynamics import Dynamics, _Watch, measure_dynamics
from ssd2.lab.dynamics_report import write_dynamics_report
from ssd2.models.checkpoint import load_checkpoint

PARAMS = DecodingParams(block_size=8, max_tokens=16, steps=5, stop=0.0, top_p=0.9)


@pytest.fixture(scope="module")
def pair(core_folder: Path, user_folder: Path) -> Pair:
    return Pair(load_checkpoint(core_folder), load_checkpoint(user_folder))


def test_each_change_counts_for_the_fifth_that_it_is_in() -> None:
    dynamics = Dynamics((1000, 801, 800, 601, 201, 200, 1), (0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625), (1.0,) * 7)
    assert dynamics.changes_by_range() == [0.5, 0.25 + 0.125, 0.0, 0.0625, 0.03125 + 0.015625]


def test_tokens_are_compared_from_timestep_to_timestep_and_with_the_last(pair: Pair) -> None:
    items = unseen_items("reverse", 3, 1)
    seen: dict[tuple[int, int], list[list[int]]] = {}

    def watch(timestep: Timestep) -> None:
        seen[timestep.view.block, timestep.view.step] = timestep.mixed.argmax(-1).tolist()

    seeds = [Seeds.reproducible(7 + row) for row in range(3)]
    answer_batch(pair, items, CollaborationParams(0.4), PARAMS, seeds, on_timestep=watch)
    places = [(block, row, place) for block in range(2) for row in range(3) for place in range(8)]

    def token(block: int, step: int, row: int, place: int) -> int:
        return seen[block, step][row][place]

    for batch_size in (1, 3):
        dynamics = measure_dynamics(pair, items, CollaborationParams(0.4), PARAMS, seed=7, batch_size=batch_size)
        for step in range(5):
            settled = sum(token(b, step, r, p) == token(b, 4, r, p) for b, r, p in places)
            assert dynamics.settled[step] == pytest.approx(settled / len(places))
            if step:
                changed = sum(token(b, step, r, p) != token(b, step - 1, r, p) for b, r, p in places)
                assert dynamics.changed[step - 1] == pytest.approx(changed / len(places))
    assert max(dynamics.changed) > 0.01, "else the equality shows nothing"
    assert dynamics.settled[-1] == 1


def test_blocks_that_would_end_early_are_watched_to_their_last_timestep(pair: Pair) -> None:
    items = unseen_items("reverse", 2, 1)
    greedy = replace(PARAMS, projection="greedy")
    full, early = (
        measure_dynamics(pair, items, CollaborationParams(0.4), params)
        for params in (greedy, replace(greedy, patience=1))
    )
    assert full == early


def test_what_stands_behind_the_end_of_an_answer_is_not_counted() -> None:
    watch, eos = _Watch(steps=5, stop_ids=(2,)), 2
    for block, answer in enumerate(([[], []], [[5] * 7 + [eos], [5] * 8])):
        for step in range(5):
            logits = torch.eye(32)[torch.tensor([[0] * 8, [step] * 8])]  # the second row changes at every timestep
            ids = torch.tensor(answer, dtype=torch.int64)
            view = block_view(2, block=block, step=step, answer_ids=ids)
            watch.see(Timestep(view, None, logits, weighted_average(1.0, 0.0), []))
    assert watch.tokens == 3 * 8, "two rows of the first block, one of the second"
    assert watch.changed.tolist() == [2 * 8] * 4


def test_the_report_and_the_command(core_folder: Path, user_folder: Path, tmp_path: Path) -> None:
    seen = {
        "pair": Dynamics((1000, 500, 1), (0.25, 0.125), (0.5, 0.75, 1.0)),
        "algorithm_1": Dynamics((1000, 500, 1), (0.75, 0.5), (0.5, 0.75, 1.0)),
    }
    text = write_dynamics_report(tmp_path, seen, 9, 3, "ssd2 lab dynamics").read_text(encoding="utf-8")
    for part in (
        "| (0.4T, 0.6T] | 0.250 | 0.750 |",
        "| (0.0T, 0.2T] | 0.125 | 0.500 |",
        "9 answers each, seed 3",
        "ssd2 lab dynamics",
    ):
        assert part in text
    assert (tmp_path / "dynamics.svg").stat().st_size > 1000
    models = ["--core", str(core_folder), "--user", str(user_folder)]
    result = CliRunner().invoke(app, ["lab", "dynamics", *models, "--limit", "1", "--steps", "4", "--json"])
    assert result.exit_code == 0, result.output
    assert {name: len(one["changes_by_range"]) for name, one in json.loads(result.stdout).items()} == {
        "pair": 5,
        "algorithm_1": 5,
    }


def test_models_of_algorithm_1_change_most_in_the_fifths_that_the_paper_names() -> None:
    """§3.1: larger changes from 0.8T to 0.6T, minor ones down to 0.4T, and in most cases none below."""
    result = CliRunner().invoke(app, ["lab", "dynamics", "--limit", "10", "--steps", "50", "--json"])
    assert result.exit_code == 0, result.output
    first, second, third, fourth, last = json.loads(result.stdout)["algorithm_1"]["changes_by_range"]
    assert second > third > 3 * fourth
    assert first > fourth
    assert last < 0.05
