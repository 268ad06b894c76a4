"""Every error that only the agent on the device raises.

    SlingshotError (in `ssd2.errors`)
    ├── InputError
    │   └── DocumentsUnreadable    a document or folder cannot be read
    ├── CoreError
    │   ├── CoreUnavailable        nothing answers at the core's address
    │   ├── CoreLost               the connection broke in the middle of an answer
    │   └── OwnCoreEnded           a core that the agent started itself has ended
    ├── AgentError                 the agent cannot answer
    │   ├── AgentBusy              the agent is at its limit of answers
    │   ├── DownloadRunning        another download is running
    │   └── LoginItemRefused       the system does not start the agent at login
    └── StoreError                 the agent's data on the device cannot be used
        ├── StoreKeyWrong          the encryption key is missing or another one
        ├── StoreUnreadable        a file is damaged, or the system refuses access
        ├── StoreInUse             another agent has the data folder open
        ├── LedgerUnwritable       the ledger takes no entry, so nothing is sent
        └── KeyringUnusable        the system's keyring does not store or return a core's key

How an error is specified and what its text says is in `ssd2.errors`.
"""

from __future__ import annotations

from ssd2.errors import CoreError, InputError, SlingshotError


class DocumentsUnreadable(InputError, code="documents_unreadable", grpc="INTERNAL", http=400):
    """A document or a folder of documents cannot be read."""


class CoreUnavailable(CoreError, code="core_unavailable", grpc="UNAVAILABLE", http=503):
    """Nothing answers at the core's address."""


class CoreLost(CoreError, code="core_lost", grpc="UNAVAILABLE", http=503):
    """The connection to the core broke in the middle of an answer."""

    retry_after_s: float | None = 0.0  # None where the device has closed the line itself


class OwnCoreEnded(CoreError, code="own_core_ended", grpc="UNAVAILABLE", http=503):
    """A core that the agent has started itself has ended."""

    retry_after_s: float | None = 1.0  # None where it is not started again


class AgentError(SlingshotError, code="agent_error", grpc="INTERNAL", http=500):
    """The agent on the device cannot answer."""


class AgentBusy(AgentError, code="agent_busy", grpc="RESOURCE_EXHAUSTED", http=429):
    """The agent is at its limit of answers."""

    retry_after_s = 2.0


class DownloadRunning(AgentError, code="download_running", grpc="FAILED_PRECONDITION", http=409):
    """Another download is running."""


class LoginItemRefused(AgentError, code="login_item_refused", grpc="FAILED_PRECONDITION", http=500):
    """The system does not take up the entry that starts the agent at login."""


class StoreError(SlingshotError, code="store_error", grpc="INTERNAL", http=500):
    """The agent's data on the device cannot be used."""


class StoreKeyWrong(StoreError, code="store_key_wrong", grpc="INTERNAL", http=500):
    """The store's encryption key is missing, or is not the one that it was encrypted with."""


class StoreUnreadable(StoreError, code="store_unreadable", grpc="INTERNAL", http=500):
    """A file of the store is damaged, or the system refuses to read or write it."""


class StoreInUse(StoreError, code="store_in_use", grpc="INTERNAL", http=500):
    """Another agent has the data folder open."""


class LedgerUnwritable(StoreError, code="ledger_unwritable", grpc="INTERNAL", http=500):
    """The ledger of what leaves the device takes no entry, so nothing is sent."""


class KeyringUnusable(StoreError, code="keyring_unusable", grpc="INTERNAL", http=500):
    """The system's keyring does not store a core's key, or does not return it."""
