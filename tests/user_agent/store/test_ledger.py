"""The ledger: it takes entries at its end alone, and shows whatever was done to them later."""

from __future__ import annotations

import hashlib
import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest

from ssd2.errors import NotFound
from ssd2.wire import collaboration_pb2 as pb
from user_agent.errors import LedgerUnwritable
from user_agent.store.ledger import FIRST_PREVIOUS, Ledger, Totals, Traffic, tracing

CORE = "core.example.org:50051"
OPEN = pb.CollaborateRequest(open=pb.Open(prompt_ids=[7, 8, 9], noise_seed=2**62, block_size=8))
PROJECTION = pb.CollaborateRequest(projection=pb.Projection(number=0, block=1, step=2, token_ids=[5, 6], counts=[1, 1]))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def opened(file: Path) -> Ledger:
    connection = apsw.Connection(str(file))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.set_busy_timeout(5000)
    return Ledger(connection)


@pytest.fixture
def ledger(file: Path) -> Ledger:
    """Four entries, two of them of an answer."""
    ledger = opened(file)
    ledger.record("up", CORE, "GetModelCard", pb.GetModelCardRequest(family="ssd-2").SerializeToString())
    ledger.record("down", CORE, "GetModelCard", b"a card")
    with tracing("answer-1"):
        ledger.record("up", CORE, "Collaborate", OPEN.SerializeToString())
        ledger.record("up", CORE, "Collaborate", PROJECTION.SerializeToString())
    return ledger


def tampered(file: Path, statement: str) -> None:
    """Change the file as somebody would who does not mind its triggers."""
    connection = apsw.Connection(str(file))
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute(statement)
    assert connection.changes() > 0
    connection.close()


def test_an_entry_says_what_crossed_when_and_where_to(ledger: Ledger) -> None:
    before = datetime.now(UTC)
    with tracing("answer-2"):
        ledger.record("up", CORE, "Collaborate", b"\x1a\x00")
    entry = ledger.entry(5)
    assert (entry.direction, entry.destination, entry.rpc, entry.trace) == ("up", CORE, "Collaborate", "answer-2")
    assert (entry.payload, entry.payload_bytes, entry.wire_bytes) == (b"\x1a\x00", 2, 2 + 5)
    assert entry.sha256 == hashlib.sha256(b"\x1a\x00").hexdigest()
    assert before <= datetime.fromisoformat(entry.time) <= datetime.now(UTC)
    assert entry.time.endswith("+00:00")


def test_of_a_message_down_only_its_size_and_hash_are_kept(ledger: Ledger, file: Path) -> None:
    ledger.record("down", CORE, "Collaborate", b"logits of the core")
    entry = ledger.entry(5)
    assert (entry.payload, entry.message, entry.payload_bytes) == (None, None, 18)
    assert entry.sha256 == hashlib.sha256(b"logits of the core").hexdigest()
    assert b"logits of the core" not in b"".join(path.read_bytes() for path in file.parent.iterdir())


def test_a_message_up_is_shown_with_every_field_and_its_tokens(ledger: Ledger) -> None:
    asked, opening, projection = (ledger.entry(seq).message for seq in (1, 3, 4))
    assert (asked.kind, asked.fields) == ("model_card", {"model": "", "family": "ssd-2"})
    assert (opening.kind, opening.token_ids) == ("open", [7, 8, 9])
    assert opening.fields["noise_seed"] == str(2**62)
    assert opening.fields["self_conditioning"] == "SELF_CONDITIONING_UNSPECIFIED"
    assert (projection.kind, projection.token_ids) == ("projection", [5, 6])
    assert projection.fields == {
        "number": "0",
        "block": 1,
        "step": 2,
        "token_ids": [5, 6],
        "counts": [1, 1],
        "is_commit": False,
    }
    ledger.record("up", CORE, "Collaborate", pb.CollaborateRequest(close=pb.Close()).SerializeToString())
    assert ledger.entry(5).message.kind == "close"


