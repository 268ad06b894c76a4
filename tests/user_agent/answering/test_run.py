"""The loop, against a core that is written down rather than run."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.collaboration import UserLogits, UserTerms, decode_locally
from ssd2.algorithm.ensemble import Weight
from ssd2.algorithm.exactness import proven
from ssd2.algorithm.measured import MeasuredDecoding
from ssd2.algorithm.params import RULES, CollaborationParams, DecodingParams, LambdaUser, Seeds
from ssd2.algorithm.projection import ProjectedTokens, StepPosition
from ssd2.algorithm.simplex_sampler import SimplexSampler
from ssd2.errors import InvalidParameter, ModelMismatch, PromptTooLong, ProtocolVersionMismatch, TokenizerMismatch
from ssd2.logits.format import ANY_FORMAT, PREFERRED, AllowedFormats, LogitsFormat
from ssd2.logits.packed import CoreLogits, as_received
from ssd2.models.predict import begin_sampler
from ssd2.wire.codec import PROTOCOL_VERSION, ModelCard, OpenRequest
from user_agent.answering.answer import AnswerToken, CommittedBlock, Observer, ProjectedBlock
from user_agent.answering.decoding import decoding_for
from user_agent.answering.request import AnswerSettings
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.commands.render import marked, summary
from user_agent.documents.passage import Passage
from user_agent.errors import CoreLost
from user_agent.line.patience import OnWait
from user_agent.line.stream import CoreStream
from user_agent.store.printable import printable

V = 1782


class FakeStream:
    """A core whose logits are random but fixed, and which notes what it is told."""

    bytes_up = 0
    bytes_down = 0
    guessed_rightly = 0
    resumed = 0
    is_on_this_machine = False
    logits_format = PREFERRED

    def __init__(self, block_size: int) -> None:
        self.block_size, self.told, self.is_closed, self.is_cancelled = block_size, [], False, False
        self.certainty = 0.0

    async def logits(self, due: StepPosition) -> CoreLogits:
        generator = torch.Generator().manual_seed(due.number)
        logits = torch.randn(1, self.block_size, V, generator=generator)
        logits[..., 99] += self.certainty
        return as_received(logits, self.logits_format)

    async def project(self, at: StepPosition, projected: ProjectedTokens) -> None:
        self.told.append(("project", at, projected))

    async def commit(self, at: StepPosition, token_ids: list[int]) -> None:
        self.told.append(("commit", at, token_ids))

    async def close(self) -> None:
        self.is_closed = True

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeClient:
    """Hands out a `FakeStream`."""

    def __init__(self, stream: FakeStream, **card: object) -> None:
        self.stream, self.card, self.opened, self.told_of_waits = stream, card, [], []

    async def model_card(self, model: str, family: str, on_wait: OnWait | None = None) -> ModelCard:
        self.asked_for = (model, family)
        self.told_of_waits.append(on_wait)
        values = {
            "protocol_version": PROTOCOL_VERSION,
            "model": "fake",
            "model_sha256": "",
            "vocabulary_sha256": "",
            "vocab_size": V,
            "block_size": 8,
            "max_prompt_tokens": 48,
            "max_block_size": 64,
            "parameters": 1,
            "family": "ssd-2",
            "logits_formats": ANY_FORMAT,
        }
        return ModelCard(**{**values, **self.card})

    async def open(self, request: OpenRequest, on_wait: OnWait | None = None) -> FakeStream:
        self.opened.append(request)
        self.told_of_waits.append(on_wait)
        self.stream.logits_format = request.logits_format
        return self.stream


@pytest.fixture
def user_model(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=True)


def _question(lambda_user: LambdaUser = 0.3, alpha: float = 1.0, **params: object) -> Question:
    decoding = DecodingParams(**{"block_size": 4, "max_tokens": 12, "steps": 3, "stop": 0.4, "top_p": 0.9, **params})
    passages = [Passage("My shed code is 4711.", Path("a.md"), 1)]
    collaboration = CollaborationParams(lambda_user, alpha)
    return Question("What is my shed code?", passages, collaboration, decoding, Seeds.reproducible(7))


def _client(user_model: UserModel, **card: object) -> FakeClient:
    return FakeClient(FakeStream(4), **{"vocabulary_sha256": user_model.vocabulary_sha256, **card})


async def test_the_core_is_told_every_projection_and_every_commit_but_the_last(user_model: UserModel) -> None:
    client = _client(user_model)
    answer = await Agent(user_model, client).answer(_question())
    told = [(kind, at.number, at.block, at.step) for kind, at, _ in client.stream.told]
    assert told == [
        ("project", 0, 0, 0),
        ("project", 1, 0, 1),
        ("commit", 2, 0, 2),
        ("project", 3, 1, 0),
        ("project", 4, 1, 1),
        ("commit", 5, 1, 2),
        ("project", 6, 2, 0),
        ("project", 7, 2, 1),
    ]
    assert client.stream.is_closed
    assert (answer.timesteps, answer.round_trips) == (9, 9)
    committed = [token for kind, _, ids in client.stream.told if kind == "commit" for token in ids]
    assert [token.token_id for token in answer.tokens][:8] == committed


@pytest.mark.parametrize(("is_on_this_machine", "threads"), [(True, 3), (False, 6)])
async def test_beside_a_core_on_this_machine_the_device_uses_half_of_its_threads(
    user_model: UserModel, monkeypatch: pytest.MonkeyPatch, is_on_this_machine: bool, threads: int
) -> None:
    compute, used = UserTerms.logits, set[int]()

    def spied(terms: UserTerms, view: BlockView) -> UserLogits:
        used.add(torch.get_num_threads())
        return compute(terms, view)

    monkeypatch.setattr(UserTerms, "logits", spied)
    client, before = _client(user_model), torch.get_num_threads()
    client.stream.is_on_this_machine = is_on_this_machine
    torch.set_num_threads(6)
    try:
        await Agent(user_model, client).answer(_question())
        assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)
    assert used == {threads}


async def test_a_block_that_ends_early_is_committed_at_the_timestep_of_its_end(user_model: UserModel) -> None:
    """At λ = 0 the tokens are the core's, which stay the same from some timestep of each block on."""
    client = _client(user_model)
    first_same = (2, 0, 4)  # of its three blocks

    async def logits(due: StepPosition) -> Tensor:
        token = 10 * (due.block + 1) + min(due.step, first_same[due.block])
        return as_received(50.0 * torch.nn.functional.one_hot(torch.tensor([[token] * 4]), V), PREFERRED)

    client.stream.logits = logits
    answer = await Agent(user_model, client).answer(_question(0.0, steps=6, patience=2))
    told = [(kind, at.number, at.block, at.step) for kind, at, _ in client.stream.told]
    assert told == [
        *(("project", step, 0, step) for step in range(4)),
        ("commit", 4, 0, 4),
        *(("project", 5 + step, 1, step) for step in range(2)),
        ("commit", 7, 1, 2),
        *(("project", 8 + step, 2, step) for step in range(5)),
    ]
    assert [token.token_id for token in answer.tokens] == [12] * 4 + [20] * 4 + [34] * 4
    assert [token.core_choice for token in answer.tokens[::4]] == [
        user_model.tokenizer.token_name(token) for token in (12, 20, 34)
    ]
    assert (answer.timesteps, answer.round_trips) == (5 + 3 + 6, 5 + 3 + 6)


