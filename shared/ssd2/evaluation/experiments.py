"""Experiments: comparisons of a pair's settings on the same questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ssd2.algorithm.params import SELF_CONDITIONING, CollaborationParams, DecodingParams
from ssd2.evaluation.two_source import EVALUATED_KINDS
from ssd2.logits.format import FLOAT16, UINT8, LogitsFormat

LAMBDAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)
"""λ_user of the paper's Table 1."""
ALPHAS = (0.0, 1.0)
ENTROPY_BOUND = 0.05
"""Bound of the mix's mean entropy, in nats."""


@dataclass(frozen=True)
class Setting:
    """One setting of an experiment.

    Attributes:
        label: unique in its experiment.
        collaboration: λ and α.
        decoding: decoding parameters.
        logits_format: format of the core's logits.
    """

    label: str
    collaboration: CollaborationParams
    decoding: DecodingParams
    logits_format: LogitsFormat = FLOAT16


@dataclass(frozen=True)
class Experiment:
    """A comparison of settings on the same questions.

    Attributes:
        name: of the command and of the files.
        title: of the report.
        question: that it answers, as a sentence.
        settings: the first is the reference.
        kinds: of questions; two-source ones need both models at once.
        counts_exact: True to count the timesteps whose projection is provably that of full logits.
    """

    name: str
    title: str
    question: str
    settings: tuple[Setting, ...]
    kinds: tuple[str, ...] = EVALUATED_KINDS
    counts_exact: bool = False


def two_source(collaboration: CollaborationParams, decoding: DecodingParams) -> Experiment:
    """λ x α, the counterpart of Table 1. At λ = 0 there is no α to vary."""
    pairs = [(lambda_user, alpha) for alpha in ALPHAS for lambda_user in LAMBDAS if lambda_user or not alpha]
    return Experiment(
        "two-source",
        "Both models together, by λ and α",
        "Does the small model help the large one, and how much weight should it have?",
        tuple(
            Setting(
                f"λ {lambda_user:g}, α {alpha:g}" if lambda_user else "λ 0",
                replace(collaboration, lambda_user=lambda_user, alpha=alpha),
                decoding,
            )
            for lambda_user, alpha in pairs
        ),
    )


def self_conditioning(collaboration: CollaborationParams, decoding: DecodingParams) -> Experiment:
    """Compare self-conditioning modes; the paper's, first, cannot cross the boundary."""
    modes = ("mixed", *(mode for mode in SELF_CONDITIONING if mode != "mixed"))
    return Experiment(
        "self-conditioning",
        "What the models are fed back",
        "The paper feeds back the mix, which the core must not see. What do the modes that it may see cost?",
        tuple(Setting(mode, collaboration, replace(decoding, self_conditioning=mode)) for mode in modes),
        kinds=("two-source",),
    )


def steps(collaboration: CollaborationParams, decoding: DecodingParams) -> Experiment:
    """Compare numbers of timesteps, and the early stop at 0.4T with decoding to t = 0."""
    to_the_end = [(42, 0.0), (1000, 0.0)]
    stopped = [(count, decoding.stop) for count in (250, 100, 50, 25, 10)]
    return Experiment(
        "steps",
        "How many timesteps a block takes",
        "How few timesteps are enough, and does the stop at 0.4T cost anything? "
        "42 timesteps down to t = 0 are as far apart as 25 down to 0.4T.",
        tuple(
            Setting(
                f"{count} down to {f'{stop:g}T' if stop else '0'}",
                collaboration,
                replace(decoding, steps=count, stop=stop),
            )
            for count, stop in (*stopped, *to_the_end)
        ),
        kinds=("two-source",),
    )


def few_timesteps(collaboration: CollaborationParams, decoding: DecodingParams) -> Experiment:
    """Compare ways to use fewer timesteps, or fewer questions to the core, than even timesteps."""
    ways: dict[str, dict[str, Any]] = {
        f"even, {decoding.steps}": {},
        "patience 1": {"patience": 1},
        "patience 2": {"patience": 2},
        "patience 3": {"patience": 3},
        f"patience 2, entropy below {ENTROPY_BOUND:g}": {"patience": 2, "entropy_bound": ENTROPY_BOUND},
        "changes, 25": {"schedule": "changes", "steps": 25},
        "changes, 10": {"schedule": "changes", "steps": 10},
        "even, 10": {"steps": 10},
        "even, 5": {"steps": 5},
        "even, 3": {"steps": 3},
        "core at every 2nd": {"core_every": 2},
        "core at every 5th": {"core_every": 5},
    }
    return Experiment(
        "few-timesteps",
        "Fewer timesteps, and the core asked less often",
        "How few timesteps a block, and how few logits of the core, are enough? With patience a block ends once its "
        "tokens stay the same for so many timesteps after the first.",
        tuple(Setting(label, collaboration, replace(decoding, **changed)) for label, changed in ways.items()),
        kinds=("two-source",),
    )


def projections(collaboration: CollaborationParams, decoding: DecodingParams) -> Experiment:
    """Compare the three logits projections of SSD-LM, with narrow and wide nuclei."""
    kinds = [("greedy", decoding.top_p), *((kind, p) for kind in ("sampling", "multi-hot") for p in (0.2, 0.5, 0.9))]
    return Experiment(
        "projections",
        "How logits become a simplex",
        "Which projection answers best?",
        tuple(
            Setting(
                kind if kind == "greedy" else f"{kind}, top-p {top_p:g}",
                collaboration,
                replace(decoding, projection=kind, top_p=top_p),
            )
            for kind, top_p in kinds
        ),
    )


def formats(collaboration: CollaborationParams, decoding: DecodingParams) -> Experiment:
    """Compare formats of the core's logits, for what fewer bytes cost."""
    compared = (FLOAT16, UINT8, *(LogitsFormat("top-k", k) for k in (64, 16, 4)))
    return Experiment(
        "formats",
        "What fewer bytes cost",
        "The core's logits are most of what crosses. What do fewer bytes of them cost, and how often can the device "
        "prove that they cost nothing?",
        tuple(Setting(str(how), collaboration, decoding, how) for how in compared),
        counts_exact=True,
    )


EXPERIMENTS: dict[str, Callable[[CollaborationParams, DecodingParams], Experiment]] = {
    "two-source": two_source,
    "self-conditioning": self_conditioning,
    "steps": steps,
    "few-timesteps": few_timesteps,
    "projections": projections,
    "formats": formats,
}
"""Experiments by the name of their command."""
