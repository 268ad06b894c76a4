"""The order-free relation: who can know what, and where the two values of an answer stand."""

from __future__ import annotations

from itertools import islice

import pytest

from ssd2.demo.paths import RELATION
from ssd2.demo.relation.make_tokenizer import VOCAB_SIZE, make_tokenizer
from ssd2.demo.relation.text import (
    OPENS,
    ORDERS,
    PLACES,
    TIMES,
    TOPICS,
    core_items,
    evaluation_items,
    gives_both,
    user_items,
)
from ssd2.models.tokenizer import TOKENIZER, Tokenizer
from ssd2.training.recipe import read_recipe

RECIPES = sorted((RELATION / "recipes").glob("*.toml"))


def test_the_same_seed_gives_the_same_items_and_another_seed_others() -> None:
    first, second, other = (list(islice(user_items(seed), 50)) for seed in (4, 4, 5))
    assert first == second != other
    assert evaluation_items("reverse", 20) == evaluation_items("reverse", 20) != evaluation_items("reverse", 20, seed=1)
    both = [[(item.question.split()[0], item.private_slots) for item in evaluation_items(o, 20)] for o in ORDERS]
    assert both[0] == both[1], "orders are compared on the same places"


def test_every_place_has_a_time_of_its_own() -> None:
    assert len(PLACES) == len(set(PLACES)) == len(set(TIMES)) == 40
    assert set(OPENS) == set(PLACES)
    assert set(OPENS.values()) == set(TIMES)
    assert len(set(TOPICS)) == 20
    assert not set(TOPICS) & set(PLACES)


def test_the_core_never_reads_a_note_and_always_the_true_time() -> None:
    items = list(islice(core_items(1), 2000))
    assert {item.notes for item in items} == {()}
    assert all(item.public_slots == (OPENS[item.private_slots[0]],) for item in items)
    assert 0.25 < sum(item.question.split()[0] in PLACES for item in items) / len(items) < 0.35


def test_the_users_times_say_nothing_of_the_true_ones() -> None:
    items = list(islice(user_items(1), 4000))
    assert {item.notes for item in items if item.notes} == {(place,) for place in PLACES}
    assert all(item.notes in ((), item.private_slots) for item in items)
    assert 0.85 < sum(bool(item.notes) for item in items) / len(items) < 0.9
    true = sum(item.public_slots == (OPENS[item.private_slots[0]],) for item in items)
    assert 0.015 < true / len(items) < 0.035, "one in forty by chance"


@pytest.mark.parametrize("order", ORDERS)
def test_both_values_stand_in_one_block_in_the_order_that_is_asked_for(order: str) -> None:
    tokenizer = Tokenizer.from_file(RELATION / TOKENIZER)
    for item in evaluation_items(order, 200):
        ids = tokenizer.encode(item.answer)
        assert len(ids) + 1 == 8, "with the EOS, a block"
        assert tokenizer.decode(ids) == item.answer
        place, time = (item.answer.index(value) for value in (*item.private_slots, *item.public_slots))
        assert (place < time) == (order == "forward") == item.question.endswith("forward")
        assert item.notes == item.private_slots


def test_an_answer_is_right_if_its_first_place_and_its_first_time_are() -> None:
    (item,) = evaluation_items("reverse", 1)
    place, time = *item.private_slots, *item.public_slots
    other_place, other_time = PLACES[PLACES.index(place) - 1], TIMES[TIMES.index(time) - 1]
    assert gives_both(item, item.answer)
    assert gives_both(item, f"dentist at {place} : opens {time}")
    assert not gives_both(item, f"opens {other_time} : dentist at {place} {time}")
    assert not gives_both(item, f"opens {time} : dentist at {other_place} {place}")
    assert not gives_both(item, f"opens {time}")
    assert not gives_both(item, "")


def test_the_tokenizer_is_the_one_that_its_script_makes() -> None:
    stored = Tokenizer.from_file(RELATION / TOKENIZER)
    assert stored.shares_vocabulary(Tokenizer.from_json(make_tokenizer().to_str().encode(), "made"))
    assert stored.vocab_size == stored.text_vocab_size == VOCAB_SIZE == 512


def test_the_recipes_differ_only_in_what_is_compared() -> None:
    by_name = {file.stem: read_recipe(file) for file in RECIPES}
    partner, control = by_name["core_partner"].training, by_name["core_control"].training
    assert (partner.steps, partner.seed, partner.learning_rate) == (control.steps, control.seed, control.learning_rate)
    assert partner.partner_feedback > control.partner_feedback == 0
    assert 3 * by_name["core_expert"].training.steps == control.steps
    for side in ("core", "user"):
        shapes = [recipe.model for name, recipe in by_name.items() if name.startswith(side)]
        assert all(shape == shapes[0] for shape in shapes)
        sources = {recipe.training.source for name, recipe in by_name.items() if name.startswith(side)}
        assert sources == {f"relation-{side}"}
