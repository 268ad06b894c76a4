"""`ssd2 lab cad`: context-aware decoding with one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ssd2.cli.help import ADVANCED, examples
from ssd2.cli.options import AsJson, Projection, TopP
from ssd2.errors import InvalidParameter

EXAMPLES = examples(
    'ssd2 lab cad "When does the shop open?" --model facebook/opt-125m --context "The shop opens at nine."',
    'ssd2 lab cad "Where is the spare key?" --model shared/ssd2/demo/user --context-file notes.md --alpha 0.5',
)


def cad(
    question: Annotated[str, typer.Argument(help="Question to answer with the context and without it.")],
    model: Annotated[str, typer.Option(help="Checkpoint folder, or name of a causal language model on the hub.")],
    context: Annotated[
        list[str] | None, typer.Option(help="Text to answer from; repeatable.", show_default=False)
    ] = None,
    context_file: Annotated[
        Path | None, typer.Option(help="Text file to answer from, one passage per line.", show_default=False)
    ] = None,
    alpha: Annotated[float, typer.Option(help="Contrastive strength (α); 0 decodes plainly.")] = 0.5,
    max_tokens: Annotated[int, typer.Option(help="Maximum length of the answer, in tokens.")] = 48,
    as_json: AsJson = False,
    steps: Annotated[
        int | None,
        typer.Option(help="Timesteps per block.", show_default="the model family's", rich_help_panel=ADVANCED),
    ] = None,
    projection: Projection = "greedy",
    top_p: TopP = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the decoding.", min=0, rich_help_panel=ADVANCED)] = 0,
) -> None:
    """Answer from a context by context-aware decoding (the thesis, ch. 4).

    Mixes one model's logits as (1 + α) with the context - α without it: the ensemble at λ = 1.
    """
    from ssd2.algorithm.params import DecodingParams
    from ssd2.lab.context_aware import answer_from_context
    from ssd2.models.checkpoint import load_checkpoint
    from ssd2.models.pretrained import local_folder

    passages = [*(context or []), *_passages(context_file)]
    if not passages:
        raise InvalidParameter("there is no context; give --context TEXT or --context-file FILE")
    checkpoint = load_checkpoint(local_folder(model))
    params = DecodingParams.for_model(
        checkpoint.model.config, max_tokens=max_tokens, steps=steps, projection=projection, top_p=top_p
    )
    answers = {
        "with_contrast": answer_from_context(checkpoint, question, passages, alpha, params, seed),
        "with_context": answer_from_context(checkpoint, question, passages, 0.0, params, seed),
        "without_context": answer_from_context(checkpoint, question, [], 0.0, params, seed),
    }
    typer.echo(json.dumps({**answers, "alpha": alpha}, ensure_ascii=False) if as_json else _table(answers, alpha))


def _passages(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InvalidParameter(f"cannot read {file}: {error}; give a UTF-8 text file") from error


def _table(answers: dict[str, str], alpha: float) -> str:
    names = {
        "with_contrast": f"context-aware, α {alpha:g}",
        "with_context": "with the context, α 0",
        "without_context": "without the context",
    }
    return "\n".join(f"{name:24} {answers[key]}" for key, name in names.items())
