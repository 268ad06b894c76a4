"""Every error that both sides of Slingshot raise on purpose, and the base of all others.

    SlingshotError
    ├── InputError                 the request cannot be carried out as asked
    │   ├── InvalidParameter       a parameter is outside its range
    │   ├── TokenOutOfRange        a token id is outside the vocabulary
    │   ├── BlockShapeMismatch     a block has the wrong length or order
    │   ├── PromptTooLong          the prompt does not fit the model's context
    │   ├── NotFound               nothing of that name or number is stored here
    │   └── InsecureLine           a connection to another machine would not be encrypted
    ├── ModelError                 a model is missing, broken or not the one expected
    │   ├── ModelNotFound          no checkpoint at that place
    │   ├── DownloadFailed         a model cannot be downloaded
    │   ├── TooLittleMemory        this machine has no memory for the model
    │   ├── CheckpointInvalid      the checkpoint's files do not fit together
    │   ├── ModelMismatch          the core serves another model than the one asked for
    │   └── TokenizerMismatch      the two models do not share a tokenizer
    ├── ProtocolError              the other side broke the contract
    │   ├── ProtocolVersionMismatch  the two sides speak different versions
    │   └── ProtocolViolation      a message is out of order or makes no sense
    └── CoreError                  the core cannot answer
        ├── CoreTimeout            the core did not answer in time
        ├── CoreBusy               the core is at its limit of sessions
        ├── CoreLoading            the core is still loading its models
        ├── CoreStopping           the core is shutting down before the answer is done
        ├── EngineLost             the core's engine process has ended
        ├── ModelBroken            the core's model computes numbers that are not finite
        ├── KeyRefused             the core requires a valid API key
        ├── SessionLimitReached    the key is at its limit of concurrent answers
        ├── TokenLimitReached      the key is at its limit of tokens a minute
        └── TimestepLimitReached   the key is at its limit of timesteps a minute

The device's own errors are in `user_agent.errors`, those of the judge in `ssd2.lab.errors`.

An error is specified once, on its class: the code, the gRPC status, the HTTP status, and whether its text may leave the
core. Its text says what is wrong and what to do about it; the option, field or control that does it is the remedy of
each face (terminal, REST endpoint, page), looked up by code and parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, TypeAlias


# See docs/decisions/039-errors.md.
class SlingshotError(Exception):
    """Base of all errors raised on purpose. Its text is meant for the person who asked.

    The text names no option, command or variable: it is read in a terminal, in a browser and by clients of the REST
    endpoint. Each of them adds the remedy that its reader has.

    Attributes:
        code: stable, for programs.
        grpc_status: name of the status that a call ends with.
        http_status: of the REST endpoint's response.
        is_public: True if a core sends the text to its agents; a device believes no other code of a core.
        retry_after_s: seconds until a retry may succeed; None if something has to change first.
        parameter: the setting or the part of the question that has to change; None if there is not exactly one.
        limit: the highest value that `parameter` may have; None if there is no such number.
    """

    code: ClassVar[str] = "slingshot_error"
    grpc_status: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    is_public: ClassVar[bool] = False
    retry_after_s: float | None = None

    def __init_subclass__(cls, *, code: str, grpc: str, http: int, is_public: bool = False) -> None:
        """Specify an error; a class without a specification cannot be defined."""
        super().__init_subclass__()
        cls.code, cls.grpc_status, cls.http_status, cls.is_public = code, grpc, http, is_public

    def __init__(
        self,
        message: str,
        *,
        parameter: str | None = None,
        limit: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.parameter, self.limit = parameter, limit
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class InputError(SlingshotError, code="input_error", grpc="INVALID_ARGUMENT", http=400):
    """The request cannot be carried out as asked."""


class InvalidParameter(InputError, code="invalid_parameter", grpc="INVALID_ARGUMENT", http=400, is_public=True):
    """A parameter is outside its range."""


class TokenOutOfRange(InputError, code="token_out_of_range", grpc="INVALID_ARGUMENT", http=400, is_public=True):
    """A token id is outside the vocabulary."""


class BlockShapeMismatch(InputError, code="block_shape_mismatch", grpc="INVALID_ARGUMENT", http=400, is_public=True):
    """A block of tokens has the wrong length, or is not the one that was due."""


class PromptTooLong(InputError, code="prompt_too_long", grpc="INVALID_ARGUMENT", http=400, is_public=True):
    """The prompt, or prompt and answer together, do not fit the model's positions."""


class NotFound(InputError, code="not_found", grpc="INTERNAL", http=404):
    """Nothing of that name or number is stored here."""


class InsecureLine(InputError, code="insecure_line", grpc="INTERNAL", http=400):
    """A connection to another machine would not be encrypted."""


class ModelError(SlingshotError, code="model_error", grpc="INTERNAL", http=503):
    """A model is missing, broken or not the one expected."""


