"""Questions that search is measured by: about the project's everyday documents, and about nothing in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ssd2.evaluation.documents.questions import HERE, read_questions
from user_agent.documents.passage import Passage
from user_agent.documents.words import LANGUAGES, content_words, language_of, stem, words

FILE = HERE / "retrieval.jsonl"

Half: TypeAlias = Literal["calibrating", "reporting"]
"""Thresholds are chosen on the first, and judged on the second."""


@dataclass(frozen=True)
class Gold:
    """Words that say an answer.

    Attributes:
        document: name of the file.
        says: what of a passage says it; in no other passage of the file.
    """

    document: str
    says: str

    def is_in(self, passage: Passage) -> bool:
        """Return True if the passage says it."""
        return passage.source.name == self.document and self.says in f"{passage.heading}: {passage.text}"


@dataclass(frozen=True)
class Asked:
    """One question.

    Attributes:
        id: unique.
        text: as a person types it.
        language: "en" or "de".
        kind: of the benchmark documents, or "nowhere": a person's question that no document is about.
        parts: what has to be found, each as the places that do; empty if the documents do not say it.
    """

    id: str
    text: str
    language: str
    kind: str
    parts: tuple[tuple[Gold, ...], ...]

    @property
    def half(self) -> Half:
        """The half of the questions that it belongs to, by a hash of its id."""
        return "reporting" if hashlib.sha256(self.id.encode()).digest()[0] % 2 else "calibrating"

    @property
    def suffix(self) -> str:
        """Suffix of the first document that it is about."""
        return self.parts[0][0].document.rpartition(".")[2] if self.parts else ""

    def recall(self, found: Sequence[Passage]) -> float:
        """Return the share of its parts that stand in what was found."""
        return sum(any(gold.is_in(one) for gold in part for one in found) for part in self.parts) / len(self.parts)

    def is_paraphrase(self, passages: Sequence[Passage]) -> bool:
        """Return True if no passage that answers it has a content word of it, in text, headings or name."""
        asked = _stems(content_words(self.text, language_of(self.text)))
        golds = [gold for part in self.parts for gold in part]
        answers = [one for one in passages if any(gold.is_in(one) for gold in golds)]
        return all(asked.isdisjoint(_stems(words(f"{one.source.stem} {one.heading} {one.text}"))) for one in answers)


def retrieval_questions() -> list[Asked]:
    """Return all questions, in their order in the files."""
    known = {question.id: question for question in read_questions()}
    found = []
    for line in map(json.loads, FILE.read_text(encoding="utf-8").splitlines()):
        one = known.get(line["id"])
        text, language, kind = (
            (one.text, one.language, one.kind) if one else (line["text"], line["language"], line["kind"])
        )
        parts = tuple(tuple(Gold(**gold) for gold in part) for part in line["gold"])
        found.append(Asked(line["id"], text, language, kind, parts))
    unsaid = [one for one in known.values() if one.kind in ("absent", "public")]
    return found + [Asked(one.id, one.text, one.language, one.kind, ()) for one in unsaid]


def _stems(found: Sequence[str]) -> set[str]:
    return {stem(word, language) for word in found for language in LANGUAGES}
