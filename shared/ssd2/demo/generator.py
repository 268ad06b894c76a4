"""Questions, notes and answers of the invented town, from a seed.

An item is a question with its notes and its answer. Its kind says where the answer comes from, and in which order:

    private       from the notes
    public        from the town; the notes are of no use
    forward       from both in one block: the place, which the notes name, then its fact, which the town knows
    reverse       from both in one block: the fact, then the place
    chained       from both in one block: the notes name a place, the town its street, the notes who lives there
    long          from both over several blocks: two places of the notes, three facts of the town
    instruction   from the town over several blocks
    later_note    from the later of two notes that disagree
    against_town  from a note that contradicts the town
    not_known     the notes do not have it, and the answer says so
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ssd2.demo import forms, lexicon
from ssd2.demo.world import Place, make_places, natural_values, town, training_values

KINDS = (
    "private",
    "public",
    "forward",
    "reverse",
    "chained",
    "long",
    "instruction",
    "later_note",
    "against_town",
    "not_known",
)
_CORE_WEIGHTS = (2, 6, 6, 7, 3, 3, 4, 0, 0, 3)
_USER_WEIGHTS = (8, 2, 6, 6, 5, 4, 1, 5, 2, 4)


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        kind: one of `KINDS`.
        notes: the user's notes, in order, the wanted ones among them.
        question: the instruction both models see.
        answer: the reference answer.
        private_slots: values in the answer that only the notes hold.
        public_slots: values in the answer that only the town holds.
        outdated: a value that must not be in the answer, of a note that no longer holds; or "".
    """

    kind: str
    notes: tuple[str, ...]
    question: str
    answer: str
    private_slots: tuple[str, ...] = ()
    public_slots: tuple[str, ...] = ()
    outdated: str = ""


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
class Unseen:
    """What an item has that no training text had; its private values never are in training text."""

    topic: bool = False
    note: bool = False
    question: bool = False


@dataclass(frozen=True)
class _Note:
    """A note with one question that it answers, if it is of a sort that is asked for."""

    text: str
    topic: str
    value: str
    question: str = ""
    answer: str = ""


_NOTES = {
    "place": (forms.PLACE_NOTES, forms.PLACE_QUESTIONS, "Your {topic} is at {value}."),
    "code": (forms.CODE_NOTES, forms.CODE_QUESTIONS, "Your {topic} code is {value}."),
    "spot": (forms.SPOT_NOTES, forms.SPOT_QUESTIONS, "Your {topic} is in the {value}."),
    "person": (forms.PERSON_NOTES, forms.PERSON_QUESTIONS, "Your {topic} is {value}."),
}
"""Sort of a note: its forms, those of questions about it, and the answer to these."""

_SORTS = tuple(_NOTES)
_SORT_WEIGHTS = (5, 2, 2, 2)
_TOPICS = {"code": lexicon.CODED_THINGS, "spot": lexicon.OBJECTS, "person": lexicon.ROLES}
_TURNS = 8
"""Questions in a conversation: as many as fit the user model's positions."""


