"""Comparisons of settings: what varies, the intervals, and a run that goes on where it stopped."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import DEMO_TOKENIZER, block_view, demo_shaped_model, experts_of
from typer.testing import CliRunner

from ssd2.algorithm.collaboration import Timestep
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.cli import app
from ssd2.demo.generator import unseen_items
from ssd2.errors import InvalidParameter, ModelMismatch
from ssd2.evaluation import experiments
from ssd2.evaluation import runner as runner_module
from ssd2.evaluation.exact_timesteps import ExactTimesteps
from ssd2.evaluation.experiments import EXPERIMENTS, Experiment, Setting
from ssd2.evaluation.generations import Generation, read_generations
from ssd2.evaluation.intervals import wilson_interval
from ssd2.evaluation.report import write_report
from ssd2.evaluation.runner import Result, run_experiment
from ssd2.evaluation.two_source import EVALUATED_KINDS, SYSTEMS, Accuracy, Pair, answer_items
from ssd2.logits.format import UINT8
from ssd2.logits.packed import as_received
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.convert import export_opt

DECODING = DecodingParams(block_size=8, max_tokens=8, steps=2, stop=0.4)
EXPERIMENT = Experiment(
    "tiny",
    "Tiny",
    "Does it run?",
    tuple(Setting(f"λ {weight}", CollaborationParams(weight), DECODING) for weight in (0.0, 0.5, 1.0)),
)


@pytest.fixture(scope="module")
def pair(core_folder: Path, user_folder: Path) -> Pair:
    return Pair(load_checkpoint(core_folder), load_checkpoint(user_folder))


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [(0.0, 10, 0.0, 0.2775), (0.5, 10, 0.2366, 0.7634), (1.0, 10, 0.7225, 1.0), (0.25, 100, 0.1755, 0.3430)],
)
def test_wilsons_interval(share: float, count: int, low: float, high: float) -> None:
    assert wilson_interval(share, count) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.002, 1.0])
def test_an_interval_holds_its_share_whatever_rounding_does(share: float) -> None:
    for count in range(1, 1001):
        low, high = wilson_interval(share, count)
        assert 0 <= low <= share <= high <= 1


def test_the_two_source_sweep_is_table_1_for_two_alphas() -> None:
    settings = EXPERIMENTS["two-source"](CollaborationParams(), DECODING).settings
    weights = [(setting.collaboration.lambda_user, setting.collaboration.alpha) for setting in settings]
    assert sorted(weights) == [
        (0.0, 0.0),
        *((weight, alpha) for weight in (0.1, 0.2, 0.3, 0.4, 0.5, 1.0) for alpha in (0.0, 1.0)),
    ]


@pytest.mark.parametrize(
    ("name", "varied"),
    [
        ("self-conditioning", {"self_conditioning"}),
        ("steps", {"steps", "stop"}),
        ("few-timesteps", {"steps", "schedule", "patience", "entropy_bound", "core_every"}),
        ("projections", {"projection", "top_p"}),
    ],
)
def test_an_experiment_varies_what_it_is_about_and_nothing_else(name: str, varied: set[str]) -> None:
    collaboration = CollaborationParams(0.4, 0.5)
    settings = EXPERIMENTS[name](collaboration, DECODING).settings
    assert len({setting.label for setting in settings}) == len(settings) >= 3
    assert len({setting.decoding for setting in settings}) == len(settings)
    for setting in settings:
        assert setting.collaboration == collaboration
        unchanged = {field: getattr(DECODING, field) for field in varied}
        assert replace(setting.decoding, **unchanged) == DECODING


def test_formats_are_compared_with_everything_else_alike() -> None:
    collaboration = CollaborationParams(0.4, 0.5)
    experiment = EXPERIMENTS["formats"](collaboration, DECODING)
    formats = [str(setting.logits_format) for setting in experiment.settings]
    assert formats == ["float16", "uint8", "top-k:64", "top-k:16", "top-k:4"]
    assert formats == [setting.label for setting in experiment.settings]
    assert {(setting.collaboration, setting.decoding) for setting in experiment.settings} == {(collaboration, DECODING)}


def test_what_a_format_takes_and_proves_is_measured_and_reported(pair: Pair, tmp_path: Path) -> None:
    experiment = EXPERIMENTS["formats"](CollaborationParams(0.4), replace(DECODING, projection="greedy"))
    results = run_experiment(pair, experiment, limit=2, results_file=tmp_path / "formats.jsonl")
    assert [result.frame_bytes for result in results] == [8 * 2 * 1782, 8 * 1782, 8 * 196, 8 * 52, 8 * 16]
    shares = [result.exact for result in results]
    assert shares[0] > shares[1] > shares[-1], "of these random models"
    assert all(0 <= share <= 1 for share in shares)
    assert run_experiment(pair, experiment, limit=2, results_file=tmp_path / "formats.jsonl") == results
    text = write_report(tmp_path, experiment, results, 5, "").read_text(encoding="utf-8")
    assert "| logits, bytes a timestep | timesteps proven exact | s an answer |" in text
    assert f"| 1,568 | {shares[2]:.3f} |" in text


def test_results_from_before_there_were_formats_are_still_found(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "tiny.jsonl"
    run_experiment(pair, EXPERIMENT, limit=1, results_file=file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        del line["exact"], line["frame_bytes"], line["setting"]["logits"]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run_experiment(pair, EXPERIMENT, limit=1, results_file=file)
    assert len(file.read_text().splitlines()) == 3


def test_timesteps_behind_the_end_of_a_rows_block_prove_nothing() -> None:
    exact = ExactTimesteps(replace(DECODING, projection="greedy"))
    seeds = [Seeds.reproducible(row) for row in range(2)]
    certain, even = 30 * torch.eye(32)[:8], torch.zeros(8, 32)
    for is_done in (None, torch.tensor([True, False])):
        view = block_view(2, timestep=900, is_done=is_done)
        core = as_received(torch.stack([even, certain]), UINT8)
        exact.see(Timestep(view, core, core.values, seeds))
    assert exact.share == pytest.approx(2 / 3)
    exact.see(Timestep(view, None, even, seeds))
    assert exact.share == pytest.approx(3 / 4), "without a core nothing is rounded"


def test_what_an_experiment_measures_is_each_settings_own_score(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(_pair: object, items: list[object], collaboration: CollaborationParams, *_: object) -> list[str]:
        """The user model's weight decides how many of the items are answered right."""
        known = int(len(items) * collaboration.lambda_user)
        return [item.answer if index < known else "No." for index, item in enumerate(items)]  # type: ignore[attr-defined]

    monkeypatch.setattr(runner_module, "answer_items", answers)
    results = run_experiment(pair, EXPERIMENT, limit=4)
    assert [result.accuracy for result in results] == [Accuracy(*[share] * 4) for share in (0.0, 0.5, 1.0)]
    assert results[1].interval("joint") == wilson_interval(0.5, 4)


