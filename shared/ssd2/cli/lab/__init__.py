"""`ssd2 lab`: measurements for studies."""

from __future__ import annotations

from ssd2.cli.help import App
from ssd2.cli.lab import cad, dynamics, judge, text, votes

app = App(
    help="Experiments and measurements for studies: context-aware decoding, text metrics, an LLM judge, blind votes."
)
app.command(epilog=text.EXAMPLES)(text.text)
app.command(epilog=judge.EXAMPLES)(judge.judge)
app.add_typer(votes.app, name="votes")
app.command(epilog=dynamics.EXAMPLES)(dynamics.dynamics)
app.command(epilog=cad.EXAMPLES)(cad.cad)
