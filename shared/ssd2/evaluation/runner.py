"""Runs an experiment on unseen items, setting by setting, and keeps each result at once."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssd2.demo.generator import unseen_items
from ssd2.errors import InvalidParameter
from ssd2.evaluation.experiments import Experiment, Setting
from ssd2.evaluation.two_source import Accuracy, Pair, answer_items, score

_Z_95 = 1.959963984540054
"""Quantile of the standard normal distribution at 0.975."""


@dataclass(frozen=True)
class Result:
    """What one setting came to.

    Attributes:
        label: of the setting.
        setting: λ, α, timesteps and so on, with the models, the items and the seed: all that it depends on.
        accuracy: shares of correct answers.
        items: of each kind.
        seconds_per_answer: wall time, all answers of a batch side by side.
    """

    label: str
    setting: dict[str, Any]
    accuracy: Accuracy
    items: int
    seconds_per_answer: float

    @property
    def shares(self) -> dict[str, float]:
        """The shares that were measured, by their names in `Accuracy`."""
        return {name: share for name, share in asdict(self.accuracy).items() if share is not None}

    def interval(self, metric: str) -> tuple[float, float]:
        """95% interval of a share."""
        return wilson_interval(self.shares[metric], self.items)

    def as_json(self) -> dict[str, Any]:
        """As a line of the results file, and of --json."""
        return {**asdict(self), "interval_95": {name: self.interval(name) for name in self.shares}}

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> Result:
        """The inverse of `as_json`."""
        values = {name: line[name] for name in cls.__dataclass_fields__}
        return cls(**{**values, "accuracy": Accuracy(**line["accuracy"])})


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's score interval at 95%: still sensible where all or none are right.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22.

    Args:
        share: observed, in [0, 1].
        count: of observations.
    """
    spread = _Z_95**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = _Z_95 / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def run_experiment(
    pair: Pair,
    experiment: Experiment,
    *,
    limit: int,
    seed: int = 0,
    batch_size: int = 50,
    results_file: Path | None = None,
    on_progress: Callable[[str, int], None] = lambda _label, _answers: None,
) -> list[Result]:
    """Answer the same items with every setting.

    Args:
        pair: θ_core and θ_user.
        experiment: what to compare.
        limit: items of each kind.
        seed: of the items and of the decodes.
        batch_size: items decoded at once; no answer depends on it.
        results_file: JSON lines; a result is added as soon as it is there, and one found there is not
            computed again. None: nothing is kept.
        on_progress: told the setting and how many answers have come since the last call.

    Returns:
        A result a setting, in order.

    Raises:
        InvalidParameter: if the results file cannot be read or written.
    """
    known = _read(results_file) if results_file else []
    results = []
    for setting in experiment.settings:
        depends_on = _depends_on(pair, setting, experiment.kinds, limit, seed)
        result = next((found for found in known if found.setting == depends_on), None)
        if result:
            on_progress(setting.label, limit * len(experiment.kinds))
        else:
            result = _run(pair, setting, experiment.kinds, depends_on, limit, seed, batch_size, on_progress)
            if results_file:
                _append(results_file, result)
        results.append(result)
    return results


def _run(
    pair: Pair,
    setting: Setting,
    kinds: Sequence[str],
    depends_on: dict[str, Any],
    limit: int,
    seed: int,
    batch_size: int,
    on_progress: Callable[[str, int], None],
) -> Result:
    started = time.perf_counter()
    items = {kind: unseen_items(kind, limit, seed) for kind in kinds}
    answers = {
        kind: answer_items(
            pair,
            items[kind],
            setting.collaboration,
            setting.decoding,
            seed,
            batch_size,
            lambda count: on_progress(setting.label, count),
        )
        for kind in kinds
    }
    seconds = (time.perf_counter() - started) / (limit * len(kinds))
    return Result(setting.label, depends_on, score(items, answers), limit, round(seconds, 4))


def _depends_on(pair: Pair, setting: Setting, kinds: Sequence[str], limit: int, seed: int) -> dict[str, Any]:
    return {
        **asdict(setting.collaboration),
        **asdict(setting.decoding),
        "core_sha256": pair.core.sha256,
        "user_sha256": pair.user.sha256,
        "family": pair.family,
        "kinds": list(kinds),
        "items": limit,
        "seed": seed,
    }


def _read(file: Path) -> list[Result]:
    """The results of earlier runs; a last line cut short by a crash is left out."""
    if not file.exists():
        return []
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
        return [Result.from_json(json.loads(line)) for line in lines[:-1] if line]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidParameter(f"{file} does not hold results of an evaluation; give --out another folder") from error


def _append(file: Path, result: Result) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        cut_short = file.exists() and not file.read_bytes().endswith(b"\n") and file.stat().st_size > 0
        if cut_short:
            whole = file.read_bytes()
            file.write_bytes(whole[: whole.rfind(b"\n") + 1])
        with file.open("a", encoding="utf-8") as results:
            results.write(json.dumps(result.as_json(), ensure_ascii=False) + "\n")
    except OSError as error:
        raise InvalidParameter(f"cannot write results to {file}: {error}; give another --out") from error
