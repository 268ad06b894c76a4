"""Decoding settings that a checkpoint was measured with, and those of two checkpoints that decode together."""

from __future__ import annotations

from dataclasses import dataclass

from ssd2.algorithm.timesteps import DEFAULT_STEPS, TRAINED_TIMESTEPS, decoding_timesteps
from ssd2.errors import InvalidParameter

CROSSING = ("own", "projection")
"""Modes of self-conditioning that can cross the trust boundary; "mixed" would show the core the user's logits."""


# See docs/decisions/055-measured-settings.md.
@dataclass(frozen=True)
class MeasuredDecoding:
    """A checkpoint's own decoding settings; None where nothing was measured.

    Attributes:
        stop: share of T that a decode stops at; 0 unless trained or measured otherwise.
        steps: timesteps of a block.
        patience: see `DecodingParams.patience`, in so many timesteps; 0 ends no block early.
        self_conditioning: one of `CROSSING`.
    """

    stop: float = 0.0
    steps: int | None = None
    patience: int | None = None
    self_conditioning: str | None = None

    @property
    def problem(self) -> str:
        """The first setting that cannot be, in words; empty if all can be."""
        if type(self.stop) not in (int, float) or not 0 <= self.stop < 1:
            return f"stop is {repr(self.stop)[:40]}; it must be a share of T in [0, 1)"
        if self.steps is not None and not (_is_count(self.steps, 1) and _has_room(self.steps, self.stop)):
            return f"steps is {repr(self.steps)[:40]}; it must be a number of timesteps with room above {self.stop:g}T"
        if self.patience is not None and not _is_count(self.patience, 0):
            return f"patience is {repr(self.patience)[:40]}; it must be a whole number of at least 0"
        if self.self_conditioning not in (None, *CROSSING):
            return f"self_conditioning is {repr(self.self_conditioning)[:40]}; choose from {', '.join(CROSSING)}"
        return ""

    def patience_in(self, steps: int) -> int | None:
        """Return the patience for a number of timesteps, in proportion to those that it was measured in.

        Returns:
            In timesteps; 0 if no block ends early, None if that was not measured.
        """
        return None if self.patience is None else in_proportion(self.patience, self.steps or DEFAULT_STEPS, steps)


UNMEASURED = MeasuredDecoding()
"""Of a checkpoint of which nothing is known."""


def in_proportion(patience: int, of_steps: int, steps: int) -> int:
    """Return the patience in other timesteps: the closer they are, the less each can change, so more have to agree.

    Never fewer than 2 where 2 or more were asked for: a pair may come to the same tokens twice by chance.

    Args:
        patience: in `of_steps` timesteps; 0 for none.
        of_steps: timesteps that it is for.
        steps: timesteps that it is wanted for.
    """
    return max(min(2, patience), patience * steps // of_steps)


def of_pair(core: MeasuredDecoding, user: MeasuredDecoding) -> MeasuredDecoding:
    """Return the settings that two checkpoints are decoded with together.

    The higher stop, since below its stop a checkpoint may know little. Otherwise the core's, which was measured
    together with a user model; timesteps and patience from one checkpoint, since patience counts timesteps.
    """
    counted = user if core.steps is None else core
    fed_back = core.self_conditioning or user.self_conditioning
    return MeasuredDecoding(max(core.stop, user.stop), counted.steps, counted.patience, fed_back)


def _is_count(value: object, lowest: int) -> bool:
    return type(value) is int and lowest <= value <= TRAINED_TIMESTEPS


def _has_room(steps: int, stop: float) -> bool:
    try:
        decoding_timesteps(steps, stop)
    except InvalidParameter:
        return False
    return True
