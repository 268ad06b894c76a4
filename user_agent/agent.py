"""The loop of one answer: ask the core, compute beside it, mix, project, send the projection back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ssd2.collaboration import UserLogits, UserTerms, mix_terms
from ssd2.control import Control
from ssd2.errors import InvalidParameter, ModelMismatch, PromptTooLong, ProtocolVersionMismatch, TokenizerMismatch
from ssd2.exactness import proven
from ssd2.logits_format import LogitsFormat
from ssd2.packed_logits import CoreLogits
from ssd2.params import CollaborationParams, DecodingParams, Seeds
from ssd2.sampler import LogitsRequest, commit, decode, project
from ssd2.wire.codec import PROTOCOL_VERSION, ModelCard, OpenRequest, StepPosition
from user_agent.core_client import CoreClient, CoreStream
from user_agent.documents.passage import Passage
from user_agent.user_model import UserModel

MAX_SPECULATION = 64
"""Timesteps sent ahead that an agent may have to read past, each a frame of logits."""


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
    """

    instruction: str
    passages: Sequence[Passage]
    collaboration: CollaborationParams
    params: DecodingParams
    seeds: Seeds
    model: str = ""
    logits_format: LogitsFormat | None = None
    speculation: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.speculation <= MAX_SPECULATION:
            raise InvalidParameter(f"speculation is {self.speculation}; it must be in [0, {MAX_SPECULATION}]")
        if self.params.self_conditioning == "mixed" and self.collaboration.uses_core:
            raise InvalidParameter(
                "self-conditioning 'mixed' would send mixed logits to the core, which reveal the user model's; use own "
                "or projection"
            )


@dataclass(frozen=True)
class AnswerToken:
    """One token of an answer.

    Attributes:
        token_id: as committed.
        text: as it stands in the answer.
        core_choice: text of what the core alone would have committed here, on the same draw and from
            the same noised block; None where no core took part.
        is_changed: whether the user's side changed the token.
    """

    token_id: int
    text: str
    core_choice: str | None
    is_changed: bool


@dataclass(frozen=True)
class Answer:
    """An answer and what it took.

    Attributes:
        text: the answer.
        tokens: its tokens.
        timesteps: timesteps decoded, over all blocks.
        round_trips: how often the core was asked: at every timestep, unless `core_every` says otherwise.
        exact_timesteps: those of them whose projection is provably what the core's logits would have given
            if none had been rounded or left out on the way, at every position.
        logits_format: of the core's logits; None where no core took part.
        seconds: wall time of the decode.
        bytes_up: payload sent to the core.
        bytes_down: payload received from it.
        guessed_timesteps: those whose logits the core had sent ahead, on a right guess.
    """

    text: str
    tokens: list[AnswerToken]
    timesteps: int
    round_trips: int
    exact_timesteps: int
    logits_format: str | None
    seconds: float
    bytes_up: int
    bytes_down: int
    guessed_timesteps: int


