"""Comparisons of settings: what varies, the intervals, and a run that goes on where it stopped."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import block_view, demo_shaped_model, experts_of
from typer.testing import CliRunner

from ssd2.algorithm.collaboration import Timestep
from ssd2.algorithm.ensemble import weighted_average
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.cli import app, comparing
from ssd2.demo.generator import Item
from ssd2.errors import InvalidParameter, ModelMismatch
from ssd2.evaluation import experiments
from ssd2.evaluation import runner as runner_module
from ssd2.evaluation.exact_timesteps import ExactTimesteps
from ssd2.evaluation.experiments import EXPERIMENTS, Experiment, Setting
from ssd2.evaluation.intervals import wilson_interval
from ssd2.evaluation.pair import Pair
from ssd2.evaluation.report import Line, lines_of, write_report
from ssd2.evaluation.result import Outcome, Result
from ssd2.evaluation.rows import ROWS
from ssd2.evaluation.runner import Cell, Run
from ssd2.logits.format import UINT8
from ssd2.logits.packed import as_received

from .conftest import VOCAB, L

DECODING = DecodingParams(block_size=L, max_tokens=L, steps=2, stop=0.4)
EXPERIMENT = Experiment(
    "tiny",
    "Tiny",
    "Does it run?",
    tuple(Setting(f"λ {weight}", CollaborationParams(weight), DECODING) for weight in (0.0, 0.5, 1.0)),
    rows=("reverse",),
)


def cells_of(pair: Pair, experiment: Experiment = EXPERIMENT) -> list[Cell]:
    return [Cell(pair, setting, row) for setting in experiment.settings for row in experiment.rows]


def run(pair: Pair, experiment: Experiment = EXPERIMENT, **how: object) -> list[Result]:
    return Run(**{"limit": 1, "counts_exact": experiment.counts_exact, **how}).results(cells_of(pair, experiment))


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


def test_the_sweep_of_weights_is_table_1_for_two_alphas() -> None:
    settings = EXPERIMENTS["weights"](CollaborationParams(), DECODING).settings
    weights = [(setting.collaboration.lambda_user, setting.collaboration.alpha) for setting in settings]
    assert sorted(weights) == [
        (0.0, 0.0),
        *((weight, alpha) for weight in (0.1, 0.2, 0.3, 0.4, 0.5, 1.0) for alpha in (0.0, 1.0)),
    ]


def test_rules_are_compared_with_every_constant_on_every_row() -> None:
    experiment = EXPERIMENTS["rules"](CollaborationParams(0.4, 0.5), DECODING)
    lambdas = [setting.collaboration.lambda_user for setting in experiment.settings]
    assert lambdas == ["auto", "difference", 0.1, 0.2, 0.3, 0.4, 0.5]
    assert {setting.collaboration.alpha for setting in experiment.settings} == {0.5}
    assert experiment.rows == tuple(ROWS)


@pytest.mark.parametrize(
    ("name", "varied"),
    [
        ("self-conditioning", {"self_conditioning"}),
        ("steps", {"steps", "stop"}),
        ("stop", {"stop"}),
        ("patience", {"patience"}),
        ("few-timesteps", {"schedule", "core_every"}),
        ("projections", {"projection", "top_p"}),
    ],
)
def test_an_experiment_varies_what_it_is_about_and_nothing_else(name: str, varied: set[str]) -> None:
    collaboration = CollaborationParams(0.4, 0.5)
    experiment = EXPERIMENTS[name](collaboration, DECODING)
    settings = experiment.settings
    assert len({setting.label for setting in settings}) == len(settings) >= 3
    assert len({setting.decoding for setting in settings}) == len(settings)
    assert experiment.reference in {setting.label for setting in settings}
    for setting in settings:
        assert setting.collaboration == collaboration
        unchanged = {field: getattr(DECODING, field) for field in varied}
        assert replace(setting.decoding, **unchanged) == DECODING


@pytest.mark.parametrize("name", ["steps", "stop", "self-conditioning", "few-timesteps"])
def test_where_timesteps_are_compared_no_block_ends_early(name: str) -> None:
    settings = EXPERIMENTS[name](CollaborationParams(), replace(DECODING, patience=2)).settings
    assert {setting.decoding.patience for setting in settings} == {None}


def test_formats_are_compared_with_everything_else_alike() -> None:
    collaboration = CollaborationParams(0.4, 0.5)
    experiment = EXPERIMENTS["formats"](collaboration, DECODING)
    formats = [str(setting.logits_format) for setting in experiment.settings]
    assert formats == ["float16", "uint8", "top-k:64", "top-k:16", "top-k:4"]
    assert formats == [setting.label for setting in experiment.settings]
    assert {(setting.collaboration, setting.decoding) for setting in experiment.settings} == {(collaboration, DECODING)}


def test_what_a_format_takes_and_proves_is_measured_and_reported(pair: Pair, tmp_path: Path) -> None:
    experiment = EXPERIMENTS["formats"](CollaborationParams(0.95), replace(DECODING, projection="greedy"))
    experiment = replace(experiment, rows=("reverse",))
    results = run(pair, experiment, limit=2, results_file=tmp_path / "results.jsonl")
    assert [result.frame_bytes for result in results] == [L * 2 * VOCAB, L * VOCAB, L * 196, L * 52, L * 16]
    shares = [result.exact for result in results]
    assert shares[0] > shares[1] > shares[-1], "of these random models"
    assert all(0 <= share <= 1 for share in shares)
    assert run(pair, experiment, limit=2, results_file=tmp_path / "results.jsonl") == results
    lines = lines_of(cells_of(pair, experiment), dict(enumerate(results)))
    text = write_report(tmp_path, experiment, lines, 5, "").read_text(encoding="utf-8")
    assert "| logits, bytes a timestep | timesteps proven exact | s an answer |" in text
    assert f"| {L * 196:,} | {shares[2]:.3f} |" in text


def test_a_result_without_the_exact_timesteps_is_computed_again_where_they_count(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    for counts_exact, lines in ((False, 3), (False, 3), (True, 6), (True, 6), (False, 6)):
        results = run(pair, results_file=file, counts_exact=counts_exact)
        assert len(file.read_text().splitlines()) == lines
        assert not counts_exact or all(result.exact is not None for result in results)


def test_timesteps_behind_the_end_of_a_rows_block_prove_nothing() -> None:
    exact = ExactTimesteps(replace(DECODING, projection="greedy"))
    seeds = [Seeds.reproducible(row) for row in range(2)]
    certain, even = 30 * torch.eye(32)[:8], torch.zeros(8, 32)
    for is_done in (None, torch.tensor([True, False])):
        view = block_view(2, timestep=900, is_done=is_done)
        core = as_received(torch.stack([even, certain]), UINT8)
        exact.see(Timestep(view, core, core.values, seeds, weighted_average(0.0, 0.0)))
    assert exact.share == pytest.approx(2 / 3)
    exact.see(Timestep(view, None, even, seeds, weighted_average(1.0, 0.0)))
    assert exact.share == pytest.approx(3 / 4), "without a core nothing is rounded"


def answers_by_lambda(
    _pair: object, items: Sequence[Item], collaboration: CollaborationParams, *_: object
) -> list[str]:
    """The user model's weight decides how many of the items are answered right."""
    known = int(len(items) * float(collaboration.lambda_user))
    return [item.answer if index < known else "No." for index, item in enumerate(items)]


