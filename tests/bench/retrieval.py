"""How long a search over many passages takes, with made-up sentences and vectors.

    PYTHONPATH=shared:. python -m tests.bench.retrieval --passages 100000

Prints one JSON object: milliseconds of a search without the question's own vector, which takes as long however many
passages there are.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from itertools import accumulate
from pathlib import Path

import numpy as np

from user_agent.documents.formats.section import Section
from user_agent.documents.store import DocumentStore, Reading
from user_agent.evaluation.retrieval_questions import retrieval_questions
from user_agent.store.encryption_key import StoreKey

DIMENSIONS, PASSAGES_PER_DOCUMENT, WORDS_PER_PASSAGE, VOCABULARY = 384, 50, 30, 60_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=100_000)
    args = parser.parse_args()
    draws = random.Random(1)
    questions = [one.text for one in retrieval_questions()]
    known = sorted({word for text in questions for word in text.split()})
    vocabulary = known + [
        "".join(draws.choices("abcdefghiklmnoprstuvw", k=draws.randint(3, 12))) for _ in range(VOCABULARY)
    ]
    draws.shuffle(vocabulary)
    weights = list(accumulate(1 / rank for rank in range(1, len(vocabulary) + 1)))  # Zipf's law
    with tempfile.TemporaryDirectory() as folder:
        store = DocumentStore(Path(folder) / "documents.sqlite", StoreKey("file", b"raw:" + b"5a" * 32))
        started = time.monotonic()
        for number in range(args.passages // PASSAGES_PER_DOCUMENT):
            texts = (
                " ".join(draws.choices(vocabulary, cum_weights=weights, k=WORDS_PER_PASSAGE))
                for _ in range(PASSAGES_PER_DOCUMENT)
            )
            pieces = [Section(text, line) for line, text in enumerate(texts, 1)]
            store.put_upload(Reading(Path(f"{number}.txt"), "indexed", sha256=str(number), pieces=pieces), b"")
        indexed_s = time.monotonic() - started
        noise = np.random.default_rng(1)
        while some := store.without_vector(10_000):
            vectors = noise.normal(size=(len(some), DIMENSIONS)).astype(np.float32)
            store.put_vectors([one for one, _ in some], vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        question = np.ones(DIMENSIONS, np.float32) / DIMENSIONS**0.5
        store.find("first", None, question)  # reads the vectors into memory
        figures = {"passages": args.passages, "indexed_s": round(indexed_s, 1)}
        for name, vector in (("words", None), ("fused", question)):
            took = []
            for text in questions:
                before = time.perf_counter()
                store.find(text, None, vector)
                took.append(1000 * (time.perf_counter() - before))
            figures |= {
                f"{name}_p50_ms": round(float(np.percentile(took, 50)), 1),
                f"{name}_p95_ms": round(float(np.percentile(took, 95)), 1),
            }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
