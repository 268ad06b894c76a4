"""SSD-2's lane: any rows with blocks of one length are one batch over the slots of a context pool."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import astuple, replace
from functools import partial

import torch
from torch import Tensor

from ssd2.algorithm.noised_simplex import ProjectedRows, noised_rows
from ssd2.algorithm.projection import ProjectedTokens
from ssd2.algorithm.simplex import tokens_to_simplex
from ssd2.models.configs import SSD2Config
from ssd2.models.context import Context
from ssd2.models.context_pool import ContextPool
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.graph_sizes import GraphSizes
from ssd2.models.lane import Call, Graphs, Row
from ssd2.models.ssd2 import SSD2


class BatchLane:
    """SSD-2: any rows with blocks of one length, whatever their timestep, block or context, are one batch.

    Rows whose timesteps have different experts are different batches.
    """

    def __init__(
        self,
        model: SSD2 | TimeRangeExperts,
        slots: int,
        *,
        compiled: bool = False,
        graphs: Callable[[Tensor], Graphs] | None = None,
    ) -> None:
        """Reserve the slots, and make all graphs that there will be.

        Args:
            model: the network, or one for each range of timesteps.
            slots: answers at a time.
            compiled: whether the noise is compiled.
            graphs: makes CUDA graphs of the step, for batches and contexts of certain sizes that others are padded
                to; None for none.
        """
        self._model, self._slots = model, slots
        experts = [expert for expert in model.modules() if isinstance(expert, SSD2)]
        pools = {expert: ContextPool(expert, slots + 1, model.config.max_positions) for expert in experts}  # one spare
        noised = torch.compile(noised_rows) if compiled else noised_rows
        self._pools = pools
        self._steps = {expert: partial(_step, pool, noised) for expert, pool in pools.items()}
        self._sizes = GraphSizes(slots, model.config.max_positions)
        self._graphs = self._captured(graphs) if graphs else None

    @torch.no_grad()  # as batches are computed: with gradients a GPU would round the logits to bfloat16
    def _captured(self, make: Callable[[Tensor], Graphs]) -> Graphs:
        """Graphs of all experts and sizes."""
        config, device = self._model.config, next(iter(self._pools.values())).device
        graphs = make(torch.empty(self._sizes.largest_batch, config.block_size, config.vocab_size, device=device))
        for model, pool in self._pools.items():
            for batch, extent in self._sizes:
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
        has_graph = self._graphs and all(row.is_plain(block_size) for row in rows)
        return (has_graph and self._sizes.padded(batch, extent)) or (batch, extent)

    def is_long(self, row: Row, *, beside: bool) -> bool:
        """See `Lane.is_long`: a context is encoded at once."""
        return False

    def read(self, row: Row, *, beside: bool) -> None:
        """See `Lane.read`: nothing is long."""

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
            x0_hat = torch.cat([_fed_back_x0_hat(rows[index], model.config) for index in of_projection])
            fed_back[of_projection] = model.feed_back(x0_hat.to(fed_back.device))
        return fed_back


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


def _fed_back_x0_hat(row: Row, config: SSD2Config) -> Tensor:
    """Make the simplex of the previous projection as it is fed back, [1, L, V]."""
    projected = [row.state.projected] if row.state.projected else []
    value = config.feedback_value(row.request.simplex_value)
    return tokens_to_simplex(projected, row.request.block_size, config.vocab_size, value)
