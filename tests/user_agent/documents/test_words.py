from __future__ import annotations

import pytest

from user_agent.documents.words import content_words, language_of, parts, splits, stem


@pytest.mark.parametrize(
    ("one", "other"),
    [("Käsekuchen", "kaesekuchen"), ("Straße", "Strasse"), ("Kündigung", "gekündigt"), ("Mieterin", "Miete")],
)
def test_german_words_that_mean_the_same_have_one_stem(one: str, other: str) -> None:
    assert stem(one.lower(), "de") == stem(other.lower(), "de")


def test_codes_and_numbers_are_not_stemmed() -> None:
    assert [stem(word, "en") for word in ("e18", "kz7q4ms", "2026")] == ["e18", "kz7q4ms", "2026"]


def test_the_language_is_told_by_stop_words_and_umlauts() -> None:
    assert language_of("Where does the key hang?") == "en"
    assert language_of("Wo hängt der Schlüssel?") == "de"
    assert language_of("Größe") == "de"
    assert language_of("plumber") is None


def test_stop_words_are_left_out_unless_there_is_nothing_else() -> None:
    assert content_words("Where is my dentist appointment?", "en") == ["dentist", "appointment"]
    assert content_words("Wie hoch ist die Miete?", "de") == ["hoch", "miete"]
    assert content_words("to be or not to be", "en") == ["to", "be", "or", "not"]


def test_a_compound_has_its_words_among_its_parts() -> None:
    assert {"kundigung", "frist"} <= set(parts(["kundigungsfrist"]))
    assert ("strom", "zahl") in splits("stromzahl")
    assert ("kundigung", "frist") in splits("kundigungsfrist")  # without the letter between
    assert parts(["frist"]) == splits("frist") == []
