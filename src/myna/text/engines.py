"""The fast encoders behind Tokenizer: tiktoken for short text, gigatoken for long text and in bulk.

Both are other people's Rust, exact almost everywhere; this file knows where they are not, and steers around:

- tiktoken panics (a PanicException, which is no Exception) on a run of some hundred thousand spaces before a letter:
  its regex engine gives up backtracking. Long runs of whitespace are cut here, at the places the pattern cuts.
- gigatoken encodes text that spells a special token as that token. So Myna gives gigatoken no special tokens.
- gigatoken's Unicode tables are newer than tiktoken's, so letters that entered Unicode lately are split differently.
  `characters` knows them, and a stretch of text that holds one goes to tiktoken.
"""

import functools
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gigatoken
import numpy as np
import tiktoken

from myna.text.characters import is_disputed
from myna.text.model import flat, lengths_of
from myna.text.patterns import blocks
from myna.text.ranks import rank_file
from myna.text.tokenizer_json import to_json
from myna.text.vocabulary import Vocabulary

# For a text of at most this many characters, tiktoken starts faster than gigatoken, and stays far below the million
# steps of backtracking after which its regex engine gives up.
SHORT_CHARACTERS = 10_000
# Whitespace for the split patterns: what \s means in `regex`, Rust and Oniguruma. Python's \s also matches U+001C to
# U+001F.
WHITESPACE = r"[^\S\x1c-\x1f]"
# In a text of more than SHORT_CHARACTERS, a run of whitespace this long is cut before tiktoken sees it.
LONG_RUN = re.compile(WHITESPACE + "{2000,}")
# A longer text is encoded in blocks of this many characters: Python answers a signal between them.
BLOCK_CHARACTERS = 1 << 22
# If tiktoken doesn't split by the pattern, remember the ids of this many pieces (pre-tokens),
CACHED_PIECES = 1 << 16
# but only of pieces with at most this many characters.
CACHED_CHARACTERS = 64


