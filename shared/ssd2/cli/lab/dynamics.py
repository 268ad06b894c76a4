"""`ssd2 lab dynamics`: when in a decode tokens change."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssd2.cli.help import examples
from ssd2.cli.options import DEFAULT_LAMBDA, Alpha, AsJson, Core, Lambda, Seed, User, typed_command
from ssd2.demo.paths import CORE, RELATION, USER

if TYPE_CHECKING:
    from ssd2.algorithm.params import CollaborationParams
    from ssd2.evaluation.pair import Pair
    from ssd2.lab.dynamics import Dynamics, Watched

EXAMPLES = examples("ssd2 lab dynamics --limit 100 --out reports")
OURS, PAPERS = "pair", "algorithm_1"
"""Keys of --json: the given pair, and the pair of the order-free relation, trained and fed back as the paper does."""
STEPS = 200
"""Timesteps per block, unless told otherwise: 40 in each fifth."""


def dynamics(
    limit: Annotated[int, typer.Option(help="Questions to each pair, with the fact first.", min=1)] = 50,
    core: Core = CORE,
    user: User = USER,
    lambda_user: Lambda = DEFAULT_LAMBDA,
    alpha: Alpha = 1.0,
    steps: Annotated[int, typer.Option(help="Timesteps per block, from T down to 0.", min=2)] = STEPS,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the report.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Count how often tokens change in each fifth of the timesteps (§3.1).

    Beside the pair it watches the small pair of the order-free relation: trained by Algorithm 1 alone, with each
    model's own prediction fed back, as in the paper.
    """
    from tqdm import tqdm

    from ssd2.algorithm.params import CollaborationParams
    from ssd2.evaluation.pair import Pair
    from ssd2.lab.dynamics_report import dynamics_table

    pair = Pair.load(core, user)
    with tqdm(total=answers_of(limit), unit="answer") as bar:
        seen = watch(pair, CollaborationParams(lambda_user, alpha), limit, steps, seed, out, bar.update)
    typer.echo(json.dumps({name: one.as_json() for name, one in seen.items()}) if as_json else dynamics_table(seen))


def answers_of(limit: int) -> int:
    """Return how many answers are watched in all."""
    return limit * len((OURS, PAPERS))


def watch(
    pair: Pair,
    collaboration: CollaborationParams,
    limit: int,
    steps: int,
    seed: int,
    out: Path | None,
    on_progress: Callable[[int], object],
) -> dict[str, Dynamics]:
    """Watch answers with the fact first and, with `out`, write the report; a result found there is not computed again.

    Args:
        pair: θ_core and θ_user.
        collaboration: λ and α.
        limit: answers of each pair to watch.
        steps: timesteps per block.
        seed: of items and decodes.
        out: folder of results and report; None for none.
        on_progress: told how many answers have come since the last call.

    Returns:
        What was seen of this pair and of that of Algorithm 1.
    """
    from ssd2.lab.dynamics import dynamics_kept, measure_dynamics
    from ssd2.lab.dynamics_report import NAME, write_dynamics_report

    measured = dynamics_kept(out / f"{NAME}.jsonl") if out else measure_dynamics
    seen = {
        name: measured(*watched, seed=seed, on_progress=on_progress)
        for name, watched in _watched(pair, collaboration, limit, steps, seed)
    }
    if out:
        typer.echo(f"report in {write_dynamics_report(out, seen, limit, seed, typed_command())}", err=True)
    return seen


def _watched(
    pair: Pair, collaboration: CollaborationParams, limit: int, steps: int, seed: int
) -> Iterator[tuple[str, Watched]]:
    """Yield each pair with its items and how it decodes them."""
    from ssd2.algorithm.params import CollaborationParams
    from ssd2.demo.relation.text import evaluation_items
    from ssd2.evaluation.pair import Pair
    from ssd2.evaluation.rows import ROWS
    from ssd2.lab.claim import ALPHA, ANSWER_TOKENS, LAMBDA

    yield OURS, (pair, ROWS["reverse"].items(limit, seed), collaboration, pair.decoding(steps=steps, stop=0.0))
    papers = Pair.load(RELATION / "core", RELATION / "user")
    decoding = papers.decoding(steps=steps, stop=0.0, self_conditioning="own", max_tokens=ANSWER_TOKENS)
    yield PAPERS, (papers, evaluation_items("reverse", limit, seed), CollaborationParams(LAMBDA, ALPHA), decoding)
