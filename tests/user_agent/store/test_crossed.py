"""Answers composed on the device are never sent later, however a client changes them."""

from __future__ import annotations

import threading
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest

from user_agent.store.crossed import Crossed
from user_agent.store.database import memory_database, open_database

PRIVATE = "The code\nof the Gärtner is 4711, half past two."


@pytest.fixture
def crossed() -> Crossed:
    store = Crossed(memory_database(), list)
    store.note(PRIVATE, "")
    return store


@pytest.mark.parametrize(
    "sent_back",
    [
        PRIVATE,
        "The code",
        pytest.param("T", id="cut in its first word"),
        pytest.param(PRIVATE[:28], id="cut in a word"),
        pytest.param(PRIVATE[:-1], id="without its full stop"),
        pytest.param("The code of…", id="cut and marked so"),
        pytest.param(f"{PRIVATE[:-1]}!", id="ends otherwise"),
        pytest.param(f"{PRIVATE} And more.", id="goes on"),
        pytest.param(f"{PRIVATE}<br>", id="goes on at once"),
        pytest.param(f"\n{PRIVATE.replace(' ', chr(10) * 2)}\t", id="spaced otherwise"),
        pytest.param(PRIVATE.replace(" ", ""), id="not spaced"),
        pytest.param(PRIVATE.replace(" ", "\N{NO-BREAK SPACE}"), id="no-break spaces"),
        pytest.param(f"\N{ZERO WIDTH NO-BREAK SPACE}{PRIVATE.replace('4', '4' + chr(0x200B))}", id="invisible"),
        pytest.param(unicodedata.normalize("NFD", PRIVATE), id="characters taken apart"),
    ],
)
def test_an_answer_of_the_device_is_known_in_every_form_clients_give_it(crossed: Crossed, sent_back: str) -> None:
    assert crossed.part_of(sent_back) == ""


@pytest.mark.parametrize("text", ["The cod is fresh.", "A code of the Gärtner is 4711, half past two.", "", " \n"])
def test_another_text_is_sent_as_it_is(crossed: Crossed, text: str) -> None:
    assert crossed.part_of(text) == text


def test_a_short_answer_withholds_no_longer_word(crossed: Crossed) -> None:
    crossed.note("No", "")
    assert crossed.part_of("Nothing is planned.") == "Nothing is planned."
    assert crossed.part_of("No, nothing.") == crossed.part_of("No") == ""


def test_a_growing_answer_is_withheld_from_its_first_word_on() -> None:
    crossed = Crossed(memory_database(), list)
    notes = crossed.notes()
    for text, sent in (
        ("It", ""),
        ("It is gr\ufffd", "It"),
        ("It is grün", "It is gr\ufffd"),
        ("It is grün.", "It is grün"),
    ):
        notes.add(text, sent)
        assert crossed.part_of(text) == sent.rpartition(" gr\ufffd")[0] or sent
    notes.end("It is grün.", "It is grün")
    assert crossed.part_of("It is grün") == "It is grün"
    assert crossed.part_of("It is grün. Yes.") == "It is"


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    file = tmp_path / "crossed.sqlite"
    with closing(open_database(file, None)) as database:
        Crossed(database, list).note(PRIVATE, "")
    with closing(open_database(file, None)) as database:
        assert Crossed(database, list).part_of(PRIVATE) == ""


def test_no_answer_can_be_read_in_the_store(tmp_path: Path) -> None:
    file = tmp_path / "crossed.sqlite"
    with closing(open_database(file, None)) as database:
        Crossed(database, list).note("The code is 4711.", "")
    kept = b"".join(one.read_bytes() for one in tmp_path.iterdir())
    assert b"code" not in kept
    assert b"4711" not in kept


def test_answers_of_a_history_without_notes_never_cross() -> None:
    crossed = Crossed(memory_database(), lambda: ["The code is 4711."])
    assert crossed.part_of("The code is 4711.") == ""
    crossed.note("The code is 4711.", "The code is 4711.")
    assert crossed.part_of("The code is 4711.") == "The code is 4711."


def test_a_part_that_crossed_keeps_its_words_whole() -> None:
    crossed = Crossed(memory_database(), list)
    crossed.note("The code\nis 4711 now.", "The code\nis 47")
    assert crossed.part_of("The code\nis 4711 now.") == "The code\nis"
    assert crossed.part_of("The code\nis") == "The code\nis"


def test_notes_are_safe_from_several_threads(crossed: Crossed) -> None:
    texts = [f"Answer {number} of many." for number in range(20)]
    threads = [threading.Thread(target=crossed.note, args=(text, "")) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [crossed.part_of(text) for text in texts] == [""] * 20
