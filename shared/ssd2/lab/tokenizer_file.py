"""The tokenizer of a measuring model, in whose texts no word is a control token."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from ssd2.errors import CheckpointInvalid, SlingshotError
from ssd2.models.pretrained import first_line, read_tokenizer


def load_tokenizer(source: str, vocab_size: int) -> Tokenizer:
    """Load the folder's tokenizer.json, or convert other files, or those on the hub, with transformers.

    Raises:
        ModelNotFound: if there is none.
        CheckpointInvalid: if it is damaged, or another model's.
    """
    file = Path(source) / "tokenizer.json"
    try:
        content = file.read_text(encoding="utf-8") if file.is_file() else read_tokenizer(source, vocab_size)
        tokenizer = Tokenizer.from_str(content)
    except SlingshotError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointInvalid(f"{file} is not a tokenizer.json: {first_line(error)}; download it again") from error
    if (known := tokenizer.get_vocab_size(with_added_tokens=True)) > vocab_size:
        raise CheckpointInvalid(
            f"the tokenizer of {source} has {known} tokens and the model {vocab_size}; use the model's own tokenizer"
        )
    tokenizer.encode_special_tokens = True  # words of a text never become special tokens
    return tokenizer
