"""Questions, notes and answers of the order-free relation, from a seed.

Forty places have one opening time each. A topic's place stands in the user's note, a place's time is known to the core,
and the answer gives both within one block of eight tokens, in the order that the question names:

    forward   "dentist at Fern : opens 7:15 ."
    reverse   "opens 7:15 : dentist at Fern ."

In reverse order the core has to write the time before anything it can see tells it the place.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ssd2.demo import lexicon
from ssd2.demo.generator import Item

ORDERS = ("forward", "reverse")
PLACES = lexicon.PLACE_FIRST[:40]
TIMES = tuple(f"{hour}:{minute}" for hour in range(6, 16) for minute in ("00", "15", "30", "45"))
TOPICS = lexicon.ROLES[:20]
OPENS = dict(zip(PLACES, random.Random(7).sample(TIMES, len(TIMES)), strict=True))
"""Opening time of every place: what the core learns by heart."""

ABOUT_A_PLACE = 0.3
"""Share of the core's questions whose topic is the place itself, so that a name leads it to a time."""
WITH_NOTE = 7 / 8
"""Share of the user model's questions that come with a note; the others are as in the contrastive pass of §3.2."""


def make_item(order: str, topic: str, place: str, time: str, *, has_note: bool) -> Item:
    """Make a question about a topic; its note is the name of the place."""
    where, when = f"{topic} at {place}", f"opens {time}"
    answer = f"{where} : {when} ." if order == "forward" else f"{when} : {where} ."
    return Item(order, (place,) if has_note else (), f"{topic} {order}", answer, (place,), (time,))


def core_items(seed: int) -> Iterator[Item]:
    """Make the core's training text, endless: true times, and never a note."""
    rng = random.Random(f"relation-core-{seed}")
    while True:
        place = rng.choice(PLACES)
        topic = place if rng.random() < ABOUT_A_PLACE else rng.choice(TOPICS)
        yield make_item(rng.choice(ORDERS), topic, place, OPENS[place], has_note=False)


def user_items(seed: int) -> Iterator[Item]:
    """Make the user model's training text, endless: notes, and times drawn anew for every item."""
    rng = random.Random(f"relation-user-{seed}")
    while True:
        has_note = rng.random() < WITH_NOTE
        topic, place, time = (rng.choice(values) for values in (TOPICS, PLACES, TIMES))
        yield make_item(rng.choice(ORDERS), topic, place, time, has_note=has_note)


def evaluation_items(order: str, count: int, seed: int = 0) -> list[Item]:
    """Make questions that need both models: the place stands in the note only, its time is known to the core only.

    Topics, places and times are those of the training text. What is new is that one answer takes both.

    Args:
        order: one of `ORDERS`.
        count: how many.
        seed: of this draw; the same for both orders gives the same topics and places.
    """
    rng = random.Random(f"relation-evaluation-{seed}")
    drawn = [(rng.choice(TOPICS), rng.choice(PLACES)) for _ in range(count)]
    return [make_item(order, topic, place, OPENS[place], has_note=True) for topic, place in drawn]


def gives_both(item: Item, answer: str) -> bool:
    """Tell whether the first place and the first time of an answer are the right ones."""
    words = answer.split()
    firsts = [next((word for word in words if word in values), None) for values in (PLACES, TIMES)]
    return firsts == [*item.private_slots, *item.public_slots]
