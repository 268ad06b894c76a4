"""Functions of tensors as CUDA graphs: captured at the start for a fixed set of sizes, and replayed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from ssd2.models.lane import Call

_WARM_UP_RUNS = 3
"""Before a capture: what is allocated or compiled at first use must not be part of a graph."""

_Replay: TypeAlias = Callable[[], None]


class Recorder(Protocol):
    """Records what a function does on its device."""

    def __call__(self, run: Callable[[], None]) -> _Replay:
        """Run a function and return another one that does the same again, on the same memory."""
        ...


class CudaRecorder:
    """Records kernels as CUDA graphs, which share one pool of memory: only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        """Record on one GPU.

        Args:
            device: where the functions compute; the current device may be another one.
        """
        self._device = device
        self._memory: Any = None

    def __call__(self, run: Callable[[], None]) -> _Replay:
        """See `Recorder`."""
        with torch.cuda.device(self._device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP_RUNS):
                    run()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._memory):
                run()
        self._memory = graph.pool()
        return graph.replay


@dataclass(frozen=True)
class _Captured:
    replay: _Replay
    inputs: Sequence[Tensor]
    output: Tensor


# See docs/decisions/011-cuda-graphs.md.
class CudaGraphs:
    """Launches all kernels of a function at once, where launching them one by one takes longer than they do.

    What has other sizes than those that were captured is computed as it is: each graph takes memory, so nothing that
    an agent asks for makes one. All graphs have one output, which the next call overwrites.
    """

    def __init__(self, record: Recorder, output: Tensor) -> None:
        """Begin without a graph.

        Args:
            record: makes them.
            output: where the results go, [B, …], with B the largest batch.
        """
        self._record, self._output = record, output
        self._inputs: dict[Hashable, list[Tensor]] = {}
        self._captured: dict[Hashable, _Captured] = {}

    def capture(self, call: Call) -> None:
        """Make the graph of a call, for arguments of these sizes."""
        inputs = self._inputs.setdefault(call.sizes, [tensor.clone() for tensor in call.tensors])
        output = self._output[: len(call.first)]
        on_inputs = replace(call, group=tuple(inputs[:-2]), first=inputs[-2], second=inputs[-1])

        def run() -> None:
            output.copy_(on_inputs())

        self._captured[call.key] = _Captured(self._record(run), inputs, output)

    def __call__(self, call: Call) -> Tensor:
        """The function's output, by its graph if there is one of these sizes."""
        captured = self._captured.get(call.key)
        if captured is None:
            return call()
        for ours, tensor in zip(captured.inputs, call.tensors, strict=True):
            ours.copy_(tensor)
        captured.replay()
        return captured.output
