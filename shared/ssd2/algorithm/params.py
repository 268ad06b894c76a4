"""Parameters of a decode, checked once, here."""

from __future__ import annotations

import hashlib
import math
import secrets
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, get_args

from ssd2.algorithm.measured import CROSSING, MeasuredDecoding
from ssd2.algorithm.timesteps import DEFAULT_STEPS, decoding_timesteps
from ssd2.errors import InvalidParameter

SIMPLEX_VALUE = 5.0
"""K of SSD-LM and SSD-2, in logit units."""

MAX_SIMPLEX_VALUE = 1000.0
"""K is below it: its noise and what a model makes of it stay far from the end of float32."""

TEMPERATURE, TOP_P = 1.0, 0.2
"""Of the projections, where the model does not say its own; the paper's."""

PROJECTIONS = ("greedy", "sampling", "multi-hot")
"""From logits back onto the simplex; see `ssd2.algorithm.simplex`."""

SELF_CONDITIONING = (*CROSSING, "mixed")
"""What a model is fed back: its own logits, the projected simplex, or (in one process) the mix."""

MAX_SEED = 2**63

Rule: TypeAlias = Literal["auto", "difference"]
"""In the place of a number for λ: a λ for each position, or the core plus what the documents change; see `ensemble`."""

LambdaUser: TypeAlias = float | Rule
"""λ, or the rule that replaces it."""

RULES: tuple[Rule, ...] = get_args(Rule)


class Defaults(Protocol):
    """A model's own parameters of a decode."""

    @property
    def block_size(self) -> int:
        """L it was trained with; 1 if it writes token by token."""
        ...

    @property
    def default_steps(self) -> int:
        """Timesteps of a block where none were measured; 1 without diffusion."""
        ...

    @property
    def measured(self) -> MeasuredDecoding:
        """Its measured settings."""
        ...

    @property
    def default_temperature(self) -> float:
        """Temperature that it is sampled with."""
        ...

    @property
    def default_top_p(self) -> float:
        """Nucleus mass that it is sampled with."""
        ...

    @property
    def simplex_value(self) -> float:
        """K, in logit units."""
        ...


