"""What several commands share: options, and the line that was typed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Core = Annotated[Path, typer.Option(help="Checkpoint folder of θ_core.")]
User = Annotated[Path, typer.Option(help="Checkpoint folder of θ_user.")]
Limit = Annotated[int, typer.Option(help="Items of each kind.", min=1)]
Lambda = Annotated[float, typer.Option(help="Weight of the user model, 0 to 1.")]
Alpha = Annotated[float, typer.Option(help="Contrastive strength.")]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Timesteps a block is decoded with; default: what suits the family, 25 for SSD-2.", show_default=False
    ),
]
Patience = Annotated[
    int,
    typer.Option(help="A block ends once its tokens stay the same for so many timesteps after the first; 0: never."),
]
EntropyBound = Annotated[
    float | None,
    typer.Option(help="And only while the mean entropy of the mix is below this, in nats.", show_default=False),
]
Schedule = Annotated[str, typer.Option(help="How timesteps are spread: even or changes (§3.1).")]
CoreEvery = Annotated[
    int, typer.Option(help="Ask the core at every so many timesteps; its last logits in between. Approximate above 1.")
]
Projection = Annotated[str, typer.Option(help="greedy, sampling or multi-hot.")]
TopP = Annotated[float, typer.Option(help="Nucleus of the sampling and multi-hot projections.")]
SelfConditioning = Annotated[str, typer.Option(help="own, projection or mixed.")]
Logits = Annotated[str, typer.Option(help="How the core's logits travel: float16, uint8 or top-k:K.")]
Seed = Annotated[int, typer.Option(help="Of the items and of the decodes.", min=0)]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder for results and report; results found there are not computed again."),
]
By = Annotated[str | None, typer.Option(help="Field of the lines whose values are the rows, instead of files.")]


def typed_command() -> str:
    """What was typed, for a report."""
    return " ".join(["ssd2", *(shlex.quote(argument) for argument in sys.argv[1:])])
