"""Answers of two systems to the same prompts, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ssd2.errors import InvalidParameter
from ssd2.evaluation.generations import Generation


class AnswerPair(NamedTuple):
    """Two answers to one prompt."""

    prompt: str
    answer: str
    other: str


def require_prompts(groups: Mapping[str, Sequence[Generation]]) -> None:
    """Refuse answers that nobody could judge.

    Raises:
        InvalidParameter: if an answer has no prompt.
    """
    for label, group in groups.items():
        if not all(one.prompt for one in group):
            raise InvalidParameter(f'a judge needs the question; give each answer of {label!r} a "prompt"')


def pair_answers(groups: Mapping[str, Sequence[Generation]], label: str, other: str) -> list[AnswerPair]:
    """Pair the answers of two groups, in the order of the first.

    Answers to a repeated prompt are paired in order: the n-th with the n-th.

    Raises:
        InvalidParameter: if the two groups do not answer the same prompts.
    """
    ours, theirs = _by_prompt(groups[label]), _by_prompt(groups[other])
    if ours.keys() != theirs.keys():
        prompt = next(iter(ours.keys() ^ theirs.keys()))[0]
        raise InvalidParameter(
            f"{label!r} and {other!r} do not answer the same prompts ({prompt[:60]!r} is not in both, or not as "
            "often); give answers to the same prompts"
        )
    return [AnswerPair(place[0], answer, theirs[place]) for place, answer in ours.items()]


def _by_prompt(group: Sequence[Generation]) -> dict[tuple[str, int], str]:
    """Return the answers by prompt and by how often it came before."""
    seen: Counter[str] = Counter()
    answers = {}
    for one in group:
        answers[one.prompt, seen[one.prompt]] = one.text
        seen[one.prompt] += 1
    return answers
