"""What a question finds: words and sentence vectors fused, and one decision whether it finds anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from user_agent.documents.index import MOST, Match

Vectors: TypeAlias = NDArray[Any]

COVERAGE_WEIGHT = 2.0
"""Standard deviations of the cosine that all words of a question are worth; 1 to 4 do as well."""

LEAST_COVERAGE = 0.38
"""Without vectors: share of a question's content words, by how rare they are, that the best passage has to hold."""

COVERAGE_TELLS, MARGIN_TELLS, DOUBT = 8.14, 109.8, 11.6
"""A logistic regression on the calibrating half of the questions that search is measured by: something is found if the
first two, times the best coverage and the best cosine above the collection's mean, exceed the third."""

FEWEST = 50
"""Passages of a collection whose mean cosine says what is usual."""

BEST = 5
"""Passages that are found however far they lie behind the best one."""

NEAR_SHARE = 0.5
"""Of the best passage's score above the mean; what lies further behind takes room from better ones."""


@dataclass(frozen=True)
class Found:
    """Passages that a question finds, the best first.

    Attributes:
        ids: of the passages.
        is_found: false if none of them seems to be about the question: then none is given to the model.
    """

    ids: Sequence[int] = ()
    is_found: bool = False


@dataclass(frozen=True)
class Cosines:
    """Cosine of each passage that has a vector with a question.

    Attributes:
        ids: of the passages, [N].
        values: their cosines, [N].
    """

    ids: NDArray[np.int64]
    values: NDArray[np.float32]


def found_by_words(matches: Sequence[Match]) -> Found:
    """Return what words alone find."""
    if not matches:
        return Found()
    best = matches[0].score
    ids = [one.id for at, one in enumerate(matches) if at < BEST or one.score >= NEAR_SHARE * best]
    return Found(ids, max(one.coverage for one in matches) >= LEAST_COVERAGE)


def found_by_both(matches: Sequence[Match], cosines: Cosines) -> Found:
    """Return what words and vectors find together.

    Args:
        matches: by words.
        cosines: of all the passages searched.
    """
    if len(cosines.ids) < 2:
        return found_by_words(matches)
    mean, deviation = float(cosines.values.mean()), float(cosines.values.std()) or 1.0
    scores = (cosines.values - mean) / deviation
    at = {int(passage_id): place for place, passage_id in enumerate(cosines.ids)} if matches else {}
    without = [one for one in matches if one.id not in at]  # no vector yet
    for one in matches:
        if one.id in at:
            scores[at[one.id]] += COVERAGE_WEIGHT * one.coverage
    ids = np.concatenate([cosines.ids, np.array([one.id for one in without], np.int64)])
    scores = np.concatenate([scores, [COVERAGE_WEIGHT * one.coverage for one in without]])
    order = np.argsort(-scores, kind="stable")[:MOST]
    near = [
        int(ids[place])
        for rank, place in enumerate(order)
        if rank < BEST or scores[place] >= NEAR_SHARE * scores[order[0]]
    ]
    coverage = max((one.coverage for one in matches), default=0.0)
    if len(cosines.ids) < FEWEST:
        return Found(near, coverage >= LEAST_COVERAGE)
    margin = float(cosines.values.max()) - mean
    return Found(near, COVERAGE_TELLS * coverage + MARGIN_TELLS * margin > DOUBT)
