"""What crosses in a tuning run: every byte is recorded, and leaks made on purpose are found."""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
from rich.console import Console
from torch import Tensor

from ssd2.algorithm.collaboration import decode_locally
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.logits.format import FLOAT16, PREFERRED
from ssd2.logits.packed import as_received
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.predict import begin, begin_sampler
from ssd2.wire import collaboration_pb2 as pb
from user_agent.answering.run import Agent, Question
from user_agent.answering.settings import ServiceSettings
from user_agent.answering.user_model import UserModel
from user_agent.documents.reader import read_passages
from user_agent.errors import CoreLost
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger
from user_agent.store.tuned import Choice
from user_agent.tuning import command, recording, sweep
from user_agent.tuning.command import TuneOptions, run_tune
from user_agent.tuning.questions import CLOZE, cloze_questions

from .conftest import CoreProcess, Wire, recording_relay

CARD_REQUEST = pb.GetModelCardRequest(family="ssd-2").SerializeToString()
NOTES = "The shed code of Zyxquorv is Blenkitharp 7391.\nMy dentist Ada Stonewright works at Marrowby Quay.\n"
OTHER_NOTES = "- Our lawyer is Ingram Featherly.\n" * 3 + "- I keep the piano key in the Ochre Vestibule.\n"
QUESTION, EXPECTED = "Where does my dentist work?", "Marrowby Quay"


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration folder of the test's own, and random models whose every answer counts as right."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sweep, "holds", lambda *_: True)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return _folder(tmp_path / "notes", "diary-of-mallory.md", NOTES)


def _folder(folder: Path, name: str, text: str) -> Path:
    folder.mkdir()
    (folder / name).write_text(text)
    return folder


async def _record(
    core: CoreProcess, user_folder: Path, docs: Path, questions: Path | None = None
) -> tuple[Wire, Choice]:
    async with recording_relay(core.address) as wire:
        options = _options(wire.address, user_folder, docs, questions)
        choice, _ = await asyncio.to_thread(run_tune, options, Console(file=io.StringIO()), Ledger.in_memory())
        return wire, choice


def _options(address: str, user_folder: Path, docs: Path, questions: Path | None = None) -> TuneOptions:
    return TuneOptions(
        docs=(docs,),
        questions=questions,
        core=address,
        questions_limit=4,
        answers=ServiceSettings(user_model=user_folder, steps=2, max_tokens=16, seed=5),
        timeout_s=10.0,
        is_confirmed=True,
    )


def _ids(user_folder: Path, text: str) -> bytes:
    tokenizer = UserModel.load(user_folder, with_weights=False).tokenizer
    return pb.Open(prompt_ids=tokenizer.encode(text)).SerializeToString()[2:]


def _found(wire: Wire, user_folder: Path, docs: Path) -> set[str]:
    """What of the documents, or of the questions made of them, stands in the sent bytes."""
    passages, sent = read_passages(docs), wire.sent()
    clozes = cloze_questions(passages, 5)
    texts = {
        "passage": [passage.text for passage in passages],
        "cloze": [text for q in clozes for text in (q.text, q.text.removeprefix(CLOZE.format("")))],
        "phrase": [q.expected for q in clozes],
        "document name": [part for p in passages for part in (p.source.name, p.source.stem, str(p.source.parent))],
        "question": [QUESTION],
        "expected answer": [EXPECTED],
    }
    return {
        name
        for name, group in texts.items()
        if any(encoding in sent for text in group for encoding in _encodings(user_folder, text))
    }


def _encodings(user_folder: Path, text: str) -> Sequence[bytes]:
    return (text.encode(), text.encode("utf-16-le"), _ids(user_folder, text), _ids(user_folder, f" {text}"))


async def test_tuning_on_documents_sends_the_same_bytes_whatever_they_say(
    core: CoreProcess, user_folder: Path, notes: Path, tmp_path: Path
) -> None:
    others = _folder(tmp_path / "others", "b.txt", OTHER_NOTES)
    (first, choice), (second, _) = [await _record(core, user_folder, docs) for docs in (notes, others)]
    assert choice.questions > 1
    assert first.messages == second.messages
    assert first.metadata == second.metadata
    assert _found(first, user_folder, notes) == set()


