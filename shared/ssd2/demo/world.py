"""One invented town, and the values that only its people's notes know.

Names, times and codes are split by a hash of their text: the town's places and the values in the
notes of the test split come from the held-out eighth, the user model's training text from the
rest. So what the user model copies from test notes it has never seen.
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
    """Whether a name, time or code is kept for the town and the test split."""
    return zlib.crc32(value.encode()) % HELD_OUT_SHARE == 0


@cache
def pool(name: str, held_out: bool) -> tuple[str, ...]:
    """All values of one sort on one side of the split.

    Args:
        name: "place", "person", "code", "time" or "spot".
        held_out: the side for the town and the test split, or that for training the user model.

    Returns:
        The values in a fixed order.
    """
    everything = {
        "place": (f"{a} {b}" for a in lexicon.PLACE_FIRST for b in lexicon.PLACE_SECOND),
        "person": (f"{a} {b}" for a in lexicon.FIRST_NAMES for b in lexicon.SURNAMES),
        "code": (f"{number:04d}" for number in range(10_000)),
        "time": (f"{hour}:{minute:02d}" for hour in range(7, 21) for minute in range(0, 60, 5)),
        "spot": (f"{a} {b}" for a in lexicon.COLOURS for b in lexicon.FURNITURE),
    }[name]
    return tuple(value for value in everything if is_held_out(value) == held_out)


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
    return tuple(make_places(sorted(rng.sample(pool("place", held_out=True), TOWN_PLACES)), rng))
