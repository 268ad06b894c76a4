"""How the engine computes: the answers of one model, many in a batch where the model allows it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from itertools import product
from typing import Protocol

import torch
from torch import Tensor

from core_server.engine.cuda_graphs import Call, CudaGraphs, CudaRecorder, Recorder
from ssd2.algorithm.params import DecodingParams
from ssd2.algorithm.sampler import LogitsRequest, ProjectedRows, noised_rows, noised_simplex
from ssd2.models.context_pool import Context, ContextPool
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.predict import Model, Predictor, begin
from ssd2.models.ssd2 import SSD2
from ssd2.wire.codec import FIRST, OpenRequest, ProjectedTokens, StepPosition

MAX_GRAPH_BATCH = 16
"""Blocks of the largest batch with a CUDA graph: larger ones keep a GPU busy for longer than their launches take."""

MIN_GRAPH_EXTENT = 128
"""Tokens of the shortest context with one; longer ones have twice as many, and so on."""


@dataclass(frozen=True)
class BlockState:
    """Where an answer stands: all that its next logits are a function of, and nothing of the size of V.

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
        """Those of the projection that led here: the previous one, or the commit of the block before."""
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
    request: OpenRequest
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

    def feed_back(self, rows: Sequence[Row], logits: Tensor) -> list[Tensor | None]:
        """What the rows' next timesteps take in of these logits; None where they take in nothing of them."""
        ...

    def forget(self, slot: int) -> None:
        """Drop what is kept of a slot's answer."""
        ...

    def clear(self, slot: int) -> None:
        """Drop it, and wipe where it was: it holds numbers that are not finite."""
        ...


def lane_for(model: Model, slots: int, *, compiled: bool = False) -> Lane:
    """The lane of a model.

    Args:
        model: of any family.
        slots: answers at a time, numbered from 0.
        compiled: whether SSD-2's noise is compiled, which takes seconds for each size of batch.
    """
    if not isinstance(model, SSD2 | TimeRangeExperts):
        return SingleLane(model)
    device = next(model.parameters()).device
    record = CudaRecorder(device) if device.type == "cuda" else None
    return BatchLane(model, slots, compiled=compiled, record=record)


def graph_batches(slots: int) -> list[int]:
    """Sizes of batches with a graph: powers of two, up to one that all slots fit or the largest."""
    batches = [1]
    while batches[-1] < min(slots, MAX_GRAPH_BATCH):
        batches.append(2 * batches[-1])
    return batches


def graph_extents(max_tokens: int) -> list[int]:
    """Lengths of contexts, with the block behind them, that have a graph; the last is that of a slot."""
    extents = [MIN_GRAPH_EXTENT]
    while extents[-1] < max_tokens:
        extents.append(2 * extents[-1])
    return [*extents[:-1], max_tokens]


