"""From records to the examples of every step: packing, instructions, the held-out part, going on from a state."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO_TOKENIZER, tiny_config

from ssd2.errors import InvalidParameter
from ssd2.models.configs import SSD2Config
from ssd2.models.tokenizer import Tokenizer
from ssd2.training.batches import POOL_BATCHES, BatchSource, RecordedExamples
from ssd2.training.data import Example
from ssd2.training.records import DataParams, Record, read_records

BOS, EOS, BLOCK = 1, 2, 8


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(DEMO_TOKENIZER)


@pytest.fixture
def config() -> SSD2Config:
    return tiny_config(vocab_size=1782, max_positions=100, block_size=BLOCK)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [
        {
            "instruction": f"What is {i}?",
            "context": f"The note says {i}." * (i % 3),
            "response": f"It is {i} " * (1 + i % 4),
            "text": f"A story of {i} bells. " * (1 + i % 5),
        }
        for i in range(200)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for i in range(30):
        (tmp_path / f"{i:02}.txt").write_text(f"This is file {i}.\n" * 40)
    return tmp_path


def test_text_is_packed_with_eos_between_documents_and_nothing_is_lost(
    corpus: Path, tokenizer: Tokenizer, config: SSD2Config
) -> None:
    data = DataParams(jsonl=("a.jsonl",), held_out=0.0, max_length=21)
    whole = [token for r in read_records(data, corpus) for token in (*tokenizer.encode(r.values[0]), EOS)]
    count = 2 * len(whole) // 16
    examples = RecordedExamples(data, corpus, tokenizer, config).take(count)
    assert {example.prompt_ids for example in examples} == {(BOS,)}
    assert {len(example.answer_ids) for example in examples} == {16}, "the whole blocks that 21 tokens hold"
    packed = [token for example in examples for token in example.answer_ids]
    assert packed == (whole * 3)[: len(packed)], "the data begins anew when it ends"


def test_the_pieces_of_one_file_follow_each_other_without_eos(
    tmp_path: Path, tokenizer: Tokenizer, config: SSD2Config
) -> None:
    (tmp_path / "a.txt").write_text("The bell is in the tower.\n" * 400)
    data = DataParams(text=("a.txt",), held_out=0.0, max_length=96)
    pieces = list(read_records(data, tmp_path))
    assert len(pieces) > 2
    tokens = sum(len(tokenizer.encode(piece.values[0])) for piece in pieces)
    examples = RecordedExamples(data, tmp_path, tokenizer, config).take(tokens // 96)
    assert EOS not in [token for example in examples for token in example.answer_ids]


def test_where_a_piece_of_a_file_is_held_out_the_document_ends(
    tmp_path: Path, tokenizer: Tokenizer, config: SSD2Config
) -> None:
    (tmp_path / "a.txt").write_text("".join(f"The bell number {i} is in the tower.\n" for i in range(4000)))
    data = DataParams(text=("a.txt",), held_out=0.3, max_length=96)
    expected: list[int] = []
    gaps = 0
    for piece in read_records(data, tmp_path):
        if not piece.is_held_out(0.3):
            expected += tokenizer.encode(piece.values[0])
        elif expected and expected[-1] != EOS:
            expected.append(EOS)
            gaps += 1
    assert gaps > 3
    examples = RecordedExamples(data, tmp_path, tokenizer, config).take(len(expected) // 96)
    assert [token for example in examples for token in example.answer_ids] == expected[: 96 * len(examples)]


def test_an_instruction_has_the_layout_of_a_prompt_and_its_context_is_a_passage(
    corpus: Path, tokenizer: Tokenizer, config: SSD2Config
) -> None:
    data = DataParams(jsonl=("a.jsonl",), format="dolly", held_out=0.0)
    first, second = RecordedExamples(data, corpus, tokenizer, config).take(2)
    assert first.prompt_ids == tuple(tokenizer.encode_prompt("What is 0?", (), bos_token_id=BOS))
    assert second.prompt_ids == tuple(tokenizer.encode_prompt("What is 1?", ("The note says 1.",), bos_token_id=BOS))
    answer = tokenizer.encode("It is 0 ")
    assert second.answer_ids[:1] == tuple(tokenizer.encode("It is 1 "))[:1]
    assert first.answer_ids == (*answer, *[EOS] * (BLOCK - len(answer)))


def test_instructions_that_are_too_long_are_left_out_and_counted(
    corpus: Path, tokenizer: Tokenizer, config: SSD2Config
) -> None:
    data = DataParams(jsonl=("a.jsonl",), format="dolly", held_out=0.0)
    everything = RecordedExamples(data, corpus, tokenizer, config)
    lengths = sorted({len(example) for example in everything.take(200)})
    assert everything.left_out == 0
    limited = RecordedExamples(
        DataParams(jsonl=("a.jsonl",), format="dolly", held_out=0.0, max_length=lengths[2]), corpus, tokenizer, config
    )
    assert max(len(example) for example in limited.take(100)) == lengths[2]
    assert limited.left_out > 0


@pytest.mark.parametrize("format_", ["text", "dolly"])
def test_what_is_held_out_is_never_trained_on(
    corpus: Path, tokenizer: Tokenizer, config: SSD2Config, format_: str
) -> None:
    data = DataParams(jsonl=("a.jsonl",), format=format_, held_out=0.2, max_length=16 if format_ == "text" else None)
    kept = [record for record in read_records(data, corpus) if not record.is_held_out(0.2)]
    source = RecordedExamples(data, corpus, tokenizer, config)
    held_out = source.held_out()
    if format_ == "dolly":
        assert 20 < len(held_out) < 60
        trained = set(source.take(3 * len(kept)))
        assert len(trained) == len(kept)
        assert not trained & set(held_out)
    else:
        whole = [token for record in kept for token in (*tokenizer.encode(record.values[0]), EOS)]
        examples = source.take(len(whole) // 16)
        assert [token for example in examples for token in example.answer_ids] == whole[: 16 * len(examples)]
    assert source.held_out() == held_out
    few = DataParams(jsonl=("a.jsonl",), format=format_, held_out=0.2, held_out_limit=3, max_length=data.max_length)
    assert RecordedExamples(few, corpus, tokenizer, config).held_out() == held_out[:3]


DATA = {
    "text": DataParams(text=("*.txt",), held_out=0.1),
    "packed": DataParams(jsonl=("a.jsonl",), max_length=24),
    "dolly": DataParams(jsonl=("a.jsonl",), format="dolly"),
    "streamed": DataParams(hub="json", files=("a.jsonl",), format="dolly"),
}


def sizes(step: int) -> int:
    return 3 if step < POOL_BATCHES + 5 else 5


@pytest.mark.parametrize("name", DATA)
def test_a_source_restored_from_a_state_goes_on_as_one_that_was_not_stopped(
    corpus: Path, tokenizer: Tokenizer, config: SSD2Config, name: str
) -> None:
    def make() -> BatchSource:
        return BatchSource(RecordedExamples(DATA[name], corpus, tokenizer, config), sizes, seed=1)

    whole = make()
    steps = [whole.examples(step) for step in range(3 * POOL_BATCHES)]
    assert [len(examples) for examples in steps] == [sizes(step) for step in range(3 * POOL_BATCHES)]
    stopped = make()
    for step in range(POOL_BATCHES + 7):
        stopped.examples(step)
    state = json.loads(json.dumps(stopped.state))
    resumed = make()
    resumed.restore(state)
    for step in range(POOL_BATCHES + 7, 3 * POOL_BATCHES):
        assert resumed.examples(step) == steps[step]
    assert make().examples(2 * POOL_BATCHES) == steps[2 * POOL_BATCHES], "a function of the step alone"
    assert resumed.examples(1) == steps[1], "also backwards"


@pytest.mark.parametrize(
    ("data", "last"),
    [
        ({"format": "dolly"}, 0),  # the pool ends where the pass does
        ({"format": "dolly", "max_length": 64}, 3),  # what is left of the pass is too long
        ({"format": "dolly", "held_out": 0.5}, 3),
        ({"format": "text", "max_length": 8, "field": "response"}, 0),
        ({"format": "text", "max_length": 8, "field": "response", "held_out": 0.5}, 3),
    ],
)
def test_a_state_at_the_end_of_a_pass_goes_on_with_the_next_one(
    tmp_path: Path, tokenizer: Tokenizer, config: SSD2Config, data: dict[str, Any], last: int
) -> None:
    params = DataParams(jsonl=("a.jsonl",), **{"held_out": 0.0, **data})
    share = params.held_out
    rows = [
        {"instruction": f"Do {i}", "context": "", "response": f"Did {i} and then rang the bell."} for i in range(99)
    ]
    records = [(row, Record(tuple(row[name] for name in params.fields))) for row in rows]
    kept = [row for row, record in records if not record.is_held_out(share)][:POOL_BATCHES]
    unused = [row for row, record in records if record.is_held_out(share)][:last]
    if not share:
        unused = [{**row, "response": row["response"] * 9} for row in rows[-last:]] if last else []
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*kept, *unused)))

    def make() -> RecordedExamples:
        return RecordedExamples(params, tmp_path, tokenizer, config)

    count, whole = POOL_BATCHES, make()
    if params.format == "text":
        count = sum(len(tokenizer.encode(row["response"])) + 1 for row in kept) // BLOCK
    whole.take(count)
    assert whole.position["record"] == len(kept), "the pass has nothing more to train on"
    resumed = make()
    resumed.seek(json.loads(json.dumps(whole.position)))
    assert resumed.take(3 * count) == whole.take(3 * count)


def test_a_state_reads_over_records_without_encoding_them(
    corpus: Path, tokenizer: Tokenizer, config: SSD2Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = BatchSource(RecordedExamples(DATA["dolly"], corpus, tokenizer, config), lambda _: 2, seed=1)
    stopped.examples(2 * POOL_BATCHES)
    encoded: list[str] = []
    encode: Callable[[str], list[int]] = tokenizer.encode
    monkeypatch.setattr(tokenizer, "encode", lambda text: encoded.append(text) or encode(text))
    resumed = BatchSource(RecordedExamples(DATA["dolly"], corpus, tokenizer, config), lambda _: 2, seed=1)
    resumed.restore(stopped.state)
    resumed.examples(2 * POOL_BATCHES)
    assert 0 < len(encoded) <= 3 * 2 * POOL_BATCHES, "instruction, passage and answer of one pool's examples"


def test_batches_hold_examples_of_like_length_in_random_order(
    corpus: Path, tokenizer: Tokenizer, config: SSD2Config
) -> None:
    source = BatchSource(RecordedExamples(DATA["dolly"], corpus, tokenizer, config), lambda _: 5, seed=1)
    batches = [source.examples(step) for step in range(POOL_BATCHES)]
    spread = [{len(example.answer_ids) for example in batch} for batch in batches]
    assert sum(len(lengths) == 1 for lengths in spread) > POOL_BATCHES - 5
    longest = [max(lengths) for lengths in spread]
    assert any(a > b for a, b in pairwise(longest))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (DataParams(jsonl=("a.jsonl",), max_length=7), "max_length 7 .* from the block size 8 to 99"),
        (DataParams(jsonl=("a.jsonl",), max_length=100), "to 99"),
        (DataParams(jsonl=("a.jsonl",), format="dolly", max_length=101), "to 100"),
        (DataParams(jsonl=("a.jsonl",), format="dolly", max_length=9), "no training examples of up to 9 tokens"),
        (DataParams(text=("empty.md",)), "no training examples"),
    ],
)
def test_data_that_gives_no_example_is_refused(
    corpus: Path, tokenizer: Tokenizer, config: SSD2Config, data: DataParams, says: str
) -> None:
    (corpus / "empty.md").write_text("\n\n")
    with pytest.raises(InvalidParameter, match=says):
        RecordedExamples(data, corpus, tokenizer, config).take(1)


def test_too_little_data_to_hold_some_out_is_said(tmp_path: Path, tokenizer: Tokenizer, config: SSD2Config) -> None:
    (tmp_path / "a.txt").write_text("Short.\n")
    source = RecordedExamples(DataParams(text=("a.txt",)), tmp_path, tokenizer, config)
    with pytest.raises(InvalidParameter, match="too short to hold out 5%"):
        source.held_out()


def test_an_example_counts_its_tokens() -> None:
    assert len(Example((1, 2), (3, 4, 5))) == 5
