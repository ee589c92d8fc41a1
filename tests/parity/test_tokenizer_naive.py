"""Trained merges equal those of a trainer too simple to be wrong: one recount of everything per merge."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from myna import Tokenizer
from myna.text import patterns

CORPORA = {
    "runs": ["aaaa aaa aa a aaaaaaaaa", "abababab babab", "zzzzzzz"],
    "english": [topics["assert"], topics["lambda"]],
    "python": [Path(__file__).read_text(encoding="utf-8")],
    "scripts": [
        "naïve café 中文字 中文 😀😀👍🏽 привет мир мир한국어 ไทย ไทย\u0301\u0301" * 3,
        "١٢٣٤ ½½ \r\n\r\n  \t ",
    ],
}


def naive_train(texts: list[str], n_merges: int, pattern: patterns.Pattern) -> list[tuple[bytes, bytes]]:
    words = [list(piece.encode()) for text in texts for piece in pattern.split(text)]
    table = [bytes([byte]) for byte in range(256)]
    merges = []
    for new_id in range(256, 256 + n_merges):
        counts = Counter(pair for word in words for pair in pairwise(word))
        left, right = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append((table[left], table[right]))
        table.append(table[left] + table[right])
        for word in words:
            i = 0
            while i + 1 < len(word):
                if word[i] == left and word[i + 1] == right:
                    word[i : i + 2] = [new_id]
                i += 1
    return merges


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", r"\S+|\s"])
@pytest.mark.parametrize("corpus", CORPORA)
def test_merges_are_the_naive_trainers(corpus: str, pattern: str) -> None:
    n_merges = {"runs": 12, "scripts": 30}.get(corpus, 150)
    expected = naive_train(CORPORA[corpus], n_merges, patterns.named(pattern))
    for workers in (1, 2) if corpus == "python" else (1,):
        tok = Tokenizer.train(CORPORA[corpus], 257 + n_merges, pattern, workers=workers)
        assert list(tok.vocabulary.merges) == expected


def test_merges_are_rustbpes() -> None:
    rustbpe = pytest.importorskip("rustbpe")
    texts = list(topics.values())
    theirs = rustbpe.Tokenizer()
    theirs.train_from_iterator(iter(texts), 3000, pattern=patterns.GPT4.rust)
    ranks = {bytes(token): rank for token, rank in theirs.get_mergeable_ranks()}
    assert Tokenizer.train(texts, 3001, "gpt4").vocabulary.ranks == ranks
