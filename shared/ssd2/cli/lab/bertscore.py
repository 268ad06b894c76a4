"""BERTScore in `ssd2 lab text`: its options, and the scores of all groups with one encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssd2.cli.help import ADVANCED

if TYPE_CHECKING:
    from ssd2.evaluation.generations import Generation
    from ssd2.lab.bert_score import BertScore, ScoredMatch
    from ssd2.lab.bert_scorer import BertScorer

Encoder = Annotated[
    str | None,
    typer.Option(
        "--bertscore",
        help="Compute BERTScore against the references with this encoder: a folder or a name on the hub, such as "
        "roberta-large.",
        metavar="ENCODER",
        show_default=False,
    ),
]
Layer = Annotated[
    int | None,
    typer.Option(
        "--bertscore-layer",
        help="Layer of the encoder; 0 is the input of the first.",
        min=0,
        show_default="that of the metric's authors for encoders they tried, else the last",
        rich_help_panel=ADVANCED,
    ),
]
Idf = Annotated[
    bool,
    typer.Option(
        "--bertscore-idf",
        help="Weigh tokens by their inverse document frequency among the references.",
        rich_help_panel=ADVANCED,
    ),
]
Baseline = Annotated[
    Path | None,
    typer.Option(
        "--bertscore-baseline",
        help="Rescale by the layer's baseline in this file (lines LAYER,P,R,F, as the metric's authors publish them).",
        show_default=False,
        rich_help_panel=ADVANCED,
    ),
]


@dataclass(frozen=True)
class Settings:
    """Options of BERTScore.

    Attributes:
        encoder: folder or name on the hub.
        layer: None for the default.
        is_idf: True if tokens are weighed by their inverse document frequency.
        baseline: file, or None for scores as they are.
    """

    encoder: str
    layer: int | None
    is_idf: bool
    baseline: Path | None


@dataclass(frozen=True)
class Compared:
    """Texts of all groups, compared with their references.

    Attributes:
        score: returns the mean score of a group.
        settings: of the measurement, for --json.
        how: the same in sentences, with what was cut and what was empty.
    """

    score: Callable[[Sequence[Generation]], BertScore]
    settings: dict[str, Any]
    how: str


def compare(groups: Mapping[str, Sequence[Generation]], settings: Settings, device: str, batch_size: int) -> Compared:
    """Compare each text with its reference, showing progress.

    Raises:
        SlingshotError: if encoder, layer, baseline or device cannot be used, or a text has no reference.
    """
    from ssd2.lab.bert_score import mean_score, read_baseline
    from ssd2.lab.bert_scorer import BertScorer
    from ssd2.lab.text_metrics import pairs_to_compare, references_of

    pairs = pairs_to_compare(groups)
    scorer = BertScorer(settings.encoder, settings.layer, device)
    baseline = read_baseline(settings.baseline, scorer.layer) if settings.baseline else None
    every = [one for group in groups.values() for one in group]
    idf = scorer.idf(one.text for one in references_of(every)) if settings.is_idf else None
    scored = _scored(scorer, pairs, idf, batch_size)

    def score(group: Sequence[Generation]) -> BertScore:
        return mean_score([scored[one.text, one.reference or ""] for one in group], baseline)

    facts = {"encoder": settings.encoder, "layer": scorer.layer, "idf": settings.is_idf}
    facts["baseline"] = str(settings.baseline) if settings.baseline else None
    return Compared(score, facts, _how(settings, scorer, list(scored.values())))


def _scored(
    scorer: BertScorer, pairs: list[tuple[str, str]], idf: Mapping[int, float] | None, batch_size: int
) -> dict[tuple[str, str], ScoredMatch]:
    from tqdm import tqdm

    with tqdm(total=len(pairs), unit="pair") as bar:
        scored = scorer.score(pairs, idf=idf, batch_size=batch_size, on_progress=bar.update)
    return dict(zip(pairs, scored, strict=True))


def _how(settings: Settings, scorer: BertScorer, scored: Sequence[ScoredMatch]) -> str:
    """Return how the scores were computed; what was cut or empty goes to stderr too."""
    choice = ", that of the metric's authors" if scorer.is_known else ""
    how = f" BERTScore under {settings.encoder}, layer {scorer.layer} of {scorer.layers}{choice}, "
    how += "tokens weighed by idf, " if settings.is_idf else "all tokens weighing the same, "
    how += f"rescaled by {settings.baseline}." if settings.baseline else "not rescaled."
    notes = {
        "are longer than the encoder's positions, they or their references; the ends were not read": "is_cut",
        "have no token, they or their references, and score 0": "is_empty",
    }
    for note, name in notes.items():
        if count := sum(getattr(one, name) for one in scored):
            typer.echo(f"{count} texts {note}", err=True)
            how += f" {count} texts {note}."
    return how
