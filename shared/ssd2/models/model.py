"""A network of any family."""

from __future__ import annotations

from torch import nn

from ssd2.models.configs import ModelConfig


class Model(nn.Module):
    """A network of any family.

    Attributes:
        config: its shape; the family's name is one of its fields.
    """

    config: ModelConfig