async def test_the_recorder_sees_the_public_instructions(core: CoreProcess, user_folder: Path, notes: Path) -> None:
    """Else the silence above would show nothing."""
    wire, _ = await _record(core, user_folder, notes)
    opened = [pb.CollaborateRequest.FromString(message) for message in wire.messages if message != CARD_REQUEST]
    prompts = [list(request.open.prompt_ids) for request in opened if request.WhichOneof("message") == "open"]
    user = UserModel.load(user_folder, with_weights=False)
    assert prompts == [user.core_prompt(text) for text in recording.PUBLIC_INSTRUCTIONS]


async def test_a_recording_holds_the_cores_logits_as_they_arrive(
    core: CoreProcess, core_folder: Path, user_folder: Path
) -> None:
    bare, params = (
        UserModel.load(user_folder, with_weights=False),
        DecodingParams(block_size=8, max_tokens=8, steps=3, stop=0.4),
    )
    async with CoreClient(core.address, Ledger.in_memory()) as client:
        recorded = (await recording.record(bare, client, params, 5))[0]
    arrived: list[Tensor] = []
    decode_locally(
        begin(load_checkpoint(core_folder).model, [bare.core_prompt(recording.PUBLIC_INSTRUCTIONS[0])], "own"),
        None,
        CollaborationParams(0.0),
        begin_sampler(bare.config, params, [Seeds.reproducible(5)]),
        logits_format=PREFERRED,
        on_timestep=lambda timestep: arrived.append(timestep.core.values[0]),
    )
    (block,) = recorded.logits
    assert len(block) == len(arrived) == 3
    for kept, sent in zip(block, arrived, strict=True):
        torch.testing.assert_close(kept.float(), sent, rtol=2**-11, atol=0)
        assert torch.equal(as_received(kept, FLOAT16).values, kept), "mixing a recording rounds it no further"


