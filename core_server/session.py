"""The core's part in one answer, without input or output of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from core_server.served_model import ServedModel
from ssd2.errors import ProtocolViolation
from ssd2.models.predict import begin
from ssd2.params import DecodingParams
from ssd2.sampler import LogitsRequest, noised_simplex
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import OpenRequest, StepPosition, logits_to_proto, projection_from_proto


class CoreSession:
    """Follows the agent's decode, one timestep at a time.

    The agent runs Algorithm 2 (`ssd2.sampler.decode`) and sends its projections; with the public
    noise the session makes the same x_t of them, and computes lines 3 to 7. Each message goes
    through two halves, so that many sessions' requests can become one batch between them:
    `_accept` makes the message the next request's past, `_request` says what the model has to see.
    """

    def __init__(self, request: OpenRequest, served: ServedModel) -> None:
        """Take up an answer.

        Args:
            request: from the agent.
            served: what is served.

        Raises:
            ModelMismatch: if the model is not the one that the agent was told of.
            TokenizerMismatch: if the agent's tokenizer or vocabulary is another one.
            InvalidParameter: if the block is longer than the core takes.
            PromptTooLong: if prompt and answer do not fit the model's positions.
            TokenOutOfRange: if the prompt holds an id outside the vocabulary.
        """
        served.check_fits(request)
        model = served.checkpoint.model
        self._open = request
        self._vocab_size = model.config.vocab_size
        self._device = next(model.parameters()).device
        self._params = DecodingParams(block_size=request.block_size, simplex_value=request.simplex_value)
        self._predictor = begin(model, [request.prompt_ids], request.self_conditioning)
        self._due = StepPosition(number=0, block=0, step=0)
        self._x0_hat: Tensor | None = None  # [1, L, V]
        self._answer_ids = torch.empty(1, 0, dtype=torch.int64, device=self._device)

    @property
    def due(self) -> StepPosition:
        """The timestep whose projection the agent has to send."""
        return self._due

    def first_logits(self) -> pb.BlockLogits:
        """Logits of block 0 at its first timestep."""
        return self._logits()

    def answer(self, message: pb.Projection) -> pb.BlockLogits:
        """Logits of the timestep that follows a projection.

        A commit ends its block, at whichever timestep it comes.

        Raises:
            ProtocolViolation: if this projection was not due, or nothing can follow it.
            BlockShapeMismatch: if it is not a block of this stream's length.
            TokenOutOfRange: if a token id is outside the vocabulary.
        """
        self._accept(message)
        return self._logits()

    def _accept(self, message: pb.Projection) -> None:
        self._check_order(message)
        x0_hat = projection_from_proto(
            message,
            block_size=self._open.block_size,
            vocab_size=self._vocab_size,
            simplex_value=self._open.simplex_value,
        )
        number, block, step = self._due.number + 1, self._due.block, self._due.step
        if message.is_commit:
            committed = torch.tensor([list(message.token_ids)], device=self._device)
            self._answer_ids = torch.cat([self._answer_ids, committed], -1)  # line 13 of Algorithm 2
            self._x0_hat, self._due = None, StepPosition(number, block + 1, 0)
        else:
            self._x0_hat, self._due = x0_hat[None].to(self._device), StepPosition(number, block, step + 1)

    def _check_order(self, message: pb.Projection) -> None:
        if (at := StepPosition(message.number, message.block, message.step)) != self._due:
            raise ProtocolViolation(f"the agent sent the projection of {at}, due was that of {self._due}")
        if message.is_commit and message.block == self._open.max_blocks - 1:
            raise ProtocolViolation(
                f"the agent committed the last of {self._open.max_blocks} blocks and asks for more; it should close"
            )
        if not message.is_commit and message.step == len(self._open.timesteps) - 1:
            raise ProtocolViolation(
                f"the block has {len(self._open.timesteps)} timesteps, and the agent's last projection is no commit"
            )

    def _request(self) -> LogitsRequest:
        block, step = self._due.block, self._due.step
        timestep = self._open.timesteps[step]
        x_t = noised_simplex(
            self._x0_hat, [self._open.noise_seed], block, timestep, self._params, self._vocab_size, self._device
        )
        return LogitsRequest(block, step, timestep, x_t, self._x0_hat, None, self._answer_ids)

    def _logits(self) -> pb.BlockLogits:
        return logits_to_proto(self._due, self._predictor.logits(self._request())[0], self._open.logits_format)