@dataclass(frozen=True)
class DecodingParams:
    """One decode.

    Attributes:
        block_size: L, tokens denoised together.
        max_tokens: longest answer; rounded up to whole blocks.
        steps: timesteps a block is decoded with.
        stop: early stop as a share of T (§3.1); 0 decodes down to t = 1. A checkpoint says its own.
        projection: one of `PROJECTIONS`, line 9 of Algorithm 2.
        top_p: nucleus mass of the sampling and multi-hot projections.
        temperature: that the logits are divided by before these two project; the paper's is 1.
        self_conditioning: one of `SELF_CONDITIONING`; "mixed" is the paper's and cannot cross the
            trust boundary.
        simplex_value: K, in logit units.
        schedule: one of `ssd2.algorithm.timesteps.SCHEDULES`, how the timesteps are spread.
        patience: a block ends once its projection has been the same for this many timesteps after
            the first, of those at which patience counts; None: at its last timestep. See `ssd2.algorithm.block_end`.
        entropy_bound: and only while the mix's mean entropy is below this, in nats; None: whatever it is.
        core_every: the core is asked at every that many timesteps, and its last logits are mixed in
            between. 1 is Algorithm 2; more is approximate.
    """

    block_size: int
    max_tokens: int = 48
    steps: int = DEFAULT_STEPS
    stop: float = 0.0
    projection: str = "sampling"
    top_p: float = TOP_P
    temperature: float = TEMPERATURE
    self_conditioning: str = "own"
    simplex_value: float = SIMPLEX_VALUE
    schedule: str = "even"
    patience: int | None = None
    entropy_bound: float | None = None
    core_every: int = 1

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise InvalidParameter(f"block size is {self.block_size}; it must be at least 1", parameter="block_size")
        if self.max_tokens < 1:
            raise InvalidParameter(f"max tokens is {self.max_tokens}; it must be at least 1", parameter="max_tokens")
        if self.projection not in PROJECTIONS:
            raise InvalidParameter(
                f"projection is {self.projection!r}; choose from {', '.join(PROJECTIONS)}", parameter="projection"
            )
        if not 0 < self.top_p <= 1:
            raise InvalidParameter(f"top-p is {self.top_p}; it must be in (0, 1]", parameter="top_p", limit=1)
        if not 0 < self.temperature < float("inf"):
            raise InvalidParameter(
                f"temperature is {self.temperature}; it must be above 0, or use the greedy projection",
                parameter="temperature",
            )
        if self.self_conditioning not in SELF_CONDITIONING:
            raise InvalidParameter(
                f"self-conditioning is {self.self_conditioning!r}; choose from {', '.join(SELF_CONDITIONING)}",
                parameter="self_conditioning",
            )
        if not 0 < self.simplex_value < MAX_SIMPLEX_VALUE:
            raise InvalidParameter(
                f"simplex value is {self.simplex_value}; it must be above 0 and below {MAX_SIMPLEX_VALUE:g}",
                parameter="simplex_value",
            )
        if self.core_every < 1:
            raise InvalidParameter(f"core every is {self.core_every}; it must be at least 1", parameter="core_every")
        decoding_timesteps(self.steps, self.stop, self.schedule)
        self._check_end()

    def _check_end(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise InvalidParameter(f"patience is {self.patience}; it must be at least 1 timestep", parameter="patience")
        if self.entropy_bound is None:
            return
        if self.patience is None:
            raise InvalidParameter("an entropy bound works only with patience; set both", parameter="entropy_bound")
        if not 0 < self.entropy_bound < float("inf"):
            raise InvalidParameter(
                f"entropy bound is {self.entropy_bound}; it must be above 0 nats", parameter="entropy_bound"
            )

    @classmethod
    def for_model(cls, config: Defaults, measured: MeasuredDecoding | None = None, **chosen: Any) -> DecodingParams:
        """Take a model's own parameters.

        Args:
            config: the model's shape.
            measured: settings of a pair in place of the model's own; None for those.
            **chosen: fields to have otherwise; None leaves the model's own, a patience of 0 ends no block early.

        Raises:
            InvalidParameter: if a field is outside its range.
        """
        measured = measured or config.measured
        steps = chosen.get("steps") or measured.steps or config.default_steps
        own = {
            "block_size": config.block_size,
            "steps": steps,
            "stop": measured.stop,
            "temperature": config.default_temperature,
            "top_p": config.default_top_p,
            "self_conditioning": measured.self_conditioning or CROSSING[0],
            "simplex_value": config.simplex_value,
            "patience": measured.patience_in(steps),
        }
        values = {**own, **{name: value for name, value in chosen.items() if value is not None}}
        return cls(**{**values, "patience": values["patience"] or None})

    @property
    def timesteps(self) -> tuple[int, ...]:
        """The timesteps of every block, decreasing; a block may end before its last."""
        return decoding_timesteps(self.steps, self.stop, self.schedule)

    def asks_core_at(self, step: int) -> bool:
        """True if the core is asked at a block's timestep of this index, from 0."""
        return step % self.core_every == 0

    @property
    def core_timesteps(self) -> tuple[int, ...]:
        """Timesteps of a block at which the core is asked."""
        return tuple(t for step, t in enumerate(self.timesteps) if self.asks_core_at(step))

    def with_all_timesteps(self) -> DecodingParams:
        """The same, but no block ends before its last timestep."""
        return replace(self, patience=None, entropy_bound=None)

    def within(self, room: int) -> DecodingParams:
        """The same, but an answer no longer than the whole blocks that have room in this many tokens.

        Raises:
            InvalidParameter: if not one block has.
        """
        return replace(self, max_tokens=min(self.max_tokens, room // self.block_size * self.block_size))

    @property
    def max_blocks(self) -> int:
        """Blocks that hold `max_tokens`."""
        return -(-self.max_tokens // self.block_size)

    @property
    def max_answer_tokens(self) -> int:
        """Room that the answer needs: `max_tokens` in whole blocks."""
        return self.max_blocks * self.block_size


@dataclass(frozen=True)
class CollaborationParams:
    """Mixing of the two models (§3.2).

    Attributes:
        lambda_user: weight of the user model, in [0, 1]; or one of `RULES`.
        alpha: contrastive strength, at least 0; by the difference rule its β.
        normalise: mix log-probabilities instead of raw logits.
    """

    lambda_user: LambdaUser = "auto"
    alpha: float = 1.0
    normalise: bool = False

    def __post_init__(self) -> None:
        if not _is_lambda(self.lambda_user):
            raise InvalidParameter(
                f"lambda-user is {self.lambda_user}; it must be in [0, 1], or {' or '.join(RULES)}",
                parameter="lambda_user",
                limit=1,
            )
        if not 0 <= self.alpha < float("inf"):
            raise InvalidParameter(f"alpha is {self.alpha}; it must be finite and at least 0", parameter="alpha")

    @property
    def label(self) -> str:
        """Name of the setting, for tables and progress."""
        return f"λ {lambda_text(self.lambda_user)}, α {self.alpha:g}"

    @property
    def uses_core(self) -> bool:
        """True if the core's logits have any weight."""
        return self.lambda_user != 1

    @property
    def uses_user(self) -> bool:
        """True if the user model's logits have any weight."""
        return self.alpha > 0 if self.lambda_user == "difference" else self.lambda_user != 0

    @property
    def reads_without_docs(self) -> bool:
        """True if the pass without documents has any weight, or λ follows from it."""
        return self.uses_user and (self.alpha > 0 or self.lambda_user == "auto")


def lambda_text(lambda_user: LambdaUser) -> str:
    """Write λ as people type it."""
    return lambda_user if isinstance(lambda_user, str) else f"{lambda_user:g}"


def parse_lambda(text: str) -> LambdaUser:
    """Read λ as people type it: a number from 0 to 1, or one of `RULES`.

    Raises:
        InvalidParameter: if it is neither.
    """
    word = text.strip().lower()
    try:
        value = next((rule for rule in RULES if rule == word), None) or float(word)
    except ValueError:
        value = math.nan
    if not _is_lambda(value):
        raise InvalidParameter(
            f"λ is {text[:80]!r}; give a number from 0 to 1, or {' or '.join(RULES)}", parameter="lambda_user"
        )
    return value


def _is_lambda(value: LambdaUser) -> bool:
    return value in RULES if isinstance(value, str) else 0 <= value <= 1


# See docs/decisions/003-noise-and-two-seeds.md.
@dataclass(frozen=True)
class Seeds:
    """The two seeds of a decode.

    Attributes:
        noise: public; both sides compute the noise of the trajectory from it.
        sampling: the device's own, for the sampling projection; never leaves it.
    """

    noise: int
    sampling: int

    def __post_init__(self) -> None:
        for name, seed in (("noise", self.noise), ("sampling", self.sampling)):
            if not 0 <= seed < MAX_SEED:
                raise InvalidParameter(
                    f"the {name} seed is {seed}; it must be in [0, 2^63)", parameter="seed", limit=MAX_SEED - 1
                )

    @classmethod
    def fresh(cls) -> Seeds:
        """Two independent random seeds: nobody who knows one can guess the other."""
        return cls(secrets.randbelow(MAX_SEED), secrets.randbelow(MAX_SEED))

    @classmethod
    def reproducible(cls, seed: int) -> Seeds:
        """Both seeds from one number, to repeat a decode.

        Whoever guesses the number can repeat the device's draws too: for tests and comparisons.

        Raises:
            InvalidParameter: if the number is not in [0, 2⁶³).
        """
        if not 0 <= seed < MAX_SEED:
            raise InvalidParameter(f"seed is {seed}; it must be in [0, 2^63)", parameter="seed", limit=MAX_SEED - 1)
        return cls(_derive("noise", seed), _derive("sampling", seed))


def _derive(purpose: str, seed: int) -> int:
    digest = hashlib.sha256(f"slingshot/{purpose}/{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % MAX_SEED


def sharpened_value(share: float, vocab_size: int) -> float:
    """Return the K at which a one-hot simplex leaves this share of a softmax on its token, whatever V is.

        e^K / (e^K + (V - 1)·e^-K) = share,  so  K = ln(share·(V - 1) / (1 - share)) / 2

    K = 5 leaves 0.98 at V = 512, 0.93 at 1,782 and 0.31 at 50,272: at a large V a model that is fed back such a simplex
    hardly sees which token it names. Ours, not the paper's.

    Args:
        share: in (1 / V, 1).
        vocab_size: V.
    """
    return math.log(share * (vocab_size - 1) / (1 - share)) / 2
