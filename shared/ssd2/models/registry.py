"""The families of models, in one place. To add one, write its file and add its line here.

A family's file defines `FAMILY`, a `ssd2.models.family.Family`, and is imported when the first model is looked for: to
know the names takes no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    from ssd2.models.family import Family

MODULES = [
    "ssd2.models.ssd2_family",
    "ssd2.models.ssd_lm",
    "ssd2.models.autoregressive",  # reads what no other family claims
]
"""Of the families; a checkpoint is of the first that claims it."""


def families() -> list[Family]:
    """Return the records of all families."""
    return [import_module(name).FAMILY for name in MODULES]


def family_named(name: str) -> Family:
    """Find a family, as a model's config names it.

    Raises:
        InvalidParameter: if there is none of that name.
    """
    for family in families():
        if family.name == name:
            return family
    known = ", ".join(family.name for family in families())
    raise InvalidParameter(f"there is no model family {name!r}; there are: {known}")


def family_of_folder(folder: Path, values: Mapping[str, Any]) -> Family:
    """Find the family of a checkpoint.

    Args:
        folder: of the checkpoint.
        values: of its config.json.
    """
    return next(family for family in families() if family.claims(folder, values))
