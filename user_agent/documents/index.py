"""Keyword search over passages, their headings and the names of their files: BM25 of SQLite's FTS5 over stems."""

from __future__ import annotations

import heapq
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import cast

import apsw

from user_agent.documents.words import LANGUAGES, SHORTEST_PART, content_words, language_of, parts, splits, stem, stems

COMMON = 2_000
"""A word that stands in more passages is searched for only if no word of the question is rarer: it tells little, and
ranking all that it matches is what takes the time of a search."""

MOST = 100
"""More passages than any context holds."""

CONSIDERED = 400
"""Passages whose documents are looked at."""

FEWEST = 100
"""Passages of which a small collection is taken to be a part: of two, a word that one has is not yet common."""

PART_WEIGHT = 0.6
"""Of a word that stands in a passage only as the beginning of another, or as part of a compound."""

HEADING_WEIGHT = 0.5
"""Of a word that stands only in the heading or the name of the file."""

TIE_WEIGHT = 0.01

BESIDE_WEIGHT = 0.3
"""Of a word that only other passages of the document hold."""

# See docs/decisions/063-finding-passages.md. Both tables hold stems that Python made, so SQLite folds nothing.
_SEARCHED = """
CREATE VIRTUAL TABLE word USING fts5 (
    text, heading, name, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 0'
);
CREATE VIRTUAL TABLE part USING fts5 (
    text, content = '', contentless_delete = 1, detail = none, tokenize = 'unicode61 remove_diacritics 0'
);
CREATE TABLE vector (passage_id INTEGER PRIMARY KEY REFERENCES passage ON DELETE CASCADE, data BLOB NOT NULL);
CREATE TRIGGER passage_removed AFTER DELETE ON passage BEGIN
    DELETE FROM word WHERE rowid = old.id;
    DELETE FROM part WHERE rowid = old.id;
END;
"""

SCHEMA = f"""
CREATE TABLE passage (
    id INTEGER PRIMARY KEY,
    document_id INTEGER REFERENCES document ON DELETE CASCADE,
    text TEXT NOT NULL,
    line INTEGER,
    page INTEGER,
    heading TEXT NOT NULL DEFAULT '',
    sheet TEXT NOT NULL DEFAULT '',
    slide INTEGER,
    name TEXT NOT NULL DEFAULT ''  -- words of the file's name, to be searched
);
CREATE INDEX passage_of_document ON passage (document_id);
{_SEARCHED}"""

FROM_TEXT_ONLY = f"""
DROP TRIGGER passage_added;
DROP TRIGGER passage_removed;
DROP TABLE word;
ALTER TABLE passage ADD COLUMN heading TEXT NOT NULL DEFAULT '';
ALTER TABLE passage ADD COLUMN sheet TEXT NOT NULL DEFAULT '';
ALTER TABLE passage ADD COLUMN slide INTEGER;
ALTER TABLE passage ADD COLUMN name TEXT NOT NULL DEFAULT '';
{_SEARCHED}"""
"""From the schema of store version 2, which searched the text only; `add` has to follow for each document."""

_CAMEL = re.compile(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])")
_WITHIN = "AND rowid IN (SELECT id FROM passage WHERE document_id IN (SELECT value FROM json_each(?)))"


@dataclass(frozen=True)
class Match:
    """A passage that shares words with a question.

    Attributes:
        id: of the passage.
        score: BM25, the higher the better.
        coverage: share of the question's content words that it holds, each by how rare it is; in [0, 1].
    """

    id: int
    score: float
    coverage: float


@dataclass
class _Scores:
    """Score of a passage, and how well it matches each word of the question, in (0, 1]."""

    score: float = 0.0
    shares: dict[int, float] = field(default_factory=dict)

    def coverage(self, rarities: Sequence[float]) -> float:
        return sum(share * rarities[at] for at, share in self.shares.items()) / sum(rarities)


def add(database: apsw.Connection, document_id: int | None) -> None:
    """Index the passages of one document, by the language that most of its text is in.

    Args:
        database: with `SCHEMA` in it.
        document_id: of the document; None for the passages of none.
    """
    query = "SELECT id, text, heading || ' ' || sheet, name FROM passage WHERE document_id IS ?"
    rows = cast("list[tuple[int, str, str, str]]", database.execute(query, (document_id,)).fetchall())
    language = language_of(" ".join(text for _, text, *_ in rows)) or "en"
    for passage_id, *texts in rows:
        found = [stems(text, language) for text in texts]
        database.execute(
            "INSERT INTO word (rowid, text, heading, name) VALUES (?, ?, ?, ?)", (passage_id, *map(" ".join, found))
        )
        if language == "de" and (inside := parts(chain.from_iterable(found))):
            database.execute("INSERT INTO part (rowid, text) VALUES (?, ?)", (passage_id, " ".join(inside)))


def words_of_name(path: Path) -> str:
    """Return the words of a file's name, to be searched; "DentistJune.md" has two."""
    return _CAMEL.sub(" ", path.stem)


