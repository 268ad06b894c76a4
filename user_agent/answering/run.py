"""The loop of one answer: ask the core, compute beside it, mix, project, send the projection back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ssd2.algorithm.block_end import patience_of_the_core
from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.collaboration import Mixer, UserLogits, UserTerms
from ssd2.algorithm.ensemble import Weights
from ssd2.algorithm.exactness import proven
from ssd2.algorithm.measured import MeasuredDecoding
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.algorithm.penalties import NONE, Penalties
from ssd2.algorithm.projection import StepPosition
from ssd2.algorithm.sampler import Outcome, Projection
from ssd2.errors import InvalidParameter, ModelMismatch, ProtocolVersionMismatch, TokenizerMismatch
from ssd2.logits.format import LogitsFormat
from ssd2.logits.packed import CoreLogits
from ssd2.models.chat import ShownText
from ssd2.models.configs import ModelConfig
from ssd2.models.control import Control
from ssd2.models.predict import begin_sampler
from ssd2.models.tokenizer import GrowingText
from ssd2.wire.codec import PROTOCOL_VERSION, ModelCard, OpenRequest
from user_agent.answering.answer import Answer, AnswerToken, CommittedBlock, Observer, ProjectedBlock
from user_agent.answering.citing import Citing
from user_agent.answering.contributions import BlockContributions
from user_agent.answering.conversation import NOTHING_SAID, Conversation
from user_agent.answering.decoding import decoding_for
from user_agent.answering.request import MAX_SPECULATION, AnswerSettings
from user_agent.answering.user_model import PrivateContextFit, UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.line.resuming_stream import ResumingStream


@dataclass(frozen=True)
class Question:
    """One question and how to answer it.

    Attributes:
        instruction: w_inst, what both models see.
        passages: of D_user, those that fit; what only the user model sees.
        collaboration: λ and α.
        params: how to decode.
        seeds: the public one and the device's own.
        model: name of the core's model, or "" for the first of the user model's family.
        logits_format: of the core's logits; None for the best that its provider allows.
        speculation: timesteps that the core may send ahead, on guesses at the projections; no token depends on it.
        left_out: passages that were found and did not fit.
        asked_tokens: longest answer that was asked for, where `params` have room for less; None for what they say.
        conversation: earlier turns for the user model, those that fit.
        core_conversation: earlier turns for the core, which is sent of them what crossed before.
        left_out_turns: how many earlier turns the user model is not given.
        private_context: what only the user model sees beside the passages.
        private_context_fit: how much it is of what was given.
        era: when the passages were searched for; see `PromptCache.begin`.
        settings: that `params` were completed from, to complete them with the core's; None to take them as they are.
        cites_tokens: whether the passage of each token is looked for, and where passages disagree.
        nothing_found: whether documents were searched and none seemed to be about the question.
        penalties: on tokens that the answer has already.
    """

    instruction: str
    passages: Sequence[Passage]
    collaboration: CollaborationParams
    params: DecodingParams
    seeds: Seeds
    model: str = ""
    logits_format: LogitsFormat | None = None
    speculation: int = 0
    left_out: Sequence[Passage] = ()
    asked_tokens: int | None = None
    conversation: Conversation = NOTHING_SAID
    core_conversation: Conversation = NOTHING_SAID
    left_out_turns: int = 0
    private_context: str = ""
    private_context_fit: PrivateContextFit | None = None
    era: object | None = None
    settings: AnswerSettings | None = None
    cites_tokens: bool = False
    nothing_found: bool = False
    penalties: Penalties = NONE

    def __post_init__(self) -> None:
        if not 0 <= self.speculation <= MAX_SPECULATION:
            raise InvalidParameter(
                f"speculation is {self.speculation}; it must be in [0, {MAX_SPECULATION}]",
                parameter="speculation",
                limit=MAX_SPECULATION,
            )
        if self.params.self_conditioning == "mixed" and self.collaboration.uses_core:
            raise InvalidParameter(
                "self-conditioning 'mixed' would send mixed logits to the core, which reveal the user model's; use own "
                "or projection",
                parameter="self_conditioning",
            )

    def completed(self, config: ModelConfig, core: MeasuredDecoding) -> Question:
        """Return the question with what nobody chose as measured for the core's model.

        Args:
            config: of the user model.
            core: measured settings on the core's card.
        """
        if self.settings is None:
            return self
        params = decoding_for(self.settings, config, core)
        return replace(self, params=replace(params, max_tokens=self.params.max_tokens))

    @property
    def clamped_from(self) -> int | None:
        """The longest answer that was asked for, if there was no room for it."""
        asked = self.asked_tokens or 0
        return asked if asked > self.params.max_tokens else None


@dataclass(frozen=True)
class Ensemble:
    """The logits of one timestep, each [1, L, V].

    Attributes:
        core: the core's last ones; None where it takes no part.
        user: the user model's.
        mixed: line 8 of Algorithm 2, steered if there is a control.
        weights: that they were mixed with.
    """

    core: CoreLogits | None
    user: UserLogits
    mixed: Tensor
    weights: Weights


class AnswerInProgress:
    """One answer in the making.

    Attributes:
        tokens: of the committed blocks, before the EOS.
        timesteps: decoded so far.
        exact_timesteps: see `Answer`.
    """

    def __init__(
        self,
        question: Question,
        user_model: UserModel,
        terms: UserTerms | None,
        stream: ResumingStream | None,
        control: Control | None = None,
        observer: Observer | None = None,
        *,
        ends_at_eos: bool = True,
    ) -> None:
        """Begin an answer.

        Args:
            question: with its passages and parameters.
            user_model: θ_user.
            terms: its part in the decode; None where it takes no part.
            stream: the line to the core, opened; None where it takes no part.
            control: steers the mix.
            observer: told of every timestep and block; may end the answer.
            ends_at_eos: whether an EOS ends it.
        """
        self._question, self._user_model, self._stream = question, user_model, stream
        self._control, self._observer = control, observer
        self._terms, self._mixer = terms, Mixer(question.collaboration)
        self._citing: Citing | None = None
        if terms and question.cites_tokens:
            stop_ids = user_model.config.stop_ids
            self._citing = Citing(terms, question.passages, user_model.tokenizer, stop_ids)
        self._sampler = begin_sampler(user_model.config, question.params, [question.seeds], ends_at_eos=ends_at_eos)
        self._asked: StepPosition | None = None  # where the core was asked last
        self._core: CoreLogits | None = None  # what it answered
        self._contributions = BlockContributions()  # to the block in the making
        self._text = GrowingText(user_model.tokenizer)
        self._shown = ShownText(user_model.tokenizer.begins_thinking)
        self._is_enough = False
        self.tokens: list[AnswerToken] = []
        self.timesteps = self.exact_timesteps = 0

    @property
    def due(self) -> BlockView | None:
        """View that the models are asked next; None once the answer is complete."""
        return None if self._is_enough else self._sampler.due

    def asks_core_at(self, view: BlockView) -> bool:
        """Tell whether the core is asked at a timestep; else its last logits are mixed."""
        return self._question.params.asks_core_at(view.step)

    async def step(self) -> Ensemble:
        """Decode one timestep of Algorithm 2.

        Raises:
            SlingshotError: of the kind that says what went wrong.
        """
        view = self._due()
        core, user = await self._ask(view)  # lines 3 to 7, both models side by side
        ensemble = await self._mix(view, core, user)  # line 8
        outcome = self._sampler.step(ensemble.mixed)  # line 9, and 13 at the end of a block
        if self._citing:
            await self._citing.see(view, outcome, ensemble.user)
        if outcome.is_commit:  # its tokens are shown with what each model gave them
            self._weigh(view, ensemble, outcome)
        self._show(view, ensemble, outcome)
        await self._tell()  # lines 10 to 12 at the core
        if not outcome.is_commit:  # now that the core is at work
            self._weigh(view, ensemble, outcome)
        self.exact_timesteps += self._is_exact(view, ensemble)  # which nobody waits for
        return ensemble

    def _due(self) -> BlockView:
        if (view := self.due) is None:
            raise ValueError("the answer is complete")
        return view

    async def _ask(self, view: BlockView) -> tuple[CoreLogits | None, UserLogits]:
        """Have the device compute while the core does; where the core is not asked, take its last logits."""
        stream = self._stream if self.asks_core_at(view) else None
        number = self._asked.number + 1 if self._asked else 0
        at = StepPosition(number, view.block, view.step // self._question.params.core_every)
        core, user = await _both(stream, self._terms, at, view)
        if stream:
            self._asked, self._core = at, core
        return self._core, user

    async def _mix(self, view: BlockView, core: CoreLogits | None, user: UserLogits) -> Ensemble:
        mix = self._mixer.mix(core.values if core else None, user, view.step)
        mixed = mix.logits
        self.timesteps += 1
        mixed = self._question.penalties.apply(mixed, view.answer_ids)
        if self._control:
            mixed = await asyncio.to_thread(self._control.steer, mixed, self._written(view))
        return Ensemble(core, user, mixed, mix.weights)

    def _is_exact(self, view: BlockView, ensemble: Ensemble) -> bool:
        """Tell whether the projection is provably that of the core's own logits.

        Never claimed of a mix that was steered or penalised.
        """
        core = ensemble.core
        if core is None or self._control or self._question.penalties:
            return core is None
        question, draws = self._question, [self._question.seeds.sampling]
        mixed, weight = ensemble.mixed, ensemble.weights.core
        return bool(proven(core, mixed, weight, question.params, draws, view.block, view.timestep).all())

    def _written(self, view: BlockView) -> Tensor:
        """w^{<c} for the control: the instruction and the answer so far, [1, C]; not the documents."""
        instruction = torch.tensor([self._user_model.tokenizer.encode(self._question.instruction)], dtype=torch.int64)
        return torch.cat([instruction, view.answer_ids], -1)

    def _show(self, view: BlockView, ensemble: Ensemble, outcome: Outcome) -> None:
        """Tell the observer, on the device; it may have enough."""
        if outcome.is_commit:
            tokens = self._committed(self.token_ids[len(self.tokens) :])
            self.tokens += tokens
            if self._observer:
                text = self._shown.of(self._user_model.tokenizer.decode(self.token_ids))
                seen = CommittedBlock(view.block, view.step, view.timestep, tokens, text)
                self._is_enough = not self._observer.committed(seen)
        elif self._observer:
            self._observer.projected(_projected(view, ensemble, outcome.projection))

    async def _tell(self) -> None:
        """Send what the core needs to get to what is due: the projection before it, or a block's commit.

        It answers the logits that the core gave last; between two times that the core is asked nothing is sent.
        """
        view = self.due
        if self._stream and self._asked and view and self.asks_core_at(view):
            await _tell(self._stream, self._asked, view)

    def _weigh(self, view: BlockView, ensemble: Ensemble, outcome: Outcome) -> None:
        """Find what each model gave to the tokens that this timestep changed."""
        core, user = ensemble.core, ensemble.user.with_docs
        self._contributions.see(
            outcome.projection.token_ids[0],
            (core.values if core else None, user, ensemble.mixed),
            ensemble.weights.lambda_user,
            lambda logits: self._sampler.project(logits, view).token_ids,
        )

    def _committed(self, token_ids: Sequence[int]) -> list[AnswerToken]:
        """Return the tokens of a block with how they came about; the next block begins."""
        of_block, self._contributions = self._contributions, BlockContributions()
        name = self._user_model.tokenizer.token_name
        return [
            AnswerToken(
                token_id=token_id,
                text=self._shown.add(self._text.add(token_id)),
                core_choice=None if (choice := of_block[index].core_choice) is None else name(choice),
                is_changed=choice not in (None, token_id),
                core_p=of_block[index].core_p,
                user_p=of_block[index].user_p,
                mixed_p=of_block[index].mixed_p,
                led_by=of_block[index].led_by(token_id),
                lambda_user=of_block[index].lambda_user,
                citation=self._citing.citation(len(self.tokens) + index) if self._citing else None,
            )
            for index, token_id in enumerate(token_ids)
        ]

    @property
    def token_ids(self) -> list[int]:
        """Tokens of the committed blocks, before the EOS."""
        return self._sampler.answers[0]

    async def finish_citing(self) -> None:
        """Find out what passages say that disagree, behind the last message to the core."""
        if self._citing:
            await self._citing.finish()

    def complete(self, seconds: float) -> Answer:
        """Return the answer, once no timestep is due.

        Args:
            seconds: that it took.
        """
        stream, token_ids, tokens = self._stream, self.token_ids, self.tokens
        if tokens and (rest := self._shown.add(self._text.rest) + self._shown.rest):  # it ends within a character
            tokens = [*tokens[:-1], replace(tokens[-1], text=tokens[-1].text + rest)]
        is_long = len(token_ids) >= self._question.params.max_tokens
        return Answer(
            text=self._shown.of(self._user_model.tokenizer.decode(token_ids)),
            tokens=tokens,
            timesteps=self.timesteps,
            round_trips=self._asked.number + 1 if self._asked else 0,
            exact_timesteps=self.exact_timesteps,
            logits_format=str(stream.logits_format) if stream else None,
            seconds=seconds,
            bytes_up=stream.bytes_up if stream else 0,
            bytes_down=stream.bytes_down if stream else 0,
            guessed_timesteps=stream.guessed_rightly if stream else 0,
            resumed=stream.resumed if stream else 0,
            end="observer" if self._is_enough else "length" if is_long else "eos",
            conflicts=self._citing.conflicts(tokens) if self._citing else None,
        )


class Agent:
    """Answers questions with a user model and, through a client, a core."""

    def __init__(self, user_model: UserModel, client: CoreClient | None, control: Control | None = None) -> None:
        """Make an agent.

        Args:
            user_model: θ_user; without weights it serves λ = 0 alone.
            client: the line to the core; None serves λ = 1 alone.
            control: steers the mix; None leaves it as it is.
        """
        self._user_model, self._client, self._control = user_model, client, control

    async def answer(self, question: Question, observer: Observer | None = None) -> Answer:
        """Answer one question.

        Args:
            question: with its passages and parameters.
            observer: told of every timestep and block; may end the answer.

        Raises:
            SlingshotError: of the kind that says what went wrong.
        """
        started = time.perf_counter()
        async with self.begin(question, observer) as answer:
            while answer.due:
                await answer.step()
        return answer.complete(time.perf_counter() - started)

    @asynccontextmanager
    async def begin(
        self, question: Question, observer: Observer | None = None, *, ends_at_eos: bool = True
    ) -> AsyncIterator[AnswerInProgress]:
        """Open the line to the core if it takes part, and close it behind the answer.

        Args:
            question: with its passages and parameters.
            observer: told of every timestep and block; may end the answer.
            ends_at_eos: whether an EOS ends the answer.

        Raises:
            SlingshotError: of the kind that says what went wrong.
        """
        stream = None
        if question.collaboration.uses_core:
            question, stream = await self._open(question, observer)
        terms: UserTerms | None = None
        try:
            if observer:
                observer.began(question.params)
            terms = _terms(question, self._user_model, observer)
            answer = AnswerInProgress(
                question, self._user_model, terms, stream, self._control, observer, ends_at_eos=ends_at_eos
            )
            yield answer
            if stream:
                await stream.close()
            await answer.finish_citing()
        except BaseException:
            if stream:
                stream.cancel()
            raise
        finally:
            if terms:
                terms.close()

    async def _open(self, question: Question, observer: Observer | None) -> tuple[Question, ResumingStream]:
        """Open the line; what the core's card says about its model completes the question."""
        if self._client is None:
            raise InvalidParameter(
                "λ below 1 needs a core, but this agent opened none because its own λ is 1; lower λ in its settings",
                parameter="lambda_user",
            )
        on_wait = observer.waiting if observer else None
        card = await self._client.model_card(question.model, self._user_model.config.family, on_wait)
        self._check(card, question)
        question = question.completed(self._user_model.config, card.measured)
        logits_format = question.logits_format or card.logits_formats.best()
        card.logits_formats.check(logits_format)
        stream = await self._client.open(
            OpenRequest(
                model=question.model,
                family=card.family,
                model_sha256=card.model_sha256,
                vocabulary_sha256=self._user_model.vocabulary_sha256,
                vocab_size=min(card.vocab_size, self._user_model.config.vocab_size),
                prompt_ids=tuple(self._user_model.core_prompt(question.instruction, question.core_conversation)),
                noise_seed=question.seeds.noise,
                timesteps=question.params.core_timesteps,
                block_size=question.params.block_size,
                max_blocks=question.params.max_blocks,
                simplex_value=question.params.simplex_value,
                self_conditioning=question.params.self_conditioning,
                logits_format=logits_format,
                speculation=question.speculation,
                patience=patience_of_the_core(question.params, self._user_model.config.vocab_size),
            ),
            on_wait,
        )
        return question, stream

    def _check(self, card: ModelCard, question: Question) -> None:
        """Refuse a core that cannot answer, before the question is sent to it."""
        check_card(card, self._user_model, question.model)
        prompt_tokens = len(self._user_model.core_prompt(question.instruction, question.core_conversation))
        if prompt_tokens > card.max_prompt_tokens:
            block_size = question.params.block_size
            said = question.core_conversation
            raise self._user_model.too_long(prompt_tokens, block_size, "block_size", card.max_prompt_tokens, said)
        if question.params.block_size > card.max_block_size:
            raise InvalidParameter(
                f"block size is {question.params.block_size}; this core takes at most {card.max_block_size}",
                parameter="block_size",
                limit=card.max_block_size,
            )


