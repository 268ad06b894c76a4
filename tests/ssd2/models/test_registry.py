"""A family is known by its record alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import DEMO_TOKENIZER, save_ssd_lm

from ssd2.errors import InvalidParameter
from ssd2.models.checkpoint import load_checkpoint, save_checkpoint
from ssd2.models.registry import MODULES, families, family_named

ROOT = Path(__file__).parents[3]
KINDS = r"SSD2|TimeRangeExperts|SSDLM|AutoregressiveLM|SSD2Config|ExpertsConfig|SSDLMConfig|AutoregressiveConfig"
OWN_FILES = {"ssd2_family.py", "ssd2_lane.py", "experts.py", "ssd_lm.py", "autoregressive.py"}


def test_each_family_has_one_record_of_its_own_name() -> None:
    names = [family.name for family in families()]
    assert len(set(names)) == len(names) == len(MODULES)
    assert all(family_named(family.name) is family for family in families())


def test_an_unknown_family_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidParameter, match="no model family 'gru'; there are: ssd-2, ssd-lm, autoregressive"):
        family_named("gru")


def test_a_family_whose_checkpoints_are_not_ours_is_not_written(tmp_path: Path) -> None:
    save_ssd_lm(tmp_path / "model", 1)
    with pytest.raises(InvalidParameter, match="family ssd-lm can be read but not written"):
        save_checkpoint(tmp_path / "other", load_checkpoint(tmp_path / "model").model, DEMO_TOKENIZER.read_text())
    assert not (tmp_path / "other").exists()


def test_nothing_but_a_family_s_own_files_asks_for_the_type_of_a_model() -> None:
    """Training knows one family only."""
    found = []
    for package in ("shared/ssd2", "core_server", "user_agent"):
        for file in (ROOT / package).rglob("*.py"):
            is_own = file.parent.name == "models" and file.name in OWN_FILES
            if is_own or file.parent.name == "training":
                continue
            if re.search(rf"\b(isinstance|issubclass|type)\([^\n]*\b({KINDS})\b", file.read_text()):
                found.append(str(file.relative_to(ROOT)))
    assert found == []