def test_entries_come_page_by_page_and_by_answer(ledger: Ledger) -> None:
    assert [entry.seq for entry in ledger.entries()] == [1, 2, 3, 4]
    assert [entry.seq for entry in ledger.entries(after_seq=1, limit=2)] == [2, 3]
    assert [entry.seq for entry in ledger.entries(trace="answer-1")] == [3, 4]
    assert [entry.seq for entry in ledger.entries(trace="answer-1", after_seq=3)] == [4]
    assert [entry.seq for entry in ledger.entries(trace="")] == [1, 2]


def test_an_entry_that_is_not_there_is_an_error(ledger: Ledger) -> None:
    for seq in (0, 5):
        with pytest.raises(NotFound, match=f"no entry {seq}"):
            ledger.entry(seq)


def test_totals_are_messages_and_bytes_each_way(ledger: Ledger, file: Path) -> None:
    up = 7 + OPEN.ByteSize() + PROJECTION.ByteSize()
    assert ledger.totals() == Totals(up=Traffic(3, up, up + 15), down=Traffic(1, 6, 11))
    assert opened(file.with_name("empty.sqlite")).totals() == Totals(Traffic(), Traffic())


def test_totals_say_what_went_to_a_core_on_this_machine(ledger: Ledger) -> None:
    for core in ("127.0.0.1:50051", "[::1]:50051", "localhost:1"):
        ledger.record("up", core, "Collaborate", b"12345")
    ledger.record("down", "127.0.0.1:50051", "Collaborate", b"logits")
    totals = ledger.totals()
    assert (totals.local, totals.up.messages, totals.down.messages) == (Traffic(3, 15, 30), 6, 2)


def test_a_ledger_of_an_older_version_is_read_and_goes_on(ledger: Ledger, file: Path) -> None:
    before = ledger.totals()
    with apsw.Connection(str(file)) as raw:
        raw.execute("DROP INDEX entry_traffic")
    again = opened(file)
    again.record("up", "127.0.0.1:1", "Collaborate", b"12345")
    assert (again.totals().up.messages, again.verify().broken_seq) == (before.up.messages + 1, None)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET destination = 'elsewhere:1' WHERE seq = 2",
        "DELETE FROM entry WHERE seq = 4",
        "DELETE FROM entry",
        "INSERT OR REPLACE INTO entry SELECT * FROM entry WHERE seq = 3",
        "INSERT INTO entry SELECT 9, time, direction, destination, rpc, payload_bytes, wire_bytes, sha256, previous, "
        "trace, chain, payload FROM entry WHERE seq = 3",
    ],
)
def test_no_entry_can_be_changed_replaced_removed_or_put_elsewhere(ledger: Ledger, file: Path, statement: str) -> None:
    before = ledger.entries()
    connection = apsw.Connection(str(file))
    with pytest.raises(apsw.ConstraintError, match="the ledger"):
        connection.execute(statement)
    assert ledger.entries() == before


def test_an_untouched_ledger_is_whole(ledger: Ledger, file: Path) -> None:
    found = ledger.verify()
    assert (found.entries, found.broken_seq, found.reason) == (4, None, "")
    assert found.chain == ledger.entry(4).chain
    assert opened(file.with_name("empty.sqlite")).verify().chain == FIRST_PREVIOUS == ledger.entry(1).previous


