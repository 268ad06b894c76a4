"""The command line `ssd2`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from typing import Annotated

from ssd2.cli import evaluate, lab, measure, models
from ssd2.cli.help import App, version_option

app = App(help="Train, convert and measure diffusion language models.")
app.add_typer(models.app)
app.add_typer(measure.app)
app.add_typer(evaluate.app, name="evaluate", rich_help_panel="Measure")
app.add_typer(lab.app, name="lab", rich_help_panel="Research")


@app.callback()
def _ssd2(_version: Annotated[bool, version_option("ssd2")] = False) -> None:
    pass
