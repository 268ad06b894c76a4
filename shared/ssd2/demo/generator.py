"""Questions, notes and answers of the invented town, from a seed.

An item is a question with its notes and its answer. Its kind says where the answer comes from:
`private` from the notes, `public` from the town, `two-source` from both (the notes name the place,
the town knows its hours), `instruction` from the town, over several blocks. A conversation asks
about all of its notes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ssd2.demo import lexicon
from ssd2.demo.world import Place, is_held_out, make_places, natural_values, town, training_values

KINDS = ("private", "public", "two-source", "instruction")


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        kind: one of `KINDS`.
        notes: the user's notes, in order, the wanted one among them.
        question: the instruction both models see.
        answer: the reference answer.
        private_slot: the value that only the notes hold, or "".
        public_slot: the value that only the town holds, or "".
    """

    kind: str
    notes: tuple[str, ...]
    question: str
    answer: str
    private_slot: str = ""
    public_slot: str = ""


@dataclass(frozen=True)
class Conversation:
    """Notes, and private questions about them one after the other.

    Attributes:
        notes: the user's notes, in order.
        turns: question and answer, each note's several times.
    """

    notes: tuple[str, ...]
    turns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Note:
    """A note with one question that it answers."""

    text: str
    question: str
    answer: str
    value: str
    topic: str


PUBLIC_FACTS = {
    "opens": (
        ("When does {} open?", "What time does {} open?", "From when is {} open?"),
        "It opens at {}.",
    ),
    "closes": (
        ("When does {} close?", "What time does {} close?", "Until when is {} open?"),
        "It closes at {}.",
    ),
    "street": (("Which street is {} in?", "In which street is {}?"), "It is in {}."),
    "price": (("How much does {} cost?", "What does {} charge?"), "It costs {} euros."),
    "phone": (("What is the phone number of {}?", "Which number do I call for {}?"), "Its number is {}."),
    "speciality": (("What is {} known for?", "What is the speciality of {}?"), "It is known for {}."),
}
"""Attribute of a place: phrasings of the question, and the sentence that answers it."""

_PLACE_NOTES = (
    "My {topic} is at {value}.",
    "The {topic} is at {value}.",
    "The {topic} takes place at {value}.",
    "I booked the {topic} at {value}.",
    "For the {topic} I go to {value}.",
    "My {topic} on {day} is at {value}.",
    "The {topic} has moved to {value}.",
    "Note: {topic} at {value}.",
)
_CODE_NOTES = (
    "My {topic} code is {value}.",
    "The {topic} code is {value}.",
    "The code for the {topic} is {value}.",
    "To open the {topic} enter {value}.",
)
_SPOT_NOTES = (
    "My {topic} is in the {value}.",
    "The {topic} is in the {value}.",
    "I put the {topic} in the {value}.",
    "The {topic} lies in the {value}.",
)
_PERSON_NOTES = (
    "My {topic} is {value}.",
    "The {topic} is called {value}.",
    "Our {topic} is {value}.",
    "As {topic} I chose {value}.",
)
_TURNS = 8
"""Questions in a conversation: as many as fit the user model's positions."""
_PRIVATE_SORTS = ("place", "code", "spot", "person")
_SORT_WEIGHTS = (5, 2, 2, 2)


def _note(sort: str, value: str, rng: random.Random) -> _Note:
    """A note of one sort about a random topic, with the question that it answers."""
    topics, phrasings = {
        "place": (lexicon.TOPICS, _PLACE_NOTES),
        "code": (lexicon.CODED_THINGS, _CODE_NOTES),
        "spot": (lexicon.OBJECTS, _SPOT_NOTES),
        "person": (lexicon.ROLES, _PERSON_NOTES),
    }[sort]
    topic, day = rng.choice(topics), rng.choice(lexicon.WEEKDAYS)
    questions, answer = {
        "place": ((f"Where is my {topic}?", f"At which place is my {topic}?"), f"Your {topic} is at {value}."),
        "code": ((f"What is my {topic} code?", f"Which code opens my {topic}?"), f"Your {topic} code is {value}."),
        "spot": ((f"Where did I put my {topic}?", f"Where do I find my {topic}?"), f"Your {topic} is in the {value}."),
        "person": ((f"Who is my {topic}?", f"What is my {topic} called?"), f"Your {topic} is {value}."),
    }[sort]
    text = rng.choice(phrasings).format(topic=topic, value=value, day=day)
    return _Note(text, rng.choice(questions), answer, value, topic)


def _notes(first: _Note, places: Sequence[Place], held_out: bool, rng: random.Random) -> list[_Note]:
    """The first note among distractors about other topics with other values, in random order."""
    notes, wanted = [first], rng.choice((2, 3, 3, 4, 4, 5, 6))
    while len(notes) < wanted:
        sort = rng.choices(_PRIVATE_SORTS, _SORT_WEIGHTS)[0]
        note = _note(sort, _value(sort, places, held_out, rng), rng)
        if _is_distinct(note, notes):
            notes.append(note)
    rng.shuffle(notes)
    return notes


def _is_distinct(note: _Note, notes: Sequence[_Note]) -> bool:
    """True if neither topic nor value of a note are those of another."""
    return all(note.topic != other.topic and note.value != other.value for other in notes)


def _value(sort: str, places: Sequence[Place], held_out: bool, rng: random.Random) -> str:
    return (
        rng.choice(places).name
        if sort == "place"
        else rng.choice(natural_values(sort) if held_out else training_values(sort))
    )


