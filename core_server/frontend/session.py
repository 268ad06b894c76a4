"""Contract of one stream: the messages that may come next, and the commands they become; nothing is computed here."""

from __future__ import annotations

from core_server.catalogue.engine_messages import Advance, Begin, End
from core_server.catalogue.served_model import ServedModel
from ssd2.algorithm.projection import FIRST, StepPosition
from ssd2.errors import ProtocolViolation
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import OpenRequest, position_from_proto, projection_from_proto


# See docs/decisions/019-strangers.md.
class CoreSession:
    """The contract of one stream: turns each message into a command, or refuses it."""

    def __init__(self, number: int, request: OpenRequest, served: ServedModel) -> None:
        """Take up an answer.

        Args:
            number: the engine's name for it.
            request: from the agent.
            served: the model that it is for.

        Raises:
            ModelMismatch: if the model is not the one that the agent was told of.
            TokenizerMismatch: if the agent's tokenizer or vocabulary is another one.
            InvalidParameter: if the block is longer than the core takes.
            PromptTooLong: if prompt and answer do not fit the model's positions.
            TokenOutOfRange: if the prompt holds an id outside the vocabulary.
        """
        served.check_fits(request)
        self.number = number
        self._request, self._served = request, served
        self._due = FIRST

    @property
    def due(self) -> StepPosition:
        """The timestep whose projection the agent has to send."""
        return self._due

    @property
    def block_size(self) -> int:
        """L of every block."""
        return self._request.block_size

    def begin(self, scope: str | None = None) -> Begin:
        """The first command.

        Args:
            scope: see `Begin`.
        """
        return Begin(self.number, self._served.name, self._request, scope)

    def advance(self, message: pb.Projection) -> Advance:
        """The command that follows from a projection. A commit ends its block, at whichever timestep it comes.

        Raises:
            ProtocolViolation: if this projection was not due, or nothing can follow it.
            BlockShapeMismatch: if it is not a block of this stream's length.
            TokenOutOfRange: if a token id is outside the vocabulary.
        """
        self._check_order(message)
        projected = projection_from_proto(
            message, block_size=self._request.block_size, vocab_size=self._request.vocab_size
        )
        self._due = self._due.after(is_commit=message.is_commit)
        return Advance(self.number, projected, message.is_commit)

    def end(self) -> End:
        """The last command."""
        return End(self.number)

    def _check_order(self, message: pb.Projection) -> None:
        request = self._request
        if (at := position_from_proto(message)) != self._due:
            raise ProtocolViolation(f"the agent sent the projection of {at}, but that of {self._due} was due")
        if message.is_commit and message.block == request.max_blocks - 1:
            raise ProtocolViolation(
                f"the agent committed the last of {request.max_blocks} blocks and asks for more; it should close"
            )
        if not message.is_commit and message.step == len(request.timesteps) - 1:
            raise ProtocolViolation(
                f"the block has {len(request.timesteps)} timesteps, but the agent's last projection does not commit it"
            )
