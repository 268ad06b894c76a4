"""Which words of whose documents an answer gives away."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from user_agent.answering.answer import AnswerToken, Leader
from user_agent.answering.crossed_words import crossed_words
from user_agent.documents.passage import Passage
from user_agent.store.answers import CrossedWords

DENTIST = Passage("My dentist appointment is at Hazel Hammer on Tuesday at 9:30.", Path("/n/appointments.md"), 3)
SHED = Passage("The shed code is 4711. Do not tell Hazel.", Path("/n/home.md"), 1)
ASKED = ["Where is my dentist appointment?"]
AT = CrossedWords("Hazel Hammer", "/n/appointments.md", "appointments.md:3")


def tokens(text: str, citation: int | Literal["private context"] | None = None) -> list[AnswerToken]:
    """Make tokens of words, `*word` led by the documents, `+word` by the core; a token has its space in front."""
    marks: dict[str, Leader] = {"*": "documents", "+": "core"}
    made = []
    for word in text.split(" "):
        leader = marks.get(word[0], "both")
        cited = citation if leader == "documents" else None
        made.append(AnswerToken(0, f" {word.lstrip('*+')}", None, leader == "documents", led_by=leader, citation=cited))
    return made


def found(text: str, private: str = "", citation: int | Literal["private context"] | None = None) -> list[CrossedWords]:
    return crossed_words(tokens(text, citation), [DENTIST, SHED], private, ASKED)


@pytest.mark.parametrize(
    "text",
    [
        "Your dentist appointment is at *Hazel *Hammer .",
        "Your dentist appointment is at *Hazel Hammer .",  # the core knows how a name goes on that has begun
        "Your dentist appointment is at Hazel *Hammer .",  # or how it began, in a block made in any order
        "Your *dentist *appointment is at Hazel Hammer .",  # what the question has is no news
    ],
)
def test_a_name_that_the_documents_led_is_named_whole_with_its_document(text: str) -> None:
    assert found(text) == [AT]


def test_all_words_that_follow_in_the_passage_count() -> None:
    assert [one.text for one in found("at *Hazel Hammer on *Tuesday at 9:30 .")] == ["Hazel Hammer on Tuesday at 9:30"]


@pytest.mark.parametrize(
    "text",
    [
        "Your dentist appointment is at Elm Street .",  # nothing led
        "Your *dentist *appointment +is here .",  # what the question has
        "It *is *at home .",  # words that tell nothing
        "It is at *Elm *Street .",  # what no passage has
    ],
)
def test_what_the_documents_did_not_tell_is_not_named(text: str) -> None:
    assert found(text) == []


def test_the_passage_with_the_longest_run_is_named() -> None:
    assert [one.place for one in found("at *Hazel *Hammer")] == ["appointments.md:3"]
    assert [(one.text, one.place) for one in found("code is *4711 , *Hazel *Hammer")] == [
        ("4711", "home.md:1"),
        ("Hazel Hammer", "appointments.md:3"),
    ]


def test_a_citation_names_the_passage_where_the_words_are_the_models_own() -> None:
    assert [(one.text, one.place) for one in found("in the *morning *hours .", citation=0)] == [
        ("morning hours", "appointments.md:3")
    ]


def test_words_of_the_private_context_are_named_as_such() -> None:
    assert found("It is *Rosebud .", private="The password is Rosebud.") == [
        CrossedWords("Rosebud", "", "private context")
    ]


def test_words_in_pieces_are_whole_words() -> None:
    pieces = [("both", " at"), ("documents", " Ha"), ("both", "zel"), ("documents", " Ham"), ("both", "mer.")]
    made = [AnswerToken(0, text, None, leader == "documents", led_by=leader) for leader, text in pieces]  # type: ignore[arg-type]
    assert crossed_words(made, [DENTIST], "", ASKED) == [AT]


def test_no_tokens_give_nothing_away() -> None:
    assert crossed_words([], [DENTIST], "", ASKED) == []
