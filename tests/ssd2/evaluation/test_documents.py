"""`ssd2 evaluate documents`: what each side is given, runs that resume, and the report."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from families import save_llama
from typer.testing import CliRunner

from ssd2.algorithm.params import CollaborationParams
from ssd2.cli import app
from ssd2.errors import InvalidParameter
from ssd2.evaluation.documents import answering
from ssd2.evaluation.documents.answering import (
    CORE_ALONE,
    USER_ALONE,
    Answer,
    Run,
    answer_all,
    found_passages,
    given_passages,
    settings_of,
)
from ssd2.evaluation.documents.questions import Question, chosen_questions, read_documents
from ssd2.evaluation.documents.report import as_tables, comparisons, found_share, measure, write_report
from ssd2.evaluation.pair import Pair
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.layouts import ANSWER

QUESTIONS = chosen_questions(["two-source"], 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    save_llama(folder, 1800)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    checkpoint = load_checkpoint(folder)
    pair = Pair(checkpoint, checkpoint)
    decoding = pair.decoding(projection="greedy", max_tokens=3)
    return Run(pair, decoding, QUESTIONS, given_passages(QUESTIONS), "given")


def test_each_model_alone_is_always_measured_and_no_setting_twice() -> None:
    assert [one.label for one in settings_of(["auto", 0.5], [1])][2:] == ["λ auto, α 1", "λ 0.5, α 1"]
    settings = settings_of([0, 0.5, 1], [0, 1])
    assert settings[:2] == [CORE_ALONE, USER_ALONE]
    assert [(one.lambda_user, one.alpha) for one in settings[2:]] == [(0.5, 0), (0.5, 1), (1, 1)]


def test_only_the_user_models_prompt_holds_the_passages(run: Run) -> None:
    question = QUESTIONS[0]
    prompts, decode = run.prompts(question), run.pair.user.tokenizer.decode
    assert question.note in decode(prompts.with_docs)
    assert question.note not in decode(prompts.core)
    assert question.note not in decode(prompts.without_docs)


def test_the_given_passages_are_the_note_or_all_of_the_documents() -> None:
    two = chosen_questions(["two-documents"], 1)[0]
    first, second = (read_documents()[name] for name in two.documents)
    assert given_passages([two, QUESTIONS[0]]) == {two.id: first + second, QUESTIONS[0].id: (QUESTIONS[0].note,)}


def test_the_limit_counts_each_kind_and_language() -> None:
    chosen = chosen_questions(None, 1)
    assert len(chosen) == 13
    assert len({(question.kind, question.language) for question in chosen}) == 13
    with pytest.raises(InvalidParameter, match="no kind of questions 'facts'"):
        chosen_questions(["facts"], None)


def test_an_answer_does_not_depend_on_the_batch(run: Run) -> None:
    alone, together = (answer_all(run, USER_ALONE, batch_size=size) for size in (1, 5))
    assert [answer.text for answer in alone] == [answer.text for answer in together]


def test_a_stopped_run_answers_only_what_is_missing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "documents.jsonl"
    before = answer_all(run, USER_ALONE, batch_size=2, kept=kept)
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:3]) + lines[3][:20])
    asked: list[int] = []
    answer_batch = answering._answer_batch

    def counted(run: Run, collaboration: Any, prompts: Sequence[Any]) -> list[str]:
        asked.append(len(prompts))
        return answer_batch(run, collaboration, prompts)

    monkeypatch.setattr(answering, "_answer_batch", counted)
    again = answer_all(run, USER_ALONE, batch_size=5, kept=kept)
    assert asked == [2]
    assert [answer.text for answer in again] == [answer.text for answer in before]


def test_answers_to_other_prompts_or_in_another_setting_are_not_taken_for_these(run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "documents.jsonl"
    count = len(run.questions)
    progress: list[int] = []
    answer_all(run, USER_ALONE, batch_size=5, kept=kept)
    other = replace(run, passages={**run.passages, QUESTIONS[0].id: ("Something else.",)})
    answer_all(other, USER_ALONE, batch_size=5, kept=kept, on_progress=progress.append)
    answer_all(run, CORE_ALONE, batch_size=5, kept=kept, on_progress=progress.append)
    answer_all(run, USER_ALONE, batch_size=5, kept=kept, on_progress=progress.append)
    assert progress == [count - 1, 1, 0, count, count]


def test_found_passages_take_the_place_of_documents_but_not_of_notes(tmp_path: Path) -> None:
    fact = chosen_questions(["fact"], 1)[0]
    file = tmp_path / "found.jsonl"
    file.write_text(json.dumps({"id": fact.id, "passages": ["A passage."]}) + "\n")
    found = found_passages([fact, QUESTIONS[0]], file)
    assert found == {fact.id: ("A passage.",), QUESTIONS[0].id: (QUESTIONS[0].note,)}
    with pytest.raises(InvalidParameter, match="lacks 1 of the questions"):
        found_passages([replace(fact, id="other")], file)
    file.write_text("[]\n")
    with pytest.raises(InvalidParameter, match="does not contain found passages"):
        found_passages([fact], file)


def test_shares_are_of_the_questions_of_their_group() -> None:
    questions = [
        Question("1", "?", "en", "fact", (("red",),)),
        Question("2", "?", "en", "sum", (("12",),)),
        Question("3", "?", "de", "fact", (("rot",),)),
        Question("4", "?", "en", "absent", ()),
    ]
    answers = [Answer("1", "It is red.", 1), Answer("2", "13", 1), Answer("3", "rot", 1), Answer("4", "Not known.", 3)]
    measured = measure("plain", USER_ALONE, questions, answers)
    assert {name: (share.right, share.items) for name, share in measured.shares.items()} == {
        "factual, English": (1, 2),
        "factual, German": (1, 1),
        "fact": (2, 2),
        "sum": (0, 1),
        "nothing there": (1, 1),
    }
    assert measured.seconds_per_answer == 1.5


def test_a_report_has_its_settings_intervals_and_command(run: Run, tmp_path: Path) -> None:
    measured = [
        measure("plain", one, QUESTIONS, answer_all(run, one, batch_size=5)) for one in (CORE_ALONE, USER_ALONE)
    ]
    page = write_report(tmp_path, run, measured, 3, "ssd2 evaluate documents --core X").read_text()
    for part in ("core alone (λ 0)", "user alone with the passages", "2 of 3 settings", "--core X", "0.00 (0.00–0.43)"):
        assert part in page
    results = json.loads((tmp_path / "documents-given.json").read_text())
    assert results["results"][1]["shares"]["real two-source"]["items"] == 5
    assert (tmp_path / "documents-given.svg").is_file()


def test_the_share_of_answers_in_the_passages_tells_what_search_missed(run: Run) -> None:
    facts = [question for question in chosen_questions(["fact"], 2) if question.language == "en"]
    given = replace(run, questions=facts, passages=given_passages(facts))
    missed = replace(given, passages={**given.passages, facts[0].id: ("Nothing of use.",)})
    assert (found_share(given).value, found_share(missed).value) == (1.0, 0.5)


def test_the_command_measures_one_folder_on_both_sides(folder: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "documents", "--core", str(folder), "--kinds", "two-source", "--limit", "2"]
    options = ["--max-tokens", "2", "--lambda", "0.5,auto", "--alpha", "0,1", "--json", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False)
    report = json.loads(result.stdout)
    labels = [one["label"] for one in report["results"]][2:]
    assert labels == ["λ 0.5, α 0", "λ 0.5, α 1", "λ auto, α 0", "λ auto, α 1"]
    assert report == json.loads((tmp_path / "documents-given.json").read_text())
    assert len((tmp_path / "documents-given.jsonl").read_text().splitlines()) == 12


def test_a_list_of_settings_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidParameter, match="not a list of numbers"):
        CliRunner().invoke(
            app, ["evaluate", "documents", "--core", str(folder), "--alpha", "1;2"], catch_exceptions=False
        )


def test_a_system_prompt_without_a_chat_template_is_refused(folder: Path) -> None:
    arguments = ["evaluate", "documents", "--core", str(folder), "--system", "Be brief."]
    with pytest.raises(InvalidParameter, match="no chat template"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


TOGETHER = CollaborationParams("auto", 1.0)


def _facts(count: int) -> list[Question]:
    return [Question(str(number), "?", "en", "two-source", (("red",),)) for number in range(count)]


def _answers(text: str) -> list[Answer]:
    """Answer "red" where the pattern has an x."""
    return [Answer(str(at), "It is red." if mark == "x" else "It is blue.", 1) for at, mark in enumerate(text)]


def test_of_an_answer_with_the_fact_first_only_what_follows_is_scored() -> None:
    answers = [Answer("0", f" The door is red. {ANSWER} blue.", 1), Answer("1", f" It is as blood. {ANSWER} red.", 1)]
    assert measure("fact-first", TOGETHER, _facts(2), answers).outcomes["real two-source"] == [False, True]
    assert measure("plain", TOGETHER, _facts(2), answers).outcomes["real two-source"] == [True, True]


def test_together_is_compared_with_the_better_model_alone_of_any_layout() -> None:
    patterns = {
        ("plain", CORE_ALONE): "x.......",
        ("plain", USER_ALONE): "xx......",
        ("plain", TOGETHER): "........",
        ("fact-first", CORE_ALONE): "........",
        ("fact-first", USER_ALONE): "xxx.....",
        ("fact-first", TOGETHER): ".xxxxxxx",
    }
    measured = [measure(*setting, _facts(8), _answers(text)) for setting, text in patterns.items()]
    plain, fact_first = comparisons(measured)
    assert {(one.alone.layout, one.alone.label) for one in (plain, fact_first)} == {
        ("fact-first", "user alone with the passages (λ 1, α 0)")
    }
    assert (plain.discordant.only_first, plain.discordant.only_second) == (0, 3)
    assert fact_first.as_json() | {"together": None, "alone": None} == {
        "group": "real two-source",
        "together": None,
        "alone": None,
        "only_together": 5,
        "only_alone": 1,
        "p_value": pytest.approx(14 / 64),
    }
    row = next(line for line in as_tables(measured).splitlines() if "| fact-first, λ auto" in line)
    assert row.endswith("| 0.88 | fact-first, user alone with the passages (λ 1, α 0) | 0.38 | 5 | 1 | 0.22 |")


def test_the_command_measures_layouts_and_compares_in_page_table_and_json(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "chat"
    shutil.copytree(folder, model)
    (model / "chat_template.jinja").write_text("{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}")
    arguments = ["evaluate", "documents", "--core", str(model), "--kinds", "two-source", "--limit", "2"]
    options = ["--max-tokens", "2", "--lambda", "auto", "--answer-layout", "plain,fact-first", "--out", str(tmp_path)]
    table = CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False).stdout
    report = json.loads((tmp_path / "documents-given.json").read_text())
    assert [one["answer_layout"] for one in report["results"]] == ["plain"] * 3 + ["fact-first"] * 3
    assert [one["together"]["answer_layout"] for one in report["paired"]] == ["plain", "fact-first"]
    page = (tmp_path / "documents-given.md").read_text()
    for part in ("Answer layout plain:", "Answer layout fact-first:", "| only together | only alone | p |"):
        assert part in table
        assert part in page
    lines = [json.loads(line) for line in (tmp_path / "documents-given.jsonl").read_text().splitlines()]
    assert Counter(line["answer_layout"] for line in lines) == {"plain": 6, "fact-first": 6}


@pytest.mark.parametrize(
    ("layouts", "message"), [("fact-last", "no answer layout 'fact-last'"), ("fact-first", "no chat template")]
)
def test_a_layout_that_is_none_or_has_no_template_is_refused(folder: Path, layouts: str, message: str) -> None:
    arguments = ["evaluate", "documents", "--core", str(folder), "--answer-layout", layouts]
    with pytest.raises(InvalidParameter, match=message):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
