"""`user-agent install` and `user-agent uninstall`: start at login. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ssd2.cli.help import examples
from user_agent.config import SETTINGS, AgentConfig, load_config, set_by_variables
from user_agent.errors import LoginItemRefused

INSTALL_EXAMPLES = examples("user-agent install", "user-agent install --dry-run   (print what it would do)")
UNINSTALL_EXAMPLES = examples("user-agent uninstall")

START_S = 60.0
"""An agent answers before it has loaded its models."""


def install(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the file and the commands.")] = False,
) -> None:
    """Start the agent now and at every login, with the settings of config.toml.

    Uses the user's own systemd on Linux and launchd on macOS, without administrator rights. Run it again after moving
    or updating the program; `user-agent uninstall` undoes it.
    """
    from user_agent.startup.login_item import login_item

    item = login_item()
    if dry_run:
        commands = "\n".join(" ".join(command) for command in item.start)
        typer.echo(f"# {item.file}\n{item.content.decode()}\n# then\n{commands}")
        return
    config = _config_at_login()
    item.stop_agent()
    _check_free(config)
    item.install()
    log = " ".join(item.log)
    typer.echo(f"user-agent: starts at every login by {item.file}")
    typer.echo(f"  page      {_awaited(config, log)}/   key: `user-agent config show --page-key`")
    typer.echo(f"  log       {log}")
    typer.echo("  undo      user-agent uninstall")


def uninstall() -> None:
    """Stop the agent that `user-agent install` started, and do not start it at login. Deletes no data or setting."""
    from user_agent.startup.login_item import login_item

    item = login_item()
    typer.echo(f"user-agent: {'stopped; removed' if item.remove() else 'not installed; there is no'} {item.file}")


def _config_at_login() -> AgentConfig:
    """Load the configuration, and say which of this shell's variables an agent started at login will not have."""
    config = load_config()
    for name in sorted(set_by_variables()):
        variable = SETTINGS[name].variable
        typer.echo(
            f"user-agent: warning: {variable} is set in this shell only; for the agent that starts at login use "
            f"`user-agent config set {name} VALUE`",
            err=True,
        )
    return config


def _check_free(config: AgentConfig) -> None:
    """Check that no other agent has the data folder, which the one started at login would need.

    Raises:
        StoreInUse: if one does; says where it answers.
    """
    from user_agent.store.data_folder import held_data_folder

    with held_data_folder(config.data_dir):
        pass


def _awaited(config: AgentConfig, log: str) -> str:
    """Wait until the started agent answers, and return where.

    Raises:
        LoginItemRefused: if it does not.
    """
    from user_agent.store.data_folder import holder_url

    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if url := holder_url(config.data_dir):
            return url
        time.sleep(0.1)
    raise LoginItemRefused(f"the agent was started, but does not answer after {START_S:.0f} seconds; see why: {log}")
