"""Requests and answers of OpenAI's routes; settings of the answer that OpenAI has no name for are in `slingshot`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

from ssd2.algorithm.params import LambdaUser
from ssd2.models.chat import Message, Role
from user_agent.answering.request import MAX_PRIVATE_CONTEXT, AnswerSettings, DocumentId
from user_agent.api.errors import ApiError
from user_agent.fields import Setting, settings_of

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
}
"""Parameters that would change the answer and that are not supported, with the values that ask for nothing."""

ACCEPTED = {"user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier"}
"""Parameters that change nothing of the answer."""


SETTINGS = tuple(settings_of(AnswerSettings).values())


class StreamOptions(BaseModel):
    """Options of a stream's end."""

    model_config = ConfigDict(extra="allow")
    include_usage: bool | None = None


_Model = TypeVar("_Model", bound=BaseModel)


def _with_fields(settings: Iterable[Setting]) -> Callable[[type[_Model]], type[_Model]]:
    """Give a request's model a field for each of these settings; what a request leaves out is as configured."""

    def extend(model: type[_Model]) -> type[_Model]:
        fields = {
            setting.face.openai or setting.name: (
                Annotated[setting.info.annotation, *setting.info.metadata] | None,
                Field(default=None, description=setting.text),
            )
            for setting in settings
        }
        return create_model(model.__name__, __base__=model, __module__=__name__, __doc__=model.__doc__, **fields)  # type: ignore[call-overload, no-any-return]

    return extend


_PRIVATE = "slingshot.private"
_SPEAKERS = {"user": "User: ", "assistant": "Assistant: "}

PrivateText = Annotated[str, Field(max_length=MAX_PRIVATE_CONTEXT)]


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="allow")
    type: Literal["text"]
    text: Annotated[str, Field(max_length=100_000)]


def _as_one(content: str | list[TextPart] | None) -> str:
    """Join the parts of a message."""
    return "\n".join(part.text for part in content) if isinstance(content, list) else content or ""


class PrivateMessage(BaseModel):
    """A message that only the user model reads."""

    model_config = ConfigDict(extra="allow")
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: PrivateText | list[TextPart]

    @property
    def as_text(self) -> str:
        """The message as the user model reads it, with who said it where that was a person or a model."""
        return f"{_SPEAKERS.get(self.role, '')}{_as_one(self.content)}"


_OPENAI = [setting for setting in SETTINGS if setting.face.openai]
_OWN = [setting for setting in SETTINGS if not setting.face.openai]


@_with_fields(_OWN)
class SlingshotOptions(BaseModel):
    """Settings of the answer that OpenAI's requests do not have; an omitted one has the agent's configured value."""

    model_config = ConfigDict(extra="forbid")
    private: Annotated[
        PrivateText | Annotated[list[PrivateText | PrivateMessage], Field(max_length=1000)] | None,
        Field(
            description="Text, texts or messages that only the user model reads, before the passages of documents. "
            "Never sent to the core nor stored; an answer may quote it. Takes the place of private_context."
        ),
    ] = None
    collections: Annotated[
        list[DocumentId] | None,
        Field(max_length=1000, description="Ids of links whose documents to search, in place of documents."),
    ] = None

    def check(self) -> None:
        """Refuse two names for one thing.

        Raises:
            ApiError: naming the field.
        """
        if self.private is not None and self.private_context is not None:  # type: ignore[attr-defined]
            raise ApiError(400, "invalid_value", "private takes the place of private_context; send one", _PRIVATE)
        if self.collections is not None and self.documents is not None:  # type: ignore[attr-defined]
            message = "collections take the place of documents; send one of them"
            raise ApiError(400, "invalid_value", message, "slingshot.collections")

    @property
    def private_text(self) -> str | None:
        """What only the user model reads, as one text; None if it was not given.

        Raises:
            ApiError: if it is too long.
        """
        if self.private is None:
            return None
        parts = [self.private] if isinstance(self.private, str) else self.private
        text = "\n\n".join(part if isinstance(part, str) else part.as_text for part in parts)
        if len(text) > MAX_PRIVATE_CONTEXT:
            message = f"{len(text)} characters of private text are too many; send at most {MAX_PRIVATE_CONTEXT}"
            raise ApiError(400, "invalid_value", message, _PRIVATE)
        return text


