"""The fast encoders behind Tokenizer: tiktoken for short text, gigatoken for long text and in bulk.

Both are other people's Rust, exact almost everywhere; this file knows where they are not, and steers around:

- tiktoken panics (a PanicException, which is no Exception) on a run of some hundred thousand spaces before a letter:
  its regex engine gives up backtracking. Long runs of whitespace are cut here, at the places the pattern cuts.
- gigatoken encodes text that spells a special token as that token. It is never told of any.
- gigatoken's Unicode tables are newer than tiktoken's, so letters that entered Unicode lately are split differently.
  A stretch of text that holds one goes to tiktoken.
"""

import base64
import functools
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from myna.text.patterns import blocks
from myna.text.vocabulary import Vocabulary

# Up to this many characters tiktoken is quicker to start, and far from the million steps it may backtrack.
SHORT_CHARACTERS = 10_000
# A run of whitespace this long is cut before tiktoken sees it.
LONG_RUN = re.compile(r"\s{2000,}")
# Letters, digits and spaces that entered Unicode after version 14, with room where the next ones are expected: each
# engine is built on one version of the tables, and they differ here. tests/parity/test_tokenizer_engines.py asks both
# engines about every code point.
DISPUTED_RANGES = (
    "558 58b-58c 88f c5c cdc 1c89-1c8a 208f 209d-209f a7cb-a7cf a7d2-a7d4 a7da-a7dd a7e2 a7f1 ab6c-ab6d 105c0-105f3 "
    "107bb-107bf 10940-10959 10d40-10d85 10ec2-10eee 1123f-11240 11380-113e2 116d0-116e3 11b0a 11bc0-11bf9 11db0-11de9 "
    "11df1 11f02-11f59 1246f 12475-1247f 12550-12686 1342f 13441-13446 13460-143fa 16100-16139 16d40-16d79 16ea0-16ed3 "
    "16ff2-16ff6 187f8-187ff 18cd6-18cda 18cff 18d09-18df2 18e00-191d2 1b123-1b168 1ccf0-1ccf9 1d2c0-1d2d3 1d6a6 "
    "1df1f-1dfff 1e030-1e06d 1e4d0-1e4f9 1e5d0-1e5fa 1e6c0-1e6ff 2b739-2b73f 2b81e 2cea2-2cead 2ebf0-2ee5d 31350-33479 "
    "3d000-3fc3f"
)


@functools.cache
def disputed() -> tuple[bytes, dict[int, list[bytes]], "re.Pattern[str]"]:
    """What to look for in UTF-8 to find a character on which engines disagree, the quickest first.

    Returns:
        the bytes that begin none of them;
        for each other byte, the characters that begin with it, or their first two bytes where they have four;
        a pattern that matches the ones of four bytes.
    """
    ends = (part.split("-") for part in DISPUTED_RANGES.split())
    ranges = [(int(end[0], 16), int(end[-1], 16)) for end in ends]
    spelled = [chr(code).encode("utf-8") for first, last in ranges for code in range(first, last + 1)]
    parts = sorted({character[:2] if len(character) == 4 else character for character in spelled})
    by_first = {part[0]: [other for other in parts if other[0] == part[0]] for part in parts}
    astral = "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges if first > 0xFFFF)
    return bytes(byte for byte in range(256) if byte not in by_first), by_first, re.compile(f"[{astral}]")


def is_disputed(text: str) -> bool:
    """Whether engines may split a text differently, because it holds characters that are new to Unicode."""
    if text.isascii():
        return False
    data = text.encode("utf-8")
    ordinary, by_first, astral = disputed()
    for first in set(data.translate(None, ordinary)):
        if any(part in data for part in by_first[first]) and (first != 0xF0 or astral.search(text)):
            return True
    return False


