"""Choosing λ and α: the questions, the choice, and what is kept."""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console, RenderableType
from torch import Tensor

from ssd2.algorithm.params import CollaborationParams, DecodingParams
from ssd2.errors import InvalidParameter
from ssd2.logits.format import FLOAT16, PREFERRED
from tests.conftest import block_view
from user_agent.answering.run import Question
from user_agent.commands.remedies import with_remedy
from user_agent.documents.passage import Passage
from user_agent.errors import CoreLost
from user_agent.store.tuned import (
    Choice,
    Measured,
    config_folder,
    forget_choices,
    save_choice,
    saved_choice,
    saved_choices,
)
from user_agent.tuning.choosing import choose
from user_agent.tuning.questions import TuningQuestion, cloze_questions, read_questions
from user_agent.tuning.recording import RecordedCore, Recording, check_recording_size, recording_bytes
from user_agent.tuning.report import bar, curve, heading
from user_agent.tuning.stored_answers import StoredAnswers
from user_agent.tuning.sweep import SETTINGS, AskingJudge, Batch, Task, sweep

AUTO = CollaborationParams("auto")
LOW, MIDDLE, HIGH = (CollaborationParams(lambda_user, 0.0) for lambda_user in (0.1, 0.3, 0.5))


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def _passages(*texts: str) -> list[Passage]:
    return [Passage(text, Path("notes.md"), number) for number, text in enumerate(texts, start=1)]


@pytest.mark.parametrize(
    ("sentence", "asked", "expected"),
    [
        ("My dentist appointment is at Hazel Hammer.", "My dentist appointment is at", "Hazel Hammer"),
        ("I put the spare key in the blue drawer.", "I put the spare key in the", "blue drawer"),
        ("The code for the shed is 4522.", "The code for the shed is", "4522"),
        ("The train leaves at 10:45 from there.", "The train leaves at", "10:45"),
        ("The old mill sells very fine brown bread", "The old mill sells very", "fine brown bread"),
    ],
)
def test_a_question_is_a_sentence_without_its_last_content_words(sentence: str, asked: str, expected: str) -> None:
    (question,) = cloze_questions(_passages(sentence), seed=0)
    assert question.text == f"Tell me: {asked}"
    assert question.expected == expected


@pytest.mark.parametrize("sentence", ["It is there.", "Milk", "Hazel Hammer.", "...", "That is the blue drawer."])
def test_a_sentence_that_does_not_say_what_is_asked_makes_no_question(sentence: str) -> None:
    assert cloze_questions(_passages(sentence), seed=0) == []


def test_sentences_that_begin_alike_are_asked_only_if_they_end_alike() -> None:
    passages = _passages("The key is in the drawer.", "The key is in the Shed.", "The code is 12.", "The code is 12.")
    assert [question.expected for question in cloze_questions(passages, seed=0)] == ["12"]


