"""Layouts of an answer: what both prompts hold before it, and what of it is the answer itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ssd2.evaluation.documents.questions import Question, read_questions
from ssd2.evaluation.documents.scorer import is_right
from ssd2.models.chat import ChatTemplate, Message
from ssd2.models.layouts import ANSWER, NOTE, conclusion, laid_out
from ssd2.models.tokenizer import Tokenizer
from tests.ssd2.models.test_chat import CHATML, CONVERSATIONS, WITH_SYSTEM, made, shown

PASSAGE = "We fly to the capital of Portugal."


def prompt(tokenizer: Tokenizer, messages: list[Message], passages: tuple[str, ...] = ()) -> list[int]:
    return tokenizer.encode_conversation(messages, passages, bos_token_id=1, layout="fact-first")


@pytest.mark.parametrize("said", [*CONVERSATIONS, *WITH_SYSTEM])
def test_the_plain_layout_changes_no_message(said: list[Message]) -> None:
    assert laid_out(said, "plain") == said


def test_examples_stand_before_the_first_turn_and_the_answer_is_begun() -> None:
    tokenizer = made(CHATML)
    text = shown(tokenizer, prompt(tokenizer, WITH_SYSTEM[0]))
    examples = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in laid_out([], "fact-first"))
    question = "<|im_start|>user\nWhen is my dentist appointment?<|im_end|>\n"
    begun = f"<|im_start|>assistant\n{NOTE}"
    assert text == f"<|im_start|>system\nBe brief.<|im_end|>\n{examples}{question}{begun}"


def test_both_sides_have_the_same_layout_and_only_one_has_the_notes() -> None:
    tokenizer = made(CHATML)
    core, user = (shown(tokenizer, prompt(tokenizer, WITH_SYSTEM[0], passages)) for passages in ((), (PASSAGE,)))
    assert PASSAGE not in core
    assert user.replace(f"\n\nNotes of the user:\n\n{PASSAGE}", "") == core


def test_earlier_answers_in_the_layout_look_like_its_examples() -> None:
    answers = [f" It is the capital of Portugal. {ANSWER} Lisbon.", "It is red."]
    turns = [message for answer in answers for message in (Message("user", "Hi"), Message("assistant", answer))]
    found = [message.content for message in laid_out(turns, "fact-first") if message.role == "assistant"][-2:]
    assert found == [f"{NOTE} It is the capital of Portugal. {ANSWER} Lisbon.", "It is red."]


def test_a_laid_out_turn_has_the_ids_that_its_answer_was_written_with() -> None:
    """So the prompt cache does not read it again."""
    tokenizer = made(CHATML)
    answer = f" It is in Portugal. {ANSWER} Lisbon."
    before = prompt(tokenizer, [Message("user", "Where?")]) + tokenizer.encode(answer)
    after = [Message("user", "Where?"), Message("assistant", answer), Message("user", "Why?")]
    assert shown(tokenizer, prompt(tokenizer, after)).startswith(shown(tokenizer, before))


def test_a_model_without_a_chat_template_has_the_plain_layout_only() -> None:
    tokenizer = made(CHATML)
    bare = Tokenizer.from_json(tokenizer._backend.to_str().encode(), "bare")
    assert prompt(bare, CONVERSATIONS[0]) == bare.encode_conversation(CONVERSATIONS[0], bos_token_id=1)


def test_a_begun_answer_stays_behind_a_template_that_ends_otherwise() -> None:
    template = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    tokenizer = made(template)
    with_template = Tokenizer.from_json(tokenizer._backend.to_str().encode(), "made", ChatTemplate(template, {}))
    assert shown(with_template, prompt(with_template, CONVERSATIONS[0])).endswith(
        f"[{CONVERSATIONS[0][0].content}]{NOTE}"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f" It is in Portugal. {ANSWER} Lisbon.", "Lisbon."),
        (f" {ANSWER} Porto. {ANSWER} Lisbon.", "Lisbon."),
        (" It is in Portugal.", "It is in Portugal."),
    ],
)
def test_the_conclusion_stands_behind_the_last_mark(text: str, found: str) -> None:
    assert conclusion(text, "fact-first") == found
    assert conclusion(text, "plain") == text


def _asked_for() -> list[Question]:
    """Questions that some text answers: one that must say that nothing is known is answered by no example."""
    return [replace(question, forbidden=()) for question in read_questions() if question.kind != "absent"]


def test_no_example_says_an_answer_of_the_benchmark() -> None:
    said = [message.content for message in laid_out([], "fact-first")]
    assert said
    assert [(q.id, text) for q in _asked_for() for text in said if is_right(q, text)] == []
