"""A disk without room: nothing leaves that is not in the ledger, nothing breaks, and with room all goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from core_server.access.keys import create_key, read_keys, revoke_key
from ssd2.errors import InvalidParameter
from tests.commands import run_here
from user_agent.answering.user_model import UserModel
from user_agent.errors import LedgerUnwritable, StoreUnreadable
from user_agent.store.database import open_database
from user_agent.store.history import History
from user_agent.store.ledger import Ledger

from .conftest import ENVIRONMENT, CoreProcess, recording_relay, running_core
from .faults import Fault, answered, figures, ids, let_go, question
from .namespaces import NEEDS_OWN_DISK, clear, fill, own_disk, run_apart

pytestmark = NEEDS_OWN_DISK


@pytest.fixture(scope="module")
def core(core_folder: Path) -> Iterator[CoreProcess]:
    with running_core(f"tiny={core_folder}", "--ops-port", "0") as running:
        yield running


async def test_on_a_full_disk_no_message_leaves_without_its_ledger_entry(
    core: CoreProcess, user_folder: Path, tmp_path: Path
) -> None:
    run_apart(own_disk(tmp_path, "8m"), ledger_on_a_disk_that_fills_up, core.address, user_folder, tmp_path)
    await let_go([core], 20)


def ledger_on_a_disk_that_fills_up(address: str, user_folder: str, disk: str) -> None:
    user = UserModel.load(Path(user_folder), with_weights=True)
    asyncio.run(_ledger_on_a_disk_that_fills_up(address, user, Path(disk)))


async def _ledger_on_a_disk_that_fills_up(address: str, user: UserModel, disk: Path) -> None:
    ledger = Ledger(open_database(disk / "ledger.sqlite", None))
    async with recording_relay(address) as wire:

        def entered() -> int:
            return ledger.totals().up.messages

        unbroken = await answered(user, wire.address, question(), ledger=ledger)
        assert entered() == len(wire.messages) > 32
        fault = Fault(lambda: fill(disk), 1, 4)
        with pytest.raises(LedgerUnwritable, match="so nothing is sent; free space on its disk"):
            await answered(user, wire.address, question(), fault, ledger=ledger)
        assert fault.happened == 1
        await asyncio.sleep(0.3)  # what was under way arrives
        assert len(wire.messages) == entered()

        clear(disk)
        again = await answered(user, wire.address, question(), ledger=ledger)
        assert ids(again) == ids(unbroken)
        assert len(wire.messages) == entered()
    verified = ledger.verify()
    totals = ledger.totals()
    assert (verified.broken_seq, verified.entries) == (None, totals.up.messages + totals.down.messages)


def test_commands_on_a_full_disk_say_so_send_nothing_and_go_on_once_there_is_room(
    core: CoreProcess, user_folder: Path, tmp_path: Path
) -> None:
    disk, notes = tmp_path / "disk", tmp_path / "notes"
    disk.mkdir()
    notes.mkdir()
    (notes / "home.md").write_text("The key is in the blue drawer.\n" * 40)
    opened = figures(core)['sessions_opened_total{model="tiny"}']
    run_apart(own_disk(disk, "4m"), commands_on_a_full_disk, core.address, user_folder, disk, notes)
    assert figures(core)['sessions_opened_total{model="tiny"}'] == opened + 2, "as many as were answered"


def commands_on_a_full_disk(address: str, user_folder: str, disk: str, notes: str) -> None:
    environment = {**ENVIRONMENT, "XDG_DATA_HOME": disk}
    asked = ("ask", "Where is it?", "--core", address, "--user-model", user_folder, "--steps", "3", "--max-tokens", "8")

    def succeeds(*arguments: str) -> str:
        done = run_here(*arguments, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(*arguments: str) -> None:
        done = run_here(*arguments, environment=environment)
        message = " ".join(done.stderr.split())
        assert done.returncode not in (0, None)
        assert "Traceback" not in message, message
        assert "disk" in message, message
        assert done.stdout == ""

    fill(Path(disk))
    fails(*asked)
    fails("docs", "link", notes)
    clear(Path(disk))
    succeeds(*asked)
    fill(Path(disk))
    fails(*asked)
    fails("docs", "link", notes)
    clear(Path(disk))
    succeeds("docs", "link", notes)
    assert "blue drawer" in succeeds("docs", "search", "Where is the key?")
    succeeds(*asked)
    succeeds("ledger", "verify")


def test_conversations_on_a_full_disk_are_whole(tmp_path: Path) -> None:
    run_apart(own_disk(tmp_path, "1m"), conversations_on_a_full_disk, tmp_path)


def conversations_on_a_full_disk(disk: str) -> None:
    history = History(open_database(Path(disk) / "history.sqlite", None))
    conversation = history.create("before").id
    history.append(conversation, "user", "first")
    fill(Path(disk))
    for write in (lambda: history.append(conversation, "user", "x" * 100_000), lambda: history.create("y" * 100_000)):
        with pytest.raises(StoreUnreadable, match="check the disk"):
            write()
    assert [message.text for message in history.messages(conversation)] == ["first"]
    clear(Path(disk))
    history.append(conversation, "assistant", "second")
    assert [message.text for message in history.messages(conversation)] == ["second", "first"]


def test_keys_on_a_full_disk_stay_what_they_were(tmp_path: Path) -> None:
    run_apart(own_disk(tmp_path, "64k"), keys_on_a_full_disk, tmp_path)


def keys_on_a_full_disk(disk: str) -> None:
    file = Path(disk) / "keys.json"
    create_key(file, "alice")
    before = read_keys(file)
    fill(Path(disk))
    for change in (lambda: create_key(file, "bob"), lambda: revoke_key(file, "alice")):
        with pytest.raises(InvalidParameter, match="No space left"):
            change()
        assert read_keys(file) == before
    clear(Path(disk))
    revoke_key(file, "alice")
    assert read_keys(file) == []