class BatchLane:
    """SSD-2: any rows with blocks of one length, whatever their timestep, block or context, are one batch.

    Rows whose timesteps have different experts are different batches.
    """

    def __init__(
        self, model: SSD2 | TimeRangeExperts, slots: int, *, compiled: bool = False, record: Recorder | None = None
    ) -> None:
        """Reserve the slots, and make all graphs that there will be.

        Args:
            model: the network, or one for each range of timesteps.
            slots: answers at a time.
            compiled: whether the noise is compiled.
            record: makes CUDA graphs of the step, for batches and contexts of certain sizes that others are padded
                to; None for none.
        """
        self._model, self._slots = model, slots
        experts = [expert for expert in model.modules() if isinstance(expert, SSD2)]
        pools = {expert: ContextPool(expert, slots + 1, model.config.max_positions) for expert in experts}  # one spare
        noised = torch.compile(noised_rows) if compiled else noised_rows
        self._pools = pools
        self._steps = {expert: partial(_step, pool, noised) for expert, pool in pools.items()}
        self._batches, self._extents = graph_batches(slots), graph_extents(model.config.max_positions)
        self._graphs = self._captured(record) if record else None

    @torch.no_grad()  # as batches are computed: with gradients a GPU would round the logits to bfloat16
    def _captured(self, record: Recorder) -> CudaGraphs:
        """Graphs of all experts and sizes, the largest first, in whose memory the others find room."""
        config, device = self._model.config, next(iter(self._pools.values())).device
        graphs = CudaGraphs(record, torch.empty(self._batches[-1], config.block_size, config.vocab_size, device=device))
        for model, pool in self._pools.items():
            for batch, extent in product(reversed(self._batches), reversed(self._extents)):
                projected = blank_rows(batch, config.block_size, device)
                fed_back = model.w_pred.weight.new_zeros(batch, config.block_size, config.hidden_size)
                places = pool.places([self._slots] * batch)
                sizes = {"block_size": config.block_size, "extent": extent}
                graphs.capture(Call(self._steps[model], astuple(projected), fed_back, places, sizes))
        return graphs

    def kind(self, row: Row) -> Hashable:
        """See `Lane.kind`."""
        return row.request.block_size, self._model.at(row.timestep)

    def logits(self, rows: Sequence[Row]) -> Tensor:
        """See `Lane.logits`; lines 3 to 6 of Algorithm 2."""
        model, block_size = self._model.at(rows[0].timestep), rows[0].request.block_size
        pool, slots = self._pools[model], [row.slot for row in rows]
        pool.hold({row.slot: self._context(row) for row in rows})
        batch, extent = self._padded_sizes(rows, pool.extent(slots, block_size))
        spare = batch - len(rows)
        padded = [*rows, *[replace(rows[0], slot=self._slots)] * spare]
        call = Call(
            self._steps[model],
            astuple(_projected_rows(padded, pool.device)),
            self._fed_back(model, padded),
            pool.places([*slots, *[self._slots] * spare]),
            {"block_size": block_size, "extent": extent},
        )
        logits = self._graphs(call) if self._graphs else call()
        return logits[: len(rows)]

    def _padded_sizes(self, rows: Sequence[Row], extent: int) -> tuple[int, int]:
        """Blocks and extent of the graph that fits a batch; those of the batch itself where there is none."""
        batch, block_size = len(rows), self._model.config.block_size
        if not self._graphs or batch > self._batches[-1] or any(not row.is_plain(block_size) for row in rows):
            return batch, extent
        return next(b for b in self._batches if b >= batch), next(e for e in self._extents if e >= extent)

    def feed_back(self, rows: Sequence[Row], logits: Tensor) -> list[Tensor | None]:
        """See `Lane.feed_back`; line 7 of Algorithm 2, for the model of each row's next timestep."""
        fed_back: list[Tensor | None] = [None] * len(rows)
        by_model: dict[SSD2, list[int]] = {}
        for index, row in enumerate(rows):
            following = row.request.timesteps[row.state.at.step + 1 :]
            if following and row.request.self_conditioning == "own":
                by_model.setdefault(self._model.at(following[0]), []).append(index)
        for model, indices in by_model.items():
            for index, own in zip(indices, model.feed_back(logits[indices]), strict=True):
                fed_back[index] = own.clone()  # a view would keep the whole batch
        return fed_back

    def forget(self, slot: int) -> None:
        """See `Lane.forget`."""
        for pool in self._pools.values():
            pool.forget(slot)

    def clear(self, slot: int) -> None:
        """See `Lane.clear`."""
        for pool in self._pools.values():
            pool.clear(slot)

    def _context(self, row: Row) -> Context:
        prompt, config = row.request.prompt_ids, self._model.config
        first_position, timestep = config.first_position(len(prompt)), config.quantised(row.timestep)
        return Context((*prompt, *row.state.answer_ids), first_position, timestep, len(prompt), row.scope)

    def _fed_back(self, model: SSD2, rows: Sequence[Row]) -> Tensor:
        nothing = model.w_pred.weight.new_zeros(rows[0].request.block_size, model.config.hidden_size)
        kept = [row.state.fed_back for row in rows]
        fed_back = torch.stack([nothing if own is None else own for own in kept])
        of_projection = [
            index
            for index, row in enumerate(rows)
            if row.request.self_conditioning == "projection" and row.state.projected
        ]
        if of_projection:
            x0_hat = torch.stack([_x0_hat(rows[index], model.config.vocab_size) for index in of_projection])
            fed_back[of_projection] = model.feed_back(x0_hat.to(fed_back.device))
        return fed_back


