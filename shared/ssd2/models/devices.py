"""Devices that a model can run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    from ssd2.models.registry import Family

AUTO = "auto"
"""The best device on this machine."""


# See docs/decisions/051-the-user-model-on-the-device.md.
def chosen_device(device: str, family: Family) -> str:
    """Return the device that a model runs on.

    Args:
        device: as torch names it, or "auto": CUDA or Apple's MPS where there is one, else the CPU.
        family: of the model; of those that read noise the models are small, and their noise is made on the CPU.

    Raises:
        InvalidParameter: if torch cannot use it here.
    """
    if device != AUTO:
        check_device(device)
        return device
    if family.prompt_cache is None:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def chosen_precision(precision: str, device: torch.device | str) -> str:
    """Return the precision of a model's weights, as `ssd2.models.precision` names it.

    Args:
        precision: a name, or "auto".
        device: that the model runs on.
    """
    if precision != AUTO:
        return precision
    return "bfloat16" if torch.device(device).type == "cuda" else "float32"


def check_device(device: str) -> None:
    """Refuse a device that torch cannot use here.

    Raises:
        InvalidParameter: with torch's own reason.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # AssertionError: torch built without CUDA
        reason = str(error).partition("\n")[0]
        raise InvalidParameter(f"device {device!r} cannot be used ({reason}); use cpu", parameter="device") from error


def is_out_of_memory(error: Exception) -> bool:
    """True if there was not enough memory: on a GPU an exception of its own says so, on a CPU only a text does."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return (
        isinstance(error, RuntimeError)
        and "DefaultCPUAllocator" in text
        and ("can't allocate memory" in text or "not enough memory" in text)  # on Linux, on Windows
    )


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Have every thread that begins within compute on one processor.

    Small models that are computed side by side are faster so than one after the other on all processors.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # of this thread, and of those that begin later
    try:
        yield
    finally:
        torch.set_num_threads(before)
