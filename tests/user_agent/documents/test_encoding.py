"""Text in the encodings that people's files have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from user_agent.documents.formats.encoding import decode
from user_agent.errors import DocumentsUnreadable

TEXTS = {
    "german": ("Die Straße ist 3 € wert – „sehr schön“, über 40 °C.", "cp1252"),
    "french": ("L’été, à Noël, ça coûte 20 € : œuvre « très » gênée.", "cp1252"),
    "spanish": ("¿Dónde está el niño? ¡Mañana!", "cp1252"),
    "portuguese": ("A reunião é amanhã às três; não há café.", "latin-1"),
    "swedish": ("Nyckeln ligger på köksbänken, säger Åsa.", "cp1252"),
    "russian": ("Ключ от сарая лежит в синем ящике на кухне. Код сигнализации 4711.", "cp1251"),
    "greek": ("Το κλειδί της αποθήκης είναι στο μπλε συρτάρι της κουζίνας.", "cp1253"),
    "polish": ("Żółty klucz leży w dużej szufladzie, obok łyżek. Następna wizyta będzie we wrześniu.", "cp1250"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_in_an_old_encoding_is_recognised(name: str) -> None:
    text, encoding = TEXTS[name]
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["cp1250", "iso8859-2"])
@pytest.mark.parametrize("text", ["Klíč od kůlny", "Příští schůzka je v září.", "Łódź, żółw", "kość i gość"])
def test_text_is_refused_rather_than_read_with_other_letters(text: str, encoding: str) -> None:
    try:
        assert decode(text.encode(encoding)) == text
    except DocumentsUnreadable as error:
        assert "save it as UTF-8" in str(error)  # noqa: PT017  either is right, other letters are not


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8", "utf-8-sig"])
@pytest.mark.parametrize("text", ["Die Straße ist 東京, 5 < 6.", "one\r\ntwo\r\n", "Ключ 4711"])
def test_unicode_is_read_with_and_without_its_mark(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_in_utf8_is_read_as_it_is(text: str) -> None:
    if "\0" not in text and not text.startswith("\ufeff"):
        assert decode(text.encode()) == text


def test_a_declared_encoding_that_is_wrong_is_not_believed() -> None:
    assert decode("Straße".encode("cp1252"), "utf-8") == "Straße"
    assert decode("Straße".encode(), "no-such-encoding") == "Straße"