def test_the_seed_decides_the_order() -> None:
    passages = _passages(*(f"The code of door {number} is {number + 100}." for number in range(20)))
    first, again, other = (cloze_questions(passages, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert set(first) == set(other)


def test_a_question_file_may_hold_lines_of_both_kinds(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text('# mine\nWhere is it?\tblue drawer\n\n{"question": "Who?", "answer": "Ada"}\n')
    assert [(q.text, q.expected) for q in read_questions(file)] == [("Where is it?", "blue drawer"), ("Who?", "Ada")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "contains no question"),
        ("# nothing\n", "contains no question"),
        ("Where is it?\n", "line 1 is not a question with its answer; write a question, a TAB"),
        ("ok?\tyes\na\tb\tc\n", "line 2 is not a question with its answer"),
        ("{broken\n", "line 1 is not"),
        ('{"question": "Who?"}\n', "line 1 is not"),
        ("Where?\t \n", "line 1 is not"),
        ('{"question": "Who?", "answer": " "}\n', "line 1: the question or the expected answer is empty"),
    ],
)
def test_a_question_file_that_is_none_is_named_with_its_line(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "mine.tsv"
    file.write_text(content)
    with pytest.raises(InvalidParameter, match=says) as caught:
        read_questions(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\x0c", "\x1c"])
def test_a_line_ends_at_a_line_feed_alone(tmp_path: Path, separator: str) -> None:
    file = tmp_path / "mine.jsonl"
    asked = f"Where{separator}is it?"
    lines = (f"{asked}\tdrawer", json.dumps({"question": "Who\u2028is it?", "answer": "Ada"}, ensure_ascii=False))
    file.write_bytes("\r\n".join(lines).encode())
    assert [(q.text, q.expected) for q in read_questions(file)] == [(asked, "drawer"), ("Who\u2028is it?", "Ada")]


def test_a_missing_question_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="choose another file") as raised:
        read_questions(tmp_path / "none.tsv")
    assert with_remedy(raised.value).endswith("(--questions FILE)")


def _right(count: int, of: int = 20) -> list[bool]:
    return [number < count for number in range(of)]


def test_of_equally_good_settings_the_smallest_lambda_is_chosen() -> None:
    verdict = choose({LOW: _right(4), MIDDLE: _right(18), HIGH: _right(18)}, [LOW, MIDDLE, HIGH])
    assert verdict.chosen == MIDDLE
    assert verdict.alike == (HIGH,)


def test_a_smaller_lambda_is_chosen_only_within_one_standard_error() -> None:
    """Right where the other is wrong and the other way round makes a difference uncertain; wrong only does not."""
    best = _right(15)
    mixed = [not b if number in (0, 1, 16) else b for number, b in enumerate(best)]  # two worse, one better
    worse = [b and number not in (0, 1, 2, 3) for number, b in enumerate(best)]
    assert choose({LOW: mixed, HIGH: best}, [LOW, HIGH]).chosen == LOW
    assert choose({LOW: worse, HIGH: best}, [LOW, HIGH]).chosen == HIGH


@pytest.mark.parametrize(("wrong", "chosen"), [(1, LOW), (2, HIGH)])
def test_one_answer_behind_is_within_one_error_and_two_are_not(wrong: int, chosen: CollaborationParams) -> None:
    assert choose({LOW: _right(40 - wrong, 40), HIGH: _right(40, 40)}, [LOW, HIGH]).chosen == chosen


@pytest.mark.parametrize(("wrong", "chosen"), [(-1, AUTO), (0, AUTO), (1, AUTO), (2, HIGH)])
def test_auto_is_chosen_if_it_is_best_or_within_one_error_of_the_best(wrong: int, chosen: CollaborationParams) -> None:
    outcomes = {LOW: _right(10, 40), HIGH: _right(38, 40), AUTO: _right(38 - wrong, 40)}
    verdict = choose(outcomes, [LOW, HIGH, AUTO])
    assert (verdict.chosen, verdict.constant) == (chosen, HIGH)


def test_where_nothing_constant_is_right_auto_is_compared_with_nothing() -> None:
    verdict = choose({LOW: _right(0), AUTO: _right(3)}, [LOW, AUTO])
    assert (verdict.chosen, verdict.constant) == (AUTO, None)


@pytest.mark.parametrize(
    ("auto", "constant", "says"),
    [
        (0.8, 0.75, "auto is better, and needs no search"),
        (0.75, 0.75, "auto is as good within the noise of these questions, and needs no search"),
        (0.5, 0.75, "the constant is better by more than one standard error"),
    ],
)
def test_the_report_says_whether_auto_or_the_best_constant_is_better(auto: float, constant: float, says: str) -> None:
    measured = [Measured(0.3, 1.0, constant, 0.1, 0.9), Measured("auto", 1.0, auto, 0.1, 0.9)]
    chosen = "auto" if auto >= constant else 0.3
    choice = replace(_choice(), lambda_user=chosen, alike=(), curve=tuple(measured), constant=(0.3, 1.0))
    text = _shown(curve(choice))
    assert f"Chosen: λ {chosen}, α 1" in text
    assert f"λ auto has {auto:.2f} right, the best constant setting, λ 0.3, α 1, {constant:.2f}: {says}" in text


def test_a_choice_of_auto_is_kept_and_one_of_before_it_is_still_read() -> None:
    chosen = replace(_choice(), lambda_user="auto", alike=((0.4, 1.0),), constant=(0.4, 1.0))
    save_choice(chosen)
    assert saved_choices() == [chosen]
    file = config_folder() / "tuned.json"
    (values,) = json.loads(file.read_text())
    del values["constant"]
    file.write_text(json.dumps([values]))
    assert saved_choices() == [replace(chosen, constant=None)]
    for broken in ({"constant": [0.7, 1.0]}, {"curve": [{**point, "lambda_user": "x"} for point in values["curve"]]}):
        file.write_text(json.dumps([{**values, **broken}]))
        with pytest.raises(InvalidParameter, match="does not contain tuned settings"):
            saved_choices()


@pytest.mark.parametrize("questions", [1, 2, 40])
def test_a_setting_without_a_right_answer_is_never_chosen(questions: int) -> None:
    assert choose({LOW: _right(0, questions), HIGH: _right(1, questions)}, [LOW, HIGH]).chosen == HIGH


def test_settings_that_are_not_eligible_are_measured_but_not_chosen() -> None:
    assert choose({LOW: _right(3), HIGH: _right(20)}, [LOW]).chosen == LOW


def test_nothing_right_is_no_reason_to_choose_anything() -> None:
    assert choose({LOW: _right(0), HIGH: _right(0)}, [LOW, HIGH]) is None


def _is_large(setting: CollaborationParams) -> bool:
    return setting.lambda_user == "auto" or setting.lambda_user > 0.25


class FakeJudge:
    """Right with the larger λ, and gone after some answers."""

    def __init__(self, lasts: int = 10**6) -> None:
        self.asked, self.lasts = [], lasts

    def batches(self, due: Mapping[CollaborationParams, Sequence[int]]) -> Iterator[Batch]:
        return ((setting, numbers[at : at + 2]) for setting, numbers in due.items() for at in range(0, len(numbers), 2))

    async def right(self, setting: CollaborationParams, numbers: Sequence[int]) -> list[bool]:
        if len(self.asked) >= self.lasts:
            raise CoreLost("gone")
        self.asked += [(setting, number) for number in numbers]
        return [_is_large(setting)] * len(numbers)


async def test_a_stopped_run_goes_on_with_its_seed_and_asks_nothing_twice() -> None:
    stopped, rest = FakeJudge(lasts=10), FakeJudge()
    with pytest.raises(CoreLost):
        await sweep(stopped, 3, StoredAnswers(["run"], 11, is_fixed=False), lambda *_: None)
    kept, progress = StoredAnswers(["run"], 22, is_fixed=False), []
    assert kept.seed == 11
    outcomes = await sweep(rest, 3, kept, lambda _, answers: progress.append(answers))
    assert len(stopped.asked) + len(rest.asked) == len(SETTINGS) * 3 == sum(progress)
    assert not set(stopped.asked) & set(rest.asked)
    assert outcomes == {setting: [_is_large(setting)] * 3 for setting in SETTINGS}


class FakeAgent:
    """Keeps what is asked, and is gone after some answers."""

    def __init__(self, lasts: int = 10**6) -> None:
        self.asked, self.lasts = list[Question](), lasts

    async def answer(self, question: Question) -> SimpleNamespace:
        if len(self.asked) >= self.lasts:
            raise CoreLost("gone")
        self.asked.append(question)
        return SimpleNamespace(text="Ada")


def _asking(agent: FakeAgent, seed: int, count: int = 5) -> AskingJudge:
    tasks = [Task(TuningQuestion(f"Who is {number}?", "Ada"), []) for number in range(count)]
    return AskingJudge(tasks, agent, DecodingParams(block_size=8, max_tokens=16), seed)


async def _asked(seed: int) -> list[Question]:
    agent = FakeAgent()
    await sweep(_asking(agent, seed), 5, StoredAnswers(["run", seed], seed, is_fixed=True), lambda *_: None)
    forget_choices()
    return agent.asked


async def test_own_questions_are_asked_in_an_order_that_the_seed_alone_knows() -> None:
    first, again, other = [await _asked(seed) for seed in (1, 1, 2)]
    orders = [[(q.collaboration, q.instruction) for q in asked] for asked in (first, again, other)]
    in_turn = [(setting, f"Who is {number}?") for setting in SETTINGS for number in range(5)]
    assert first == again
    assert all(sorted(order, key=in_turn.index) == in_turn != order for order in orders)
    assert orders[0] != orders[2]
    for index in (0, 1):  # neither the settings nor the questions stand together
        neighbours = pairwise(part[index] for part in orders[0])
        assert sum(a == b for a, b in neighbours) < len(in_turn) / 2


async def test_no_two_answers_to_own_questions_have_noise_or_draws_in_common() -> None:
    asked = [*await _asked(1), *await _asked(2)]
    assert len(asked) == 2 * 5 * len(SETTINGS)
    seeds = [seed for q in asked for seed in (q.seeds.noise, q.seeds.sampling)]
    assert len(set(seeds)) == len(seeds)


async def test_a_stopped_run_of_own_questions_goes_on_in_its_order() -> None:
    stopped, rest = FakeAgent(lasts=10), FakeAgent()
    with pytest.raises(CoreLost):
        await sweep(_asking(stopped, 1), 5, StoredAnswers(["run"], 1, is_fixed=True), lambda *_: None)
    await sweep(_asking(rest, 1), 5, StoredAnswers(["run"], 1, is_fixed=True), lambda *_: None)
    forget_choices()
    assert stopped.asked + rest.asked == await _asked(1)


def test_another_run_or_another_seed_begins_anew() -> None:
    StoredAnswers(["run"], 11, is_fixed=False).add(LOW, [0], [True])
    assert len(StoredAnswers(["other"], 11, is_fixed=True)) == 0
    assert len(StoredAnswers(["run"], 11, is_fixed=True)) == 1
    assert len(StoredAnswers(["run"], 12, is_fixed=True)) == 0


def test_a_stopped_run_is_there_until_another_one_has_an_answer() -> None:
    StoredAnswers(["run"], 11, is_fixed=True).add(LOW, [0, 1], [True, False])
    other = StoredAnswers(["run"], 12, is_fixed=True)
    assert len(StoredAnswers(["run"], 11, is_fixed=True)) == 2
    other.add(HIGH, [0], [True])
    other.add(HIGH, [1], [False])
    assert len(StoredAnswers(["run"], 11, is_fixed=True)) == 0
    again = StoredAnswers(["run"], 12, is_fixed=True)
    assert (len(again), again.right(HIGH, 0), again.right(HIGH, 1)) == (2, True, False)


def test_a_line_cut_short_by_a_crash_costs_that_line_alone() -> None:
    StoredAnswers(["run"], 11, is_fixed=False).add(LOW, [0, 1], [True, False])
    (file,) = config_folder().iterdir()
    file.write_bytes(file.read_bytes()[:-4])
    StoredAnswers(["run"], 0, is_fixed=False).add(LOW, [1, 2], [True, True])
    kept = StoredAnswers(["run"], 0, is_fixed=False)
    assert [kept.right(LOW, number) for number in range(3)] == [True, True, True]


def test_a_file_that_is_no_run_is_begun_anew() -> None:
    StoredAnswers(["run"], 11, is_fixed=False).add(LOW, [0], [True])
    (file,) = config_folder().iterdir()
    file.write_text("[1, 2]\nnonsense\n")
    assert len(StoredAnswers(["run"], 11, is_fixed=False)) == 0


def _choice(core: str = "c" * 64, lambda_user: float = 0.3) -> Choice:
    return Choice(
        core_sha256=core,
        core_model="tiny\x1b]0;owned\x07",
        user_sha256="u" * 64,
        lambda_user=lambda_user,
        alpha=1.0,
        source="documents",
        questions=12,
        seed=5,
        tuned_on="2026-11-21",
        alike=((0.4, 1.0),),
        curve=tuple(Measured(s.lambda_user, s.alpha, 0.5, 0.25, 0.75) for s in SETTINGS),
    )


def test_a_choice_is_for_its_pair_alone_and_the_last_one_counts() -> None:
    for choice in (_choice(), _choice("d" * 64), _choice(lambda_user=0.4)):
        file = save_choice(choice)
    assert saved_choice("c" * 64, "u" * 64) == _choice(lambda_user=0.4)
    assert saved_choice("d" * 64, "u" * 64) == _choice("d" * 64)
    assert saved_choice("c" * 64, "v" * 64) is None
    assert len(saved_choices()) == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_answers_are_kept_for_the_owner_alone_and_hold_no_text() -> None:
    StoredAnswers({"text": "Blenkitharp"}, 11, is_fixed=False).add(LOW, [0], [True])
    (file,) = config_folder().iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "Blenkitharp" not in file.read_text()


def test_reset_forgets_choices_and_stopped_runs() -> None:
    save_choice(_choice())
    StoredAnswers(["run"], 11, is_fixed=False).add(LOW, [0], [True])
    assert forget_choices() == 2
    assert saved_choices() == []
    assert list(config_folder().iterdir()) == []


def test_reset_deletes_what_a_crash_left_while_a_choice_was_written() -> None:
    file = save_choice(_choice())
    file.with_name("tuned.json.4711.new").write_text("[")
    assert forget_choices() == 2
    assert list(config_folder().iterdir()) == []


def test_files_that_others_could_read_are_closed_to_them_when_they_are_written() -> None:
    StoredAnswers(["run"], 11, is_fixed=False).add(LOW, [0], [True])
    (run,) = config_folder().iterdir()
    new = config_folder() / f"tuned.json.{os.getpid()}.new"
    new.write_text("")
    for file in (run, new):
        file.chmod(0o644)
    StoredAnswers(["run"], 11, is_fixed=False).add(LOW, [1], [True])
    assert [stat.S_IMODE(file.stat().st_mode) for file in (run, save_choice(_choice()))] == [0o600, 0o600]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"lambda_user": 0.3}]', "null"])
