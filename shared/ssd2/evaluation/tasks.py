"""Tasks that decoding settings are measured on: items, and which of the answers to them are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ssd2.evaluation.rows import NEEDING_BOTH, ROWS
from ssd2.evaluation.scorer import judge


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
    lambda count, seed: [item for row in NEEDING_BOTH for item in ROWS[row].items(count, seed)],
    lambda item, answer: judge(item, answer).is_right,
)
