"""Shapes of the families of models, and what a decode, a server and an agent have to know of any of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

from ssd2.algorithm.measured import UNMEASURED, MeasuredDecoding
from ssd2.algorithm.params import MAX_SIMPLEX_VALUE, SIMPLEX_VALUE, TEMPERATURE, TOP_P, Defaults, sharpened_value
from ssd2.algorithm.timesteps import DEFAULT_STEPS, EXPERT_RANGES
from ssd2.errors import CheckpointInvalid

if TYPE_CHECKING:
    from torch import Tensor

CONTEXT_TIMESTEP_QUANTUM = 50
"""Q: the context sees t - (t mod Q), so that its keys and values serve Q timesteps (footnote 16)."""


_LAYERS, _WIDTH, _HEADS, _POSITIONS, _VOCABULARY = 1_000, 2**16, 2**12, 2**24, 2**22
_FFN, _EXPERTS, _LABELS = 2**20, 2**12, 2**15

LARGEST = {
    "vocab_size": _VOCABULARY,
    "hidden_size": _WIDTH,
    "num_layers": _LAYERS,
    "num_heads": _HEADS,
    "ffn_size": _FFN,
    "max_positions": _POSITIONS,
    "block_size": _POSITIONS,
    "answer_position": _POSITIONS,
    # The same in transformers' names, and what its networks have beside.
    "num_hidden_layers": _LAYERS,
    "n_layer": _LAYERS,
    "n_layers": _LAYERS,
    "decoder_layers": _LAYERS,
    "encoder_layers": _LAYERS,
    "n_embd": _WIDTH,
    "d_model": _WIDTH,
    "head_dim": _WIDTH,
    "word_embed_proj_dim": _WIDTH,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": _HEADS,
    "n_head": _HEADS,
    "n_heads": _HEADS,
    "intermediate_size": _FFN,
    "moe_intermediate_size": _FFN,
    "ffn_dim": _FFN,
    "n_inner": _FFN,
    "max_position_embeddings": _POSITIONS,
    "n_positions": _POSITIONS,
    "n_ctx": _POSITIONS,
    "type_vocab_size": _VOCABULARY,
    "num_experts": _EXPERTS,
    "num_local_experts": _EXPERTS,
    "n_routed_experts": _EXPERTS,
    "num_labels": _LABELS,
}
"""The most that a model can have of each: a few times what the largest published ones have, and little enough that a
network's modules are made in seconds. What the weights take is checked against their files."""

MAX_RANGES = 100
"""Experts of a model at most; the paper's has three."""

_REMEDY = "copy or convert the checkpoint again"

_Number = TypeVar("_Number", int, "Tensor")


def check_sizes(values: Mapping[str, object]) -> None:
    """Refuse the sizes of a config.json that no model can have, before anything of such a size is made.

    Args:
        values: of the file, in transformers' names or ours; a size may be one for each layer, or in a config within.

    Raises:
        CheckpointInvalid: if one is no whole number, or too large.
    """
    for name, value in values.items():
        if isinstance(value, dict):
            check_sizes(value)
        elif name in LARGEST and value is not None:
            for size in value if isinstance(value, list) else [value]:
                _check_whole(name, size, 0)


def _check_whole(name: str, value: object, lowest: int) -> None:
    """A config.json may hold anything: numbers have to be numbers before they are compared."""
    if type(value) is not int or not lowest <= value <= LARGEST[name]:
        raise CheckpointInvalid(
            f"{name} is {repr(value)[:40]}; it must be a whole number from {lowest} to {LARGEST[name]:,}; {_REMEDY}"
        )


def _check_token_ids(config: ModelConfig) -> None:
    named = [(name, getattr(config, name)) for name in ("bos_token_id", "eos_token_id", "pad_token_id")]
    if config.bos_token_id is None:
        del named[0]
    for name, value in [*named, *(("a stop id", value) for value in config.stop_ids)]:
        if type(value) is not int or value < 0:
            raise CheckpointInvalid(f"{name} is {repr(value)[:40]}; it must be a whole number of at least 0; {_REMEDY}")
        if value >= config.vocab_size:
            raise CheckpointInvalid(
                f"{name} {value} is a special token outside the vocabulary of {config.vocab_size}; {_REMEDY}"
            )


