"""The rule that notices passages of documents in what would cross, on prompts that it was not chosen on."""

from __future__ import annotations

import time

import pytest

from tests.user_agent.answering.ordinary_prompts import ORDINARY
from tests.user_agent.answering.rag_prompts import CHOSEN_ON, REPORTED_ON, Stuffed
from user_agent.answering.stuffed_prompt import QUOTED_WORDS, is_stuffed, quotes

FEWEST_NOTICED, MOST_FALSE = 0.95, 0.02


def share(texts: list[str]) -> float:
    return sum(map(is_stuffed, texts)) / len(texts)


@pytest.mark.parametrize("prompts", [CHOSEN_ON, REPORTED_ON], ids=["chosen on", "reported on"])
def test_prompts_of_programs_are_noticed(prompts: tuple[Stuffed, ...]) -> None:
    assert share([prompt.text for prompt in prompts]) >= FEWEST_NOTICED
    assert len(CHOSEN_ON) + len(REPORTED_ON) >= 40


@pytest.mark.parametrize("half", [0, 1], ids=["chosen on", "reported on"])
def test_what_people_write_is_not_noticed(half: int) -> None:
    assert share(list(ORDINARY[half::2])) <= MOST_FALSE
    assert len(ORDINARY) >= 100


def test_a_chat_that_quotes_twelve_words_of_the_private_text_is_noticed() -> None:
    private = "The deposit of 1,850 crowns is returned within six weeks after the keys were handed over at the office."
    words = private.split()
    assert quotes(f"Is it true that {' '.join(words[2:])}", private)
    assert quotes(f"IS IT TRUE: {' '.join(words[:QUOTED_WORDS]).upper()}?", private)
    assert not quotes("Is the deposit of 1,850 crowns returned within six weeks?", private)
    assert not quotes("", private)
    assert not quotes(private, "")


@pytest.mark.parametrize(
    "text",
    ["Question " * 20_000, "use the " * 20_000, "if " * 50_000, ("Context: " + "a " * 20) * 3_000, "=" * 100_000],
    ids=lambda text: text[:8],
)
def test_no_text_takes_long(text: str) -> None:
    began = time.monotonic()
    is_stuffed(text[:20_000])
    assert time.monotonic() - began < 2