async def test_a_core_asked_now_and_then_is_sent_only_what_it_needs(
    user_model: UserModel,
) -> None:
    client = _client(user_model)
    answer = await Agent(user_model, client).answer(_question(steps=5, core_every=2))
    assert client.opened[0].timesteps == (1000, 760, 520)
    assert [(kind, at.number, at.block, at.step) for kind, at, _ in client.stream.told] == [
        ("project", 0, 0, 0),
        ("project", 1, 0, 1),
        ("commit", 2, 0, 2),
        ("project", 3, 1, 0),
        ("project", 4, 1, 1),
        ("commit", 5, 1, 2),
        ("project", 6, 2, 0),
        ("project", 7, 2, 1),
    ]
    assert (answer.timesteps, answer.round_trips) == (15, 9)


class LastChanges(Observer):
    """Notes at which block and step each token of an answer was last changed."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []
        self._shown: list[int] = []
        self._changed: list[int] = []

    def projected(self, seen: ProjectedBlock) -> None:
        before = self._shown if seen.step else [-1] * len(seen.token_ids)
        self._see(seen.step, before, list(seen.token_ids))

    def committed(self, seen: CommittedBlock) -> bool:
        self._see(seen.step, self._shown, [token.token_id for token in seen.tokens])
        self.found += [(seen.block, step) for step in self._changed]
        return True

    def _see(self, step: int, before: list[int], now: list[int]) -> None:
        self._changed = (self._changed if step else []) or [step] * len(now)
        self._changed = [step if a != b else last for a, b, last in zip(before, now, self._changed, strict=True)]
        self._shown = now


async def test_core_choices_come_from_its_last_logits_where_it_is_not_asked(
    user_model: UserModel,
) -> None:
    question, changes = _question(0.9, projection="greedy", steps=5, core_every=3), LastChanges()
    answer = await Agent(user_model, _client(user_model)).answer(question, changes)
    for position, (token, (block, step)) in enumerate(zip(answer.tokens, changes.found, strict=True)):
        last_asked = 2 * block + step // 3
        logits = await FakeStream(4).logits(StepPosition(last_asked, 0, 0))
        choice = int(logits.values[0, position % 4].argmax())
        assert token.core_choice == user_model.tokenizer.token_name(choice)
    assert any(token.is_changed for token in answer.tokens)


async def test_what_is_opened_with_holds_the_instruction_and_public_parameters_only(user_model: UserModel) -> None:
    client = _client(user_model)
    question = _question()
    await Agent(user_model, client).answer(question)
    (request,) = client.opened
    assert list(request.prompt_ids) == user_model.core_prompt("What is my shed code?")
    assert request.noise_seed == question.seeds.noise != question.seeds.sampling


class TowardsOneToken:
    """A control that wants token 77 everywhere, and remembers what it was given to read."""

    def __init__(self) -> None:
        self.read: list[list[int]] = []

    def steer(self, logits: Tensor, context_ids: Tensor) -> Tensor:
        self.read += context_ids.tolist()
        return logits + 1000 * torch.nn.functional.one_hot(torch.tensor(77), V)


async def test_a_control_steers_the_mix_and_reads_no_documents(user_model: UserModel) -> None:
    client, control = _client(user_model), TowardsOneToken()
    answer = await Agent(user_model, client, control).answer(_question())
    assert [token.token_id for token in answer.tokens] == [77] * 12
    assert all(told.token_ids == (77,) * 4 for kind, _, told in client.stream.told if kind == "project")
    instruction = user_model.tokenizer.encode("What is my shed code?")
    assert control.read == [instruction + [77] * (4 * block) for block in range(3) for _ in range(3)]


@pytest.mark.parametrize("projection", ["greedy", "sampling", "multi-hot"])
async def test_lambda_1_decodes_without_any_core(user_model: UserModel, projection: str) -> None:
    question = _question(1.0, projection=projection)
    answer = await Agent(user_model, None).answer(question)
    terms = user_model.terms(question.instruction, question.passages, question.collaboration, "own")
    (expected,) = decode_locally(
        None, terms, question.collaboration, SimplexSampler(question.params, [question.seeds], stop_ids=(2,))
    )
    assert [token.token_id for token in answer.tokens] == expected
    assert (answer.bytes_up, answer.bytes_down, answer.round_trips) == (0, 0, 0)
    assert answer.exact_timesteps == answer.timesteps
    assert answer.logits_format is None
    assert "provably" not in summary(answer)
    assert not any(token.is_changed for token in answer.tokens)


async def test_lambda_0_decodes_without_the_user_models_weights(user_folder: Path) -> None:
    bare = UserModel.load(user_folder, with_weights=False)
    answer = await Agent(bare, _client(bare)).answer(_question(0.0))
    assert answer.tokens
    assert not any(token.is_changed for token in answer.tokens)


async def test_a_token_is_marked_exactly_if_the_core_alone_would_have_chosen_another(user_model: UserModel) -> None:
    changes = LastChanges()
    answer = await Agent(user_model, _client(user_model)).answer(_question(0.9, projection="greedy"), changes)
    for position, (token, (block, step)) in enumerate(zip(answer.tokens, changes.found, strict=True)):
        logits = await FakeStream(4).logits(StepPosition(3 * block + step, 0, 0))
        choice = int(logits.values[0, position % 4].argmax())
        assert token.is_changed == (choice != token.token_id)
        assert token.core_choice == user_model.tokenizer.token_name(choice)
    assert any(token.is_changed for token in answer.tokens)


def _sure_of(*token_ids: int, by: float = 20.0) -> Tensor:
    """Logits of a block that is sure of these tokens, [1, L, V]."""
    return by * torch.nn.functional.one_hot(torch.tensor([token_ids]), V).float()


@pytest.mark.parametrize(("lambda_user", "lambdas"), [(0.9, [0.9] * 4), ("auto", [0.9, 0.0, 0.9, 0.0])])
async def test_a_token_says_which_side_led_and_with_which_lambda(
    user_model: UserModel, monkeypatch: pytest.MonkeyPatch, lambda_user: LambdaUser, lambdas: list[float]
) -> None:
    """The core is sure of 70, 71, 82, 73; the documents change the first and the third of 80, 71, 82, 83."""
    user = UserLogits(_sure_of(80, 71, 82, 83), _sure_of(90, 71, 92, 83))

    async def core(*_: object) -> CoreLogits:
        return as_received(_sure_of(70, 71, 82, 73), PREFERRED)

    client = _client(user_model)
    monkeypatch.setattr(client.stream, "logits", core)
    monkeypatch.setattr(UserTerms, "logits", lambda *_: user)
    answer = await Agent(user_model, client).answer(_question(lambda_user, projection="greedy", max_tokens=4))
    found = [token.token_id for token in answer.tokens]
    if lambda_user == "auto":
        assert found == [80, 71, 82, 73], "where the documents change nothing the core decides"
        assert [token.led_by for token in answer.tokens] == ["documents", "both", "both", "core"]
    else:
        assert found == [80, 71, 82, 83]
        assert [token.led_by for token in answer.tokens] == ["documents", "both", "both", "documents"]
    assert [token.lambda_user for token in answer.tokens] == pytest.approx(lambdas, abs=1e-3)


async def test_the_side_that_brought_a_token_in_led_though_the_other_takes_it_over(
    user_model: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core would have 70; from the second timestep on it reads the documents' 80 in the block, and is sure."""
    user = UserLogits(_sure_of(80, 71, 82, 83), _sure_of(90, 71, 92, 93))

    async def core(due: StepPosition) -> CoreLogits:
        return as_received(_sure_of(80 if due.step else 70, 71, 82, 83), PREFERRED)

    client = _client(user_model)
    monkeypatch.setattr(client.stream, "logits", core)
    monkeypatch.setattr(UserTerms, "logits", lambda *_: user)
    answer = await Agent(user_model, client).answer(_question(0.9, projection="greedy", max_tokens=4))
    first = answer.tokens[0]
    assert (first.token_id, first.led_by, first.is_changed) == (80, "documents", True)
    assert first.core_choice == user_model.tokenizer.token_name(70)
    assert (first.core_p, first.user_p, first.mixed_p) == pytest.approx((0, 1, 1), abs=1e-3)
    assert [token.led_by for token in answer.tokens[1:]] == ["both"] * 3


