"""Every error of asking the model that judges answers.

    SlingshotError (in `ssd2.errors`)
    └── JudgeError                 the judge cannot be asked
        ├── JudgeRefused           its endpoint refuses the key, the model or the question
        ├── JudgeUnavailable       its endpoint does not answer, or not now
        └── JudgeReplyInvalid      its endpoint's reply does not follow the protocol

How an error is specified and what its text says is in `ssd2.errors`.
"""

from __future__ import annotations

from ssd2.errors import SlingshotError


class JudgeError(SlingshotError, code="judge_error", grpc="INTERNAL", http=500):
    """The model that judges answers cannot be asked."""


class JudgeRefused(JudgeError, code="judge_refused", grpc="INTERNAL", http=500):
    """The judge's endpoint refuses the key, the model or the question."""


class JudgeUnavailable(JudgeError, code="judge_unavailable", grpc="INTERNAL", http=500):
    """The judge's endpoint does not answer, or not now."""


class JudgeReplyInvalid(JudgeError, code="judge_reply_invalid", grpc="INTERNAL", http=500):
    """The judge's endpoint sent a reply that does not follow the protocol."""
