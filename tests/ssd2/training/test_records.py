"""Training text from files and data sets: what is read, and what is said of bad input."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from ssd2.errors import InvalidParameter
from ssd2.training.records import PIECE_CHARACTERS, DataParams, Record, read_records

ROWS = [{"instruction": f"Do {i}", "context": "", "response": f"Did {i}", "category": "open_qa"} for i in range(30)]


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(data: DataParams, folder: Path, start: int = 0) -> list[str]:
    return [record.values[0] for record in read_records(data, folder, start)]


def test_text_files_are_read_by_name_and_in_pieces_of_whole_lines(tmp_path: Path) -> None:
    long = "".join(f"This is line {i} of the second file.\n" for i in range(300))
    (tmp_path / "b.txt").write_text(long)
    (tmp_path / "a.txt").write_text("The first file.\n")
    (tmp_path / "c.md").write_text("Not this one.\n")
    records = list(read_records(DataParams(text=("*.txt",)), tmp_path))
    assert records[0] == Record(("The first file.\n",))
    assert "".join(record.values[0] for record in records[1:]) == long
    assert [record.is_end for record in records[1:]] == [False] * (len(records) - 2) + [True]
    assert all(record.values[0].endswith("\n") for record in records)
    assert all(PIECE_CHARACTERS <= len(record.values[0]) < 2 * PIECE_CHARACTERS for record in records[1:-1])
    assert list(read_records(DataParams(text=(str(tmp_path / "*.txt"),)), Path("/"), 2)) == records[2:]


def test_a_text_file_ends_though_only_blank_lines_are_left(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * PIECE_CHARACTERS + "\n\n\n")
    (tmp_path / "b.txt").write_text("\n\n")
    records = list(read_records(DataParams(text=("*.txt",)), tmp_path))
    assert [record.is_end for record in records] == [False, True]


def test_the_named_field_of_a_jsonl_file_is_the_text(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"body": "one"}, {"body": "two", "other": 1}])
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("\n")
    assert texts(DataParams(jsonl=("a.jsonl",), field="body"), tmp_path) == ["one", "two"]


def test_records_have_the_fields_of_dolly_in_their_order(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ROWS[:1])
    records = list(read_records(DataParams(jsonl=("*",), format="dolly"), tmp_path))
    assert records == [Record(("Do 0", "", "Did 0"))]


def test_a_data_set_is_streamed_and_read_on_from_any_record(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    streamed = DataParams(hub="json", files=("a.jsonl",), format="dolly")
    local = DataParams(jsonl=("a.jsonl",), format="dolly")
    assert list(read_records(streamed, tmp_path)) == list(read_records(local, tmp_path))
    assert texts(streamed, tmp_path, 17) == [f"Do {i}" for i in range(17, 30)]


def test_what_is_held_out_depends_on_the_text_alone_and_is_the_share_asked_for() -> None:
    records = [Record((f"text {i}", "context")) for i in range(4000)]
    held_out = {record.values for record in records if record.is_held_out(0.05)}
    assert 150 < len(held_out) < 250
    assert held_out == {record.values for record in reversed(records) if record.is_held_out(0.05)}
    assert held_out < {record.values for record in records if record.is_held_out(0.2)}
    assert not any(record.is_held_out(0) for record in records)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "a.jsonl, line 2 is not JSON"),
        (b'["text"]', "a.jsonl, line 2 is not an object"),
        (b'{"txt": "a"}', "line 2 has no text in its field 'text'; its fields are: txt"),
        (b'{"text": 3}', "line 2 has no text in its field 'text'"),
        (b'{"text": "\\ud800"}', "line 2: its field 'text' is not valid Unicode"),
        (b'{"text": "\xff"}', "a.jsonl, line 2 is not UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n' + line + b"\n")
    with pytest.raises(InvalidParameter, match=says):
        list(read_records(DataParams(jsonl=("a.jsonl",)), tmp_path))


def test_a_bad_record_of_a_data_set_is_named(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "good"}, {"text": None}])
    with pytest.raises(InvalidParameter, match="record 1 of json, split train has no text in its field 'text'"):
        list(read_records(DataParams(hub="json", files=("a.jsonl",)), tmp_path))


def test_a_data_set_that_does_not_open_says_why(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(InvalidParameter, match=r"json, split nosuch.*check hub, config and split"):
        list(read_records(DataParams(hub="json", files=("a.jsonl",), split="nosuch"), tmp_path))


def test_without_the_datasets_package_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InvalidParameter, match=r"slingshot\[train\]"):
        list(read_records(DataParams(hub="allenai/c4"), tmp_path))


def test_a_pattern_that_matches_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"no file matches '\*\.jsonl'"):
        read_records(DataParams(jsonl=("*.jsonl",)), tmp_path)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "exactly one of text, jsonl and hub"),
        ({"text": ("a",), "hub": "b"}, "exactly one of text, jsonl and hub"),
        ({"text": ("a",), "format": "dolly"}, "use jsonl"),
        ({"jsonl": ("a",), "format": "alpaca"}, "'text' or 'dolly'"),
        ({"jsonl": ("a",), "held_out": 1.0}, "held_out"),
        ({"jsonl": ("a",), "held_out": math.nan}, "held_out"),
        ({"jsonl": ("a",), "files": ("b",)}, "files of .data. has no effect here: .* named by hub"),
        ({"jsonl": ("a",), "config": "en"}, "config of .data. has no effect"),
        ({"text": ("a",), "split": "test"}, "split of .data. has no effect"),
        ({"text": ("a",), "field": "body"}, "field of .data. has no effect here: .* jsonl or hub"),
        ({"hub": "a", "format": "dolly", "field": "body"}, "field of .data. has no effect"),
    ],
)
def test_params_that_make_no_sense_are_refused(values: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidParameter, match=says):
        DataParams(**values)  # type: ignore[arg-type]
