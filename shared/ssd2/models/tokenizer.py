"""Text to token ids and back, and the layout of a prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as _Backend

from ssd2.errors import CheckpointInvalid, InvalidParameter, ModelNotFound

TOKENIZER = "tokenizer.json"
"""File of a checkpoint folder."""
BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
NOTE, QUESTION, ANSWER = "<note>", "<question>", "<answer>"
SPECIAL_TOKENS = (PAD, BOS, EOS, NOTE, QUESTION, ANSWER)


class Tokenizer:
    """A tokenizer.json with the prompt layout of this project.

    A prompt is `<bos> (<note> passage)* <question> instruction <answer>`. A tokenizer without those
    special tokens (OPT's, say) lays the same parts out in plain text. Text typed by a user or read
    from a document never becomes a special token.
    """

    def __init__(self, backend: _Backend, sha256: str) -> None:
        backend.encode_special_tokens = True
        self._backend = backend
        self.sha256 = sha256

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Load a tokenizer.json.

        Raises:
            ModelNotFound: if there is no such file.
            CheckpointInvalid: if it is not a tokenizer.
        """
        if not path.is_file():
            raise ModelNotFound(f"there is no {path.name} in {path.parent}; give the folder of a checkpoint")
        return cls.from_json(path.read_bytes(), str(path))

    @classmethod
    def from_json(cls, content: bytes, name: str) -> Tokenizer:
        """Read the content of a tokenizer.json.

        Args:
            content: as in the file.
            name: of the file or the model, for an error.

        Raises:
            CheckpointInvalid: if it is not a tokenizer.
        """
        try:
            backend = _Backend.from_str(content.decode())
        except Exception as error:  # the library raises bare Exception
            raise CheckpointInvalid(f"{name} is not a tokenizer.json: {error}; download it again") from error
        return cls(backend, hashlib.sha256(content).hexdigest())

    @property
    def vocab_size(self) -> int:
        """Number of ids that the tokenizer knows, special tokens included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def shares_vocabulary(self, other: Tokenizer) -> bool:
        """True if every token has the same id in both."""
        return bool(self._backend.get_vocab() == other._backend.get_vocab())

    def special_id(self, token: str) -> int | None:
        """Id of a special token, or None if this tokenizer has none of that name."""
        token_id: int | None = self._backend.token_to_id(token)
        return token_id

    def encode(self, text: str) -> list[int]:
        """Ids of a text; nothing in it is read as a special token.

        Raises:
            InvalidParameter: if the text holds lone surrogates, as bytes that are not UTF-8 give on a command line.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidParameter(
                "the text is not valid Unicode; type it or save it as UTF-8", parameter="question"
            ) from error
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return str(self._backend.decode(list(token_ids), skip_special_tokens=True)).strip()

    def token_name(self, token_id: int) -> str:
        """A single token as it stands in a sentence, its leading space kept; a special one by its name."""
        return str(self._backend.decode([token_id], skip_special_tokens=False))

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds: joined and stripped, it is what `decode` returns.

        A character of several tokens is added by its last one; special tokens add nothing.
        """
        text = GrowingText(self)
        texts = [text.add(token_id) for token_id in token_ids]
        return [*texts[:-1], texts[-1] + text.rest] if texts else []

    def encode_prompt(self, instruction: str, passages: Sequence[str] = (), *, bos_token_id: int | None) -> list[int]:
        """Ids of a prompt: what stands before the answer.

        Args:
            instruction: w_inst, what both models see.
            passages: D_user, what only the user model sees; empty for the core.
            bos_token_id: the model's own beginning of text; None if it has none.

        Returns:
            The prompt's ids.
        """
        bos = [] if bos_token_id is None else [bos_token_id]
        note, question, answer = (self.special_id(token) for token in (NOTE, QUESTION, ANSWER))
        if note is None or question is None or answer is None:
            notes = "".join(f"Input: {passage}\n" for passage in passages)
            return [*bos, *self.encode(f"{notes}Instruction: {instruction}\nResponse:")]
        prompt = bos
        for passage in passages:
            prompt += [note, *self.encode(passage)]
        return [*prompt, question, *self.encode(instruction), answer]


class GrowingText:
    """The text of an answer, token by token.

    Only the last few tokens are decoded again with the next one: what a token adds depends on what stands before it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Begin with no token."""
        self._backend = tokenizer._backend
        self._token_ids: list[int] = []  # those of the last text that was added, and those behind it
        self._added = 0  # of these, those whose text was added

    def add(self, token_id: int) -> str:
        """Return the text that a token adds; nothing as long as it ends within a character."""
        self._token_ids.append(token_id)
        text = self.rest
        if not text or text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        self._token_ids, self._added = self._token_ids[self._added :], len(self._token_ids) - self._added
        return text

    @property
    def rest(self) -> str:
        """The text behind what was added: of bytes that are no whole character."""
        return self._decode(self._token_ids)[len(self._decode(self._token_ids[: self._added])) :]

    def _decode(self, token_ids: list[int]) -> str:
        return str(self._backend.decode(token_ids, skip_special_tokens=True))