class ModelNotFound(ModelError, code="model_not_found", grpc="INTERNAL", http=503):
    """There is no checkpoint at that place."""


class DownloadFailed(ModelError, code="download_failed", grpc="INTERNAL", http=503):
    """A model cannot be downloaded, or came damaged. What came whole is kept for the next try."""


class TooLittleMemory(ModelError, code="too_little_memory", grpc="INTERNAL", http=503):
    """A model takes more memory than this machine has free."""


class CheckpointInvalid(ModelError, code="checkpoint_invalid", grpc="INTERNAL", http=503):
    """The files of a checkpoint are damaged or do not fit together."""


class ModelMismatch(ModelError, code="model_mismatch", grpc="FAILED_PRECONDITION", http=503, is_public=True):
    """The core serves another model than the one asked for."""


class TokenizerMismatch(ModelError, code="tokenizer_mismatch", grpc="FAILED_PRECONDITION", http=503, is_public=True):
    """The two models do not share a tokenizer, so their logits cannot be mixed."""


class ProtocolError(SlingshotError, code="protocol_error", grpc="INVALID_ARGUMENT", http=502):
    """The other side broke the contract of the wire."""


class ProtocolVersionMismatch(
    ProtocolError, code="protocol_version_mismatch", grpc="FAILED_PRECONDITION", http=502, is_public=True
):
    """The two sides speak different versions of the protocol."""


class ProtocolViolation(ProtocolError, code="protocol_violation", grpc="INVALID_ARGUMENT", http=502, is_public=True):
    """A message came out of order, or makes no sense."""


class CoreError(SlingshotError, code="core_error", grpc="UNAVAILABLE", http=503):
    """The core cannot answer."""


class CoreTimeout(CoreError, code="core_timeout", grpc="DEADLINE_EXCEEDED", http=504, is_public=True):
    """The core did not answer in time."""


class CoreBusy(CoreError, code="core_busy", grpc="RESOURCE_EXHAUSTED", http=429, is_public=True):
    """The core has no free session."""

    retry_after_s = 1.0


class CoreLoading(CoreError, code="core_loading", grpc="UNAVAILABLE", http=503, is_public=True):
    """The core is still loading its models."""

    retry_after_s = 1.0


class CoreStopping(CoreError, code="core_stopping", grpc="UNAVAILABLE", http=503, is_public=True):
    """The core is shutting down before the answer is done."""

    retry_after_s = 1.0


class EngineLost(CoreError, code="engine_lost", grpc="UNAVAILABLE", http=503, is_public=True):
    """The core's engine process has ended."""

    retry_after_s = 1.0


class ModelBroken(CoreError, code="model_broken", grpc="DATA_LOSS", http=503, is_public=True):
    """The core's model computes numbers that are not finite: for one answer, or for all."""


class KeyRefused(CoreError, code="key_refused", grpc="UNAUTHENTICATED", http=503, is_public=True):
    """The core requires a valid API key: there is none, or it is unknown or revoked."""


class SessionLimitReached(CoreError, code="session_limit_reached", grpc="RESOURCE_EXHAUSTED", http=429, is_public=True):
    """The key of the call is at its limit of concurrent answers."""

    retry_after_s = 1.0


class TokenLimitReached(CoreError, code="token_limit_reached", grpc="RESOURCE_EXHAUSTED", http=429, is_public=True):
    """The key of the call is at its limit of tokens a minute."""


class TimestepLimitReached(
    CoreError, code="timestep_limit_reached", grpc="RESOURCE_EXHAUSTED", http=429, is_public=True
):
    """The key of the call is at its limit of timesteps a minute."""


def all_kinds(kind: type[SlingshotError] = SlingshotError) -> Iterator[type[SlingshotError]]:
    """Yield an error's class and all below it, of the modules imported so far."""
    yield kind
    for child in kind.__subclasses__():
        yield from all_kinds(child)


SENT_BY_CORES: frozenset[type[SlingshotError]] = frozenset(kind for kind in all_kinds() if kind.is_public)
"""The errors that a core may send. A device believes no other code of one: only the agent itself speaks of its own
files and its store."""

PARAMETERS_SENT_BY_CORES: frozenset[str] = frozenset(
    {"block_size", "logits", "max_tokens", "model", "question", "seed", "self_conditioning", "simplex_value", "steps"}
    | {"user_model"}
)
"""The parameters that a core may name. A device believes no other: the remedy for `insecure` would be to allow it."""

ANY = "*"
"""Stands for every code in a table of remedies."""

Remedies: TypeAlias = Mapping[tuple[str, str | None], str]
"""Remedies of one face, by the code (or `ANY`) and the parameter of an error."""


def with_remedies(error: SlingshotError, remedies: Remedies) -> str:
    """Return the text of an error, followed by its remedy if the face has one."""
    remedy = remedies.get((error.code, error.parameter)) or remedies.get((ANY, error.parameter))
    return f"{error} ({remedy})" if remedy else str(error)
