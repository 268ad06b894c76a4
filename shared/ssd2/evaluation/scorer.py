"""Judgement of answers to the items of the order-free benchmark."""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import fmean

from ssd2.demo.forms import NOT_KNOWN
from ssd2.demo.generator import Item


@dataclass(frozen=True)
class Judgement:
    """Judgement of one answer.

    Attributes:
        is_right: every slot stands in it, the outdated value does not, and it does not say that the notes do not have
            it; to an item without the fact: it says so.
        says_not_known: it says that the notes do not have it.
        private_share: of the private slots, those that stand in it; None if the item has none.
        public_share: of the public slots, likewise.
    """

    is_right: bool
    says_not_known: bool
    private_share: float | None
    public_share: float | None


def judge(item: Item, answer: str) -> Judgement:
    """Judge an answer by the slots of its item; its other words do not count."""
    says_not_known = holds(answer, NOT_KNOWN.rstrip("."))
    private, public = ([holds(answer, slot) for slot in slots] for slots in (item.private_slots, item.public_slots))
    is_outdated = bool(item.outdated) and holds(answer, item.outdated)
    has_the_fact = bool(private or public)
    is_right = not says_not_known and not is_outdated and all(private + public) if has_the_fact else says_not_known
    return Judgement(is_right, says_not_known, _share(private), _share(public))


def holds(answer: str, value: str) -> bool:
    """True if a value stands in an answer, as whole words and in any case.

    A time of day is one word: "9:30" does not hold the price "30".
    """
    whole_word = rf"(?<!\w)(?<!\d:){re.escape(value)}(?!\w)(?!:\d)"
    return re.search(whole_word, answer, re.IGNORECASE) is not None


def _share(found: list[bool]) -> float | None:
    return fmean(found) if found else None