async def test_where_one_side_takes_no_part_the_other_leads(user_model: UserModel) -> None:
    core = await Agent(user_model, _client(user_model)).answer(_question(0.0))
    alone = await Agent(user_model, None).answer(_question(1.0))
    assert {(token.led_by, token.lambda_user) for token in core.tokens} == {("core", 0.0)}
    assert {(token.led_by, token.lambda_user) for token in alone.tokens} == {("documents", 1.0)}
    differing = await Agent(user_model, _client(user_model)).answer(_question("difference"))
    assert {token.lambda_user for token in differing.tokens} == {None}


@pytest.mark.parametrize("lambda_user", RULES)
async def test_timesteps_are_proven_by_the_weight_that_the_core_has_at_each_position(
    user_model: UserModel, monkeypatch: pytest.MonkeyPatch, lambda_user: LambdaUser
) -> None:
    given = list[Weight]()

    def noting(core: CoreLogits, mixed: Tensor, core_weight: Weight, *rest: object) -> Tensor:
        given.append(core_weight)
        return proven(core, mixed, core_weight, *rest)

    monkeypatch.setattr("user_agent.answering.run.proven", noting)
    async with Agent(user_model, _client(user_model)).begin(_question(lambda_user)) as answer:
        while answer.due:
            weights = (await answer.step()).weights
            assert given[-1] is weights.core
            if lambda_user == "auto":
                torch.testing.assert_close(weights.core, 1 - weights.lambda_user)
                assert weights.core.shape == (1, 4, 1)
            else:
                assert weights.core == 1


