"""One invented town, and the values that only its people's notes know.

Names, codes and hiding places are split by a hash of their text. The town's places and the values
in test notes are natural ones ("Fern Gallery", "blue drawer") from the held-out eighth. The values
in training notes are any two words ("Gallery Voss", "soup bicycle") from the rest: so many pairs
that none can be learned by heart, and the user model has to copy.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from functools import cache

from ssd2.demo import lexicon

TOWN_SEED = 2305
TOWN_PLACES = 160
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


def make_places(names: list[str], rng: random.Random) -> list[Place]:
    """Give every name its facts."""
    return [
        Place(
            name=name,
            kind=rng.choice(lexicon.KINDS),
            street=f"{rng.choice(lexicon.STREETS)} Street",
            speciality=rng.choice(lexicon.SPECIALITIES),
            opens=f"{rng.randint(6, 11)}:{rng.choice(('00', '15', '30', '45'))}",
            closes=f"{rng.randint(15, 22)}:{rng.choice(('00', '15', '30', '45'))}",
            price=str(rng.randint(5, 60)),
            phone=f"{rng.randint(10, 99)}{rng.randint(10, 99)}",
        )
        for name in names
    ]


@cache
def town() -> tuple[Place, ...]:
    """The town that the core knows by heart."""
    rng = random.Random(TOWN_SEED)
    return tuple(make_places(sorted(rng.sample(natural_values("place"), TOWN_PLACES)), rng))