def private_item(places: Sequence[Place], held_out: bool, rng: random.Random) -> Item:
    """A question that one of the notes answers."""
    sort = rng.choices(_PRIVATE_SORTS, _SORT_WEIGHTS)[0]
    note = _note(sort, _value(sort, places, held_out, rng), rng)
    notes = _notes(note, places, held_out, rng)
    return Item("private", tuple(n.text for n in notes), note.question, note.answer, private_slot=note.value)


def public_item(places: Sequence[Place], held_out: bool, rng: random.Random) -> Item:
    """A question about a place that the town answers; the notes are of no use."""
    place, fact = rng.choice(places), rng.choice(tuple(PUBLIC_FACTS))
    questions, sentence = PUBLIC_FACTS[fact]
    value = getattr(place, fact)
    sort = rng.choices(_PRIVATE_SORTS, _SORT_WEIGHTS)[0]
    notes = _notes(_note(sort, _value(sort, places, held_out, rng), rng), places, held_out, rng)
    question = rng.choice(questions).format(place.name)
    return Item("public", tuple(n.text for n in notes), question, sentence.format(value), public_slot=value)


def two_source_item(places: Sequence[Place], held_out: bool, rng: random.Random) -> Item:
    """A question whose place only the notes know, and whose fact only the town."""
    place, fact = rng.choice(places), rng.choice(tuple(PUBLIC_FACTS))
    questions, sentence = PUBLIC_FACTS[fact]
    value = getattr(place, fact)
    note = _note("place", place.name, rng)
    notes = _notes(note, places, held_out, rng)
    question = rng.choice(questions).format(f"the place of my {note.topic}")
    answer = f"{note.answer} {sentence.format(value)}"
    return Item("two-source", tuple(n.text for n in notes), question, answer, place.name, value)


def instruction_item(places: Sequence[Place], held_out: bool, rng: random.Random) -> Item:
    """A short instruction about a place, answered over several blocks."""
    place = rng.choice(places)
    question, answer = rng.choice(
        (
            (
                rng.choice(("Tell me about {}.", "Describe {}.", "What is {}?")),
                "{0.name} is a {0.kind} in {0.street}. It is known for {0.speciality}. "
                "It opens at {0.opens}. It closes at {0.closes}.",
            ),
            (
                rng.choice(("Plan a visit to {}.", "How do I visit {}?")),
                "Go to {0.street} and look for the {0.kind} {0.name}. It opens at {0.opens}. "
                "Try the {0.speciality}. It costs {0.price} euros. Its number is {0.phone}.",
            ),
        )
    )
    return Item("instruction", (), question.format(place.name), answer.format(place))


_MAKERS = {
    "private": private_item,
    "public": public_item,
    "two-source": two_source_item,
    "instruction": instruction_item,
}


def core_items(seed: int) -> Iterator[Item]:
    """The core's training text: questions about the town, endless, without any note.

    It also reads private questions, without the notes, so that it knows how their answers go.
    """
    rng = random.Random(f"core-{seed}")
    while True:
        kind = rng.choices(KINDS, (1, 4, 3, 3))[0]
        item = _MAKERS[kind](town(), False, rng)
        yield Item(item.kind, (), item.question, item.answer, item.private_slot, item.public_slot)


def user_items(seed: int) -> Iterator[Item]:
    """The user model's training text: notes and questions about ever new towns, endless.

    One item in eight comes without its notes, as the contrastive pass of §3.2 sees it.
    """
    rng = random.Random(f"user-{seed}")
    names = training_values("place")
    while True:
        # A phone number is made like a code, and a held-out code must not occur in any text.
        places = [place for place in make_places(rng.sample(names, 8), rng) if not is_held_out(place.phone)]
        kind = rng.choices(KINDS, (6, 1, 5, 1))[0]
        item = _MAKERS[kind](places, False, rng)
        notes = item.notes if rng.random() < 7 / 8 else ()
        yield Item(item.kind, notes, item.question, item.answer, item.private_slot, item.public_slot)


def user_conversations(seed: int) -> Iterator[Conversation]:
    """The text that the user model learns to read from: every note asked about, again and again, endless.

    In half of them all notes are of one sort, so that only the topic tells them apart.
    """
    rng = random.Random(f"conversations-{seed}")
    while True:
        sorts = rng.choices(_PRIVATE_SORTS, _SORT_WEIGHTS) if rng.random() < 1 / 2 else _PRIVATE_SORTS
        weights = [_SORT_WEIGHTS[_PRIVATE_SORTS.index(sort)] for sort in sorts]
        notes, wanted = list[_Note](), rng.randint(2, 6)
        while len(notes) < wanted:
            sort = rng.choices(sorts, weights)[0]
            note = _note(sort, rng.choice(training_values(sort)), rng)
            if _is_distinct(note, notes):
                notes.append(note)
        texts, asked = tuple(note.text for note in notes), list[_Note]()
        while len(asked) < _TURNS:
            asked += rng.sample(notes, len(notes))
        yield Conversation(texts, tuple((note.question, note.answer) for note in asked[:_TURNS]))


def unseen_items(kind: str, count: int, seed: int = 0) -> list[Item]:
    """Unseen items about the town, with notes whose values the user model never read in training.

    Args:
        kind: "private", "public" or "two-source".
        count: how many.
        seed: of this draw.
    """
    rng = random.Random(f"test-{kind}-{seed}")
    return [_MAKERS[kind](town(), True, rng) for _ in range(count)]
