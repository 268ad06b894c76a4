"""Reading checks of links, one at a time, beside the agent's answers; nothing is sent for them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from ssd2.errors import SlingshotError
from user_agent.answering.reading_check import CheckReading, ReadingCheck
from user_agent.answering.user_model import UserModel
from user_agent.documents.collection import Collection

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LinkCheck:
    """State of the check of one link.

    Attributes:
        state: waiting for the documents, running, or done.
        user_model: that answers; None once the check is done, so that no other model than the agent's stays in memory.
        models: name of the models, as at the beginning of a sentence.
        system_prompt: of the answers.
        found: result so far.
        error: why it failed, or "".
    """

    state: Literal["waiting", "running", "done"]
    user_model: UserModel | None
    models: str
    system_prompt: str
    found: ReadingCheck = field(default_factory=ReadingCheck)
    error: str = ""

    @property
    def says(self) -> str:
        """The result in a sentence; empty before."""
        if self.error:
            return f"{self.models} could not be checked on these documents: {self.error}"
        return self.found.sentence(self.models) if self.state == "done" else ""


class LinkChecks:
    """Reading checks since the agent started."""

    def __init__(self, check: CheckReading | None = None) -> None:
        """Make an empty set of checks.

        Args:
            check: asks the questions; None checks nothing.
        """
        self._check = check
        self._found: dict[int, LinkCheck] = {}
        self._running: asyncio.Task[None] | None = None
        self._closing = threading.Event()

    def of(self, link_id: int) -> LinkCheck | None:
        """Return the check of a link; None if there is none."""
        return self._found.get(link_id)

    def begin(
        self, links: Iterable[int], library: Collection, user_model: UserModel, models: str, system_prompt: str
    ) -> None:
        """Check links as soon as their documents are read; again if they were checked before.

        Args:
            links: their ids.
            library: that has them.
            user_model: that answers.
            models: it, as at the beginning of a sentence.
            system_prompt: of its answers.
        """
        if self._check is None or user_model.model is None:
            return
        self._found |= {link: LinkCheck("waiting", user_model, models, system_prompt) for link in links}
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(self._check, library))

    async def close(self) -> None:
        """Cancel the check that is running and those that wait."""
        self._closing.set()
        if self._running:
            self._running.cancel()
            await asyncio.wait({self._running})

    async def _run(self, check: CheckReading, library: Collection) -> None:
        while due := [link for link, one in self._found.items() if one.state == "waiting"]:
            link, asked = due[0], self._found[due[0]]
            self._found[link] = running = replace(asked, state="running")
            try:
                found = await asyncio.to_thread(self._checked, check, library, link, running)
                done = replace(running, state="done", user_model=None, found=found)
            except SlingshotError as error:
                done = replace(running, state="done", user_model=None, error=str(error))
            except Exception:  # whatever it is, the other links go on
                _log.exception("the reading check of link %d failed", link)
                done = replace(running, state="done", user_model=None, error="the check failed; see the agent's log")
            if self._found[link].user_model is asked.user_model and self._found[link].state == "running":
                self._found[link] = done  # else other models are due by now

    def _checked(self, check: CheckReading, library: Collection, link: int, running: LinkCheck) -> ReadingCheck:
        if (user_model := running.user_model) is None:
            return running.found
        library.sync()  # waits for the one that reads the link; then there is little to do

        def goes_on(found: ReadingCheck) -> bool:
            now = self._found[link]
            if is_ours := now.state == "running" and now.user_model is user_model:
                self._found[link] = replace(running, found=found)
            return is_ours and not self._closing.is_set()

        return check(user_model, library.sample({link}), goes_on, system_prompt=running.system_prompt)
