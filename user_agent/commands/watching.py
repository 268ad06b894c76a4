"""An answer in the terminal while it is made: its text, or every timestep of its blocks."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ssd2.errors import CoreError
from ssd2.models.tokenizer import Tokenizer
from user_agent.answering.answer import CommittedBlock, Observer, ProjectedBlock
from user_agent.commands.render import token_style
from user_agent.store.printable import printable


class TerminalObserver(Observer):
    """Shows what there is so far, on a terminal alone; gone when the answer is there.

    With `watch` also the block that is being denoised: a line a timestep, tokens that the timestep before had not in
    bold, those that the core alone would not have chosen underlined.
    """

    def __init__(self, tokenizer: Tokenizer, *, watch: bool) -> None:
        self._tokenizer, self._watches = tokenizer, watch
        self._text = Text("asking", style="dim")
        self._lines: list[Text] = []
        self._before: list[int] = []
        self._live = Live(console=Console(stderr=True, highlight=False), transient=not watch, refresh_per_second=12)

    def __enter__(self) -> TerminalObserver:
        self._live.__enter__()
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def waiting(self, error: CoreError, seconds: float) -> None:
        """Show what is wrong, until there is more of the answer."""
        said = Text(f"{printable(str(error))}; trying again in {seconds:.1f} s", style="dim")
        self._live.update(Group(*self._lines, self._text, said))

    def reading(self, done: int, total: int) -> None:
        """Show how far long prompts are read, until there is more of the answer."""
        self._live.update(Group(*self._lines, Text(f"reading {done:,} of {total:,} tokens", style="dim")))

    def projected(self, seen: ProjectedBlock) -> None:
        """A line for the timestep."""
        if self._watches:
            self._add(seen)
            self._show()

    def committed(self, seen: CommittedBlock) -> bool:
        """The answer so far."""
        self._before = []
        if self._watches:
            line = Text(f"{seen.block + 1:>2}  done  ", style="dim")
            for token in seen.tokens:
                line.append(printable(token.text), style=token_style(is_changed=token.is_changed))
            self._lines.append(line)
        self._text = Text(printable(seen.text))
        self._show()
        return True

    def _add(self, seen: ProjectedBlock) -> None:
        line = Text(f"{seen.block + 1:>2}  {seen.timestep:>4}  ", style="dim")
        for position, token_id in enumerate(seen.token_ids):
            is_new = position >= len(self._before) or self._before[position] != token_id
            style = f"{'bold' if is_new else 'not bold'} {'underline' if position in seen.unlike_core else ''}"
            line.append(printable(self._tokenizer.token_name(token_id)), style=style)
        self._before = list(seen.token_ids)
        self._lines.append(line)

    def _show(self) -> None:
        self._live.update(Group(*self._lines) if self._watches else self._text)
