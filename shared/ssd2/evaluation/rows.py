"""Rows of the order-free benchmark: what is asked, and what of it no training text had."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ssd2.demo.generator import Item, Unseen, unseen_items


@dataclass(frozen=True)
class Row:
    """Unseen items that one share is taken of.

    Attributes:
        name: of the row.
        title: of its panel and its line.
        kinds: of items, each as often as the others.
        unseen: what no training text had beside the values; None for nothing.
    """

    name: str
    title: str
    kinds: tuple[str, ...]
    unseen: Unseen | None = None

    def items(self, limit: int, seed: int) -> list[Item]:
        """Write `limit` items, the kinds one after the other; of an odd number the first has one more."""
        each, more = divmod(limit, len(self.kinds))
        counts = [each + (index < more) for index in range(len(self.kinds))]
        pairs = zip(self.kinds, counts, strict=True)
        return [item for kind, count in pairs for item in unseen_items(kind, count, seed, self.unseen)]


def items_sha256(items: Sequence[Item]) -> str:
    """Fingerprint of items, which results are about."""
    return hashlib.sha256(repr(list(items)).encode()).hexdigest()


_EASY = ("private", "forward")
"""Kinds that language is varied in: they are as good as always right in the forms of training."""

ROWS = {
    row.name: row
    for row in (
        Row("reverse", "fact first, then the place", ("reverse",)),
        Row("forward", "place first, then its fact", ("forward",)),
        Row("chained", "notes, town, notes", ("chained",)),
        Row("seen_forms", "forms of training", _EASY, Unseen()),
        Row("new_topic", "a topic never read", _EASY, Unseen(topic=True)),
        Row("new_note", "a note form never read", _EASY, Unseen(note=True)),
        Row("new_question", "a question form never read", _EASY, Unseen(question=True)),
        Row("later_note", "the later note wins", ("later_note",)),
        Row("not_known", "not in the notes", ("not_known",)),
        Row("against_town", "a note against the town", ("against_town",)),
        Row("long", "three to five sentences", ("long",)),
    )
}
"""Rows by their names; `reverse`, `forward`, `chained` and `long` need both models."""

IN_ONE_BLOCK = ("reverse", "forward")
"""Rows whose two slots stand in one block: what they show does not pass from block to block."""

NEEDING_BOTH = (*IN_ONE_BLOCK, "chained")
"""Rows that neither model can answer alone, each within one block."""

WITH_THE_FACT = ("seen_forms", "reverse")
"""Rows whose answers should not say that the notes do not have it."""