@dataclass
class _Progress:
    """What has happened so far in one answer.

    Attributes:
        timesteps: decoded.
        asked: where the core was asked last.
        core_logits: what it answered, [1, L, V].
        core_choices: what it alone would have committed, over all blocks.
    """

    timesteps: int = 0
    exact_timesteps: int = 0
    asked: StepPosition | None = None
    core_logits: CoreLogits | None = None
    core_choices: list[int | None] = field(default_factory=list)

    @property
    def round_trips(self) -> int:
        """How often the core was asked."""
        return self.asked.number + 1 if self.asked else 0


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

    async def answer(self, question: Question, on_block: Callable[[str], None] = lambda _: None) -> Answer:
        """Answer one question.

        Args:
            question: with its passages and parameters.
            on_block: told the text so far whenever a block is committed.

        Raises:
            SlingshotError: of the kind that says what went wrong.
        """
        started = time.perf_counter()
        stream = await self._open(question) if question.collaboration.uses_core else None
        try:
            progress = _Progress()
            token_ids = await self._decode(question, stream, progress, on_block)
            if stream:
                await stream.close()
        except BaseException:
            if stream:
                stream.cancel()
            raise
        return Answer(
            text=self._user_model.tokenizer.decode(token_ids),
            tokens=self._tokens(token_ids, progress.core_choices),
            timesteps=progress.timesteps,
            round_trips=progress.round_trips,
            exact_timesteps=progress.exact_timesteps,
            logits_format=str(stream.logits_format) if stream else None,
            seconds=time.perf_counter() - started,
            bytes_up=stream.bytes_up if stream else 0,
            bytes_down=stream.bytes_down if stream else 0,
            guessed_timesteps=stream.guessed_rightly if stream else 0,
        )

    async def _decode(
        self, question: Question, stream: CoreStream | None, progress: _Progress, on_block: Callable[[str], None]
    ) -> list[int]:
        """Run Algorithm 2, each request answered by both models at the same time."""
        terms = self._terms(question)
        run = self._sampler(question)
        request = next(run)
        while True:
            if request.step == 0 and request.block > 0:
                on_block(self._user_model.tokenizer.decode(request.answer_ids[0].tolist()))
            logits = await self._mixed(question, stream, terms, progress, request)
            progress.timesteps += 1
            try:
                following = run.send(logits)
            except StopIteration as finished:
                progress.core_choices += _core_choices(progress.core_logits, question, request)
                answer: list[int] = finished.value[0]
                return answer
            if following.step == 0:
                progress.core_choices += _core_choices(progress.core_logits, question, request)
            request = following

    async def _mixed(
        self,
        question: Question,
        stream: CoreStream | None,
        terms: UserTerms | None,
        progress: _Progress,
        request: LogitsRequest,
    ) -> Tensor:
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
        return logits

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

    async def _open(self, question: Question) -> CoreStream:
        if self._client is None:
            raise InvalidParameter("λ below 1 needs a core; give its address with --core HOST:PORT")
        card = await self._client.model_card(question.model, self._user_model.config.family)
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
                patience=question.params.patience_of_the_core,
            )
        )

    def _check(self, card: ModelCard, question: Question) -> None:
        """Refuse a core that this device cannot work with, before the question is sent to it."""
        if card.protocol_version != PROTOCOL_VERSION:
            raise ProtocolVersionMismatch(
                f"the core speaks protocol version {card.protocol_version}, this agent {PROTOCOL_VERSION}; "
                "install the same release on both sides"
            )
        if question.model and card.model != question.model:
            raise ModelMismatch(
                f"the core offers {card.model!r}, not {question.model!r} that it was asked for; tell its provider"
            )
        config, prompt_tokens = self._user_model.config, len(self._user_model.core_prompt(question.instruction))
        if card.family != config.family:
            raise ModelMismatch(
                f"the core offers a model of the family {card.family!r}, the user model is of {config.family!r}, and "
                "their logits mean different things; use a user model of the core's family (--user-model)"
            )
        if prompt_tokens > card.max_prompt_tokens:
            raise PromptTooLong(
                f"the question has {prompt_tokens} tokens, this core takes at most {card.max_prompt_tokens}; shorten it"
            )
        if question.params.block_size > card.max_block_size:
            raise InvalidParameter(
                f"block size is {question.params.block_size}, this core takes at most {card.max_block_size}; lower "
                "--block-size"
            )
        if (card.tokenizer_sha256, card.vocab_size) != (self._user_model.tokenizer.sha256, config.vocab_size):
            raise TokenizerMismatch(
                f"the core's model {card.model!r} has another tokenizer than the user model, so their logits cannot "
                "be mixed; use a user model that was made for this core (--user-model)"
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

    def _tokens(self, token_ids: list[int], core_choices: list[int | None]) -> list[AnswerToken]:
        tokenizer = self._user_model.tokenizer
        return [
            AnswerToken(
                token_id=token_id,
                text=text,
                core_choice=None if choice is None else tokenizer.token_name(choice),
                is_changed=choice not in (None, token_id),
            )
            for token_id, text, choice in zip(token_ids, tokenizer.token_texts(token_ids), core_choices, strict=False)
        ]


async def _tell(stream: CoreStream, asked: StepPosition | None, request: LogitsRequest, params: DecodingParams) -> None:
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
    stream: CoreStream | None, terms: UserTerms | None, at: StepPosition, request: LogitsRequest
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


def _core_choices(core: CoreLogits | None, question: Question, request: LogitsRequest) -> list[int | None]:
    """What the core alone would commit: its logits under the projection and draw that the mix had."""
    if core is None:
        return [None] * question.params.block_size
    with torch.inference_mode():
        x0_hat = project(core.values, question.params, [question.seeds.sampling], request.block, request.timestep)
        return [*commit(core.values, x0_hat)[0].tolist()]
