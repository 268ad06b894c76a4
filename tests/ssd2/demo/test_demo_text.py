"""The demo's generator: what the user model reads in training must not hold what the tests ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import chain, islice, pairwise

from conftest import DEMO_TOKENIZER

from ssd2.demo import world
from ssd2.demo.generator import core_items, unseen_items, user_conversations, user_items
from ssd2.demo.lexicon import all_words
from ssd2.demo.paths import NOTES
from ssd2.demo.train_tokenizer import train_tokenizer
from ssd2.demo.world import is_held_out, town, training_values
from ssd2.evaluation.two_source import EVALUATED_KINDS, holds, score
from ssd2.models.tokenizer import Tokenizer
from user_agent.documents.reader import read_passages


def test_the_same_seed_gives_the_same_items_and_another_seed_others() -> None:
    first, second, other = (list(islice(user_items(seed), 50)) for seed in (4, 4, 5))
    assert first == second != other
    assert unseen_items("two-source", 20) == unseen_items("two-source", 20) != unseen_items("two-source", 20, seed=1)


def _words_and_pairs(texts: Iterable[str]) -> set[str]:
    """Every word, and every two words that follow each other, in lower case: all that a value can be."""
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    return {word for text in words for word in text} | {f"{a} {b}" for text in words for a, b in pairwise(text)}


def test_no_value_in_test_notes_is_in_the_user_models_training_text() -> None:
    items, talks = islice(user_items(1_000_000), 20_000), islice(user_conversations(1_000_000), 10_000)
    trained = _words_and_pairs(text for item in items for text in (*item.notes, item.question, item.answer))
    trained |= _words_and_pairs(text for talk in talks for text in (*talk.notes, *chain(*talk.turns)))
    tested = {item.private_slot for kind in ("private", "two-source") for item in unseen_items(kind, 300)}
    tested |= {place.name for place in town()}
    assert len(tested) > 250
    assert {value for value in tested if value.lower() in trained} == set()
    seen = {item.private_slot for item in islice(user_items(1_000_000), 50)} - {""}
    assert all(value.lower() in trained for value in seen), "the search has to find values at all"


def test_training_values_are_too_many_to_learn_by_heart() -> None:
    assert all(len(training_values(sort)) > 40_000 for sort in ("place", "person", "spot"))


def test_a_conversation_asks_for_what_each_of_its_notes_says() -> None:
    talks = list(islice(user_conversations(4), 300))
    assert talks == list(islice(user_conversations(4), 300)) != list(islice(user_conversations(5), 300))
    assert {len(talk.notes) for talk in talks} == {2, 3, 4, 5, 6}
    for talk in talks:
        assert len({answer for _, answer in talk.turns}) == len(talk.notes)
        for _, answer in talk.turns:
            words = answer.removeprefix("Your ").removesuffix(".").replace(" is at ", " ").split()
            assert sum(words[-1] in note.rstrip(".").split() for note in talk.notes) >= 1
    same_sort = sum(all("code" in answer for _, answer in talk.turns) for talk in talks)
    assert 10 < same_sort < 60, "half of them are of one sort, two in eleven of those of codes"


def test_every_private_slot_of_the_test_split_is_held_out() -> None:
    for kind in ("private", "two-source"):
        assert all(is_held_out(item.private_slot) for item in unseen_items(kind, 300))


def test_the_core_never_reads_a_note() -> None:
    assert all(item.notes == () for item in islice(core_items(3), 2000))


def test_a_two_source_item_needs_both_sides() -> None:
    by_name = {place.name: place for place in town()}
    for item in unseen_items("two-source", 200):
        place = by_name[item.private_slot]
        assert item.public_slot in vars(place).values()
        assert any(item.private_slot in note for note in item.notes)
        assert item.private_slot not in item.question
        assert all(item.public_slot not in note for note in item.notes if item.private_slot in note)
        assert holds(item.answer, item.private_slot)
        assert holds(item.answer, item.public_slot)


def test_a_private_question_is_answered_by_exactly_one_of_its_notes() -> None:
    for item in unseen_items("private", 200):
        assert sum(item.private_slot in note for note in item.notes) == 1
        assert 2 <= len(item.notes) <= 6


def test_the_sample_notes_name_places_of_the_town_and_values_never_trained_on() -> None:
    text = "\n".join(passage.text for passage in read_passages(NOTES))
    assert sum(place.name in text for place in town()) == 5
    for value in ("blue drawer", "red trunk", "4522", "8794", "Lotte Rossi", "Samir Lang", "Edith Hale"):
        assert value in text
        assert is_held_out(value)


def test_every_word_of_the_town_is_one_token_so_that_names_fit_their_blocks() -> None:
    tokenizer = Tokenizer.from_file(DEMO_TOKENIZER)
    assert [word for word in all_words() if len(tokenizer.encode(word)) != 1] == []
    assert len(tokenizer.encode("It opens at 10:15.")) == 7


def test_the_tokenizer_recipe_makes_a_tokenizer_of_the_same_kind() -> None:
    backend = train_tokenizer()
    again = json.loads(backend.to_str())
    committed = json.loads(DEMO_TOKENIZER.read_text(encoding="utf-8"))
    for part in ("normalizer", "pre_tokenizer", "decoder", "added_tokens"):
        assert again[part] == committed[part]
    assert [word for word in all_words() if len(backend.encode(word, add_special_tokens=False).ids) != 1] == []


def test_scores_count_slots_as_whole_words_and_exact_answers_word_for_word() -> None:
    items = {kind: unseen_items(kind, 4) for kind in EVALUATED_KINDS}
    right = {kind: [item.answer for item in items[kind]] for kind in items}
    assert vars(score(items, right)) == {"joint": 1.0, "private": 1.0, "public": 1.0, "exact": 1.0}
    two = items["two-source"]
    hedged = {**right, "two-source": [two[0].answer, two[1].private_slot, two[2].public_slot, f"So: {two[3].answer}"]}
    assert (score(items, hedged).joint, score(items, hedged).exact) == (0.5, 0.25)
    assert not holds("It is 19:300.", "9:30")
    assert holds("at AMBER ARCH.", "Amber Arch")


def test_the_town_does_not_change() -> None:
    assert len(town()) == world.TOWN_PLACES
    assert len({place.name for place in town()}) == world.TOWN_PLACES
    fern = next(place for place in town() if place.name == "Fern Gallery")
    assert (fern.opens, fern.street, fern.phone) == ("11:00", "Park Street", "3324")
