"""The loop of one answer: ask the core, compute beside it, mix, project, send the projection back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ssd2.algorithm.block_end import patience_of_the_core
from ssd2.algorithm.collaboration import UserLogits, UserTerms, mix_terms
from ssd2.algorithm.exactness import proven
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.algorithm.projection import StepPosition
from ssd2.algorithm.sampler import LogitsRequest, commit, decode, project
from ssd2.errors import InvalidParameter, ModelMismatch, ProtocolVersionMismatch, TokenizerMismatch
from ssd2.logits.format import LogitsFormat
from ssd2.logits.packed import CoreLogits
from ssd2.models.control import Control
from ssd2.wire.codec import PROTOCOL_VERSION, ModelCard, OpenRequest
from user_agent.answering.answer import Answer, AnswerToken, CommittedBlock, Observer, ProjectedBlock
from user_agent.answering.request import MAX_SPECULATION
from user_agent.answering.user_model import UserModel
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

    def __post_init__(self) -> None:
        if not 0 <= self.speculation <= MAX_SPECULATION:
            raise InvalidParameter(f"speculation is {self.speculation}; it must be in [0, {MAX_SPECULATION}]")
        if self.params.self_conditioning == "mixed" and self.collaboration.uses_core:
            raise InvalidParameter(
                "self-conditioning 'mixed' would send mixed logits to the core, which reveal the user model's; use own "
                "or projection"
            )

    @property
    def clamped_from(self) -> int | None:
        """The longest answer that was asked for, if there was no room for it."""
        asked = self.asked_tokens or 0
        return asked if asked > self.params.max_tokens else None


@dataclass(frozen=True)
class _Ensemble:
    """The logits of one timestep, each [1, L, V].

    Attributes:
        core: the core's last ones; None where it takes no part.
        user: the user model's.
        mixed: line 8 of Algorithm 2, steered if there is a control.
    """

    core: CoreLogits | None
    user: UserLogits
    mixed: Tensor


@dataclass
class _Progress:
    """What has happened so far in one answer.

    Attributes:
        timesteps: decoded.
        exact_timesteps: see `Answer`.
        asked: where the core was asked last.
        core_logits: what it answered, [1, L, V].
        token_ids: of the committed blocks, before the EOS.
        chosen: what is known of each of them.
    """

    timesteps: int = 0
    exact_timesteps: int = 0
    asked: StepPosition | None = None
    core_logits: CoreLogits | None = None
    token_ids: list[int] = field(default_factory=list)
    chosen: list[_Chosen] = field(default_factory=list)

    @property
    def round_trips(self) -> int:
        """How often the core was asked."""
        return self.asked.number + 1 if self.asked else 0


@dataclass(frozen=True)
class _Chosen:
    """How a committed token came about; see `AnswerToken`."""

    core_choice: int | None
    core_p: float | None
    user_p: float | None
    mixed_p: float


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
        stream = await self._open(question, observer) if question.collaboration.uses_core else None
        try:
            if observer:
                observer.began()
            progress = _Progress()
            end = await self._decode(question, stream, progress, observer)
            if stream:
                await stream.close()
        except BaseException:
            if stream:
                stream.cancel()
            raise
        return Answer(
            text=self._user_model.tokenizer.decode(progress.token_ids),
            tokens=self._tokens(progress),
            timesteps=progress.timesteps,
            round_trips=progress.round_trips,
            exact_timesteps=progress.exact_timesteps,
            logits_format=str(stream.logits_format) if stream else None,
            seconds=time.perf_counter() - started,
            bytes_up=stream.bytes_up if stream else 0,
            bytes_down=stream.bytes_down if stream else 0,
            guessed_timesteps=stream.guessed_rightly if stream else 0,
            resumed=stream.resumed if stream else 0,
            end=end,
        )

    async def _decode(
        self, question: Question, stream: ResumingStream | None, progress: _Progress, observer: Observer | None
    ) -> str:
        """Run Algorithm 2, each request answered by both models at the same time; why it ended."""
        terms, length = self._terms(question), question.params.block_size
        run = self._sampler(question)
        request: LogitsRequest | None = next(run)
        while request:
            logits = await self._mixed(question, stream, terms, progress, request)
            progress.timesteps += 1
            following, answer_ids = _following(run, logits.mixed)
            if following and following.x0_hat is not None:
                if observer:
                    observer.projected(_projected(request, logits, following.x0_hat))
            else:
                progress.token_ids = answer_ids
                progress.chosen += _chosen(logits, answer_ids[request.block * length :], question, request)
                if observer and not observer.committed(self._committed(request, progress, length)):
                    return "observer"
            request = following
        return "length" if len(progress.token_ids) >= question.params.max_tokens else "eos"

    async def _mixed(
        self,
        question: Question,
        stream: ResumingStream | None,
        terms: UserTerms | None,
        progress: _Progress,
        request: LogitsRequest,
    ) -> _Ensemble:
        """The ensembled logits of one timestep; where the core is not asked, its last ones are mixed."""
        params = question.params
        due = stream if params.asks_core_at(request.step) else None
        at = StepPosition(progress.round_trips, request.block, request.step // params.core_every)
        if due:
            await _tell(due, progress.asked, request, params)
        core_logits, user_logits = await _both(due, terms, at, request)
        if due:
            progress.asked, progress.core_logits = at, core_logits
        core = progress.core_logits
        logits = mix_terms(core.values if core else None, user_logits, question.collaboration)
        progress.exact_timesteps += self._is_exact(core, logits, question, request)
        if self._control:
            logits = await asyncio.to_thread(self._control.steer, logits, self._written(question, request))
        return _Ensemble(core, user_logits, logits)

    def _is_exact(self, core: CoreLogits | None, mixed: Tensor, question: Question, request: LogitsRequest) -> bool:
        """Whether the projection is provably that of the core's own logits; never claimed of a steered one."""
        if core is None or self._control:
            return core is None
        positions = proven(
            core,
            mixed,
            question.collaboration.lambda_user,
            question.params,
            [question.seeds.sampling],
            request.block,
            request.timestep,
        )
        return bool(positions.all())

    def _written(self, question: Question, request: LogitsRequest) -> Tensor:
        """w^{<c} for the control: the instruction and the answer so far, [1, C]; not the documents."""
        instruction = torch.tensor([self._user_model.tokenizer.encode(question.instruction)], dtype=torch.int64)
        return torch.cat([instruction, request.answer_ids], -1)

    async def _open(self, question: Question, observer: Observer | None) -> ResumingStream:
        if self._client is None:
            raise InvalidParameter("λ below 1 needs a core; give its address", parameter="core")
        on_wait = observer.waiting if observer else None
        card = await self._client.model_card(question.model, self._user_model.config.family, on_wait)
        self._check(card, question)
        logits_format = question.logits_format or card.logits_formats.best()
        card.logits_formats.check(logits_format)
        return await self._client.open(
            OpenRequest(
                model=question.model,
                family=card.family,
                model_sha256=card.model_sha256,
                tokenizer_sha256=self._user_model.tokenizer.sha256,
                vocab_size=self._user_model.config.vocab_size,
                prompt_ids=tuple(self._user_model.core_prompt(question.instruction)),
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

    def _check(self, card: ModelCard, question: Question) -> None:
        """Refuse a core that cannot answer, before the question is sent to it."""
        check_card(card, self._user_model, question.model)
        prompt_tokens = len(self._user_model.core_prompt(question.instruction))
        if prompt_tokens > card.max_prompt_tokens:
            block_size = question.params.block_size
            raise self._user_model.too_long(prompt_tokens, block_size, "block_size", card.max_prompt_tokens)
        if question.params.block_size > card.max_block_size:
            raise InvalidParameter(
                f"block size is {question.params.block_size}, this core takes at most {card.max_block_size}; "
                "use smaller blocks",
                parameter="block_size",
                limit=card.max_block_size,
            )

    def _terms(self, question: Question) -> UserTerms | None:
        if not question.collaboration.uses_user:
            return None
        return self._user_model.terms(
            question.instruction, question.passages, question.collaboration, question.params.self_conditioning
        )

    def _sampler(self, question: Question) -> Generator[LogitsRequest, Tensor, list[list[int]]]:
        config = self._user_model.config
        return decode(question.params, [question.seeds], vocab_size=config.vocab_size, eos_token_id=config.eos_token_id)

    def _committed(self, request: LogitsRequest, progress: _Progress, length: int) -> CommittedBlock:
        """What an observer is told of a block of this length."""
        tokens = self._tokens(progress)[request.block * length :]
        text = self._user_model.tokenizer.decode(progress.token_ids)
        return CommittedBlock(request.block, request.step, request.timestep, tokens, text)

    def _tokens(self, progress: _Progress) -> list[AnswerToken]:
        tokenizer, token_ids = self._user_model.tokenizer, progress.token_ids
        return [
            AnswerToken(
                token_id=token_id,
                text=text,
                core_choice=None if chosen.core_choice is None else tokenizer.token_name(chosen.core_choice),
                is_changed=chosen.core_choice not in (None, token_id),
                core_p=chosen.core_p,
                user_p=chosen.user_p,
                mixed_p=chosen.mixed_p,
            )
            for token_id, text, chosen in zip(token_ids, tokenizer.token_texts(token_ids), progress.chosen, strict=True)
        ]


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
        raise ModelMismatch(f"the core offers {card.model!r}, not {model!r} that it was asked for; tell its provider")
    config = user_model.config
    if card.family != config.family:
        raise ModelMismatch(
            f"the core offers a model of the family {card.family!r}, the user model is of {config.family!r}, and "
            "their logits mean different things; use a user model of the core's family",
            parameter="user_model",
        )
    if (card.tokenizer_sha256, card.vocab_size) != (user_model.tokenizer.sha256, config.vocab_size):
        raise TokenizerMismatch(
            f"the core's model {card.model!r} has another tokenizer than the user model, so their logits cannot "
            "be mixed; use a user model that was made for this core",
            parameter="user_model",
        )


def _following(
    run: Generator[LogitsRequest, Tensor, list[list[int]]], mixed: Tensor
) -> tuple[LogitsRequest | None, list[int]]:
    """What has to be asked next, None at the end, and the answer so far."""
    try:
        following = run.send(mixed)
    except StopIteration as finished:
        return None, finished.value[0]
    return following, following.answer_ids[0].tolist()


def _projected(request: LogitsRequest, logits: _Ensemble, x0_hat: Tensor) -> ProjectedBlock:
    core = logits.core
    unlike = core.values.argmax(-1) != logits.mixed.argmax(-1) if core else torch.zeros(x0_hat.shape[:-1])
    return ProjectedBlock(
        request.block,
        request.step,
        request.timestep,
        token_ids=commit(logits.mixed, x0_hat)[0].tolist(),
        unlike_core=unlike[0].nonzero().flatten().tolist(),
    )


async def _tell(
    stream: ResumingStream, asked: StepPosition | None, request: LogitsRequest, params: DecodingParams
) -> None:
    """Send what the core needs to get to this request: the projection before it, or a block's commit.

    It answers the logits that the core gave last; there are none before the first ones.
    """
    if asked is None:
        return
    if request.x0_hat is not None:
        await stream.project(asked, request.x0_hat[0])
    else:
        await stream.commit(asked, request.answer_ids[0, -params.block_size :].tolist())


async def _both(
    stream: ResumingStream | None, terms: UserTerms | None, at: StepPosition, request: LogitsRequest
) -> tuple[CoreLogits | None, UserLogits]:
    """The logits of both models: the device computes while the core does."""
    computing = asyncio.create_task(asyncio.to_thread(terms.logits, request)) if terms else None
    try:
        core = await stream.logits(at) if stream else None
    except BaseException:
        if computing:
            await asyncio.gather(computing, return_exceptions=True)
        raise
    return core, await computing if computing else UserLogits()


def _chosen(logits: _Ensemble, token_ids: Sequence[int], question: Question, request: LogitsRequest) -> list[_Chosen]:
    """How the tokens of a block came about."""
    core = logits.core
    choices = _core_choices(core, question, request)[: len(token_ids)]
    given = (core.values if core else None, logits.user.with_docs, logits.mixed)
    probabilities = (_probabilities(of, token_ids) for of in given)
    return [_Chosen(*one) for one in zip(choices, *probabilities, strict=True)]


def _probabilities(logits: Tensor | None, token_ids: Sequence[int]) -> list[float | None]:
    """Of the tokens, position after position."""
    if logits is None:
        return [None] * len(token_ids)
    given = torch.softmax(logits[0, : len(token_ids)].float(), -1)
    chosen: list[float | None] = given.gather(-1, torch.tensor(token_ids, dtype=torch.int64)[:, None])[:, 0].tolist()
    return chosen


def _core_choices(core: CoreLogits | None, question: Question, request: LogitsRequest) -> list[int | None]:
    """What the core alone would commit: its logits under the projection and draw that the mix had."""
    if core is None:
        return [None] * question.params.block_size
    with torch.inference_mode():
        x0_hat = project(core.values, question.params, [question.seeds.sampling], request.block, request.timestep)
        return [*commit(core.values, x0_hat)[0].tolist()]
