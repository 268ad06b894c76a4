"""Text to token ids and back, and the layout of a prompt."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from tokenizers import Tokenizer as _Backend

from ssd2.errors import CheckpointInvalid, InvalidParameter, ModelNotFound
from ssd2.models.chat import ChatTemplate, Message, Piece, with_notes
from ssd2.models.layouts import AnswerLayout, beginning, laid_out

TOKENIZER = "tokenizer.json"
"""File of a checkpoint folder."""
BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
NOTE, QUESTION, ANSWER = "<note>", "<question>", "<answer>"
SPECIAL_TOKENS = (PAD, BOS, EOS, NOTE, QUESTION, ANSWER)


class Tokenizer:
    """A tokenizer.json with the layout of prompts.

    With a chat template a prompt is what the template makes of a conversation. Without one it is
    `<bos> (<note> passage)* <question> instruction <answer>`, of one question; a tokenizer without those
    special tokens (OPT's, say) lays the same parts out in plain text. Text typed by a user or read
    from a document never becomes a special token.
    """

    def __init__(self, backend: _Backend, sha256: str, template: ChatTemplate | None = None) -> None:
        backend.encode_special_tokens = True
        self._backend = backend
        self.sha256 = sha256
        self._template = template
        self._fingerprints: dict[int, str] = {}

    @classmethod
    def from_file(cls, path: Path, template: ChatTemplate | None = None) -> Tokenizer:
        """Load a tokenizer.json.

        Raises:
            ModelNotFound: if there is no such file.
            CheckpointInvalid: if it is not a tokenizer.
        """
        if not path.is_file():
            raise ModelNotFound(f"there is no {path.name} in {path.parent}; give the folder of a checkpoint")
        return cls.from_json(path.read_bytes(), str(path), template)

    @classmethod
    def from_json(cls, content: bytes, name: str, template: ChatTemplate | None = None) -> Tokenizer:
        """Read the content of a tokenizer.json.

        Args:
            content: as in the file.
            name: of the file or the model, for an error.
            template: the model's chat template; None for the layout of this project.

        Raises:
            CheckpointInvalid: if it is not a tokenizer.
        """
        try:
            backend = _Backend.from_str(content.decode())
        except Exception as error:  # the library raises bare Exception
            raise CheckpointInvalid(f"{name} is not a tokenizer.json: {error}; download it again") from error
        return cls(backend, hashlib.sha256(content).hexdigest(), template)

    @property
    def vocab_size(self) -> int:
        """Number of ids that the tokenizer knows, special tokens included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @cached_property
    def text_vocab_size(self) -> int:
        """Ids that text takes: up to the last one that is no special token.

        A special token may stand behind the last row of a small model's embeddings, such as Gemma's for images; text
        never becomes one.
        """
        return 1 + max(set(self._tokens) - set(self._special_tokens), default=-1)

    def vocabulary_sha256(self, eos_token_id: int) -> str:
        """Return the fingerprint of the vocabulary: two models with the same one mean the same by each id.

        It is over the tokens and not over a file, which changes as soon as another release of a library writes it. Of
        special tokens only those count that both sides use: the EOS, and those of this project's layout.

        Args:
            eos_token_id: the model's own.
        """
        if eos_token_id not in self._fingerprints:
            digest = hashlib.sha256()
            for token_id, token in sorted(self._shared_tokens(eos_token_id).items()):
                text = token.encode()
                digest.update(struct.pack("<II", token_id, len(text)) + text)
            self._fingerprints[eos_token_id] = digest.hexdigest()
        return self._fingerprints[eos_token_id]

    def difference(self, other: Tokenizer) -> str | None:
        """Say at which id the ordinary tokens of two vocabularies first differ; None if they do not."""
        ours, theirs = ({**one._tokens, **dict.fromkeys(one._special_tokens)} for one in (self, other))
        for token_id in sorted(ours.keys() | theirs.keys()):
            ours_here, theirs_here = ours.get(token_id), theirs.get(token_id)
            if ours_here != theirs_here:
                return f"id {token_id} is {_quoted(ours_here)} in one and {_quoted(theirs_here)} in the other"
        return None

    def _shared_tokens(self, eos_token_id: int) -> dict[int, str]:
        unused = {
            token_id
            for token_id, token in self._special_tokens.items()
            if token_id != eos_token_id and token not in SPECIAL_TOKENS
        }
        return {token_id: token for token_id, token in self._tokens.items() if token_id not in unused}

    @cached_property
    def _tokens(self) -> dict[int, str]:
        return {token_id: token for token, token_id in self._backend.get_vocab(with_added_tokens=True).items()}

    @cached_property
    def _special_tokens(self) -> dict[int, str]:
        added = self._backend.get_added_tokens_decoder()
        return {token_id: token.content for token_id, token in added.items() if token.special}

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
        self._check_unicode(text)
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    @staticmethod
    def _check_unicode(text: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidParameter(
                "the text is not valid Unicode; type it or save it as UTF-8", parameter="question"
            ) from error

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

    @property
    def takes_conversations(self) -> bool:
        """True if a prompt can hold earlier turns and a system prompt; this project's own layout has one question."""
        return self._template is not None

    @cached_property
    def begins_thinking(self) -> bool:
        """True if the chat template ends within a thought, as those without a switch do."""
        end = self._template.pieces([Message("user", "?")])[-1].text if self._template else ""
        return end.rfind("<think>") > end.rfind("</think>")

    def encode_prompt(self, instruction: str, passages: Sequence[str] = (), *, bos_token_id: int | None) -> list[int]:
        """Ids of a prompt of one question: what stands before the answer.

        Args:
            instruction: w_inst, what both models see.
            passages: D_user, what only the user model sees; empty for the core.
            bos_token_id: the model's own beginning of text, None if it has none; a chat template has its own.

        Returns:
            The prompt's ids.
        """
        return self.encode_conversation([Message("user", instruction)], passages, bos_token_id=bos_token_id)

    def encode_conversation(
        self,
        messages: Sequence[Message],
        passages: Sequence[str] = (),
        *,
        bos_token_id: int | None,
        layout: AnswerLayout = "plain",
    ) -> list[int]:
        """Ids of a prompt: a conversation, and the beginning of an answer.

        Args:
            messages: the last one is the question; without a chat template it is the only one that is read.
            passages: D_user, behind the system prompt; empty for the core.
            bos_token_id: as in `encode_prompt`.
            layout: of the answer; without a chat template there is only the plain one.

        Raises:
            InvalidParameter: if the chat template takes no such conversation.
            CheckpointInvalid: if the chat template fails.
        """
        question = messages[-1].content
        if self._template is None:
            return self._one_question(question, passages, bos_token_id)
        pieces = self._template.pieces(with_notes(laid_out(messages, layout), passages))
        return self._encode_pieces([*pieces, Piece(beginning(layout), is_template=False)])

    def _one_question(self, instruction: str, passages: Sequence[str], bos_token_id: int | None) -> list[int]:
        bos = [] if bos_token_id is None else [bos_token_id]
        note, question, answer = (self.special_id(token) for token in (NOTE, QUESTION, ANSWER))
        if note is None or question is None or answer is None:
            notes = "".join(f"Input: {passage}\n" for passage in passages)
            return [*bos, *self.encode(f"{notes}Instruction: {instruction}\nResponse:")]
        prompt = bos
        for passage in passages:
            prompt += [note, *self.encode(passage)]
        return [*prompt, question, *self.encode(instruction), answer]

    def _encode_pieces(self, pieces: Sequence[Piece]) -> list[int]:
        """Encode whole what stands between two control tokens of the template, so that tokens merge as in one text."""
        ids: list[int] = []
        run = ""
        for text, is_template in pieces:
            for part in self._control_pattern.split(text) if is_template else [text]:
                control = self._controls.get(part, self._controls.get(part.strip())) if is_template else None
                if control is not None:
                    ids += [*self._encode_apart(run), control]
                    run = ""
                else:
                    run += part
        return [*ids, *self._encode_apart(run)]

    def _encode_apart(self, text: str) -> list[int]:
        """Ids of a text without control tokens; where the library sees one, it is cut behind its first character."""
        self._check_unicode(text)
        encoding = self._backend.encode(text, add_special_tokens=False)
        forbidden = set(self._controls.values())
        cuts = [
            start + 1
            for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if token_id in forbidden and end - start > 1
        ]
        if not cuts:
            return [token_id for token_id in encoding.ids if token_id not in forbidden]
        ids: list[int] = []
        for start, end in pairwise([0, *cuts, len(text)]):
            ids += self._encode_apart(text[start:end])
        return ids

    @cached_property
    def _controls(self) -> dict[str, int]:
        """Tokens that structure a prompt: the special ones, and others that the template itself writes."""
        added = self._backend.get_added_tokens_decoder()
        source = self._template.source if self._template else ""
        return {
            token.content: token_id
            for token_id, token in added.items()
            if token.special or (token.content.strip() and token.content in source)
        }

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        """Finds control tokens in a template, the longest first, with the whitespace that a token takes in."""
        return re.compile(f"({'|'.join(self._control_forms())})" if self._controls else r"(?!)")

    def _control_forms(self) -> Iterator[str]:
        tokens = {token.content: token for token in self._backend.get_added_tokens_decoder().values()}
        for content in sorted(self._controls, key=len, reverse=True):
            before, behind = (r"\s*" if strips else "" for strips in (tokens[content].lstrip, tokens[content].rstrip))
            yield f"{before}{re.escape(content)}{behind}"


def _quoted(token: str | None) -> str:
    return "a special token or none" if token is None else repr(token)


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
