"""Reports of a training run: a bar on stderr, lines on stdout, metrics.jsonl, and TensorBoard."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from ssd2.errors import InvalidParameter

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class StepResult:
    """Results of one optimiser step.

    Attributes:
        loss: mean cross entropy over the tokens of the global batch, in nats.
        learning_rate: of this step.
        gradient_norm: before clipping.
        tokens: of the global batch, prompts included, padding not.
        seconds: that it took, with the reading and encoding of its examples.
    """

    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    seconds: float


class Metrics:
    """Writer of a run's results. Only the first rank has one that writes.

    Attributes:
        average: the loss averaged over the last steps; NaN before the first.
    """

    def __init__(
        self, out: Path, *, step: int, steps: int, every: int, is_first: bool, show: bool, tensorboard: bool
    ) -> None:
        """Open them.

        Args:
            out: folder of the run; metrics.jsonl there keeps what it has of steps up to `step`.
            step: the run has come to.
            steps: it has in all.
            every: steps between lines, each with the means since the last one.
            is_first: whether this rank prints and writes.
            show: print bar and lines.
            tensorboard: write its files too, to the folder tensorboard in `out`.

        Raises:
            InvalidParameter: if TensorBoard is asked for and not installed.
        """
        self._step, self._steps, self._every = step, steps, every
        self._is_first, self._show = is_first, show and is_first
        self._results: list[StepResult] = []
        self._validation_loss: float | None = None
        self.average = math.nan
        self._bar = tqdm(total=steps, initial=step, disable=not self._show, unit="step")
        self._board: Any = _summary_writer(out, step) if tensorboard and is_first else None
        self._file = _continued(out / METRICS, step) if is_first else None

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all."""
        self._bar.close()
        for opened in (self._file, self._board):
            if opened is not None:
                opened.close()

    def add(self, result: StepResult, validation_loss: float | None = None) -> None:
        """Take in a step's result, and the validation loss if it has just been measured."""
        self._step += 1
        self._results.append(result)
        self.average = result.loss if math.isnan(self.average) else 0.98 * self.average + 0.02 * result.loss
        speed = f"{result.tokens / result.seconds:,.0f}"
        self._bar.set_postfix(loss=f"{self.average:.4f}", tokens_per_s=speed, refresh=False)
        self._bar.update()
        if validation_loss is not None or self._step % self._every == 0 or self._step == self._steps:
            self._write(validation_loss)

    def _write(self, validation_loss: float | None) -> None:
        results, self._results = self._results, []
        line = {
            "step": self._step,
            "loss": sum(result.loss for result in results) / len(results),
            "learning_rate": results[-1].learning_rate,
            "tokens_per_s": sum(result.tokens for result in results) / sum(result.seconds for result in results),
            "grad_norm": sum(result.gradient_norm for result in results) / len(results),
            "validation_loss": validation_loss,
        }
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in line.items():
                if name != "step" and value is not None:
                    self._board.add_scalar(name, value, self._step)
        if self._show:
            tqdm.write(_as_text(line))


def _as_text(line: dict[str, Any]) -> str:
    text = "step {step}  loss {loss:.4f}  learning rate {learning_rate:.2e}  gradient norm {grad_norm:.2f}  "
    text += "{tokens_per_s:,.0f} tokens/s"
    if line["validation_loss"] is not None:
        text += "  validation loss {validation_loss:.4f}"
    return text.format(**line)


def _continued(path: Path, step: int) -> Any:
    """The metrics file without what a resumed run will write again."""
    lines = path.read_bytes().splitlines(keepends=True) if step and path.is_file() else []
    path.write_bytes(b"".join(line for line in lines if line.endswith(b"\n") and _is_up_to(step, line)))
    return path.open("a", encoding="utf-8")


def _is_up_to(step: int, line: bytes) -> bool:
    """True if the line belongs to a step up to `step`; unparsable lines do not."""
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):
        return False


def _summary_writer(out: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InvalidParameter(
            "TensorBoard logs require the tensorboard package; install it with: pip install 'slingshot[train]'"
        ) from error
    return SummaryWriter(str(out / "tensorboard"), purge_step=step + 1 if step else None)
