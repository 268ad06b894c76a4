"""The models that a server hosts, and which of them a request is for."""

from __future__ import annotations

from collections.abc import Sequence

from core_server.catalogue.served_model import ServedModel
from ssd2.errors import InvalidParameter, ModelMismatch


class HostedModels:
    """Loaded models under different names, the first one the default."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        """Host models.

        Args:
            models: at least one, with different names.

        Raises:
            InvalidParameter: if there is none.
        """
        if not models:
            raise InvalidParameter("there is no model to host; give at least one")
        self._models = tuple(models)

    def find(self, name: str, family: str) -> ServedModel:
        """The first model that fits.

        Args:
            name: of the model, or "" for any.
            family: of the model, or "" for any.

        Raises:
            ModelMismatch: if none fits; says which there are.
        """
        for served in self._models:
            if name in ("", served.name) and family in ("", served.card.family):
                return served
        # What the agent sent is not repeated: it may be of any length.
        raise ModelMismatch(f"no model hosted here is of the name and family asked for; there are: {self}")

    def __str__(self) -> str:
        """Names and families, in order."""
        return ", ".join(f"{served.name} ({served.card.family})" for served in self._models)
