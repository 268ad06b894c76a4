"""The model of sentence vectors, if it was downloaded; loaded when it is first needed."""

from __future__ import annotations

import threading
from pathlib import Path

from user_agent.documents.e5 import SentenceVectors


class Embedding:
    """A file that may appear while the agent runs. For any number of threads."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._model: SentenceVectors | None = None

    @property
    def model(self) -> SentenceVectors | None:
        """The model; None if its file is not there.

        Raises:
            CheckpointInvalid: if the file is damaged.
        """
        with self._lock:
            if self._model is None and self._file is not None and self._file.is_file():
                self._model = SentenceVectors(self._file)
            return self._model
