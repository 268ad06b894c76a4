"""Runner of experiments on unseen items: setting by setting, storing each result at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssd2.algorithm.collaboration import Timestep
from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS
from ssd2.demo.generator import unseen_items
from ssd2.errors import InvalidParameter
from ssd2.evaluation.costs import COST_COLUMNS, BlockCosts
from ssd2.evaluation.exact_timesteps import ExactTimesteps
from ssd2.evaluation.experiments import Experiment, Setting
from ssd2.evaluation.intervals import wilson_interval
from ssd2.evaluation.jsonl import append_result, not_results, read_results
from ssd2.evaluation.two_source import Accuracy, Pair, answer_items, score
from ssd2.logits.format import FLOAT16

LATER_SETTINGS: dict[str, Any] = {
    "schedule": "even",
    "patience": None,
    "entropy_bound": None,
    "core_every": 1,
    "logits": str(FLOAT16),
}
"""Settings that results of the first reports do not name, with the values they were made with."""


@dataclass(frozen=True)
class Result:
    """Result of one setting.

    Attributes:
        label: of the setting.
        setting: λ, α, timesteps and so on, with the models, the items and the seed: all that it depends on.
        accuracy: shares of correct answers.
        items: of each kind.
        seconds_per_answer: wall time, all answers of a batch side by side.
        timesteps_per_block: mean; None in results from before it was counted.
        core_logits_per_block: mean, likewise.
        exact: share of timesteps whose projection is provably that of full logits; None where it was not counted.
        frame_bytes: of the core's logits at a timestep.
    """

    label: str
    setting: dict[str, Any]
    accuracy: Accuracy
    items: int
    seconds_per_answer: float
    timesteps_per_block: float | None = None
    core_logits_per_block: float | None = None
    exact: float | None = None
    frame_bytes: int | None = None

    @property
    def shares(self) -> dict[str, float]:
        """Measured shares, by their names in `Accuracy`."""
        return {name: share for name, share in asdict(self.accuracy).items() if share is not None}

    def interval(self, metric: str) -> tuple[float, float]:
        """95% interval of a share."""
        return wilson_interval(self.shares[metric], self.items)

    def as_json(self) -> dict[str, Any]:
        """Return a line of the results file, and of --json."""
        return {**asdict(self), "interval_95": {name: self.interval(name) for name in self.shares}}

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> Result:
        """Read a line that `as_json` wrote, also one without the latest settings and columns."""
        later = (*COST_COLUMNS, "exact", "frame_bytes")
        values = {name: line[name] for name in cls.__dataclass_fields__ if name in line or name not in later}
        setting = {**LATER_SETTINGS, **line["setting"]}
        return cls(**{**values, "setting": setting, "accuracy": Accuracy(**line["accuracy"])})


def run_experiment(
    pair: Pair,
    experiment: Experiment,
    *,
    limit: int,
    seed: int = 0,
    batch_size: int = 50,
    results_file: Path | None = None,
    on_progress: Callable[[str, int], None] = lambda _label, _answers: None,
    on_result: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Answer the same items with every setting of an experiment.

    Args:
        pair: θ_core and θ_user.
        experiment: what to compare.
        limit: items of each kind.
        seed: of the items and of the decodes.
        batch_size: items decoded at once; no answer depends on it.
        results_file: JSON lines; a result is added as soon as it is there, and one found there is not
            computed again. None: nothing is kept.
        on_progress: told the setting and how many answers have come since the last call.
        on_result: given each result as soon as it is there.

    Returns:
        A result a setting, in order.

    Raises:
        InvalidParameter: if the results file cannot be read or written, or a setting goes below the models' timesteps.
    """
    _check_timesteps(pair, experiment)
    known = _read(results_file) if results_file else []
    results = []
    for setting in experiment.settings:
        depends_on = _depends_on(pair, setting, experiment.kinds, limit, seed)
        result = next((found for found in known if found.setting == depends_on), None)
        if result:
            on_progress(setting.label, limit * len(experiment.kinds))
        else:
            result = _run(pair, setting, experiment, depends_on, limit, seed, batch_size, on_progress)
            if results_file:
                append_result(results_file, result.as_json())
        results.append(result)
        on_result(result)
    return results


def _check_timesteps(pair: Pair, experiment: Experiment) -> None:
    lowest = max(checkpoint.model.config.trained_above for checkpoint in (pair.core, pair.user))
    for setting in experiment.settings:
        if setting.decoding.timesteps[-1] <= lowest * TRAINED_TIMESTEPS:
            raise InvalidParameter(
                f"{setting.label!r} decodes down to timestep {setting.decoding.timesteps[-1]}, and the models' experts "
                f"begin above {lowest:g}T; give a single model"
            )


def _run(
    pair: Pair,
    setting: Setting,
    experiment: Experiment,
    depends_on: dict[str, Any],
    limit: int,
    seed: int,
    batch_size: int,
    on_progress: Callable[[str, int], None],
) -> Result:
    started, config = time.perf_counter(), pair.core.model.config
    costs = BlockCosts(setting.collaboration, setting.decoding)
    exact = ExactTimesteps(setting.decoding)
    items = {kind: unseen_items(kind, limit, seed) for kind in experiment.kinds}

    def see(timestep: Timestep) -> None:
        costs.see(timestep)
        if experiment.counts_exact:
            exact.see(timestep)

    answers = {
        kind: answer_items(
            pair,
            items[kind],
            setting.collaboration,
            setting.decoding,
            seed,
            batch_size,
            lambda count: on_progress(setting.label, count),
            setting.logits_format,
            see,
        )
        for kind in experiment.kinds
    }
    frame_bytes = setting.decoding.block_size * setting.logits_format.bytes_per_position(config.vocab_size)
    return Result(
        label=setting.label,
        setting=depends_on,
        accuracy=score(items, answers),
        items=limit,
        seconds_per_answer=round((time.perf_counter() - started) / (limit * len(experiment.kinds)), 4),
        **costs.as_dict(),
        exact=exact.share if experiment.counts_exact else None,
        frame_bytes=frame_bytes if experiment.counts_exact else None,
    )


def _depends_on(pair: Pair, setting: Setting, kinds: Sequence[str], limit: int, seed: int) -> dict[str, Any]:
    return {
        **asdict(setting.collaboration),
        **asdict(setting.decoding),
        "logits": str(setting.logits_format),
        "core_sha256": pair.core.sha256,
        "user_sha256": pair.user.sha256,
        "family": pair.family,
        "kinds": list(kinds),
        "items": limit,
        "seed": seed,
    }


def _read(file: Path) -> list[Result]:
    """Return the results of earlier runs."""
    try:
        return [Result.from_json(line) for line in read_results(file)]
    except (KeyError, TypeError) as error:
        raise not_results(file) from error
