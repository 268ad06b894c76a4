"""θ_user on the device: the small model that alone reads the documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

from ssd2.algorithm.collaboration import UserTerms
from ssd2.algorithm.params import CollaborationParams, DecodingParams
from ssd2.errors import ModelNotFound, PromptTooLong
from ssd2.models.chat import BRIEFLY
from ssd2.models.checkpoint import load_config_and_tokenizer, load_packed
from ssd2.models.configs import ModelConfig
from ssd2.models.model import Model
from ssd2.models.predict import prompt_cache_of, user_terms
from ssd2.models.prompt_cache import OnRead, PromptCache, nobody
from ssd2.models.tokenizer import Tokenizer
from user_agent.answering.conversation import NOTHING_SAID, Conversation
from user_agent.answering.settings import ServiceSettings
from user_agent.documents.formats.section import sentences
from user_agent.documents.passage import Passage, told_in_order
from user_agent.documents.search import search

CACHE_BYTES = 512 * 10**6
"""About 11,000 tokens of SmolLM2-135M in float32, or 20,000 of Qwen2.5's 0.5B."""

PrivateContextFit: TypeAlias = Literal["whole", "in part", "left out"]

_PRIVATE = Path("private context")
"""Placeholder for the source of a text that comes from no document."""

_BESIDE = Passage("This is a note.", _PRIVATE)
"""Stands beside a passage whose tokens are counted, so that both ends of it are as among others."""

GAP = " … "
"""Stands where sentences of a passage were left out, for the user model and for whoever reads it."""


@dataclass(frozen=True)
class Fitted:
    """Passages found for a question, given or left out.

    Attributes:
        passages: that the user model is given, the best first; one of them may be cut.
        left_out: that have no room, not even in part.
        why_none: why none is given, whatever the room; None if that is not so.
        conversation: the turns that have room beside them.
        private_context: what of it has room.
        private_context_fit: how much that is; None if none was given.
    """

    passages: Sequence[Passage] = ()
    left_out: Sequence[Passage] = ()
    why_none: str | None = None
    conversation: Conversation = NOTHING_SAID
    private_context: str = ""
    private_context_fit: PrivateContextFit | None = None


def given_at_zero(found: Sequence[Passage]) -> Fitted:
    """Give none of the passages found: where λ is 0 the user model is not asked."""
    return Fitted(left_out=found, why_none="lambda_user is 0, so no passage is used; set it above 0 to use documents")


