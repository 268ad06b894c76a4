"""State for resuming a run, written so that any number of ranks can read it.

A state is a folder state-STEP: the shards of torch.distributed.checkpoint, and run.json. It gets
that name when it is complete, so that a half-written one never stands for it.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException

from ssd2.errors import CheckpointInvalid
from ssd2.training.parallel import Execution, wait_for_all

RUN = "run.json"
_PREFIX, _UNFINISHED = "state-", ".new"


def all_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Weights and Adam's moments by name: the very tensors, to be written out or read into."""
    moments = {name: dict(optimizer.state[value]) for name, value in model.named_parameters()}
    return {"model": model.state_dict(), "moments": moments}


def save_state(out: Path, step: int, run: dict[str, Any], tensors: dict[str, Any], execution: Execution) -> None:
    """Write a state; all ranks have to call it. Older states go when it is complete.

    Args:
        out: folder of the run.
        step: that it has come to.
        run: what else a resume has to know, as JSON can hold it.
        tensors: of `all_tensors`.
        execution: this rank's place.
    """
    finished = out / f"{_PREFIX}{step}"
    unfinished = finished.with_name(finished.name + _UNFINISHED)
    if execution.is_first:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
    wait_for_all()
    with _quiet():
        state_dict_saver.save(tensors, checkpoint_id=unfinished, no_dist=not dist.is_initialized())
    if execution.is_first:
        (unfinished / RUN).write_text(json.dumps({"step": step, **run}) + "\n", encoding="utf-8")
        shutil.rmtree(finished, ignore_errors=True)
        unfinished.replace(finished)
        for older in _states(out):
            if older != finished:
                shutil.rmtree(older)
    wait_for_all()


def newest_state(out: Path) -> tuple[Path, dict[str, Any]] | None:
    """The last complete state of a run and its run.json, or None.

    Raises:
        CheckpointInvalid: if its run.json is damaged.
    """
    states = _states(out)
    if not states:
        return None
    try:
        return states[-1], json.loads((states[-1] / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(states[-1]) from error


def load_state(folder: Path, tensors: dict[str, Any]) -> None:
    """Read a state into tensors of the same names and shapes, in place; all ranks have to call it.

    Raises:
        CheckpointInvalid: if the state is damaged.
    """
    try:
        with _quiet():
            state_dict_loader.load(tensors, checkpoint_id=folder, no_dist=not dist.is_initialized())
    except (Exception, CheckpointException) as error:  # pickle and zip raise what they like; the other is no Exception
        raise _damaged(folder) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning that one process is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def _states(out: Path) -> list[Path]:
    found = (path for path in out.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal())
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def _damaged(folder: Path) -> CheckpointInvalid:
    return CheckpointInvalid(f"{folder} is damaged; delete it to start over")
