"""`user-agent serve`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import typer

from ssd2.cli.help import examples
from user_agent.commands.setting_options import LINE, Given, with_settings

if TYPE_CHECKING:
    from user_agent.api.state import AppState

EXAMPLES = examples(
    "user-agent serve   (the demo's two models, everything on this machine)",
    "user-agent serve --core core.example.org:50051 --ca provider.pem",
    'curl http://127.0.0.1:8642/v1/models -H "Authorization: Bearer $SLINGSHOT_API_KEY"',
)


@with_settings("pair", *LINE, "host", "port", "data_dir", "device", "precision", "max_answers", "max_waiting")
def serve(given: Given) -> None:
    """Run the agent: a page for the browser, and a REST endpoint for OpenAI clients.

    `user-agent config show` lists all settings.
    """
    from user_agent.serve import serve as run

    asyncio.run(run(_announce, **given))


def _announce(url: str, state: AppState) -> None:
    """Print where the agent is. The key stands behind #, which no browser sends; only a terminal shows it, no log."""
    from user_agent.documents.extraction import exposure_warning
    from user_agent.line.line import how_protected

    line = state.line
    core = line.address and f"{line.address}, {how_protected(state.config, line.address)}"
    if line.own_title:
        core = f"{line.address}, {line.own_title}, started on this machine"
    typer.echo(f"user-agent: listening on {url}")
    keys = state.keys if sys.stdout.isatty() else None
    page = f"#key={keys.page}" if keys else "   key (print it with `user-agent config show --page-key`)"
    typer.echo(f"  page      {url}/{page}")
    typer.echo(
        f"  REST      {url}/v1   key {keys.client if keys else '(print it with `user-agent config show --key`)'}"
    )
    typer.echo(f"  core      {core or 'none: only the user model answers (λ 1)'}")
    typer.echo(f"  data      {state.config.data_dir}, encrypted with a key from: {state.stores.key_source}")
    if exposure := state.stores.documents.exposure():
        typer.echo(f"user-agent: warning: {exposure_warning(exposure)}", err=True)
