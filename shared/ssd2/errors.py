"""Every error that Slingshot raises on purpose.

    SlingshotError
    ├── InputError                 what was asked for cannot be done as asked
    │   ├── InvalidParameter       a parameter is outside its range
    │   ├── TokenOutOfRange        a token id is outside the vocabulary
    │   ├── BlockShapeMismatch     a block has the wrong length or order
    │   ├── PromptTooLong          the prompt does not fit the model's context
    │   ├── DocumentsUnreadable    a document or folder cannot be read
    │   ├── NotFound               nothing of that name or number is kept here
    │   └── InsecureLine           a line to another machine would not be encrypted
    ├── ModelError                 a model is missing, broken or not the one expected
    │   ├── ModelNotFound          no checkpoint at that place
    │   ├── CheckpointInvalid      the checkpoint's files do not fit together
    │   ├── ModelMismatch          the core serves another model than was asked for
    │   └── TokenizerMismatch      the two models do not share a tokenizer
    ├── ProtocolError              the other side broke the contract
    │   ├── ProtocolVersionMismatch  the two sides speak different versions
    │   └── ProtocolViolation      a message out of order, or one that makes no sense
    ├── CoreError                  the core cannot answer
    │   ├── CoreUnavailable        nothing answers at that address
    │   ├── CoreLost               the connection broke in the middle of an answer
    │   ├── DemoCoreEnded          the demo's core, which the agent started itself, has ended
    │   ├── CoreTimeout            the core did not answer in time
    │   ├── CoreBusy               the core is at its limit of sessions
    │   ├── CoreLoading            the core is still loading its models
    │   ├── CoreStopping           the core is being stopped, and the answer was not done in time
    │   ├── EngineLost             the core's process that computes has ended
    │   ├── ModelBroken            the core's model gives numbers that are not finite
    │   ├── KeyRefused             the core takes no call without a valid key
    │   ├── SessionLimitReached    the key is at its limit of answers at a time
    │   ├── TokenLimitReached      the key is at its limit of tokens a minute
    │   └── TimestepLimitReached   the key is at its limit of timesteps a minute
    ├── AgentError                 the agent on the device cannot answer
    │   └── AgentBusy              it is at its limit of answers
    ├── JudgeError                 the model that judges answers cannot be asked
    │   ├── JudgeRefused           its endpoint refuses the key, the model or the question
    │   ├── JudgeUnavailable       its endpoint does not answer, or not now
    │   └── JudgeReplyInvalid      what its endpoint sends is not what the protocol says
    └── StoreError                 what the agent keeps on the device cannot be used
        ├── StoreKeyWrong          its key is not at hand, or another one
        ├── StoreUnreadable        its files are damaged or cannot be written
        ├── StoreInUse             another agent has it open
        ├── LedgerUnwritable       the ledger takes no entry, so nothing is sent
        └── KeyringUnusable        the system's keyring does not keep or give a core's key

Every leaf has one stable `code`; its message says what is wrong and what to do about it.
"""

from __future__ import annotations


class SlingshotError(Exception):
    """Base of all errors raised on purpose. Its text is meant for the person at the keyboard.

    The text names no option of one command line: it is read in a terminal, in a browser and by clients of the REST
    endpoint. Each of them adds the remedy that its reader has, by `parameter`.

    Attributes:
        code: stable, for programs.
        retry_after_s: seconds after which the same may be asked again, with hope; None: something has to change first.
        parameter: the setting or the part of the question that has to change; None if it is none, or not one.
        limit: the most that it may be; None if there is no such number.
    """

    code = "slingshot_error"
    retry_after_s: float | None = None

    def __init__(self, message: str, *, parameter: str | None = None, limit: int | None = None) -> None:
        super().__init__(message)
        self.parameter, self.limit = parameter, limit


class InputError(SlingshotError):
    """What was asked for cannot be done as asked."""

    code = "input_error"


class InvalidParameter(InputError):
    """A parameter is outside its range."""

    code = "invalid_parameter"


class TokenOutOfRange(InputError):
    """A token id is outside the vocabulary."""

    code = "token_out_of_range"


class BlockShapeMismatch(InputError):
    """A block of tokens has the wrong length, or is not the one that was due."""

    code = "block_shape_mismatch"


class PromptTooLong(InputError):
    """The prompt, or prompt and answer together, do not fit the model's positions."""

    code = "prompt_too_long"


class DocumentsUnreadable(InputError):
    """A document or a folder of documents cannot be read."""

    code = "documents_unreadable"


class NotFound(InputError):
    """Nothing of that name or number is kept on this device."""

    code = "not_found"


class InsecureLine(InputError):
    """A line to another machine would not be encrypted."""

    code = "insecure_line"


class ModelError(SlingshotError):
    """A model is missing, broken or not the one expected."""

    code = "model_error"


class ModelNotFound(ModelError):
    """There is no checkpoint at that place."""

    code = "model_not_found"


