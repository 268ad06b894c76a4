"""θ_user on the device: the small model that alone reads the documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd2.checkpoint import load_checkpoint, load_config_and_tokenizer
from ssd2.collaboration import UserTerms
from ssd2.errors import ModelNotFound, PromptTooLong
from ssd2.models.configs import ModelConfig
from ssd2.models.predict import Model
from ssd2.params import CollaborationParams
from ssd2.tokenizer import Tokenizer
from user_agent.documents.passage import Passage


@dataclass(frozen=True)
class UserModel:
    """A small model with its tokenizer.

    Attributes:
        config: its shape.
        tokenizer: shared with the core.
        model: the network; None if only its tokenizer is wanted, at λ = 0.
    """

    config: ModelConfig
    tokenizer: Tokenizer
    model: Model | None

    @classmethod
    def load(cls, folder: Path, *, with_weights: bool) -> UserModel:
        """Load a checkpoint folder, or only what is needed to talk to a core.

        Raises:
            ModelNotFound: if the folder or a file that is needed is missing.
            CheckpointInvalid: if its files are damaged or do not fit together.
        """
        if with_weights:
            checkpoint = load_checkpoint(folder)
            return cls(checkpoint.model.config, checkpoint.tokenizer, checkpoint.model)
        return cls(*load_config_and_tokenizer(folder), None)

    def core_prompt(self, instruction: str) -> list[int]:
        """The prompt with w_inst alone: what the core sees."""
        return self.tokenizer.encode_prompt(instruction, bos_token_id=self.config.bos_token_id)

    def fitting(self, instruction: str, passages: Sequence[Passage], answer_tokens: int) -> list[Passage]:
        """The passages that fit the model's context beside the instruction, the first ones first.

        A passage that does not fit is left out whole; shorter ones behind it may still fit.

        Args:
            instruction: w_inst.
            passages: candidates, the best first.
            answer_tokens: room that the answer needs, in whole blocks.

        Raises:
            PromptTooLong: if the instruction alone does not fit.
        """
        longest = self.config.max_prompt_tokens_before(answer_tokens)
        needed = len(self.core_prompt(instruction))
        if needed > longest:
            raise PromptTooLong(
                f"the question has {needed} tokens; with an answer of {answer_tokens} the user model takes "
                f"{max(longest, 0)}: shorten it, or lower --max-tokens or --block-size"
            )
        room = longest - needed
        chosen: list[Passage] = []
        for passage in passages:
            added = self._tokens_added(instruction, passage)
            if added <= room:
                chosen.append(passage)
                room -= added
        return chosen

    def terms(
        self,
        instruction: str,
        passages: Sequence[Passage],
        collaboration: CollaborationParams,
        self_conditioning: str,
    ) -> UserTerms:
        """The model's part in one decode."""
        if self.model is None:
            raise ModelNotFound("the user model was loaded without its weights")
        texts = [passage.text for passage in passages]
        with_docs = self.tokenizer.encode_prompt(instruction, texts, bos_token_id=self.config.bos_token_id)
        return UserTerms(self.model, [with_docs], [self.core_prompt(instruction)], collaboration, self_conditioning)

    def _tokens_added(self, instruction: str, passage: Passage) -> int:
        bos = self.config.bos_token_id
        with_passage = self.tokenizer.encode_prompt(instruction, [passage.text], bos_token_id=bos)
        return len(with_passage) - len(self.core_prompt(instruction))
