"""The order-free benchmark: when an answer is right, and what the command prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ssd2.algorithm.params import CollaborationParams
from ssd2.cli import app, comparing
from ssd2.demo.forms import NOT_KNOWN
from ssd2.demo.generator import Item
from ssd2.errors import InvalidParameter
from ssd2.evaluation import runner as runner_module
from ssd2.evaluation.generations import Generation, read_generations
from ssd2.evaluation.intervals import wilson_interval
from ssd2.evaluation.order_free import SYSTEMS, as_json, by_row, cells
from ssd2.evaluation.order_free_report import as_table
from ssd2.evaluation.pair import Pair, answer_items
from ssd2.evaluation.result import Outcome
from ssd2.evaluation.rows import ROWS
from ssd2.evaluation.runner import Run
from ssd2.evaluation.scorer import Judgement, holds, judge

REVERSE = Item("reverse", (), "", "Oak Street, as your piano lesson is at Amber Fox.", ("Amber Fox",), ("Oak Street",))
LATER = Item("later_note", (), "", "Your piano lesson is at Amber Fox.", ("Amber Fox",), (), outdated="Fern Tower")
UNKNOWN = Item("not_known", (), "", NOT_KNOWN)
LONG = Item("long", (), "", "", ("Amber Fox", "Fern Tower"), ("8:00", "Oak Street", "30"))


@pytest.mark.parametrize(
    ("item", "answer", "expected"),
    [
        (REVERSE, REVERSE.answer, Judgement(True, False, 1.0, 1.0)),
        (REVERSE, "AMBER FOX: OAK STREET!", Judgement(True, False, 1.0, 1.0)),
        (REVERSE, "Oak Street, as your piano lesson is at Amber Foxes.", Judgement(False, False, 0.0, 1.0)),
        (REVERSE, "Your piano lesson is at Amber Fox.", Judgement(False, False, 1.0, 0.0)),
        (REVERSE, f"{REVERSE.answer} {NOT_KNOWN}", Judgement(False, True, 1.0, 1.0)),
        (REVERSE, NOT_KNOWN, Judgement(False, True, 0.0, 0.0)),
        (REVERSE, "", Judgement(False, False, 0.0, 0.0)),
        (LATER, LATER.answer, Judgement(True, False, 1.0, None)),
        (LATER, "Your piano lesson is at Amber Fox, not at Fern Tower.", Judgement(False, False, 1.0, None)),
        (UNKNOWN, "your notes do not say", Judgement(True, True, None, None)),
        (UNKNOWN, "Your notes do not say.", Judgement(True, True, None, None)),
        (UNKNOWN, "Your piano lesson is at Amber Fox.", Judgement(False, False, None, None)),
        (UNKNOWN, "", Judgement(False, False, None, None)),
        (LONG, "It is at Amber Fox, opens at 8:00 and costs 30 euros.", Judgement(False, False, 0.5, 2 / 3)),
        (LONG, "It is at Amber Fox, opens at 8:00 and closes at 9:30.", Judgement(False, False, 0.5, 1 / 3)),
    ],
)
def test_an_answer_is_right_if_all_slots_and_nothing_outdated_stand_in_it(
    item: Item, answer: str, expected: Judgement
) -> None:
    assert judge(item, answer) == expected


def test_a_value_stands_in_an_answer_as_whole_words() -> None:
    assert not holds("It is 19:300.", "9:30")
    assert not holds("It opens at 9:30.", "30")
    assert not holds("It opens at 9:30.", "9")
    assert holds("It costs 30.", "30")
    assert holds("Where:30", "30")
    assert holds("at AMBER ARCH.", "Amber Arch")


def test_every_reference_answer_is_right_and_no_answer_to_another_question() -> None:
    for row in ROWS.values():
        items = row.items(40, 0)
        assert len(items) == 40
        assert all(judge(item, item.answer).is_right for item in items), row
        wrong = [judge(item, other.answer).is_right for item, other in pairwise(items)]
        assert sum(wrong) <= (39 if row.name == "not_known" else 4), row


def test_an_odd_number_of_items_is_spread_over_the_kinds() -> None:
    kinds = [item.kind for item in ROWS["seen_forms"].items(5, 0)]
    assert kinds == ["private"] * 3 + ["forward"] * 2


def test_outcomes_are_means_over_the_items() -> None:
    answers = ["It is at Amber Fox, opens at 8:00 and costs 30 euros.", NOT_KNOWN]
    assert Outcome.of([LONG, LONG], answers) == Outcome((False, False), 0.5, 0.25, 1 / 3)
    assert Outcome.of([UNKNOWN], [NOT_KNOWN]) == Outcome((True,), 1.0, None, None)


def by_system(_pair: Pair, items: Sequence[Item], how: CollaborationParams, params: object, *_: object) -> list[str]:
    """Together all is right, the user model alone knows nothing, the core says what it does not know."""
    if how.lambda_user == 0:
        return [NOT_KNOWN for _ in items]
    return [item.answer if how.lambda_user != 1 and number % 2 == 0 else "No." for number, item in enumerate(items)]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "answer_items", by_system)


@pytest.mark.usefixtures("answers")
def test_every_system_has_its_share_of_every_row_with_n_and_interval(pair: Pair, causal_pair: Pair) -> None:
    planned = cells(pair, causal_pair, CollaborationParams(), pair.decoding(), tuple(ROWS))
    report = as_json(by_row(planned, Run(4).results(planned)), None)
    assert list(report)[: len(ROWS)] == list(ROWS)
    reverse = report["reverse"]
    shares = {system: reverse[system] for system in SYSTEMS}
    assert shares == {"together": 0.5, "core_only": 0.0, "user_only": 0.0, "autoregressive": 0.5}
    assert reverse["n"] == 4
    assert reverse["interval_95"]["together"] == list(wilson_interval(0.5, 4))
    assert reverse["paired"]["core_only"] == {"only_together": 2, "only_core_only": 0, "p": 0.5}
    assert reverse["paired"]["autoregressive"] == {"only_together": 0, "only_autoregressive": 0, "p": 1.0}
    assert report["not_known"]["core_only"] == 1.0
    assert report["not_known"]["false_not_known"]["core_only"] == 1.0
    assert report["not_known"]["false_not_known"]["together"] == 0.0
    assert report["not_known"]["false_not_known"]["n"] == 8
    assert report["long"]["private"]["together"] == report["long"]["public"]["together"] == 0.5
    assert report["autoregressive_left_out"] is None
    assert report["settings"]["core_sha256"] == pair.core.sha256
    assert json.loads(json.dumps(report)) == report
    table = as_table(report)
    assert "| reverse: fact first, then the place | 4 | 0.500 (0.150–0.850) | 0.000 (0.000–0.490) |" in table
    assert "|   private slots | 4 | 0.500" in table


@pytest.mark.usefixtures("answers")
def test_without_an_autoregressive_pair_its_shares_are_null_with_the_reason(pair: Pair) -> None:
    planned = cells(pair, None, CollaborationParams(), pair.decoding(), ("reverse", "not_known"))
    report = as_json(by_row(planned, Run(2).results(planned)), "it is not here")
    assert report["reverse"]["autoregressive"] is None
    assert report["not_known"]["false_not_known"]["n"] == 2, "of the rows that were asked"
    assert report["autoregressive_left_out"] == "it is not here"
    table = as_table(report)
    assert "| – |" in table
    assert "No autoregressive pair: it is not here." in table


def test_the_systems_differ_in_lambda_only(pair: Pair, causal_pair: Pair) -> None:
    decoding = pair.decoding(steps=7, projection="greedy", patience=2)
    planned = cells(pair, causal_pair, CollaborationParams("auto", 0.5), decoding, ("forward",))
    assert [cell.setting.label for cell in planned] == list(SYSTEMS)
    assert [cell.setting.collaboration.lambda_user for cell in planned] == ["auto", 0.0, 1.0, "auto"]
    assert {cell.setting.collaboration.alpha for cell in planned} == {0.5}
    assert [cell.setting.decoding for cell in planned[:3]] == [decoding] * 3
    token_by_token = planned[3].setting.decoding
    assert (token_by_token.steps, token_by_token.projection, token_by_token.patience) == (1, "greedy", None)
    assert [cell.pair for cell in planned] == [pair] * 3 + [causal_pair]


@pytest.fixture
def command(town_folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.setattr(comparing, "AUTOREGRESSIVE", (tmp_path / "none", tmp_path / "none"))
    models = ["--core", str(town_folders[0]), "--user", str(town_folders[1])]
    return ["evaluate", "order-free", *models, "--rows", "reverse", "--limit", "2", "--steps", "2", "--json"]


def test_the_command_resumes_and_keeps_the_answers_for_other_measurements(
    command: list[str], pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, file = tmp_path / "kept.jsonl", tmp_path / "new" / "answers.jsonl"
    first = CliRunner().invoke(app, [*command, "--results", str(kept)])
    assert first.exit_code == 0, first.output
    monkeypatch.setattr(runner_module, "answer_items", lambda *_: pytest.fail("it ran"))
    second = CliRunner().invoke(app, [*command, "--results", str(kept), "--answers", str(file)])
    assert second.exit_code == 0, second.output
    assert json.loads(first.stdout) == json.loads(second.stdout)
    by_system = read_generations([file], by="system")
    assert list(by_system) == list(SYSTEMS[:3])
    items = ROWS["reverse"].items(2, 0)
    for system, collaboration in (("core_only", CollaborationParams(0)), ("user_only", CollaborationParams(1, 1))):
        texts = answer_items(pair, items, collaboration, pair.decoding(steps=2), 0, 2)
        expected = [Generation(text, item.question, item.answer) for text, item in zip(texts, items, strict=True)]
        assert by_system[system] == expected


def test_the_command_decodes_as_told(command: list[str]) -> None:
    told = ["--steps", "6", "--projection", "greedy", "--patience", "1", "--core-every", "2", "--schedule", "changes"]
    told += ["--stop", "0.4", "--self-conditioning", "projection", "--logits", "top-k:3", "--lambda", "difference"]
    report = json.loads(CliRunner().invoke(app, [*command, *told]).stdout)
    costs = report["costs"]
    assert costs["together"]["core_logits_per_block"] < costs["together"]["timesteps_per_block"] <= 6
    assert costs["core_only"]["core_logits_per_block"] > 0 == costs["user_only"]["core_logits_per_block"]
    settings = report["settings"]
    shown = [settings[name] for name in ("logits", "stop", "self_conditioning", "lambda_user", "schedule", "patience")]
    assert shown == ["top-k:3", 0.4, "projection", "difference", "changes", 1]


def test_what_cannot_be_kept_or_read_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments, says in (
        (["--answers", str(tmp_path / "file" / "a.jsonl")], "another file"),
        (["--answers", str(tmp_path / "a.txt")], r"\.jsonl"),
        (["--logits", "top-k"], "top-k:K"),
    ):
        with pytest.raises(InvalidParameter, match=says):
            CliRunner().invoke(
                app, ["evaluate", "order-free", "--core", "/nowhere", *arguments], catch_exceptions=False
            )
