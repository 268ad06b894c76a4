"""One invented town, and the values that only its people's notes know.

Names, codes and hiding places are split by a hash of their text. The town's places and the values
in test notes are natural ones ("Fern Gallery", "blue drawer") from the held-out eighth. The values
in training notes are any two words ("Gallery Voss", "soup bicycle") from the rest: so many pairs
that none can be learned by heart, and the user model has to copy.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from ssd2.demo import lexicon

TOWN_SEED = 2305
TOWN_PLACES = 64
HELD_OUT_SHARE = 8
"""One value in this many is held out of the user model's training text."""


@dataclass(frozen=True)
class Place:
    """A place and its public facts. Times are 24 h "H:MM", the price is in euros."""

    name: str
    kind: str
    street: str
    speciality: str
    opens: str
    closes: str
    price: str
    phone: str


def is_held_out(value: str) -> bool:
    """True if a value is kept for the town and the test split."""
    return zlib.crc32(value.encode()) % HELD_OUT_SHARE == 0


@cache
def natural_values(sort: str) -> tuple[str, ...]:
    """Held-out values as people write them, for the town and the test split.

    Args:
        sort: "place", "person", "code" or "spot".

    Returns:
        The values in a fixed order.
    """
    if sort == "code":
        return tuple(code for code in _codes() if is_held_out(code))
    first, second = {
        "place": (lexicon.PLACE_FIRST, lexicon.PLACE_SECOND),
        "person": (lexicon.FIRST_NAMES, lexicon.SURNAMES),
        "spot": (lexicon.COLOURS, lexicon.FURNITURE),
    }[sort]
    return tuple(f"{a} {b}" for a in first for b in second if is_held_out(f"{a} {b}"))


@cache
def training_values(sort: str) -> tuple[str, ...]:
    """Values for training: any two words of the right case, or any code, that are not held out.

    Args:
        sort: "place", "person", "code" or "spot".

    Returns:
        The values in a fixed order.
    """
    if sort == "code":
        return tuple(code for code in _codes() if not is_held_out(code))
    words = [word for word in lexicon.all_words() if word[0].isupper() == (sort != "spot")]
    return tuple(f"{a} {b}" for a in words for b in words if a != b and not is_held_out(f"{a} {b}"))


def _codes() -> list[str]:
    return [f"{number:04d}" for number in range(10_000)]


def _times(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"{hour}:{minute:02d}" for hour in range(first, last) for minute in range(0, 60, 15))


_FACT_VALUES = (
    lexicon.KINDS,
    tuple(f"{name} Street" for name in lexicon.STREETS),
    lexicon.SPECIALITIES,
    _times(6, 14),
    _times(14, 22),
    tuple(str(euros) for euros in range(5, 61)),
    # A phone number is made like a code, and a held-out code must not occur in any text.
    tuple(code for code in _codes() if code[0] != "0" and not is_held_out(code))[::100],
)
"""Values of a place's facts, in the order of its attributes."""


def make_places(names: Sequence[str], rng: random.Random) -> list[Place]:
    """Give every name its facts.

    The values of a fact go round until every place has one, so that none is much more frequent than another: whoever
    guesses a fact without the place is right for one place in as many as there are values.
    """
    columns = [_spread(values, len(names), rng) for values in _FACT_VALUES]
    return [Place(name, *facts) for name, *facts in zip(names, *columns, strict=True)]


def _spread(values: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Draw a number of values, each as often as any other, in random order."""
    rounds = [value for _ in range(-(-count // len(values))) for value in rng.sample(values, len(values))]
    return rng.sample(rounds[:count], count)


@cache
def town() -> tuple[Place, ...]:
    """The town that the core knows by heart; no two of its places begin with the same word."""
    rng = random.Random(TOWN_SEED)
    by_first_word = {
        name.split()[0]: name for name in rng.sample(natural_values("place"), len(natural_values("place")))
    }
    return tuple(make_places(sorted(by_first_word.values())[:TOWN_PLACES], rng))
