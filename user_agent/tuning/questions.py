"""Questions to tune with: sentences of the user's documents with their end taken out, or a file of real ones."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd2.errors import InvalidParameter
from user_agent.documents.formats.section import sentences
from user_agent.documents.passage import Passage

CLOZE = "Tell me: {}"
"""What the user model is asked, on the device; see docs/decisions/049-demo-and-reading-check.md for the words."""
MAX_PHRASE_WORDS = 3
MAX_FILE_BYTES = 1024 * 1024

_WORD = re.compile(r"\w+(?:['’.:,/-]\w+)*")
_FUNCTION_WORD_LIST = """
a about above after again all also am an and any are as at away back be because been before being below between
both but by came can come could did do does done down each even few for from get go goes going got had has have he
her here hers him his how i if in into is it its just like made make many me mine more most much must my near next
no nor not now of off on once one only onto or other our ours out over own per put same shall she should so some
still such take taken takes than that the their theirs them then there these they this those through till to too
under until up upon us very via was we were what when where which while who whom whose why will with within
without would yet you your yours
"""
_FUNCTION_WORDS = frozenset(_FUNCTION_WORD_LIST.split())
"""English words that carry no content of their own."""


@dataclass(frozen=True)
class TuningQuestion:
    """A question whose answer is known.

    Attributes:
        text: what is asked.
        expected: what has to stand in the answer, as whole words.
        passage: where a question made on the device comes from; None for the user's own.
    """

    text: str
    expected: str
    passage: Passage | None = None


def cloze_questions(passages: Sequence[Passage], seed: int) -> list[TuningQuestion]:
    """Sentences of the documents without their last run of content words, which is the answer.

    These quote the documents: they are for the user model alone and must never be sent.

    Args:
        passages: all of D_user.
        seed: of their order.

    Returns:
        At most one question a sentence, in random order; where two sentences begin alike and end differently there
        is no right answer, and neither is asked.
    """
    found = [question for passage in passages for question in _clozes(passage)]
    answers = Counter(text for text, _ in {(q.text, q.expected.casefold()) for q in found})
    unique = {q.text: q for q in reversed(found) if answers[q.text] == 1}
    questions = sorted(unique.values(), key=lambda question: question.text)
    random.Random(f"tune-{seed}").shuffle(questions)
    return questions


def _clozes(passage: Passage) -> Iterator[TuningQuestion]:
    for sentence in sentences(passage.text):
        if span := _last_phrase(sentence):
            beginning = sentence[: span[0]].strip()
            yield TuningQuestion(CLOZE.format(beginning), sentence[span[0] : span[1]], passage)


def _last_phrase(sentence: str) -> tuple[int, int] | None:
    """Find the last run of content words, if there is content before it that tells what is asked."""
    words = list(_WORD.finditer(sentence))
    content = [word[0].casefold() not in _FUNCTION_WORDS for word in words]
    if not any(content):
        return None
    last = len(content) - 1 - content[::-1].index(True)
    first = last
    while first > 0 and content[first - 1] and last - first + 1 < MAX_PHRASE_WORDS:
        first -= 1
    return (words[first].start(), words[last].end()) if any(content[:first]) else None


def read_questions(file: Path) -> list[TuningQuestion]:
    """The user's own questions: a line each, question TAB expected answer, or JSON objects with these two names.

    Empty lines and lines that begin with # are left out.

    Args:
        file: .tsv, .txt or .jsonl; which of the two formats a line has is seen from the line.

    Raises:
        InvalidParameter: if the file cannot be read, holds no question, or a line is neither.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise InvalidParameter(
                f"{file} is larger than {MAX_FILE_BYTES:,} bytes; a handful of questions is enough",
                parameter="questions",
                limit=MAX_FILE_BYTES,
            )
        lines = file.read_text(encoding="utf-8-sig").split("\n")  # splitlines also cuts at U+2028, inside JSON
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter(
            f"cannot read {file} as UTF-8 text: {error}; choose another file", parameter="questions"
        ) from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    questions = [_question(file, number, line) for number, line in numbered if line and not line.startswith("#")]
    if not questions:
        raise InvalidParameter(
            f"{file} contains no question; write one per line: question, TAB, expected answer", parameter="questions"
        )
    return questions


def _question(file: Path, number: int, line: str) -> TuningQuestion:
    try:
        if line.startswith("{"):
            values = json.loads(line)
            pair = (values["question"], values["answer"])
        else:
            pair = tuple(line.split("\t"))  # type: ignore[assignment]  # its length is checked below
        question, expected = (str(part).strip() for part in pair)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidParameter(
            f"{file}, line {number} is not a question with its answer; write a question, a TAB and the expected "
            'answer, or {"question": …, "answer": …}',
            parameter="questions",
        ) from error
    if not question or not expected:
        raise InvalidParameter(
            f"{file}, line {number}: the question or the expected answer is empty; fill in both", parameter="questions"
        )
    return TuningQuestion(question, expected)
