"""The command line for models. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import typer

from ssd2.cli import evaluate, models
from ssd2.cli.cad import EXAMPLES, cad

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Make and measure SSD-2 models."
)
app.add_typer(models.app)
app.command(epilog=EXAMPLES)(cad)
app.add_typer(evaluate.app, name="evaluate")
