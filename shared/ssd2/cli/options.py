"""Options that several commands share, and the command line as typed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ssd2.algorithm.params import CollaborationParams, parse_lambda
from ssd2.algorithm.timesteps import DEFAULT_STEPS
from ssd2.cli.help import ADVANCED

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Core = Annotated[Path, typer.Option(help="Checkpoint folder of the core model.", show_default="the demo's")]
User = Annotated[Path, typer.Option(help="Checkpoint folder of the user model.", show_default="the demo's")]
AutoregressiveCore = Annotated[
    Path | None,
    typer.Option(
        help="Checkpoint folder of a core model that writes token by token, for comparison.",
        show_default="the demo's, if there",
    ),
]
AutoregressiveUser = Annotated[
    Path | None,
    typer.Option(help="Checkpoint folder of its user model.", show_default="the demo's, if there"),
]
Limit = Annotated[int, typer.Option(help="Questions of each row.", min=1)]
Lambda = Annotated[
    float,  # or a rule: typer knows no unions
    typer.Option(
        "--lambda",
        "--lambda-user",
        parser=lambda value: parse_lambda(str(value)),
        metavar="<float|word>",
        help="Weight of the user model (λ), from 0 to 1; auto for one of each position, from what the notes change "
        "there; or difference, which adds that change, α times, to the core.",
    ),
]
DEFAULT_LAMBDA: Any = CollaborationParams().lambda_user
Alpha = Annotated[float, typer.Option(help="Contrastive strength (α): how strongly the notes count.")]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Timesteps per block.", show_default=f"as measured, else the model family's, {DEFAULT_STEPS} for ssd-2"
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(
        help="End a block once its tokens are unchanged for N timesteps; 0 runs all timesteps. Approximate: a later "
        "timestep could have changed a token.",
        show_default="as measured, else 0",
        rich_help_panel=ADVANCED,
    ),
]
Stop = Annotated[
    float | None,
    typer.Option(
        help="Early stop as a share of T; 0 decodes down to t = 1. Approximate above 0: the last timesteps are left "
        "out.",
        show_default="as measured, else 0",
        rich_help_panel=ADVANCED,
    ),
]
EntropyBound = Annotated[
    float | None,
    typer.Option(
        help="With --patience: end a block only while the mean entropy of the mix is below this, in nats.",
        show_default=False,
        rich_help_panel=ADVANCED,
    ),
]
Schedule = Annotated[
    str, typer.Option(help="Spacing of the timesteps: even or changes (§3.1).", rich_help_panel=ADVANCED)
]
CoreEvery = Annotated[
    int,
    typer.Option(
        help="Ask the core at every Nth timestep and reuse its last logits in between. Approximate above 1: answers "
        "change.",
        rich_help_panel=ADVANCED,
    ),
]
Projection = Annotated[str, typer.Option(help="Projection: greedy, sampling or multi-hot.", rich_help_panel=ADVANCED)]
TopP = Annotated[
    float, typer.Option(help="Nucleus of the sampling and multi-hot projections.", rich_help_panel=ADVANCED)
]
SelfConditioning = Annotated[
    str | None,
    typer.Option(
        help="Prediction fed back to each model: own, projection or mixed (both models in one process only).",
        show_default="as measured, else own",
        rich_help_panel=ADVANCED,
    ),
]
Logits = Annotated[
    str,
    typer.Option(
        help="Format of the core's logits: float16, uint8 or top-k:K. uint8 and top-k are approximate: a token can "
        "differ from that of the full logits.",
        rich_help_panel=ADVANCED,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the questions and of the decoding.", min=0)]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder for results and report; results found there are reused.", show_default=False),
]
Rows = Annotated[str, typer.Option(help="Rows to ask, separated by commas.", show_default="all", metavar="ROW,…")]
Results = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.jsonl", help="File for results; those found there are not computed again.", show_default=False
    ),
]
Answers = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.jsonl", help="File for all answers, as ssd2 lab text and judge read it.", show_default=False
    ),
]
By = Annotated[
    str | None,
    typer.Option(help="Group the rows of the table by this field, instead of by file.", show_default=False),
]


def typed_command() -> str:
    """Return the command line as typed, for a report."""
    return " ".join(["ssd2", *(shlex.quote(argument) for argument in sys.argv[1:])])