def test_a_damaged_settings_file_says_how_to_get_rid_of_it(content: str) -> None:
    file = save_choice(_choice())
    file.write_text(content)
    with pytest.raises(InvalidParameter, match="delete it") as raised:
        saved_choices()
    assert "--reset" in with_remedy(raised.value)
    assert forget_choices() == 1


def test_a_configuration_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("a file")
    for write in (
        lambda: save_choice(_choice()),
        lambda: StoredAnswers(["run"], 1, is_fixed=True).add(LOW, [0], [True]),
    ):
        with pytest.raises(InvalidParameter, match="another configuration folder") as raised:
            write()
        assert "XDG_CONFIG_HOME" in with_remedy(raised.value)


def test_without_the_variable_settings_are_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CONFIG_HOME", value)
        assert config_folder() == tmp_path / ".config" / "slingshot"


def test_a_recorded_core_repeats_its_rows_also_for_blocks_that_end_early() -> None:
    def logits(row: int) -> list[list[Tensor]]:
        return [[torch.full((4, 8), 100.0 * row + 10 * block + step) for step in range(3)] for block in range(2)]

    core = RecordedCore([Recording(logits(row), row) for row in range(2)])
    for block, step in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2)):  # the first block ends early
        got: Tensor = core.logits(block_view(2, block=block, step=step))
        assert got.shape == (2, 4, 8)
        assert got[:, 0, 0].tolist() == [10 * block + step, 100 + 10 * block + step]


