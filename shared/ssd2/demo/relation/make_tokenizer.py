"""Make the relation's tokenizer: a token a word, and rows that no text uses."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from ssd2.demo.paths import RELATION
from ssd2.demo.relation.text import ORDERS, PLACES, TIMES, TOPICS
from ssd2.models.tokenizer import SPECIAL_TOKENS
from ssd2.models.tokenizer import TOKENIZER as TOKENIZER_FILE

VOCAB_SIZE = 512
"""More than the text needs: the larger V, the longer x_t is noise only."""
UNKNOWN = "<unknown>"


def make_tokenizer() -> Tokenizer:
    """Make the tokenizer; the same every time."""
    words = [*SPECIAL_TOKENS, UNKNOWN, "at", "opens", ":", ".", *ORDERS, *PLACES, *TIMES, *TOPICS]
    words += [f"<unused-{number}>" for number in range(VOCAB_SIZE - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


if __name__ == "__main__":
    make_tokenizer().save(str(RELATION / TOKENIZER_FILE))
