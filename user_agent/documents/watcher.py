"""Keeps the documents in sync with their files while the agent runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from watchfiles import watch

from ssd2.errors import SlingshotError

log = logging.getLogger(__name__)

LONGEST_S = 60.0
"""A sync is due after so long without a change seen: some file systems, as those of a network, tell of none."""

_DEBOUNCE_MS = 500
_POLL_MS = 500


class Watcher:
    """A thread that syncs at once, after changes of files or links, and every `LONGEST_S` seconds."""

    def __init__(self, paths: Callable[[], Sequence[Path]], sync: Callable[[], object]) -> None:
        """Begin.

        Args:
            paths: says what to watch.
            sync: brings the store up to the files; called in the thread.
        """
        self._paths, self._sync = paths, sync
        self._wake, self._is_stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="documents-watcher", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Sync soon: the links have changed."""
        self._wake.set()

    def stop(self) -> None:
        """End, once `sync` returns."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.clear()
            try:
                self._sync_until_changed()
            except SlingshotError as error:
                log.warning("the documents cannot be kept in sync; next try in %.0f s: %s", LONGEST_S, error)
                self._wake.wait(LONGEST_S)

    def _sync_until_changed(self) -> None:
        """Watch, then sync, so that no change falls between; back at a change, as a replaced file needs a new watch."""
        paths = [path for path in self._paths() if path.exists()]
        due = time.monotonic()
        for changes in self._changes(paths):
            if changes:
                return
            if time.monotonic() >= due:
                self._sync()
                due = time.monotonic() + LONGEST_S

    def _changes(self, paths: Sequence[Path]) -> Iterator[object]:
        """Changes as they come, and nothing now and then; nothing alone where the system watches no more files."""
        try:
            yield from watch(
                *paths,
                watch_filter=None,
                debounce=_DEBOUNCE_MS,
                rust_timeout=_POLL_MS,
                yield_on_timeout=True,
                stop_event=self._wake,
                raise_interrupt=False,
            )
        except OSError as error:
            log.warning("the documents cannot be watched for changes; checking every %.0f s: %s", LONGEST_S, error)
            while not self._wake.is_set():
                yield None
                self._wake.wait(LONGEST_S)