class ModelConfig(Defaults, Protocol):
    """A model's shape, as far as a decode, a server and an agent have to know it; a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def family(self) -> str:
        """Name of its family, as in `ssd2.models.registry`."""
        ...

    @property
    def vocab_size(self) -> int:
        """V."""
        ...

    @property
    def cuts_rows(self) -> bool:
        """True if its logits may be cut to a smaller vocabulary: it looks at no simplex over the whole of it."""
        ...

    @property
    def feeds_back(self) -> bool:
        """True if it reads what the last timestep projected, beside the noised simplex (§3.1)."""
        ...

    @property
    def trained_above(self) -> float:
        """Share of T above which there is a network for every timestep."""
        ...

    @property
    def bos_token_id(self) -> int | None:
        """Begins every prompt; None if nothing does."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """End an answer, at least one; the first is the EOS, which fills the rest of an answer that has ended."""
        ...

    @property
    def pad_token_id(self) -> int:
        """Fills the left of shorter prompts in a batch; never attended to."""
        ...

    @property
    def max_positions(self) -> int:
        """The longest prompt and answer together."""
        ...

    @property
    def max_prompt_tokens(self) -> int:
        """The longest prompt that leaves room for one block of answer."""
        ...

    @property
    def max_block_size(self) -> int:
        """The longest block that leaves room for a prompt."""
        ...

    def max_prompt_tokens_before(self, answer_tokens: int) -> int:
        """The longest prompt that leaves room for an answer of this many tokens; below 1 if none does."""
        ...

    def max_answer_tokens_behind(self, prompt_tokens: int) -> int:
        """The longest answer that has room behind a prompt of this many tokens; below 1 if none has."""
        ...


@dataclass(frozen=True)
class SSD2Config:
    """Shape of an SSD-2 model, as in a checkpoint's config.json.

    Attributes:
        vocab_size: V.
        hidden_size: D.
        num_layers: decoder layers.
        num_heads: attention heads; divides D.
        ffn_size: width of the feed-forward layers.
        max_positions: length of the position table, prompt and answer together.
        block_size: L the model was trained with.
        bos_token_id: begins every prompt.
        eos_token_id: ends an answer and fills its last block (footnote 11).
        pad_token_id: fills the left of shorter prompts in a batch; never attended to.
        simplex_value: K, in logit units.
        context_timestep: "quantised" adds Emb_ctx-time of the paper with Q = 50; "none" leaves it
            out, so that the context's keys and values never go stale.
        answer_position: position of an answer's first token, prompts ending just before it, so that
            blocks always begin at the same positions. None: prompts begin at position 0, as in OPT.
        stop: share of T that a decode stops at: what the model was trained above, or what was measured to do.
        steps: timesteps of a block that were measured to do, with this stop; None if that was not measured.
        patience: likewise, in these timesteps; 0 ends no block early.
        self_conditioning: "own" or "projection", what was measured to be better.
        feedback_share: share of a softmax that a token has in the projection that is fed back, whatever V is; see
            `ssd2.algorithm.params.sharpened_value`. None: what K leaves, as in the paper.
    """

    model_type: ClassVar[str] = "ssd2"

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    ffn_size: int
    max_positions: int
    block_size: int
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    simplex_value: float = 5.0
    context_timestep: str = "quantised"
    answer_position: int | None = None
    stop: float = 0.0
    steps: int | None = None
    patience: int | None = None
    self_conditioning: str | None = None
    feedback_share: float | None = None

    def __post_init__(self) -> None:
        if self.context_timestep not in ("quantised", "none"):
            raise CheckpointInvalid(f"context_timestep is {self.context_timestep!r}; use 'quantised' or 'none'")
        self._check_sorts()
        if self.hidden_size % self.num_heads:
            raise CheckpointInvalid(f"hidden_size {self.hidden_size} is not a multiple of {self.num_heads} heads")
        if self.block_size >= self.max_positions:
            raise CheckpointInvalid(f"block_size {self.block_size} does not fit {self.max_positions} positions")
        if self.answer_position is not None and self.answer_position > self.max_positions - self.block_size:
            raise CheckpointInvalid(
                f"answer_position {self.answer_position} leaves no room for a block in {self.max_positions} positions"
            )

    def _check_sorts(self) -> None:
        sizes = ("vocab_size", "hidden_size", "num_layers", "num_heads", "ffn_size", "max_positions", "block_size")
        for name in (*sizes, "answer_position") if self.answer_position is not None else sizes:
            _check_whole(name, getattr(self, name), 1)
        _check_token_ids(self)
        if type(self.simplex_value) not in (int, float) or not 0 < self.simplex_value < MAX_SIMPLEX_VALUE:
            raise CheckpointInvalid(
                f"simplex_value is {repr(self.simplex_value)[:40]}; it must be a number above 0 and below "
                f"{MAX_SIMPLEX_VALUE:g}"
            )
        if problem := MeasuredDecoding(self.stop, self.steps, self.patience, self.self_conditioning).problem:
            raise CheckpointInvalid(problem)
        share = self.feedback_share
        if share is not None and (type(share) is not float or not 1 / self.vocab_size < share < 1):
            raise CheckpointInvalid(
                f"feedback_share is {repr(share)[:40]}; it must be a share above 1 / vocab_size and below 1"
            )

    def feedback_value(self, simplex_value: float) -> float:
        """Return the K of the projection that is fed back, where x_t is made with `simplex_value`."""
        if self.feedback_share is None:
            return simplex_value
        return sharpened_value(self.feedback_share, self.vocab_size)

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> Self:
        """Read a config, refusing keys that it does not know and shapes that cannot be."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise CheckpointInvalid(f"the model's config has unknown keys: {', '.join(unknown)}")
        try:
            return cls(**values)  # type: ignore[arg-type]
        except TypeError as error:
            raise CheckpointInvalid(f"the model's config is incomplete: {error}") from error

    @property
    def family(self) -> str:
        """The kind of model."""
        return "ssd-2"

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The EOS."""
        return (self.eos_token_id,)

    @property
    def cuts_rows(self) -> bool:
        """False: the noised simplex is over the whole vocabulary."""
        return False

    @property
    def feeds_back(self) -> bool:
        """True: it is trained with self-conditioning."""
        return True

    @property
    def trained_above(self) -> float:
        """Share of T above which there is a network for every timestep; it may know little of those below `stop`."""
        return 0.0

    @property
    def default_stop(self) -> float:
        """Share of T that a decode stops at, unless asked otherwise."""
        return self.stop

    @property
    def measured(self) -> MeasuredDecoding:
        """Measured settings of a decode."""
        return MeasuredDecoding(self.default_stop, self.steps, self.patience, self.self_conditioning)

    def unmeasured(self, trained_above: float = 0.0, self_conditioning: str | None = None) -> Self:
        """Return the same shape for other weights, of which nothing was measured yet.

        Args:
            trained_above: share of T that they are trained above.
            self_conditioning: that they are trained for; None if for none of the two more than for the other.
        """
        return replace(self, stop=trained_above, steps=None, patience=None, self_conditioning=self_conditioning)

    @property
    def default_steps(self) -> int:
        """Timesteps a block is decoded with where none were measured, unless more are asked for."""
        return DEFAULT_STEPS

    @property
    def default_temperature(self) -> float:
        """The paper's temperature."""
        return TEMPERATURE

    @property
    def default_top_p(self) -> float:
        """The paper's nucleus mass."""
        return TOP_P

    @property
    def max_block_size(self) -> int:
        """The longest block that leaves room for a prompt."""
        return self.max_positions - (self.answer_position or 1)

    @property
    def max_prompt_tokens(self) -> int:
        """The longest prompt that still leaves room for one block of answer."""
        return self.answer_position or self.max_positions - self.block_size

    def max_prompt_tokens_before(self, answer_tokens: int) -> int:
        """The longest prompt that leaves room for an answer of this many tokens; below 1 if none does."""
        if self.answer_position is None:
            return self.max_positions - answer_tokens
        return self.answer_position if self.answer_position + answer_tokens <= self.max_positions else 0

    def max_answer_tokens_behind(self, prompt_tokens: int) -> int:
        """The longest answer that has room behind a prompt of this many tokens; below 1 if none has."""
        if self.answer_position is None:
            return self.max_positions - prompt_tokens
        return self.max_positions - self.answer_position if prompt_tokens <= self.answer_position else 0

    def first_position(self, prompt_tokens: _Number) -> _Number:
        """Return the position at which a prompt of this many tokens begins."""
        return self.answer_position - prompt_tokens if self.answer_position else 0 * prompt_tokens

    def quantised(self, timestep: int) -> int:
        """The timestep that a context is encoded for; 0, always, without a context timestep."""
        return timestep - timestep % CONTEXT_TIMESTEP_QUANTUM if self.context_timestep == "quantised" else 0


