"""Loading an engine's models, and what the log says meanwhile: tens of gigabytes take minutes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core_server.catalogue.engine_messages import Start
from core_server.engine.loaded_model import LoadedModel
from core_server.engine.ranks import Ranks
from ssd2.models.checksums import SHA256SUMS

STILL_LOADING_S = 30.0
"""How often the log says that a model is still being loaded."""

_log = logging.getLogger(__name__)


def load_models(start: Start, ranks: Ranks) -> list[LoadedModel]:
    """Load all models of an engine, or this rank's shares of them; the first rank says so in the log.

    Raises:
        SlingshotError: if one cannot be loaded; see `LoadedModel.load`.
    """
    return [_load(name, folder, start, ranks) for name, folder in start.models.items()]


def _load(name: str, folder: Path, start: Start, ranks: Ranks) -> LoadedModel:
    level = logging.INFO if ranks.is_first else logging.DEBUG
    device, began = start.devices[ranks.rank], time.monotonic()
    stored_bytes = sum(file.stat().st_size for file in folder.glob("*") if file.is_file())
    _log.log(level, "loading the model %s from %s, %.1f MB", name, folder, stored_bytes / 1e6)
    if folder.is_dir() and not (folder / SHA256SUMS).exists():
        _log.log(level, "%s has no %s, so its files were not verified", folder, SHA256SUMS)
    with _still_loading(name, level):
        model = LoadedModel.load(
            folder, name, device, ranks.shard, start.precision, start.logits_formats, start.max_context
        )
    took_s, parameters = time.monotonic() - began, model.checkpoint.parameters
    _log.log(
        level,
        "loaded the model %s in %.1f s: %d parameters in %s on %s",
        name,
        took_s,
        parameters,
        start.precision,
        device,
    )
    return model


@contextmanager
def _still_loading(name: str, level: int) -> Iterator[None]:
    """Say so now and then, until the block is left."""
    is_over, began = threading.Event(), time.monotonic()

    def say() -> None:
        while not is_over.wait(STILL_LOADING_S):
            _log.log(level, "still loading the model %s after %.0f s", name, time.monotonic() - began)

    saying = threading.Thread(target=say, name="still-loading", daemon=True)
    saying.start()
    try:
        yield
    finally:
        is_over.set()
        saying.join()
