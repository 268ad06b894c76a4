"""Three models for three ranges of timesteps, as one (§3.1)."""

from __future__ import annotations

from torch import nn

from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS
from ssd2.errors import InvalidParameter
from ssd2.models.configs import ExpertsConfig
from ssd2.models.model import Model
from ssd2.models.ssd2 import SSD2


class TimeRangeExperts(Model):
    """θ(0.4,0.6), θ(0.6,0.8) and θ(0.8,1.0): finetuned from one model, chosen by timestep while decoding."""

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        self.config: ExpertsConfig = config
        self.experts = nn.ModuleList(SSD2(config) for _ in config.ranges)

    def at(self, timestep: int) -> SSD2:
        """The expert for a timestep.

        Raises:
            InvalidParameter: if there is none.
        """
        for (above, up_to), expert in zip(self.config.ranges, self.experts, strict=True):
            if above < timestep / TRAINED_TIMESTEPS <= up_to and isinstance(expert, SSD2):
                return expert
        raise InvalidParameter(
            f"there is no expert for timestep {timestep}; these begin above {self.config.trained_above:g}T: stop the "
            "decode there"
        )
