"""Request of an answer: one object, whichever face the question came through.

Every field is an option of `ask` and `chat`, a variable SLINGSHOT_…, a key of config.toml, a field of the REST schema
and a setting of the page; all of them are generated from what stands here (`user_agent.fields`). Only private context
is neither a key of config.toml nor a setting of the page: it is stored nowhere.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from ssd2.algorithm.params import MAX_SEED, CollaborationParams, Rule, parse_lambda
from ssd2.algorithm.penalties import MAX_PENALTY, Penalties
from ssd2.algorithm.timesteps import DEFAULT_STEPS, TRAINED_TIMESTEPS
from ssd2.errors import InvalidParameter
from ssd2.logits.format import PREFERRED, LogitsFormat
from ssd2.models.chat import BRIEFLY, Message
from ssd2.models.layouts import AnswerLayout
from ssd2.models.pairs import pair_named
from user_agent.fields import Face

MAX_MAX_TOKENS = 10**9
"""No model writes as many: every length that can be meant is cut where the answer is made, and the cut is named."""

MAX_SPECULATION = 64
"""Timesteps sent ahead that an agent may have to read past, each a frame of logits."""

MAX_STOP_TEXTS = 4

MAX_PRIVATE_CONTEXT = 100_000
"""Characters; more than any model that runs on a device has room for."""

_BUILT_IN = CollaborationParams()


def _documents(value: Any) -> Any:
    """Read what an option, a variable or the file says: all, none, or ids with commas between."""
    if not isinstance(value, str):
        return value
    word = value.strip().lower()
    if word in ("all", "true", "none", "false"):
        return word in ("all", "true")
    ids = tuple(part.strip() for part in word.split(","))
    if not all(one.isascii() and one.isdecimal() for one in ids):
        raise ValueError(f"{value[:80]!r} is not a choice of documents; use all, none, or ids separated by commas")
    return ids


def _lambda(value: Any) -> Any:
    """Read λ as an option or a variable says it, and check it."""
    try:
        if isinstance(value, str):
            return parse_lambda(value)
        return CollaborationParams(value).lambda_user if isinstance(value, int | float) else value
    except InvalidParameter as error:
        raise ValueError(str(error)) from error  # pydantic names the field


def _texts(value: Any) -> Any:
    """Read one text, or a JSON list of texts; an empty one ends nothing."""
    if isinstance(value, str):
        try:
            listed = json.loads(value)
        except ValueError:
            listed = None
        value = listed if isinstance(listed, list) else [value]
    if not isinstance(value, list | tuple):
        return value
    if len(value) > MAX_STOP_TEXTS:
        raise ValueError(f"{len(value)} texts are too many; give at most {MAX_STOP_TEXTS}")
    return [text for text in value if text != ""]


def _logits(value: str | None) -> str | None:
    """Check the name of a format."""
    try:
        return None if value is None else str(LogitsFormat.parse(value))
    except InvalidParameter as error:
        raise ValueError(str(error)) from error  # pydantic names the field


def _pair(value: str) -> str:
    """Check the name of a pair; an empty one means none."""
    try:
        return pair_named(value).name if value else ""
    except InvalidParameter as error:
        raise ValueError(str(error)) from error


DocumentId = Annotated[int, Field(ge=0, lt=2**63)]
Documents = Annotated[
    StrictBool | tuple[DocumentId, ...],
    BeforeValidator(_documents, json_schema_input_type=StrictBool | tuple[DocumentId, ...]),
]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts, json_schema_input_type=str | tuple[str, ...])]


# See docs/decisions/038-a-request-is-described-once.md.
class AnswerSettings(BaseModel):
    """Settings of an answer; what is None follows from the models."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    lambda_user: Annotated[
        Annotated[float, Field(ge=0, le=1)] | Rule | None,
        BeforeValidator(_lambda, json_schema_input_type=Annotated[float, Field(ge=0, le=1)] | Rule | None),
        Face(
            "Weight of the user model",
            "0 uses only the core and reads no documents; 1 uses only the user model and sends nothing. auto finds a "
            "weight for each position from what your documents change there; difference adds that change, α times, to "
            "the core.",
            default=f"as tuned, else as measured for the pair with its own core, else {_BUILT_IN.lambda_user}",
            label="λ, the private model’s weight",
            also="lambda",
        ),
    ] = None
    alpha: Annotated[
        float | None,
        Face(
            "Contrastive strength: how strongly the documents count",
            default=f"as tuned, else as measured for the pair with its own core, else {_BUILT_IN.alpha:g}",
            label="α, how strongly documents count",
        ),
    ] = Field(default=None, ge=0, le=100)
    max_tokens: Annotated[
        int,
        Face(
            "Maximum length of an answer, in tokens",
            "Reduced if the question leaves less room.",
            label="Longest answer",
            openai="max_tokens",
        ),
    ] = Field(default=48, ge=1, le=MAX_MAX_TOKENS)
    temperature: Annotated[
        float | None,
        Face(
            "Softmax temperature",
            "0 decodes greedily.",
            default="as measured for the pair, else set by the model, 1 for SSD-2",
            label="Temperature",
            openai="temperature",
        ),
    ] = Field(default=None, ge=0, le=2)
    documents: Annotated[
        Documents,
        Face(
            "Linked documents to search: all, none, or ids separated by commas",
            default="all",
            label="Documents",
        ),
    ] = True
    private_context: Annotated[
        str,
        Face(
            "Text that only the user model reads, before the passages of documents",
            "It is never sent to the core nor saved, in config.toml or a conversation, but an answer may quote it. "
            "Ignored at λ 0.",
            default="none",
            label="Private context",
        ),
    ] = Field(default="", max_length=MAX_PRIVATE_CONTEXT)
    pair: Annotated[
        str,
        AfterValidator(_pair),
        Face(
            "Pair of public models to answer with, such as smollm2-135m",
            "It has to be downloaded. Takes precedence over the folder of a user model in config.toml. Its core is "
            "started on this machine unless λ is 1. A core that you configure is asked instead, at the λ of any pair.",
            default="the demo's",
            label="Pair of models",
        ),
    ] = ""
    system_prompt: Annotated[
        str,
        Face(
            "Instruction to both models before each question, for models with a chat template",
            "It is sent to the core. The system message of a REST client takes precedence. An empty text leaves it to "
            "the models' templates.",
            default="to answer in one short sentence",
            label="System prompt",
            advanced=True,
        ),
    ] = Field(default=BRIEFLY, max_length=4000)
    answer_layout: Annotated[
        AnswerLayout,
        Face(
            "Order of an answer, for models with a chat template",
            "With fact-first it begins with the sentence of the notes that it rests on, so that the core can draw its "
            "conclusion from it: that sentence is sent to the core, as all of an answer is.",
            label="Order of an answer",
            advanced=True,
        ),
    ] = "plain"
    model: Annotated[
        str,
        Face(
            "Name of the core's model",
            default="the first one that fits the user model",
            label="Model of the core",
            advanced=True,
        ),
    ] = Field(default="", max_length=200)
    steps: Annotated[
        int | None,
        Face(
            "Maximum timesteps per block",
            default=f"as measured for the core's model, else set by the user model, {DEFAULT_STEPS} for SSD-2",
            label="Timesteps per block",
            advanced=True,
        ),
    ] = Field(default=None, ge=1, le=TRAINED_TIMESTEPS)
    early_stop: Annotated[
        float | None,
        Face(
            "Share of the timesteps T at which a block ends, §3.1",
            default="set by the models: the higher of the two",
            label="Early stop",
            advanced=True,
        ),
    ] = Field(default=None, ge=0, lt=1)
    patience: Annotated[
        int | None,
        Face(
            "End a block once its tokens stay the same for this many timesteps",
            "0 ends no block early. Counts only timesteps at which tokens can be read in the noise.",
            default=f"as measured for the core's model, else 2 of {DEFAULT_STEPS} timesteps, in proportion",
            label="Patience",
            advanced=True,
        ),
    ] = Field(default=None, ge=0)
    entropy_bound: Annotated[
        float | None,
        Face(
            "End a block early only while the mean entropy of the mix, in nats, is below this",
            "Costs privacy: a block that continues although its tokens stay the same reveals to the core up to one bit "
            "a timestep about logits that never cross.",
            default="off",
            label="Entropy bound",
            advanced=True,
        ),
    ] = Field(default=None, gt=0)
    schedule: Annotated[
        Literal["even", "changes"],
        Face(
            "Spacing of the timesteps",
            '"changes" puts half of them where most tokens change (§3.1).',
            label="Spacing of the timesteps",
            advanced=True,
        ),
    ] = "even"
    core_every: Annotated[
        int,
        Face(
            "Ask the core at every Nth timestep and reuse its logits in between",
            "Above 1 the answer is an approximation of Algorithm 2.",
            label="Ask the core every",
            advanced=True,
        ),
    ] = Field(default=1, ge=1)
    block_size: Annotated[
        int | None,
        Face(
            "Tokens denoised together",
            default="the user model's block length",
            label="Block size",
            advanced=True,
        ),
    ] = Field(default=None, ge=1)
    projection: Annotated[
        Literal["sampling", "multi-hot"],
        Face(
            "Projection of the mixed logits",
            "No effect at temperature 0.",
            label="Projection",
            advanced=True,
        ),
    ] = "sampling"
    top_p: Annotated[
        float | None,
        Face(
            "Nucleus of the projection",
            "No effect at temperature 0.",
            default="set by the model, 0.2 for SSD-2",
            label="Nucleus (top-p)",
            openai="top_p",
            advanced=True,
        ),
    ] = Field(default=None, gt=0, le=1)
    frequency_penalty: Annotated[
        float,
        Face(
            "Taken off a token's mixed logit for each time that the answer has it",
            "Only for models that write token by token. Applied on this device; nothing of it is sent.",
            label="Frequency penalty",
            openai="frequency_penalty",
            advanced=True,
        ),
    ] = Field(default=0.0, ge=-MAX_PENALTY, le=MAX_PENALTY)
    presence_penalty: Annotated[
        float,
        Face(
            "Taken off a token's mixed logit once the answer has it",
            "Only for models that write token by token. Applied on this device; nothing of it is sent.",
            label="Presence penalty",
            openai="presence_penalty",
            advanced=True,
        ),
    ] = Field(default=0.0, ge=-MAX_PENALTY, le=MAX_PENALTY)
    self_conditioning: Annotated[
        Literal["auto", "own", "projection", "mixed"],
        Face(
            "Feedback to both models: their own logits, the projected tokens, or the mix",
            "auto is what was measured to be better for the core's model, else own. "
            '"mixed" works only at λ = 1: it would show the core the mix.',
            label="Self-conditioning",
            advanced=True,
        ),
    ] = "auto"
    logits: Annotated[
        str | None,
        AfterValidator(_logits),
        Face(
            "Format of the core's logits: float16, uint8 or top-k:K",
            default=f"{PREFERRED}, or the closest that the core offers",
            label="Format of the core's logits",
            advanced=True,
        ),
    ] = None
    speculation: Annotated[
        int,
        Face(
            "Timesteps that the core may send ahead, on guesses of the projections",
            "Shortens the wait on a slow connection, costs bytes, and changes no token; 0 turns it off.",
            label="Timesteps sent ahead",
            advanced=True,
        ),
    ] = Field(default=4, ge=0, le=MAX_SPECULATION)
    cite: Annotated[
        Literal["answer", "tokens"],
        Face(
            "Cite passages for the whole answer, or for each token",
            '"tokens" also shows where two passages disagree. At every timestep it costs one more pass of the user '
            "model a passage, and one more for several, beside the usual two; it sends nothing. No effect at λ 0.",
            label="Cite passages for",
            advanced=True,
        ),
    ] = "answer"
    stop_texts: Annotated[
        Texts,
        Face(
            "Text that ends the answer; repeatable, up to four",
            label="Texts that end the answer",
            option="stop-text",
            openai="stop",
            advanced=True,
        ),
    ] = ()
    seed: Annotated[
        int | None,
        Face(
            "Seed of noise and draws, to repeat an answer",
            "Costs privacy: whoever guesses it can replay this device's draws.",
            default="a fresh random one for each answer",
            label="Seed",
            openai="seed",
            advanced=True,
        ),
    ] = Field(default=None, ge=0, lt=MAX_SEED)

    @property
    def penalties(self) -> Penalties:
        """The two penalties together."""
        return Penalties(self.frequency_penalty, self.presence_penalty)

    def request(self, question: str, **given: Any) -> AnswerRequest:
        """Ask a question with these settings.

        Args:
            question: for both models.
            **given: settings to have otherwise.
        """
        values = {name: getattr(self, name) for name in AnswerSettings.model_fields}
        return AnswerRequest(question=question, **{**values, **given})


class AnswerRequest(AnswerSettings):
    """One question and how to answer it.

    Attributes:
        question: w_inst, what both models see.
        history: system prompt and earlier turns, as far as each side may see them.
    """

    question: str
    history: tuple[Message, ...] = ()

    @property
    def document_ids(self) -> tuple[int, ...] | None:
        """Ids of the documents to search; None for all."""
        if isinstance(self.documents, bool):
            return None if self.documents else ()
        return self.documents
