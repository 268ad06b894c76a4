"""One training run on many ranks: who computes what, and what is brought together.

Under torchrun every process is a rank. Each reads the whole global batch and computes its share of
the rows; the loss is a mean over the tokens of all of them, so a run is the same, up to rounding,
on any number of ranks.
"""

from __future__ import annotations

import gc
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from ssd2.errors import InvalidParameter
from ssd2.models.devices import check_device
from ssd2.models.ssd2 import SSD2
from ssd2.training.objective import Objective


@dataclass(frozen=True)
class Execution:
    """Computation of a run; nothing here changes what it learns.

    Attributes:
        device: where this rank computes.
        rank: which of the ranks this is, from 0.
        ranks: how many there are.
        sharding: "ddp": every rank holds the whole model; "fsdp": a share of weights, gradients and
            Adam's moments (FSDP2).
        micro_batch_size: the most sequences that a rank computes at once; its whole share if None.
        activation_checkpointing: compute a layer's inner values twice instead of keeping them.
    """

    device: str = "cpu"
    rank: int = 0
    ranks: int = 1
    sharding: str = "ddp"
    micro_batch_size: int | None = None
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.sharding not in ("ddp", "fsdp"):
            raise InvalidParameter(f"sharding is {self.sharding!r}; use 'ddp' or 'fsdp'", parameter="sharding")
        if self.sharding == "fsdp" and not dist.is_initialized():
            raise InvalidParameter(
                "sharding 'fsdp' needs several ranks; start the training with torchrun", parameter="sharding"
            )
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            raise InvalidParameter(f"the micro batch size is {self.micro_batch_size}; it must be at least 1")

    @property
    def is_first(self) -> bool:
        """True if this rank is the one that prints and writes."""
        return self.rank == 0


@contextmanager
def joined_ranks(device: str) -> Iterator[Execution]:
    """Join the other ranks if torchrun started this process, and part from them at the end if all went well.

    Args:
        device: "cpu" or "cuda"; a rank takes the GPU of its local number.

    Yields:
        This rank's place; one rank of one without torchrun.

    Raises:
        InvalidParameter: if the device cannot be used here.
    """
    if not dist.is_torchelastic_launched():
        check_device(device)
        yield Execution(device)
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    check_device(device)
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")
    yield Execution(device, dist.get_rank(), dist.get_world_size())
    # DDP's reducer must not be the last to hold the group: it would wait for gloo's thread with Python's lock in its
    # hand, and that thread may be waiting for the lock. So it goes first; and after an error, whose traceback holds
    # the model, the group stays until the process ends.
    gc.collect()
    dist.destroy_process_group()


@dataclass(frozen=True)
class Part:
    """Rows of a global batch that one rank computes at once.

    Attributes:
        rows: which.
        is_counted: False where this rank has none left and computes a row of another's, for company:
            with FSDP all ranks have to make the same passes.
    """

    rows: range
    is_counted: bool


def parts(rows: int, execution: Execution) -> list[Part]:
    """The share of a global batch that falls to this rank, in parts; every rank has the same number of them."""
    share = math.ceil(rows / execution.ranks)
    at_once = min(share, execution.micro_batch_size or share)
    first = execution.rank * share
    ranges = [range(start, min(start + at_once, first + share, rows)) for start in range(first, first + share, at_once)]
    return [Part(found or range(1), bool(found)) for found in ranges]


class ParallelModel:
    """A model and its objective on all ranks.

    Attributes:
        model: this rank's; its parameters are shares of the whole with "fsdp".
        module: the objective, to be called in every pass.
    """

    def __init__(self, model: SSD2, objective: str, execution: Execution) -> None:
        """Spread a model over the ranks.

        Args:
            model: the same on all ranks; with "fsdp" only that of rank 0 is read.
            objective: name of the recipe's.
            execution: how.
        """
        self._execution = execution
        if execution.sharding == "fsdp":
            with torch.device("meta"):
                self.model = SSD2(model.config)
        else:
            self.model = model.to(execution.device)
        if execution.activation_checkpointing:
            for layer in self.model.transformer.layers:
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
        self.module: nn.Module = Objective(self.model, objective)
        if execution.sharding == "fsdp":
            # It warns of in-place operations on a layer's output; ours has none.
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
            mesh = init_device_mesh(torch.device(execution.device).type, (execution.ranks,))
            for layer in self.model.transformer.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(self.module, mesh=mesh)
            self.model.to_empty(device=execution.device)
            self.load_weights(model.state_dict())
        elif execution.ranks > 1:
            # W_pred is not used in a step without self-conditioning, the diffusion inputs not by a causal one.
            self.module = DistributedDataParallel(self.module, find_unused_parameters=True)

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take over a whole model's weights; with "fsdp" those of rank 0."""
        if self._execution.sharding == "fsdp":
            options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
            whole: dict[str, Any] = dict(weights) if self._execution.is_first else {}
            set_model_state_dict(self.model, whole, options=options)
        else:
            self.model.load_state_dict(weights)

    def whole_weights(self) -> dict[str, Tensor]:
        """The whole model's weights on the CPU, on rank 0; all ranks have to ask, the others get none."""
        whole: dict[str, Tensor] = {}
        for name, value in self.model.state_dict().items():
            full = value.full_tensor() if isinstance(value, DTensor) else value
            if self._execution.is_first:
                whole[name] = full.cpu()
        return whole

    def accumulating(self, *, is_last: bool) -> AbstractContextManager[object]:
        """A pass whose gradients are summed over the ranks only if it is the last of a step."""
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(is_last)
        if isinstance(self.module, DistributedDataParallel) and not is_last:
            return cast("AbstractContextManager[object]", self.module.no_sync())
        return nullcontext()

    def clip_gradients(self, largest: float) -> float:
        """Scale the gradient down to a norm, that of all ranks together; returns what it was."""
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), largest)
        return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()

    def total(self, value: Tensor) -> float:
        """The sum of a scalar over all ranks."""
        if self._execution.ranks > 1:
            dist.all_reduce(value)
        return value.item()


def wait_for_all() -> None:
    """Until all ranks have come here."""
    if dist.is_initialized():
        dist.barrier()
