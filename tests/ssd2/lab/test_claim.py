"""The paper's claim on the order-free relation, with the committed models: which pair answers in which order."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from ssd2.cli import app
from ssd2.demo.paths import RELATION
from ssd2.demo.relation.text import ORDERS
from ssd2.errors import CheckpointInvalid, InvalidParameter, ModelNotFound
from ssd2.evaluation.pair import Pair
from ssd2.lab.claim import (
    ALPHAS,
    FOLDERS,
    LAMBDAS,
    NEXT_TOKEN,
    REFERENCE,
    Answers,
    Row,
    Setting,
    answer,
    compare,
    load_pairs,
    measure_claim,
    settings,
)
from ssd2.lab.claim_report import claim_tables, write_claim_report
from ssd2.lab.claim_training import train_claim
from ssd2.models.checkpoint import WEIGHTS
from ssd2.training.recipe import EXPERTS

ITEMS = 200
AT_LEAST, AT_MOST = 0.6, 0.1
COMMITTED = sorted({folder for system in ("algorithm 1", "autoregressive") for folder in FOLDERS[system]})


@pytest.fixture(scope="module")
def pairs() -> dict[str, list[Pair]]:
    return load_pairs([RELATION])


def _share(pairs: dict[str, list[Pair]], setting: Setting) -> float:
    return sum(answer(pairs[setting.system][0], setting, ITEMS).right) / ITEMS


def _check_the_claim(pairs: dict[str, list[Pair]]) -> None:
    """With the fact before the place diffusion answers, and the autoregressive pair does not, whatever λ and α."""
    together = Setting("algorithm 1", "reverse", *REFERENCE)
    assert _share(pairs, together) >= AT_LEAST
    for alpha in ALPHAS:
        for lambda_user in LAMBDAS:
            swept = Setting("autoregressive", "reverse", *NEXT_TOKEN, lambda_user, alpha)
            assert _share(pairs, swept) <= AT_MOST, swept.label
    for system, decoding in (("algorithm 1", REFERENCE), ("autoregressive", NEXT_TOKEN)):
        for order in ORDERS:
            for alone in ((0.0, 0.0), (1.0, 1.0)):
                setting = Setting(system, order, *decoding, *alone)
                assert _share(pairs, setting) <= AT_MOST, setting.label


def test_where_the_fact_stands_first_diffusion_answers_and_next_tokens_do_not(pairs: dict[str, list[Pair]]) -> None:
    _check_the_claim(pairs)


def test_where_the_place_stands_first_both_answer(pairs: dict[str, list[Pair]]) -> None:
    """Else reverse order would show only that the autoregressive pair had not learned its text."""
    assert _share(pairs, Setting("algorithm 1", "forward", *REFERENCE)) >= AT_LEAST
    assert _share(pairs, Setting("autoregressive", "forward", *NEXT_TOKEN)) >= 0.95


def test_the_committed_models_are_at_most_4_mb() -> None:
    files = [RELATION / folder / WEIGHTS for folder in COMMITTED]
    assert len(files) == 4
    assert sum(file.stat().st_size for file in files) <= 4_000_000


@pytest.mark.soak
def test_models_trained_from_another_seed_hold_the_claim_too(tmp_path: Path) -> None:
    """Trains for about half an hour."""
    train_claim(tmp_path, 4, on_stage=print)
    _check_the_claim(load_pairs([tmp_path]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All models after two steps each."""
    folder = tmp_path_factory.mktemp("claim")
    arguments = ["lab", "claim", "train", "--out", str(folder), "--seed", "5", "--steps", "2", "--experts"]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    return folder


def test_one_command_trains_all_models_of_a_seed(trained: Path) -> None:
    pairs = load_pairs([trained])
    assert list(pairs) == list(FOLDERS)
    recipes = {file.stem for file in (RELATION / "recipes").glob("*.toml")}
    folders = {folder.name for folder in trained.iterdir()}
    assert recipes - {"core_expert"} <= folders
    seeds = {
        json.loads((next((trained / name).glob("state-*")) / "run.json").read_text())["params"]["seed"]
        for name in ("core", "core_partner", "core_control")
    }
    assert seeds == {51, 52}, "what goes on from a model draws anew"


