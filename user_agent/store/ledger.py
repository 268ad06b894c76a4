"""The departure ledger: every message between this device and a core, in order, kept on the device.

A message to the core has its entry before it leaves: the entry is handed to the operating system, in a transaction of
its own, and only then is the message handed to gRPC. So the ledger may hold a message that did not get out, because the
line broke or the answer was dropped just then; it never lacks one that did. A process that crashes loses no entry. When
the whole machine goes down, the entries that it had not yet put on its disk go with it: SQLite waits for the disk where
it moves its log into the file (WAL, synchronous = NORMAL), about every 4 MB, and the system writes by itself within
seconds.

Each entry holds the hash of the one before, so that an entry that was changed, put in or taken out later shows. That is
no proof against whoever can write the file and makes all later hashes anew, or cuts off its end: for that, keep what
`verify` says of the last entry elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import apsw

from ssd2.errors import NotFound
from ssd2.wire.addresses import is_loopback
from ssd2.wire.sent_message import SentMessage, decode
from user_agent.errors import LedgerUnwritable
from user_agent.store.database import memory_database, reported, writing

Direction: TypeAlias = Literal["up", "down"]

PREFIX_BYTES = 5
"""What gRPC puts before each message: whether it is compressed, which it is not here, and its length."""

FIRST_PREVIOUS = "0" * 64
"""Stands for the chain before the first entry."""

_BEHIND_ALL = 2**63 - 1
_PAGE = 500
"""Entries read at a time, so that a reader never holds up an answer for long."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    seq INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    direction TEXT NOT NULL CHECK (direction IN ('up', 'down')),
    destination TEXT NOT NULL,
    rpc TEXT NOT NULL,
    payload_bytes INTEGER NOT NULL,
    wire_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    previous TEXT NOT NULL,
    trace TEXT NOT NULL,
    chain TEXT NOT NULL,
    payload BLOB CHECK ((payload IS NULL) = (direction = 'down'))
) STRICT;
CREATE INDEX IF NOT EXISTS entry_by_trace ON entry (trace, seq);
CREATE INDEX IF NOT EXISTS entry_traffic ON entry (direction, destination, payload_bytes, wire_bytes);
CREATE TRIGGER IF NOT EXISTS entry_is_next BEFORE INSERT ON entry
    WHEN new.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM entry)
    BEGIN SELECT raise(ABORT, 'the ledger only grows at its end'); END;
CREATE TRIGGER IF NOT EXISTS entry_is_final BEFORE UPDATE ON entry
    BEGIN SELECT raise(ABORT, 'the ledger changes no entry'); END;
CREATE TRIGGER IF NOT EXISTS entry_stays BEFORE DELETE ON entry
    BEGIN SELECT raise(ABORT, 'the ledger loses no entry'); END;