@dataclass(frozen=True)
class UserModel:
    """A small model with its tokenizer.

    Attributes:
        config: its shape.
        tokenizer: shared with the core.
        model: the network; None if only its tokenizer is wanted, at λ = 0.
        prompt_cache: what answers leave behind for later ones; None where the model has no such cache.
    """

    config: ModelConfig
    tokenizer: Tokenizer
    model: Model | None
    prompt_cache: PromptCache | None = None

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        with_weights: bool,
        device: str = "cpu",
        precision: str = "float32",
        cache_bytes: int = CACHE_BYTES,
    ) -> UserModel:
        """Load a checkpoint folder, or only what is needed to talk to a core.

        Args:
            folder: of the checkpoint.
            with_weights: whether the model is to compute.
            device: that it computes on; see `load_checkpoint`.
            precision: of its weights; see `load_checkpoint`.
            cache_bytes: of keys and values kept between answers.

        Raises:
            InvalidParameter: if the device cannot be used, or the model not be held in that precision.
            ModelNotFound: if the folder or a file that is needed is missing.
            CheckpointInvalid: if its files are damaged or do not fit together.
        """
        if not with_weights:
            return cls(*load_config_and_tokenizer(folder), None)
        checkpoint = load_packed(folder, device, precision=precision)
        return cls(
            checkpoint.model.config,
            checkpoint.tokenizer,
            checkpoint.model,
            prompt_cache_of(checkpoint.model, cache_bytes),
        )

    @classmethod
    def configured(cls, settings: ServiceSettings, *, with_weights: bool) -> UserModel:
        """Load the user model of a configuration; see `load`."""
        return cls.load(
            settings.user_folder,
            with_weights=with_weights,
            device=settings.device,
            precision=settings.precision,
            cache_bytes=settings.prompt_cache_mb * 10**6,
        )

    @property
    def device(self) -> str:
        """Kind of the device that the model computes on; empty without weights."""
        return next(self.model.parameters()).device.type if self.model else ""

    @property
    def precision(self) -> str:
        """Precision of the model's weights; empty without them."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.") if self.model else ""

    @property
    def era(self) -> object | None:
        """See `PromptCache.era`; None without a cache."""
        return self.prompt_cache.era if self.prompt_cache else None

    def forget_prompts(self) -> None:
        """Clear the cache of earlier prompts: a document or a conversation is gone."""
        if self.prompt_cache:
            self.prompt_cache.forget()

    @property
    def vocabulary_sha256(self) -> str:
        """Fingerprint of the vocabulary; see `Tokenizer.vocabulary_sha256`."""
        return self.tokenizer.vocabulary_sha256(self.config.stop_ids[0])

    def instructed(self, system_prompt: str) -> Conversation:
        """Return a conversation of only the system prompt; an empty one without a chat template."""
        return NOTHING_SAID.instructed(system_prompt) if self.tokenizer.takes_conversations else NOTHING_SAID

    def core_prompt(self, instruction: str, conversation: Conversation = NOTHING_SAID) -> list[int]:
        """The prompt with w_inst and what crossed of earlier turns: what the core sees."""
        messages, layout = conversation.for_core(instruction), conversation.layout
        return self.tokenizer.encode_conversation(messages, bos_token_id=self.config.bos_token_id, layout=layout)

    def prompt(
        self,
        instruction: str,
        passages: Sequence[Passage] = (),
        conversation: Conversation = NOTHING_SAID,
        private_context: str = "",
    ) -> list[int]:
        """The prompt with all of it: what only the user model sees."""
        messages, texts = conversation.for_user(instruction), told_in_order(passages)
        texts = [private_context, *texts] if private_context.strip() else texts
        bos, layout = self.config.bos_token_id, conversation.layout
        return self.tokenizer.encode_conversation(messages, texts, bos_token_id=bos, layout=layout)

    @property
    def longest_answer(self) -> int:
        """Tokens of the longest answer that has room, behind the shortest question."""
        room = self._answer_room(len(self.core_prompt("")), self.config.block_size)
        return room // self.config.block_size * self.config.block_size

    # See docs/decisions/024-room-for-passages.md.
    def kept(
        self, instruction: str, conversation: Conversation, params: DecodingParams, core_takes: int | None = None
    ) -> Conversation:
        """Leave out the oldest turns until the answer, or half of the longest one, has room behind the rest.

        The core sees how many there are, so only what it is sent anyway decides.

        Args:
            instruction: w_inst.
            conversation: before it.
            params: as asked for.
            core_takes: as in `limited`.
        """
        wanted = min(params.max_answer_tokens, self.longest_answer // 2)
        while conversation.turns:
            needed = len(self.core_prompt(instruction, conversation))
            if self._answer_room(needed, params.block_size) >= wanted and (core_takes is None or needed <= core_takes):
                break
            conversation = conversation.without_oldest()
        return conversation

    def limited(
        self,
        instruction: str,
        params: DecodingParams,
        core_takes: int | None = None,
        conversation: Conversation = NOTHING_SAID,
    ) -> DecodingParams:
        """Shorten the longest answer to the room behind the instruction, in whole blocks.

        The core is told how many blocks an answer may have. So this sees no passage, and keeps room for passages
        whether there are any or not.

        Args:
            instruction: w_inst.
            params: as asked for.
            core_takes: tokens of the longest question that the core takes; None if it takes no part or is not known.
            conversation: before the instruction.

        Raises:
            PromptTooLong: if not one block has room, or the core does not take the instruction.
        """
        needed = len(self.core_prompt(instruction, conversation))
        room = self._answer_room(needed, params.block_size)
        if room < params.block_size or (core_takes is not None and needed > core_takes):
            raise self.too_long(needed, params.block_size, "block_size", core_takes, conversation)
        return params.within(room)

    def _answer_room(self, needed: int, block_size: int) -> int:
        """Tokens of answer behind a prompt; where passages take their room from the answer, half of it stays theirs."""
        spare = max(0, self.config.max_prompt_tokens_before(block_size) - needed)
        return self.config.max_answer_tokens_behind(needed + spare // 2)

    def fitting(
        self,
        instruction: str,
        passages: Sequence[Passage],
        answer_tokens: int,
        conversation: Conversation = NOTHING_SAID,
        private_context: str = "",
    ) -> Fitted:
        """Choose the passages that fit the model's context beside the instruction, the first ones first.

        Where not all has room, earlier turns have half of it: the oldest are left out first, then passages.

        Of the first passage that does not fit whole the sentences that fit are given, those that match the instruction
        before others. Shorter passages behind it may still fit. Private context is the first of them all.

        Args:
            instruction: w_inst.
            passages: candidates, the best first.
            answer_tokens: room that the answer needs, in whole blocks.
            conversation: before the instruction.
            private_context: given with the question.

        Raises:
            PromptTooLong: if the instruction alone does not fit.
        """
        private = [Passage(private_context, _PRIVATE)] if private_context.strip() else []
        passages = [*private, *passages]
        longest = self.config.max_prompt_tokens_before(answer_tokens)
        conversation = self._fitting_turns(instruction, passages, longest, conversation)
        if (needed := len(self.prompt(instruction, (), conversation))) > longest:
            raise self.too_long(needed, answer_tokens, "max_tokens", conversation=conversation)
        given = self._chosen(instruction, passages, longest, conversation)
        left_out = [passage for at, passage in enumerate(passages) if at not in given]
        return _apart(list(given.values()), left_out, conversation, has_private=bool(private))

    def _chosen(
        self, instruction: str, passages: Sequence[Passage], longest: int, conversation: Conversation
    ) -> dict[int, Passage]:
        """Choose passages by their index, one of them cut, for a prompt of at most so many tokens."""
        counts = [self._tokens_added(passage) for passage in passages]
        room = longest - len(self.prompt(instruction, [_BESIDE], conversation)) + self._tokens_added(_BESIDE)
        while True:
            given = self._within(room, instruction, passages, counts)
            over = len(self.prompt(instruction, list(given.values()), conversation)) - longest
            if over <= 0:
                return given
            room -= over  # they were counted apart, and where they meet tokens may be others

    def _within(
        self, room: int, instruction: str, passages: Sequence[Passage], counts: Sequence[int]
    ) -> dict[int, Passage]:
        given: dict[int, Passage] = {}
        has_cut = False
        for at, (passage, tokens) in enumerate(zip(passages, counts, strict=True)):
            shown, needed = passage, tokens
            if tokens > room:
                part = None if has_cut else self._cut(instruction, passage, room)
                if part is None:
                    continue
                shown, needed, has_cut = part, self._tokens_added(part), True
            given[at] = shown
            room -= needed
        return given

    def _fitting_turns(
        self, instruction: str, passages: Sequence[Passage], longest: int, conversation: Conversation
    ) -> Conversation:
        """Leave out the oldest turns until everything has room, or those that stay take half of the room at most."""
        alone = len(self.prompt(instruction, (), conversation.without_turns()))
        while conversation.turns:
            has_room = len(self.prompt(instruction, passages, conversation)) <= longest
            turns = len(self.prompt(instruction, (), conversation)) - alone
            if has_room or turns <= (longest - alone) // 2:
                break
            conversation = conversation.without_oldest()
        return conversation

    def terms(
        self,
        instruction: str,
        passages: Sequence[Passage],
        collaboration: CollaborationParams,
        self_conditioning: str,
        conversation: Conversation = NOTHING_SAID,
        on_read: OnRead = nobody,
        private_context: str = "",
        era: object | None = None,
        *,
        cites_tokens: bool = False,
    ) -> UserTerms:
        """The model's part in one decode, to be closed; for `on_read` and `era` see `PromptCache.begin`.

        To cite tokens, each passage is also read alone, and all of them in reverse.
        """
        if self.model is None:
            raise ModelNotFound(
                "the user model was loaded without its weights; load it with them", parameter="user_model"
            )
        with_docs = self.prompt(instruction, passages, conversation, private_context)
        without_docs = self.prompt(instruction, (), conversation)
        cache = self.prompt_cache
        begin_with = None if cache is None else lambda prompts: cache.begin(prompts, on_read, era)
        given = (passages, conversation, private_context)
        beside = self._prompts_beside(instruction, *given) if cites_tokens else []
        return user_terms(self.model, [with_docs], [without_docs], collaboration, self_conditioning, begin_with, beside)

    def _prompts_beside(
        self, instruction: str, passages: Sequence[Passage], conversation: Conversation, private_context: str
    ) -> list[list[list[int]]]:
        """Make the prompts of the passes that tokens are cited by; see `ssd2.algorithm.attribution.origins`."""
        given = [([passage], "") for passage in passages]
        given += [([], private_context)] if private_context.strip() else []
        given += [([*reversed(passages)], private_context)] if len(passages) > 1 else []
        return [[self.prompt(instruction, some, conversation, context)] for some, context in given]

    def _tokens_added(self, passage: Passage) -> int:
        """Count the tokens that a passage adds to a prompt with others, give or take those where two texts meet.

        Never beside none: a template may say something of its own where nothing else is said.
        """
        return len(self.prompt("", [_BESIDE, passage, _BESIDE])) - len(self.prompt("", [_BESIDE, _BESIDE]))

    def _cut(self, instruction: str, passage: Passage, room: int) -> Passage | None:
        """Cut a passage to the sentences that fit, in their order; None if none does."""
        every = [replace(passage, text=text, is_cut=True) for text in sentences(passage.text)]
        tokens = [self._tokens_of(f" {sentence.text}") for sentence in every]
        gap = self._tokens_of(GAP.rstrip())
        frame = replace(_BESIDE, heading=passage.heading)
        left = room + gap - self._tokens_added(frame) + self._tokens_of(f" {_BESIDE.text}")
        alone = [at for at, needed in enumerate(tokens) if needed + gap <= left]
        if not alone:
            return None
        matching = {one.text for one in search([Passage(one.text, Path()) for one in every], instruction)}
        chosen: dict[int, None] = {}  # in the order of choice
        for at in sorted(alone, key=lambda at: every[at].text not in matching):
            neighbours = (at - 1 in chosen) + (at + 1 in chosen)  # each one is a gap less
            if (more := tokens[at] + gap * (1 - neighbours)) <= left:
                chosen[at] = None
                left -= more
        while chosen and self._tokens_added(_joined(every, sorted(chosen))) > room:
            chosen.popitem()  # the sentences were counted apart
        return _joined(every, sorted(chosen)) if chosen else None

    def _tokens_of(self, text: str) -> int:
        """Count the tokens of a text behind another one: some tokenizers put a space before the first word."""
        return len(self.tokenizer.encode(_BESIDE.text + text)) - len(self.tokenizer.encode(_BESIDE.text))

    def too_long(
        self,
        needed: int,
        answer_tokens: int,
        of_the_answer: str,
        core_takes: int | None = None,
        conversation: Conversation = NOTHING_SAID,
    ) -> PromptTooLong:
        """Say whether the question is to change, or what made the answer so long.

        Args:
            needed: tokens of the question.
            answer_tokens: of the shortest answer that would do.
            of_the_answer: the parameter that sets them.
            core_takes: as in `limited`; a question that is shortened to the limit must not be refused again.
            conversation: before the question. Only its system prompt is left; one that was given may be what is long.
        """
        most = self.config.max_prompt_tokens_before(answer_tokens)
        if most < len(self.core_prompt("")):
            return PromptTooLong(
                f"an answer of {answer_tokens} tokens leaves no room for a question in the user model; use fewer",
                parameter=of_the_answer,
            )
        limit = most if core_takes is None else min(most, core_takes)
        who = "the user model takes" if core_takes is None else "the models take"
        what, it = "the question has", "it"
        if conversation.system_prompt not in ("", BRIEFLY):
            what, it = "the question and the system prompt have", "them"
        return PromptTooLong(
            f"{what} {needed} tokens, and {who} at most {limit}; shorten {it}",
            parameter="question",
            limit=limit,
        )


def _apart(
    given: Sequence[Passage], left_out: Sequence[Passage], conversation: Conversation, *, has_private: bool
) -> Fitted:
    """Separate the private context from the passages that it was fitted with as the first."""
    if not has_private:
        return Fitted(given, left_out, conversation=conversation)
    if left_out and left_out[0].source is _PRIVATE:
        return Fitted(given, left_out[1:], conversation=conversation, private_context_fit="left out")
    first, *others = given
    fit: PrivateContextFit = "in part" if first.is_cut else "whole"
    return Fitted(others, left_out, None, conversation, first.text, fit)


def _joined(every: Sequence[Passage], chosen: Sequence[int]) -> Passage:
    """Join sentences, with a mark between two that did not stand side by side."""
    text = every[chosen[0]].text
    for before, at in pairwise(chosen):
        text += (" " if at == before + 1 else GAP) + every[at].text
    return replace(every[0], text=text)