async def test_the_device_computes_while_the_core_does(user_model: UserModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The core's logits arrive only once the device has begun: waiting for one after the other would hang."""
    begun = threading.Event()
    question, client = _question(), _client(user_model)
    terms = user_model.terms(question.instruction, question.passages, question.collaboration, "own")
    compute, receive = terms.logits, client.stream.logits

    def signalling(request: object) -> object:
        begun.set()
        return compute(request)

    async def waiting(due: StepPosition) -> CoreLogits:
        assert await asyncio.to_thread(begun.wait, 5), "the device waited for the core"
        begun.clear()
        return await receive(due)

    monkeypatch.setattr(terms, "logits", signalling)
    monkeypatch.setattr(UserModel, "terms", lambda *_, **__: terms)
    monkeypatch.setattr(client.stream, "logits", waiting)
    assert (await Agent(user_model, client).answer(question)).tokens


async def test_a_stream_that_breaks_is_dropped_and_the_error_is_passed_on(
    user_model: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = _client(user_model)

    async def broken(_: StepPosition) -> CoreLogits:
        raise CoreLost("gone")

    monkeypatch.setattr(client.stream, "logits", broken)
    with pytest.raises(CoreLost):
        await Agent(user_model, client).answer(_question())
    assert client.stream.is_cancelled
    assert not client.stream.is_closed


@pytest.mark.parametrize(
    ("card", "error"),
    [
        ({"vocabulary_sha256": "0" * 64}, TokenizerMismatch),
        ({"protocol_version": PROTOCOL_VERSION + 1}, ProtocolVersionMismatch),
        ({"vocab_size": V + 8}, TokenizerMismatch),
        ({"max_prompt_tokens": 3}, PromptTooLong),
        ({"max_block_size": 2}, InvalidParameter),
        ({"family": "autoregressive"}, ModelMismatch),
        ({"logits_formats": AllowedFormats.parse("uint8,top-k:16")}, InvalidParameter),
    ],
)
async def test_a_core_that_does_not_fit_never_sees_the_question(
    user_model: UserModel, card: dict[str, object], error: type[Exception]
) -> None:
    client = _client(user_model, **card)
    with pytest.raises(error):
        await Agent(user_model, client).answer(replace(_question(), logits_format=PREFERRED))
    assert client.opened == []


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ({"vocabulary_sha256": "0" * 64}, f"both have {V:,} ids, for other tokens"),
        ({"vocab_size": V + 8}, f"{V + 8:,} tokens there, {V:,} here"),
    ],
)
async def test_another_vocabulary_is_told_with_how_the_two_differ(
    user_model: UserModel, card: dict[str, object], says: str
) -> None:
    with pytest.raises(TokenizerMismatch, match=says):
        await Agent(user_model, _client(user_model, **card)).answer(_question())