"""

_COLUMNS = "seq, time, direction, destination, rpc, payload_bytes, wire_bytes, sha256, previous, trace, chain, payload"
_INSERT = f"INSERT INTO entry ({_COLUMNS}) VALUES ({', '.join('?' * 12)})"  # noqa: S608 (made of constants)
_LAST = "SELECT seq, chain FROM entry ORDER BY seq DESC LIMIT 1"

OnDeparture: TypeAlias = Callable[[int, int], None]
"""Told the number of an entry of direction "up", and its wire_bytes."""


class Tally:
    """What the entries of one answer add up to, while they are made.

    Attributes:
        bytes_up: wire_bytes of the entries of direction "up".
        bytes_down: wire_bytes of those of direction "down".
        destinations: of those up, in the order of their first entry.
    """

    def __init__(self) -> None:
        self.bytes_up = self.bytes_down = 0
        self.destinations: list[str] = []

    def add(self, direction: Direction, destination: str, wire_bytes: int) -> None:
        """Add an entry."""
        if direction == "down":
            self.bytes_down += wire_bytes
            return
        self.bytes_up += wire_bytes
        if destination not in self.destinations:
            self.destinations.append(destination)


@dataclass(frozen=True)
class _Traced:
    """The answer that entries are made for; no answer if there is no tally."""

    trace: str = ""
    on_departure: OnDeparture = lambda seq, wire_bytes: None
    tally: Tally | None = None


_NO_ANSWER = _Traced()
_traced: ContextVar[_Traced] = ContextVar("traced", default=_NO_ANSWER)


@contextmanager
def tracing(trace: str, on_departure: OnDeparture = _Traced.on_departure) -> Iterator[Tally]:
    """Put the id of an answer on every entry that the current task, and tasks that it starts, make in here.

    Args:
        trace: the id.
        on_departure: told of each of them that leaves.

    Yields:
        What these entries add up to so far.
    """
    tally = Tally()
    token = _traced.set(_Traced(trace, on_departure, tally))
    try:
        yield tally
    finally:
        _traced.reset(token)


@dataclass(frozen=True)
class Crossing:
    """One message that crossed.

    Attributes:
        seq: number of its entry, from 1.
        time: UTC, ISO 8601 with microseconds; of a message up before it left, of one down after it arrived.
        direction: "up" from this device to the core, "down" from the core.
        destination: HOST:PORT of the core, either way.
        rpc: method of the service, such as "Collaborate".
        payload_bytes: size of the message as protobuf.
        wire_bytes: payload_bytes and the 5 bytes that gRPC puts before a message: exactly what HTTP/2 carries for it as
            payload of DATA frames. HTTP/2's own overhead is not included; the device cannot attribute it to messages:
            9 bytes a frame (one carries 89 kB of logits as well as 50 bytes), headers, settings, pings, windows.
        sha256: of the payload, hexadecimal.
        previous: `chain` of the entry before.
        trace: id of the answer that it belongs to; "" outside of one.
    """

    seq: int
    time: str
    direction: Direction
    destination: str
    rpc: str
    payload_bytes: int
    wire_bytes: int
    sha256: str
    previous: str
    trace: str


@dataclass(frozen=True)
class Entry(Crossing):
    """A crossing as the ledger holds it.

    Attributes:
        chain: SHA-256 over all of the crossing's fields, hexadecimal.
        payload: the message, of direction "up" only.
    """

    chain: str
    payload: bytes | None

    @property
    def message(self) -> SentMessage | None:
        """The message in readable form, of direction "up" only."""
        return None if self.payload is None else decode(self.rpc, self.payload)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: every field, with the payload in hexadecimal."""
        return {**asdict(self), "payload": None if self.payload is None else self.payload.hex()}


@dataclass(frozen=True)
class Traffic:
    """Messages in one direction; sizes as in `Entry`."""

    messages: int = 0
    payload_bytes: int = 0
    wire_bytes: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        """Add up two."""
        return Traffic(
            self.messages + other.messages,
            self.payload_bytes + other.payload_bytes,
            self.wire_bytes + other.wire_bytes,
        )


@dataclass(frozen=True)
class Totals:
    """All of a ledger, or of one answer.

    Attributes:
        up: from this device to a core.
        down: from a core.
        local: of those up, what went to a core on this machine, and so did not leave it.
    """

    up: Traffic
    down: Traffic
    local: Traffic = Traffic()


@dataclass(frozen=True)
class AnswerTraffic:
    """What crossed for one answer.

    Attributes:
        trace: id of the answer.
        first_seq: number of its first entry.
        last_seq: number of its last one.
        time: of the first one.
        destinations: that messages were sent to, HOST:PORT.
        totals: of all its entries.
    """

    trace: str
    first_seq: int
    last_seq: int
    time: str
    destinations: Sequence[str]
    totals: Totals


