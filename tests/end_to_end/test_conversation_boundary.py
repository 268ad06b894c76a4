"""In a conversation only the user's messages, answers that crossed before and projected tokens cross."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from ssd2.models.chat import Message
from ssd2.wire import collaboration_pb2 as pb
from tests.families import save_llama
from user_agent.answering.service import Answered, Answering
from user_agent.answering.traces import Traces
from user_agent.answering.user_model import UserModel
from user_agent.config import AgentConfig
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.crossed import Crossed
from user_agent.store.database import open_database
from user_agent.store.ledger import Ledger

from .conftest import CoreProcess, Wire, recording_relay, running_core

V = 1782
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant]"
SYSTEM = Message("system", "Be brief.")
QUESTIONS = ("Where is the key?", "And the code?", "Why there?")
PASSAGES = [
    Passage(text, Path("notes.md"), line) for line, text in enumerate(["The key is blue.", "The code is 4711."], 1)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llama"
    save_llama(folder, V)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def llama(folder: Path) -> Iterator[CoreProcess]:
    with running_core(folder) as running:
        yield running


@pytest.fixture(scope="module")
def model(folder: Path) -> UserModel:
    return UserModel.load(folder, with_weights=True)


@asynccontextmanager
async def agent(wire: Wire, model: UserModel, home: Path) -> AsyncIterator[Answering]:
    """An agent that was just started, with what an earlier one noted."""
    settings = AgentConfig(lambda_user=0.5, alpha=1.0, max_tokens=6, temperature=0)
    with closing(open_database(home / "crossed.sqlite", None)) as database:
        async with CoreClient(wire.address, Ledger.in_memory()) as client:
            crossed = Crossed(database, list)
            yield Answering(settings, model, client, lambda *_: PASSAGES, crossed, Traces())


async def asked(answering: Answering, said: list[Message], question: str, **given: object) -> Answered:
    answered = await answering.start(answering.request(question, history=tuple(said), **given), "trace")
    assert not given or answered.question.passages == PASSAGES
    said += [Message("user", question), Message("assistant", answered.text)]
    return answered


CARD = pb.GetModelCardRequest(family="autoregressive").SerializeToString()


def requests(wire: Wire) -> list[pb.CollaborateRequest]:
    """All that the core was told, but for the calls that ask for its card."""
    return [pb.CollaborateRequest.FromString(message) for message in wire.messages if message != CARD]


def opened(wire: Wire) -> list[pb.Open]:
    """The conversations as the core was told of them; the first message of an answer."""
    return [request.open for request in requests(wire) if request.WhichOneof("message") == "open"]


def tokens_told(wire: Wire) -> list[int]:
    return [one for request in requests(wire) for one in request.projection.token_ids]


async def test_only_the_users_messages_and_what_crossed_before_cross_in_a_conversation(
    llama: CoreProcess, model: UserModel, tmp_path: Path
) -> None:
    """One answer is made with the core, one on the device; then the agent is restarted and the mode changed."""
    said = [SYSTEM]
    async with recording_relay(llama.address) as wire:
        async with agent(wire, model, tmp_path) as answering:
            shared = await asked(answering, said, QUESTIONS[0])
            told = tokens_told(wire)
            private = await asked(answering, said, QUESTIONS[1], lambda_user=1.0)
        async with agent(wire, model, tmp_path) as answering:
            last = await asked(answering, said, QUESTIONS[2])
    assert private.text
    first, third = opened(wire)  # of the second question the core was told nothing
    crossed = model.tokenizer.decode(told)
    assert shared.text.startswith(crossed)
    if not shared.text[len(crossed)].isspace():  # a word that was cut is left out
        crossed = crossed.rpartition(" ")[0]
    assert crossed
    before = [SYSTEM, Message("user", QUESTIONS[0]), Message("assistant", crossed), Message("user", QUESTIONS[1])]
    assert list(first.prompt_ids) == ids(model, [SYSTEM, Message("user", QUESTIONS[0])])
    assert list(third.prompt_ids) == ids(model, [*before, Message("user", QUESTIONS[2])])
    assert tokens_told(wire) == told + [token.token_id for token in last.answer.tokens][:-1]  # the last stays here
    assert without_the_conversation(first) == without_the_conversation(third)
    asked_last = model.prompt(QUESTIONS[2], PASSAGES, last.question.conversation)
    assert asked_last == ids(model, [*said[:-2], Message("user", QUESTIONS[2])], PASSAGES)  # all of it for θ_user


def ids(model: UserModel, messages: list[Message], passages: list[Passage] | None = None) -> list[int]:
    texts = [passage.text for passage in passages or []]
    return model.tokenizer.encode_conversation(messages, texts, bos_token_id=None)


def without_the_conversation(opening: pb.Open) -> pb.Open:
    """First message of an answer without its prompt and public seed: the same for all."""
    rest = pb.Open.FromString(opening.SerializeToString())
    rest.ClearField("prompt_ids")
    rest.ClearField("noise_seed")
    return rest


async def test_penalties_act_on_the_device_and_show_in_the_tokens_alone(
    llama: CoreProcess, model: UserModel, tmp_path: Path
) -> None:
    """A penalty takes back what would be repeated; of itself nothing is sent."""
    async with recording_relay(llama.address) as wire, agent(wire, model, tmp_path) as answering:
        how = {"seed": 3, "max_tokens": 24, "lambda_user": 0.5}
        plain = await asked(answering, [], QUESTIONS[0], frequency_penalty=-2.0, presence_penalty=-2.0, **how)
        other = await asked(answering, [], QUESTIONS[0], frequency_penalty=2.0, presence_penalty=2.0, **how)
    favoured, unlike = ([token.token_id for token in one.answer.tokens] for one in (plain, other))
    assert len(set(favoured)) < len(favoured), "else there is nothing to take back"
    assert len(set(unlike)) > len(set(favoured))
    assert other.answer.exact_timesteps == 0, "the mix is not that of the models"
    first, second = opened(wire)
    assert without_the_conversation(first) == without_the_conversation(second)
    kinds = [request.WhichOneof("message") for request in requests(wire)]
    assert kinds[: len(kinds) // 2] == kinds[len(kinds) // 2 :]
