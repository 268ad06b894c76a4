"""The engine: a process of its own that computes, and nothing else; or several, its ranks, that do so together.

Round after round it takes in what has arrived, computes one batch and reports. It ends when the front
end is gone, and the front end ends when it is.
"""

from __future__ import annotations

import logging
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from core_server.catalogue.distribution import SECONDS, SIZES, Tally
from core_server.catalogue.engine_messages import (
    Alive,
    Broken,
    Command,
    Computed,
    Failed,
    NotReady,
    Ready,
    Report,
    Start,
    receive,
    send,
)
from core_server.config import HEARTBEAT_S
from core_server.engine.lanes import SingleLane, lane_for
from core_server.engine.loaded_model import LoadedModel
from core_server.engine.loading import load_models
from core_server.engine.ranks import ALONE, Ranks, joined_ranks
from core_server.engine.scheduler import Batch, Reading, Result, Scheduler
from core_server.engine.self_test import finite_rows, self_test
from core_server.observability.logs import fields, frames, start_log
from ssd2.algorithm.projection import ProjectedTokens
from ssd2.errors import CoreBusy, ModelBroken, ProtocolViolation, SlingshotError
from ssd2.models.devices import is_out_of_memory
from ssd2.models.lane import Lane
from ssd2.models.registry import family_named
from ssd2.wire.tensors import pack_logits

_log = logging.getLogger(__name__)


class Inbox:
    """Commands as they arrive, read by a thread so that the front end never waits for a computation."""

    def __init__(self, connection: socket.socket) -> None:
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(connection,), name="engine-inbox", daemon=True).start()

    def take(self, *, wait_s: float) -> list[Command] | None:
        """All commands that have arrived, in order; None once the front end is gone.

        Args:
            wait_s: how long to wait for the first.
        """
        taken: list[Command] = []
        try:
            command = self._commands.get(block=wait_s > 0, timeout=wait_s or None)
            while command is not None:
                taken.append(command)
                command = self._commands.get_nowait()
        except queue.Empty:
            return taken
        return None

    def _read(self, connection: socket.socket) -> None:
        while (command := receive(connection)) is not None:
            if not isinstance(command, Start):  # which comes once, and before
                self._commands.put(command)
        self._commands.put(None)


