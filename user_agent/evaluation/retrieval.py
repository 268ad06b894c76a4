"""How well search finds the passages that answer a question, by words alone and together with sentence vectors."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from ssd2.evaluation.documents.questions import FILES
from user_agent.documents.collection import Collection
from user_agent.documents.passage import Passage
from user_agent.evaluation.retrieval_questions import Asked, retrieval_questions

DEPTHS = (1, 5, 10)

WITHOUT_DOCUMENT = ("nowhere", "public")
"""Kinds of questions about nothing there. An "absent" one is about a document that does not say it: its passages are
the right ones to show, so finding them is no fault."""


@dataclass(frozen=True)
class Outcome:
    """What a search found for one question.

    Attributes:
        question: that was asked.
        found: the passages, the best first, whatever `is_found` says.
        is_found: whether the search says that something was found.
        is_paraphrase: see `Asked.is_paraphrase`.
    """

    question: Asked
    found: Sequence[Passage]
    is_found: bool
    is_paraphrase: bool

    @property
    def ndcg(self) -> float:
        """Normalised discounted cumulative gain at 10: 1 if the passages that answer stand before all others."""
        open_parts, gain = list(self.question.parts), 0.0
        for rank, passage in enumerate(self.found[:10]):
            said = [part for part in open_parts if any(gold.is_in(passage) for gold in part)]
            gain += len(said[:1]) / math.log2(rank + 2)
            if said:
                open_parts.remove(said[0])
        return gain / sum(1 / math.log2(rank + 2) for rank in range(len(self.question.parts)))


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        search: "words" or "fused".
        questions: which ones.
        count: how many.
        recall_1, recall_5, recall_10: share of what answers them among the first passages; None of nothing there.
        ndcg_10: see `Outcome.ndcg`.
        nothing_found: share for which the search says that it found nothing: right only of nothing there.
    """

    search: str
    questions: str
    count: int
    recall_1: float | None
    recall_5: float | None
    recall_10: float | None
    ndcg_10: float | None
    nothing_found: float

    def as_json(self) -> dict[str, object]:
        """Return the row for programs."""
        return asdict(self)

    def as_text(self) -> tuple[str, ...]:
        """Return the row's cells."""
        figures = (self.recall_1, self.recall_5, self.recall_10, self.ndcg_10, self.nothing_found)
        cells = ("" if figure is None else f"{figure:.3f}" for figure in figures)
        return (self.search, self.questions, str(self.count), *cells)


def evaluate(
    embedding_file: Path | None, on_question: Callable[[int, int], None] = lambda done, total: None
) -> list[Row]:
    """Measure search over the everyday documents.

    Args:
        embedding_file: of the sentence vectors; None to measure words only.
        on_question: called with how many searches are done, of how many.
    """
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        files = {"words": None} if embedding_file is None else {"words": None, "fused": embedding_file}
        for at, (name, file) in enumerate(files.items()):
            with closing(Collection(Path(folder), None, file)) as library:
                library.link(FILES)
                library.sync()

                def show(done: int, of: int, before: int = at) -> None:
                    on_question(before * of + done, len(files) * of)

                outcomes = list(_outcomes(library, show))
            rows += [_row(name, label, some) for label, some in _groups(outcomes).items() if some]
    return rows


def _outcomes(library: Collection, on_question: Callable[[int, int], None]) -> Iterator[Outcome]:
    questions, passages = retrieval_questions(), library.passages()
    for done, question in enumerate(questions):
        on_question(done, len(questions))
        found, is_found = library.find(question.text)
        yield Outcome(question, found, is_found, bool(question.parts) and question.is_paraphrase(passages))


def _groups(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Divide the outcomes; a question stands in several groups."""
    answered = [one for one in outcomes if one.question.parts]
    groups: dict[str, list[Outcome]] = {"answerable": answered}
    for half in ("calibrating", "reporting"):
        groups[f"answerable, {half}"] = [one for one in answered if one.question.half == half]
    for language in ("en", "de"):
        groups[f"answerable, {language}"] = [one for one in answered if one.question.language == language]
        for half in ("calibrating", "reporting"):
            groups[f"answerable, {language}, {half}"] = [
                one for one in answered if (one.question.language, one.question.half) == (language, half)
            ]
    groups["answerable, paraphrase"] = [one for one in answered if one.is_paraphrase]
    for suffix in sorted({one.question.suffix for one in answered}):
        groups[f"answerable, .{suffix}"] = [one for one in answered if one.question.suffix == suffix]
    nothing = [one for one in outcomes if one.question.kind in WITHOUT_DOCUMENT]
    groups["nothing there"] = nothing
    for half in ("calibrating", "reporting"):
        groups[f"nothing there, {half}"] = [one for one in nothing if one.question.half == half]
    groups["in a document that does not say it"] = [one for one in outcomes if one.question.kind == "absent"]
    return groups


def _row(search: str, label: str, outcomes: Sequence[Outcome]) -> Row:
    count = len(outcomes)
    missed = sum(not one.is_found for one in outcomes) / count
    if not outcomes[0].question.parts:
        return Row(search, label, count, None, None, None, None, missed)
    first, fifth, tenth = (sum(one.question.recall(one.found[:depth]) for one in outcomes) / count for depth in DEPTHS)
    return Row(search, label, count, first, fifth, tenth, sum(one.ndcg for one in outcomes) / count, missed)