async def test_a_question_that_is_too_long_for_the_core_says_how_long_it_may_be(
    user_model: UserModel,
) -> None:
    with pytest.raises(PromptTooLong, match="the models take at most 3; shorten it") as raised:
        await Agent(user_model, _client(user_model, max_prompt_tokens=3)).answer(_question())
    assert (raised.value.parameter, raised.value.limit) == ("question", 3)


@pytest.mark.parametrize(
    ("allowed", "asked", "opened"),
    [
        ("float16,uint8,top-k:1024", None, "top-k:64"),
        ("float16", None, "float16"),
        ("top-k:16", None, "top-k:16"),
        ("float16,uint8,top-k:1024", "float16", "float16"),
        ("float16,uint8,top-k:1024", "top-k:1000", "top-k:1000"),
    ],
)
async def test_the_core_is_asked_for_the_format_that_was_chosen_or_the_best_that_it_allows(
    user_model: UserModel, allowed: str, asked: str | None, opened: str
) -> None:
    client = _client(user_model, logits_formats=AllowedFormats.parse(allowed))
    question = replace(_question(), logits_format=LogitsFormat.parse(asked) if asked else None)
    answer = await Agent(user_model, client).answer(question)
    assert str(client.opened[0].logits_format) == answer.logits_format == opened


