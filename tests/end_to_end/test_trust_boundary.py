"""What crosses: everything that the agent sends is recorded, byte for byte, and searched.

Each leak is also made on purpose, and the same search has to find it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
import torch

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.collaboration import Mix, Mixer, UserLogits
from ssd2.algorithm.ensemble import LAMBDA_MAX
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Rule, Seeds
from ssd2.algorithm.projection import ProjectedTokens, StepPosition
from ssd2.models.control import Control
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import PROTOCOL_VERSION, OpenRequest
from user_agent.answering import run as agent_module
from user_agent.answering.request import AnswerRequest
from user_agent.answering.run import Agent, Question
from user_agent.answering.service import Answered, Answering
from user_agent.answering.traces import Traces
from user_agent.answering.user_model import UserModel
from user_agent.config import AgentConfig
from user_agent.documents.passage import Passage
from user_agent.documents.reader import read_passages
from user_agent.documents.search import search
from user_agent.line import connection as core_connection
from user_agent.line import stream as core_stream
from user_agent.line.client import CoreClient
from user_agent.line.credentials import CoreCredentials
from user_agent.line.stream import CoreStream
from user_agent.store.crossed import Crossed
from user_agent.store.database import memory_database
from user_agent.store.ledger import Ledger

from .conftest import CoreProcess, Wire, recording_relay

SENTINEL = "Zyxquorv Blenkitharp 7391"
LAMBDA_USER, ALPHA = 0.4271875, 1.3408203125
INSTRUCTION = "What is my shed code?"
KEY = "sk-3f2a9c71d0be-vMq1wQ"
Leak: TypeAlias = Callable[[pytest.MonkeyPatch, "Question"], None]


@dataclass(frozen=True)
class Secret:
    """Something that must not cross, with every way that it could be written."""

    name: str
    encodings: tuple[bytes, ...]


def _varints(values: list[int]) -> bytes:
    """As protobuf packs repeated integers."""
    return pb.Open(prompt_ids=values).SerializeToString()[2:]


def _fixed(value: int) -> tuple[bytes, ...]:
    packed = pb.Projection(number=value).SerializeToString()[1:]
    return (struct.pack("<Q", value), struct.pack(">Q", value), packed, str(value).encode(), f"{value:x}".encode())


def _floats(value: float) -> tuple[bytes, ...]:
    return (*(struct.pack(kind, value) for kind in ("<f", ">f", "<d", ">d")), str(value).encode())


def _secrets(question: Question, user: UserModel) -> Iterator[Secret]:
    texts = [SENTINEL, *SENTINEL.split()]
    ids = [_varints(user.tokenizer.encode(text)) for text in texts]
    raw = [struct.pack(f"<{len(i)}I", *i) for i in (user.tokenizer.encode(text) for text in texts)]
    yield Secret("sentinel", (*(text.encode() for text in texts), *(t.encode("utf-16-le") for t in texts), *ids, *raw))
    for passage in (*question.passages, *question.left_out):
        yield Secret("passage", (passage.text.encode(), _varints(user.tokenizer.encode(passage.text))))
        yield Secret("document name", (passage.source.name.encode(), str(passage.source).encode()))
    yield Secret("sampling seed", _fixed(question.seeds.sampling))
    lambda_user = question.collaboration.lambda_user
    yield Secret("lambda", (lambda_user.encode(),) if isinstance(lambda_user, str) else _floats(lambda_user))
    yield Secret("alpha", _floats(question.collaboration.alpha))


def _found(wire: Wire, question: Question, user: UserModel) -> set[str]:
    sent = wire.sent()
    return {secret.name for secret in _secrets(question, user) if any(e in sent for e in secret.encodings)}


@pytest.fixture
def user(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=True)


@pytest.fixture
def question(tmp_path: Path, user: UserModel) -> Question:
    (tmp_path / "diary-of-mallory.md").write_text(f"The shed code is {SENTINEL}.\n")
    params = DecodingParams(block_size=8, max_tokens=16, steps=5, stop=0.4, projection="multi-hot", top_p=0.5)
    found = [*search(read_passages(tmp_path), INSTRUCTION), Passage("Quillvane " * 300, tmp_path / "attic-of-oskar.md")]
    fitted = user.fitting(INSTRUCTION, found, params.max_answer_tokens)
    assert any(SENTINEL in passage.text for passage in fitted.passages), "the sentinel is before the user model"
    assert fitted.left_out
    mixed, seeds = CollaborationParams(LAMBDA_USER, ALPHA), Seeds.reproducible(5)
    return Question(INSTRUCTION, fitted.passages, mixed, params, seeds, left_out=fitted.left_out)


async def _record(
    core: CoreProcess, user: UserModel, question: Question, control: Control | None = None, key: str | None = None
) -> Wire:
    async with (
        recording_relay(core.address) as wire,
        CoreClient(wire.address, Ledger.in_memory(), credentials=CoreCredentials(key=key)) as client,
    ):
        await Agent(user, client, control).answer(question)
        return wire


@pytest.mark.parametrize("projection", ["greedy", "sampling", "multi-hot"])
async def test_nothing_secret_is_in_any_byte_sent(
    core: CoreProcess, user: UserModel, question: Question, projection: str
) -> None:
    question = replace(question, params=replace(question.params, projection=projection))
    wire = await _record(core, user, question)
    assert _found(wire, question, user) == set()


async def test_the_recorder_sees_what_is_meant_to_cross(core: CoreProcess, user: UserModel, question: Question) -> None:
    """Else its silence would show nothing."""
    sent = (await _record(core, user, question)).sent()
    assert _varints(user.core_prompt(INSTRUCTION)) in sent
    assert struct.pack("<Q", question.seeds.noise) in sent


EARLY = {"projection": "multi-hot", "top_p": 0.001, "steps": 9, "max_tokens": 40}
"""A decode whose blocks can end early: the random models' tokens come to stay the same, sets of some."""