def test_the_size_of_a_recording_is_what_comes_down() -> None:
    params = DecodingParams(block_size=8, max_tokens=24, steps=25, stop=0.4)
    assert recording_bytes(params, 1782, FLOAT16) == 6 * 3 * 25 * 8 * 1782 * 2
    assert recording_bytes(params, 1782, PREFERRED) == 6 * 3 * 25 * 8 * (4 + 3 * 64)


def test_recordings_that_no_memory_holds_are_refused() -> None:
    check_recording_size(DecodingParams(block_size=25, max_tokens=24, steps=25, stop=0.4), 50272)
    with pytest.raises(InvalidParameter, match="fewer steps or shorter answers"):
        check_recording_size(DecodingParams(block_size=25, max_tokens=24, steps=600, stop=0.4), 50272)


def test_bars_are_as_long_as_their_shares() -> None:
    assert [bar(share) for share in (0, 1 / 24, 0.5, 1)] == ["", "█", "█" * 12, "█" * 24]
    assert bar(1 / 48) == "▌"


def _shown(printed: RenderableType) -> str:
    shown = io.StringIO()
    Console(file=shown, width=200).print(printed)
    return " ".join(shown.getvalue().split())


def test_what_is_printed_names_the_choice_and_what_cannot_be_told_from_it() -> None:
    text = _shown(curve(_choice()))
    assert "Chosen: λ 0.3, α 1, 0.50 right (0.25–0.75) of 12 questions" in text
    assert "cannot be distinguished from λ 0.4 with α 1" in text
    assert "\x1b" not in heading(_choice())
