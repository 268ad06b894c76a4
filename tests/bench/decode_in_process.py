"""A script: time of a token of both models decoded in one process, beside their networks.

It runs with the code of the checkout on its path, this one or one from before the packages were regrouped.

    python tests/bench/decode_in_process.py FOLDER TOKENS RUNS
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

try:
    from ssd2.algorithm.collaboration import decode_locally
    from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
    from ssd2.models.checkpoint import load_checkpoint
    from ssd2.models.predict import begin, begin_sampler, user_terms
except ImportError:  # the names of version 0.1
    from ssd2.checkpoint import load_checkpoint  # type: ignore[import-not-found, no-redef]
    from ssd2.collaboration import UserTerms, decode_locally  # type: ignore[import-not-found, no-redef]
    from ssd2.params import (  # type: ignore[import-not-found, no-redef]
        CollaborationParams,
        DecodingParams,
        Seeds,
    )

    from ssd2.models.predict import begin  # type: ignore[no-redef]

QUESTION, DOCUMENTS = [5, 6], [7, 8, 9]


def main(folder: Path, tokens: int, runs: int) -> None:
    """Print the medians of several answers, in ms of wall time a token."""
    torch.set_num_threads(1)
    model = load_checkpoint(folder).model
    network = _Timed(model.network.forward)
    model.network.forward = network
    times = []
    for _ in range(runs + 1):  # the first one warms up
        network.seconds, started = 0.0, time.perf_counter()
        count = len(_answer(model, tokens))
        times.append(1000 * (time.perf_counter() - started - network.seconds) / count)
    print(json.dumps({"decode_ms": median(times[1:]), "tokens": count}))


class _Timed:
    """A function whose time is added up."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self.seconds = function, 0.0

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        try:
            return self._function(*args, **keywords)
        finally:
            self.seconds += time.perf_counter() - started


def _answer(model: Any, tokens: int) -> list[int]:
    """Decode with all settings at their defaults but λ and α."""
    params, weights = DecodingParams.for_model(model.config, max_tokens=tokens), CollaborationParams(0.3, 1.0)
    core, seeds = begin(model, [QUESTION], "own"), [Seeds.reproducible(3)]
    given = model, [[*DOCUMENTS, *QUESTION]], [QUESTION], weights, "own"
    if "begin_sampler" in globals():
        return decode_locally(core, user_terms(*given), weights, begin_sampler(model.config, params, seeds))[0]
    ends = {"vocab_size": model.config.vocab_size, "eos_token_id": model.config.eos_token_id}
    return decode_locally(core, UserTerms(*given), weights, params, seeds, **ends)[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
