"""From texts to a vocabulary: count the unique pre-tokens, then learn merges from the counts."""

from collections import Counter
from collections.abc import Iterable

from myna.errors import TokenizerError
from myna.text import bpe
from myna.text.gpt2 import END_OF_TEXT
from myna.text.patterns import Pattern
from myna.text.tokenizer import Vocabulary, check_text


def count_pretokens(texts: Iterable[str], pattern: Pattern) -> Counter[bytes]:
    """How often each pre-token occurs in the texts."""
    counts: Counter[str] = Counter()
    for text in texts:
        check_text(text)
        counts.update(pattern.split(text))
    return Counter({piece.encode("utf-8"): count for piece, count in counts.items()})


def train_vocabulary(texts: Iterable[str], vocab_size: int, pattern: Pattern) -> Vocabulary:
    """The vocabulary of `vocab_size` ids, end of text last, that BPE learns from texts."""
    if vocab_size < 257:
        raise TokenizerError(
            f"a vocabulary of {vocab_size} is too small: 256 bytes and {END_OF_TEXT} make 257"
        )
    n_merges = vocab_size - 257
    merges = bpe.train(count_pretokens(texts, pattern), n_merges)
    if len(merges) < n_merges:
        raise TokenizerError(
            f"the text holds only {len(merges):,} merges, {n_merges:,} were asked for; give more text or a "
            f"vocabulary of at most {257 + len(merges):,}"
        )
    return Vocabulary(pattern, tuple(bpe.token_bytes(merges)), {END_OF_TEXT: vocab_size - 1}, END_OF_TEXT)
