"""Imports go one way, and it is true of what is really loaded, not only of what is written."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _loaded_by(*modules: str) -> set[str]:
    code = f"import sys, {', '.join(modules)}; print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    ("modules", "never"),
    [
        (
            ("ssd2.algorithm.sampler", "ssd2.algorithm.collaboration", "ssd2.wire.codec", "ssd2.training.trainer"),
            ("core_server", "user_agent"),
        ),
        (("core_server.frontend.server",), ("user_agent", "typer", "rich", "torch", "numpy", "tokenizers")),
        (("user_agent.answering.run", "user_agent.commands.app"), ("core_server", "grpc_health.v1", "transformers")),
        (
            ("user_agent.documents.collection", "user_agent.documents.watcher", "user_agent.documents.reader"),
            ("grpc", "torch", "ssd2.wire", "user_agent.line.client", "pypdfium2", "docx", "bs4"),
        ),
        (("user_agent.documents.extraction_worker",), ("grpc", "torch", "ssd2.wire", "apsw", "keyring")),
        (("user_agent.commands.app",), ("apsw", "keyring", "watchfiles", "pypdfium2", "docx", "bs4")),
        (("user_agent.store.tuned", "user_agent.tuning.questions"), ("grpc", "torch", "ssd2.wire")),
        (("user_agent.tuning.command",), ("core_server", "matplotlib", "transformers")),
        (("ssd2.algorithm.sampler", "ssd2.algorithm.collaboration", "ssd2.models.ssd2"), ("grpc", "google.protobuf")),
        (
            ("ssd2.lab.judge", "ssd2.lab.judge_report", "ssd2.lab.text_report"),
            ("torch", "matplotlib", "httpx2"),
        ),
        (
            ("ssd2.errors", "ssd2.cli", "user_agent.commands.app", "core_server.config", "core_server.__main__"),
            ("torch", "numpy"),
        ),
    ],
)
def test_a_fresh_process_loads_nothing_it_must_not(modules: tuple[str, ...], never: tuple[str, ...]) -> None:
    loaded = _loaded_by(*modules)
    assert set(modules) <= loaded
    assert {name for name in loaded if any(name == n or name.startswith(f"{n}.") for n in never)} == set()
