"""Where a model can run."""

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
        raise InvalidParameter(f"device {device!r} cannot be used ({reason}); try --device cpu") from error
