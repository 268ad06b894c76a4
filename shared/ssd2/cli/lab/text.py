"""`ssd2 lab text`: automatic metrics of texts."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssd2.cli.help import ADVANCED, examples
from ssd2.cli.lab import bertscore as scoring
from ssd2.cli.options import AsJson, By, typed_command

if TYPE_CHECKING:
    from ssd2.lab.causal_scorer import CausalScorer
    from ssd2.lab.text_metrics import Likelihoods, Tokenize

EXAMPLES = examples(
    "ssd2 lab text ours.jsonl theirs.jsonl --model gpt2 --out reports",
    "ssd2 lab text answers.jsonl --by system --model models/gpt-neo --mauve --json",
    "ssd2 lab text answers.jsonl --by system --bertscore models/roberta-large",
)


Texts = Annotated[
    list[Path],
    typer.Argument(
        help='Files to measure, each a row of the table: .jsonl with {"text", "prompt", "reference"} per line, '
        "of which only text is required, or .txt with one text per line."
    ),
]
ScoringModel = Annotated[
    str | None,
    typer.Option(help="Causal language model for perplexity: a folder or a name on the hub.", show_default=False),
]
Mauve = Annotated[bool, typer.Option("--mauve", help="Compute MAUVE against the references (extra 'mauve').")]
Folder = Annotated[Path | None, typer.Option(help="Folder for the report.", show_default=False)]
TokenizerFile = Annotated[
    Path | None,
    typer.Option(
        help="tokenizer.json for Zipf and repetition.",
        show_default="that of --model, else words",
        rich_help_panel=ADVANCED,
    ),
]
Separator = Annotated[
    str,
    typer.Option(
        help="String between prompt and text if neither has white space there.",
        show_default="a space",
        rich_help_panel=ADVANCED,
    ),
]
MauveModel = Annotated[str, typer.Option(help="Model that embeds texts for MAUVE.", rich_help_panel=ADVANCED)]
Device = Annotated[str, typer.Option(help="Device of the models: cpu, cuda or cuda:N.", rich_help_panel=ADVANCED)]
BatchSize = Annotated[
    int, typer.Option(help="Texts per batch of --model and --bertscore.", min=1, rich_help_panel=ADVANCED)
]


def text(
    texts: Texts,
    model: ScoringModel = None,
    by: By = None,
    mauve: Mauve = False,
    bertscore: scoring.Encoder = None,
    out: Folder = None,
    as_json: AsJson = False,
    tokenizer: TokenizerFile = None,
    separator: Separator = " ",
    mauve_model: MauveModel = "gpt2-large",
    bertscore_layer: scoring.Layer = None,
    bertscore_idf: scoring.Idf = False,
    bertscore_baseline: scoring.Baseline = None,
    device: Device = "cpu",
    batch_size: BatchSize = 8,
) -> None:
    """Measure texts: perplexity, distinct n-grams, Zipf coefficient, repetition, MAUVE, BERTScore."""
    from ssd2.evaluation.generations import read_generations, separated
    from ssd2.lab.text_metrics import as_table, mauve_score, measure_groups, texts_to_score

    groups = separated(read_generations(texts, by), separator)
    wanted = scoring.Settings(bertscore, bertscore_layer, bertscore_idf, bertscore_baseline) if bertscore else None
    compared = scoring.compare(groups, wanted, device, batch_size) if wanted else None
    scorer = _scorer(model, device) if model else None
    tokenize, unit = _tokenize(tokenizer, scorer, model)
    likelihoods = _likelihoods(scorer, texts_to_score(groups), batch_size) if scorer else None
    score = partial(mauve_score, model=mauve_model, device=_gpu(device)) if mauve else None
    rows = measure_groups(groups, tokenize, likelihoods, score, compared.score if compared else None)
    how = f"Perplexity under {model}. " if model else "Without --model there is no perplexity. "
    how += f"Zipf and repetition count {unit}."
    if cut := sum(row.cut for row in rows):
        typer.echo(f"{cut} texts are longer than the positions of {model}; their ends were not scored", err=True)
        how += f" The ends of {cut} texts were not scored: they are longer than the model's positions."
    how += compared.how if compared else ""
    if out:
        from ssd2.lab.text_report import write_text_report

        typer.echo(f"report in {write_text_report(out, rows, how, typed_command())}", err=True)
    facts: dict[str, Any] = {"rows": [row.as_json() for row in rows], "model": model, "unit": unit}
    facts["bertscore"] = compared.settings if compared else None
    typer.echo(json.dumps(facts) if as_json else f"{as_table(rows)}\n\n{how}")


def _scorer(model: str, device: str) -> CausalScorer:
    from ssd2.lab.causal_scorer import CausalScorer

    return CausalScorer(model, device)


def _tokenize(file: Path | None, scorer: CausalScorer | None, model: str | None) -> tuple[Tokenize, str]:
    """Return a tokenizer and the name of its units."""
    from ssd2.models.tokenizer import Tokenizer

    if file:
        known = Tokenizer.from_file(file)
        return known.encode, f"tokens of {file}"
    if scorer:
        return lambda text: scorer.tokenizer.encode(text, add_special_tokens=False).ids, f"tokens of {model}"
    return str.split, "words"


def _likelihoods(scorer: CausalScorer, texts: list[tuple[str, str]], batch_size: int) -> Likelihoods:
    from tqdm import tqdm

    with tqdm(total=len(texts), unit="text") as bar:
        scored = scorer.score(texts, batch_size=batch_size, on_progress=bar.update)
    return dict(zip(texts, scored, strict=True))


def _gpu(device: str) -> int:
    """Return the GPU's number, as mauve-text takes it; -1 is the CPU."""
    kind, _, number = device.partition(":")
    return int(number or 0) if kind == "cuda" else -1
