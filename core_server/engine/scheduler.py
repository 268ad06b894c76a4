"""Scheduler of an engine: whatever has arrived is computed next, and while nothing has, what probably will."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from core_server.catalogue.engine_messages import Advance, Begin, Command
from ssd2.algorithm.block_end import patience_from
from ssd2.algorithm.projection import ProjectedTokens
from ssd2.algorithm.sampler import SamplerKind, SeenBlock
from ssd2.algorithm.simplex_sampler import SimplexSampler
from ssd2.errors import ProtocolViolation
from ssd2.models.lane import BlockState, Lane, Row
from ssd2.wire.codec import OpenRequest

GROWTH_BATCHES = 256
"""After running out of memory, batches until one block more is computed together: memory may be free again, and to find
that it is not costs one batch in so many, and no answer."""


@dataclass(frozen=True)
class Result:
    """One computed timestep.

    Attributes:
        state: that was computed.
        greedy: the model's own choice of tokens, the core's first guess at a projection.
        fed_back: see `BlockState`.
    """

    state: BlockState
    greedy: ProjectedTokens
    fed_back: Tensor | None


@dataclass(kw_only=True, eq=False)
class Progress:
    """Progress of an answer: the state to compute next, and the results computed ahead of its agent.

    Attributes:
        request: how it is decoded.
        sampler: of the model's family, which guesses at projections.
        waiting: what has to be computed; None while the agent has the word.
        results: computed and not yet answered: the first for certain, each other one on a guess at the
            projection of the one before.
    """

    request: OpenRequest
    sampler: SamplerKind
    waiting: BlockState | None = field(default_factory=BlockState)
    results: deque[Result] = field(default_factory=deque)

    def advance(self, projected: ProjectedTokens, *, is_commit: bool) -> None:
        """Take in a projection. If it was guessed, what follows it is there already; else nothing guessed is of use.

        Raises:
            ProtocolViolation: if it answers logits that were computed on a wrong guess, before those that are due.
        """
        if not self.results:
            raise ProtocolViolation(
                "the agent replied to logits whose guess differs from the projection it had sent; it should drop them "
                "and wait for those that are due"
            )
        answered = self.results.popleft()
        following = self._after(answered, projected, is_commit=is_commit)
        if not self.results or self.results[0].state != following:
            self.results.clear()
            self.waiting = following

    # See docs/decisions/009-speculation.md.
    def guess(self) -> BlockState | None:
        """Return what probably has to be computed next; None if enough is guessed, or nothing can follow."""
        if self.waiting or not self.results or len(self.results) > self.request.speculation:
            return None
        last = self.results[-1]
        state, timesteps = last.state, self.request.timesteps
        guess = self.sampler.guess(
            SeenBlock(
                own=last.greedy,
                before=state.projected,
                ends_if_same=self._counts(state) and state.unchanged + 1 == self.request.patience,
                is_last=state.at.step == len(timesteps) - 1,
            )
        )
        if guess.is_commit and state.at.block == self.request.max_blocks - 1:
            return None
        return self._after(last, guess.projected, is_commit=guess.is_commit)

    def _counts(self, state: BlockState) -> bool:
        """Tell whether patience counts at a timestep; see `ssd2.algorithm.block_end`."""
        timesteps = self.request.timesteps
        return timesteps[state.at.step] <= patience_from(timesteps[-1] - 1, self.request.vocab_size)

    def _after(self, result: Result, projected: ProjectedTokens, *, is_commit: bool) -> BlockState:
        """Return where the answer stands after the projection of a timestep."""
        counts = self._counts(result.state)
        return result.state.after(projected, is_commit=is_commit, fed_back=result.fed_back, counts=counts)


@dataclass(kw_only=True, eq=False)
class Answer(Progress):
    """One answer in progress, in a slot.

    Attributes:
        number: of its session.
        lane: that computes it.
        slot: that it has there.
        scope: see `Row`.
    """

    number: int
    lane: Lane
    slot: int
    scope: str | None

    def row(self, state: BlockState) -> Row:
        """Its part of a batch."""
        return Row(self.slot, self.request, state, self.scope)


@dataclass(frozen=True)
class Batch:
    """Answers to be computed together.

    Attributes:
        lane: that computes them.
        answers: B of them.
        rows: what is computed of each.
        is_guessed: whether the rows' projections are guesses.
        logits: of the rows, [B, L, V]; None before they are computed.
    """

    lane: Lane
    answers: Sequence[Answer]
    rows: Sequence[Row]
    is_guessed: bool
    logits: Tensor | None = None

    @property
    def computed(self) -> Tensor:
        """The logits.

        Raises:
            RuntimeError: if they are not computed yet.
        """
        if self.logits is None:
            raise RuntimeError("the batch has no logits yet")
        return self.logits

    def halves(self) -> tuple[Batch, Batch]:
        """The first half of the rows, and the others."""
        middle = len(self.rows) // 2
        return self._part(slice(middle)), self._part(slice(middle, None))

    def singles(self) -> Iterator[Batch]:
        """Each row as a batch of its own."""
        return (self._part(slice(index, index + 1)) for index in range(len(self.rows)))

    def _part(self, which: slice) -> Batch:
        logits = None if self.logits is None else self.logits[which]
        return Batch(self.lane, self.answers[which], self.rows[which], self.is_guessed, logits)


@dataclass(frozen=True)
class Reading:
    """An answer with a long prompt, a part of which is to be read.

    Attributes:
        answer: whose it is.
        row: what is to be computed of it later.
        beside: whether there are other answers.
    """

    answer: Answer
    row: Row
    beside: bool


# See docs/decisions/008-batches.md.
class Scheduler:
    """The answers of an engine, in the order in which they wait.

    Attributes:
        slots: answers at a time.
        max_batch: blocks that are computed together at most.
    """

    def __init__(
        self, lanes: Mapping[str, Lane], slots: int, samplers: Mapping[str, SamplerKind] | None = None
    ) -> None:
        """Make a scheduler.

        Args:
            lanes: by the models' names, each with the same number of slots.
            slots: how many; more answers are never begun.
            samplers: of the models' families, by the models' names; `SimplexSampler` for one that is not there.
        """
        self._lanes, self.slots, self._samplers = lanes, slots, samplers or {}
        self._free = list(range(slots))
        self._answers: dict[int, Answer] = {}
        self.max_batch = slots
        self._batches_until_growth = GROWTH_BATCHES

    @property
    def slots_used(self) -> int:
        """Answers in progress."""
        return self.slots - len(self._free)

    @property
    def steps_waiting(self) -> int:
        """Timesteps that agents wait for."""
        return sum(answer.waiting is not None for answer in self._answers.values())

    def handle(self, command: Command) -> None:
        """Take in what the front end says; of an answer that has ended meanwhile, nothing matters.

        Raises:
            ProtocolViolation: if the agent of the command's answer broke the rules; the answer is still there.
        """
        if isinstance(command, Begin):
            lane = self._lanes[command.model]
            slot = self._free.pop()
            sampler = self._samplers.get(command.model, SimplexSampler)
            answer = Answer(
                number=command.session,
                lane=lane,
                slot=slot,
                request=command.request,
                scope=command.scope,
                sampler=sampler,
            )
            self._answers[command.session] = answer
        elif command.session not in self._answers:
            return
        elif isinstance(command, Advance):
            answer = self._answers.pop(command.session)
            self._answers[command.session] = answer  # those that wait longest come first
            answer.advance(command.projected, is_commit=command.is_commit)
        else:
            self.drop(command.session)

    def drop(self, session: int) -> bool:
        """End an answer and free its slot; False if it has ended already."""
        answer = self._answers.pop(session, None)
        if answer:
            answer.lane.forget(answer.slot)
            self._free.append(answer.slot)
        return answer is not None

    def shrink(self, blocks: int) -> None:
        """Compute at most half as many blocks together from now on.

        Args:
            blocks: that there was not enough memory for.
        """
        self.max_batch = max(1, min(self.max_batch, blocks // 2))
        self._batches_until_growth = GROWTH_BATCHES

    def grow_back(self) -> None:
        """Count a batch; after many of them, compute one more block together, until all are allowed again."""
        self._batches_until_growth -= 1
        if self._batches_until_growth <= 0:
            self._batches_until_growth = GROWTH_BATCHES
            self.max_batch = min(self.slots, self.max_batch + 1)

    def next_batch(self) -> Batch | None:
        """All that is waiting and can be one batch with what waits longest; else the same of guesses.

        Answers with a long prompt wait until enough of it is read, see `next_reading`.
        """
        waiting, beside = self._waiting(), len(self._answers) > 1
        due = [(answer, row) for answer, row in waiting if not answer.lane.is_long(row, beside=beside)]
        if due:
            return self._batch(due, is_guessed=False)
        return None if waiting else self._guesses()

    def next_reading(self) -> Reading | None:
        """Return an answer with a long prompt, a part of which is to be read between two batches.

        It goes to the end of the line: the others go on, and a short prompt need not wait until a long one is read.
        """
        beside = len(self._answers) > 1
        for answer, row in self._waiting():
            if answer.lane.is_long(row, beside=beside):
                self._answers[answer.number] = self._answers.pop(answer.number)
                return Reading(answer, row, beside)
        return None

    def _waiting(self) -> list[tuple[Answer, Row]]:
        return [(answer, answer.row(answer.waiting)) for answer in self._answers.values() if answer.waiting]

    def _guesses(self) -> Batch | None:
        guesses = [(answer, answer.row(guess)) for answer in self._answers.values() if (guess := answer.guess())]
        return self._batch(guesses, is_guessed=True) if guesses else None

    def _batch(self, rows: Sequence[tuple[Answer, Row]], *, is_guessed: bool) -> Batch:
        first, first_row = rows[0]
        kind = first.lane.kind(first_row)
        fitting = [(a, row) for a, row in rows if a.lane is first.lane and a.lane.kind(row) == kind][: self.max_batch]
        answers, batch_rows = zip(*fitting, strict=True)
        return Batch(first.lane, answers, batch_rows, is_guessed)