def test_what_goes_on_from_the_core_starts_with_its_weights(trained: Path) -> None:
    names = ("core", "core_partner", "core_control", *(f"core_expert_{timesteps}" for timesteps in EXPERTS))
    core, *others = (load_file(trained / name / WEIGHTS)["w_diff.weight"].float() for name in names)
    furthest = max(float((other - core).abs().max()) for other in others)
    assert furthest < 2e-3, "more than two steps at the beginning of their warm-up"
    assert len({other.numpy().tobytes() for other in others}) == len(others), "they were trained in the same way"


def test_a_finished_training_is_left_as_it_is_and_a_broken_off_one_is_resumed(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {folder.name: (folder / WEIGHTS).stat().st_mtime_ns for folder in trained.iterdir()}
    (trained / "user" / WEIGHTS).unlink()  # as if broken off after the last step
    train_claim(trained, 5, experts=True, steps=2, on_stage=lambda _: None)
    after = {folder.name: (folder / WEIGHTS).stat().st_mtime_ns for folder in trained.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"user"}


def test_a_folder_of_another_seed_is_refused(trained: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="another recipe"):
        train_claim(trained, 6, steps=2, on_stage=lambda _: None)


def test_every_system_is_measured_in_both_orders_and_only_where_it_has_timesteps(trained: Path) -> None:
    measured = settings(list(FOLDERS))
    assert len(set(measured)) == len(measured)
    assert {(one.system, one.order) for one in measured} == {(system, order) for system in FOLDERS for order in ORDERS}
    pairs = load_pairs([trained])
    for one in measured:
        (pair,) = pairs[one.system]
        assert one.params(pair).timesteps[-1] > 1000 * pair.core.model.config.trained_above


def test_results_are_stored_and_not_computed_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ssd2.lab.claim.settings", lambda systems: [Setting(s, "reverse", *NEXT_TOKEN) for s in systems]
    )
    monkeypatch.setattr("ssd2.lab.claim.FOLDERS", {"autoregressive": FOLDERS["autoregressive"]})
    file = tmp_path / "claim.jsonl"
    first = measure_claim([trained, RELATION], limit=5, results_file=file)
    assert [len(row.answers) for row in first] == [2]
    monkeypatch.setattr("ssd2.lab.claim.answer", lambda *_: pytest.fail("computed again"))
    assert measure_claim([trained, RELATION], limit=5, results_file=file) == first
    with pytest.raises(pytest.fail.Exception):
        measure_claim([trained], limit=6, results_file=file)
    file.write_text('{"right": 3}\n')
    with pytest.raises(InvalidParameter, match="does not contain results"):
        measure_claim([trained], limit=5, results_file=file)


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no pair of the relation"):
        load_pairs([tmp_path])


def _row(setting: Setting, *right: str) -> Row:
    return Row(setting, tuple(Answers(tuple(bit == "1" for bit in bits), 25.0) for bits in right))


PARTNER = Setting("partner", "reverse", *REFERENCE)
ROWS = [
    _row(PARTNER, "1111110000", "1111111111"),
    _row(replace(PARTNER, system="control"), "0000000001", "1111111110"),
    _row(replace(PARTNER, lambda_user=0.5), "1111111111", "1111111111"),
]


def test_the_partner_objective_is_compared_with_its_control_answer_by_answer() -> None:
    (compared,) = compare(ROWS)
    assert (compared.only_partner, compared.only_control) == (6 + 1, 1 + 0)
    assert compared.largest_p == 1.0, "one answer of the second seed shows nothing"
    assert compare(ROWS[:1]) == []


def test_a_row_has_its_mean_its_range_and_an_interval() -> None:
    row = ROWS[0].as_json()
    assert row["shares"] == [0.6, 1.0]
    assert row["mean"] == pytest.approx(0.8)
    assert row["interval_95"][0] < 0.8 < row["interval_95"][1]
    tables = claim_tables(ROWS)
    assert "| 25 to 0, projection | – | 0.500" in tables
    assert "0.800 (0.584–0.919) [0.600–1.000] | – | 25.0 |" in tables


def test_the_report_has_a_page_and_a_plot(tmp_path: Path) -> None:
    page = write_claim_report(tmp_path, ROWS, 0, "ssd2 lab claim evaluate a b")
    assert "ssd2 lab claim evaluate a b" in page.read_text()
    assert "partner" in (tmp_path / "claim.svg").read_text()
