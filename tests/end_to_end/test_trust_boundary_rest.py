"""What crosses of a text that a REST client gives privately: nothing but the tokens that were projected with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from ssd2.wire import collaboration_pb2 as pb
from user_agent.answering.service import Answering
from user_agent.answering.traces import Traces
from user_agent.answering.user_model import UserModel
from user_agent.api.app import create_app
from user_agent.api.openai_types import ChatRequest
from user_agent.api.state import AppState
from user_agent.config import AgentConfig
from user_agent.line.client import CoreClient
from user_agent.line.line import CoreLine
from user_agent.store.access_keys import AccessKeys
from user_agent.store.crossed import Crossed
from user_agent.store.database import memory_database
from user_agent.store.ledger import Ledger

from .conftest import CoreProcess, Wire, recording_relay

KEY = "sk-test"
SENTINEL = "Zyxquorv Blenkitharp"
SECRET = f"The shed code is {SENTINEL}."
GIVEN: dict[str, Any] = {
    "text": SECRET,
    "texts": ["The bin is green.", SECRET],
    "messages": [
        {"role": "system", "content": "These are notes."},
        {"role": "user", "content": [{"type": "text", "text": SECRET}]},
        {"role": "assistant", "content": "Noted."},
    ],
}
ROUTES = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "What is my shed code?"}]},
    "/v1/completions": {"prompt": "What is my shed code?"},
}


@dataclass
class Asked:
    """Outcome of one request.

    Attributes:
        wire: what crossed.
        answer: body of the answer.
        ledger: as exported.
        traces: all events but those of the messages that left.
        read: private text that the user model was given.
    """

    wire: Wire
    answer: dict[str, Any]
    ledger: str
    traces: str
    read: list[str] = field(default_factory=list)


@pytest.fixture
def user(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=True)


async def ask(core: CoreProcess, user: UserModel, route: str, lambda_user: float, **own: object) -> Asked:
    """Ask over REST, greedily and from one seed, so that only what is given can make a difference."""
    traces, ledger, crossed = Traces(), Ledger.in_memory(), Crossed(memory_database(), list)
    config = AgentConfig(steps=5, patience=0, max_tokens=16, alpha=1.0)
    async with recording_relay(core.address) as wire, CoreClient(wire.address, ledger) as client:
        service = Answering(config, user, client, lambda *_: [], crossed, traces)
        state = AppState(config, {}, AccessKeys(Path("no-folder"), KEY), service, None, CoreLine(None))
        transport, headers = httpx.ASGITransport(create_app(state)), {"authorization": f"Bearer {KEY}"}
        options = {"seed": 5, "temperature": 1.0, "top_p": 0.9, "slingshot": {"lambda_user": lambda_user, **own}}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as http:
            response = await http.post(route, json={"model": "slingshot", **ROUTES[route], **options})
        assert response.status_code == 200, response.text
        answer = response.json()
        found = answer["slingshot"] if isinstance(answer["slingshot"], dict) else answer["slingshot"][0]
        events = [event.data for event in traces.get(found["trace"]).events if event.kind != "egress"]
    return Asked(wire, found, "".join(ledger.export()), json.dumps(events))


def without_tokens(message: bytes) -> pb.CollaborateRequest:
    """A projection as if any tokens had been projected."""
    read = pb.CollaborateRequest.FromString(message)
    if read.WhichOneof("message") == "projection":
        read.projection.token_ids[:] = [0] * len(read.projection.token_ids)
    return read


def encodings(user: UserModel) -> Iterator[bytes]:
    for text in (SECRET, SENTINEL, *SENTINEL.split()):
        yield text.encode()
        yield text.encode("utf-16-le")
        yield pb.Open(prompt_ids=user.tokenizer.encode(text)).SerializeToString()[2:]


@pytest.mark.parametrize("given", list(GIVEN))
@pytest.mark.parametrize("route", list(ROUTES))
@pytest.mark.parametrize("lambda_user", [0.0, 0.4271875, 1.0])
async def test_no_frame_depends_on_a_private_text_but_by_its_tokens(
    core: CoreProcess, user: UserModel, route: str, lambda_user: float, given: str
) -> None:
    """At λ 0 all bytes are the same with and without it; between, all but the tokens; at λ 1 nothing is sent."""
    bare = await ask(core, user, route, lambda_user)
    asked = await ask(core, user, route, lambda_user, private=GIVEN[given])
    assert asked.answer["private_context"] == ("left out" if lambda_user == 0 else "whole")
    sent, plain = asked.wire.messages, bare.wire.messages
    assert bool(sent) == (lambda_user < 1)
    assert sent[:2] == plain[:2], "the card's request and the opening"
    assert [without_tokens(one) for one in sent[2:]] == [without_tokens(one) for one in plain[2:]]
    assert (sent == plain) == (lambda_user in (0, 1)), "it has been read, and shows in the tokens"
    assert not any(one in asked.wire.sent() for one in encodings(user))
    assert not any(text in kept for text in (SECRET, *SENTINEL.split()) for kept in (asked.ledger, asked.traces))
    assert SENTINEL.encode().hex() not in asked.ledger


async def test_a_private_text_put_into_the_question_is_found(
    core: CoreProcess, user: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the silence of the test above would show nothing."""
    original = ChatRequest.instruction
    monkeypatch.setattr(ChatRequest, "instruction", lambda body: f"{original(body)} {body.slingshot.private_text}")
    asked = await ask(core, user, "/v1/chat/completions", 0.4271875, private=SECRET)
    assert any(one in asked.wire.sent() for one in encodings(user))
    assert any(word in asked.traces for word in SENTINEL.split())


async def test_a_private_text_says_the_same_as_private_context(core: CoreProcess, user: UserModel) -> None:
    one = await ask(core, user, "/v1/chat/completions", 0.5, private=["The bin is green.", SECRET])
    other = await ask(core, user, "/v1/chat/completions", 0.5, private_context=f"The bin is green.\n\n{SECRET}")
    assert one.wire.messages == other.wire.messages