def test_progress_counts_every_answer_once_computed_or_found(pair: Pair, tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def run() -> int:
        seen.clear()
        file = tmp_path / "out" / "tiny.jsonl"
        run_experiment(
            pair, EXPERIMENT, limit=2, results_file=file, on_progress=lambda *progress: seen.append(progress)
        )
        return sum(count for _, count in seen)

    assert run() == run() == 3 * 3 * 2


def test_a_stopped_run_goes_on_with_the_settings_that_are_missing(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tiny.jsonl"
    results = run_experiment(pair, EXPERIMENT, limit=2, results_file=file)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + lines[1][: len(lines[1]) // 2])  # as a crash in the middle of a line leaves it

    computed: list[str] = []
    monkeypatch.setattr(
        runner_module, "_run", lambda _pair, setting, *rest: computed.append(setting.label) or results[0]
    )
    run_experiment(pair, EXPERIMENT, limit=2, results_file=file)
    assert computed == ["λ 0.5", "λ 1.0"]
    assert [json.loads(line)["label"] for line in file.read_text().splitlines()] == ["λ 0.0"] * 3


def test_settings_below_a_models_experts_are_refused_before_anything_runs(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    experts = experts_of(*(demo_shaped_model(seed) for seed in range(3)))
    monkeypatch.setattr(runner_module, "answer_items", lambda *_: pytest.fail("it ran"))
    with pytest.raises(InvalidParameter, match=r"above 0\.4T"):
        run_experiment(
            Pair(replace(pair.core, model=experts), pair.user),
            EXPERIMENTS["steps"](CollaborationParams(), DecodingParams(block_size=8)),
            limit=1,
        )


def test_results_of_other_items_or_models_are_not_taken_for_these(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "tiny.jsonl"
    run_experiment(pair, EXPERIMENT, limit=1, results_file=file)
    run_experiment(pair, EXPERIMENT, limit=1, seed=1, results_file=file)
    run_experiment(Pair(pair.user, pair.core), EXPERIMENT, limit=1, results_file=file)
    assert len(file.read_text().splitlines()) == 9


@pytest.mark.parametrize("content", ["nonsense\n", "[]\n", "{}\n"])
def test_a_file_that_holds_no_results_is_refused_and_kept(pair: Pair, tmp_path: Path, content: str) -> None:
    file = tmp_path / "tiny.jsonl"
    file.write_text(content)
    with pytest.raises(InvalidParameter, match="another folder"):
        run_experiment(pair, EXPERIMENT, limit=1, results_file=file)
    assert file.read_text() == content


def test_results_from_before_the_latest_settings_are_known_and_not_computed_again(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tiny.jsonl"
    computed = run_experiment(pair, EXPERIMENT, limit=1, results_file=file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        for name in ("schedule", "patience", "entropy_bound", "core_every"):
            del line["setting"][name]
        del line["timesteps_per_block"], line["core_logits_per_block"]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    monkeypatch.setattr(runner_module, "_run", lambda *_: pytest.fail("it ran"))
    found = run_experiment(pair, EXPERIMENT, limit=1, results_file=file)
    assert [result.accuracy for result in found] == [result.accuracy for result in computed]
    assert "timesteps a block" not in write_report(tmp_path, EXPERIMENT, found, 3, "").read_text(encoding="utf-8")


def _experiment(*changes: dict[str, object], lambda_user: float = 0.4) -> Experiment:
    decoding = DecodingParams(block_size=8, max_tokens=24, steps=6, stop=0.4, projection="greedy")
    settings = [
        Setting(str(change), CollaborationParams(lambda_user), replace(decoding, **change)) for change in changes
    ]
    return replace(EXPERIMENT, settings=tuple(settings), kinds=("private",))


def test_what_a_block_takes_is_counted_for_every_row_as_if_it_were_alone(pair: Pair) -> None:
    experiment = _experiment({}, {"patience": 1}, {"patience": 1, "core_every": 2})
    alone, together = (run_experiment(pair, experiment, limit=5, batch_size=size) for size in (1, 5))
    all_timesteps, early, asked_less = together
    assert (all_timesteps.timesteps_per_block, all_timesteps.core_logits_per_block) == (6, 6)
    assert 2 <= early.timesteps_per_block == early.core_logits_per_block < 6
    assert asked_less.timesteps_per_block / 2 <= asked_less.core_logits_per_block < asked_less.timesteps_per_block
    for one, many in zip(alone, together, strict=True):
        assert one.timesteps_per_block == many.timesteps_per_block
        assert one.core_logits_per_block == many.core_logits_per_block


def test_the_user_model_alone_takes_no_logits_of_the_core(pair: Pair) -> None:
    (result,) = run_experiment(pair, _experiment({}, lambda_user=1.0), limit=1)
    assert (result.timesteps_per_block, result.core_logits_per_block) == (6, 0)


def test_a_report_says_what_a_block_took_where_that_differs(pair: Pair, tmp_path: Path) -> None:
    results = [replace(r, timesteps_per_block=6.0, core_logits_per_block=6.0) for r in results_like(0.5)]
    alike = write_report(tmp_path, EXPERIMENT, results, 3, "").read_text(encoding="utf-8")
    assert "a block" not in alike
    results[1] = replace(results[1], timesteps_per_block=3.25, core_logits_per_block=1.625)
    text = write_report(tmp_path, EXPERIMENT, results, 3, "").read_text(encoding="utf-8")
    assert "| timesteps a block | core logits a block | s an answer |" in text
    assert "| 3.2 | 1.6 | 0.010 |" in text
    assert "a block takes" in (tmp_path / "tiny.svg").read_text(encoding="utf-8")


def results_like(share: float) -> list[Result]:
    setting = {"items": 20, "seed": 3, "core_sha256": "c" * 64, "user_sha256": "d" * 64, "family": "ssd-2"}
    return [Result(s.label, setting, Accuracy(share, 1.0, 0.5, 0.0), 20, 0.01) for s in EXPERIMENT.settings]


def test_a_report_has_every_setting_its_intervals_and_what_made_it(tmp_path: Path) -> None:
    file = write_report(tmp_path / "new", EXPERIMENT, results_like(0.25), 3, "ssd2 evaluate tiny --seed 3")
    text = file.read_text(encoding="utf-8")
    for part in ("λ 0.5", "0.250 (0.112–0.469)", "seed 3", "ssd2 evaluate tiny --seed 3", "cccccccccccc", "(tiny.svg)"):
        assert part in text
    plot = (tmp_path / "new" / "tiny.svg").read_bytes()
    write_report(tmp_path / "new", EXPERIMENT, results_like(0.25), 3, "")
    assert (tmp_path / "new" / "tiny.svg").read_bytes() == plot, "the same results draw the same file"
    write_report(tmp_path / "new", EXPERIMENT, results_like(0.5), 3, "")
    assert (tmp_path / "new" / "tiny.svg").read_bytes() != plot


def test_kinds_that_an_experiment_does_not_ask_for_are_not_answered_and_not_reported(
    pair: Pair, tmp_path: Path
) -> None:
    experiment = replace(EXPERIMENT, kinds=("two-source",))
    answers: list[int] = []
    results = run_experiment(pair, experiment, limit=2, on_progress=lambda _, count: answers.append(count))
    assert sum(answers) == 3 * 2
    assert [set(result.shares) for result in results] == [{"joint", "exact"}] * 3
    assert json.loads(json.dumps(results[0].as_json()))["accuracy"]["private"] is None
    text = write_report(tmp_path, experiment, results, 3, "").read_text(encoding="utf-8")
    assert "| two-source: both values | two-source: word for word | s an answer |" in text


@pytest.mark.slow
def test_a_sweep_of_two_pairs_tells_them_apart_and_draws_over_lambda(
    core_folder: Path, user_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "LAMBDAS", (0.0, 1.0))  # the report is drawn anew for every setting
    baseline = [tmp_path / "core-opt", tmp_path / "user-opt"]
    for seed, folder in enumerate(baseline):
        export_opt(demo_shaped_model(seed), folder, DEMO_TOKENIZER.read_text())
    models = ["--core", str(core_folder), "--user", str(user_folder), "--baseline", *map(str, baseline)]
    command = ["evaluate", "two-source", "--sweep", *models, "--limit", "1", "--steps", "1", "--json"]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "r")])
    assert result.exit_code == 0, result.output
    families = [row["setting"]["family"] for row in json.loads(result.stdout)["results"]]
    assert families == ["ssd-2"] * 3 + ["autoregressive"] * 3
    text = (tmp_path / "r/two-source.md").read_text(encoding="utf-8")
    assert text.count("| ssd-2, λ") == text.count("| autoregressive, λ") == 3
    plot = (tmp_path / "r/two-source.svg").read_text(encoding="utf-8")
    assert "<!-- autoregressive, α 1 -->" in plot


def test_a_report_of_a_run_that_goes_on_says_so(tmp_path: Path) -> None:
    texts = [
        write_report(tmp_path, EXPERIMENT, results_like(0.5)[:count], 3, "").read_text(encoding="utf-8")
        for count in (2, 3)
    ]
    assert ["2 of 3 settings are measured so far" in texts[0], "so far" in texts[1]] == [True, False]


def test_results_are_handed_over_as_they_come_computed_or_found(pair: Pair, tmp_path: Path) -> None:
    for _ in range(2):
        seen: list[Result] = []
        results = run_experiment(pair, EXPERIMENT, limit=1, results_file=tmp_path / "tiny.jsonl", on_result=seen.append)
        assert seen == results


def test_a_report_without_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InvalidParameter, match=r"slingshot\[train\]"):
        write_report(tmp_path, EXPERIMENT, results_like(0.5), 3, "")


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidParameter, match="another folder"):
        write_report(tmp_path / "file", EXPERIMENT, results_like(0.5), 3, "")


def test_a_pair_of_two_families_is_refused(core_folder: Path, tmp_path: Path) -> None:
    export_opt(demo_shaped_model(1), tmp_path, DEMO_TOKENIZER.read_text())
    one, other = load_checkpoint(core_folder), load_checkpoint(tmp_path)
    for pair in ((one, other), (other, one)):
        with pytest.raises(ModelMismatch, match="pair of one"):
            Pair(*pair)


@pytest.mark.slow
def test_the_command_prints_json_and_writes_a_report(core_folder: Path, user_folder: Path, tmp_path: Path) -> None:
    models = ["--core", str(core_folder), "--user", str(user_folder)]
    command = ["evaluate", "self-conditioning", *models, "--limit", "1", "--out", str(tmp_path / "r"), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["results"]
    assert [row["label"] for row in rows] == ["mixed", "own", "projection"]
    assert {name.name for name in (tmp_path / "r").iterdir()} == {
        f"self-conditioning.{end}" for end in ("jsonl", "md", "svg")
    }


def test_the_command_takes_fewer_timesteps_if_told_to(core_folder: Path, user_folder: Path) -> None:
    models = ["--core", str(core_folder), "--user", str(user_folder)]
    fewer = ["--steps", "6", "--projection", "greedy", "--patience", "1", "--core-every", "2", "--schedule", "changes"]
    command = ["evaluate", "two-source", *models, "--limit", "1", *fewer]
    report = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    together, core_only, user_only = (report[system] for system in SYSTEMS)
    assert together["core_logits_per_block"] < together["timesteps_per_block"] < 6
    assert core_only["core_logits_per_block"] > 0 == user_only["core_logits_per_block"]
    table = CliRunner().invoke(app, command).stdout
    assert "| exact | timesteps a block | core logits a block |" in table


def test_a_report_of_one_setting_is_refused(core_folder: Path, user_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="--sweep"):
        CliRunner().invoke(app, ["evaluate", "two-source", "--out", str(tmp_path)], catch_exceptions=False)


def test_answers_are_kept_for_other_measurements(core_folder: Path, user_folder: Path, tmp_path: Path) -> None:
    models, file = ["--core", str(core_folder), "--user", str(user_folder)], tmp_path / "new" / "answers.jsonl"
    command = ["evaluate", "two-source", *models, "--limit", "2", "--steps", "2", "--json"]
    result = CliRunner().invoke(app, [*command, "--answers", str(file)])
    assert result.exit_code == 0, result.output
    by_system = read_generations([file], by="system")
    assert list(by_system) == list(SYSTEMS)
    pair = Pair(load_checkpoint(core_folder), load_checkpoint(user_folder))
    decoding = DecodingParams(block_size=8, steps=2, stop=0.4)
    items = unseen_items("public", 2, 0)
    for system, collaboration in (("core_only", CollaborationParams(0)), ("user_only", CollaborationParams(1, 1))):
        texts = answer_items(pair, items, collaboration, decoding, 0, 2)
        expected = [Generation(text, item.question, item.answer) for text, item in zip(texts, items, strict=True)]
        assert by_system[system][2:4] == expected
    assert [json.loads(line)["kind"] for line in file.read_text().splitlines()[:6:2]] == list(EVALUATED_KINDS)


def test_answers_may_be_given_with_fewer_bytes(core_folder: Path, user_folder: Path) -> None:
    models = ["--core", str(core_folder), "--user", str(user_folder)]
    command = ["evaluate", "two-source", *models, "--limit", "1", "--steps", "2"]
    result = CliRunner().invoke(app, [*command, "--logits", "top-k:3", "--json"])
    assert json.loads(result.stdout)["logits"] == "top-k:3"
    for more, says in ((["--logits", "top-k"], "top-k:K"), (["--logits", "uint8", "--sweep"], "--sweep")):
        with pytest.raises(InvalidParameter, match=says):
            CliRunner().invoke(app, [*command, *more], catch_exceptions=False)


def test_answers_that_cannot_be_kept_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments, says in (
        (["--answers", str(tmp_path / "file" / "a.jsonl")], "another file"),
        (["--answers", str(tmp_path / "a.txt")], r"\.jsonl"),
        (["--answers", str(tmp_path / "a.jsonl"), "--sweep"], "--sweep"),
    ):
        with pytest.raises(InvalidParameter, match=says):
            CliRunner().invoke(
                app, ["evaluate", "two-source", "--core", "/nowhere", *arguments], catch_exceptions=False
            )
