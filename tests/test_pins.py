"""What `make setup` installs can be installed where the README says so."""

from __future__ import annotations

import tomllib
from importlib.metadata import distributions

from packaging.specifiers import SpecifierSet

from tests.end_to_end.conftest import ROOT


def test_every_installed_package_takes_the_oldest_python_that_is_promised() -> None:
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    takes = {f"{one.name} {one.version}": one.metadata.get("Requires-Python") or "" for one in distributions()}
    assert not {name for name, pythons in takes.items() if not SpecifierSet(pythons).contains(f"{promised}.0")}
