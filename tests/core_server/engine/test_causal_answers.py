"""Whole answers of a causal network: the same tokens alone, among others, with guesses and without."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from core_server.catalogue.engine_messages import Advance, Begin, Command, Computed, End, Failed, Ready, Report
from core_server.engine.loaded_model import LoadedModel
from core_server.engine.process import Engine
from ssd2.algorithm.projection import FIRST, ProjectedTokens, StepPosition
from ssd2.models.autoregressive import AutoregressiveLM
from ssd2.models.causal_lane import ON_CPU, CausalLane
from ssd2.wire.tensors import unpack_logits
from tests.core_server.conftest import serve_in_memory
from tests.core_server.engine.test_lanes import request
from tests.ssd2.models.test_causal_lane import REFUSED, TAKEN, VOCAB, alone, model_of, prompt

TOKENS = 8
PART = ON_CPU.beside


class Agents:
    """An engine's front end with agents that are as fast as it: each commits the likeliest token, or now and then
    another one, by a rule of its own, so that guesses are right and wrong.

    Attributes:
        answers: token ids by session.
        reports: sessions whose logits came, in order.
        failed: what ended an answer, by session.
        ready: the engine's first word.
        waits_s: how long the engine would have waited for a command, by round.
        parts: how many reports there had been when each part of a long prompt was read.
    """

    def __init__(self, model: LoadedModel, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[int, tuple[int, ...]] = {}
        self.reports: list[int] = []
        self.failed: dict[int, Failed] = {}
        self.parts: list[int] = []
        self.waits_s: list[float] = []
        self.ready: Ready | None = None
        self._commands = deque[Command]()
        self._due: dict[int, StepPosition] = {}
        self._engine = Engine([model], slots, None)
        monkeypatch.setattr(self._engine, "_report", self._take)
        monkeypatch.setattr(self._engine, "_commands", self._sent)
        read = self._engine._read

        def spied(reading: Any) -> None:
            self.parts.append(len(self.reports))
            read(reading)

        monkeypatch.setattr(self._engine, "_read", spied)

    def answer(self, prompts: Sequence[tuple[int, ...]], speculation: int = 0) -> list[tuple[int, ...]]:
        """Ask for an answer to each prompt, all at once."""
        for session, prompt_ids in enumerate(prompts):
            asked = request(
                prompt_ids=prompt_ids,
                vocab_size=VOCAB,
                block_size=1,
                timesteps=(1,),
                max_blocks=TOKENS,
                speculation=speculation,
            )
            self.answers[session], self._due[session] = (), FIRST
            self._commands.append(Begin(session, "tiny", asked))
        self._engine.run()
        return [self.answers[session] for session in range(len(prompts))]

    def _sent(self, wait_s: float) -> list[Command] | None:
        """The commands since the last round; None when every answer is at its end."""
        self.waits_s.append(wait_s)
        taken = list(self._commands)
        self._commands.clear()
        return taken if taken or self._due else None

    def _take(self, report: Report) -> None:
        if isinstance(report, Ready):
            self.ready = report
        if isinstance(report, Failed):
            self.failed[report.session] = report
            self._due.pop(report.session)
        if not isinstance(report, Computed) or self._due.get(report.session) != report.at:
            return
        session, answer = report.session, self.answers[report.session]
        if report.guess and report.guess != answer[-1:]:
            return
        self.reports.append(session)
        token = chosen(answer, int(unpack_logits(report.logits).values[0, 0].argmax()))
        self.answers[session] = (*answer, token)
        if len(answer) + 1 == TOKENS:
            self._due.pop(session)
            self._commands.append(End(session))
        else:
            self._due[session] = report.at.after(is_commit=True)
            self._commands.append(Advance(session, ProjectedTokens((token,)), True))


def chosen(answer: tuple[int, ...], likeliest: int) -> int:
    """Token that an agent commits: the core's choice, but for a third of the cases."""
    draw = random.Random(hash((answer, likeliest)))
    return likeliest if draw.random() < 0.67 else draw.randrange(3, VOCAB)


@cache
def network(name: str) -> AutoregressiveLM:
    return model_of(TAKEN[name])


@cache
def expected(name: str, prompt_ids: tuple[int, ...]) -> tuple[int, ...]:
    answer: tuple[int, ...] = ()
    while len(answer) < TOKENS:
        answer += (chosen(answer, int(alone(network(name), prompt_ids, *answer).argmax())),)
    return answer


PROMPTS = [prompt(length, seed) for seed, length in enumerate((2, 1, 7, 300, 18, 5, 90, 33))]


@pytest.mark.parametrize("speculation", [0, 4])
@pytest.mark.parametrize("name", ["llama", "qwen3", "opt", "gemma"])
def test_tokens_are_the_same_alone_and_8_at_once(name: str, speculation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = serve_in_memory(network(name))
    together = Agents(model, 8, monkeypatch).answer(PROMPTS, speculation)
    assert together == [expected(name, prompt_ids) for prompt_ids in PROMPTS]
    for prompt_ids in (PROMPTS[3], PROMPTS[2]):
        assert Agents(model, 8, monkeypatch).answer([prompt_ids], speculation) == [expected(name, prompt_ids)]


def test_others_go_on_between_the_parts_of_a_long_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = Agents(serve_in_memory(network("llama")), 4, monkeypatch)
    agents.answer([prompt(2), prompt(PART * 6), prompt(3)])
    assert agents.parts == [1, 2, 4, 6, 8], "once both have begun, each gets a token after every part"


def test_a_shorter_prompt_does_not_wait_until_a_longer_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = Agents(serve_in_memory(network("llama")), 4, monkeypatch)
    agents.answer([prompt(PART * 8), prompt(PART * 2)])
    assert agents.reports[: TOKENS - 2] == [1] * (TOKENS - 2)


def test_an_engine_does_not_wait_for_commands_between_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = Agents(serve_in_memory(network("llama")), 1, monkeypatch)
    agents.answer([prompt(ON_CPU.alone + 50)])
    assert (agents.parts, agents.waits_s[1]) == ([0], 0)


def test_a_long_prompt_that_cannot_be_read_ends_its_own_answer_only(monkeypatch: pytest.MonkeyPatch) -> None:
    read = CausalLane.read

    def failing(lane: CausalLane, row: Any, *, beside: bool) -> None:
        if len(row.request.prompt_ids) == PART * 6:
            raise MemoryError
        read(lane, row, beside=beside)

    monkeypatch.setattr(CausalLane, "read", failing)
    agents = Agents(serve_in_memory(network("llama")), 4, monkeypatch)
    short, long = prompt(2), prompt(PART * 4)
    assert agents.answer([short, prompt(PART * 6), long]) == [expected("llama", short), (), expected("llama", long)]
    assert list(agents.failed) == [1]


def test_a_network_that_is_served_one_answer_at_a_time_is_reported_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    agents = Agents(serve_in_memory(model_of(REFUSED["hybrid"])), 2, monkeypatch)
    assert [len(answer) for answer in agents.answer([prompt(3), prompt(5)])] == [TOKENS, TOKENS]
    assert agents.ready
    assert agents.ready.one_at_a_time == {"tiny"}
    assert "model tiny are computed one at a time, not in batches: its layers keep more than keys" in caplog.text


def test_a_network_that_is_served_in_batches_is_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    agents = Agents(serve_in_memory(network("llama")), 2, monkeypatch)
    agents.answer([prompt(3)])
    assert agents.ready
    assert not agents.ready.one_at_a_time
    assert not caplog.records