@pytest.mark.parametrize("projection", ["greedy", "sampling", "multi-hot"])
async def test_timesteps_are_counted_as_exact_if_every_position_is_proven(
    user_model: UserModel, projection: str
) -> None:
    client, question = _client(user_model), _question(projection=projection)
    client.stream.certainty = 200.0
    certain = await Agent(user_model, client).answer(question)
    client.stream.certainty = 0.0
    wavering = await Agent(user_model, client).answer(question)
    assert certain.exact_timesteps == certain.timesteps == 9
    assert wavering.exact_timesteps < wavering.timesteps
    assert "9 timesteps (9 provably the same as with full logits) in" in summary(certain)


async def test_one_unproven_position_is_enough_for_a_timestep_not_to_be_exact(
    user_model: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("user_agent.answering.run.proven", lambda *_: torch.tensor([[True, True, False, True]]))
    assert (await Agent(user_model, _client(user_model)).answer(_question())).exact_timesteps == 0


async def test_a_steered_projection_is_never_claimed_to_be_exact(user_model: UserModel) -> None:
    client = _client(user_model)
    client.stream.certainty = 200.0
    answer = await Agent(user_model, client, TowardsOneToken()).answer(_question())
    assert (answer.exact_timesteps, answer.timesteps) == (0, 9)


async def test_an_unknown_model_is_refused_with_the_name_of_the_one_served(user_model: UserModel) -> None:
    client = _client(user_model)
    asked = _question()
    question = Question(asked.instruction, asked.passages, asked.collaboration, asked.params, asked.seeds, "gpt-9")
    with pytest.raises(ModelMismatch, match="'fake'"):
        await Agent(user_model, client).answer(question)


def test_mixed_self_conditioning_is_refused_wherever_a_core_takes_part() -> None:
    with pytest.raises(InvalidParameter, match="reveal"):
        _question(0.3, self_conditioning="mixed")
    assert _question(1.0, self_conditioning="mixed")


async def test_an_answer_that_is_complete_survives_a_core_that_ends_badly(
    user_model: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The close of the real stream, over a call that breaks as soon as it is used."""

    class BrokenCall:
        cancelled = False

        async def write(self, _: object) -> None:
            raise asyncio.InvalidStateError

        def add_done_callback(self, _: object) -> None:
            pass

        def cancel(self) -> None:
            self.cancelled = True

    client, call = _client(user_model), BrokenCall()
    stream = CoreStream(call, None, "127.0.0.1:1", 1.0)
    monkeypatch.setattr(client.stream, "close", stream.close)
    assert (await Agent(user_model, client).answer(_question())).tokens
    assert call.cancelled


def test_a_core_cannot_write_control_sequences_to_the_terminal() -> None:
    token = AnswerToken(1, " \x1b]0;owned\x07café", None, False)
    shown = marked([token]).plain
    assert "\x1b" not in shown
    assert "café" in shown
    assert printable("a\nb\x9bc") == "a\nb\N{REPLACEMENT CHARACTER}c"


class Noting(Observer):
    """Notes all that it is told, and wants so many blocks."""

    def __init__(self, blocks: int = 99) -> None:
        self.blocks, self.seen, self.committed_blocks = blocks, [], []

    def projected(self, seen: ProjectedBlock) -> None:
        self.seen.append(seen)

    def committed(self, seen: CommittedBlock) -> bool:
        self.committed_blocks.append(seen)
        return len(self.committed_blocks) < self.blocks


async def test_an_observer_sees_every_projection_that_the_core_is_told_and_every_block(user_model: UserModel) -> None:
    client, observer = _client(user_model), Noting()
    answer = await Agent(user_model, client).answer(_question(), observer)
    projections = [list(told.token_ids) for kind, _, told in client.stream.told if kind == "project"]
    assert [list(seen.token_ids) for seen in observer.seen] == projections
    assert [(seen.block, seen.step) for seen in observer.seen] == [(b, s) for b in range(3) for s in range(2)]
    assert [token for block in observer.committed_blocks for token in block.tokens] == answer.tokens
    assert observer.committed_blocks[-1].text == answer.text
    assert {(block.step, block.timestep) for block in observer.committed_blocks} == {
        (2, observer.seen[1].timestep - 200)
    }


async def test_an_observer_is_told_of_waits_from_the_first_question_on(user_model: UserModel) -> None:
    client, observer = _client(user_model), Noting()
    await Agent(user_model, client).answer(_question(), observer)
    assert client.told_of_waits == [observer.waiting, observer.waiting]


async def test_an_observer_is_told_where_the_core_would_go_another_way(user_model: UserModel) -> None:
    observer = Noting()
    client = _client(user_model)
    client.stream.certainty = 1000.0  # nothing that the user model says moves it
    await Agent(user_model, client).answer(_question(), observer)
    assert not any(seen.unlike_core for seen in observer.seen)
    observer = Noting()
    await Agent(user_model, _client(user_model)).answer(_question(0.9, projection="greedy"), observer)
    assert any(seen.unlike_core for seen in observer.seen)


async def test_an_observer_that_has_enough_ends_the_answer_and_the_core_is_told_no_more(user_model: UserModel) -> None:
    client = _client(user_model)
    answer = await Agent(user_model, client).answer(_question(), Noting(blocks=1))
    assert (answer.end, len(answer.tokens), answer.timesteps) == ("observer", 4, 3)
    assert [kind for kind, *_ in client.stream.told] == ["project", "project"]
    assert client.stream.is_closed
    whole = await Agent(user_model, _client(user_model)).answer(_question())
    assert whole.end == "length"
    assert whole.tokens[:4] == answer.tokens


async def test_tokens_come_with_what_each_model_and_the_mix_gave_them(user_model: UserModel) -> None:
    question = _question(0.9, projection="greedy", max_tokens=4, self_conditioning="projection")
    changes = LastChanges()
    answer = await Agent(user_model, _client(user_model)).answer(question, changes)
    for position, (token, (_, step)) in enumerate(zip(answer.tokens, changes.found, strict=True)):
        core = await FakeStream(4).logits(StepPosition(step, 0, step))
        given = torch.softmax(core.values[0, position].float(), -1)
        assert token.core_p == pytest.approx(float(given[token.token_id]), rel=1e-4)
        assert token.mixed_p is not None
        assert 0 < token.mixed_p <= 1
        assert token.user_p is not None
        assert 0 < token.user_p <= 1
    alone = await Agent(user_model, None).answer(_question(1.0))
    assert {token.core_p for token in alone.tokens} == {None}
    without = await Agent(user_model, _client(user_model)).answer(_question(0.0))
    assert {token.user_p for token in without.tokens} == {None}
    assert [token.mixed_p for token in without.tokens] == pytest.approx([token.core_p for token in without.tokens])


def _left_open(user_model: UserModel, lambda_user: float = 0.3, **given: object) -> Question:
    """Ask with settings that follow from the models, but for those that are given."""
    settings = AnswerSettings(block_size=4, max_tokens=8, top_p=0.9, **given)
    params = decoding_for(settings, user_model.config)
    return replace(_question(lambda_user), params=params, settings=settings)


MEASURED = MeasuredDecoding(0.2, 8, 0, "projection")


async def test_the_core_is_asked_as_was_measured_for_its_model(user_model: UserModel) -> None:
    client = _client(user_model, measured=MEASURED)
    answer = await Agent(user_model, client).answer(_left_open(user_model))
    (opened,) = client.opened
    to_the_user_models_stop = (1000, 925, 850, 775, 700, 625, 550, 475)
    assert opened.timesteps == to_the_user_models_stop
    assert (opened.patience, opened.self_conditioning) == (0, "projection")
    assert answer.timesteps == 16, "two blocks"


async def test_an_observer_is_told_what_an_answer_is_decoded_with(user_model: UserModel) -> None:
    told = []

    class Told(Observer):
        def began(self, params: DecodingParams) -> None:
            told.append((params.steps, params.stop, params.patience, params.self_conditioning))

    agent = Agent(user_model, _client(user_model, measured=MEASURED))
    for lambda_user in (0.3, 1.0):
        await agent.answer(_left_open(user_model, lambda_user), Told())
    assert told == [(8, 0.4, None, "projection"), (25, 0.4, 2, "own")], "with the core, and alone"


async def test_settings_that_were_chosen_are_those_of_the_answer_whatever_was_measured(user_model: UserModel) -> None:
    client = _client(user_model, measured=MEASURED)
    chosen = {"steps": 3, "early_stop": 0.5, "patience": 1, "self_conditioning": "own"}
    await Agent(user_model, client).answer(_left_open(user_model, **chosen))
    await Agent(user_model, client).answer(_question())  # with parameters of its own
    assert [(one.timesteps, one.patience, one.self_conditioning) for one in client.opened] == [
        ((1000, 834, 667), 1, "own"),
        ((1000, 800, 600), 0, "own"),
    ]


async def test_both_models_are_fed_back_what_was_measured_for_the_core_s(user_model: UserModel) -> None:
    """A user model that was trained with its own logits too: one mode goes to both."""
    modes = ("own", "projection")
    tokens = {}
    for mode in modes:
        client = _client(user_model, measured=MeasuredDecoding(0.4, 6, 0, mode))
        answer = await Agent(user_model, client).answer(_left_open(user_model, 0.9))
        assert client.opened[0].self_conditioning == mode
        tokens[mode] = [token.token_id for token in answer.tokens]
        question = _left_open(user_model, 0.9, steps=6, patience=0, self_conditioning=mode)
        terms = user_model.terms(
            question.instruction, question.passages, question.collaboration, question.params.self_conditioning
        )
        sampler = begin_sampler(user_model.config, question.params, [question.seeds])
        assert tokens[mode] == decode_locally(WrittenDown(), terms, question.collaboration, sampler)[0]
    assert tokens["own"] != tokens["projection"], "it makes a difference with these models"


class WrittenDown:
    """The logits of `FakeStream` in one process."""

    def __init__(self) -> None:
        self.number = 0

    def logits(self, view: BlockView) -> Tensor:
        logits = torch.randn(1, view.block_size, V, generator=torch.Generator().manual_seed(self.number))
        self.number += 1
        return as_received(logits, PREFERRED).values
