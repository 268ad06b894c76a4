"""An answer's line over streams that break where they are told to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from ssd2.algorithm.projection import ProjectedTokens, StepPosition
from ssd2.errors import KeyRefused, ModelBroken, ModelMismatch, SlingshotError, TokenLimitReached
from user_agent.errors import CoreLost
from user_agent.line import patience
from user_agent.line.own_core import given_up
from user_agent.line.patience import Patience
from user_agent.line.resuming_stream import ResumingStream
from user_agent.line.status import line_closed

V, NEVER = 9, 99


class FakeStream:
    """Gives timestep numbers for logits, notes what it is told, and breaks at its n-th use."""

    logits_format = None
    bytes_up, bytes_down, guessed_rightly = 1, 10, 0

    def __init__(self, uses: int = NEVER, error: SlingshotError | None = None) -> None:
        self.uses, self.error = uses, error or CoreLost("gone")
        self.asked: list[StepPosition] = []
        self.told: list[tuple[StepPosition, tuple[int, ...], bool]] = []
        self.is_cancelled = self.is_closed = False

    def _use(self) -> None:
        if self.uses == 0:
            raise self.error
        self.uses -= 1

    async def logits(self, due: StepPosition) -> StepPosition:
        self._use()
        self.asked.append(due)
        return due

    async def tell(self, at: StepPosition, projected: ProjectedTokens, *, is_commit: bool) -> None:
        self._use()
        self.told.append((at, projected.token_ids, is_commit))

    async def close(self) -> None:
        self.is_closed = True

    def cancel(self) -> None:
        self.is_cancelled = True


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.0)


def reopening(*streams: FakeStream | SlingshotError) -> Callable[[], Awaitable[FakeStream]]:
    """Gives one after the other; an error is raised."""
    left = iter(streams)

    async def reopen() -> FakeStream:
        following = next(left)
        if isinstance(following, SlingshotError):
            raise following
        return following

    return reopen


async def decode(line: ResumingStream) -> list[StepPosition]:
    """Two blocks of three timesteps; gives what was given for logits."""
    given, number = [], 0
    for block in range(2):
        for step in range(3):
            at = StepPosition(number, block, step)
            given.append(await line.logits(at))
            if step < 2:
                await line.project(at, ProjectedTokens((block, step)))
            elif block == 0:
                await line.commit(at, [7, 8])
            number += 1
    await line.close()
    return given


UNBROKEN = [
    (StepPosition(0, 0, 0), (0, 0), False),
    (StepPosition(1, 0, 1), (0, 1), False),
    (StepPosition(2, 0, 2), (7, 8), True),
    (StepPosition(3, 1, 0), (1, 0), False),
    (StepPosition(4, 1, 1), (1, 1), False),
]


async def test_an_unbroken_stream_is_told_everything_once() -> None:
    stream = FakeStream()
    line = ResumingStream(stream, reopening(), Patience(0.0))
    given = await decode(line)
    assert stream.told == UNBROKEN
    assert [(at.block, at.step) for at in given] == [(b, s) for b in range(2) for s in range(3)]
    assert (line.resumed, stream.is_closed, stream.is_cancelled) == (0, True, False)


@pytest.mark.parametrize("uses", range(11))
async def test_wherever_a_stream_breaks_the_next_one_is_told_what_the_answer_is_made_of(uses: int) -> None:
    """Of a done block its commit, at its first timestep; of the one in the making every projection; each once."""
    first, second = FakeStream(uses), FakeStream()
    line = ResumingStream(first, reopening(second), Patience(60.0))
    given = await decode(line)
    assert [(at.block, at.step) for at in given] == [(b, s) for b in range(2) for s in range(3)], "no timestep is lost"
    assert line.resumed == 1
    assert first.is_cancelled
    assert second.is_closed
    blocks = [[tokens for at, tokens, _ in second.told if at.block == block] for block in range(2)]
    assert blocks[0] in ([(0, 0), (0, 1), (7, 8)], [(7, 8)])
    assert blocks[1] == [(1, 0), (1, 1)]
    assert [at.number for at, *_ in second.told] == list(range(len(second.told)))
    assert second.asked[: len(second.told)] == [at for at, *_ in second.told], "each answers logits that came before"
    assert {tokens for _, tokens, _ in first.told} <= {tokens for _, tokens, _ in UNBROKEN}
    assert (line.bytes_up, line.bytes_down) == (2, 20)


async def test_a_stream_that_breaks_during_replay_is_replaced_and_replayed_whole() -> None:
    broken, last = FakeStream(3), FakeStream()
    line = ResumingStream(FakeStream(9), reopening(CoreLost("not yet"), broken, last), Patience(60.0))
    await decode(line)
    assert broken.is_cancelled
    assert [tokens for _, tokens, _ in last.told] == [(7, 8), (1, 0), (1, 1)]
    assert line.resumed == 1


async def test_patience_is_whole_again_once_there_are_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two breaks that are further apart than it lasts, with an answer that goes on in between."""
    now = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])

    class SlowStream(FakeStream):
        async def logits(self, due: StepPosition) -> StepPosition:
            now[0] += 0.9
            return await super().logits(due)

    line = ResumingStream(SlowStream(3), reopening(SlowStream(5), SlowStream()), Patience(1.0))
    await decode(line)
    assert line.resumed == 2


async def test_without_patience_the_error_comes_at_once() -> None:
    line = ResumingStream(FakeStream(4), reopening(), Patience(0.0))
    with pytest.raises(CoreLost, match="gone"):
        await decode(line)


async def test_a_core_that_is_back_and_says_until_when_it_gives_no_more_is_what_is_told() -> None:
    line = ResumingStream(
        FakeStream(4), reopening(TokenLimitReached("ask again in 40 s", retry_after_s=40.0)), Patience(10.0)
    )
    with pytest.raises(TokenLimitReached, match="ask again in 40 s"):
        await decode(line)


@pytest.mark.parametrize(
    "error", [ModelMismatch("another"), KeyRefused("revoked"), line_closed("core:1"), given_up("the demo's core")]
)
async def test_what_waiting_does_not_mend_is_told_at_once(error: SlingshotError) -> None:
    line = ResumingStream(FakeStream(4), reopening(error), Patience(60.0))
    with pytest.raises(type(error)):
        await decode(line)


@pytest.mark.parametrize("uses", [4, 5], ids=["at logits", "at a projection"])
async def test_a_model_broken_mid_answer_is_told_at_once_where_no_replica_is_left(uses: int) -> None:
    line = ResumingStream(FakeStream(uses, ModelBroken("NaN")), reopening(), Patience(60.0))
    with pytest.raises(ModelBroken, match="NaN"):
        await decode(line)
    assert line.resumed == 0