# See docs/decisions/025-the-rest-endpoint.md.
class Generation(BaseModel):
    """Fields of both routes, in addition to the settings that OpenAI's requests have."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    model: Annotated[str, Field(max_length=200, examples=[MODEL])]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    slingshot: SlingshotOptions | None = None

    def given(self) -> dict[str, Any]:
        """Return the settings of the answer that the request has, by their names.

        Raises:
            ApiError: if they contradict each other.
        """
        own, openai = self.slingshot, {setting.name: getattr(self, setting.face.openai) for setting in _OPENAI}
        found = {**openai, **{setting.name: getattr(own, setting.name) for setting in _OWN if own}}
        if own and own.private is not None:
            found["private_context"] = own.private_text
        return {name: value for name, value in found.items() if value is not None}

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
        if self.stream_options and not self.stream:
            raise ApiError(400, "invalid_value", "stream_options applies only to streams; set stream", "stream_options")
        if self.slingshot:
            self.slingshot.check()
        return sorted(set(extra) - set(NEUTRAL) - ACCEPTED)


def _equal(given: Any, neutral: Any) -> bool:
    """Equal and of the same sort: 0 is not False."""
    return given == neutral and isinstance(given, bool) == isinstance(neutral, bool)


_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Roles of chat templates, by the roles that clients send."""


class ChatMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="allow")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[str, Field(max_length=100_000)] | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """Its parts as one text."""
        return _as_one(self.content)


@_with_fields(_OPENAI)
class ChatRequest(Generation):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None

    def given(self) -> dict[str, Any]:
        """See `Generation.given`; the longest answer has two names here, the older and the newer one."""
        given = super().given()
        if (newer := self.max_completion_tokens) is not None and given.setdefault("max_tokens", newer) != newer:
            message = "max_tokens and max_completion_tokens are different; give one of them"
            raise ApiError(400, "invalid_value", message, "max_completion_tokens")
        return given

    def instruction(self) -> str:
        """The last message, which has to be the user's: what both models see.

        Raises:
            ApiError: if it is another one's, or empty.
        """
        last = self.messages[-1]
        if last.role != "user" or not last.text.strip():
            raise ApiError(400, "invalid_value", "the last message must be the user's and contain text", "messages")
        return last.text

    def history(self) -> tuple[Message, ...]:
        """The messages before the last one that a model can read."""
        said = ((_ROLES.get(message.role), message.text) for message in self.messages[:-1])
        return tuple(Message(role, text) for role, text in said if role)

    def check(self) -> list[str]:
        """See `Generation.check`; messages of tools are named too, as no model here calls one."""
        return [*super().check(), *sorted({f"{one.role} messages" for one in self.messages if one.role not in _ROLES})]


@_with_fields(_OPENAI)
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


class Warned(BaseModel):
    """What a client should know about its request.

    Attributes:
        code: stable code of the warning.
        message: what is wrong, and what to do about it.
        param: field of the request that it is about.
    """

    code: str
    message: str
    param: str


class Told(BaseModel):
    """What whoever runs the core now knows.

    Attributes:
        says: it as a sentence.
        lead: beginning of the sentence, before the words; without words all of it.
        words: of documents and private context in the answer: `text`, `source`, `place`.
    """

    says: str
    lead: str
    words: list[dict[str, str]]


class SlingshotAnswer(BaseModel):
    """Fields of an answer beyond OpenAI's.

    Attributes:
        trace: id for /v1/traces/{id}/events.
        citations: passages that the user model read, as it read them.
        conflicts: where two passages disagree, if the request cites tokens, else null: position and length in tokens,
            text, and for each of the passages its index in citations and what it would say.
        left_out: places of the passages that were found but did not fit.
        nothing_found: whether documents were searched and nothing in them seemed to be about the question.
        max_tokens: longest answer that was allowed.
        clamped_from: the requested or configured length if the question leaves no room for it; else null.
        left_out_turns: number of earlier turns that the user model was not given: the oldest, or all where the models
            read one question at a time.
        private_context: how much of it the user model was given: whole, in part (the sentences that fit, those that
            match the question before others) or left out; null if the request has none.
        told: what whoever runs the core now knows; null if nothing was sent.
        has_crossed: whether the core has all of the answer. Of another one, a later turn shows it only what it has.
        lambda_user: λ, or the rule in its place.
        tokens: each with its probabilities in the models, the side that led there, λ of its position, and, if the
            request cites tokens, the index in citations of its passage ("private context", or null for none).
        figures: timesteps, bytes and seconds.
        warnings: what the client should know about its request.
    """

    trace: str
    lambda_user: LambdaUser
    alpha: float
    citations: list[dict[str, Any]]
    conflicts: list[dict[str, Any]] | None
    left_out: list[dict[str, Any]]
    nothing_found: bool = False
    max_tokens: int
    clamped_from: int | None
    left_out_turns: int
    private_context: Literal["whole", "in part", "left out"] | None
    has_crossed: bool
    told: Told | None
    tokens: list[dict[str, Any]]
    figures: dict[str, Any]
    warnings: list[Warned]


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
        max_output_tokens: longest answer after the shortest question; more is clamped.
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