@dataclass(frozen=True)
class Verification:
    """Result of verifying the chain.

    Attributes:
        entries: that fit, from the first on.
        chain: of the last of them; whoever keeps it elsewhere can tell later that nothing before it was changed.
        broken_seq: the first entry that does not fit; None if all do.
        reason: what is wrong with it; "" if all fit.
    """

    entries: int
    chain: str
    broken_seq: int | None = None
    reason: str = ""


class Ledger:
    """A ledger in a database of its own. Safe to use from several threads; several processes may use one file."""

    def __init__(self, connection: apsw.Connection) -> None:
        """Open a ledger, or begin one.

        Args:
            connection: in WAL mode, used by nothing else.

        Raises:
            StoreUnreadable: if it cannot be begun.
        """
        self._connection, self._lock = connection, threading.Lock()
        connection.execute("PRAGMA synchronous = NORMAL")
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'entry_traffic'").fetchone():
            with reported(Path(connection.filename)), writing(connection):
                connection.execute(_SCHEMA)

    @classmethod
    def in_memory(cls) -> Ledger:
        """Begin a ledger that ends with this process, for a core that this process starts or tests itself."""
        return cls(memory_database())

    def record(self, direction: Direction, destination: str, rpc: str, payload: bytes) -> None:
        """Add a message: one that is about to leave, or one that has come.

        Raises:
            LedgerUnwritable: if it cannot be added; then it must not leave.
        """
        traced = _traced.get()
        try:
            with self._lock, writing(self._connection):
                seq, previous = self._connection.execute(_LAST).fetchone() or (0, FIRST_PREVIOUS)
                fields = (
                    seq + 1,
                    datetime.now(UTC).isoformat(timespec="microseconds"),
                    direction,
                    destination,
                    rpc,
                    len(payload),
                    len(payload) + PREFIX_BYTES,
                    hashlib.sha256(payload).hexdigest(),
                    previous,
                    traced.trace,
                )
                self._connection.execute(_INSERT, (*fields, _chain(*fields), payload if direction == "up" else None))
        except apsw.Error as error:
            raise LedgerUnwritable(
                f"the ledger of what leaves this device cannot be written ({error}), so nothing is sent; free space on "
                "its disk and check the file's permissions"
            ) from error
        if traced.tally:
            traced.tally.add(direction, destination, len(payload) + PREFIX_BYTES)
        if direction == "up":
            traced.on_departure(seq + 1, len(payload) + PREFIX_BYTES)

    def entries(
        self,
        after_seq: int = 0,
        limit: int = 100,
        trace: str | None = None,
        direction: Direction | None = None,
        *,
        before_seq: int | None = None,
    ) -> list[Entry]:
        """Entries in order; with `before_seq` the latest first.

        Args:
            after_seq: the one before the first.
            limit: how many at most.
            trace: those of one answer only; None for all.
            direction: one way only; None for both.
            before_seq: go back from the one before this one.
        """
        asked = {"seq > ?": after_seq, "seq < ?": before_seq, "trace = ?": trace, "direction = ?": direction}
        given = {condition: value for condition, value in asked.items() if value is not None}
        order = "seq" if before_seq is None else "seq DESC"
        query = f"SELECT {_COLUMNS} FROM entry WHERE {' AND '.join(given)} ORDER BY {order} LIMIT ?"  # noqa: S608
        with self._lock:
            return [Entry(*row) for row in self._connection.execute(query, (*given.values(), limit))]

    def latest(self, limit: int = 100, trace: str | None = None) -> list[Entry]:
        """The last entries, in order; see `entries`."""
        return self.entries(0, limit, trace, before_seq=_BEHIND_ALL)[::-1]

    def entry(self, seq: int) -> Entry:
        """One entry; its `message` says what was sent.

        Raises:
            NotFound: if there is none of that number.
        """
        found = self.entries(seq - 1, 1)
        if not found or found[0].seq != seq:
            raise NotFound(f"the ledger has no entry {seq}; choose one of its entries", parameter="entry")
        return found[0]

    def totals(self, trace: str | None = None) -> Totals:
        """Sum up what crossed, each way; of one answer, or of all."""
        which, values = ("", ()) if trace is None else ("WHERE trace = ? ", (trace,))
        sums = "count(*), sum(payload_bytes), sum(wire_bytes)"
        query = f"SELECT direction, destination, {sums} FROM entry {which}GROUP BY 1, 2"  # noqa: S608 (constants)
        totals = {"up": Traffic(), "down": Traffic(), "local": Traffic()}
        with self._lock:
            for direction, destination, *row in self._connection.execute(query, values):
                totals[direction] += Traffic(*row)
                if direction == "up" and is_loopback(destination.rpartition(":")[0]):
                    totals["local"] += Traffic(*row)
        return Totals(**totals)

    def answers(self, limit: int = 100, *, before_seq: int = _BEHIND_ALL) -> list[AnswerTraffic]:
        """Answers for which something crossed, the latest first.

        Args:
            limit: how many at most.
            before_seq: list answers whose last entry comes before this one.
        """
        found: dict[str, AnswerTraffic] = {}
        seen, at = set(), before_seq
        query = "SELECT seq, trace FROM entry WHERE seq < ? ORDER BY seq DESC LIMIT ?"
        while len(found) < limit:
            with self._lock:
                rows = list(self._connection.execute(query, (at, _PAGE)))
            if not rows:
                break
            at = rows[-1][0]
            for trace in dict.fromkeys(str(trace) for _, trace in rows if trace and trace not in seen):
                seen.add(trace)
                answer = self.answer(trace)
                if answer.last_seq < before_seq:  # else it stands on the page before
                    found[trace] = answer
        return list(found.values())[:limit]

    def answer(self, trace: str) -> AnswerTraffic:
        """What crossed for one answer.

        Raises:
            NotFound: if nothing did.
        """
        query = (
            "SELECT min(seq), max(seq), min(time), "
            "json_group_array(DISTINCT destination) FILTER (WHERE direction = 'up') FROM entry WHERE trace = ?"
        )
        with self._lock:
            ((first, last, time, destinations),) = self._connection.execute(query, (trace,))
        if first is None:
            raise NotFound(f"the ledger has no message of an answer {trace[:80]!r}; nothing was sent for it")
        return AnswerTraffic(trace, first, last, time, sorted(json.loads(destinations)), self.totals(trace))

    def verify(self) -> Verification:
        """Walk along the chain, up to the first entry that does not fit."""
        last, chain = 0, FIRST_PREVIOUS
        for entry in self._all():
            if reason := _misfit(entry, last, chain):
                return Verification(last, chain, entry.seq, reason)
            last, chain = entry.seq, entry.chain
        return Verification(last, chain)

    def export(self) -> Iterator[str]:
        """All entries, each as a line of JSON."""
        return (json.dumps(entry.as_dict(), ensure_ascii=False) for entry in self._all())

    def _all(self) -> Iterator[Entry]:
        after_seq = 0
        while page := self.entries(after_seq, _PAGE):
            yield from page
            after_seq = page[-1].seq


def _chain(*fields: str | int) -> str:
    """Hash over an entry's fields up to `trace`, with the hash of the entry before among them."""
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def _misfit(entry: Entry, last: int, chain: str) -> str:
    """Return what shows that an entry is not as it was written right after the one before; "" if nothing does."""
    if entry.seq != last + 1:
        return f"entry {last + 1} is missing"
    if entry.previous != chain:
        return "it does not follow the previous entry"
    fields = (getattr(entry, name) for name in _COLUMNS.split(", ")[:10])
    if entry.chain != _chain(*fields):
        return "its fields were changed"
    if (entry.payload is None) != (entry.direction == "down"):
        return "its message was removed or inserted"
    if entry.payload is not None and hashlib.sha256(entry.payload).hexdigest() != entry.sha256:
        return "its message was changed"
    return ""
