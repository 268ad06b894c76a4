"""The reading check: which pair can read which documents, found in seconds on the device."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from ssd2.algorithm.collaboration import UserTerms
from ssd2.demo.paths import EVERYDAY, NOTES, USER
from tests.families import save_llama
from tests.user_agent.answering.test_run import V
from user_agent.answering.reading_check import ReadingCheck
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.documents.reader import read_passages
from user_agent.tuning import reading
from user_agent.tuning.reading import QUESTIONS, check_reading

NO_LIMIT_S = 10_000


@pytest.fixture(scope="module")
def user_model() -> UserModel:
    return UserModel.load(USER, with_weights=True)


def test_the_demos_model_reads_its_notes_and_not_real_english(user_model: UserModel) -> None:
    its_own = check_reading(user_model, read_passages(NOTES), limit_s=NO_LIMIT_S)
    assert (its_own.questions, its_own.can_read) == (QUESTIONS, True)
    assert its_own.right >= QUESTIONS / 2
    english = check_reading(user_model, read_passages(EVERYDAY), limit_s=NO_LIMIT_S)
    assert (english.questions, english.right, english.can_read) == (QUESTIONS, 0, False)


def test_slow_models_are_asked_fewer_questions(user_model: UserModel, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count()  # a second passes with every timestep
    monkeypatch.setattr(reading, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    limit_s = 3 * user_model.config.default_steps  # one question of two whole blocks, but not six of a short one
    found = check_reading(user_model, read_passages(NOTES), limit_s=limit_s)
    assert 0 < found.questions < QUESTIONS
    assert next(clock) <= limit_s + 5
    assert check_reading(user_model, read_passages(NOTES), limit_s=0) == ReadingCheck()


def test_every_answer_of_a_check_is_closed_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_llama(tmp_path / "llama", V)
    model = UserModel.load(tmp_path / "llama", with_weights=True)
    assert model.prompt_cache
    begun: list[UserTerms] = []
    closed: list[UserTerms] = []
    terms, close = UserModel.terms, UserTerms.close

    def noted(*given: object, **options: object) -> UserTerms:
        begun.append(terms(*given, **options))
        return begun[-1]

    def noting(one: UserTerms) -> None:
        closed.append(one)
        close(one)

    monkeypatch.setattr(UserModel, "terms", noted)
    monkeypatch.setattr(UserTerms, "close", noting)
    check_reading(model, read_passages(NOTES), limit_s=NO_LIMIT_S)
    assert closed == begun
    assert len(begun) == QUESTIONS
    assert model.prompt_cache.bytes == 0


def test_it_ends_within_an_answer_when_told_to(user_model: UserModel) -> None:
    seen: list[ReadingCheck] = []

    def goes_on(found: ReadingCheck) -> bool:
        seen.append(found)
        return len(seen) < 3

    assert check_reading(user_model, read_passages(NOTES), goes_on, NO_LIMIT_S).questions <= 1
    assert len(seen) <= 4


LONG = " ".join(f"Room {number} has a red window." for number in range(60))


@pytest.mark.parametrize("texts", [[], ["Hello."], ["word " * 400 + "is in the blue drawer."], [LONG]])
def test_where_no_question_fits_nothing_is_claimed(user_model: UserModel, texts: list[str]) -> None:
    found = check_reading(user_model, [Passage(text, Path("a.md")) for text in texts], limit_s=NO_LIMIT_S)
    assert (found.questions, found.can_read) == (0, None)
    assert found.sentence("tiny").startswith("tiny could not be checked on these documents")


@pytest.mark.parametrize(("questions", "right", "can_read"), [(1, 0, None), (2, 0, None), (3, 0, False), (2, 1, True)])
def test_two_wrong_answers_are_too_few_to_tell(questions: int, right: int, can_read: bool | None) -> None:
    found = ReadingCheck(questions, right)
    assert found.can_read is can_read
    assert ("too few to tell" in found.sentence("tiny")) is (can_read is None)


@pytest.mark.parametrize(("right", "can_read"), [(0, False), (1, False), (2, True), (6, True)])
def test_one_lucky_answer_is_not_reading(right: int, can_read: bool) -> None:
    found = ReadingCheck(6, right)
    assert found.can_read is can_read
    assert ("cannot read them" in found.sentence("tiny")) is not can_read
    assert f"tiny answered {right} of 6" in found.sentence("tiny")
