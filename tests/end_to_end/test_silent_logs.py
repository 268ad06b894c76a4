"""Whatever happens to an answer, no log and no figure of either side says anything of what was asked or answered."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from core_server.access.keys import READ_AGAIN_S, create_key, revoke_key
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.errors import CoreStopping, CoreTimeout, EngineLost, KeyRefused
from user_agent.answering.answer import Answer
from user_agent.answering.run import Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.credentials import CoreCredentials

from .conftest import CoreProcess, running_core
from .faults import Fault, answered, ended, ids, let_go, metrics_page, switchboard, until
from .processes import engine_processes

ASKED, HIDDEN, FILE = "Zq9sentinel Blenkitharp", "Vx7hidden Ogrindle", "qpw-diary.md"
NOISE_SEED, SAMPLING_SEED = 8_765_432_101_234, 7_654_321_987


def question() -> Question:
    params = DecodingParams(block_size=8, max_tokens=32, steps=12, stop=0.4)
    passages = [Passage(f"The key is in the {HIDDEN} drawer.", Path(FILE), 1)]
    collaboration, seeds = CollaborationParams(0.3, 1.0), Seeds(noise=NOISE_SEED, sampling=SAMPLING_SEED)
    return Question(f"Where is the {ASKED}?", passages, collaboration, params, seeds, speculation=2)


def written_ways(text: str) -> set[str]:
    """A text as itself, in hexadecimal, and in base64 wherever in a longer one it begins."""
    raw = text.encode()
    shifted = (base64.b64encode(bytes(shift) + raw)[4 if shift else 0 : -4].decode() for shift in range(3))
    return {text, text.lower(), raw.hex(), *shifted}


def in_a_row(token_ids: Sequence[int], said: str) -> bool:
    """Whether three tokens stand next to each other somewhere; single numbers can be anything."""
    threes = zip(token_ids, token_ids[1:], token_ids[2:], strict=False)
    return any(re.search(r"\b" + r"\D{1,3}".join(map(str, three)) + r"\b", said) for three in threes)


def test_the_search_finds_what_is_there() -> None:
    for at in range(3):
        said = f"{'x' * at}{ASKED} and more"
        for written in (said, said.encode().hex(), base64.b64encode(said.encode()).decode()):
            assert any(way in written for way in written_ways(ASKED))
    assert in_a_row([7, 8, 9, 10], "ids: [8, 9, 10]")
    assert not in_a_row([7, 8, 9, 10], "at 8:11, 9 of 10")


@pytest.mark.parametrize("log_format", [pytest.param("text", marks=pytest.mark.soak), "json"])
async def test_no_log_and_no_figure_says_anything_of_an_answer_however_it_ends(
    core_folder: Path, user_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, log_format: str
) -> None:
    caplog.set_level(logging.DEBUG)
    user, log, keys = UserModel.load(user_folder, with_weights=True), tmp_path / "log", tmp_path / "keys.json"
    key, entry = create_key(keys, "somebody")
    options = ("--ops-port", "0", "--keys", str(keys), "--answer-timeout-s", "3", "--log-level", "debug")
    with (
        log.open("wb") as file,
        running_core(f"tiny={core_folder}", *options, "--log-format", log_format, log=file.fileno()) as core,
    ):
        answer = await cut(core, user, key)
        await kept_waiting(core, user, key)
        await revoked(core, user, key, keys)
        page = await asyncio.to_thread(metrics_page, core)
        await without_engine(core, user, create_key(keys, "somebody else")[0])
    said = "\n".join([log.read_text(), caplog.text, page])
    # The end of a stream whose line is cut may be read before its cancellation is known.
    for word in ("closed after", "cancelled|disconnected", "core_timeout", "key_refused", "engine_lost", "was resumed"):
        assert re.search(word, log.read_text() + caplog.text), "the logs are those of the faults"
    secrets = (ASKED, HIDDEN, FILE, key.split("-", 2)[2], entry.sha256, str(NOISE_SEED), str(SAMPLING_SEED))
    for secret in (written for text in (*secrets, answer.text) for written in written_ways(text)):
        assert secret not in said
    for token_ids in (user.tokenizer.encode(question().instruction), ids(answer)):
        assert not in_a_row(token_ids, said)
    assert not re.search(r"\d+(, ?\d+){4}", log.read_text()), "no list of ids"


async def cut(core: CoreProcess, user: UserModel, key: str) -> Answer:
    """An answer whose line is cut; it goes on."""
    async with switchboard(core.address) as board:
        fault = Fault(lambda: board.cut(core.address), 1, 5)
        broken = await answered(user, board.address, question(), fault, credentials=CoreCredentials(key=key))
    assert (fault.happened, broken.resumed) == (1, 1)
    return broken


async def kept_waiting(core: CoreProcess, user: UserModel, key: str) -> None:
    """An answer whose line carries nothing any more, until both sides have had enough."""
    patience = {"answer_timeout_s": 1.0, "patience_s": 0.0}
    async with switchboard(core.address) as board:
        fault = Fault(board.hold, 1, 5)
        with pytest.raises(CoreTimeout, match="ask again"):
            await answered(user, board.address, question(), fault, credentials=CoreCredentials(key=key), **patience)
        await until(lambda: ended(core, "core_timeout") == 1, 20)


async def revoked(core: CoreProcess, user: UserModel, key: str, keys: Path) -> None:
    """An answer whose key is revoked in its middle."""
    async with switchboard(core.address) as board:

        def revoke() -> None:
            revoke_key(keys, "somebody")
            board.hold()  # else it is done before the core looks at its keys again

        fault = Fault(revoke, 1, 5)
        answering = asyncio.create_task(
            answered(user, board.address, question(), fault, credentials=CoreCredentials(key=key))
        )
        await until(lambda: ended(core, "key_refused") == 1, 20)
        await let_go([core], 5)
        board.release()
        with pytest.raises(KeyRefused, match="get one from its provider"):
            await answering
    assert fault.happened == 1


async def without_engine(core: CoreProcess, user: UserModel, key: str) -> None:
    """An answer whose core loses its engine, and ends."""
    await asyncio.sleep(READ_AGAIN_S + 0.1)  # the core learns of the key
    fault = Fault(lambda: os.kill(engine_processes(core)[0], signal.SIGKILL), 1, 5)
    with pytest.raises((EngineLost, CoreStopping)):
        await answered(user, core.address, question(), fault, credentials=CoreCredentials(key=key), patience_s=0.0)
    assert fault.happened == 1
    assert await asyncio.to_thread(core.process.wait, 30) == 1
