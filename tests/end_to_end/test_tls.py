"""An encrypted line: to the core that was meant, or not at all."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.errors import InvalidParameter
from tests.end_to_end.certificates import Certificates, certificates
from tests.end_to_end.conftest import ENVIRONMENT, CoreProcess, run_agent, running_core
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.errors import CoreUnavailable
from user_agent.line.client import CoreClient
from user_agent.line.credentials import CoreCredentials
from user_agent.store.ledger import Ledger


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def encrypted(core_folder: Path, files: Certificates) -> Iterator[CoreProcess]:
    with running_core(core_folder, *files.core_options) as running:
        running.address = running.address.replace("127.0.0.1", "localhost")
        yield running


def question() -> Question:
    params = DecodingParams(block_size=8, max_tokens=8, steps=4, stop=0.4)
    return Question("Where is it?", (), CollaborationParams(0.0), params, Seeds.reproducible(1))


async def tokens(address: str, ca: Path | None, user: UserModel) -> list[int]:
    async with CoreClient(
        address, Ledger.in_memory(), credentials=CoreCredentials(ca), connect_timeout_s=2.0
    ) as client:
        return [token.token_id for token in (await Agent(user, client).answer(question())).tokens]


async def test_an_encrypted_answer_is_the_same(
    core: CoreProcess, encrypted: CoreProcess, files: Certificates, user_folder: Path
) -> None:
    user = UserModel.load(user_folder, with_weights=False)
    assert await tokens(encrypted.address, files.ca, user) == await tokens(core.address, None, user)


async def _bytes_on_the_line(core: CoreProcess, ca: Path | None, user: UserModel) -> bytes:
    """What an agent sends, as somebody on the way sees it."""
    seen = bytearray()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", int(core.address.rpartition(":")[2]))

        async def down() -> None:
            while data := await theirs.read(65_536):
                writer.write(data)

        answers = asyncio.create_task(down())
        while data := await reader.read(65_536):
            seen.extend(data)
            ours.write(data)
        ours.close()
        await answers
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    await tokens(f"localhost:{server.sockets[0].getsockname()[1]}", ca, user)
    server.close()
    return bytes(seen)


async def test_nothing_is_readable_on_an_encrypted_line(
    core: CoreProcess, encrypted: CoreProcess, files: Certificates, user_folder: Path
) -> None:
    user = UserModel.load(user_folder, with_weights=False)
    known = user.vocabulary_sha256.encode()
    assert known in await _bytes_on_the_line(core, None, user)
    sent = await _bytes_on_the_line(encrypted, files.ca, user)
    assert len(sent) > 1000
    assert known not in sent


@pytest.mark.parametrize("which", ["another authority", "no TLS", "another name", "a core without TLS"])
async def test_a_core_that_cannot_prove_itself_gets_nothing(
    core: CoreProcess, encrypted: CoreProcess, files: Certificates, user_folder: Path, which: str
) -> None:
    user = UserModel.load(user_folder, with_weights=False)
    address, ca, told = {
        "another authority": (encrypted.address, files.other_ca, "not signed by the configured CA certificate"),
        "no TLS": (encrypted.address, None, "no core answers.*set its CA certificate if it uses TLS"),
        "another name": (encrypted.address.replace("localhost", "127.0.0.1"), files.ca, "for another host name"),
        "a core without TLS": (core.address, files.ca, "does not use TLS; check the address"),
    }[which]
    async with asyncio.timeout(10):
        with pytest.raises(CoreUnavailable, match=told):
            await tokens(address, ca, user)


def test_files_that_are_no_certificates_are_named(files: Certificates, core_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"cannot use .*nowhere\.pem: No such file"):
        CoreClient("localhost:1", Ledger.in_memory(), credentials=CoreCredentials(tmp_path / "nowhere.pem"))
    with pytest.raises(InvalidParameter, match=r"cannot use .*key\.pem"):
        CoreClient("localhost:1", Ledger.in_memory(), credentials=CoreCredentials(files.key))
    command = [sys.executable, "-m", "core_server", "--model", str(core_folder), "--tls-key", str(files.key)]
    told = []
    for certificate in ((), ("--tls-certificate", str(files.ca))):  # none, and one of another key
        done = subprocess.run([*command, *certificate], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        told.append(done.stderr.splitlines()[-1])
    assert "go together" in told[0]
    assert "cannot use the certificate" in told[1]


def test_the_command_line_takes_it(encrypted: CoreProcess, files: Certificates, user_folder: Path) -> None:
    asked = ("ask", "Where is it?", "--core", encrypted.address, "--user-model", str(user_folder), "--lambda-user", "0")
    done = run_agent(*asked, "--ca", str(files.ca), "--steps", "3", "--max-tokens", "8")
    assert (done.returncode, "timesteps" in done.stderr) == (0, True)
