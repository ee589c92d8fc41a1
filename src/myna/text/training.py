"""From texts to a vocabulary: count the unique pre-tokens, then learn merges from the counts."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from myna.errors import TextError, TokenizerError
from myna.text import bpe, merging
from myna.text.characters import check_text
from myna.text.counting import count_pretokens
from myna.text.patterns import Pattern
from myna.text.vocabulary import END_OF_TEXT, Vocabulary

SMALLEST = 257  # the bytes and the end of text


@dataclass(frozen=True)
class Learned:
    """A trained vocabulary and what it took.

    Attributes:
        n_bytes: UTF-8 bytes read.
        unique_pretokens: how many different pre-tokens the texts have. Memory grows with this number.
        count_seconds, merge_seconds: the two halves of the work.
    """

    vocabulary: Vocabulary
    n_bytes: int
    unique_pretokens: int
    count_seconds: float
    merge_seconds: float


def check_vocab_size(vocab_size: int, special_tokens: Sequence[str] = ()) -> None:
    """Refuses a size that leaves no room for the bytes, the end of text and the other special tokens."""
    smallest = SMALLEST + len(special_tokens)
    if vocab_size < smallest:
        others = f" and {len(special_tokens)} special tokens" if special_tokens else ""
        raise TokenizerError(
            f"a vocabulary of {vocab_size} is too small: the 256 bytes and {END_OF_TEXT}{others} make {smallest}; "
            f"give a size of {smallest} or more"
        )


def check_special_tokens(names: Sequence[str]) -> None:
    """Refuses all but a list of different names, none empty. The end of text is always there, so it is refused too.

    Raises:
        TokenizerError: says which.
    """
    if isinstance(names, str):
        raise TokenizerError(f"special_tokens takes a list of names: [{names!r}]")
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise TokenizerError(f"{name!r} is no name of a special token; give a text that is not empty")
        check_text(name)
        if name == END_OF_TEXT or name in names[:number]:
            raise TokenizerError(
                f"the special token {name!r} is there already; name each once, without {END_OF_TEXT}"
            )


def learn(
    texts: Iterable[str],
    vocab_size: int,
    pattern: Pattern,
    workers: int = 1,
    on_bytes: Callable[[int], None] | None = None,
    on_merge: Callable[[int], None] | None = None,
    special_tokens: Sequence[str] = (),
) -> Learned:
    """The vocabulary of `vocab_size` ids that BPE learns from texts: bytes, merges, end of text, special tokens.

    Args:
        workers: processes that split and count; the result is the same for any number.
        on_bytes: called with the number of bytes counted since the last call.
        on_merge: called with the number of merges found so far.
        special_tokens: names of more special tokens; they have the last ids, in this order.
    Raises:
        TokenizerError: the size is under 257 plus the special tokens, a special token is not possible, the texts are
            empty, or they hold fewer merges than the size asks for.
        TextError: a lone surrogate.
    """
    check_special_tokens(special_tokens)
    check_vocab_size(vocab_size, special_tokens)
    if isinstance(texts, (str, bytes)):
        raise TextError("training takes many texts; give a list of them, as in [text]")
    n_bytes = 0

    def count_bytes(more: int) -> None:
        nonlocal n_bytes
        n_bytes += more
        if on_bytes:
            on_bytes(more)

    start = time.perf_counter()
    counts = count_pretokens(texts, pattern, workers, count_bytes)
    counted = time.perf_counter()
    if not n_bytes:
        raise TokenizerError("there is no text to learn from; give at least one text that is not empty")
    n_merges = vocab_size - SMALLEST - len(special_tokens)
    merges = merging.train(counts, n_merges, on_merge)
    if len(merges) < n_merges:
        raise TokenizerError(
            f"the text holds only {len(merges):,} merges and {n_merges:,} were asked for; give more text, or a "
            f"vocabulary of at most {vocab_size - n_merges + len(merges):,}"
        )
    table = bpe.token_bytes(merges)
    known = tuple((table[left], table[right]) for left, right in merges)
    specials = {name: len(table) + i for i, name in enumerate((END_OF_TEXT, *special_tokens))}
    vocabulary = Vocabulary(pattern, tuple(table), specials, known)
    return Learned(vocabulary, n_bytes, len(counts), counted - start, time.perf_counter() - counted)