def check_card(card: ModelCard, user_model: UserModel, model: str) -> None:
    """Refuse a core that a user model cannot work with.

    Args:
        card: what the core says about its model.
        user_model: θ_user, or its tokenizer alone.
        model: that the core was asked for; "" for any.

    Raises:
        ProtocolVersionMismatch: if the two sides speak different versions.
        ModelMismatch: if it is another model, or one whose logits mean something else.
        TokenizerMismatch: if the two do not share a tokenizer.
    """
    if card.protocol_version != PROTOCOL_VERSION:
        raise ProtocolVersionMismatch(
            f"the core speaks protocol version {card.protocol_version}, this agent {PROTOCOL_VERSION}; "
            "install the same release on both sides"
        )
    if model and card.model != model:
        raise ModelMismatch(
            f"the core offers {card.model!r} instead of the requested {model!r}; tell its provider", parameter="model"
        )
    config = user_model.config
    if card.family != config.family:
        raise ModelMismatch(
            f"the core's model is of the family {card.family!r} and the user model of {config.family!r}, so their "
            "logits mean different things; use a user model of the core's family",
            parameter="user_model",
        )
    is_same = card.vocabulary_sha256 == user_model.vocabulary_sha256
    if not is_same or (card.vocab_size != config.vocab_size and not config.cuts_rows):
        sizes = f"{card.vocab_size:,} tokens there, {config.vocab_size:,} here"
        how = sizes if card.vocab_size != config.vocab_size else f"both have {card.vocab_size:,} ids, for other tokens"
        raise TokenizerMismatch(
            f"the core's model {card.model!r} has another vocabulary than the user model ({how}), so their logits "
            "cannot be mixed; use a user model made for this core, of the same series of models",
            parameter="user_model",
        )


