"""Tasks that decoding settings are measured on: items, and which of the answers to them are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ssd2.demo.generator import unseen_items
from ssd2.evaluation.two_source import holds


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: of it.
        items: makes the items: so many of each kind, from a seed. They have `kind`, `notes` and `question`.
        is_right: judges an answer to an item.
    """

    name: str
    items: Callable[[int, int], Sequence[Any]]
    is_right: Callable[[Any, str], bool]


ORDER_FREE = Task(
    "order-free",
    lambda count, seed: [item for kind in ("reverse", "forward") for item in unseen_items(kind, count, seed)],
    lambda item, answer: all(holds(answer, slot) for slot in (*item.private_slots, *item.public_slots)),
)
