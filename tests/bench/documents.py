"""How fast documents are read in and searched, encrypted and not."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from random import Random

from tests.bench.progress import say
from user_agent.documents.collection import Collection
from user_agent.documents.formats.section import Section
from user_agent.documents.store import DocumentStore, Reading
from user_agent.store.encryption_key import StoreKey

WORDS = 30_000
"""Distinct words, the n-th used in proportion to 1/n, as in natural text."""

_SENTENCE_WORDS = 12
_PASSAGES_A_DOCUMENT = 50
_KEYS = {"none": None, "raw": StoreKey("file", b"raw:" + b"5a" * 32)}


def run(*, documents: int, document_bytes: int, passages: int, queries: int) -> Iterator[dict[str, object]]:
    """Measure, with and without encryption.

    Args:
        documents: .txt files to read in.
        document_bytes: of each.
        passages: in the store that is searched.
        queries: questions of 7 words that come as often as in the text.
    """
    for name, key in _KEYS.items():
        with tempfile.TemporaryDirectory() as folder:
            say(f"documents: encryption {name}")
            ingest = _ingest(Path(folder), key, documents, document_bytes)
            yield {"encryption": name, **ingest, **_search(Path(folder), key, passages, queries)}


def _ingest(folder: Path, key: StoreKey | None, documents: int, document_bytes: int) -> dict[str, object]:
    linked, text = folder / "linked", _Text(0)
    linked.mkdir()
    for number in range(documents):
        (linked / f"{number}.txt").write_text(text.of(document_bytes))
    library = Collection(folder, key)
    library.link(linked)
    started = time.perf_counter()
    done = library.sync()
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    library.sync()
    unchanged_s = time.perf_counter() - started
    library.close()
    return {
        "documents": done.indexed,
        "documents_per_s": round(done.indexed / seconds, 1),
        "unchanged_per_s": round(done.indexed / unchanged_s),
    }


def _search(folder: Path, key: StoreKey | None, passages: int, queries: int) -> dict[str, object]:
    store, text = DocumentStore(folder / "searched.sqlite", key), _Text(1)
    for number in range(passages // _PASSAGES_A_DOCUMENT):
        pieces = [Section(text.sentences(3), 1) for _ in range(_PASSAGES_A_DOCUMENT)]
        store.put_upload(Reading(Path(f"{number}.txt"), "indexed", sha256=str(number), pieces=pieces), b"")
    seconds = []
    for _ in range(queries):
        question = " ".join(text.words(7))
        started = time.perf_counter()
        store.search(question)
        seconds.append(time.perf_counter() - started)
    store.close()
    ranked = statistics.quantiles(seconds, n=20, method="inclusive")
    return {
        "passages": passages,
        "search_ms_median": round(1000 * statistics.median(seconds), 2),
        "search_ms_p95": round(1000 * ranked[-1], 2),
        "search_ms_max": round(1000 * max(seconds), 2),
    }


class _Text:
    """Random text with the word frequencies of natural text."""

    def __init__(self, seed: int) -> None:
        self._random, syllables = Random(seed), Random(7)
        letters = ("bcdfghklmnprst", "aeiou")
        self._words = [
            "".join(syllables.choice(kind) for _ in range(syllables.randint(1, 4)) for kind in letters)
            for _ in range(WORDS)
        ]
        self._weights = list(accumulate(1 / rank for rank in range(1, WORDS + 1)))

    def words(self, count: int) -> list[str]:
        return self._random.choices(self._words, cum_weights=self._weights, k=count)

    def sentences(self, count: int) -> str:
        return " ".join(f"{' '.join(self.words(_SENTENCE_WORDS)).capitalize()}." for _ in range(count))

    def of(self, size_bytes: int) -> str:
        text = ""
        while len(text) < size_bytes:
            text += f"{self.sentences(5)}\n"
        return text[:size_bytes]
