"""Operations that make large tensors."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PRODUCT = ("/ssd2/", "/core_server/", "/user_agent/")


class Allocations(TorchDispatchMode):
    """Counts operations of a thread that return a new tensor of at least so many elements.

    Views and tensors written in place do not count. Scratch memory inside an operation is not seen.

    Attributes:
        from_nothing: counts by operation and place, of results made of no tensor as large, or only of its shape.
        derived: counts of all others.
    """

    def __init__(self, elements: int, made_by: frozenset[CodeType] = frozenset()) -> None:
        """Count while this is entered.

        Args:
            elements: of the smallest tensor that counts.
            made_by: functions whose tensors do not count, nor those of what they call.
        """
        super().__init__()
        self._elements, self._made_by = elements, made_by
        self.from_nothing: Counter[str] = Counter()
        self.derived: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        storages = {_storage(tensor) for tensor in given}
        large = [tensor for tensor in tree_leaves(result) if isinstance(tensor, Tensor) and self._is_large(tensor)]
        if any(_storage(tensor) not in storages for tensor in large):
            frames = list(_frames())
            if self._made_by.isdisjoint(frame.f_code for frame in frames):
                has_source = any(map(self._is_large, given)) and "_like" not in str(func)
                counted = self.derived if has_source else self.from_nothing
                counted[f"{func} of {list(large[0].shape)} in {_place(frames)}"] += 1
        return result

    def _is_large(self, tensor: Tensor) -> bool:
        return tensor.numel() >= self._elements


def _storage(tensor: Tensor) -> int:
    if tensor.layout is torch._mkldnn:  # of a packed matrix, which shows no storage
        return id(tensor)
    return tensor.untyped_storage().data_ptr()


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(2)
    while frame:
        yield frame
        frame = frame.f_back


def _place(frames: list[FrameType]) -> str:
    ours = next((frame for frame in frames if any(part in frame.f_code.co_filename for part in PRODUCT)), frames[0])
    return f"{ours.f_code.co_qualname} ({Path(ours.f_code.co_filename).name}:{ours.f_lineno})"
