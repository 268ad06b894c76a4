"""Three models for three ranges of timesteps, as one (§3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ssd2.errors import CheckpointInvalid, InvalidParameter
from ssd2.models.ssd2 import SSD2, SSD2Config
from ssd2.noise_schedule import EXPERT_RANGES, TRAINED_TIMESTEPS


@dataclass(frozen=True)
class ExpertsConfig(SSD2Config):
    """Shape of the experts, one for all, and what each is for.

    Attributes:
        ranges: shares of T, (above, up to], one an expert; each begins where the one before it ends,
            the last ends at 1.
    """

    ranges: tuple[tuple[float, float], ...] = EXPERT_RANGES

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            ranges = tuple((float(above), float(up_to)) for above, up_to in self.ranges)
        except (TypeError, ValueError) as error:
            raise CheckpointInvalid(f"ranges is {self.ranges!r}; it must be pairs of shares of T") from error
        borders = [*(above for above, _ in ranges), 1.0]
        in_range = all(0 <= border <= 1 for border in borders)
        if not ranges or not in_range or borders != sorted(set(borders)) or [up for _, up in ranges] != borders[1:]:
            raise CheckpointInvalid(f"ranges is {ranges}; they must follow one another and end at 1, such as 0.4-0.6")
        object.__setattr__(self, "ranges", ranges)  # JSON has lists

    @property
    def trained_above(self) -> float:
        """Share of T down to which there is an expert."""
        return self.ranges[0][0]

    @property
    def default_stop(self) -> float:
        """Share of T that a decode stops at, unless asked otherwise: where the experts end."""
        return self.trained_above


class TimeRangeExperts(nn.Module):
    """θ(0.4,0.6), θ(0.6,0.8) and θ(0.8,1.0): finetuned from one model, chosen by timestep while decoding."""

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
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
