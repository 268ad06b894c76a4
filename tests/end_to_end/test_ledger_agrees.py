"""The ledger against a proxy that counts: what it says crossed is what crossed, byte for byte.

A frame sent past the ledger is also made on purpose, and the same comparison has to find it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
import pytest

from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.logits.format import LogitsFormat
from user_agent.answering.run import Agent, Answer, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.reader import Passage
from user_agent.errors import LedgerUnwritable
from user_agent.line import recorded_channel
from user_agent.line.client import CoreClient
from user_agent.store.ledger import PREFIX_BYTES, Ledger, tracing

from .conftest import CoreProcess, recording_relay
from .counting_proxy import FRAME_HEADER_BYTES, Counted, Direction, counting_proxy

CONNECTION_OVERHEAD_BYTES = 1500
"""Settings, HPACK's tables and windows of a connection, and the headers of an answer's two calls."""

FRAME_OVERHEAD_BYTES = 64
"""Header of a DATA frame, and the pings and window updates that come with one."""


@dataclass
class Crossed:
    """One answer through a counting proxy."""

    counted: Counted
    ledger: Ledger
    answer: Answer


@pytest.fixture
def user(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=True)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    connection = apsw.Connection(str(tmp_path / "ledger.sqlite"))
    connection.execute("PRAGMA journal_mode = WAL")
    return Ledger(connection)


@pytest.fixture
def question() -> Question:
    params = DecodingParams(block_size=8, max_tokens=24, steps=5, stop=0.4, top_p=0.5)
    passages = [Passage("My shed code is 4711.", Path("notes.md"), 1)]
    return Question("What is my shed code?", passages, CollaborationParams(0.4, 1.0), params, Seeds.reproducible(5))


async def answered(core: CoreProcess, user: UserModel, question: Question, ledger: Ledger) -> Crossed:
    async with counting_proxy(core.address) as counted, CoreClient(counted.address, ledger=ledger) as client:
        answer = await Agent(user, client).answer(question)
    return Crossed(counted, ledger, answer)


def overhead_allowed(direction: Direction) -> int:
    return CONNECTION_OVERHEAD_BYTES + FRAME_OVERHEAD_BYTES * len(direction.data)


@pytest.mark.parametrize(
    ("logits", "speculation", "changes"),
    [
        ("top-k:64", 0, {}),
        ("top-k:64", 6, {}),
        ("float16", 0, {}),
        ("uint8", 3, {"projection": "multi-hot"}),
        ("float16", 6, {"patience": 1, "projection": "greedy", "max_tokens": 40}),
    ],
    ids=str,
)
async def test_its_bytes_are_the_bytes_that_crossed_each_way(
    core: CoreProcess,
    user: UserModel,
    question: Question,
    ledger: Ledger,
    logits: str,
    speculation: int,
    changes: dict[str, object],
) -> None:
    asked = replace(
        question,
        logits_format=LogitsFormat.parse(logits),
        speculation=speculation,
        params=replace(question.params, **changes),
    )
    crossed = await answered(core, user, asked, ledger)
    totals, counted = ledger.totals(), crossed.counted
    assert (totals.up.wire_bytes, totals.down.wire_bytes) == (counted.up.data_bytes, counted.down.data_bytes)
    assert totals.up.payload_bytes == totals.up.wire_bytes - PREFIX_BYTES * totals.up.messages
    assert totals.up.messages >= crossed.answer.round_trips + 2
    assert ledger.verify().broken_seq is None


async def test_what_is_not_in_it_is_the_overhead_of_http2_and_bounded(
    core: CoreProcess, user: UserModel, question: Question, ledger: Ledger
) -> None:
    counted = (await answered(core, user, question, ledger)).counted
    for direction in (counted.up, counted.down):
        headers = FRAME_HEADER_BYTES * len(direction.data)
        assert direction.overhead_bytes == headers + sum(direction.other_bytes.values())
        assert direction.overhead_bytes <= overhead_allowed(direction)
        assert set(direction.other_bytes) <= {
            *("PREFACE", "SETTINGS", "HEADERS", "PING", "WINDOW_UPDATE", "RST_STREAM", "GOAWAY")
        }


async def test_a_frame_sent_past_it_is_found(
    core: CoreProcess, user: UserModel, question: Question, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_channel._Line, "departing", lambda self, message: message.SerializeToString() or None)
    counted = (await answered(core, user, question, ledger)).counted
    assert ledger.totals().up.wire_bytes == 0 < counted.up.data_bytes


async def test_gRPC_is_given_no_message_that_could_be_sent_past_it(  # noqa: N802
    core: CoreProcess, user: UserModel, question: Question, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A send path that forgets the ledger has a message in its hand, and gRPC takes bytes alone."""
    monkeypatch.setattr(recorded_channel._Line, "departing", lambda self, message: message)
    async with counting_proxy(core.address) as counted, CoreClient(counted.address, ledger=ledger) as client:
        with pytest.raises(TypeError):
            await Agent(user, client).answer(question)
    assert counted.up.data_bytes == 0


async def test_it_holds_each_message_as_it_was_sent_with_the_id_of_its_answer(
    core: CoreProcess, user: UserModel, question: Question, ledger: Ledger
) -> None:
    async with recording_relay(core.address) as wire, CoreClient(wire.address, ledger=ledger) as client:
        with tracing("answer-1"):
            await Agent(user, client).answer(question)
        with tracing("answer-2"):
            await Agent(user, client).answer(question)
    sent = [entry for entry in ledger.entries(limit=1000) if entry.direction == "up"]
    assert [entry.payload for entry in sent] == wire.messages
    assert [entry.sha256 for entry in sent] == [hashlib.sha256(message).hexdigest() for message in wire.messages]
    assert {entry.destination for entry in sent} == {wire.address}
    first = [entry for entry in ledger.entries(limit=1000, trace="answer-1") if entry.direction == "up"]
    assert [entry.trace for entry in sent] == ["answer-1"] * len(first) + ["answer-2"] * (len(sent) - len(first))
    kinds = [entry.message.kind for entry in first]
    assert kinds == ["model_card", "open", *["projection"] * (len(first) - 3), "close"]
    assert first[1].message.token_ids == user.core_prompt(question.instruction)


async def test_nothing_is_sent_that_it_cannot_take(
    core: CoreProcess, user: UserModel, question: Question, tmp_path: Path
) -> None:
    connection = apsw.Connection(str(tmp_path / "full.sqlite"))
    ledger = Ledger(connection)
    connection.execute("PRAGMA query_only = ON")
    async with counting_proxy(core.address) as counted, CoreClient(counted.address, ledger=ledger) as client:
        with pytest.raises(LedgerUnwritable, match="nothing is sent"):
            await Agent(user, client).answer(question)
    assert counted.up.data_bytes == 0


async def test_an_answer_ends_where_it_can_take_no_more(
    core: CoreProcess, user: UserModel, question: Question, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ledger.record

    def full(direction: str, destination: str, rpc: str, payload: bytes) -> None:
        if ledger.totals().up.messages == 4:
            ledger._connection.execute("PRAGMA query_only = ON")
        original(direction, destination, rpc, payload)

    monkeypatch.setattr(ledger, "record", full)
    async with counting_proxy(core.address) as counted, CoreClient(counted.address, ledger=ledger) as client:
        with pytest.raises(LedgerUnwritable):
            await Agent(user, client).answer(question)
    assert ledger.totals().up.wire_bytes == counted.up.data_bytes