@pytest.mark.parametrize(
    ("statement", "broken_seq", "reason"),
    [
        ("UPDATE entry SET time = '2020-01-01T00:00:00.000000+00:00' WHERE seq = 2", 2, "fields were changed"),
        ("UPDATE entry SET direction = 'up', payload = x'00' WHERE seq = 2", 2, "fields were changed"),
        ("UPDATE entry SET destination = 'elsewhere:1' WHERE seq = 2", 2, "fields were changed"),
        ("UPDATE entry SET rpc = 'Collaborate' WHERE seq = 2", 2, "fields were changed"),
        ("UPDATE entry SET payload_bytes = 7 WHERE seq = 2", 2, "fields were changed"),
        ("UPDATE entry SET wire_bytes = 7 WHERE seq = 2", 2, "fields were changed"),
        ("UPDATE entry SET sha256 = '00' WHERE seq = 2", 2, "fields were changed"),
        ("UPDATE entry SET trace = 'answer-1' WHERE seq = 2", 2, "fields were changed"),
        ("UPDATE entry SET chain = '00' WHERE seq = 2", 2, "fields were changed"),
        ("UPDATE entry SET previous = '00' WHERE seq = 2", 2, "does not follow"),
        ("UPDATE entry SET payload = x'00' WHERE seq = 3", 3, "message was changed"),
        ("UPDATE entry SET payload = NULL WHERE seq = 3", 3, "removed or inserted"),
        ("UPDATE entry SET payload = x'00' WHERE seq = 2", 2, "removed or inserted"),
        ("DELETE FROM entry WHERE seq = 2", 3, "entry 2 is missing"),
        ("DELETE FROM entry WHERE seq = 1", 2, "entry 1 is missing"),
    ],
)
def test_whatever_was_done_to_an_entry_shows(
    ledger: Ledger, file: Path, statement: str, broken_seq: int, reason: str
) -> None:
    tampered(file, statement)
    found = ledger.verify()
    assert found.broken_seq == broken_seq
    assert reason in found.reason
    assert found.entries < broken_seq


def test_an_entry_forged_with_a_fitting_hash_of_its_own_shows_at_the_next(ledger: Ledger, file: Path) -> None:
    other = file.with_name("other.sqlite")
    opened(other).record("down", CORE, "GetModelCard", b"another card")
    connection = apsw.Connection(str(file))
    for statement in ("DROP TRIGGER entry_is_next", "DROP TRIGGER entry_stays", "DELETE FROM entry WHERE seq = 1"):
        connection.execute(statement)
    connection.execute("ATTACH ? AS other", (str(other),))
    connection.execute("INSERT INTO entry SELECT * FROM other.entry")
    assert ledger.verify().broken_seq == 2


def test_the_export_is_a_line_of_json_for_each_entry(ledger: Ledger) -> None:
    lines = [json.loads(line) for line in ledger.export()]
    assert [line["seq"] for line in lines] == [1, 2, 3, 4]
    assert bytes.fromhex(lines[2]["payload"]) == OPEN.SerializeToString()
    assert lines[1]["payload"] is None
    assert [line["previous"] for line in lines[1:]] == [line["chain"] for line in lines[:-1]]


def test_more_entries_than_a_page_are_all_verified_and_exported(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("user_agent.store.ledger._PAGE", 3)
    assert ledger.verify().entries == len(list(ledger.export())) == 4


def test_entries_are_kept_and_the_chain_goes_on_after_a_restart(ledger: Ledger, file: Path) -> None:
    again = opened(file)
    again.record("down", CORE, "Collaborate", b"logits")
    assert again.entry(5).previous == ledger.entry(4).chain
    assert ledger.verify().entries == 5


def test_several_threads_and_several_connections_make_one_chain(ledger: Ledger, file: Path) -> None:
    def write(own: Ledger) -> None:
        for _ in range(50):
            own.record("up", CORE, "Collaborate", b"\x1a\x00")

    writers = [threading.Thread(target=write, args=(own,)) for own in (ledger, ledger, opened(file), opened(file))]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert ledger.verify().entries == 4 + 200
    assert ledger.verify().broken_seq is None


def test_it_can_be_read_while_another_connection_writes(ledger: Ledger, file: Path) -> None:
    reader = opened(file)
    with ledger._connection:
        ledger._connection.execute("SELECT 1")
        assert reader.verify().entries == 4


def test_a_ledger_that_cannot_be_written_says_so(ledger: Ledger) -> None:
    ledger._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerUnwritable, match="nothing is sent"):
        ledger.record("up", CORE, "Collaborate", b"\x1a\x00")
    assert ledger.verify().entries == 4


def test_the_id_of_an_answer_ends_with_it(ledger: Ledger) -> None:
    with tracing("outer"):
        with tracing("inner"):
            ledger.record("down", CORE, "Collaborate", b"")
        ledger.record("down", CORE, "Collaborate", b"")
    ledger.record("down", CORE, "Collaborate", b"")
    assert [entry.trace for entry in ledger.entries(after_seq=4)] == ["inner", "outer", ""]
