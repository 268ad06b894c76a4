"""Citations of tokens, gathered while an answer is made, and the places about which its passages disagree."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, takewhile
from typing import Literal

from ssd2.algorithm.attribution import BlockOrigins, Origin
from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.collaboration import UserLogits, UserTerms
from ssd2.algorithm.sampler import Outcome, prune
from ssd2.models.tokenizer import Tokenizer
from user_agent.answering.answer import AnswerToken, Conflict, Saying
from user_agent.documents.passage import Passage

AHEAD = 8
"""Tokens that a passage's pass writes to say what it would: values of everyday documents are shorter."""

_BROKEN = "\N{REPLACEMENT CHARACTER}"


class Citing:
    """Citations of one answer's tokens."""

    def __init__(
        self, terms: UserTerms, passages: Sequence[Passage], tokenizer: Tokenizer, stop_ids: Sequence[int]
    ) -> None:
        """Begin with no token.

        Args:
            terms: the user model's part in the decode, with its passes beside the mix.
            passages: that the user model reads; a pass behind theirs reads the private context.
            tokenizer: of the model.
            stop_ids: that end an answer.
        """
        self._terms, self._passages, self._tokenizer, self._stop_ids = terms, passages, tokenizer, stop_ids
        self._block = BlockOrigins(len(passages))
        self._origins: list[Origin] = []
        self._begun: dict[int, BlockView] = {}  # where passages begin to differ, in blocks of one token

    async def see(self, view: BlockView, outcome: Outcome, user: UserLogits) -> None:
        """Take in a timestep."""
        await asyncio.to_thread(self._block.see, outcome.projection.token_ids[0], user)
        if outcome.is_commit:
            has_begun = bool(self._origins and self._origins[-1].differs)
            if view.block_size == 1 and self._block.found[0].differs and not has_begun:
                self._begun[len(self._origins)] = view
            self._origins += self._block.found
            self._block = BlockOrigins(len(self._passages))

    async def finish(self) -> None:
        """Let the passes go on where they disagree, if blocks are too short to say what each of them would.

        To be called once nothing more is sent: how long it takes would tell the core that passages disagree.
        """
        for first, view in self._begun.items():
            run = takewhile(lambda origin: origin.differs, self._origins[first:])
            if any(origin.parties for origin in run):
                ahead = await asyncio.to_thread(self._terms.continued, view, AHEAD)
                self._origins[first] = replace(self._origins[first], ahead=[row[0].tolist() for row in ahead])

    def citation(self, position: int) -> int | Literal["private context"] | None:
        """Return the citation of a committed token, by its index in the answer."""
        source = self._origins[position].source
        return "private context" if source is not None and source >= len(self._passages) else source

    def conflicts(self, tokens: Sequence[AnswerToken]) -> list[Conflict]:
        """Find the places about which passages disagree, among the shown tokens of the answer."""
        token_ids = [token.token_id for token in tokens]
        found = [self._conflict(first, length, token_ids) for first, length in self._runs(tokens)]
        # Two passes that begin otherwise may say the same.
        return [one for one in found if len({said.would_say.casefold() for said in one.passages}) > 1]

    def _runs(self, tokens: Sequence[AnswerToken]) -> Iterator[tuple[int, int]]:
        """Yield where neighbouring tokens begin about which passages disagree, and how many they are."""
        origins = self._origins[: len(tokens)]
        for differs, run in groupby(range(len(origins)), lambda position: origins[position].differs):
            places = list(run)
            is_shown = any(tokens[place].text.strip() for place in places)
            if differs and is_shown and any(origins[place].parties for place in places):
                yield places[0], len(places)

    def _conflict(self, first: int, length: int, token_ids: Sequence[int]) -> Conflict:
        origin, end = self._origins[first], first + length
        parties = sorted({party for one in self._origins[first:end] for party in one.parties})
        text = self._words(token_ids[:first], token_ids[first:end], token_ids[end:])
        said = [Saying(party, self._said(token_ids[:first], party, origin.ahead[party])) for party in parties]
        return Conflict(first, length, text, [one for one in said if one.would_say])

    def _said(self, before: Sequence[int], party: int, ahead: Sequence[int]) -> str:
        """Return what a passage says from a position on: the words of its pass, as far as they stand in it."""
        text = self._words(before, prune(list(ahead), self._stop_ids))
        passage = " ".join(self._passages[party].told.split())
        ends = (end for end in range(len(text), 0, -1) if _stands_in(text[:end], passage))
        return text[: next(ends, 0)].strip()

    def _words(self, before: Sequence[int], token_ids: Sequence[int], behind: Sequence[int] = ()) -> str:
        """Return the text of tokens, with the rest of the words that it begins and ends in."""
        decode = self._tokenizer.decode
        text = decode([*before, *token_ids, *behind])
        # What ends within a character is decoded otherwise with the tokens behind it.
        start, end = (len(decode(ids).rstrip(_BROKEN)) for ids in (before, [*before, *token_ids]))
        while start and not text[start - 1].isspace() and not text[start : start + 1].isspace():
            start -= 1
        rest = re.match(r"\S*", text[end:])
        return text[start : end + (len(rest[0]) if rest and not text[end - 1 : end].isspace() else 0)].strip(
            " \t.,;:!?"
        )


def _stands_in(words: str, passage: str) -> bool:
    """Tell whether whole words stand in a passage, whatever their case."""
    return bool(re.search(rf"(?<!\w){re.escape(words.strip())}(?!\w)", passage, re.IGNORECASE))
