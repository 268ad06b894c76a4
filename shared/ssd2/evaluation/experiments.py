"""Experiments: comparisons of a pair's settings on the same questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ssd2.algorithm.params import RULES, SELF_CONDITIONING, CollaborationParams, DecodingParams, LambdaUser, lambda_text
from ssd2.evaluation.rows import IN_ONE_BLOCK, ROWS
from ssd2.logits.format import FLOAT16, UINT8, LogitsFormat

LAMBDAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)
"""λ_user of the paper's Table 1."""
ALPHAS = (0.0, 1.0)


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
        settings: that are compared.
        rows: names of the `ROWS` that are asked.
        reference: label of the setting that the others are compared with, item by item; "" for none.
        counts_exact: True to count the timesteps whose projection is provably that of full logits.
    """

    name: str
    title: str
    question: str
    settings: tuple[Setting, ...]
    rows: tuple[str, ...] = IN_ONE_BLOCK
    reference: str = ""
    counts_exact: bool = False


def weights(collaboration: CollaborationParams, decoding: DecodingParams) -> Experiment:
    """λ x α, the counterpart of Table 1. At λ = 0 there is no α to vary."""
    pairs = [(lambda_user, alpha) for alpha in ALPHAS for lambda_user in LAMBDAS if lambda_user or not alpha]
    return Experiment(
        "weights",
        "Both models together, by λ and α",
        "Two values stand in one block, one from each side. Does the small model help the large one, and how much "
        "weight should it have? With the fact first, a model that writes from left to right needs the place before it "
        "is written.",
        tuple(
            Setting(
                f"λ {lambda_user:g}, α {alpha:g}" if lambda_user else "λ 0",
                replace(collaboration, lambda_user=lambda_user, alpha=alpha),
                decoding,
            )
            for lambda_user, alpha in pairs
        ),
    )


def rules(collaboration: CollaborationParams, decoding: DecodingParams) -> Experiment:
    """λ of each position against every constant λ, on every row."""
    constants = [lambda_user for lambda_user in LAMBDAS if 0 < lambda_user < 1]
    compared: tuple[LambdaUser, ...] = (*RULES, *constants)
    return Experiment(
        "rules",
        "λ without a search",
        "Does a rule that finds λ by itself answer as well as the best constant λ?",
        tuple(
            Setting(f"λ {lambda_text(lambda_user)}", replace(collaboration, lambda_user=lambda_user), decoding)
            for lambda_user in compared
        ),
        rows=tuple(ROWS),
        reference="λ auto",
    )


def steps(collaboration: CollaborationParams, decoding: DecodingParams) -> Experiment:
    """Compare numbers of timesteps down to t = 0, without patience."""
    counts = (4, 8, 16, 25, 42, 100, 250)
    decoding = replace(decoding.with_all_timesteps(), stop=0.0)
    return Experiment(
        "steps",
        "How many timesteps a block takes",
        "How few timesteps, spread evenly down to t = 0, are enough?",
        tuple(Setting(f"{count} timesteps", collaboration, replace(decoding, steps=count)) for count in counts),
        reference="42 timesteps",
    )


def stop(collaboration: CollaborationParams, decoding: DecodingParams) -> Experiment:
    """Compare early stops with as many timesteps, without patience."""
    decoding = decoding.with_all_timesteps()
    return Experiment(
        "stop",
        "Where a decode may stop",
        f"What do {decoding.steps} timesteps lose if they end at a share of T (§3.1), where the noise has not gone?",
        tuple(
            Setting(f"stop at {share:g}T" if share else "down to 0", collaboration, replace(decoding, stop=share))
            for share in (0.0, 0.2, 0.4)
        ),
        reference="down to 0",
    )


def patience(collaboration: CollaborationParams, decoding: DecodingParams) -> Experiment:
    """Compare patiences, which end a block once its tokens stay the same."""
    decoding = decoding.with_all_timesteps()
    return Experiment(
        "patience",
        "When a block may end",
        "What does it cost to end a block once its tokens have stayed the same for so many timesteps?",
        tuple(
            Setting(f"patience {count}" if count else "none", collaboration, replace(decoding, patience=count))
            for count in (None, 1, 2, 4)
        ),
        reference="none",
    )


def self_conditioning(collaboration: CollaborationParams, decoding: DecodingParams) -> Experiment:
    """Compare self-conditioning modes, without patience; the paper's, "mixed", cannot cross the boundary."""
    decoding = decoding.with_all_timesteps()
    return Experiment(
        "self-conditioning",
        "What the models are fed back",
        "The paper feeds back the mix, which the core must not see. What do the modes that it may see cost?",
        tuple(Setting(mode, collaboration, replace(decoding, self_conditioning=mode)) for mode in SELF_CONDITIONING),
        reference="mixed",
    )


def few_timesteps(collaboration: CollaborationParams, decoding: DecodingParams) -> Experiment:
    """Compare other ways to ask the core less often than fewer timesteps and patience."""
    decoding = decoding.with_all_timesteps()
    even = f"even, {decoding.steps}"
    ways: dict[str, dict[str, Any]] = {
        even: {},
        f"changes, {decoding.steps}": {"schedule": "changes"},
        "core at every 2nd": {"core_every": 2},
        "core at every 5th": {"core_every": 5},
    }
    return Experiment(
        "few-timesteps",
        "The core asked less often",
        "May timesteps be spread otherwise than evenly, and the core's logits be used again?",
        tuple(Setting(label, collaboration, replace(decoding, **changed)) for label, changed in ways.items()),
        reference=even,
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
        reference="sampling, top-p 0.2",
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
        reference=str(FLOAT16),
        counts_exact=True,
    )


EXPERIMENTS: dict[str, Callable[[CollaborationParams, DecodingParams], Experiment]] = {
    "weights": weights,
    "rules": rules,
    "steps": steps,
    "stop": stop,
    "patience": patience,
    "self-conditioning": self_conditioning,
    "few-timesteps": few_timesteps,
    "projections": projections,
    "formats": formats,
}
"""Experiments by the name of their command."""
