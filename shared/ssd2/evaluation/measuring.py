"""Measurement of a checkpoint's decoding settings: the cheapest that lose next to nothing against all timesteps.

Many settings are compared on the same items, and the cheapest of those that seem to lose nothing is partly a matter
of luck. So one that could be chosen has to lose little on fresh items too, and what it loses there is what is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssd2.algorithm.params import CollaborationParams, DecodingParams
from ssd2.errors import InvalidParameter
from ssd2.evaluation.costs import BlockCosts
from ssd2.evaluation.grid import Grid
from ssd2.evaluation.intervals import paired_interval
from ssd2.evaluation.jsonl import append_result, not_results, read_results
from ssd2.evaluation.pair import Pair, answer_items
from ssd2.evaluation.tasks import Task

FRESH = 1_000_000
"""Added to the seed of the items for those that the choice is made on."""


@dataclass(frozen=True)
class Trial:
    """One setting on one set of items.

    Attributes:
        decoding: the setting.
        kinds: of the items.
        right: whether the answer to each item was right.
        timesteps_per_block: mean.
        core_logits_per_block: mean.
    """

    decoding: DecodingParams
    kinds: tuple[str, ...]
    right: tuple[bool, ...]
    timesteps_per_block: float
    core_logits_per_block: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(self.right) / len(self.right)


@dataclass(frozen=True)
class Loss:
    """Accuracy that a setting loses against all timesteps, on the same items.

    Attributes:
        share: right answers fewer, as a share of the items; of the kind that loses most.
        interval: of it, at 95%.
        kind: the kind.
    """

    share: float
    interval: tuple[float, float]
    kind: str

    @classmethod
    def of(cls, trial: Trial, reference: Trial) -> Loss:
        """Compare item by item."""
        pairs = list(zip(trial.kinds, trial.right, reference.right, strict=True))
        losses = []
        for kind in dict.fromkeys(trial.kinds):
            lost = sum(one == kind and was and not now for one, now, was in pairs)
            gained = sum(one == kind and now and not was for one, now, was in pairs)
            count = trial.kinds.count(kind)
            losses.append(cls((lost - gained) / count, paired_interval(lost, gained, count), kind))
        return max(losses, key=lambda loss: loss.share)


@dataclass(frozen=True)
class Measurement:
    """Outcome of a measurement.

    Attributes:
        reference: all timesteps, on the items that the settings were compared on.
        trials: all settings that were compared, on the same items.
        chosen: the cheapest setting that loses little, on fresh items.
        loss: of it, there.
        reference_accuracy: with all timesteps, there.
    """

    reference: Trial
    trials: tuple[Trial, ...]
    chosen: Trial
    loss: Loss
    reference_accuracy: float


@dataclass
class Measuring:
    """A run of measurements.

    Attributes:
        pair: θ_core and θ_user.
        task: items and their judge.
        collaboration: λ and α.
        limit: items of each kind, as many again for the choice.
        tolerance: accuracy that may be lost.
        seed: of items and decodes.
        weights: fingerprints of both models' weights, which results belong to.
        results_file: JSON lines; a result is added as soon as it is there, and one found there is not computed again.
            None: nothing is kept.
        batch_size: items decoded at once; no answer depends on it.
        workers: batches decoded side by side, each on one thread.
        on_plan: told how many answers are going to come.
        on_progress: told the setting and how many answers have come since the last call.
    """

    pair: Pair
    task: Task
    collaboration: CollaborationParams
    limit: int
    tolerance: float
    seed: int
    weights: tuple[str, str]
    results_file: Path | None = None
    batch_size: int = 50
    workers: int = 1
    on_plan: Callable[[int], None] = lambda _: None
    on_progress: Callable[[str, int], None] = lambda _label, _answers: None
    _known: list[dict[str, Any]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise InvalidParameter(f"tolerance is {self.tolerance}; it is a share of the answers, such as 0.01")
        self._known = read_results(self.results_file) if self.results_file else []

    def run(self, grid: Grid, *, whole: bool = False) -> Measurement:
        """Compare the settings of a grid and choose one.

        Args:
            grid: what is tried.
            whole: every setting of it, also one that cannot be cheaper than another that loses little.

        Raises:
            InvalidParameter: if the results file cannot be read or written, or the models have no timesteps.
        """
        grid = grid.of_pair(self.pair)
        bases = sorted(grid.without_patience(self.pair), key=lambda decoding: decoding.steps)  # all have room
        references = [self._trial(decoding, self.seed) for decoding in grid.references(self.pair)]
        reference = max(references, key=lambda trial: trial.accuracy)
        fresh = self._trial(reference.decoding, self.seed + FRESH)
        confirmed = [fresh]
        trials = [*references]
        for base in bases:
            trials += self._around(base, grid, reference, confirmed, whole)
        chosen = min(confirmed, key=_cost)
        return Measurement(reference, tuple(trials), chosen, Loss.of(chosen, fresh), fresh.accuracy)

    def _around(
        self, base: DecodingParams, grid: Grid, reference: Trial, confirmed: list[Trial], whole: bool
    ) -> list[Trial]:
        """Try a setting, and if it loses little each patience with it.

        Args:
            base: without patience.
            grid: what is tried.
            reference: all timesteps.
            confirmed: settings on fresh items that lose little there too, all timesteps first; grows.
            whole: whether to try what cannot be cheaper than these.
        """
        found: list[Trial] = []
        variants = list(grid.with_patience(base, self.pair.core.model.config.vocab_size))
        fewest_of_all = min([base.steps, *(fewest for _, fewest in variants)])
        for decoding, fewest in [(base, fewest_of_all), *variants]:
            cheapest = min(trial.timesteps_per_block for trial in confirmed)
            if not whole and fewest >= cheapest and decoding.steps > cheapest:
                continue
            found.append(trial := self._trial(decoding, self.seed))
            loses_little = self._loses_little(trial, reference)
            if loses_little and trial.timesteps_per_block <= cheapest:
                fresh = self._trial(decoding, self.seed + FRESH)
                loses_little = self._loses_little(fresh, confirmed[0])
                confirmed += [fresh] if loses_little else []
            if decoding is base and not loses_little and not whole:
                break
        return [trial for trial in found if trial.decoding not in grid.references(self.pair)]

    def _loses_little(self, trial: Trial, reference: Trial) -> bool:
        return Loss.of(trial, reference).share <= self.tolerance

    def _trial(self, decoding: DecodingParams, seed: int) -> Trial:
        """Answer the items of a seed with a setting, or find the result of an earlier run."""
        depends_on = self._depends_on(decoding, seed)
        line = next((line for line in self._known if line.get("setting") == depends_on), None)
        if line is None:
            line = {"setting": depends_on, **self._measured(decoding, seed)}
            self._known.append(line)
            if self.results_file:
                append_result(self.results_file, line)
        try:
            values = {name: line[name] for name in ("timesteps_per_block", "core_logits_per_block")}
            return Trial(decoding, tuple(line["kinds"]), tuple(line["right"]), **values)
        except (KeyError, TypeError) as error:
            raise not_results(self.results_file or Path()) from error

    def _measured(self, decoding: DecodingParams, seed: int) -> dict[str, Any]:
        items, costs = self.task.items(self.limit, seed), BlockCosts(self.collaboration, decoding)
        self.on_plan(len(items))
        answers = answer_items(
            self.pair,
            items,
            self.collaboration,
            decoding,
            seed,
            self.batch_size,
            lambda count: self.on_progress(label_of(decoding), count),
            on_timestep=costs.see,
            workers=self.workers,
        )
        right = [self.task.is_right(item, answer) for item, answer in zip(items, answers, strict=True)]
        return {"kinds": [item.kind for item in items], "right": right, **costs.as_dict()}

    def _depends_on(self, decoding: DecodingParams, seed: int) -> dict[str, Any]:
        core, user = self.weights
        weights = {"core_weights_sha256": core, "user_weights_sha256": user}
        items = {"task": self.task.name, "items": self.limit, "seed": seed}
        return {**asdict(self.collaboration), **asdict(decoding), **weights, **items}


def label_of(decoding: DecodingParams) -> str:
    """Return a setting in words."""
    patience = f"patience {decoding.patience}" if decoding.patience else "no patience"
    return f"{decoding.steps} to {decoding.stop:g}T, {patience}, {decoding.self_conditioning}"


def _cost(trial: Trial) -> tuple[float, float]:
    """Timesteps of a block; of equals the more accurate one comes first."""
    return trial.timesteps_per_block, -trial.accuracy
