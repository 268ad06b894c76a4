"""The demo's generator: what the user model reads in training must not hold what the tests ask for."""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import chain, islice, pairwise

import pytest

from ssd2.demo import forms, lexicon, world
from ssd2.demo.generator import (
    KINDS,
    Conversation,
    Item,
    Unseen,
    core_items,
    unseen_items,
    user_conversations,
    user_items,
)
from ssd2.demo.lexicon import all_words
from ssd2.demo.paths import NOTES, TOKENIZER
from ssd2.demo.train_tokenizer import train_tokenizer
from ssd2.demo.world import is_held_out, town, training_values
from ssd2.evaluation.rows import IN_ONE_BLOCK, ROWS
from ssd2.evaluation.scorer import holds
from ssd2.models.tokenizer import Tokenizer
from user_agent.documents.reader import read_passages

BLOCK_SIZE = 16
"""L of the demo pair."""


@cache
def user_text() -> tuple[tuple[Item, ...], tuple[Conversation, ...]]:
    """20,000 training items of the user model, and 5,000 conversations of the model that it starts from."""
    return tuple(islice(user_items(1_000_000), 20_000)), tuple(islice(user_conversations(1_000_000), 5_000))


@cache
def core_text() -> tuple[Item, ...]:
    return tuple(islice(core_items(1_000_000), 20_000))


def training_notes() -> list[str]:
    items, talks = user_text()
    return [note for one in chain(items, talks) for note in one.notes]


def training_questions() -> list[str]:
    items, talks = user_text()
    asked = [item.question for item in chain(items, core_text())]
    return asked + [question for talk in talks for question, _ in talk.turns]


def test_the_same_seed_gives_the_same_items_and_another_seed_others() -> None:
    first, second, other = (list(islice(user_items(seed), 50)) for seed in (4, 4, 5))
    assert first == second != other
    assert unseen_items("reverse", 20) == unseen_items("reverse", 20) != unseen_items("reverse", 20, seed=1)


def _words_and_pairs(texts: Iterable[str]) -> set[str]:
    """Every word, and every two words that follow each other, in lower case: all that a value can be."""
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    return {word for text in words for word in text} | {f"{a} {b}" for text in words for a, b in pairwise(text)}


def test_no_value_in_test_notes_is_in_the_user_models_training_text() -> None:
    items, talks = user_text()
    trained = _words_and_pairs(text for item in items for text in (*item.notes, item.question, item.answer))
    trained |= _words_and_pairs(text for talk in talks for text in (*talk.notes, *chain(*talk.turns)))
    asked = [item for row in ROWS.values() for item in row.items(300, 0) if item.kind != "against_town"]
    tested = {slot for item in asked for slot in item.private_slots}
    tested |= {place.name for place in town()}
    assert len(tested) > 250
    assert {value for value in tested if value.lower() in trained} == set()
    seen = {slot for item in items[:50] for slot in item.private_slots if item.kind != "against_town"}
    assert all(value.lower() in trained for value in seen), "the search has to find values at all"


def pattern_of(form: str) -> re.Pattern[str]:
    """Match the texts that a form of a note or a question makes."""
    values = r"(?:\w+ \w+|\d{4}|\w+ \w+ \w+)"
    names = {"topic": r"(?:\w+ )?\w+", "day": "(?:" + "|".join(lexicon.WEEKDAYS) + ")", "person": r"\w+", "": ".+"}
    parts = string.Formatter().parse(form)
    return re.compile(
        "".join(re.escape(text) + ("" if name is None else names.get(name, values)) for text, name, _, _ in parts)
    )


def held_out(*every: tuple[str, ...]) -> list[str]:
    return [form for each in every for form in forms.drawn(each, new=True)]


NOTE_FORMS = (
    forms.PLACE_NOTES,
    forms.CODE_NOTES,
    forms.SPOT_NOTES,
    forms.PERSON_NOTES,
    forms.RESIDENT_NOTES,
    tuple(form for form in forms.CHANGE_NOTES if "{old}" not in form),  # as the row of new note forms has them
)
QUESTION_FORMS = (
    forms.PLACE_QUESTIONS,
    forms.CODE_QUESTIONS,
    forms.SPOT_QUESTIONS,
    forms.PERSON_QUESTIONS,
    *forms.FACT_QUESTIONS.values(),
)