@pytest.mark.parametrize(
    ("is_controlled", "speculation", "changes"),
    [
        (False, 0, {}),
        (True, 0, {}),
        (False, 6, {}),
        (False, 6, {**EARLY, "patience": 1}),
        (False, 0, {**EARLY, "patience": 2, "entropy_bound": 7.45}),
        (False, 6, {**EARLY, "patience": 2, "core_every": 2}),
        (False, 0, {"core_every": 3, "schedule": "changes"}),
    ],
    ids=str,
)
async def test_every_message_is_made_of_public_parameters_and_projected_tokens_alone(
    core: CoreProcess,
    user: UserModel,
    question: Question,
    monkeypatch: pytest.MonkeyPatch,
    classifier_folder: Path,
    is_controlled: bool,
    speculation: int,
    changes: dict[str, object],
) -> None:
    """All bytes are made again here from the instruction, the parameters and the projections: nothing is left over."""
    question = replace(question, speculation=speculation, params=replace(question.params, **changes))
    control = Control.load(classifier_folder, "positive", 500.0, user.tokenizer) if is_controlled else None
    requests = _recorded_requests(monkeypatch)
    wire = await _record(core, user, question, control)
    assert wire.messages == await _expected(core, user, question, requests)
    assert not _beside_grpcs_own(wire)


def _beside_grpcs_own(wire: Wire) -> list[tuple[str, str | bytes]]:
    """Metadata of all calls but gRPC's name and version."""
    grpcs_own = ("user-agent", f"grpc-python-asyncio/{grpc.__version__} grpc-c/")
    return [(name, value) for name, value in wire.metadata if (name, str(value)[: len(grpcs_own[1])]) != grpcs_own]


