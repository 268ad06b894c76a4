"""Measured settings of a checkpoint change how an answer is decoded, and nothing of what crosses."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.message import Message

from ssd2.models.checksums import write_checksums
from ssd2.wire import collaboration_pb2 as pb
from user_agent.answering.request import AnswerRequest
from user_agent.answering.service import Answering
from user_agent.answering.traces import Traces
from user_agent.answering.user_model import UserModel
from user_agent.config import AgentConfig
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.crossed import Crossed
from user_agent.store.database import memory_database
from user_agent.store.ledger import Ledger

from .conftest import CoreProcess, Wire, recording_relay, running_core

STEPS, PATIENCE = 9, 1
MEASURED = {"stop": 0.4, "steps": STEPS, "patience": PATIENCE, "self_conditioning": "projection"}
PASSAGE = Passage("My shed code is 4711.", Path("a.md"), 1)


@pytest.fixture(scope="module")
def core(core_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    """One set of weights as two models: one whose checkpoint was measured, one whose was not."""
    folder = tmp_path_factory.mktemp("measured") / "core"
    shutil.copytree(core_folder, folder)
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **MEASURED}))
    write_checksums(folder, ())
    with running_core(f"plain={core_folder}", "--model", f"measured={folder}") as running:
        yield running


async def _asked(core: CoreProcess, user_folder: Path, model: str, **given: object) -> Wire:
    """Ask as every face does, and record what the agent sends."""
    user = UserModel.load(user_folder, with_weights=True)
    request = AnswerRequest(question="What is my shed code?", model=model, lambda_user=0.3, alpha=1.0, seed=5, **given)
    async with recording_relay(core.address) as wire, CoreClient(wire.address, Ledger.in_memory()) as client:
        crossed = Crossed(memory_database(), list)
        service = Answering(AgentConfig(model=model), user, client, lambda *_: [PASSAGE], crossed, Traces())
        await service.start(request, "trace")
        return wire


def _fields(message: Message) -> dict[str, object]:
    """The fields of a message that are set, those of messages within it too; repeated ones by their name."""
    return {field.name: _fields(value) if isinstance(value, Message) else None for field, value in message.ListFields()}


def _kinds(wire: Wire) -> list[str]:
    """Each kind of message with the fields that are set in it, once."""
    card, *others = wire.messages
    read = [pb.GetModelCardRequest.FromString(card), *map(pb.CollaborateRequest.FromString, others)]
    kinds = {json.dumps(_fields(message), sort_keys=True) for message in read}
    return sorted(kind for kind in kinds if "projection" not in kind)


def _projections(wire: Wire) -> list[pb.Projection]:
    read = [pb.CollaborateRequest.FromString(message) for message in wire.messages[1:]]
    return [message.projection for message in read if message.WhichOneof("message") == "projection"]


def _opened(wire: Wire) -> pb.Open:
    return pb.CollaborateRequest.FromString(wire.messages[1]).open


async def test_no_message_has_a_field_that_it_did_not_have_and_none_is_new(
    core: CoreProcess, user_folder: Path
) -> None:
    plain = await _asked(core, user_folder, "plain", max_tokens=16)
    measured = await _asked(core, user_folder, "measured", max_tokens=16)
    assert _kinds(measured) == _kinds(plain)
    assert {field.name for one in _projections(measured) for field, _ in one.ListFields()} <= {
        "number",
        "block",
        "step",
        "token_ids",
        "is_commit",
    }
    before, after = _opened(plain), _opened(measured)
    assert (len(before.timesteps), before.patience, before.self_conditioning) == (25, 2, pb.SELF_CONDITIONING_OWN)
    assert (len(after.timesteps), after.patience) == (STEPS, PATIENCE)
    assert after.self_conditioning == pb.SELF_CONDITIONING_PROJECTION
    for opening in (before, after):  # all else of the openings is the same
        for name in ("timesteps", "patience", "self_conditioning", "model", "model_sha256"):
            opening.ClearField(name)
    assert before == after


async def test_the_settings_that_cross_are_the_card_s_own_or_the_user_s(core: CoreProcess, user_folder: Path) -> None:
    """With the settings chosen, the two checkpoints are asked alike, byte for byte, but for their names."""
    chosen = {"steps": 5, "early_stop": 0.4, "patience": 0, "self_conditioning": "own", "max_tokens": 8}
    plain = await _asked(core, user_folder, "plain", **chosen)
    measured = await _asked(core, user_folder, "measured", **chosen)
    assert len(plain.messages) == len(measured.messages)
    assert plain.messages[2:] == measured.messages[2:]


async def test_when_a_block_ends_still_follows_from_what_the_core_has(core: CoreProcess, user_folder: Path) -> None:
    wire = await _asked(core, user_folder, "measured", max_tokens=40, top_p=0.001)
    blocks: dict[int, list[pb.Projection]] = {}
    for projection in _projections(wire):
        blocks.setdefault(projection.block, []).append(projection)
    committed = [block for block in blocks.values() if block[-1].is_commit]
    for block in committed:
        tokens = [list(projection.token_ids) for projection in block]
        stayed = [now == before for before, now in itertools.pairwise(tokens)]
        assert not any(stayed[:-1]), "it ends at the first timestep whose tokens stayed the same"
        assert stayed[-1] or len(tokens) == STEPS
    assert any(len(block) < STEPS for block in committed), "some ended early"