class RankModel:
    """A byte-level BPE vocabulary and the engines that encode with it. No text is ever a special token."""

    is_context_free = True

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.special_tokens = dict(vocabulary.special_tokens)
        self._is_bytes = vocabulary.pattern.name == "none" and list(vocabulary.ranks) == [
            bytes([b]) for b in range(256)
        ]
        self._is_classic = vocabulary.pattern.name in ("gpt2", "gpt4")

    def __reduce__(self) -> tuple[Any, ...]:
        return RankModel, (self.vocabulary,)

    def token_table(self) -> list[bytes | None]:
        """The bytes of each ordinary id; None for an id that stands for nothing or is special."""
        return list(self.vocabulary.tokens)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ordinary ids."""
        tokens = self.vocabulary.tokens
        return b"".join(tokens[i] or b"" for i in ids).decode("utf-8", errors="replace")

    def to_json(self) -> bytes:
        """The bytes of a Hugging Face tokenizer.json."""
        from myna.text.exchange import to_json

        return to_json(self.vocabulary)

    @functools.cached_property
    def _tiktoken(self) -> Any:
        from tiktoken import Encoding

        # A pattern of the user's own is split by Python's `regex`; tiktoken sees only its pieces.
        rust = self.vocabulary.pattern.rust if self._is_classic else r"[\s\S]"
        encoding = Encoding(
            "ordinary", pat_str=rust, mergeable_ranks=self.vocabulary.ranks, special_tokens={}
        )
        return encoding._core_bpe

    @functools.cached_property
    def _gigatoken(self) -> Any | None:
        """None where gigatoken can't take this vocabulary: another pattern, free ids, or tokens that no merge makes."""
        vocabulary = self.vocabulary
        if not self._is_classic or None in vocabulary.tokens or not vocabulary.is_complete:
            return None
        from gigatoken import Tokenizer

        try:  # it reads ranks from a file alone
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "ranks.tiktoken")
                path.write_bytes(rank_file(vocabulary.ranks))
                return Tokenizer.from_tiktoken(path, vocabulary.pattern.name, special_tokens={})
        except OSError:  # there is no place for one: tiktoken gives the same ids
            return None

    def encode(self, text: str) -> list[int]:
        """The ids of a text that is encodable as UTF-8."""
        if self._is_bytes:
            return list(text.encode("utf-8"))
        if not self._is_classic:
            return [i for piece in self.vocabulary.pattern.pieces(text) for i in self._cached_piece(piece)]
        if len(text) <= SHORT_CHARACTERS:
            return self._tiktoken.encode_ordinary(text)
        if self._gigatoken is None:
            return self.encode_cut(text)
        if not is_disputed(text):
            return self._gigatoken.encode(text).tolist()
        ids: list[int] = []
        for block in blocks(self.vocabulary.pattern, text, SHORT_CHARACTERS):
            ids += self.encode_cut(block) if is_disputed(block) else self._gigatoken.encode(block).tolist()
        return ids

    def encode_cut(self, text: str) -> list[int]:
        """The ids by tiktoken alone, with long runs of whitespace cut out of its way."""
        return [
            i
            for part in cut_long_runs(self.vocabulary.pattern.name, text)
            for i in self._tiktoken.encode_ordinary(part)
        ]

    def _piece(self, piece: str) -> list[int]:
        return self._tiktoken.encode_single_piece(piece.encode("utf-8"))

    @functools.cached_property
    def _cached_piece(self) -> Callable[[str], list[int]]:
        return functools.lru_cache(maxsize=1 << 16)(self._piece)

    def encode_arrays(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of many texts in one flat array, and how many each text has.

        Returns:
            ids     (N,) uint8 or uint32
            lengths (len(texts),) int64, with sum N
        """
        if self._is_bytes:
            encoded = [text.encode("utf-8") for text in texts]
            return np.frombuffer(b"".join(encoded), dtype=np.uint8), lengths_of(encoded)
        if self._gigatoken is None or not texts:
            return flat([self.encode(text) for text in texts])
        hard = [number for number, text in enumerate(texts) if is_disputed(text)]
        easy = list(texts)
        for number in hard:
            easy[number] = ""
        layout = self._gigatoken.encode_batch(easy).layout
        offsets = np.asarray(layout.offsets.data, dtype=np.int64)
        ids, lengths = np.asarray(layout.content.data)[offsets[0] : offsets[-1]], np.diff(offsets)
        parts, done = [], 0
        for number in hard:  # their ids go where the empty texts stood
            row = np.array(self.encode(texts[number]), dtype=np.uint32)
            at = offsets[number] - offsets[0]
            parts += [ids[done:at], row]
            lengths[number], done = len(row), at
        return np.concatenate([*parts, ids[done:]]) if hard else ids, lengths


def flat(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids as one array, and the length of each row."""
    lengths = lengths_of(rows)
    return np.fromiter((i for row in rows for i in row), np.uint32, int(lengths.sum())), lengths


def lengths_of(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """The length of each row: (len(rows),) int64."""
    return np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))


def rank_file(ranks: Mapping[bytes, int]) -> bytes:
    """Ranks in the format of `.tiktoken` files: a line per token, base64 and rank, by rank."""
    lines = (
        b"%s %d\n" % (base64.b64encode(token), rank)
        for token, rank in sorted(ranks.items(), key=lambda x: x[1])
    )
    return b"".join(lines)


def cut_long_runs(pattern_name: str, text: str) -> Iterator[str]:
    """Cuts a text around its long runs of whitespace, where the pattern gpt2 or gpt4 would cut it in any case.

    In a run, the pattern takes: (gpt4 only: newlines right after punctuation belong to the punctuation; then all up to
    the last newline;) then all but the last character, which may belong to the word that follows. A run that ends
    a text is one pre-token, and so is each part of a run here, being a text that is a run.

    >>> list(cut_long_runs("gpt2", "a" + " " * 2000 + "b")) == ["a", " " * 1999, " b"]
    True
    """
    done = 0
    for run in LONG_RUN.finditer(text):
        start, end = run.span()
        if pattern_name == "gpt4" and start > done and not text[start - 1].isalnum():
            while start < end and text[start] in "\r\n":
                start += 1
        cuts = [start]
        if end < len(text):
            if pattern_name == "gpt4":
                cuts.append(1 + max(text.rfind("\n", start, end), text.rfind("\r", start, end)))
            cuts.append(end - 1)
        for cut in cuts:
            if cut > done:
                yield text[done:cut]
                done = cut
    if done < len(text):
        yield text[done:]
