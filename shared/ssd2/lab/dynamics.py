"""Token changes during a decode, over the five ranges of timesteps of §3.1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ssd2.algorithm.collaboration import Timestep
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS
from ssd2.demo.generator import Item
from ssd2.evaluation.jsonl import append_result, read_results
from ssd2.evaluation.pair import Pair, answer_batch
from ssd2.evaluation.rows import items_sha256

RANGES = 5

Watched: TypeAlias = tuple[Pair, Sequence[Item], CollaborationParams, DecodingParams]
"""A pair, what it is asked, and how it answers."""


@dataclass(frozen=True)
class Dynamics:
    """Changes of the ensembled logits' argmax from timestep to timestep, over all tokens of all blocks.

    Attributes:
        timesteps: of a block, decreasing.
        changed: share of tokens that differ from the previous timestep; starts at the second.
        settled: share of tokens that equal the block's last.
    """

    timesteps: tuple[int, ...]
    changed: tuple[float, ...]
    settled: tuple[float, ...]

    def changes_by_range(self) -> list[float]:
        """Return how often a token changes in (0.8T, T], (0.6T, 0.8T], … (0, 0.2T]."""
        sums = [0.0] * RANGES
        for t, share in zip(self.timesteps[1:], self.changed, strict=True):
            sums[RANGES - 1 - (t - 1) * RANGES // TRAINED_TIMESTEPS] += share
        return sums

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of --json."""
        return {**asdict(self), "changes_by_range": self.changes_by_range()}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Dynamics:
        """Read what `as_json` wrote."""
        return cls(*(tuple(line[name]) for name in ("timesteps", "changed", "settled")))


def measure_dynamics(
    pair: Pair,
    items: Sequence[Item],
    collaboration: CollaborationParams,
    params: DecodingParams,
    *,
    seed: int = 0,
    batch_size: int = 25,
    on_progress: Callable[[int], object] = lambda _: None,
) -> Dynamics:
    """Decode answers and count how their tokens change.

    Args:
        pair: θ_core and θ_user.
        items: questions to answer.
        collaboration: λ and α.
        params: how to decode, to each block's last timestep; with stop = 0 all five ranges are seen.
        seed: of the decodes.
        batch_size: items decoded at once.
        on_progress: called with the number of answers since the last call.
    """
    params = params.with_all_timesteps()
    watch = _Watch(len(params.timesteps), pair.core.model.config.stop_ids)
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        seeds = [Seeds.reproducible(seed + start + row) for row in range(len(batch))]
        answer_batch(pair, batch, collaboration, params, seeds, on_timestep=watch.see)
        on_progress(len(batch))
    return Dynamics(
        params.timesteps,
        tuple((watch.changed / watch.tokens).tolist()),
        tuple((watch.settled / watch.tokens).tolist()),
    )


def dynamics_kept(file: Path) -> Callable[..., Dynamics]:
    """Return `measure_dynamics`, adding its result to a file of JSON lines; one found there is not computed again."""

    def measured(
        pair: Pair,
        items: Sequence[Item],
        collaboration: CollaborationParams,
        params: DecodingParams,
        *,
        seed: int = 0,
        on_progress: Callable[[int], object] = lambda _: None,
    ) -> Dynamics:
        setting = {
            **asdict(collaboration),
            **asdict(params.with_all_timesteps()),
            "core_sha256": pair.core.sha256,
            "user_sha256": pair.user.sha256,
            "items": len(items),
            "items_sha256": items_sha256(items),
            "seed": seed,
        }
        found = next((line for line in read_results(file) if line.get("setting") == setting), None)
        if found:
            on_progress(len(items))
            return Dynamics.from_json(found)
        seen = measure_dynamics(pair, items, collaboration, params, seed=seed, on_progress=on_progress)
        append_result(file, {"setting": setting, **seen.as_json()})
        return seen

    return measured


class _Watch:
    """Counts over the blocks of a decode; blocks behind an answer's end are left out."""

    def __init__(self, steps: int, stop_ids: Sequence[int]) -> None:
        self.changed, self.settled, self.tokens = torch.zeros(steps - 1), torch.zeros(steps), 0
        self._steps, self._stop_ids = steps, tuple(stop_ids)
        self._block: list[Tensor] = []

    def see(self, timestep: Timestep) -> None:
        """Count one timestep."""
        answer_ids = timestep.view.answer_ids
        goes_on = ~torch.isin(answer_ids, torch.tensor(self._stop_ids, device=answer_ids.device)).any(-1)
        self._block.append(timestep.mixed.argmax(-1)[goes_on].cpu())
        if len(self._block) == self._steps:
            tokens = torch.stack(self._block)  # [steps, rows, L]
            self.changed += (tokens[1:] != tokens[:-1]).sum((1, 2))
            self.settled += (tokens == tokens[-1]).sum((1, 2))
            self.tokens += tokens[0].numel()
            self._block = []
