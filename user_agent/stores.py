"""All that the agent keeps on the device, opened together with one key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ssd2.demo.paths import NOTES
from ssd2.models.embeddings import MULTILINGUAL_E5
from user_agent.config import AgentConfig
from user_agent.documents.collection import Collection
from user_agent.store.answers import AnswerRecords
from user_agent.store.crossed import Crossed
from user_agent.store.data_folder import make_data_folder
from user_agent.store.database import open_database
from user_agent.store.encryption_key import store_key
from user_agent.store.history import History
from user_agent.store.ledger import Ledger
from user_agent.store.tuned import config_folder

LEDGER = "ledger.sqlite"
HISTORY = "history.sqlite"
CROSSED = "crossed.sqlite"
ANSWERS = "answers.sqlite"


@dataclass(frozen=True)
class Stores:
    """Stores of the agent.

    Attributes:
        documents: linked and uploaded.
        ledger: what left the device.
        history: conversations.
        crossed: what of the answers never crossed.
        answers: which words of documents crossed with each answer.
        key_source: where the key comes from: keyring, passphrase or file.
    """

    documents: Collection
    ledger: Ledger
    history: History
    crossed: Crossed
    answers: AnswerRecords
    key_source: str


def unlink_samples(documents: Collection) -> bool:
    """Unlink the demo's sample notes: only its own models can read them, and others would take them for the user's.

    Returns:
        True if they were linked.
    """
    samples = [link.id for link in documents.links() if link.path == NOTES.resolve()]
    for link in samples:
        documents.unlink(link)
    return bool(samples)


def forget_chat(stores: Stores, conversation: str) -> list[str]:
    """Delete a chat, and what says in words what crossed for its answers; the ledger's messages stay.

    Returns:
        The ids of its answers.

    Raises:
        NotFound: if there is none of that id.
    """
    traces = stores.history.traces(conversation)
    stores.history.delete(conversation)
    stores.answers.forget(traces)
    return traces


def forget_quotes(stores: Stores, source: Path) -> list[str]:
    """Delete the answers for which something of a document or a folder was read, and their records.

    Returns:
        The ids of these answers.
    """
    messages = stores.history.answers_with([str(source)])
    traces = [*(one.trace for one in messages if one.trace), *stores.answers.quoting([str(source)])]
    stores.history.delete_messages(one.id for one in messages)
    stores.answers.forget(traces)
    return list(dict.fromkeys(traces))


@contextmanager
def open_stores(config: AgentConfig) -> Iterator[Stores]:
    """Open what an agent keeps, also while another one runs that holds the folder.

    Raises:
        StoreError: if something of it cannot be opened.
    """
    make_data_folder(config.data_dir)
    passphrase = config.passphrase.get_secret_value() if config.passphrase else None
    key = store_key(config_folder(), passphrase)
    with (
        closing(Collection(config.data_dir, key, MULTILINGUAL_E5.path)) as documents,
        closing(open_database(config.data_dir / LEDGER, key)) as entries,
        closing(open_database(config.data_dir / HISTORY, key)) as messages,
        closing(open_database(config.data_dir / CROSSED, key)) as withheld,
        closing(open_database(config.data_dir / ANSWERS, key)) as records,
    ):
        history = History(messages)
        crossed = Crossed(withheld, history.answers)
        yield Stores(documents, Ledger(entries), history, crossed, AnswerRecords(records), key.source)