async def test_a_key_is_all_that_goes_with_a_call_and_is_in_no_message(
    core: CoreProcess, user: UserModel, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = _recorded_requests(monkeypatch)
    wire = await _record(core, user, question, key=KEY)
    calls = 2  # for the model card, and for the answer
    assert _beside_grpcs_own(wire) == [("authorization", f"Bearer {KEY}")] * calls
    assert wire.messages == await _expected(core, user, question, requests)


async def test_metadata_leaked_beside_the_key_is_found(
    core: CoreProcess, user: UserModel, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leak_metadata(monkeypatch, question)
    wire = await _record(core, user, question, key=KEY)
    beside_the_key = {name for name, _ in _beside_grpcs_own(wire)} - {"authorization"}
    assert beside_the_key == {"x-document"}
    assert "document name" in _found(wire, question, user)


async def _asked(
    core: CoreProcess, user: UserModel, request: AnswerRequest, ledger: Ledger, found: Sequence[Passage] = ()
) -> tuple[Wire, Answered, Traces]:
    """Ask as every face does; the search finds these passages."""
    traces = Traces()
    async with recording_relay(core.address) as wire, CoreClient(wire.address, ledger) as client:
        config, crossed = AgentConfig(), Crossed(memory_database(), list)
        service = Answering(config, user, client, lambda *_: found, crossed, traces)
        return wire, await service.start(request, "trace"), traces


@pytest.mark.parametrize("lambda_user", [0.0, LAMBDA_USER, 1.0])
async def test_private_context_changes_no_byte_but_projected_tokens(
    core: CoreProcess, user: UserModel, lambda_user: float
) -> None:
    """At λ 0 all bytes are the same with and without it; between, all but the tokens; at λ 1 nothing is sent."""
    secret = f"The shed code is {SENTINEL}."
    length = {"steps": 5, "patience": 0, "max_tokens": 16}  # whatever the tokens are
    asked = AnswerRequest(
        question=INSTRUCTION, lambda_user=lambda_user, alpha=1.0, seed=5, temperature=1.0, top_p=0.9, **length
    )
    ledgers = [Ledger.in_memory(), Ledger.in_memory()]
    bare, _, _ = await _asked(core, user, asked, ledgers[0])
    given = asked.model_copy(update={"private_context": secret})
    wire, answered, traces = await _asked(core, user, given, ledgers[1])
    assert wire.messages[:2] == bare.messages[:2], "the card's request and the opening"
    if lambda_user in (0, 1):
        assert wire.messages == bare.messages
    else:
        assert wire.messages != bare.messages, "it has been read, and shows in the tokens alone"
        assert [_without_tokens(one) for one in wire.messages[2:]] == [_without_tokens(m) for m in bare.messages[2:]]
    assert bool(wire.messages) == (lambda_user < 1)
    exported = "".join(ledgers[1].export())
    *words, number = SENTINEL.split()
    for text in (secret, SENTINEL, *words, number):
        ids = _varints(user.tokenizer.encode(text))
        assert not any(one in wire.sent() for one in (text.encode(), text.encode("utf-16-le"), ids))
        if text != number:  # four digits stand in a hash by chance
            assert not any(one in exported for one in (text, text.encode().hex(), ids.hex()))
        assert text not in json.dumps([event.data for event in traces.get("trace").events if event.kind != "egress"])
    is_read = answered.question.private_context == secret
    assert (is_read, answered.question.private_context_fit) == (lambda_user > 0, "whole" if is_read else "left out")


@pytest.mark.parametrize("projection", ["sampling", "multi-hot"])
@pytest.mark.parametrize("lambda_user", [0.0, LAMBDA_USER, 1.0])
async def test_citing_tokens_changes_no_byte_at_all(
    core: CoreProcess, user: UserModel, lambda_user: float, projection: str
) -> None:
    """Further passes of the user model are rows beside those that are mixed, and nobody is told of them."""
    found = [Passage(f"The shed code of {name} is {SENTINEL}.", Path(f"{name}.md"), 1) for name in ("Ann", "Bo", "Cy")]
    decoding = {"steps": 5, "max_tokens": 24, "temperature": 1.0, "top_p": 0.3, "projection": projection}
    asked = AnswerRequest(question=INSTRUCTION, lambda_user=lambda_user, alpha=1.0, seed=5, **decoding)
    plain, answer, _ = await _asked(core, user, asked, Ledger.in_memory(), found)
    asked = asked.model_copy(update={"cite": "tokens"})
    wire, citing, _ = await _asked(core, user, asked, Ledger.in_memory(), found)
    assert (wire.messages, wire.metadata) == (plain.messages, plain.metadata)
    assert bool(wire.messages) == (lambda_user < 1)
    assert not _found(wire, citing.question, user) & {"sentinel", "passage", "document name"}
    assert (answer.conflicts, citing.conflicts is not None) == (None, lambda_user > 0)
    assert citing.text == answer.text


def _without_tokens(message: bytes) -> pb.CollaborateRequest:
    """A projection as if any tokens had been projected."""
    read = pb.CollaborateRequest.FromString(message)
    if read.WhichOneof("message") == "projection":
        read.projection.token_ids[:] = [0] * len(read.projection.token_ids)
    return read


def _recorded_requests(monkeypatch: pytest.MonkeyPatch) -> list[BlockView]:
    requests: list[BlockView] = []
    original = agent_module._tell

    async def telling(stream: CoreStream, asked: StepPosition, view: BlockView) -> None:
        requests.append(view)
        await original(stream, asked, view)

    monkeypatch.setattr(agent_module, "_tell", telling)
    return requests


async def _expected(core: CoreProcess, user: UserModel, question: Question, requests: list[BlockView]) -> list[bytes]:
    async with CoreClient(core.address, Ledger.in_memory()) as client:
        card = await client.model_card("", user.config.family)
    params = question.params
    opening = pb.Open(
        protocol_version=PROTOCOL_VERSION,
        family=user.config.family,
        model_sha256=card.model_sha256,
        vocabulary_sha256=user.vocabulary_sha256,
        vocab_size=user.config.vocab_size,
        prompt_ids=user.tokenizer.encode_prompt(INSTRUCTION, bos_token_id=user.config.bos_token_id),
        noise_seed=question.seeds.noise,
        timesteps=params.timesteps[:: params.core_every],
        block_size=params.block_size,
        max_blocks=params.max_blocks,
        simplex_value=params.simplex_value,
        self_conditioning=pb.SELF_CONDITIONING_OWN,
        speculation=question.speculation,
        patience=(params.patience or 0) if params.core_every == 1 and not params.entropy_bound else 0,
        logits_format=pb.LOGITS_FORMAT_TOP_K,
        top_k=64,
    )
    messages = [pb.GetModelCardRequest(family=user.config.family), pb.CollaborateRequest(open=opening)]
    answered = (0, 0)  # the timestep whose logits the message is the answer to
    for number, view in enumerate(requests):
        place = {"number": number, "block": answered[0], "step": answered[1] // params.core_every}
        answered = (view.block, view.step)
        if view.projected:
            (row,) = view.projected
            several = {"counts": row.counts} if any(count > 1 for count in row.counts) else {}
            projection = pb.Projection(**place, token_ids=row.token_ids, **several)
            messages.append(pb.CollaborateRequest(projection=projection))
        else:
            tokens = view.answer_ids[0, -params.block_size :].tolist()
            messages.append(pb.CollaborateRequest(projection=pb.Projection(**place, token_ids=tokens, is_commit=True)))
    messages.append(pb.CollaborateRequest(close=pb.Close()))
    return [message.SerializeToString() for message in messages]


def _blocks_sent(wire: Wire) -> list[list[pb.Projection]]:
    """The projections that crossed, block by block, each block's commit last."""
    messages = [pb.CollaborateRequest.FromString(message) for message in wire.messages[1:]]
    blocks: list[list[pb.Projection]] = [[]]
    for message in messages:
        if message.WhichOneof("message") == "projection":
            blocks[-1].append(message.projection)
            if message.projection.is_commit:
                blocks.append([])
    return blocks


@pytest.mark.parametrize(("projection", "top_p"), [("greedy", 0.2), ("sampling", 0.002)])
@pytest.mark.parametrize("patience", [1, 2])
async def test_when_a_block_ends_follows_from_the_tokens_that_the_core_has_anyway(
    core: CoreProcess, user: UserModel, question: Question, projection: str, top_p: float, patience: int
) -> None:
    """A block is committed where the same tokens have come `patience` times more, or at its last timestep.

    With draws from several tokens it goes on although the argmax behind them stays the same, which must not show.
    """
    params = replace(question.params, **{**EARLY, "projection": projection, "top_p": top_p, "patience": patience})
    wire = await _record(core, user, replace(question, params=params))
    lengths = []
    for block in _blocks_sent(wire)[:-1]:  # the last one is not committed, the agent closes
        tokens = [list(message.token_ids) for message in block]
        stayed = [at >= patience and tokens[at - patience : at] == [now] * patience for at, now in enumerate(tokens)]
        assert not any(stayed[:-1])
        assert stayed[-1] or len(tokens) == params.steps
        lengths.append(len(block))
    assert min(lengths) < params.steps or projection == "sampling"


def _recorded_rows(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, torch.Tensor]]:
    """Rows of the user model's and of the mixed logits, and λ of each position, as they come to be."""
    rows: list[tuple[str, torch.Tensor]] = []
    original = Mixer.mix

    def mixing(mixer: Mixer, core_logits: torch.Tensor, terms: UserLogits, step: int) -> Mix:
        mix = original(mixer, core_logits, terms, step)
        rows.extend([("user logits", terms.with_docs[0, 0]), ("mixed logits", mix.logits[0, 0])])
        if isinstance(mix.weights.lambda_user, torch.Tensor):
            lambdas = mix.weights.lambda_user[0, :, 0]
            rows.extend([("lambdas", lambdas), ("divergences", (lambdas / LAMBDA_MAX) ** 2)])
        return mix

    monkeypatch.setattr(Mixer, "mix", mixing)
    return rows


def _found_rows(wire: Wire, rows: list[tuple[str, torch.Tensor]]) -> set[str]:
    """Which of the rows are in the sent bytes, as any eight neighbours in half, single or double precision."""
    sent, found = wire.sent(), set()
    for name, row in rows:
        for values in (row[:8], row[:8] - row.max()):
            kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
            encodings = (values.to(kind).view(torch.uint8).numpy().tobytes() for kind in kinds)
            found |= {name for encoding in encodings if encoding in sent}
    return found


async def test_neither_the_user_models_logits_nor_mixed_ones_are_sent(
    core: CoreProcess, user: UserModel, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _recorded_rows(monkeypatch)
    wire = await _record(core, user, question)
    assert {name for name, _ in rows} == {"user logits", "mixed logits"}
    assert _found_rows(wire, rows) == set()


@pytest.mark.parametrize(("lambda_user", "alpha"), [("auto", 0.0), ("auto", ALPHA), ("difference", ALPHA)])
async def test_a_rule_in_the_place_of_lambda_adds_nothing_to_any_message(
    core: CoreProcess,
    user: UserModel,
    question: Question,
    monkeypatch: pytest.MonkeyPatch,
    lambda_user: Rule,
    alpha: float,
) -> None:
    """The bytes are made of what a constant λ sends: no λ, no divergence, nothing of the size of a vocabulary."""
    constant = await _record(core, user, question)
    requests, rows = _recorded_requests(monkeypatch), _recorded_rows(monkeypatch)
    question = replace(question, collaboration=CollaborationParams(lambda_user, alpha))
    wire = await _record(core, user, question)
    assert wire.messages == await _expected(core, user, question, requests)
    assert [_fields(message) for message in wire.messages[1:]] == [_fields(one) for one in constant.messages[1:]]
    assert not _beside_grpcs_own(wire)
    assert ("lambdas" in dict(rows)) == (lambda_user == "auto")
    found = _found_rows(wire, rows) | _found(wire, question, user)
    assert found <= ({"alpha"} if alpha == 0 else set()), "zeros are everywhere"
    single = (float(value) for name, row in rows if name in ("lambdas", "divergences") for value in row)
    sent = wire.sent()
    assert not any(struct.pack(kind, value) in sent for value in single for kind in ("<f", ">f", "<d", ">d"))


def _fields(message: bytes) -> list[str]:
    """Names of the fields that a message to the core has; counts are there where a position has several tokens."""
    inner = [value for _, value in pb.CollaborateRequest.FromString(message).ListFields()]
    return [field.name for one in inner for field, _ in one.ListFields() if field.name != "counts"]


@pytest.mark.parametrize("name", ["user logits", "mixed logits", "lambdas", "divergences"])
async def test_logits_and_lambdas_leaked_on_purpose_are_found(
    core: CoreProcess, user: UserModel, question: Question, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    question = replace(question, collaboration=CollaborationParams("auto", ALPHA))
    rows = _recorded_rows(monkeypatch)
    original = core_stream.projection_to_proto

    def leaking(at: StepPosition, projected: ProjectedTokens) -> pb.Projection:
        message = original(at, projected)
        data = next(row for kind, row in reversed(rows) if kind == name)[:16].half().numpy().tobytes()
        message.MergeFromString(b"\xa2\x01" + bytes([len(data)]) + data)  # field 20, bytes
        return message

    monkeypatch.setattr(core_stream, "projection_to_proto", leaking)
    assert name in _found_rows(await _record(core, user, question), rows)


def _leak_prompt(monkeypatch: pytest.MonkeyPatch, question: Question) -> None:
    original = UserModel.core_prompt
    monkeypatch.setattr(
        UserModel, "core_prompt", lambda self, *asked: original(self, *asked) + self.tokenizer.encode(SENTINEL)
    )


def _leak_in_open(wire_bytes: Callable[[Question], bytes]) -> Leak:
    """Add a field to Open, as a careless extension of the contract would."""

    def leak(monkeypatch: pytest.MonkeyPatch, question: Question) -> None:
        original = core_stream.open_to_proto

        def leaking(request: OpenRequest) -> pb.Open:
            message = original(request)
            message.MergeFromString(wire_bytes(question))
            return message

        monkeypatch.setattr(core_stream, "open_to_proto", leaking)

    return leak


def _leak_metadata(monkeypatch: pytest.MonkeyPatch, question: Question) -> None:
    stub = core_connection.pb_grpc.CollaborationServiceStub
    made = stub.__init__

    def init(self: object, channel: object) -> None:
        made(self, channel)
        collaborate = self.Collaborate
        leaked = (("x-document", question.passages[0].source.name),)
        self.Collaborate = lambda *, metadata=None: collaborate(metadata=(*(metadata or ()), *leaked))

    monkeypatch.setattr(stub, "__init__", init)


def _leak_projection(monkeypatch: pytest.MonkeyPatch, question: Question) -> None:
    original = core_stream.projection_to_proto

    def leaking(at: StepPosition, projected: ProjectedTokens) -> pb.Projection:
        message = original(at, projected)
        # An unknown field of the message, as a careless extension would add: tag 20, λ as a double.
        message.MergeFromString(b"\xa1\x01" + struct.pack("<d", question.collaboration.lambda_user))
        return message

    monkeypatch.setattr(core_stream, "projection_to_proto", leaking)


@pytest.mark.parametrize(
    ("leak", "found"),
    [
        (_leak_prompt, "sentinel"),
        (_leak_in_open(lambda q: b"\xa2\x01" + bytes([len(SENTINEL)]) + SENTINEL.encode()), "sentinel"),
        (_leak_in_open(lambda q: pb.Open(noise_seed=q.seeds.sampling).SerializeToString()), "sampling seed"),
        (_leak_in_open(lambda q: b"\xa1\x01" + struct.pack("<d", q.collaboration.alpha)), "alpha"),
        (_leak_metadata, "document name"),
        (_leak_projection, "lambda"),
    ],
    ids=["prompt", "open", "sampling-seed", "alpha", "metadata", "projection"],
)
async def test_a_leak_made_on_purpose_is_found(
    core: CoreProcess, user: UserModel, question: Question, monkeypatch: pytest.MonkeyPatch, leak: Leak, found: str
) -> None:
    leak(monkeypatch, question)
    wire = await _record(core, user, question)
    assert found in _found(wire, question, user)
