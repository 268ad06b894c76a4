"""Which operations make tensors of a size, in whatever thread."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PRODUCT = ("/ssd2/", "/core_server/", "/user_agent/")


class Allocations(TorchDispatchMode):
    """Count the operations of the threads that enter this whose result is a new tensor of at least so many elements.

    Views and what is written in place are none. What an operation uses by itself meanwhile is not seen.

    Attributes:
        found: how often, by operation and place.
    """

    def __init__(self, elements: int, made_by: frozenset[CodeType] = frozenset()) -> None:
        """Count from now on.

        Args:
            elements: of a tensor that counts.
            made_by: functions that may make such tensors, they and what they call.
        """
        super().__init__()
        self._elements, self._made_by = elements, made_by
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_storage(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.numel() >= self._elements and _storage(tensor) not in given:
                frames = list(_frames())
                if self._made_by.isdisjoint(frame.f_code for frame in frames):
                    self.found[f"{func} {list(tensor.shape)} in {_place(frames)}"] += 1
        return result


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(2)
    while frame:
        yield frame
        frame = frame.f_back


def _place(frames: list[FrameType]) -> str:
    ours = next((frame for frame in frames if any(part in frame.f_code.co_filename for part in PRODUCT)), frames[0])
    return f"{ours.f_code.co_qualname} ({Path(ours.f_code.co_filename).name}:{ours.f_lineno})"
