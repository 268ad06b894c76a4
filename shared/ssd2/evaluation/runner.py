"""Runner of experiments on unseen items: side by side on all processors, keeping each result at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssd2.algorithm.collaboration import Timestep
from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS
from ssd2.errors import InvalidParameter
from ssd2.evaluation.costs import BlockCosts
from ssd2.evaluation.exact_timesteps import ExactTimesteps
from ssd2.evaluation.experiments import Setting
from ssd2.evaluation.jsonl import append_result, not_results, read_results
from ssd2.evaluation.pair import Pair, answer_items
from ssd2.evaluation.result import Outcome, Result
from ssd2.evaluation.rows import ROWS, items_sha256
from ssd2.models.devices import one_thread_each


@dataclass(frozen=True)
class Cell:
    """One setting on one row.

    Attributes:
        pair: that answers.
        setting: how.
        row: name of the items' row.
    """

    pair: Pair
    setting: Setting
    row: str


@dataclass(frozen=True)
class Run:
    """How cells are run.

    Attributes:
        limit: items of each row.
        seed: of the items and of the decodes.
        batch_size: items decoded at once; no answer depends on it.
        workers: cells that are run side by side, each on one thread.
        results_file: JSON lines; a result is added as soon as it is there, and one found there is not computed again.
            None: nothing is kept.
        counts_exact: True to count the timesteps whose projection is provably that of full logits.
        keeps_answers: True to keep the texts of the answers in the results.
        on_progress: told the label of a setting and how many answers have come since the last call.
        on_result: given the results so far, by the numbers of their cells, whenever one was computed.
    """

    limit: int
    seed: int = 0
    batch_size: int = 50
    workers: int = 1
    results_file: Path | None = None
    counts_exact: bool = False
    keeps_answers: bool = False
    on_progress: Callable[[str, int], None] = lambda _label, _answers: None
    on_result: Callable[[Mapping[int, Result]], None] = lambda _: None

    def results(self, cells: Sequence[Cell]) -> list[Result]:
        """Run the cells.

        Returns:
            A result a cell, in order.

        Raises:
            InvalidParameter: if the results file cannot be read or written, or a setting goes below the models'
                timesteps.
        """
        for cell in cells:
            _check_timesteps(cell)
        known = self._read()
        results: dict[int, Result] = {}
        due: dict[int, dict[str, Any]] = {}
        for number, cell in enumerate(cells):
            depends_on = self._depends_on(cell)
            found = next((one for one in known if one.setting == depends_on and self._is_enough(one)), None)
            if found:
                self.on_progress(cell.setting.label, self.limit)
                results[number] = found
            else:
                due[number] = depends_on
        for number, result in self._computed(cells, due):
            if self.results_file:
                append_result(self.results_file, result.as_json())
            results[number] = result
            self.on_result(results)
        return [results[number] for number in range(len(cells))]

    def _computed(self, cells: Sequence[Cell], due: dict[int, dict[str, Any]]) -> Iterator[tuple[int, Result]]:
        """Compute what is due on several threads; whoever stops listening stops them after their batch."""
        stopped, lock = threading.Event(), threading.Lock()

        def progress(label: str, count: int) -> None:
            if stopped.is_set():
                raise _Stopped
            with lock:
                self.on_progress(label, count)

        with one_thread_each(), ThreadPoolExecutor(self.workers) as executor:
            futures: dict[Future[Result], int] = {
                executor.submit(self._run, cells[number], depends_on, progress): number
                for number, depends_on in due.items()
            }
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                stopped.set()
                executor.shutdown(wait=True, cancel_futures=True)

    def _run(self, cell: Cell, depends_on: dict[str, Any], progress: Callable[[str, int], None]) -> Result:
        started, setting, items = time.perf_counter(), cell.setting, ROWS[cell.row].items(self.limit, self.seed)
        costs = BlockCosts(setting.collaboration, setting.decoding)
        exact = ExactTimesteps(setting.decoding)

        def see(timestep: Timestep) -> None:
            costs.see(timestep)
            if self.counts_exact:
                exact.see(timestep)

        answers = answer_items(
            cell.pair,
            items,
            setting.collaboration,
            setting.decoding,
            self.seed,
            self.batch_size,
            lambda count: progress(setting.label, count),
            setting.logits_format,
            see,
        )
        vocab_size = cell.pair.core.model.config.vocab_size
        return Result(
            row=cell.row,
            setting=depends_on,
            outcome=Outcome.of(items, answers),
            seconds_per_answer=round((time.perf_counter() - started) / len(items), 4),
            **costs.as_dict(),
            exact=exact.share if self.counts_exact else None,
            frame_bytes=setting.decoding.block_size * setting.logits_format.bytes_per_position(vocab_size),
            answers=tuple(answers) if self.keeps_answers else (),
        )

    def _depends_on(self, cell: Cell) -> dict[str, Any]:
        return {
            **asdict(cell.setting.collaboration),
            **asdict(cell.setting.decoding),
            "logits": str(cell.setting.logits_format),
            "core_sha256": cell.pair.core.sha256,
            "user_sha256": cell.pair.user.sha256,
            "family": cell.pair.family,
            "row": cell.row,
            "items": self.limit,
            "items_sha256": items_sha256(ROWS[cell.row].items(self.limit, self.seed)),
            "seed": self.seed,
        }

    def _is_enough(self, found: Result) -> bool:
        """True if a result of an earlier run holds all that this one counts and keeps."""
        return not (self.counts_exact and found.exact is None) and not (self.keeps_answers and not found.answers)

    def _read(self) -> list[Result]:
        """Return the results of earlier runs."""
        if not self.results_file:
            return []
        try:
            return [Result.from_json(line) for line in read_results(self.results_file)]
        except (KeyError, TypeError) as error:
            raise not_results(self.results_file) from error


class _Stopped(Exception):
    """Ends a thread whose result nobody waits for."""


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_timesteps(cell: Cell) -> None:
    lowest = max(checkpoint.model.config.trained_above for checkpoint in (cell.pair.core, cell.pair.user))
    decoding = cell.setting.decoding
    if decoding.timesteps[-1] <= lowest * TRAINED_TIMESTEPS:
        raise InvalidParameter(
            f"{cell.setting.label!r} decodes down to timestep {decoding.timesteps[-1]}, and the models' experts "
            f"begin above {lowest:g}T; give a single model"
        )
