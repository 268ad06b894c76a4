"""Requests and answers of OpenAI's routes, with our own parameters in `slingshot`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ssd2.logits.format import LogitsFormat
from user_agent.api.errors import ApiError

MODEL = "slingshot"
"""The one model: the core's and the user's, together."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logit_bias": ({},),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
}
"""Parameters that would change the answer and that are not supported, with the values that ask for nothing."""

ACCEPTED = {"user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier"}
"""Parameters that change nothing of the answer."""


class StreamOptions(BaseModel):
    """What comes at a stream's end."""

    model_config = ConfigDict(extra="allow")
    include_usage: bool | None = None


class SlingshotOptions(BaseModel):
    """Our own parameters; what is left out is as the agent is configured."""

    model_config = ConfigDict(extra="forbid")
    lambda_user: Annotated[float | None, Field(ge=0, le=1, description="weight of the user model")] = None
    alpha: Annotated[float | None, Field(ge=0, le=100, description="how much the documents are stressed")] = None
    steps: Annotated[int | None, Field(ge=1, le=1000, description="most timesteps of a block")] = None
    documents: Annotated[
        bool | list[int], Field(description="whether to look in the documents, or the ids of those to look in")
    ] = True
    logits: Annotated[str | None, Field(description="float16, uint8 or top-k:K")] = None


class Generation(BaseModel):
    """What both routes understand."""

    model_config = ConfigDict(extra="allow")
    model: Annotated[str, Field(max_length=200, examples=[MODEL])]
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    stop: str | list[str] | None = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    slingshot: SlingshotOptions | None = None

    def longest(self) -> int | None:
        """Most tokens of the answer, or None."""
        return self.max_tokens

    def stops(self) -> list[str]:
        """Texts that end the answer.

        Raises:
            ApiError: if there are more than four.
        """
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > 4:
            raise ApiError(400, "invalid_value", f"stop has {len(stops)} texts; send at most 4", "stop")
        return [text for text in stops if text]

    def check(self) -> list[str]:
        """Refuse what cannot be done.

        Returns:
            Names of the fields that are ignored.

        Raises:
            ApiError: if a parameter asks for what is not supported, or the model is another one.
        """
        if self.model != MODEL:
            raise ApiError(404, "model_not_found", f"there is no model {self.model!r}; use {MODEL!r}", "model")
        extra = self.model_extra or {}
        for name, neutral in NEUTRAL.items():
            if extra.get(name) is not None and not any(_equal(extra[name], value) for value in neutral):
                raise ApiError(400, "unsupported_parameter", f"{name} is not supported here; leave it out", name)
        if self.slingshot and self.slingshot.logits is not None:
            LogitsFormat.parse(self.slingshot.logits)
        if self.stream_options and not self.stream:
            raise ApiError(400, "invalid_value", "stream_options applies to streams only; set stream", "stream_options")
        return sorted(set(extra) - set(NEUTRAL) - ACCEPTED)

    def documents(self) -> Sequence[int] | None:
        """Ids of the documents to look in; None for all."""
        chosen = self.slingshot.documents if self.slingshot else True
        if isinstance(chosen, bool):
            return None if chosen else ()
        return tuple(chosen)


def _equal(given: Any, neutral: Any) -> bool:
    """Equal and of the same sort: 0 is not False."""
    return given == neutral and isinstance(given, bool) == isinstance(neutral, bool)


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="allow")
    type: Literal["text"]
    text: Annotated[str, Field(max_length=100_000)]


class ChatMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="allow")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[str, Field(max_length=100_000)] | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """Its parts as one text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class ChatRequest(Generation):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None

    def longest(self) -> int | None:
        """Most tokens of the answer, or None.

        Raises:
            ApiError: if it is given twice, with different values.
        """
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            message = "max_tokens and max_completion_tokens are different; give one of them"
            raise ApiError(400, "invalid_value", message, "max_completion_tokens")
        return both.pop() if both else None

    def instruction(self) -> str:
        """The last message, which has to be the user's: what both models see.

        Raises:
            ApiError: if it is another one's, or empty.
        """
        last = self.messages[-1]
        if last.role != "user" or not last.text.strip():
            raise ApiError(400, "invalid_value", "the last message must be the user's and contain text", "messages")
        return last.text

    def check(self) -> list[str]:
        """See `Generation.check`; earlier messages are named too, as the models read one instruction at a time."""
        ignored = super().check()
        return [*ignored, *(["messages before the last"] if len(self.messages) > 1 else [])]


class CompletionRequest(Generation):
    """POST /v1/completions; a prompt may be token ids of the models' tokenizer."""

    prompt: str | list[int] | list[str] | list[list[int]]


class Usage(BaseModel):
    """Tokens that were read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, prompt_tokens: int, completion_tokens: int) -> Usage:
        """With their sum."""
        return cls(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
        )


class AssistantMessage(BaseModel):
    """An answer as a message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """The answer."""

    index: int = 0
    message: AssistantMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class SlingshotAnswer(BaseModel):
    """What is said of an answer beyond OpenAI's fields.

    Attributes:
        trace: id for /v1/traces/{id}/events.
        citations: passages that the user model read, as it read them.
        left_out: where the passages stand that were found and did not fit.
        max_tokens: longest answer that was allowed.
        clamped_from: what was asked for or configured, where there is no room for it behind the question; else null.
        tokens: each with what the models gave it and whether the user's side changed it.
        figures: timesteps, bytes and seconds.
    """

    trace: str
    lambda_user: float
    alpha: float
    citations: list[dict[str, Any]]
    left_out: list[dict[str, Any]]
    max_tokens: int
    clamped_from: int | None
    tokens: list[dict[str, Any]]
    figures: dict[str, Any]


class ChatCompletion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str | None = None
    slingshot: SlingshotAnswer


class CompletionChoice(BaseModel):
    """The answer to one prompt."""

    text: str
    index: int
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    """Whole answers to prompts."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    system_fingerprint: str | None = None
    slingshot: list[SlingshotAnswer]


class ModelInfo(BaseModel):
    """One model.

    Attributes:
        context_length: tokens of the longest prompt and answer together.
        max_output_tokens: longest answer behind the shortest question; more is clamped.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    context_length: int
    max_output_tokens: int


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]
