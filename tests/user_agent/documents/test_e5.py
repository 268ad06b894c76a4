"""Sentence vectors: a tiny file of the same format, against torch's encoder where it was converted from."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from ssd2.errors import CheckpointInvalid
from ssd2.models.embeddings import MULTILINGUAL_E5
from user_agent.documents import e5
from user_agent.documents.collection import Collection
from user_agent.documents.e5 import SentenceVectors

D, HEADS, INNER, WORDS = 32, 2, 64, 12
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁query", "▁passage", ":", "▁key", "▁shed", "▁", "k", "e"]
SHAPES = {"q": (D, D), "k": (D, D), "v": (D, D), "ao": (D, D), "fi": (INNER, D), "fo": (D, INNER)}


def _packed(weights: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Q4_0 of a matrix, and the matrix that it stands for."""
    blocks = weights.reshape(-1, 32)
    scales = (np.abs(blocks).max(1) / 7).astype(np.float16)
    whole = np.clip(np.rint(blocks / scales[:, None].astype(np.float32)) + 8, 0, 15).astype(np.uint8)
    halves = whole[:, :16] | (whole[:, 16:] << 4)
    data = b"".join(scale.tobytes() + half.tobytes() for scale, half in zip(scales, halves, strict=True))
    return data, ((whole.astype(np.float32) - 8) * scales[:, None]).reshape(weights.shape)


def _write(file: Path) -> dict[str, np.ndarray]:
    draws = np.random.default_rng(0)
    tensors, known = dict[str, tuple[int, bytes]](), dict[str, np.ndarray]()
    shapes = {"emb.word": (WORDS, D)} | {f"l0.{name}.w": shape for name, shape in SHAPES.items()}
    for name, shape in shapes.items():
        data, known[name] = _packed(draws.normal(0, 0.5, shape).astype(np.float32))
        tensors[name] = (1, data)
    sizes = {"emb.pos": 64 * D, "emb.type": 2 * D, "emb.ln.w": D, "emb.ln.b": D}
    sizes |= {f"l0.{name}.b": shape[0] for name, shape in SHAPES.items()}
    sizes |= {f"l0.{norm}.{part}": D for norm in ("aln", "oln") for part in "wb"}
    for name, size in sizes.items():
        known[name] = draws.normal(0, 0.5, size).astype(np.float32)
        tensors[name] = (0, known[name].tobytes())
    pieces = [piece.encode() for piece in PIECES]
    head = e5.MAGIC + struct.pack("<I7ifi", 1, D, 1, HEADS, INNER, WORDS, 64, 2, 1e-12, 32)
    head += struct.pack("<5iQ", WORDS, 0, 2, 1, 3, sum(map(len, pieces)))
    head += np.cumsum([0, *map(len, pieces)]).astype("<u4").tobytes() + np.full(WORDS, -1, "<f4").tobytes()
    head += b"".join(pieces) + struct.pack("<iIIBI", 1, 9, ord("K"), 1, ord("k"))
    start = len(head) + 4 + sum(2 + len(name) + 21 for name in tensors)
    listing, body = struct.pack("<i", len(tensors)), b""
    for name, (dtype, data) in tensors.items():
        listing += struct.pack("<H", len(name)) + name.encode()
        listing += struct.pack("<BIQQ", dtype, 0, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    body = bytes(0) + body
    file.write_bytes(head + listing + body)
    return known


def _expected(known: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    t = {name: torch.from_numpy(value.copy()) for name, value in known.items()}

    def normed(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, (D,), t[f"{name}.w"], t[f"{name}.b"], 1e-12)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.linear(x, t[f"l0.{name}.w"], t[f"l0.{name}.b"])

    x = normed(t["emb.word"][ids] + t["emb.pos"].reshape(-1, D)[: len(ids)] + t["emb.type"][:D], "emb.ln")
    q, k, v = (linear(x, name).reshape(len(ids), HEADS, -1).transpose(0, 1) for name in "qkv")
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(len(ids), D)
    x = normed(x + linear(mixed, "ao"), "l0.aln")
    x = normed(x + linear(torch.nn.functional.gelu(linear(x, "fi")), "fo"), "l0.oln")
    return torch.nn.functional.normalize(x.mean(0), dim=0).numpy()


def test_vectors_are_those_of_the_encoder_whatever_stands_beside(tmp_path: Path) -> None:
    known = _write(tmp_path / "e5.bin")
    model = SentenceVectors(tmp_path / "e5.bin")
    alone = _expected(known, [0, 5, 6, 7, 2])
    assert np.allclose(model.passages(["Key"])[0], alone, atol=1e-5)  # K is replaced by k
    assert np.allclose(model.passages(["key shed shed", "key"])[1], alone, atol=1e-5)
    assert np.allclose(model.question("key"), _expected(known, [0, 4, 6, 7, 2]), atol=1e-5)


@pytest.mark.parametrize("data", [b"", b"GGUF" * 99, e5.MAGIC + bytes(99)])
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "e5.bin").write_bytes(data)
    with pytest.raises(CheckpointInvalid, match=r"e5\.bin"):
        SentenceVectors(tmp_path / "e5.bin")


def test_a_model_that_is_downloaded_later_is_used_from_the_next_sync_on(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("The key is in the shed.\n\nThe lamp is broken.\n")
    library = Collection(tmp_path, None, tmp_path / "e5.bin")
    library.link(tmp_path / "notes.txt")
    library.sync()
    assert library.search("key")[0].text == "The key is in the shed."
    _write(tmp_path / "e5.bin")
    assert library.embed() == 2
    assert library.embed() == 0
    assert library.search("key")[0].text == "The key is in the shed."
    library.close()


@pytest.mark.skipif(not MULTILINGUAL_E5.path.is_file(), reason="multilingual-e5-small is not downloaded")
def test_the_real_model_knows_what_means_the_same_in_two_languages() -> None:
    model = SentenceVectors(MULTILINGUAL_E5.path)
    passages = model.passages(["The cat weighs 5.8 kg.", "Die Kaltmiete beträgt 592 Euro im Monat."])
    cosines = (
        passages @ np.stack([model.question("Wie schwer ist die Katze?"), model.question("how much is the rent")]).T
    )
    assert list(cosines.argmax(0)) == [0, 1]