async def test_the_line_is_closed_before_anything_is_mixed_with_documents(
    core: CoreProcess, user_folder: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    leave, answers = CoreClient.__aexit__, sweep.RecordedJudge._answers

    async def leaving(self: CoreClient, *error: object) -> None:
        await leave(self, *error)
        events.append("closed")

    def answering(self: sweep.RecordedJudge, setting: CollaborationParams, numbers: Sequence[int]) -> list[str]:
        if self.recordings[0].logits:  # without, it is the estimate of how long the run takes
            events.append("mixed")
        return answers(self, setting, numbers)

    monkeypatch.setattr(CoreClient, "__aexit__", leaving)
    monkeypatch.setattr(sweep.RecordedJudge, "_answers", answering)
    await _record(core, user_folder, notes)
    assert events[:2] == ["closed", "closed"]  # of the card, of the recording
    assert set(events[2:]) == {"mixed"}


def _leak_cloze_as_instruction(monkeypatch: pytest.MonkeyPatch, docs: Path) -> None:
    texts = tuple(question.text for question in cloze_questions(read_passages(docs), 5))
    monkeypatch.setattr(recording, "PUBLIC_INSTRUCTIONS", texts)


def _leak_by_asking(monkeypatch: pytest.MonkeyPatch, docs: Path) -> None:
    """Questions made of documents are asked as the user's own are."""

    async def asking(run: command.Run, console: Console) -> object:
        async with CoreClient(run.options.core, Ledger.in_memory()) as client:
            judge = sweep.AskingJudge(run.tasks, Agent(run.user_model, client), run.params, run.kept.seed)
            return await command._sweep(run, judge, console)

    monkeypatch.setattr(command, "_measure", asking)


@pytest.mark.parametrize("leak", [_leak_cloze_as_instruction, _leak_by_asking], ids=["instruction", "asking"])
async def test_a_cloze_question_in_the_instruction_is_found(
    core: CoreProcess,
    user_folder: Path,
    notes: Path,
    monkeypatch: pytest.MonkeyPatch,
    leak: Callable[[pytest.MonkeyPatch, Path], None],
) -> None:
    leak(monkeypatch, notes)
    wire, _ = await _record(core, user_folder, notes)
    assert "cloze" in _found(wire, user_folder, notes)


async def test_a_trajectory_that_depends_on_documents_is_found(
    core: CoreProcess, user_folder: Path, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seed taken from the documents, which no search for texts would see."""
    original = command.record

    async def leaking(*arguments: object, **options: object) -> object:
        user, client, params, _ = arguments
        return await original(user, client, params, leaking.seed, **options)

    monkeypatch.setattr(command, "record", leaking)
    wires = []
    for docs in (notes, _folder(tmp_path / "others", "b.txt", OTHER_NOTES)):
        leaking.seed = sum(len(passage.text) for passage in read_passages(docs))
        wires.append((await _record(core, user_folder, docs))[0])
    assert wires[0].messages != wires[1].messages


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "mine.tsv"
    file.write_text(f"{QUESTION}\t{EXPECTED}\n")
    return file


async def test_of_a_question_file_the_questions_cross_and_nothing_else(
    core: CoreProcess, user_folder: Path, notes: Path, questions: Path
) -> None:
    wire, choice = await _record(core, user_folder, notes, questions)
    assert _found(wire, user_folder, notes) == {"question"}
    opened = [pb.CollaborateRequest.FromString(message) for message in wire.messages if message != CARD_REQUEST]
    asked = sum(setting.uses_core for setting in sweep.SETTINGS)
    opens = [request.open for request in opened if request.WhichOneof("message") == "open"]
    assert len(opens) == len({request.noise_seed for request in opens}) == asked
    sent = wire.sent()
    for setting in (s for s in sweep.CONSTANTS if s.lambda_user not in (0, 0.5, 1)):  # 0.5 is too short a pattern
        assert struct.pack("<d", setting.lambda_user) not in sent
    assert choice.source == "questions"


@pytest.mark.parametrize("seed", [None, 5])
async def test_a_core_that_breaks_the_line_does_not_see_the_same_draws_again(
    core: CoreProcess,
    user_folder: Path,
    notes: Path,
    questions: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int | None,
) -> None:
    """Unless a seed is given."""
    asked: list[Question] = []

    async def answer(_: Agent, question: Question) -> SimpleNamespace:
        asked.append(question)
        if len(asked) == 3:
            raise CoreLost("gone")
        return SimpleNamespace(text="")

    monkeypatch.setattr(Agent, "answer", answer)
    answers = ServiceSettings(user_model=user_folder, steps=2, max_tokens=16, seed=seed)
    options = replace(_options(core.address, user_folder, notes, questions), answers=answers)
    with pytest.raises(CoreLost, match="2 of 14 answers are stored"):
        await asyncio.to_thread(run_tune, options, Console(file=io.StringIO()), Ledger.in_memory())
    choice, _ = await asyncio.to_thread(run_tune, options, Console(file=io.StringIO()), Ledger.in_memory())
    assert len(asked) == 15
    (again,) = (q for q in asked[3:] if q.collaboration == asked[2].collaboration)
    assert (again.seeds == asked[2].seeds) == (seed is not None)
    assert choice.seed == seed


async def test_an_expected_answer_that_is_sent_is_found(
    core: CoreProcess, user_folder: Path, notes: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = UserModel.core_prompt
    monkeypatch.setattr(
        UserModel, "core_prompt", lambda self, *asked: prompt(self, *asked) + self.tokenizer.encode(f" {EXPECTED}")
    )
    wire, _ = await _record(core, user_folder, notes, questions)
    assert "expected answer" in _found(wire, user_folder, notes)


class Terminal(io.StringIO):
    """Somebody types."""

    def isatty(self) -> bool:
        return True


async def test_who_says_no_has_sent_nothing_but_the_request_for_the_card(
    core: CoreProcess, user_folder: Path, notes: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    async with recording_relay(core.address) as wire:
        options = replace(_options(wire.address, user_folder, notes, questions), is_confirmed=False)
        with pytest.raises(typer.Abort):
            await asyncio.to_thread(run_tune, options, Console(file=io.StringIO()), Ledger.in_memory())
    assert wire.messages == [CARD_REQUEST]


async def test_who_says_yes_goes_on(
    core: CoreProcess, user_folder: Path, notes: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    options = replace(_options(core.address, user_folder, notes, questions), is_confirmed=False)
    choice, _ = await asyncio.to_thread(run_tune, options, Console(file=io.StringIO()), Ledger.in_memory())
    assert choice.questions == 1