def fitting(form: str, texts: Iterable[str], forms_of_its_kind: Iterable[str]) -> list[str]:
    """Return the texts that a form makes and no other form does."""
    others = [pattern_of(other) for other in forms_of_its_kind if other != form]
    found = [text for text in texts if pattern_of(form).fullmatch(text)]
    return [text for text in found if not any(other.fullmatch(text) for other in others)]


def test_no_note_form_held_out_is_in_20_000_items_of_training_text() -> None:
    notes = set(training_notes())
    trained = [form for each in NOTE_FORMS for form in forms.drawn(each, new=False)]
    for form in held_out(*NOTE_FORMS):
        assert fitting(form, notes, trained) == [], form
    assert all(any(map(pattern_of(form).fullmatch, notes)) for form in trained), "the search has to find forms at all"


def test_no_question_form_held_out_is_in_20_000_items_of_training_text() -> None:
    questions = {question[0].lower() + question[1:] for question in training_questions()}
    parts = {part for question in questions for part in (question, *question.split(", and ")[1:])}
    lower = [form[0].lower() + form[1:] for each in QUESTION_FORMS for form in forms.drawn(each, new=False)]
    for form in held_out(*QUESTION_FORMS):
        assert fitting(form[0].lower() + form[1:], parts, lower) == [], form
    assert all(any(map(pattern_of(form).fullmatch, parts)) for form in lower), "the search has to find forms at all"


def test_no_topic_held_out_is_in_20_000_items_of_training_text_but_its_words_are() -> None:
    items, talks = user_text()
    texts = [text for item in chain(items, core_text()) for text in (*item.notes, item.question, item.answer)]
    texts += [text for talk in talks for text in (*talk.notes, *chain(*talk.turns))]
    trained = _words_and_pairs(texts)
    new = forms.topics(new=True)
    assert len(new) > 100
    # Two words at random, where something is hidden, may happen to be one: what is asked about never is.
    asked = _words_and_pairs(re.sub(r"\b[Ii]n the \w+ \w+", "", text) for text in texts)
    assert set(new) & asked == set()
    assert {word for topic in new for word in topic.split()} <= trained
    assert len(set(forms.topics(new=False)) & trained) > 300


@pytest.mark.parametrize(
    ("row", "unseen"), [("new_topic", "topic"), ("new_note", "note"), ("new_question", "question")]
)
def test_items_with_one_thing_unseen_have_it_and_nothing_else(row: str, unseen: str) -> None:
    assert ROWS[row].unseen == Unseen(**{unseen: True})
    items = ROWS[row].items(200, 0)
    assert Counter(item.kind for item in items) == {"private": 100, "forward": 100}
    new = forms.topics(new=True)
    has_new_topic = [any(f" {topic}" in f" {item.question}" for topic in new) for item in items]
    assert all(has_new_topic) if unseen == "topic" else not any(has_new_topic)
    patterns = [pattern_of(form) for form in held_out(*NOTE_FORMS)]
    notes = [note for item in items for note in item.notes]
    has_new_form = [any(pattern.fullmatch(note) for pattern in patterns) for note in notes]
    assert all(has_new_form) if unseen == "note" else sum(has_new_form) < len(notes) / 2  # forms look alike


def test_four_in_five_items_have_both_slots_in_one_block() -> None:
    tokenizer = Tokenizer.from_file(TOKENIZER)
    for row in IN_ONE_BLOCK:
        items = ROWS[row].items(500, 0)
        in_one = sum(_is_in_one_block(tokenizer, item) for item in items)
        assert in_one >= 0.8 * len(items), (row, in_one)