class CheckpointInvalid(ModelError):
    """The files of a checkpoint are damaged or do not fit together."""

    code = "checkpoint_invalid"


class ModelMismatch(ModelError):
    """The core serves another model than the one asked for."""

    code = "model_mismatch"


class TokenizerMismatch(ModelError):
    """The two models do not share a tokenizer, so their logits cannot be mixed."""

    code = "tokenizer_mismatch"


class ProtocolError(SlingshotError):
    """The other side broke the contract of the wire."""

    code = "protocol_error"


class ProtocolVersionMismatch(ProtocolError):
    """The two sides speak different versions of the protocol."""

    code = "protocol_version_mismatch"


class ProtocolViolation(ProtocolError):
    """A message came out of order, or makes no sense."""

    code = "protocol_violation"


class CoreError(SlingshotError):
    """The core cannot answer."""

    code = "core_error"


class CoreUnavailable(CoreError):
    """Nothing answers at the core's address."""

    code = "core_unavailable"


class CoreLost(CoreError):
    """The connection to the core broke in the middle of an answer."""

    code = "core_lost"
    retry_after_s: float | None = 0.0  # None where the device has closed the line itself


class DemoCoreEnded(CoreError):
    """The demo's core, which the agent has started itself, has ended."""

    code = "demo_core_ended"
    retry_after_s: float | None = 1.0  # None where it is not started again


class CoreTimeout(CoreError):
    """The core did not answer in time."""

    code = "core_timeout"


class CoreBusy(CoreError):
    """The core has no free session."""

    code = "core_busy"
    retry_after_s = 1.0


class CoreLoading(CoreError):
    """The core is still loading its models."""

    code = "core_loading"
    retry_after_s = 1.0


class CoreStopping(CoreError):
    """The core is being stopped, and the answer was not done in time."""

    code = "core_stopping"
    retry_after_s = 1.0


class EngineLost(CoreError):
    """The core's process that computes has ended."""

    code = "engine_lost"
    retry_after_s = 1.0


class ModelBroken(CoreError):
    """The core's model gives numbers that are not finite: for one answer, or for all."""

    code = "model_broken"


class KeyRefused(CoreError):
    """The core takes no call without a valid key: there is none, or it is unknown, or revoked."""

    code = "key_refused"


class SessionLimitReached(CoreError):
    """The key that a call came with is at its limit of answers at a time."""

    code = "session_limit_reached"
    retry_after_s = 1.0


class TokenLimitReached(CoreError):
    """The key that a call came with is at its limit of tokens a minute."""

    code = "token_limit_reached"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TimestepLimitReached(CoreError):
    """The key that a call came with is at its limit of timesteps a minute."""

    code = "timestep_limit_reached"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class AgentError(SlingshotError):
    """The agent on the device cannot do what it was asked for."""

    code = "agent_error"


class AgentBusy(AgentError):
    """The agent is at its limit of answers."""

    code = "agent_busy"
    retry_after_s = 2.0


class JudgeError(SlingshotError):
    """The model that judges answers cannot be asked."""

    code = "judge_error"


class JudgeRefused(JudgeError):
    """The judge's endpoint refuses the key, the model or the question."""

    code = "judge_refused"


class JudgeUnavailable(JudgeError):
    """The judge's endpoint does not answer, or not now."""

    code = "judge_unavailable"


class JudgeReplyInvalid(JudgeError):
    """What the judge's endpoint sends is not what the protocol says."""

    code = "judge_reply_invalid"


class StoreError(SlingshotError):
    """What the agent keeps on the device cannot be used."""

    code = "store_error"


class StoreKeyWrong(StoreError):
    """The store's key is not at hand, or is not the one that it was encrypted with."""

    code = "store_key_wrong"


class StoreUnreadable(StoreError):
    """A file of the store is damaged, or the system does not let it be read or written."""

    code = "store_unreadable"


class StoreInUse(StoreError):
    """Another agent has the data folder open."""

    code = "store_in_use"


class LedgerUnwritable(StoreError):
    """The ledger of what leaves the device takes no entry, so nothing is sent."""

    code = "ledger_unwritable"


class KeyringUnusable(StoreError):
    """The system's keyring does not keep a core's key, or does not give it back."""

    code = "keyring_unusable"


SENT_BY_CORES: frozenset[type[SlingshotError]] = frozenset(
    {
        InvalidParameter,
        TokenOutOfRange,
        BlockShapeMismatch,
        PromptTooLong,
        ModelMismatch,
        TokenizerMismatch,
        ProtocolVersionMismatch,
        ProtocolViolation,
        CoreTimeout,
        CoreBusy,
        CoreLoading,
        CoreStopping,
        EngineLost,
        ModelBroken,
        KeyRefused,
        SessionLimitReached,
        TokenLimitReached,
        TimestepLimitReached,
    }
)
"""What a core may refuse an agent with. Any other code that comes from one is not believed: what the agent says of its
own files and of its store is for it alone to say."""