class RankModel:
    """A byte-level BPE vocabulary and the engines that encode with it. No text is ever a special token."""

    # Each id has bytes of its own, so the model needs no joint decoding.
    decode_together = None
    is_exact = True
    unknown: int | None = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.special_tokens = dict(vocabulary.special_tokens)
        self._is_bytes = vocabulary.pattern.name == "none" and vocabulary.tokens == tuple(
            bytes([byte]) for byte in range(256)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return RankModel, (self.vocabulary,)

    def token_table(self) -> list[bytes | None]:
        """See `Model.token_table`."""
        return list(self.vocabulary.tokens)

    def to_json(self) -> bytes:
        """The bytes of a tokenizer.json that Hugging Face's libraries read as the same tokenizer."""
        return to_json(self.vocabulary)

    @functools.cached_property
    def _tiktoken(self) -> Any:
        # tiktoken splits by GPT-2's and GPT-4's patterns itself. For any other pattern, Python's `regex` splits the
        # text, and tiktoken only gets single pieces. Then it never uses the pattern given here (any one character).
        pattern = self.vocabulary.pattern
        rust = pattern.rust if pattern.is_classic else r"[\s\S]"
        encoding = tiktoken.Encoding(
            "ordinary", pat_str=rust, mergeable_ranks=self.vocabulary.ranks, special_tokens={}
        )
        return encoding._core_bpe

    @functools.cached_property
    def _gigatoken(self) -> Any | None:
        """None if gigatoken can't take this vocabulary.

        It takes no pattern other than gpt2 and gpt4, no ids without a token, and no tokens that no merge makes.
        """
        vocabulary = self.vocabulary
        if not vocabulary.pattern.is_classic or None in vocabulary.tokens or not vocabulary.is_complete:
            return None
        try:
            # gigatoken can read ranks only from a file.
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "ranks.tiktoken")
                path.write_bytes(rank_file(vocabulary.ranks))
                return gigatoken.Tokenizer.from_tiktoken(path, vocabulary.pattern.name, special_tokens={})
        except OSError:
            # No temporary file can be written. tiktoken gives the same ids.
            return None

    def encode(self, text: str) -> list[int]:
        """See `Model.encode`."""
        if self._is_bytes:
            return list(text.encode("utf-8"))
        if not self.vocabulary.pattern.is_classic:
            return self._encode_pieces(self.vocabulary.pattern.pieces(text))
        if len(text) <= SHORT_CHARACTERS:
            return self._tiktoken.encode_ordinary(text)
        ids: list[int] = []
        for block in blocks(self.vocabulary.pattern, text, BLOCK_CHARACTERS):
            ids += self._encode_block(block)
        return ids

    def _encode_block(self, text: str) -> list[int]:
        if self._gigatoken is None:
            return self.encode_cut(text)
        if not is_disputed(text):
            return self._gigatoken.encode(text).tolist()
        ids: list[int] = []
        for block in blocks(self.vocabulary.pattern, text, SHORT_CHARACTERS):
            ids += self.encode_cut(block) if is_disputed(block) else self._gigatoken.encode(block).tolist()
        return ids

    def encode_bytes(self, data: bytes) -> list[int]:
        """See `Model.encode_bytes`. The ids are those of tiktoken's `_encode_bytes`.

        Splitting stops at the first byte that is not UTF-8. The last pre-token before it and all bytes after that are
        encoded as one piece. If that pre-token's first token is whitespace, the whitespace tokens before it belong to
        this piece, too. So if a text is cut within a character, its last ids are mostly the first ids of the whole
        character.
        """
        if self._is_bytes:
            return list(data)
        try:
            return self.encode(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            rest = data[error.start :]
            pieces = self.vocabulary.pattern.pieces(data[: error.start].decode("utf-8"))
        if not pieces:
            return self._tiktoken.encode_single_piece(rest)
        ids = self._encode_pieces(pieces)
        kept = len(ids) - len(self._encode_piece(pieces[-1]))
        if self._is_blank(ids[kept]):
            while kept and self._is_blank(ids[kept - 1]):
                kept -= 1
        tail = self._tiktoken.decode_bytes(ids[kept:]) + rest
        return ids[:kept] + self._tiktoken.encode_single_piece(tail)

    def _is_blank(self, i: int) -> bool:
        """Whether the token consists of the characters that tiktoken takes for whitespace after a cut."""
        return not (self.vocabulary.tokens[i] or b"").strip(b" \n\t")

    def encode_cut(self, text: str) -> list[int]:
        """The ids by tiktoken alone, which gets each long run of whitespace in parts."""
        return [
            i
            for part in cut_long_runs(self.vocabulary.pattern.name, text)
            for i in self._tiktoken.encode_ordinary(part)
        ]

    def _encode_pieces(self, pieces: Sequence[str]) -> list[int]:
        cached, encode = self._cached_piece, self._encode_piece
        return [
            i
            for piece in pieces
            for i in (cached(piece) if len(piece) <= CACHED_CHARACTERS else encode(piece))
        ]

    def _encode_piece(self, piece: str) -> list[int]:
        return self._tiktoken.encode_single_piece(piece.encode("utf-8"))

    @functools.cached_property
    def _cached_piece(self) -> Callable[[str], list[int]]:
        return functools.lru_cache(CACHED_PIECES)(self._encode_piece)

    def encode_arrays(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See `Model.encode_arrays`."""
        if self._is_bytes:
            encoded = [text.encode("utf-8") for text in texts]
            return np.frombuffer(b"".join(encoded), dtype=np.uint8), lengths_of(encoded)
        if self._gigatoken is None or not texts:
            return flat([self.encode(text) for text in texts])
        hard = [n for n, text in enumerate(texts) if len(text) > BLOCK_CHARACTERS or is_disputed(text)]
        easy = list(texts)
        for number in hard:
            easy[number] = ""
        layout = self._gigatoken.encode_batch(easy).layout
        offsets = np.asarray(layout.offsets.data, dtype=np.int64)
        ids, lengths = np.asarray(layout.content.data)[offsets[0] : offsets[-1]], np.diff(offsets)
        # The hard texts went in as empty texts, so offsets[number] is where their ids belong. Insert them there.
        parts, copied = [], 0
        for number in hard:
            row = np.array(self.encode(texts[number]), dtype=np.uint32)
            place = offsets[number] - offsets[0]
            parts += [ids[copied:place], row]
            lengths[number], copied = len(row), place
        return np.concatenate([*parts, ids[copied:]]) if hard else ids, lengths


def cut_long_runs(pattern_name: str, text: str) -> Iterator[str]:
    """Cuts a text around its long runs of whitespace, where the pattern gpt2 or gpt4 would cut it in any case.

    The pattern takes a run in this order:

    1. gpt4 only: newlines right after punctuation, together with the punctuation.
    2. gpt4 only: all up to the last newline.
    3. All but the last character.
    4. The last character, which may belong to the word after it.

    A run at the end of a text is one pre-token. Each part of a run goes to tiktoken as a text of its own, so it is one
    pre-token, too.

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
