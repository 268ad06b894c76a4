"""Votes of people who see two answers to a question in random order and do not know whose they are (§5.1).

A vote is a line of the rater's file at once; a later line about the same pair replaces it, and a line without
a choice takes it back.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd2.errors import InvalidParameter
from ssd2.evaluation.generations import Generation
from ssd2.evaluation.jsonl import append_result, read_results
from ssd2.lab.pairing import pair_answers, require_prompts

FIRST, SECOND, EQUALLY_GOOD, EQUALLY_BAD = "first", "second", "equally good", "equally bad"
CHOICES = (FIRST, SECOND, EQUALLY_GOOD, EQUALLY_BAD)
"""Of the paper's annotators: one of the two answers, both equally good, both equally bad."""

BLOCK = 10
"""Pairs among which either system comes first equally often, so that who stops early has a fair share too."""

_NAME = re.compile(r"\w[\w.-]{0,63}")


# See docs/decisions/057-bertscore-and-blind-votes.md.
@dataclass(frozen=True)
class BlindPair:
    """Two answers in the order in which a rater sees them.

    Attributes:
        key: hash of question and answers, the same in either order.
        prompt: the question.
        answers: the first and the second.
        systems: labels of their groups; no rater sees them.
    """

    key: str
    prompt: str
    answers: tuple[str, str]
    systems: tuple[str, str]


@dataclass(frozen=True)
class Vote:
    """One rater's judgement of one pair.

    Attributes:
        pair: key of the pair.
        rater: name.
        shown: labels of the two systems, in the order in which their answers were shown.
        choice: one of `CHOICES`; None takes an earlier vote back.
        comment: the rater's own words.
        prompt: the question, for people who read the file.
    """

    pair: str
    rater: str
    shown: tuple[str, str]
    choice: str | None
    comment: str
    prompt: str

    @property
    def preferred(self) -> str | None:
        """Label of the preferred system; None for a tie."""
        return {FIRST: self.shown[0], SECOND: self.shown[1]}.get(self.choice or "")

    def as_json(self) -> dict[str, Any]:
        """Return a line of the rater's file."""
        return {**vars(self), "shown": list(self.shown)}


def blind_pairs(groups: Mapping[str, Sequence[Generation]], rater: str, seed: int) -> list[BlindPair]:
    """Pair the answers of two groups and draw the order of each pair.

    Each group comes first in half of the pairs of every `BLOCK`. The order of the questions is that of the
    first group, so that raters who stop early have judged the same ones.

    Args:
        groups: two.
        rater: has a draw of their own.
        seed: of the draw.

    Raises:
        InvalidParameter: if an answer has no prompt, or the groups do not answer the same prompts.
    """
    require_prompts(groups)
    label, other = groups
    pairs = list(dict.fromkeys(pair_answers(groups, label, other)))  # equal ones are judged once
    return [
        BlindPair(
            _key(pair.prompt, {label: pair.answer, other: pair.other}),
            pair.prompt,
            (pair.other, pair.answer) if is_swapped else (pair.answer, pair.other),
            (other, label) if is_swapped else (label, other),
        )
        for pair, is_swapped in zip(pairs, _draws(len(pairs), f"{seed} {rater}"), strict=True)
    ]


def _draws(count: int, seed: str) -> list[bool]:
    """Draw which pairs are swapped: half of every block, in an order that nobody can guess from earlier pairs."""
    rng = random.Random(seed)
    draws: list[bool] = []
    while len(draws) < count:
        length, odd_one = min(BLOCK, count - len(draws)), rng.randrange(2)
        block = [number % 2 == odd_one for number in range(length)]
        rng.shuffle(block)
        draws += block
    return draws


def _key(prompt: str, answers: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([prompt, sorted(answers.items())]).encode()).hexdigest()[:16]


def votes_file(folder: Path, rater: str) -> Path:
    """Return the file of a rater's votes.

    Raises:
        InvalidParameter: if the name cannot be that of a file.
    """
    if not _NAME.fullmatch(rater):
        raise InvalidParameter(
            f"{rater!r} cannot be a rater's name; use up to 64 letters, digits, dots, hyphens and underscores",
            parameter="rater",
        )
    return folder / f"{rater}.jsonl"


