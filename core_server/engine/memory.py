"""Memory of an engine's models, checked before the first weight is read: a process without enough of it is killed."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from core_server.catalogue.engine_messages import Start
from ssd2.errors import TooLittleMemory
from ssd2.models.checkpoint import load_config_and_tokenizer
from ssd2.models.configs import with_context
from ssd2.models.devices import check_device
from ssd2.models.pairs import free_memory, in_bytes
from ssd2.models.precision import INT8_ROW_BYTES, dtype_of
from ssd2.models.registry import family_named

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Needed:
    """Memory that an engine's models take, in bytes.

    Attributes:
        weights: of all models.
        slot: of one answer in each of them that takes all positions.
    """

    weights: int
    slot: int

    def with_slots(self, slots: int) -> int:
        """All that so many answers take, with the spare slot that each lane has."""
        return self.weights + (slots + 1) * self.slot


def needed_memory(start: Start) -> Needed:
    """Compute the memory of an engine's models on all of its ranks together.

    Raises:
        SlingshotError: if a model's config or tokenizer cannot be read.
    """
    number_bytes = dtype_of(start.precision).itemsize
    weights = slot = 0
    for folder in start.models.values():
        config = with_context(load_config_and_tokenizer(folder)[0], start.max_context)
        if footprint := family_named(config.family).footprint:
            found = footprint(folder, config)
            numbers = found.parameters
            if start.precision == "int8":
                numbers -= found.int8_weights
                weights += found.int8_weights + found.int8_rows * INT8_ROW_BYTES
            weights, slot = weights + numbers * number_bytes, slot + found.slot * number_bytes
    return Needed(weights, slot)


# See docs/decisions/046-causal-networks-as-one-batch.md.
def check_memory(start: Start, rank: int) -> None:
    """Refuse models that there is no memory for.

    A GPU has to hold all slots. On a CPU a slot takes memory as its answer grows, so the log says if full slots would
    not fit; whether the weights do was seen before the engine was started (`ssd2.models.memory`).

    Raises:
        TooLittleMemory: if they do not fit.
        InvalidParameter: if the device cannot be used.
        SlingshotError: if a model's config or tokenizer cannot be read.
    """
    check_device(start.devices[rank])
    device = torch.device(start.devices[rank])
    is_reserved = device.type == "cuda"
    free, share = free_bytes(device), len(start.devices) if is_reserved else 1
    if free is None:
        return
    needed = needed_memory(start)
    full = needed.with_slots(start.slots) // share
    if is_reserved and full > free:
        raise TooLittleMemory(
            f"the weights take {in_bytes(needed.weights // share)} of memory and each session "
            f"{in_bytes(needed.slot // share)} more at most; {in_bytes(free)} are free on {device}: "
            f"{_advice(needed, free, share)}",
            parameter="max_sessions",
        )
    if full > free and rank == 0:
        _log.warning(
            "%d answers as long as the model allows would take %s of memory, and %s are free; allow fewer sessions "
            "if answers are long",
            start.slots,
            in_bytes(full),
            in_bytes(free),
        )


def free_bytes(device: torch.device) -> int | None:
    """Return the memory of a device that is free; None if that is not known."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return free_memory() if device.type == "cpu" else None


def _advice(needed: Needed, free: int, share: int) -> str:
    sessions = (free * share - needed.weights) // needed.slot - 1 if needed.slot else 0
    if sessions >= 1:
        return f"allow at most {sessions} sessions"
    return "use a smaller model or a lower precision, or close other programs"