def matches(database: apsw.Connection, question: str, document_ids: Sequence[int] | None = None) -> list[Match]:
    """Find the passages that share words with a question, the best match first.

    Args:
        database: with `SCHEMA` in it.
        question: in the user's words; nothing in it is read as query syntax.
        document_ids: where to search; None for everywhere.

    Returns:
        At most `MOST` of them, equal ones in the order they were added.
    """
    concepts = [_Concept.of(database, word) for word in content_words(question, language_of(question))]
    passages = cast(int, database.execute("SELECT count(*) FROM passage").get)
    passages = max(passages, FEWEST)
    rarities = [concept.rarity(passages) for concept in concepts]
    searched = [at for at, concept in enumerate(concepts) if 0 < concept.count <= COMMON] or range(len(concepts))
    found: dict[int, _Scores] = {}
    for at in searched:
        for passage_id, (score, share) in concepts[at].found(database, rarities[at], document_ids).items():
            scores = found.setdefault(passage_id, _Scores())
            scores.score += score
            scores.shares[at] = share
    first = heapq.nlargest(CONSIDERED, found, key=lambda passage_id: (found[passage_id].score, -passage_id))
    _add_beside(database, {passage_id: found[passage_id] for passage_id in first}, rarities)
    ranked = sorted(first, key=lambda passage_id: (-found[passage_id].score, passage_id))[:MOST]
    return [Match(one, found[one].score, found[one].coverage(rarities)) for one in ranked]


def _add_beside(database: apsw.Connection, found: Mapping[int, _Scores], rarities: Sequence[float]) -> None:
    """Add to a passage's score the words of the question that only others of its document hold.

    What a document is about stands at its top; a sentence further down does not say it again.
    """
    query = "SELECT id, document_id FROM passage WHERE id IN (SELECT value FROM json_each(?))"
    rows = cast("list[tuple[int, int]]", database.execute(query, (json.dumps(list(found)),)).fetchall())
    held: dict[int, set[int]] = {}
    for passage_id, document_id in rows:
        held.setdefault(document_id, set()).update(found[passage_id].shares)
    for passage_id, document_id in rows:
        beside = held[document_id] - found[passage_id].shares.keys()
        found[passage_id].score += BESIDE_WEIGHT * sum(rarities[at] for at in beside)


@dataclass(frozen=True)
class _Concept:
    """A content word of a question, with all that is searched for it.

    Attributes:
        exact: its stems in each language, which stand in passages as they are.
        within: its stems as parts of compounds, and the parts that it is made of itself.
        count: passages that match one of them, at most `COMMON` + 1 of each.
    """

    exact: tuple[str, ...]
    inside: tuple[str, ...] = ()
    made_of: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()
    count: int = 0

    @classmethod
    def of(cls, database: apsw.Connection, word: str) -> _Concept:
        exact = tuple(dict.fromkeys(stem(word, language) for language in LANGUAGES))
        inside = tuple(one for one in exact if len(one) >= SHORTEST_PART and one.isalpha())
        begun = tuple(
            dict.fromkeys(one[:-1] if one.endswith("t") and len(one) > 6 else one for one in inside if len(one) > 4)
        )
        made_of = _made_of(database, stem(word, "de"))
        one = cls(exact, inside, made_of, begun)
        counts = (_count(database, table, query) for table, query in one._queries())
        return replace(one, count=next(filter(None, counts), 0))

    def _queries(self) -> Iterable[tuple[str, str]]:
        """Return what is searched for where, the best first."""
        if self.exact:
            yield "word", _any_of(self.exact)
        if self.begun:
            yield "word", " OR ".join(f'"{term}"*' for term in self.begun)
        if self.inside:
            yield "part", _any_of(self.inside)
        if self.made_of:
            yield "word", _any_of(self.made_of)

    def rarity(self, passages: int) -> float:
        """Return the inverse document frequency."""
        return math.log(1 + (passages + 0.5) / (self.count + 0.5))

    def found(
        self, database: apsw.Connection, rarity: float, document_ids: Sequence[int] | None
    ) -> dict[int, tuple[float, float]]:
        """Return the BM25 and the weight of each passage that matches."""
        scores: dict[int, tuple[float, float]] = {}
        alike = list(self._queries())[1:]
        for table, query in alike:
            for passage_id, _ in _rows(database, table, "1", query, document_ids):
                scores[passage_id] = (rarity * PART_WEIGHT, PART_WEIGHT)
        for passage_id, _ in _rows(database, "word", "1", f"{{heading name}} : ({_any_of(self.exact)})", document_ids):
            scores[passage_id] = (rarity * HEADING_WEIGHT, HEADING_WEIGHT)
        rank = "-bm25(word)"
        for passage_id, score in _rows(database, "word", rank, f"text : ({_any_of(self.exact)})", document_ids):
            known, _ = scores.get(passage_id, (0.0, 0.0))
            # A common word has almost no BM25: that still decides between passages that are alike in all else.
            scores[passage_id] = (max(score, known) + TIE_WEIGHT * score, 1.0)
        return scores


def _made_of(database: apsw.Connection, word: str) -> tuple[str, ...]:
    """Return the words of the index that a compound is made of; none if its end is not among them."""
    for first, second in splits(word):
        known = [part for part in (first, second) if _count(database, "word", _any_of([part]), most=1)]
        if second in known:
            return tuple(known)
    return ()


def _rows(
    database: apsw.Connection, table: str, score: str, match: str, document_ids: Sequence[int] | None
) -> list[tuple[int, float]]:
    within = "" if document_ids is None else _WITHIN
    values = (match, *([] if document_ids is None else [json.dumps(list(document_ids))]))
    query = f"SELECT rowid, {score} FROM {table} WHERE {table} MATCH ? {within}"  # noqa: S608
    return cast("list[tuple[int, float]]", database.execute(query, values).fetchall())


def _count(database: apsw.Connection, table: str, match: str, most: int = COMMON + 1) -> int:
    query = f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {table} MATCH ? LIMIT ?)"  # noqa: S608
    return cast(int, database.execute(query, (match, most)).get)


def _any_of(terms: Sequence[str]) -> str:
    return " OR ".join(f'"{term}"' for term in terms)