def _is_in_one_block(tokenizer: Tokenizer, item: Item) -> bool:
    """True if all tokens of both slots stand in the same block of L positions."""
    ids = tokenizer.encode(item.answer)
    blocks = set[int]()
    for slot in (*item.private_slots, *item.public_slots):
        before, _, _ = item.answer.partition(slot)
        first, last = len(tokenizer.encode(before.rstrip())), len(tokenizer.encode(before + slot)) - 1
        assert slot in tokenizer.decode(ids[first : last + 1])
        blocks |= {first // BLOCK_SIZE, last // BLOCK_SIZE}
    return len(blocks) == 1


def test_in_reverse_order_the_fact_stands_before_the_place_and_in_forward_order_behind() -> None:
    for row, is_reverse in (("reverse", True), ("forward", False)):
        for item in ROWS[row].items(200, 0):
            (place,), (fact,) = item.private_slots, item.public_slots
            places = [item.answer.index(name) for name in (fact, place)]
            assert (places == sorted(places)) == is_reverse, item.answer


def test_whoever_guesses_a_fact_without_the_place_is_right_for_one_place_in_twenty() -> None:
    for fact in forms.FACT_SENTENCES:
        values = Counter(getattr(place, fact) for place in town())
        assert max(values.values()) <= 0.05 * len(town()), fact
    most = Counter((item.answer.split(",")[0]) for item in ROWS["reverse"].items(1000, 0)).most_common(1)
    assert most[0][1] <= 50


def test_training_values_are_too_many_to_learn_by_heart() -> None:
    assert all(len(training_values(sort)) > 40_000 for sort in ("place", "person", "spot"))


def test_a_conversation_asks_for_what_each_of_its_notes_says() -> None:
    talks = list(islice(user_conversations(4), 300))
    assert talks == list(islice(user_conversations(4), 300)) != list(islice(user_conversations(5), 300))
    assert {len(talk.notes) for talk in talks} <= {2, 3, 4, 5, 6, 7}
    for talk in talks:
        for _, answer in talk.turns:
            if answer != forms.NOT_KNOWN:
                words = answer.removeprefix("Your ").removesuffix(".").replace(" is at ", " ").split()
                assert sum(words[-1] in re.findall(r"\w+", note) for note in talk.notes) >= 1
    assert 10 < sum(any(answer == forms.NOT_KNOWN for _, answer in talk.turns) for talk in talks) < 200


def test_every_private_value_of_the_test_split_is_held_out() -> None:
    for kind in ("private", "forward", "reverse", "chained", "long", "later_note"):
        assert all(is_held_out(slot) for item in unseen_items(kind, 300) for slot in item.private_slots), kind


def test_the_core_never_reads_a_note() -> None:
    assert all(item.notes == () for item in islice(core_items(3), 2000))


@pytest.mark.parametrize("kind", ["forward", "reverse"])
def test_an_item_of_both_sources_needs_both_sides(kind: str) -> None:
    by_name = {place.name: place for place in town()}
    for item in unseen_items(kind, 200):
        (name,), (value,) = item.private_slots, item.public_slots
        assert value in vars(by_name[name]).values()
        assert sum(holds(note, name) for note in item.notes) == 1
        assert name not in item.question
        assert not any(holds(note, value) for note in item.notes if holds(note, name))
        assert holds(item.answer, name)
        assert holds(item.answer, value)


def test_a_chained_item_needs_the_notes_the_town_and_the_notes() -> None:
    by_name = {place.name: place for place in town()}
    for item in unseen_items("chained", 200):
        (name, person), (street,) = item.private_slots, item.public_slots
        assert by_name[name].street == street, "only the town knows which street it is"
        assert not any(holds(note, name) and holds(note, street) for note in item.notes)
        (about_person,) = [note for note in item.notes if holds(note, person)]
        assert holds(about_person, street)
        others = [note for note in item.notes if re.search(r"(?<!\w)\w+ Street(?!\w)", note) and note != about_person]
        assert others, "another note says who lives elsewhere, so that the street has to be known"
        assert not any(holds(item.question, slot) for slot in (name, person, street))
        assert all(holds(item.answer, slot) for slot in (name, person, street))


def test_a_long_item_has_two_private_and_three_public_slots_in_three_to_five_sentences() -> None:
    for item in unseen_items("long", 200):
        assert (len(item.private_slots), len(item.public_slots)) == (2, 3)
        assert all(holds(item.answer, slot) for slot in (*item.private_slots, *item.public_slots))
        assert 3 <= item.answer.count(". ") + 1 <= 5


def test_the_later_note_names_another_place_and_stands_behind_the_outdated_one() -> None:
    for item in unseen_items("later_note", 200):
        (value,) = item.private_slots
        assert value != item.outdated
        first = min(number for number, note in enumerate(item.notes) if item.outdated in note)
        last = max(number for number, note in enumerate(item.notes) if value in note)
        assert first < last
        assert not holds(item.answer, item.outdated)


def test_a_note_against_the_town_says_otherwise_than_the_town() -> None:
    by_name = {place.name: place for place in town()}
    for item in unseen_items("against_town", 200):
        (value,) = item.private_slots
        (name,) = [name for name in by_name if holds(item.question, name)]
        assert item.outdated in vars(by_name[name]).values()
        assert value != item.outdated
        assert any(holds(note, name) and holds(note, value) for note in item.notes)


def test_what_is_not_known_is_in_none_of_the_notes() -> None:
    topics = sorted({*forms.topics(new=False), *lexicon.CODED_THINGS, *lexicon.OBJECTS, *lexicon.ROLES}, key=len)
    for item in unseen_items("not_known", 200):
        asked = [topic for topic in topics if holds(item.question, topic)][-1]
        assert item.answer == forms.NOT_KNOWN
        without_spots = [re.sub(rf"\b({'|'.join(lexicon.COLOURS)}) \w+", "", note) for note in item.notes]
        assert not any(holds(note, asked) for note in without_spots), item


def test_a_private_question_is_answered_by_exactly_one_of_its_notes() -> None:
    for item in unseen_items("private", 200):
        assert sum(item.private_slots[0] in note for note in item.notes) == 1
        assert 2 <= len(item.notes) <= 6


def test_every_kind_says_what_kind_it_is() -> None:
    assert all(unseen_items(kind, 1)[0].kind == kind for kind in KINDS)
    assert {kind for row in ROWS.values() for kind in row.kinds} <= set(KINDS)


def test_the_sample_notes_name_places_of_the_town_and_values_never_trained_on() -> None:
    text = "\n".join(passage.text for passage in read_passages(NOTES))
    named = [place.name for place in town() if place.name in text]
    assert len(named) == 5
    assert sum(topic in text for topic in forms.topics(new=False)) == 5
    for value in ("blue drawer", "red trunk", "4522", "8794", "Lotte Rossi", "Samir Lang", "Edith Hale"):
        assert value in text
        assert is_held_out(value)


def test_every_word_of_the_town_is_one_token_so_that_names_fit_their_blocks() -> None:
    tokenizer = Tokenizer.from_file(TOKENIZER)
    assert [word for word in all_words() if len(tokenizer.encode(word)) != 1] == []
    assert len(tokenizer.encode("It opens at 10:15.")) == 7


def test_the_tokenizer_recipe_makes_a_tokenizer_of_the_same_kind() -> None:
    backend = train_tokenizer()
    again = json.loads(backend.to_str())
    committed = json.loads(TOKENIZER.read_text(encoding="utf-8"))
    for part in ("normalizer", "pre_tokenizer", "decoder", "added_tokens"):
        assert again[part] == committed[part]
    assert [word for word in all_words() if len(backend.encode(word, add_special_tokens=False).ids) != 1] == []


def test_the_town_does_not_change() -> None:
    assert len(town()) == world.TOWN_PLACES
    assert len({place.name for place in town()}) == world.TOWN_PLACES
    assert len({place.name.split()[0] for place in town()}) == world.TOWN_PLACES
    first = town()[0]
    assert (first.name, first.opens, first.street, first.phone) == ("Amber Fox", "6:15", "Mill Street", "8771")