@dataclass(frozen=True)
class ExpertsConfig(SSD2Config):
    """Shape of the experts, one for all, and what each is for.

    Attributes:
        ranges: shares of T, (above, up to], one an expert; each begins where the one before it ends,
            the last ends at 1.
    """

    model_type: ClassVar[str] = "ssd2-experts"

    ranges: tuple[tuple[float, float], ...] = EXPERT_RANGES

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            ranges = tuple((float(above), float(up_to)) for above, up_to in self.ranges)
        except (TypeError, ValueError, OverflowError) as error:
            reason = f"ranges is {repr(self.ranges)[:80]}; it must be pairs of shares of T"
            raise CheckpointInvalid(reason) from error
        if len(ranges) > MAX_RANGES:
            raise CheckpointInvalid(f"there are {len(ranges)} ranges; a model has {MAX_RANGES} experts at most")
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
        """Share of T that a decode stops at, unless asked otherwise: not below where the experts end."""
        return max(self.trained_above, self.stop)


@dataclass(frozen=True, kw_only=True)
class PlainConfig:
    """Shape of a model whose prompt and answer share a row of positions, the answer right behind the prompt.

    Attributes:
        family: name of its family.
        vocab_size: V.
        max_positions: prompt and answer together.
        bos_token_id: begins every prompt; None if nothing does.
        eos_token_id: ends an answer.
        pad_token_id: fills the left of shorter prompts in a batch.
        further_stop_ids: end an answer too, such as the end of a turn.
        block_size: L that it is decoded with; 1 if it writes token by token.
        default_steps: timesteps of a block where none were measured; 1 without diffusion.
        measured: measured settings of a decode.
        default_temperature: that it is sampled with.
        default_top_p: nucleus mass that it is sampled with.
        simplex_value: K.
        trained_above: share of T above which there is a network for every timestep.
    """

    family: str
    vocab_size: int
    max_positions: int
    bos_token_id: int | None
    eos_token_id: int
    pad_token_id: int
    further_stop_ids: tuple[int, ...] = ()
    block_size: int = 1
    default_steps: int = 1
    measured: MeasuredDecoding = UNMEASURED
    default_temperature: float = TEMPERATURE
    default_top_p: float = TOP_P
    simplex_value: float = SIMPLEX_VALUE
    trained_above: float = 0.0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "max_positions"):
            _check_whole(name, getattr(self, name), 1)
        _check_token_ids(self)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The EOS and the further ones."""
        return (self.eos_token_id, *self.further_stop_ids)

    @property
    def cuts_rows(self) -> bool:
        """True if it writes token by token."""
        return self.block_size == 1

    @property
    def feeds_back(self) -> bool:
        """False: it reads the noised simplex, or the tokens before, and nothing beside them."""
        return False

    @property
    def max_block_size(self) -> int:
        """The longest block that leaves room for a prompt; 1 if the model writes token by token."""
        return 1 if self.block_size == 1 else self.max_positions - 1

    @property
    def max_prompt_tokens(self) -> int:
        """The longest prompt that leaves room for one block."""
        return self.max_prompt_tokens_before(self.block_size)

    def max_prompt_tokens_before(self, answer_tokens: int) -> int:
        """The longest prompt that leaves room for an answer of this many tokens; below 1 if none does."""
        return self.max_positions - answer_tokens

    def max_answer_tokens_behind(self, prompt_tokens: int) -> int:
        """The longest answer that has room behind a prompt of this many tokens; below 1 if none has."""
        return self.max_positions - prompt_tokens


def with_context(config: ModelConfig, longest: int | None) -> ModelConfig:
    """Limit the positions of a model that may leave any number of them unused; others stay as they are.

    Args:
        config: of the model.
        longest: prompt and answer together; None for the model's own.
    """
    if longest is None or not isinstance(config, PlainConfig):
        return config
    return replace(config, max_positions=min(longest, config.max_positions))


@dataclass(frozen=True, kw_only=True)
class SSDLMConfig(PlainConfig):
    """Shape of an SSD-LM, which counts positions from behind the padding.

    Attributes:
        block_size: B_train; any B may be decoded with.
        default_steps: the published T_decode. The model was trained with T = 5000, but sees t/T alone.
    """

    family: str = "ssd-lm"
    block_size: int = 25
    default_steps: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if problem := self.measured.problem:
            raise CheckpointInvalid(problem)


@dataclass(frozen=True, kw_only=True)
class AutoregressiveConfig(PlainConfig):
    """Shape of a causal language model."""

    family: str = "autoregressive"
