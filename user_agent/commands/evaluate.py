"""`user-agent evaluate`: measurements over documents that the project ships."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ssd2.cli.help import App, examples

evaluate = App(help="Measure search on everyday documents that the project ships. Needs no core.")

RETRIEVAL_EXAMPLES = examples("user-agent evaluate retrieval", "user-agent evaluate retrieval --json")


@evaluate.command(epilog=RETRIEVAL_EXAMPLES)
def retrieval(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Measure how often search finds the passages that answer a question, and says rightly that it found nothing.

    By words only, and, if multilingual-e5-small is downloaded, together with its sentence vectors.
    """
    from ssd2.models.embeddings import MULTILINGUAL_E5
    from user_agent.commands.docs import print_table
    from user_agent.evaluation.retrieval import evaluate as measured

    file = MULTILINGUAL_E5.path if MULTILINGUAL_E5.path.is_file() else None
    if file is None:
        typer.echo("by words only; `user-agent models get multilingual-e5-small` adds sentence vectors", err=True)
    rows = measured(file)
    if as_json:
        typer.echo(json.dumps({"rows": [row.as_json() for row in rows]}, ensure_ascii=False))
        return
    header = ("search", "questions", "count", "recall@1", "recall@5", "recall@10", "nDCG@10", "says nothing found")
    print_table(header, (row.as_text() for row in rows))