def test_what_an_experiment_measures_is_each_settings_own_score(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "answer_items", answers_by_lambda)
    results = run(pair, limit=4)
    assert [result.share for result in results] == [0.0, 0.5, 1.0]
    assert [result.outcome.private for result in results] == [0.0, 0.5, 1.0]
    assert results[1].interval == wilson_interval(0.5, 4)


def test_progress_counts_every_answer_once_computed_or_found(pair: Pair, tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def count() -> int:
        seen.clear()
        file = tmp_path / "out" / "results.jsonl"
        run(pair, limit=2, results_file=file, on_progress=lambda *progress: seen.append(progress))
        return sum(answers for _, answers in seen)

    assert count() == count() == 3 * 2


def test_workers_side_by_side_give_the_results_of_one(pair: Pair) -> None:
    threads = torch.get_num_threads()
    one, several = (run(pair, limit=3, batch_size=2, workers=workers, keeps_answers=True) for workers in (1, 3))
    assert [result.answers for result in one] == [result.answers for result in several]
    assert len({result.answers for result in one}) == 3
    assert torch.get_num_threads() == threads


def test_a_run_that_fails_stops_its_other_workers_after_their_batch(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, batches = threading.Event(), list[int]()

    def answer_items(_pair: Pair, items: Sequence[Item], how: CollaborationParams, *rest: object) -> list[str]:
        if how.lambda_user == 0:
            failed.set()
            raise ModelMismatch("no")
        failed.wait()
        for _ in range(1000):
            time.sleep(0.01)
            batches.append(1)
            rest[3](1)  # type: ignore[operator]
        return [""] * len(items)

    monkeypatch.setattr(runner_module, "answer_items", answer_items)
    with pytest.raises(ModelMismatch):
        run(pair, workers=2)
    assert len(batches) < 500


def test_a_stopped_run_goes_on_with_the_settings_that_are_missing(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "results.jsonl"
    run(pair, limit=2, results_file=file)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + lines[1][: len(lines[1]) // 2])  # as a crash in the middle of a line leaves it

    computed: list[float] = []

    def answer_items(_pair: Pair, items: Sequence[Item], how: CollaborationParams, *_: object) -> list[str]:
        computed.append(float(how.lambda_user))
        return [""] * len(items)

    monkeypatch.setattr(runner_module, "answer_items", answer_items)
    run(pair, limit=2, results_file=file)
    assert computed == [0.5, 1.0]
    kept = [json.loads(line)["setting"]["lambda_user"] for line in file.read_text().splitlines()]
    assert kept == [0.0, 0.5, 1.0]


def test_what_two_experiments_share_is_computed_once(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "results.jsonl"
    run(pair, results_file=file)
    monkeypatch.setattr(runner_module, "answer_items", lambda *_: pytest.fail("it ran"))
    named_otherwise = replace(
        EXPERIMENT, settings=tuple(replace(s, label=f"same {s.label}") for s in EXPERIMENT.settings)
    )
    run(pair, named_otherwise, results_file=file)


def test_settings_below_a_models_experts_are_refused_before_anything_runs(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    experts = experts_of(*(demo_shaped_model(seed) for seed in range(3)))
    monkeypatch.setattr(runner_module, "answer_items", lambda *_: pytest.fail("it ran"))
    with pytest.raises(InvalidParameter, match=r"above 0\.4T"):
        run(
            Pair(replace(pair.core, model=experts), pair.user),
            EXPERIMENTS["steps"](CollaborationParams(), DecodingParams(block_size=8)),
        )


def test_results_of_other_items_or_models_are_not_taken_for_these(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    run(pair, results_file=file)
    run(pair, results_file=file, seed=1)
    run(Pair(pair.user, pair.core), results_file=file)
    run(pair, replace(EXPERIMENT, rows=("forward",)), results_file=file)
    assert len(file.read_text().splitlines()) == 12


@pytest.mark.parametrize("content", ["nonsense\n", "[]\n", "{}\n"])
def test_a_file_that_holds_no_results_is_refused_and_kept(pair: Pair, tmp_path: Path, content: str) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(content)
    with pytest.raises(InvalidParameter, match="another folder"):
        run(pair, results_file=file)
    assert file.read_text() == content


def _experiment(*changes: dict[str, object], lambda_user: float = 0.4) -> Experiment:
    decoding = DecodingParams(block_size=L, max_tokens=L, steps=6, stop=0.4, projection="greedy")
    settings = [
        Setting(str(change), CollaborationParams(lambda_user), replace(decoding, **change)) for change in changes
    ]
    return replace(EXPERIMENT, settings=tuple(settings))


def test_what_a_block_takes_is_counted_for_every_row_as_if_it_were_alone(pair: Pair) -> None:
    experiment = _experiment({}, {"patience": 1}, {"patience": 1, "core_every": 2})
    alone, together = (run(pair, experiment, limit=5, batch_size=size) for size in (1, 5))
    all_timesteps, early, asked_less = together
    assert (all_timesteps.timesteps_per_block, all_timesteps.core_logits_per_block) == (6, 6)
    assert 2 <= early.timesteps_per_block == early.core_logits_per_block <= 6
    assert asked_less.timesteps_per_block / 2 <= asked_less.core_logits_per_block < asked_less.timesteps_per_block
    for one, many in zip(alone, together, strict=True):
        assert one.timesteps_per_block == many.timesteps_per_block
        assert one.core_logits_per_block == many.core_logits_per_block


def test_the_user_model_alone_takes_no_logits_of_the_core(pair: Pair) -> None:
    (result,) = run(pair, _experiment({}, lambda_user=1.0))
    assert (result.timesteps_per_block, result.core_logits_per_block) == (6, 0)


def line_like(label: str, right: Sequence[bool], rows: Sequence[str] = ("reverse",), **changed: object) -> Line:
    setting = {"items": len(right), "seed": 3, "core_sha256": "c" * 64, "user_sha256": "d" * 64, "family": "ssd-2"}
    setting |= {"lambda_user": 0.5, "alpha": 1.0}
    values = {"timesteps_per_block": 6.0, "core_logits_per_block": 6.0, **changed}
    result = Result("reverse", setting, Outcome(tuple(right), 0.0, 1.0, 0.5), 0.01, exact=None, frame_bytes=1, **values)
    return Line(label, {row: replace(result, row=row) for row in rows})


def lines_like(right: int, **changed: object) -> list[Line]:
    """A line for each setting of `EXPERIMENT`, with so many of 20 answers right."""
    rights = [number < right for number in range(20)]
    return [line_like(setting.label, rights, **changed) for setting in EXPERIMENT.settings]


def test_a_report_says_what_a_block_took_where_that_differs(tmp_path: Path) -> None:
    lines = lines_like(10)
    alike = write_report(tmp_path, EXPERIMENT, lines, 3, "").read_text(encoding="utf-8")
    assert "a block" not in alike
    lines[1] = line_like("λ 0.5", [True] * 20, timesteps_per_block=3.25, core_logits_per_block=1.625)
    text = write_report(tmp_path, EXPERIMENT, lines, 3, "").read_text(encoding="utf-8")
    assert "| timesteps a block | core logits a block | s an answer |" in text
    assert "| 3.2 | 1.6 | 0.010 |" in text
    assert "a block takes" in (tmp_path / "tiny.svg").read_text(encoding="utf-8")


def test_a_report_has_every_setting_its_intervals_and_what_made_it(tmp_path: Path) -> None:
    file = write_report(tmp_path / "new", EXPERIMENT, lines_like(5), 3, "ssd2 evaluate tiny --seed 3")
    text = file.read_text(encoding="utf-8")
    for part in ("λ 0.5", "0.250 (0.112–0.469)", "seed 3", "ssd2 evaluate tiny --seed 3", "cccccccccccc", "(tiny.svg)"):
        assert part in text
    plot = (tmp_path / "new" / "tiny.svg").read_bytes()
    write_report(tmp_path / "new", EXPERIMENT, lines_like(5), 3, "")
    assert (tmp_path / "new" / "tiny.svg").read_bytes() == plot, "the same results draw the same file"
    write_report(tmp_path / "new", EXPERIMENT, lines_like(10), 3, "")
    assert (tmp_path / "new" / "tiny.svg").read_bytes() != plot


def test_a_report_compares_every_setting_with_the_reference_item_by_item(tmp_path: Path) -> None:
    rights = ([True] * 10 + [False] * 10, [True] * 8 + [False] * 2 + [True] * 1 + [False] * 9)
    lines = [line_like(label, right) for label, right in zip(("λ 0.0", "λ 0.5"), rights, strict=True)]
    text = write_report(tmp_path, replace(EXPERIMENT, reference="λ 0.0"), lines, 3, "").read_text(encoding="utf-8")
    assert "| λ 0.5 | -0.050 (1 gained, 2 lost, p 1) |" in text
    assert "| λ 0.0 | -" not in text
    assert "gained" not in write_report(tmp_path, EXPERIMENT, lines, 3, "").read_text(encoding="utf-8")


def test_a_report_of_many_rows_has_a_panel_for_each(tmp_path: Path) -> None:
    rows = tuple(ROWS)
    experiment = replace(EXPERIMENT, rows=rows)
    lines = [line_like(setting.label, [True, False], rows[:7]) for setting in EXPERIMENT.settings]
    text = write_report(tmp_path, experiment, lines, 3, "").read_text(encoding="utf-8")
    plot = (tmp_path / "tiny.svg").read_text(encoding="utf-8")
    for number, row in enumerate(ROWS.values()):
        assert row.title in text
        assert f"<!-- {row.title} -->" in plot
        assert text.count("–)") == 0
        assert (number < 7) or "| – |" in text
    assert "so far" in text, "four rows are missing"


@pytest.mark.slow
def test_a_sweep_of_two_pairs_tells_them_apart_and_draws_over_lambda(
    town_folders: tuple[Path, Path],
    causal_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(experiments, "LAMBDAS", (0.0, 1.0))  # the report is drawn anew for every setting
    command = ["evaluate", "weights", *options(town_folders, causal_folders), "--limit", "1", "--json"]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "r")])
    assert result.exit_code == 0, result.output
    families = [line["family"] for line in json.loads(result.stdout)["results"]]
    assert families == ["ssd-2"] * 3 + ["autoregressive"] * 3
    text = (tmp_path / "r/weights.md").read_text(encoding="utf-8")
    assert text.count("| ssd-2, λ") == text.count("| autoregressive, λ") == 3
    plot = (tmp_path / "r/weights.svg").read_text(encoding="utf-8")
    assert "<!-- autoregressive, α 1 -->" in plot


def options(town: tuple[Path, Path], causal: tuple[Path, Path] | None = None) -> list[str]:
    given = ["--core", str(town[0]), "--user", str(town[1])]
    if causal:
        given += ["--autoregressive-core", str(causal[0]), "--autoregressive-user", str(causal[1])]
    return given


def test_a_report_of_a_run_that_goes_on_says_so(tmp_path: Path) -> None:
    texts = [
        write_report(tmp_path, EXPERIMENT, lines_like(10)[:count], 3, "").read_text(encoding="utf-8")
        for count in (2, 3)
    ]
    assert ["2 of 3 settings are measured so far" in texts[0], "so far" in texts[1]] == [True, False]


def test_results_so_far_are_handed_over_as_they_come(pair: Pair, tmp_path: Path) -> None:
    file, seen = tmp_path / "results.jsonl", list[Mapping[int, Result]]()
    results = run(pair, results_file=file, on_result=lambda found: seen.append(dict(found)))
    assert [len(found) for found in seen] == [1, 2, 3]
    assert [seen[-1][number] for number in range(3)] == results
    run(pair, results_file=file, on_result=lambda _: pytest.fail("nothing new came"))


def test_a_report_without_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InvalidParameter, match=r"slingshot\[train\]"):
        write_report(tmp_path, EXPERIMENT, lines_like(10), 3, "")


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidParameter, match="another folder"):
        write_report(tmp_path / "file", EXPERIMENT, lines_like(10), 3, "")


def test_a_pair_of_two_families_is_refused(pair: Pair, causal_pair: Pair) -> None:
    for models in ((pair.core, causal_pair.core), (causal_pair.core, pair.core)):
        with pytest.raises(ModelMismatch, match="pair of one"):
            Pair(*models)


def test_a_comparison_prints_json_and_writes_a_report(
    town_folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "answer_items", answers_by_lambda)
    command = ["evaluate", "self-conditioning", *options(town_folders), "--limit", "2", "--lambda", "0.5"]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "r"), "--json"])
    assert result.exit_code == 0, result.output
    lines = json.loads(result.stdout)["results"]
    assert [line["label"] for line in lines] == ["own", "projection", "mixed"]
    assert [line["reverse"]["share"] for line in lines] == [0.5] * 3
    assert {name.name for name in (tmp_path / "r").iterdir()} == {
        "results.jsonl",
        "self-conditioning.md",
        "self-conditioning.svg",
    }


