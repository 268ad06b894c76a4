"""The order-free benchmark: questions whose answer holds a value from each side, in any order, in one block.

Four systems answer the same unseen items: both models together, the core alone (λ = 0), the user model alone (λ = 1),
and an autoregressive pair mixed token by token. `ssd2.evaluation.rows` has the rows, `ssd2.evaluation.scorer` says
when an answer is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from ssd2.algorithm.params import CollaborationParams, DecodingParams
from ssd2.evaluation.costs import COST_COLUMNS
from ssd2.evaluation.experiments import Setting
from ssd2.evaluation.intervals import wilson_interval
from ssd2.evaluation.pair import Pair
from ssd2.evaluation.paired import Discordant
from ssd2.evaluation.result import Result
from ssd2.evaluation.rows import WITH_THE_FACT
from ssd2.evaluation.runner import Cell
from ssd2.logits.format import FLOAT16, LogitsFormat

TOGETHER, AUTOREGRESSIVE = "together", "autoregressive"
SYSTEMS = (TOGETHER, "core_only", "user_only", AUTOREGRESSIVE)

Results = Mapping[tuple[str, str], Result]
"""Results by row and system."""


def cells(
    pair: Pair,
    autoregressive: Pair | None,
    collaboration: CollaborationParams,
    decoding: DecodingParams,
    rows: Sequence[str],
    logits_format: LogitsFormat = FLOAT16,
) -> list[Cell]:
    """Plan the benchmark, row by row, system by system.

    Args:
        pair: θ_core and θ_user.
        autoregressive: pair that writes token by token; None leaves its system out.
        collaboration: λ and α of "together"; core alone is λ = 0, user alone λ = 1 with the same α.
        decoding: how the pair decodes; of the other pair the projection only, for it has no timesteps.
        rows: names of `ROWS`.
        logits_format: format of the core's logits.
    """
    alone = {"core_only": 0.0, "user_only": 1.0}
    settings = [
        (pair, Setting(TOGETHER, collaboration, decoding, logits_format)),
        *(
            (pair, Setting(system, replace(collaboration, lambda_user=weight), decoding, logits_format))
            for system, weight in alone.items()
        ),
    ]
    if autoregressive:
        token_by_token = autoregressive.decoding(
            projection=decoding.projection, top_p=decoding.top_p, max_tokens=decoding.max_tokens
        )
        settings.append((autoregressive, Setting(AUTOREGRESSIVE, collaboration, token_by_token, logits_format)))
    return [Cell(models, setting, row) for row in rows for models, setting in settings]


def by_row(cells: Sequence[Cell], results: Sequence[Result]) -> Results:
    """Return the results by row and system."""
    return {(cell.row, cell.setting.label): result for cell, result in zip(cells, results, strict=True)}


def as_json(results: Results, left_out: str | None) -> dict[str, Any]:
    """Return the JSON object of the benchmark.

    Args:
        results: of the benchmark.
        left_out: why there is no autoregressive pair; None if there is one.

    Returns:
        For each row the share of each system, null if it was left out, with n and intervals; below `paired`, how
        "together" compares with each other system item by item. Then the costs of each system, and the settings.
    """
    rows = {row: _row(results, row) for row in dict.fromkeys(row for row, _ in results)}
    if "not_known" in rows:
        rows["not_known"]["false_not_known"] = _false_not_known(results)
    if "long" in rows:
        for slots in ("private", "public"):
            rows["long"][slots] = _slots(results, slots)
    costs = {system: _costs(results, system) for system in _answering(results)}
    return {**rows, "autoregressive_left_out": left_out, "costs": costs, "settings": _settings(results)}


def _settings(results: Results) -> dict[str, Any]:
    """Return what the answers of both models together depend on, but for the items of a row."""
    setting = next(result.setting for (_, system), result in results.items() if system == TOGETHER)
    return {name: value for name, value in setting.items() if name not in ("row", "items_sha256")}


def _row(results: Results, row: str) -> dict[str, Any]:
    """Return the shares of right answers on one row, and the comparisons with "together"."""
    found = {system: results[row, system] for system in SYSTEMS if (row, system) in results}
    together = found[TOGETHER].outcome.right
    paired = {}
    for system, result in found.items():
        if system != TOGETHER:
            pair = Discordant.of(together, result.outcome.right)
            paired[system] = {"only_together": pair.only_first, f"only_{system}": pair.only_second, "p": pair.p_value}
    shares = {system: (result.share, result.items) for system, result in found.items()}
    return {**_shares(shares), "paired": paired}


def _false_not_known(results: Results) -> dict[str, Any]:
    """Share of the answers that say that the notes do not have it, of the items whose notes do."""
    shares = {}
    for system in _answering(results):
        found = [results[row, system] for row in WITH_THE_FACT if (row, system) in results]
        if found:
            total = sum(result.items for result in found)
            shares[system] = (sum(result.outcome.not_known * result.items for result in found) / total, total)
    return _shares(shares) if shares else {}


def _slots(results: Results, slots: str) -> dict[str, Any]:
    """Share of slots on the row "long"; the intervals count items, as the slots of one are not independent."""
    found = {system: results["long", system] for system in SYSTEMS if ("long", system) in results}
    return _shares({system: (getattr(result.outcome, slots), result.items) for system, result in found.items()})


def _shares(shares: Mapping[str, tuple[float, int]]) -> dict[str, Any]:
    """Return share, n and interval of each system, null for one that was left out."""
    return {
        **{system: round(shares[system][0], 4) if system in shares else None for system in SYSTEMS},
        "n": next(count for _, count in shares.values()),
        "interval_95": {system: list(wilson_interval(*share)) for system, share in shares.items()},
    }


def _costs(results: Results, system: str) -> dict[str, float]:
    found = [result for (_, one), result in results.items() if one == system]
    names = (*COST_COLUMNS, "seconds_per_answer")
    return {name: round(fmean(getattr(result, name) for result in found), 4) for name in names}


def _answering(results: Results) -> list[str]:
    """Systems that answered."""
    return [system for system in SYSTEMS if any(one == system for _, one in results)]
