"""Agents that ask one question after another, and hold every answer against the one that they had in quiet."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ssd2.algorithm.params import CollaborationParams, Seeds
from ssd2.errors import SlingshotError
from tests.bench.asked import asked_items
from user_agent.answering.answer import CommittedBlock, Observer
from user_agent.answering.decoding import decoding_for
from user_agent.answering.request import AnswerSettings
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

CORE_ALONE = CollaborationParams(lambda_user=0.0)
"""The user model takes no part: what is under load is the core."""

QUESTIONS = 8
LEAVES_EVERY = 8


@dataclass
class Outcome:
    """What became of the questions so far.

    Attributes:
        answers: that came to their end.
        left: that their agents left in the middle, on purpose.
        wrong: answers with other tokens than in quiet.
        resumed: breaks that answers went on after.
        errors: answers that were lost, by the error's code; an exception of no kind of ours by its class.
    """

    answers: int = 0
    left: int = 0
    wrong: int = 0
    resumed: int = 0
    errors: Counter[str] = field(default_factory=Counter)


class Load:
    """Many agents, each with a line of its own.

    Attributes:
        outcome: so far.
    """

    def __init__(self, address: str, user: Path, sessions: int, max_tokens: int) -> None:
        """Make them.

        Args:
            address: of the core, or of its replicas.
            user: folder of a user model of the core's family.
            sessions: agents.
            max_tokens: longest answer.
        """
        self._address, self._sessions = address, sessions
        self._user_model = UserModel.load(user, with_weights=False)
        params = decoding_for(AnswerSettings(max_tokens=max_tokens), self._user_model.config)
        self._questions = [
            Question(item.question, (), CORE_ALONE, params, Seeds.reproducible(number), speculation=number % 3)
            for number, item in enumerate(asked_items(QUESTIONS))
        ]
        self.outcome = Outcome()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask until the block is left; what is being answered then comes to its end."""
        async with CoreClient(self._address, Ledger.in_memory()) as client:
            quiet = [await Agent(self._user_model, client).answer(question) for question in self._questions]
        self._expected = [[token.token_id for token in answer.tokens] for answer in quiet]
        self._is_over = False
        asking = [asyncio.create_task(self._ask(number)) for number in range(self._sessions)]
        try:
            yield
        finally:
            self._is_over = True
            await asyncio.gather(*asking)

    async def _ask(self, number: int) -> None:
        asked = number
        async with CoreClient(self._address, Ledger.in_memory()) as client:
            while not self._is_over:
                await self._one(client, asked % QUESTIONS, leaves=asked % LEAVES_EVERY == LEAVES_EVERY - 1)
                asked += 1

    async def _one(self, client: CoreClient, which: int, *, leaves: bool) -> None:
        leaver = _Leaver() if leaves else None
        answering = asyncio.create_task(Agent(self._user_model, client).answer(self._questions[which], leaver))
        if leaver:
            leaver.answering = answering
        try:
            answer = await answering
        except asyncio.CancelledError:
            if leaver is None:
                raise
            self.outcome.left += 1
        except SlingshotError as error:
            self.outcome.errors[error.code] += 1
        except Exception as error:
            self.outcome.errors[type(error).__name__] += 1
        else:
            self.outcome.answers += 1
            self.outcome.resumed += answer.resumed
            self.outcome.wrong += [token.token_id for token in answer.tokens] != self._expected[which]


class _Leaver(Observer):
    """Somebody who has seen enough after the first block, and is gone without a word."""

    answering: asyncio.Task[object]

    def committed(self, seen: CommittedBlock) -> bool:
        del seen
        self.answering.cancel()
        return True
