"""Lanes: the interface by which an engine computes the answers of one model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ssd2.algorithm.projection import FIRST, ProjectedTokens, StepPosition


class Opening(Protocol):
    """Parameters of an answer from its beginning on, as in the contract's `Open`."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The prompt."""
        ...

    @property
    def noise_seed(self) -> int:
        """The public seed."""
        ...

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Timesteps of every block, decreasing."""
        ...

    @property
    def block_size(self) -> int:
        """L."""
        ...

    @property
    def simplex_value(self) -> float:
        """K, in logit units."""
        ...

    @property
    def self_conditioning(self) -> str:
        """One of `ssd2.algorithm.params.SELF_CONDITIONING`."""
        ...


@dataclass(frozen=True)
class BlockState:
    """State of an answer: all that its next logits are a function of, and nothing of the size of V.

    Attributes:
        at: the timestep whose logits are next.
        answer_ids: of the committed blocks.
        projected: the previous projection; None at a block's first timestep.
        unchanged: how many times in a row a block's projection was the one before it, at timesteps where that counts.
        fed_back: the model's own previous prediction as it takes it in, [L, D]; None where it takes in none.
    """

    at: StepPosition = FIRST
    answer_ids: tuple[int, ...] = ()
    projected: ProjectedTokens | None = None
    unchanged: int = 0
    fed_back: Tensor | None = field(default=None, compare=False)

    def last_tokens(self, block_size: int) -> tuple[int, ...]:
        """Return the tokens of the projection that led here: the previous one, or the commit of the block before."""
        return self.projected.token_ids if self.projected else self.answer_ids[-block_size:]

    def after(
        self, projected: ProjectedTokens, *, is_commit: bool, fed_back: Tensor | None, counts: bool = True
    ) -> BlockState:
        """Return what a projection makes of it: the next timestep, or the next block.

        Args:
            projected: the projection.
            is_commit: whether it ends the block.
            fed_back: of the next timestep, see above.
            counts: whether patience counts at this timestep; see `ssd2.algorithm.block_end`.
        """
        at = self.at.after(is_commit=is_commit)
        if is_commit:
            return BlockState(at, (*self.answer_ids, *projected.token_ids))  # line 13 of Algorithm 2
        unchanged = self.unchanged + 1 if counts and projected == self.projected else 0
        return BlockState(at, self.answer_ids, projected, unchanged, fed_back)


@dataclass(frozen=True)
class Row:
    """One answer's part of a batch.

    Attributes:
        slot: of the answer.
        request: how it is decoded.
        state: where it stands.
        scope: of the answers that its prompt may be shared with; None for none.
    """

    slot: int
    request: Opening
    state: BlockState
    scope: str | None = None

    @property
    def timestep(self) -> int:
        """T of the logits that are next."""
        return self.request.timesteps[self.state.at.step]

    def is_plain(self, block_size: int) -> bool:
        """Return True if its block has this length, and the projection before it one token a position."""
        projected = self.state.projected
        return self.request.block_size == block_size and (not projected or len(projected.token_ids) == block_size)


class Lane(Protocol):
    """The answers of one model."""

    def kind(self, row: Row) -> Hashable:
        """Rows of one kind can be computed as one batch."""
        ...

    def logits(self, rows: Sequence[Row]) -> Tensor:
        """Logits of rows of one kind, [B, L, V], float32; the next call may overwrite them."""
        ...

    def is_long(self, row: Row, *, beside: bool) -> bool:
        """Return True if a part of a row's tokens should be read before its logits are asked for.

        Args:
            row: whose logits are wanted.
            beside: whether there are other answers, for whose sake parts are smaller.
        """
        ...

    def read(self, row: Row, *, beside: bool) -> None:
        """Read the next part of a long row's tokens."""
        ...

    def feed_back(self, rows: Sequence[Row], logits: Tensor) -> list[Tensor | None]:
        """Return what the rows' next timesteps take in of these logits; None where they take in nothing."""
        ...

    def forget(self, slot: int) -> None:
        """Drop what is kept of a slot's answer."""
        ...

    def clear(self, slot: int) -> None:
        """Drop it, and wipe where it was: it holds numbers that are not finite."""
        ...


@dataclass(frozen=True, eq=False)
class Call:
    """A function with its arguments.

    Attributes:
        function: of a tuple of tensors and two tensors, with keywords that are no tensors; does the same operations for
            all values of tensors of the same sizes.
        group: its first argument.
        first: its second one, [B, …].
        second: its third one.
        static: its keywords.
    """

    function: Callable[..., Tensor]
    group: tuple[Tensor, ...]
    first: Tensor
    second: Tensor
    static: Mapping[str, Hashable]

    def __call__(self) -> Tensor:
        """Return the function's output."""
        return self.function(self.group, self.first, self.second, **self.static)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments, in order."""
        return [*self.group, self.first, self.second]

    @property
    def key(self) -> Hashable:
        """A name for all calls that one graph can compute."""
        return self.function, self.sizes, tuple(sorted(self.static.items()))

    @property
    def sizes(self) -> Hashable:
        """Shapes of all tensors."""
        return tuple(tensor.shape for tensor in self.tensors)


class Graphs(Protocol):
    """Launches all kernels of a call at once, for calls of sizes that were captured."""

    def capture(self, call: Call) -> None:
        """Make the graph of a call, for arguments of these sizes."""
        ...

    def __call__(self, call: Call) -> Tensor:
        """Return the call's output, by its graph if there is one of these sizes."""
        ...


class NoLane(Exception):  # no error of ours: such a model is served, one answer at a time
    """Rows of a model cannot be one batch; the text says why."""


class MakeLane(Protocol):
    """Makes the lane of a model whose rows can be one batch."""

    def __call__(
        self, model: Any, slots: int, *, compiled: bool = False, graphs: Callable[[Tensor], Graphs] | None = None
    ) -> Lane:
        """Reserve the slots.

        Args:
            model: of the family.
            slots: answers at a time, numbered from 0; the engine's self-test uses one more.
            compiled: whether kernels may be compiled, which takes seconds for each size of batch.
            graphs: makes an empty set of CUDA graphs that write to an output; None without a GPU.

        Raises:
            NoLane: if rows of this model cannot be one batch.
        """
        ...