def _terms(question: Question, user_model: UserModel, observer: Observer | None) -> UserTerms | None:
    if not question.collaboration.uses_user:
        return None
    loop = asyncio.get_running_loop()

    def on_read(done: int, total: int) -> None:
        if observer:
            loop.call_soon_threadsafe(observer.reading, done, total)

    return user_model.terms(
        question.instruction,
        question.passages,
        question.collaboration,
        question.params.self_conditioning,
        question.conversation,
        on_read,
        question.private_context,
        question.era,
        cites_tokens=question.cites_tokens,
    )


async def _both(
    stream: ResumingStream | None, terms: UserTerms | None, at: StepPosition, view: BlockView
) -> tuple[CoreLogits | None, UserLogits]:
    """Gather the logits of both models: the device computes while the core does."""
    threads = torch.get_num_threads()
    if stream and stream.is_on_this_machine:
        threads = max(1, threads // 2)
    computing = asyncio.create_task(asyncio.to_thread(_computed, terms, view, threads)) if terms else None
    try:
        core = await stream.logits(at) if stream else None
    except BaseException:
        if terms and computing:
            terms.close()  # so that a long prompt is not read to its end
            await asyncio.gather(computing, return_exceptions=True)
        raise
    return core, await computing if computing else UserLogits()


# See docs/decisions/008-batches.md.
def _computed(terms: UserTerms, view: BlockView, threads: int) -> UserLogits:
    """Compute with so many processors: more threads than there are wait for each other."""
    torch.set_num_threads(threads)  # of this thread alone, and the next may be another one
    return terms.logits(view)


async def _tell(stream: ResumingStream, asked: StepPosition, view: BlockView) -> None:
    if view.projected:
        await stream.project(asked, view.projected[0])
    else:
        await stream.commit(asked, view.answer_ids[0, -view.block_size :].tolist())


def _projected(view: BlockView, ensemble: Ensemble, projection: Projection) -> ProjectedBlock:
    core, mixed = ensemble.core, ensemble.mixed
    unlike = (core.values.argmax(-1) != mixed.argmax(-1))[0].nonzero().flatten().tolist() if core else []
    return ProjectedBlock(view.block, view.step, view.timestep, projection.token_ids[0].tolist(), unlike)