# See docs/decisions/007-the-engine-is-a-process.md.
class Engine:
    """Models and the answers that are computed with them."""

    def __init__(
        self,
        models: Sequence[LoadedModel],
        slots: int,
        connection: socket.socket | None,
        ranks: Ranks = ALONE,
        *,
        compiled: bool = False,
    ) -> None:
        """Reserve the slots.

        Args:
            models: with different names; or this rank's shares of them.
            slots: answers at a time.
            connection: to the front end; None for all ranks but the first.
            ranks: this one and the others.
            compiled: whether the noise is compiled.
        """
        self._connection, self._ranks = connection, ranks
        self._inbox = Inbox(connection) if connection else None
        lanes = {model.name: lane_for(model.checkpoint.model, slots, compiled=compiled) for model in models}
        self._served = {lanes[model.name]: model.served for model in models}
        self._one_at_a_time = {name: lane.reason for name, lane in lanes.items() if isinstance(lane, SingleLane)}
        self._suspects: set[Lane] = set()
        samplers = {model.name: family_named(model.checkpoint.model.config.family).sampler for model in models}
        self._scheduler = Scheduler(lanes, slots, samplers)
        self._step_seconds, self._batch_size = Tally(SECONDS), Tally(SIZES)
        self._alive_due = 0.0

    def test_models(self) -> None:
        """Compute something with each model; what comes out is the same on every rank.

        Raises:
            ModelBroken: if one gives nothing that an answer can be made of.
        """
        for lane, served in self._served.items():
            self_test(lane, served, self._scheduler.slots)

    def run(self) -> None:
        """Say what is there, and go round until the front end is gone."""
        for name, reason in self._one_at_a_time.items() if self._ranks.is_first else ():
            _log.warning("answers of the model %s are computed one at a time, not in batches: %s", name, reason)
        self._report(Ready(tuple(self._served.values()), self._scheduler.slots, frozenset(self._one_at_a_time)))
        batch: Batch | None = None
        reading: Reading | None = None
        while (commands := self._commands(wait_s=0 if batch or reading else HEARTBEAT_S)) is not None:
            for command in commands:
                self._obey(command)
            batch = self._scheduler.next_batch()
            reading = self._scheduler.next_reading()
            if not (batch or reading) or time.monotonic() >= self._alive_due:
                self._report_alive()
            if batch:
                began = time.perf_counter()
                self._compute(batch)
                self._scheduler.grow_back()
                self._step_seconds.add(time.perf_counter() - began)
                self._batch_size.add(len(batch.rows))
            if reading:
                self._read(reading)
            self._test_suspects()

    def _report_alive(self) -> None:
        """Report the engine's state: whenever it has nothing to compute, and once in a heartbeat while it has."""
        self._alive_due = time.monotonic() + HEARTBEAT_S
        slots, waiting = (self._scheduler.slots_used, self._scheduler.slots), self._scheduler.steps_waiting
        self._report(Alive(*slots, waiting, self._step_seconds.taken(), self._batch_size.taken()))

    def _commands(self, wait_s: float) -> list[Command] | None:
        """Return the commands that have arrived, broadcast to all ranks, so that all go the same rounds."""
        return self._ranks.broadcast(self._inbox.take(wait_s=wait_s) if self._inbox else None)

    def _obey(self, command: Command) -> None:
        try:
            self._scheduler.handle(command)
        except ProtocolViolation as error:
            self._end(command.session, error)

    @torch.inference_mode()
    def _read(self, reading: Reading) -> None:
        """Read a part of a long prompt; an answer that fails at it ends."""
        try:
            reading.answer.lane.read(reading.row, beside=reading.beside)
        except Exception as error:
            if not self._can_go_on_after(error):
                raise
            self._end(reading.answer.number, error)

    @torch.inference_mode()
    def _compute(self, batch: Batch) -> None:
        """One timestep of some answers. What only their next one needs is computed while the agents are at theirs."""
        self._by_halves(batch, self._compute_logits)

    def _by_halves(self, batch: Batch, work: Callable[[Batch], None]) -> bool:
        """Do work on a batch or, if it fails, on each half of it: an answer that fails alone ends, and no other does.

        Returns:
            True if no answer failed.
        """
        try:
            work(batch)
        except Exception as error:
            if not self._can_go_on_after(error):
                raise
            if len(batch.rows) == 1:
                self._end(batch.answers[0].number, error)
                return False
            lacked_memory = is_out_of_memory(error)
        else:
            return True
        # Not in the handler: until it is left, the exception holds on to all that the failed attempt had in memory.
        first, second = (self._by_halves(half, work) for half in batch.halves())
        is_whole = first and second
        if lacked_memory and is_whole:  # else one row is too large by itself, which says nothing of the others
            self._scheduler.shrink(len(batch.rows))
            _log.warning("out of memory with a batch of %d blocks; batches are smaller from now on", len(batch.rows))
        return is_whole

    def _can_go_on_after(self, error: Exception) -> bool:
        if isinstance(error, torch.AcceleratorError):
            return False  # nothing that runs on the device afterwards can be trusted
        # Ours are about what was asked for, and so the same on every rank. Of others the other ranks, which may be
        # waiting for this one, know nothing.
        return isinstance(error, SlingshotError) or not self._ranks.shard

    def _compute_logits(self, batch: Batch) -> None:
        computed = replace(batch, logits=self._logits(batch))
        # From here on nothing of it is computed again: agents have been sent some.
        for one, is_finite in zip(computed.singles(), finite_rows(computed.computed), strict=True):
            self._by_halves(one, self._hand_out if is_finite else self._suspect)
        self._by_halves(computed, self._prepare_next)

    def _logits(self, batch: Batch) -> Tensor:
        """Compute a batch; a row that is not finite once more, alone and from nothing.

        The reason may be another's: what an answer left in the slot, or the padding beside a longer prompt.
        """
        logits = batch.lane.logits(batch.rows)
        if all(are_finite := finite_rows(logits)):
            return logits
        logits = logits.clone()  # a lane may write its next ones over its last ones
        for index, (row, is_finite) in enumerate(zip(batch.rows, are_finite, strict=True)):
            if not is_finite:
                batch.lane.clear(row.slot)
                logits[index] = batch.lane.logits([row])[0]
        return logits

    def _hand_out(self, batch: Batch) -> None:
        for answer, row, block_logits in zip(batch.answers, batch.rows, batch.computed, strict=True):
            guess = row.state.last_tokens(row.request.block_size) if batch.is_guessed else ()
            rows = block_logits[:, : answer.request.vocab_size]  # [L, V] of the smaller vocabulary
            packed = pack_logits(rows, answer.request.logits_format)
            self._report(Computed(answer.number, row.state.at, packed, guess))

    def _prepare_next(self, batch: Batch) -> None:
        greedy = batch.computed.argmax(-1).tolist()
        fed_back = batch.lane.feed_back(batch.rows, batch.computed)
        for answer, row, tokens, own in zip(batch.answers, batch.rows, greedy, fed_back, strict=True):
            answer.waiting = None
            answer.results.append(Result(row.state, ProjectedTokens(tuple(tokens)), own))

    def _suspect(self, batch: Batch) -> None:
        """End an answer whose logits are not finite: what its agent asked for may be the reason, or the model."""
        name = self._served[batch.lane].name
        _log.error("an answer ended: the model %s returned logits that are not finite", name)
        self._suspects.add(batch.lane)
        batch.lane.clear(batch.rows[0].slot)
        raise ModelBroken(f"the model {name} returned logits that are not finite; tell the core's provider")

    def _test_suspects(self) -> None:
        """Test models that have failed an answer: one that fails this too is reported as broken."""
        while self._suspects:
            lane = self._suspects.pop()
            served = self._served[lane]
            try:
                self_test(lane, served, self._scheduler.slots)
            except ModelBroken as error:
                _log.error("%s", error)
                self._report(Broken(served.name))
            except Exception as error:
                if not self._can_go_on_after(error):
                    raise
                _log.error("the self-test of the model %s failed with %s", served.name, type(error).__name__)

    def _end(self, session: int, error: Exception) -> None:
        """End an answer that cannot go on, unless it has ended already."""
        if not self._scheduler.drop(session):
            return
        if is_out_of_memory(error):
            _log.warning("out of memory with a single block; its answer has ended")
            error = CoreBusy("the core has run out of memory; ask again in a moment")
        elif not isinstance(error, SlingshotError):
            name = type(error).__name__
            _log.error("an answer failed with %s", name, extra=fields(error=name, frames=frames(error)))
        self._report(Failed(session, error if isinstance(error, SlingshotError) else None))

    def _report(self, report: Report) -> None:
        if self._connection:
            with suppress(OSError):  # the front end is gone: the inbox says so
                send(self._connection, report)


