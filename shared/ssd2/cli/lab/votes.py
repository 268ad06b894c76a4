"""`ssd2 lab votes`: blind votes of people on pairs of answers, and their agreement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssd2.cli.help import ADVANCED, App, Group, examples
from ssd2.cli.options import AsJson, By
from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    from ssd2.evaluation.generations import Generation

EXAMPLES = (
    "ssd2 lab votes ours.jsonl theirs.jsonl --rater ann",
    "ssd2 lab votes answers.jsonl --by system --between together core_only --rater ann --limit 50",
    "ssd2 lab votes report votes/ann.jsonl votes/bob.jsonl",
)


class _Votes(Group):
    default = "cast"


app = App(cls=_Votes, help="Vote on pairs of answers without knowing whose they are (§5.1), and report the votes.")

Answers = Annotated[
    list[Path],
    typer.Argument(
        help='Files of answers to compare, two rows: .jsonl with {"prompt", "text"} per line ("instruction" and '
        '"question" are prompts too).'
    ),
]
Rater = Annotated[str, typer.Option(help="Your name; your votes are in a file of this name.")]
Between = Annotated[
    tuple[str, str] | None,
    typer.Option(help="The two rows to compare, if there are more.", metavar="ROW ROW", show_default=False),
]
FirstPairs = Annotated[int | None, typer.Option(help="Judge only the first N pairs.", min=1, show_default="all")]
Folder = Annotated[Path, typer.Option(help="Folder for the votes; those found there are kept.")]
OrderSeed = Annotated[int, typer.Option(help="Seed of the order of each pair; raters have different orders.", min=0)]
Port = Annotated[
    int, typer.Option(help="Port of the page; 0 takes any free one.", min=0, max=65535, rich_help_panel=ADVANCED)
]
Votes = Annotated[list[Path], typer.Argument(help="Files of votes, one per rater.")]
System = Annotated[str | None, typer.Option(help="Row whose wins are counted.", show_default="the first by name")]


@app.command(epilog=examples(*EXAMPLES[:2]))
def cast(
    answers: Answers,
    rater: Rater,
    by: By = None,
    between: Between = None,
    limit: FirstPairs = None,
    out: Folder = Path("votes"),
    seed: OrderSeed = 0,
    port: Port = 0,
) -> None:
    """Open a page on this machine that shows each question with two answers in random order.

    Each vote is stored at once: stop with Ctrl-C and go on with the same command. This is the command that runs
    if no other is named.
    """
    from ssd2.evaluation.generations import read_generations
    from ssd2.lab.vote_server import VoteServer
    from ssd2.lab.votes import VotingSession, blind_pairs, votes_file

    file = votes_file(out, rater)
    pairs = blind_pairs(_compared(read_generations(answers, by), between), rater, seed)
    session = VotingSession(pairs, rater, file, limit)
    with VoteServer(session, port) as server:
        typer.echo(f"Open {server.url} in a browser on this machine; stop with Ctrl-C.")
        typer.echo(f"{session.done} of {session.total} pairs are judged; votes are stored in {file}", err=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo(f"\n{session.done} of {session.total} pairs are judged, in {file}", err=True)


def _compared(
    groups: Mapping[str, Sequence[Generation]], between: tuple[str, str] | None
) -> dict[str, Sequence[Generation]]:
    """Return the two groups to compare."""
    chosen = between or tuple(groups)
    if len(set(chosen)) != 2 or not set(chosen) <= set(groups):
        raise InvalidParameter(
            f"a comparison is of two rows, and here are {', '.join(groups)}; choose two of them", parameter="between"
        )
    return {label: groups[label] for label in chosen}


@app.command(epilog=examples(EXAMPLES[2]))
def report(votes: Votes, system: System = None, as_json: AsJson = False) -> None:
    """Print wins, ties and losses by rater and by majority, and Cohen's κ of each pair of raters."""
    from ssd2.lab.vote_results import agreement_table, count_votes, read_raters, votes_table

    results = count_votes(read_raters(votes), system)
    typer.echo(json.dumps(results.as_json()) if as_json else f"{votes_table(results)}\n\n{agreement_table(results)}")