class SingleLane:
    """Models of the other families: one answer at a time, with what each predictor remembers by itself."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._predictors: dict[int, Predictor] = {}

    def kind(self, row: Row) -> Hashable:
        """See `Lane.kind`."""
        return row.slot

    def logits(self, rows: Sequence[Row]) -> Tensor:
        """See `Lane.logits`."""
        (row,) = rows
        request, state, device = row.request, row.state, next(self._model.parameters()).device
        if row.slot not in self._predictors:
            self._predictors[row.slot] = begin(self._model, [request.prompt_ids], request.self_conditioning)
        vocab_size = self._model.config.vocab_size
        x0_hat = _x0_hat(row, vocab_size)[None].to(device) if state.projected else None
        x_t = noised_simplex(
            x0_hat,
            [request.noise_seed],
            state.at.block,
            row.timestep,
            DecodingParams(block_size=request.block_size, simplex_value=request.simplex_value),
            vocab_size,
            device,
        )
        answer_ids = torch.tensor([state.answer_ids], dtype=torch.int64, device=device)
        asked = LogitsRequest(state.at.block, state.at.step, row.timestep, x_t, x0_hat, None, answer_ids)
        return self._predictors[row.slot].logits(asked)

    def feed_back(self, rows: Sequence[Row], logits: Tensor) -> list[Tensor | None]:
        """See `Lane.feed_back`: the predictors remember."""
        return [None] * len(rows)

    def forget(self, slot: int) -> None:
        """See `Lane.forget`."""
        self._predictors.pop(slot, None)

    def clear(self, slot: int) -> None:
        """See `Lane.clear`: a predictor is an answer's own."""
        self.forget(slot)


def _step(
    pool: ContextPool,
    noised: Callable[[ProjectedRows, int, int], Tensor],
    projected: tuple[Tensor, ...],
    fed_back: Tensor,
    places: Tensor,
    *,
    block_size: int,
    extent: int,
) -> Tensor:
    """Lines 3 to 6 of Algorithm 2 as a function of tensors, [B, L, V]."""
    rows = ProjectedRows(*projected)
    x_t = noised(rows, block_size, pool.vocab_size)
    return pool.denoise_at(places, extent, x_t, fed_back, rows.timestep)


def blank_rows(batch: int, block_size: int, device: torch.device) -> ProjectedRows:
    """Rows at a block's first timestep, of the sizes that those with one token a position have."""
    zeros = torch.zeros(batch, dtype=torch.int64, device=device)
    tokens = zeros[:, None].repeat(1, block_size)
    return ProjectedRows(zeros, zeros, zeros + 1, zeros.float(), zeros == 0, positions=tokens, token_ids=tokens)


def _projected_rows(rows: Sequence[Row], device: torch.device) -> ProjectedRows:
    numbers = [(row.request.noise_seed, row.state.at.block, row.timestep) for row in rows]
    noise_seeds, block, timestep = torch.tensor(numbers, device=device).unbind(-1)
    nothing = ProjectedTokens((0,) * rows[0].request.block_size)
    projected = [row.state.projected or nothing for row in rows]
    most = max(len(tokens.token_ids) for tokens in projected)
    positions, token_ids = (
        [(*values, *[values[0]] * (most - len(values))) for values in which]
        for which in ([tokens.positions for tokens in projected], [tokens.token_ids for tokens in projected])
    )
    return ProjectedRows(
        noise_seeds=noise_seeds,
        block=block,
        timestep=timestep,
        simplex_value=torch.tensor([row.request.simplex_value for row in rows], device=device),
        begins=torch.tensor([row.state.projected is None for row in rows], device=device),
        positions=torch.tensor(positions, device=device),
        token_ids=torch.tensor(token_ids, device=device),
    )


def _x0_hat(row: Row, vocab_size: int) -> Tensor:
    """The previous projection as a simplex, [L, V]."""
    x0_hat = torch.full((row.request.block_size, vocab_size), -row.request.simplex_value)
    if projected := row.state.projected:
        x0_hat[list(projected.positions), list(projected.token_ids)] = row.request.simplex_value
    return x0_hat