def test_a_comparison_takes_timesteps_and_patience_as_its_base(
    town_folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "answer_items", lambda _pair, items, *_: [item.answer for item in items])
    base = [*options(town_folders), "--limit", "1", "--steps", "7", "--patience", "3"]
    for command in (["projections"], ["reports", "--only", "projections"]):
        out = tmp_path / command[0]
        result = CliRunner().invoke(app, ["evaluate", *command, *base, "--out", str(out)])
        assert result.exit_code == 0, result.output
        settings = [json.loads(line)["setting"] for line in (out / "results.jsonl").read_text().splitlines()]
        assert {(each["steps"], each["patience"]) for each in settings} == {(7, 3)}


def test_one_command_makes_all_reports_and_resumes(
    town_folders: tuple[Path, Path],
    causal_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner_module, "answer_items", lambda _pair, items, *_: [item.answer for item in items])
    out = tmp_path / "r"
    names = ["order-free", "steps", "stop", "patience", "dynamics"]
    monkeypatch.setattr("ssd2.cli.reports.STEPS", 5)
    command = ["evaluate", "reports", *options(town_folders, causal_folders), "--limit", "2", "--only", ",".join(names)]
    result = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert {file.stem for file in out.glob("*.md")} == {file.stem for file in out.glob("*.svg")} == set(names)
    before = {file.name: file.read_bytes() for file in out.glob("*.jsonl")}
    assert set(before) == {"order-free.jsonl", "results.jsonl", "dynamics.jsonl"}
    monkeypatch.setattr(runner_module, "answer_items", lambda *_: pytest.fail("it ran"))
    monkeypatch.setattr("ssd2.lab.dynamics.measure_dynamics", lambda *_: pytest.fail("it ran"))
    again = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert again.exit_code == 0, again.output
    assert {file.name: file.read_bytes() for file in out.glob("*.jsonl")} == before


def test_a_report_or_a_row_that_is_not_there_is_refused_before_a_model_is_loaded() -> None:
    for arguments, says in (
        (["reports", "--out", "r", "--only", "steps,nonsense"], "no report 'nonsense'; choose from order-free,"),
        (["order-free", "--rows", "reverse,nonsense"], "no row 'nonsense'; choose from reverse,"),
        (["order-free", "--autoregressive-core", "x"], "add the missing one"),
    ):
        with pytest.raises(InvalidParameter, match=says):
            CliRunner().invoke(app, ["evaluate", *arguments, "--core", "/nowhere"], catch_exceptions=False)


def test_without_an_autoregressive_pair_the_sweep_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(comparing, "AUTOREGRESSIVE", (tmp_path / "core", tmp_path / "user"))
    assert comparing.autoregressive_pair(None, None) == (
        None,
        "the demo has no such pair here; give one with --autoregressive-core and --autoregressive-user",
    )


def test_the_demos_autoregressive_pair_is_taken_where_it_is_there(
    causal_folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "AUTOREGRESSIVE", causal_folders)
    pair, why = comparing.autoregressive_pair(None, None)
    assert pair is not None
    assert (pair.family, why) == ("autoregressive", None)
