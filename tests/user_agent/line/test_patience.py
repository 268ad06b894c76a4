"""How long an agent waits before it asks a core again, and until when it does."""

from __future__ import annotations

import asyncio

import pytest

from ssd2.errors import CoreBusy, CoreError, CoreTimeout, TokenLimitReached
from user_agent.errors import CoreLost, CoreUnavailable
from user_agent.line import patience as patience_module
from user_agent.line.patience import FIRST_DELAY_S, LONGEST_DELAY_S, Patience


class Clock:
    """Goes on while somebody sleeps, and then alone."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience_module.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(asyncio, "sleep", clock.sleep)
    return clock


def busy(seconds: float) -> CoreBusy:
    error = CoreBusy("full")
    error.retry_after_s = seconds
    return error


async def test_waits_grow_to_a_longest_one_and_no_two_agents_wait_alike(clock: Clock) -> None:
    others = []
    for _ in range(2):
        patience = Patience(1e9)
        for _ in range(12):
            await patience.wait(CoreTimeout("silent"))
        others.append(clock.slept[-12:])
    for slept in others:
        longest = [min(FIRST_DELAY_S * 2**n, LONGEST_DELAY_S) for n in range(12)]
        assert all(bound / 2 <= waited <= bound for waited, bound in zip(slept, longest, strict=True))
    assert others[0] != others[1]


async def test_what_the_core_says_is_waited_for_at_least(clock: Clock) -> None:
    for _ in range(50):
        await Patience(1e9).wait(busy(4.0))
    assert all(4.0 <= waited <= 6.0 for waited in clock.slept)
    assert max(clock.slept) - min(clock.slept) > 0.1, "so that not all come back at once"


async def test_no_try_begins_once_the_time_is_over_and_the_first_failure_is_what_is_told(clock: Clock) -> None:
    patience, first = Patience(10.0), CoreLost("gone")
    await patience.wait(first)

    async def wait_on() -> None:
        while True:
            await patience.wait(CoreTimeout("silent"))

    with pytest.raises(CoreLost) as raised:
        await wait_on()
    assert raised.value is first
    assert 8.0 <= clock.now < 10.0


async def test_a_core_that_says_longer_than_the_time_there_is_is_not_waited_for(clock: Clock) -> None:
    with pytest.raises(CoreBusy):
        await Patience(10.0).wait(busy(60.0))
    assert clock.slept == []


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        ([CoreLost("gone"), TokenLimitReached("ask again in 40 s", retry_after_s=40.0)], TokenLimitReached),
        ([CoreLost("gone"), busy(1.0), CoreUnavailable("away"), CoreLost("gone"), CoreTimeout("silent")], CoreBusy),
        ([busy(1.0), TokenLimitReached("ask again in 40 s", retry_after_s=40.0)], TokenLimitReached),
        ([CoreTimeout("silent"), CoreLost("gone"), CoreUnavailable("away")], CoreTimeout),
    ],
)
async def test_the_last_refusal_with_a_retry_time_is_raised_before_the_first_failure(
    clock: Clock, failures: list[CoreError], told: type[CoreError]
) -> None:
    patience = Patience(10.0)

    async def fail() -> None:
        for error in (*failures, *[failures[-1]] * 20):
            await patience.wait(error)

    with pytest.raises(told) as raised:
        await fail()
    assert raised.value in failures


async def test_after_a_success_the_time_and_the_waits_begin_anew(clock: Clock) -> None:
    patience = Patience(1.0)
    for _ in range(30):
        await patience.wait(CoreLost("gone"))
        patience.restore()
    assert clock.now > 1.0
    assert max(clock.slept) <= FIRST_DELAY_S


async def test_each_wait_is_told(clock: Clock) -> None:
    told = []
    await Patience(10.0, lambda *what: told.append(what)).wait(error := CoreLost("gone"))
    assert told == [(error, clock.slept[0])]
