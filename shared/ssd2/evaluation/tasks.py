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


TWO_SOURCE = Task(
    "two-source",
    lambda count, seed: unseen_items("two-source", count, seed),
    lambda item, answer: holds(answer, item.private_slot) and holds(answer, item.public_slot),
)
