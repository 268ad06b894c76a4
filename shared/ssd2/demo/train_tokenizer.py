"""Train the demo pair's tokenizer on its own text: byte-level BPE, so that any text can be typed."""

from __future__ import annotations

from itertools import chain, islice

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ssd2.demo.generator import core_items, user_items
from ssd2.demo.paths import TOKENIZER as TOKENIZER_FILE
from ssd2.models.tokenizer import SPECIAL_TOKENS

VOCAB_SIZE = 4000
"""An upper bound: the demo text runs out of pairs to merge at 1,782 tokens."""
ITEMS_READ = 60_000
_SEED = 1
# A word with its space, at most two digits, or a run of signs: names never merge into one token,
# and a number of a length never seen is still made of known tokens.
_PIECES = r" ?\p{L}+| ?\d{1,2}| ?[^\s\p{L}\d]+|\s+"


def train_tokenizer(vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """Train the tokenizer from the generator's fixed seed; the same every time."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Prepend(" ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    items = chain(islice(core_items(_SEED), ITEMS_READ // 2), islice(user_items(_SEED), ITEMS_READ // 2))
    texts = chain.from_iterable((*item.notes, item.question, item.answer) for item in items)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


if __name__ == "__main__":
    train_tokenizer().save(str(TOKENIZER_FILE))