class _Writer:
    """Writes items about some places, with values that are those of the test split or not."""

    def __init__(
        self, rng: random.Random, places: Sequence[Place], *, has_test_values: bool, unseen: Unseen | None = None
    ) -> None:
        self._rng, self._places, self._has_test_values = rng, places, has_test_values
        self._unseen = unseen or Unseen()

    def item(self, kind: str) -> Item:
        """Write an item."""
        item: Item = getattr(self, f"_{kind}")()
        return replace(item, kind=kind)

    # Notes

    def note(self, sort: str, value: str | None = None) -> _Note:
        """Write a note of one sort about a random topic, with the question that it answers."""
        texts, questions, answer = _NOTES[sort]
        if sort == "place" and self._rng.random() < 1 / 8:  # one may have changed before anything was noted
            texts = tuple(text for text in forms.CHANGE_NOTES if "{old}" not in text)
        topics = forms.topics(new=self._unseen.topic) if sort == "place" else _TOPICS[sort]
        names = {"topic": self._rng.choice(topics), "value": value or self._value(sort)}
        text = self._filled(self._note_form(texts), **names)
        return _Note(
            text, **names, question=self._question_form(questions).format(**names), answer=answer.format(**names)
        )

    def any_note(self, sorts: Sequence[str] = _SORTS) -> _Note:
        """Write a note of any of some sorts."""
        return self.note(self._rng.choices(sorts, [_SORT_WEIGHTS[_SORTS.index(sort)] for sort in sorts])[0])

    def change(self, old: _Note) -> _Note:
        """Write a later note about the topic of a place, with another place."""
        value = self._value("place")
        while value == old.value:
            value = self._value("place")
        forms_of_it = forms.CHANGE_NOTES if self._rng.random() < 3 / 4 else forms.PLACE_NOTES
        text = self._filled(self._note_form(forms_of_it), topic=old.topic, value=value, old=old.value)
        return replace(old, text=text, value=value, answer=old.answer.replace(old.value, value))

    def _note_form(self, texts: tuple[str, ...]) -> str:
        return self._rng.choice(forms.drawn(texts, new=self._unseen.note))

    def _question_form(self, questions: tuple[str, ...]) -> str:
        return self._rng.choice(forms.drawn(questions, new=self._unseen.question))

    def _filled(self, form: str, **names: str) -> str:
        day, person = self._rng.choice(lexicon.WEEKDAYS), self._rng.choice(lexicon.FIRST_NAMES)
        return form.format(**names, day=day, person=person)

    def _value(self, sort: str) -> str:
        if sort == "place":
            return self._rng.choice(self._places).name
        return self._rng.choice(natural_values(sort) if self._has_test_values else training_values(sort))

    def among_others(
        self, *wanted: _Note, most: int = 6, sorts: Sequence[str] = _SORTS, without: str = ""
    ) -> list[_Note]:
        """Put notes among others of different topics and values, in random order.

        Args:
            *wanted: at most three.
            most: notes in all.
            sorts: of the others.
            without: a topic that no other note may have.
        """
        notes, count = list(wanted), max(len(wanted), self._rng.randint(2, most))
        while len(notes) < count:
            other = self.any_note(sorts)
            if other.topic != without and all(_is_apart(other, note) for note in notes):
                notes.append(other)
        self._rng.shuffle(notes)
        return notes

    def with_change(self, notes: Sequence[_Note], old: _Note) -> tuple[list[_Note], _Note]:
        """Put a change of a note somewhere behind it; the second is the change."""
        new = self.change(old)
        place = self._rng.randint(notes.index(old) + 1, len(notes))
        return [*notes[:place], new, *notes[place:]], new

    def conversation(self) -> Conversation:
        """Write notes, and questions about all of them."""
        sorts = self._rng.sample(_SORTS, 1) if self._rng.random() < 1 / 2 else _SORTS
        notes = asked_about = self.among_others(self.any_note(sorts), sorts=sorts)
        places = [note for note in notes if note.answer.startswith(f"Your {note.topic} is at ")]
        if places and self._rng.random() < 1 / 3:
            old = self._rng.choice(places)
            notes, new = self.with_change(notes, old)
            asked_about = [new if note is old else note for note in asked_about]
        turns = list[tuple[str, str]]()
        while len(turns) < _TURNS:
            turns += [(n.question, n.answer) for n in self._rng.sample(asked_about, len(asked_about))]
        absent = self.any_note()
        if self._rng.random() < 1 / 2 and all(absent.topic != note.topic for note in notes):
            turns[self._rng.randrange(_TURNS)] = (absent.question, forms.NOT_KNOWN)
        return Conversation(_texts(notes), tuple(turns[:_TURNS]))

    # Items

    def _private(self) -> Item:
        note = self.any_note(("place",) if self._unseen.topic else _SORTS)  # only places have topics held out
        return Item("", _texts(self.among_others(note)), note.question, note.answer, (note.value,))

    def _public(self) -> Item:
        place, fact = self._rng.choice(self._places), self._fact()
        others = self.among_others()
        question = self._fact_question(fact, place.name)
        return Item("", _texts(others), question, _fact_answer(fact, place), public_slots=(getattr(place, fact),))

    def _forward(self) -> Item:
        place, fact, note = self._place_fact_note()
        question = self._rng.choice(forms.PLACE_FIRST).format(topic=note.topic) + _lower(
            self._fact_question(fact, "it")
        )
        value = getattr(place, fact)
        answer = f"{note.answer[:-1]}, which {forms.FACT_SENTENCES[fact].format(value)}."
        return Item("", _texts(self.among_others(note)), question, answer, (place.name,), (value,))

    def _reverse(self) -> Item:
        place, fact, note = self._place_fact_note()
        question = self._fact_question(fact, f"the place of my {note.topic}")
        value = getattr(place, fact)
        answer = f"{forms.FACT_VALUES[fact].format(value)}, as {_lower(note.answer)}"
        return Item("", _texts(self.among_others(note)), question, answer, (place.name,), (value,))

    def _chained(self) -> Item:
        place = self._rng.choice(self._places)
        note = self.note("place", place.name)
        residents = [self._resident(place.street)]
        while len(residents) < self._rng.randint(2, 3):
            other = self._resident(self._rng.choice(self._places).street)
            if all(other.topic != one.topic and other.value != one.value for one in residents):
                residents.append(other)
        notes = _texts(self.among_others(note, *residents))
        person, is_first = residents[0].value, self._rng.random() < 1 / 2
        question = self._rng.choice(forms.RESIDENT_FIRST if is_first else forms.RESIDENT_LAST).format(topic=note.topic)
        answer = (
            f"{person}, who lives in {place.street}, where {place.name} is."
            if is_first
            else f"{place.name} is in {place.street}, where {person} lives."
        )
        return Item("", notes, question, answer, (place.name, person), (place.street,))

    def _long(self) -> Item:
        first, second = self._rng.sample(self._places, 2)
        notes = [self.note("place", first.name), self.note("place", second.name)]
        while notes[0].topic == notes[1].topic:
            notes[1] = self.note("place", second.name)
        facts = self._rng.sample(tuple(forms.FACT_SENTENCES), 3)
        sentences = [
            notes[0].answer,
            *(_fact_answer(fact, first) for fact in facts[:2]),
            notes[1].answer,
            _fact_answer(facts[2], second),
        ]
        if self._rng.random() < 1 / 2:  # four sentences for five
            sentences[1:3] = [
                f"{sentences[1][:-1]} and {forms.FACT_SENTENCES[facts[1]].format(getattr(first, facts[1]))}."
            ]
        asked = [forms.FACT_NAMES[fact] for fact in facts]
        question = (
            f"Tell me about my {notes[0].topic}, with {asked[0]} and {asked[1]} of its place, "
            f"and about my {notes[1].topic}, with {asked[2]} of its place."
        )
        public = (*(getattr(first, fact) for fact in facts[:2]), getattr(second, facts[2]))
        return Item(
            "", _texts(self.among_others(*notes)), question, " ".join(sentences), (first.name, second.name), public
        )

    def _instruction(self) -> Item:
        place = self._rng.choice(self._places)
        question = self._rng.choice(("Tell me about {}.", "Describe {}.", "What is {}?")).format(place.name)
        answer = f"{place.name} is a {place.kind} in {place.street}. {_fact_answer('speciality', place)} " + (
            f"{_fact_answer('opens', place)} {_fact_answer('closes', place)}"
        )
        return Item("", (), question, answer, public_slots=(place.street, place.speciality, place.opens, place.closes))

    def _later_note(self) -> Item:
        old = self.note("place")
        notes, new = self.with_change(self.among_others(old, most=5), old)
        return Item("", _texts(notes), new.question, new.answer, (new.value,), outdated=old.value)

    def _against_town(self) -> Item:
        place, fact = self._rng.choice(self._places), self._fact()
        other = self._rng.choice([other for other in self._places if getattr(other, fact) != getattr(place, fact)])
        value = getattr(other, fact)
        text = self._rng.choice(forms.NEWS_NOTES[fact]).format(place=place.name, value=value)
        notes = _texts(self.among_others(_Note(text, place.name, value)))
        question, answer = self._fact_question(fact, place.name), _fact_answer(fact, replace(place, **{fact: value}))
        return Item("", notes, question, answer, (value,), outdated=getattr(place, fact))

    def _not_known(self) -> Item:
        sort = self._rng.choices(_SORTS, _SORT_WEIGHTS)[0]
        note, question = self.note(sort), ""
        if sort == "place":
            about_place = self._fact_question(self._fact(), f"the place of my {note.topic}")
            place_first = self._rng.choice(forms.PLACE_FIRST).format(topic=note.topic)
            about_both = place_first + _lower(self._fact_question(self._fact(), "it"))
            question = self._rng.choice((about_place, about_both, ""))
        others = self.among_others(without=note.topic)
        return Item("", _texts(others), question or note.question, forms.NOT_KNOWN)

    # Parts of items

    def _place_fact_note(self) -> tuple[Place, str, _Note]:
        place = self._rng.choice(self._places)
        return place, self._fact(), self.note("place", place.name)

    def _fact(self) -> str:
        return self._rng.choice(tuple(forms.FACT_SENTENCES))

    def _fact_question(self, fact: str, name: str) -> str:
        return self._question_form(forms.FACT_QUESTIONS[fact]).format(name)

    def _resident(self, street: str) -> _Note:
        value = self._value("person")
        return _Note(self._filled(self._note_form(forms.RESIDENT_NOTES), topic=street, value=value), street, value)


