"""Words of the user's documents that an answer quotes: with the answer they have crossed to the core."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from user_agent.answering.answer import AnswerToken
from user_agent.documents.passage import Passage
from user_agent.store.answers import CrossedWords

PRIVATE_CONTEXT = "private context"
_SHORT = 3
"""Letters of a word that tells nothing by itself unless it is a name or a number: "is", "at", "um"."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class _Word:
    """A word of an answer.

    Attributes:
        text: as it stands there.
        start: where it begins in the answer.
        end: where it ends.
        is_private: whether a token of it was led by the documents, or comes from a passage.
        citation: index of that passage, or the private context; None if it is not known.
    """

    text: str
    start: int
    end: int
    is_private: bool
    citation: int | str | None

    @property
    def key(self) -> str:
        """The word as it is compared."""
        return self.text.casefold()

    @property
    def is_name(self) -> bool:
        """True of a name or a number."""
        return self.text[0].isupper() or any(character.isdigit() for character in self.text)


@dataclass(frozen=True)
class _Source:
    """A text that words come from.

    Attributes:
        path: of the document; "" for the private context.
        place: as the user reads it.
        words: of the text, casefolded.
    """

    path: str
    place: str
    words: Sequence[str]

    def run(self, words: Sequence[_Word], at: int) -> tuple[int, int]:
        """Return the longest run of neighbouring words around one that stands in the text too: its first, its end.

        The run begins at the word itself, or at names and numbers before it; (at, at) if the word is not there.
        """
        best = (at, at)
        for place, word in enumerate(self.words):
            if word != words[at].key:
                continue
            end = 1
            while at + end < len(words) and self._has(place + end, words[at + end]):
                end += 1
            first = 0
            while first < at and words[at - first - 1].is_name and self._has(place - first - 1, words[at - first - 1]):
                first += 1
            if first + end > best[1] - best[0]:
                best = (at - first, at + end)
        return best

    def _has(self, place: int, word: _Word) -> bool:
        return 0 <= place < len(self.words) and self.words[place] == word.key


# See docs/decisions/066-what-the-provider-learns.md.
def crossed_words(
    tokens: Sequence[AnswerToken], passages: Sequence[Passage], private_context: str, asked: Iterable[str]
) -> list[CrossedWords]:
    """Find the words of passages and private context in an answer.

    A word counts where the documents led, or where its passage is known. With it count the words around it that stand
    in the passage in the same order: a core that has seen the first word of a name often knows the second.

    Args:
        tokens: of all of the answer that was made.
        passages: that the user model read.
        private_context: that it read.
        asked: the question and those before it; what stands in them is the user's own to tell.
    """
    words = list(_words(tokens))
    sources = [_Source(str(one.source), one.place, _keys(one.text)) for one in passages]
    private = _Source("", PRIVATE_CONTEXT, _keys(private_context))
    known = {key for text in asked for key in _keys(text)}
    text, found, at = "".join(token.text for token in tokens), [], 0
    while at < len(words):
        if not words[at].is_private:
            at += 1
            continue
        source, first, end = _longest(words, at, sources, private)
        telling = [word for word in words[first:end] if _tells(word, known)]
        if source and telling:
            found.append(CrossedWords(text[telling[0].start : telling[-1].end], source.path, source.place))
        at = max(end, at + 1)
    return list(dict.fromkeys(found))


def _longest(
    words: Sequence[_Word], at: int, sources: Sequence[_Source], private: _Source
) -> tuple[_Source | None, int, int]:
    """Return the source with the longest run at a word, and the run; a cited passage counts without one."""
    citation = words[at].citation
    if citation == PRIVATE_CONTEXT:
        among = [private]
    elif isinstance(citation, int) and citation < len(sources):
        among = [sources[citation]]
    else:
        among = [*sources, private]
    runs = [(source.run(words, at), source) for source in among]
    (first, end), source = max(runs, key=lambda one: one[0][1] - one[0][0], default=((at, at), None))
    if first < end:
        return source, first, end
    end = at + 1
    while end < len(words) and citation is not None and words[end].citation == citation:
        end += 1
    return (source if citation is not None else None), at, end


def _tells(word: _Word, known: set[str]) -> bool:
    return word.key not in known and (word.is_name or len(word.text) > _SHORT)


def _words(tokens: Sequence[AnswerToken]) -> Iterator[_Word]:
    """Yield the words of an answer; a token may be a piece of one, or several."""
    text = "".join(token.text for token in tokens)
    ends = list(accumulate(len(token.text) for token in tokens))
    first = 0
    for match in _WORD.finditer(text):
        while ends[first] <= match.start():
            first += 1
        last = first
        while ends[last] < match.end():
            last += 1
        of_it = tokens[first : last + 1]
        citation = next((token.citation for token in of_it if token.citation is not None), None)
        is_private = citation is not None or any(token.led_by == "documents" for token in of_it)
        yield _Word(match[0], match.start(), match.end(), is_private, citation)


def _keys(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]