def main() -> None:
    """Run an engine, or a rank of it, for the front end that listens at the Unix socket given as the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the front end ends it
    address = Path(sys.argv[1])
    with joined_ranks(address.parent) as ranks, ExitStack() as stack:
        connection = None
        if ranks.is_first:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            try:
                connection.connect(str(address))
            except OSError:  # the front end was ended meanwhile: nobody is left to tell
                sys.exit(1)
        start = ranks.broadcast(receive(connection) if connection else None)
        if isinstance(start, Start):
            _run(start, connection, ranks)


def _run(start: Start, connection: socket.socket | None, ranks: Ranks) -> None:
    start_log("engine", start.log_level, start.log_format)
    torch.set_num_threads(start.threads)
    serving, device = ranks.bounded(start.timeout_s), start.devices[ranks.rank]
    models, refusal = list[LoadedModel](), None
    try:
        models = load_models(start, serving)
    except SlingshotError as error:
        refusal = error
    refusals = [error for error in ranks.gather(refusal) if error]
    if not refusals:
        serving.connect(device)
        try:
            engine = Engine(models, start.slots, connection, serving, compiled=start.compiled)
            engine.test_models()
        except SlingshotError as error:
            _log.error("%s", error)
            refusals = [error]
        else:
            engine.run()
    if refusals and connection:
        send(connection, NotReady(refusals[0]))


if __name__ == "__main__":
    main()
