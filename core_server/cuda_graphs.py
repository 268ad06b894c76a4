"""A function of tensors as CUDA graphs: captured once for each size of its arguments, and replayed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_WARM_UP_RUNS = 3
"""Before a capture: what is allocated or compiled at first use must not be part of a graph."""


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Tensor


class CudaGraphs:
    """Launches all kernels of a function at once, where launching them one by one takes longer than they do.

    The output is overwritten by the next call.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        """Wrap a function.

        Args:
            function: of a tuple of tensors and two tensors, with keywords that are no tensors; does the same
                operations for all values of tensors of the same sizes.
        """
        self._function = function
        self._captured: dict[Hashable, _Captured] = {}
        self._memory: Any = None  # one pool for all graphs: only one runs at a time

    def __call__(self, group: tuple[Tensor, ...], first: Tensor, second: Tensor, **static: Hashable) -> Tensor:
        """The function's output, on a captured graph."""
        given = [*group, first, second]
        key = (tuple(tensor.shape for tensor in given), tuple(static.items()))
        if key not in self._captured:
            self._captured[key] = self._capture([tensor.clone() for tensor in given], static)
        captured = self._captured[key]
        for ours, tensor in zip(captured.inputs, given, strict=True):
            ours.copy_(tensor)
        captured.graph.replay()
        return captured.output

    def _capture(self, inputs: list[Tensor], static: dict[str, Hashable]) -> _Captured:
        def run() -> Tensor:
            return self._function(tuple(inputs[:-2]), *inputs[-2:], **static)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_RUNS):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            output = run()
        self._memory = graph.pool()
        return _Captured(graph, inputs, output)