def _is_apart(other: _Note, note: _Note) -> bool:
    """True if a note is about another topic than a wanted one and names neither its value nor its topic."""
    return other.topic != note.topic and other.value not in (note.value, note.topic)


def _texts(notes: Sequence[_Note]) -> tuple[str, ...]:
    return tuple(note.text for note in notes)


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _fact_answer(fact: str, place: Place) -> str:
    return f"It {forms.FACT_SENTENCES[fact].format(getattr(place, fact))}."


def core_items(seed: int) -> Iterator[Item]:
    """The core's training text: questions about the town, endless, without any note.

    It also reads private questions, without the notes, so that it knows how their answers go.
    """
    rng = random.Random(f"core-{seed}")
    while True:
        kind = rng.choices(KINDS, _CORE_WEIGHTS)[0]
        yield replace(_Writer(rng, town(), has_test_values=False).item(kind), notes=())


def user_items(seed: int) -> Iterator[Item]:
    """The user model's training text: notes and questions about ever new towns, endless.

    One item in eight comes without its notes, as the contrastive pass of §3.2 sees it.
    """
    rng = random.Random(f"user-{seed}")
    while True:
        item = _new_town(rng).item(rng.choices(KINDS, _USER_WEIGHTS)[0])
        yield item if rng.random() < 7 / 8 else replace(item, notes=())


def user_conversations(seed: int) -> Iterator[Conversation]:
    """The text that the user model learns to read from: every note asked about, again and again, endless.

    In half of them all notes are of one sort, so that only the topic tells them apart. In some a place changes, and one
    question in eight is about what no note has.
    """
    rng = random.Random(f"conversations-{seed}")
    while True:
        yield _new_town(rng).conversation()


def _new_town(rng: random.Random) -> _Writer:
    return _Writer(rng, make_places(rng.sample(training_values("place"), 8), rng), has_test_values=False)


def unseen_items(kind: str, count: int, seed: int = 0, unseen: Unseen | None = None) -> list[Item]:
    """Unseen items about the town, with notes whose values the user model never read in training.

    Args:
        kind: one of `KINDS`.
        count: how many.
        seed: of this draw.
        unseen: what else no training text had; nothing if None.
    """
    rng = random.Random(f"test-{kind}-{seed}-{unseen}")
    writer = _Writer(rng, town(), has_test_values=True, unseen=unseen)
    return [writer.item(kind) for _ in range(count)]
