"""BERTScore of texts: mean precision, recall and F1 against their references, with the reference program's settings.

Source: Zhang et al. 2020 (arXiv 1904.09675), §3; the layers are those of the authors' program, bert-score 0.3.13.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ssd2.errors import InvalidParameter
from ssd2.evaluation.intervals import mean_interval

LAYERS = {
    "albert-base-v2": 9,
    "albert-xxlarge-v2": 8,
    "bert-base-chinese": 8,
    "bert-base-multilingual-cased": 9,
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "deberta-base": 9,
    "deberta-large": 16,
    "deberta-large-mnli": 18,
    "deberta-v3-base": 9,
    "deberta-v3-large": 12,
    "deberta-v3-small": 4,
    "deberta-xlarge": 18,
    "deberta-xlarge-mnli": 40,
    "distilbert-base-multilingual-cased": 5,
    "distilbert-base-uncased": 5,
    "distilroberta-base": 5,
    "electra-base-discriminator": 9,
    "electra-large-discriminator": 14,
    "mpnet-base": 8,
    "roberta-base": 10,
    "roberta-large": 17,
    "roberta-large-mnli": 19,
    "scibert_scivocab_uncased": 8,
    "xlm-roberta-base": 9,
    "xlm-roberta-large": 17,
}
"""Layers by the last part of a model's name: those whose scores correlate best with people's on WMT16."""


class Match(NamedTuple):
    """BERTScore of one text against its reference, or its baseline."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ScoredMatch:
    """Score of one text.

    Attributes:
        match: precision, recall and F1; all 0 where one of the two texts has no token.
        is_cut: True if the end of one of them exceeds the encoder's positions and was left out.
        is_empty: True if one of them has no token.
    """

    match: Match
    is_cut: bool
    is_empty: bool


@dataclass(frozen=True)
class BertScore:
    """BERTScore of a group of texts.

    Attributes:
        precision: mean over the texts.
        recall: mean over the texts.
        f1: mean over the texts.
        f1_interval: its 95% interval by the normal approximation; None for a single text.
        empty: texts that count as 0, because they or their references have no token.
        cut: texts of which an end was not read, theirs or their references'.
    """

    precision: float
    recall: float
    f1: float
    f1_interval: tuple[float, float] | None
    empty: int
    cut: int


def known_layer(source: str) -> int | None:
    """Return the layer that the authors' program takes of a model, by the last part of its name or folder."""
    return LAYERS.get(Path(source).name)


def mean_score(scored: Sequence[ScoredMatch], baseline: Match | None = None) -> BertScore:
    """Return the means over the texts of a group.

        rescaled = (score - baseline) / (1 - baseline)

    Args:
        scored: at least one.
        baseline: score of unrelated texts, which becomes 0; None leaves the scores as they are.
    """
    matches = [rescaled(one.match, baseline) if baseline else one.match for one in scored]
    precision, recall, f1 = (statistics.fmean(values) for values in zip(*matches, strict=True))
    return BertScore(
        precision,
        recall,
        f1,
        # Rescaled scores have no lower end: a score of 0 lies far below the baseline.
        mean_interval([one.f1 for one in matches], float("-inf"), 1),
        sum(one.is_empty for one in scored),
        sum(one.is_cut for one in scored),
    )


def rescaled(match: Match, baseline: Match) -> Match:
    """Return the score on the scale on which the baseline is 0 and identity 1 (§5 of the authors' description)."""
    return Match(*((score - low) / (1 - low) for score, low in zip(match, baseline, strict=True)))


def read_baseline(file: Path, layer: int) -> Match:
    """Read a layer's baseline from a file as the authors publish them: a line "LAYER,P,R,F" and a line per layer.

    Raises:
        InvalidParameter: if the file cannot be read, is another, or lacks the layer.
    """
    try:
        title, *lines = file.read_text(encoding="utf-8").split()
        rows = [line.split(",") for line in lines]
        baselines = {int(number): Match(float(p), float(r), float(f)) for number, p, r, f in rows}
        if title != "LAYER,P,R,F":
            raise ValueError("its first line is another")
    except (OSError, ValueError) as error:
        raise InvalidParameter(
            f"{file} is not a baseline of BERTScore ({error}); give a file with the line LAYER,P,R,F, then a line "
            "for each layer",
            parameter="baseline",
        ) from error
    found = baselines.get(layer)
    if found is None or not all(score < 1 for score in found):
        raise InvalidParameter(
            f"{file} has no usable baseline of layer {layer}; give the one of this encoder", parameter="baseline"
        )
    return found
