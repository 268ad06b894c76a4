"""The entry that starts the agent at login: a unit of the user's systemd, or a launchd agent of macOS."""

from __future__ import annotations

import os
import plistlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from user_agent.errors import LoginItemRefused
from user_agent.store.tuned import config_folder

UNIT = "slingshot-agent.service"
LABEL = "slingshot.user-agent"
PASSED_ON = ("XDG_CONFIG_HOME", "XDG_DATA_HOME")
"""Variables that say where settings and data are: a login has not read the shell's own files."""

_PATIENCE_S = 60.0
"""A system's own time to stop an agent is 20 s."""


@dataclass(frozen=True)
class LoginItem:
    """One system's entry for the agent.

    Attributes:
        file: that the system reads at login.
        content: of the file.
        start: commands that make the system know it and start the agent, one after the other.
        stop: commands that stop the agent and make the system forget it.
        log: command that shows what the agent has printed.
    """

    file: Path
    content: bytes
    start: Sequence[Sequence[str]]
    stop: Sequence[Sequence[str]]
    log: Sequence[str]

    def install(self) -> None:
        """Write the file and start the agent; what was installed before is replaced. The agent must not run yet.

        Raises:
            LoginItemRefused: if the file cannot be written or the system takes it for no entry; then there is no file.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_bytes(self.content)
        except OSError as error:
            raise LoginItemRefused(f"cannot write {self.file}: {error.strerror}; check its folder") from error
        for command in self.start:
            if refused := _refusal(command):
                self.remove()
                failed = " ".join(command[:3])
                raise LoginItemRefused(f"{failed} failed: {refused}; start the agent in another way")

    def stop_agent(self) -> None:
        """Stop the agent that was started by the entry, if it runs."""
        _refusal(self.stop[0])

    def remove(self) -> bool:
        """Stop the agent, and take the file away.

        Returns:
            Whether there was one.

        Raises:
            LoginItemRefused: if the file cannot be removed.
        """
        was_there = self.file.exists()
        try:
            if was_there:
                _refusal(self.stop[0])
                self.file.unlink()
                for command in self.stop[1:]:
                    _refusal(command)
        except OSError as error:
            raise LoginItemRefused(f"cannot remove {self.file}: {error.strerror}; remove it yourself") from error
        return was_there


def login_item(platform: str = sys.platform, environment: Mapping[str, str] = os.environ) -> LoginItem:
    """Return the entry for this system.

    Args:
        platform: as `sys.platform` has it.
        environment: variables of the shell.

    Raises:
        LoginItemRefused: if the system has neither systemd nor launchd.
    """
    passed_on = {name: environment[name] for name in PASSED_ON if environment.get(name)}
    if platform.startswith("linux"):
        return _of_systemd(passed_on)
    if platform == "darwin":
        return _of_launchd(passed_on)
    raise LoginItemRefused(
        f"an agent cannot be installed on {platform} yet; add a shortcut to what starts with your programs (on Windows "
        "the folder shell:startup)"
    )


def _of_systemd(passed_on: Mapping[str, str]) -> LoginItem:
    base = Path(passed_on.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    template = files("user_agent.startup").joinpath(UNIT).read_text(encoding="utf-8")
    content = template.format(
        program=f"{_quoted(sys.executable)} -m user_agent",
        config_folder=str(config_folder()).replace("%", "%%"),
        environment="".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in passed_on.items()),
    )
    manage = ("systemctl", "--user")
    return LoginItem(
        base / "systemd/user" / UNIT,
        content.encode(),
        start=((*manage, "daemon-reload"), (*manage, "enable", UNIT), (*manage, "restart", UNIT)),
        stop=((*manage, "disable", "--now", UNIT), (*manage, "daemon-reload")),
        log=("journalctl", "--user", "--unit", UNIT),
    )


def _quoted(text: str) -> str:
    """Write a text as one word of a unit, in which % and $ begin other things."""
    for special, instead in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        text = text.replace(special, instead)
    return f'"{text}"'


def _of_launchd(passed_on: Mapping[str, str]) -> LoginItem:
    log = Path.home() / "Library/Logs/slingshot-agent.log"
    file, domain = Path.home() / f"Library/LaunchAgents/{LABEL}.plist", f"gui/{os.getuid()}"
    content = plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": [sys.executable, "-m", "user_agent", "serve"],
            "EnvironmentVariables": dict(passed_on),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ProcessType": "Background",
            "Umask": 0o077,
            "StandardOutPath": str(log),
            "StandardErrorPath": str(log),
        }
    )
    return LoginItem(
        file,
        content,
        start=(("launchctl", "bootstrap", domain, str(file)),),
        stop=(("launchctl", "bootout", f"{domain}/{LABEL}"),),
        log=("tail", "-f", str(log)),
    )


def _refusal(command: Sequence[str]) -> str:
    """Run one of the commands of an entry, and return why it failed; "" if it did not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)  # noqa: S603
    except OSError as error:
        return str(error.strerror)
    except subprocess.TimeoutExpired:
        return f"it took more than {_PATIENCE_S:.0f} seconds"
    lines = (done.stderr or done.stdout).strip().splitlines()
    return (lines[-1] if lines else f"exit code {done.returncode}") if done.returncode else ""
