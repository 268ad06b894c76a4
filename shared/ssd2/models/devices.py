"""Devices that a model can run on."""

from __future__ import annotations

import torch

from ssd2.errors import InvalidParameter


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
