"""Documents and questions of the benchmark, read from the files beside this module."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd2.errors import InvalidParameter

HERE = Path(__file__).parent
FILES = HERE / "files"
"""The documents, as a person has them."""

FACTUAL_KINDS = ("fact", "date", "sum", "two-documents")
"""Kinds whose answers stand in the documents."""
KINDS = (*FACTUAL_KINDS, "absent", "public", "two-source")


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: unique.
        text: as a person asks it.
        language: "en" or "de".
        kind: one of `KINDS`.
        documents: names of the documents that answer it; of "public", of an irrelevant one; of "two-source", none.
        note: of "two-source", the note beside the question.
        accepted: required parts, each as its alternative spellings; of "absent", none.
        forbidden: spellings that make an answer wrong.
    """

    id: str
    text: str
    language: str
    kind: str
    accepted: tuple[tuple[str, ...], ...]
    forbidden: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    note: str = ""

    @property
    def is_factual(self) -> bool:
        """True if its answer stands in the documents."""
        return self.kind in FACTUAL_KINDS

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Question:
        """Read a line of a questions file."""
        return cls(
            id=line["id"],
            text=line["text"],
            language=line["language"],
            kind=line["kind"],
            accepted=tuple(tuple(spellings) for spellings in line["accepted"]),
            forbidden=tuple(line["forbidden"]),
            documents=tuple(line.get("documents", ())),
            note=line.get("note", ""),
        )


def read_questions() -> list[Question]:
    """Return all questions: about documents, public ones, then real two-source ones."""
    return [Question.from_json(line) for name in ("questions", "two_source") for line in _lines(name)]


def chosen_questions(kinds: Sequence[str] | None, limit: int | None) -> list[Question]:
    """Return some of the questions.

    Args:
        kinds: of `KINDS`; None: all.
        limit: most of each kind and language; None: all.

    Raises:
        InvalidParameter: if there is no such kind.
    """
    if unknown := set(kinds or ()) - set(KINDS):
        raise InvalidParameter(
            f"there is no kind of questions {min(unknown)!r}; choose from {', '.join(KINDS)}", parameter="kinds"
        )
    counted, chosen = Counter[tuple[str, str]](), []
    for question in read_questions():
        counted[question.kind, question.language] += 1
        if (not kinds or question.kind in kinds) and counted[question.kind, question.language] <= (
            limit or sys.maxsize
        ):
            chosen.append(question)
    return chosen


def read_documents() -> dict[str, tuple[str, ...]]:
    """Return the passages of each document, by file name, as the agent's reader cuts them."""
    return {line["document"]: tuple(line["passages"]) for line in _lines("passages")}


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