def read_votes(file: Path) -> list[Vote]:
    """Return the votes of a file in the order in which they were cast, without those replaced or taken back.

    Raises:
        InvalidParameter: if the file holds something else, or votes of two raters or on other systems.
    """
    try:
        votes = [_parsed(line) for line in read_results(file)]
    except (InvalidParameter, KeyError, TypeError, ValueError) as error:
        raise InvalidParameter(
            f"{file} does not contain votes of one rater; choose a file or a folder of votes", parameter="out"
        ) from error
    if len({(vote.rater, frozenset(vote.shown)) for vote in votes}) > 1:
        raise InvalidParameter(
            f"{file} contains votes of two raters, or on different systems; keep a folder for each comparison",
            parameter="out",
        )
    return list(standing(votes).values())


def _parsed(line: Mapping[str, Any]) -> Vote:
    first, second = line["shown"]
    vote = Vote(line["pair"], line["rater"], (first, second), line["choice"], line["comment"], line["prompt"])
    texts = (vote.pair, vote.rater, first, second, vote.comment, vote.prompt)
    if vote.choice not in (*CHOICES, None) or first == second or not all(isinstance(text, str) for text in texts):
        raise ValueError("not a vote")
    return vote


def standing(votes: Iterable[Vote]) -> dict[str, Vote]:
    """Return the votes by pair, the last cast last, without those replaced or taken back."""
    by_pair: dict[str, Vote] = {}
    for vote in votes:
        by_pair.pop(vote.pair, None)
        if vote.choice:
            by_pair[vote.pair] = vote
    return by_pair


class VotingSession:
    """One rater's way through the pairs, as far as their file has it."""

    def __init__(self, pairs: Sequence[BlindPair], rater: str, file: Path, limit: int | None = None) -> None:
        """Go on where the file ends.

        Args:
            pairs: all of the comparison.
            rater: name.
            file: of the rater's votes; made with the first vote.
            limit: number of pairs to be judged, the first ones; None for all.

        Raises:
            InvalidParameter: if the file holds votes of another rater or on other answers, or something else.
        """
        self._pairs, self._rater, self._file = {pair.key: pair for pair in pairs[:limit]}, rater, file
        self._votes = {vote.pair: vote for vote in read_votes(file)}
        self._withdrawn: Vote | None = None
        known = {(pair.key, frozenset(pair.systems)) for pair in pairs}
        for vote in self._votes.values():
            if vote.rater != rater:
                raise InvalidParameter(
                    f"{file} contains votes of {vote.rater!r}; choose another folder", parameter="out"
                )
            if (vote.pair, frozenset(vote.shown)) not in known:
                raise InvalidParameter(
                    f"{file} contains votes on other answers, such as to {vote.prompt[:60]!r}; choose another folder",
                    parameter="out",
                )

    @property
    def total(self) -> int:
        """Number of pairs to be judged."""
        return len(self._pairs)

    @property
    def done(self) -> int:
        """Number of those that are judged."""
        return len(self._pairs.keys() & self._votes.keys())

    @property
    def due(self) -> BlindPair | None:
        """The pair to be judged next; None at the end."""
        return next((pair for key, pair in self._pairs.items() if key not in self._votes), None)

    def shown(self) -> dict[str, Any]:
        """Return all that the rater's page is told: no system's name and nothing that depends on one."""
        due = self.due
        pair = due and {"key": due.key, "question": due.prompt, "answers": due.answers, "comment": self._comment(due)}
        return {"rater": self._rater, "done": self.done, "total": self.total, "pair": pair}

    def _comment(self, pair: BlindPair) -> str:
        """Return what the rater wrote to the vote that they just took back."""
        return self._withdrawn.comment if self._withdrawn and self._withdrawn.pair == pair.key else ""

    def vote(self, key: str, choice: str, comment: str) -> None:
        """Append a vote on the due pair to the file.

        Raises:
            InvalidParameter: if another pair is due, there is no such choice, or the file cannot be written.
        """
        due = self.due
        if due is None or due.key != key:
            raise InvalidParameter("another pair is due; reload the page", parameter="pair")
        if choice not in CHOICES:
            raise InvalidParameter(f"a choice is one of {', '.join(CHOICES)}", parameter="choice")
        vote = Vote(key, self._rater, due.systems, choice, comment, due.prompt)
        append_result(self._file, vote.as_json())
        self._votes[key], self._withdrawn = vote, None

    def undo(self) -> None:
        """Take the last vote back, in the file too; its pair is due again.

        Raises:
            InvalidParameter: if there is no vote, or the file cannot be written.
        """
        last = next((vote for vote in reversed(self._votes.values()) if vote.pair in self._pairs), None)
        if last is None:
            raise InvalidParameter("there is no vote to take back", parameter="pair")
        append_result(self._file, {**last.as_json(), "choice": None})
        self._withdrawn = self._votes.pop(last.pair)
