"""The same ids as tiktoken, given the same ranks, on real text, fuzzed text and what breaks others."""

import random
import re
import sysconfig
import unittest.mock
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import regex
import tiktoken
import tiktoken_ext.openai_public as public
from hypothesis import example, given, settings
from hypothesis import strategies as st

from myna import Tokenizer
from myna.text import engines
from myna.text.engines import RankModel
from myna.text.vocabulary import Vocabulary

FRAGMENTS = [
    *"abZ19 !?\n\r\t\0'", "  ", "   ", "\r\n", "é", "ſ", "K", "ß", "'s", "'S", "'ſ", "'ll", "'LL", "'Ve", "\u00a0",
    "\u2003", "\u3000", "\x85", "\x0b", "\x1c", "\u200b", "\u200d", "\ufeff", "½", "Ⅷ", "٣", "१", "—", "“", "😀",
    "👍🏽", "\u0301", "中文", "ह", "ि", "한국", "ไทย", "<|endoftext|>", "<|im_start|>", "1234567",
    "def f(x):\n    return x", "\ufffd", "\U0010ffff",
]  # fmt: skip


def real_texts(n_bytes: int) -> Iterator[str]:
    """Sources and documentation of the Python that runs this, in a fixed order."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        yield text
        n_bytes -= len(text)
        if n_bytes < 0:
            return


def fuzzed(count: int, seed: int = 0) -> Iterator[str]:
    rng = random.Random(seed)
    for number in range(count):
        parts = rng.choices(FRAGMENTS, k=rng.randint(0, 14))
        if number % 3 == 0:  # any code point but a surrogate
            codes = (
                rng.randrange(0x110000) if number % 2 else rng.randrange(0x3000)
                for _ in range(rng.randint(0, 9))
            )
            parts += [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
        if number % 50 == 0:
            parts.insert(0, rng.choice(FRAGMENTS) * rng.randrange(3000))
        yield "".join(parts)


@cache
def gpt4_like() -> Tokenizer:
    """cl100k's pattern, with a vocabulary rich in what it treats in its own way: whitespace, digits, contractions."""
    return Tokenizer.train([*real_texts(1_500_000), *fuzzed(8000, seed=1)], 6000, "gpt4")


@pytest.fixture(params=["gpt2", "gpt4"])
def tok(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.gpt2() if request.param == "gpt2" else gpt4_like()


def oracle(tok: Tokenizer) -> tiktoken.Encoding:
    """tiktoken with tok's ranks, and the pattern as tiktoken itself publishes it."""
    if tok.vocabulary.pattern.name == "gpt2":
        pattern = public.r50k_pat_str
    else:
        with unittest.mock.patch.object(public, "load_tiktoken_bpe", return_value={}):
            pattern = public.cl100k_base()["pat_str"]
    return tiktoken.Encoding(
        "oracle", pat_str=pattern, mergeable_ranks=tok.vocabulary.ranks, special_tokens=tok.special_tokens
    )


def check(tok: Tokenizer, texts: list[str]) -> None:
    theirs = oracle(tok).encode_ordinary_batch(texts, num_threads=1)
    ids, lengths = tok.encode_arrays(texts)
    assert lengths.tolist() == [len(row) for row in theirs]
    assert ids.tolist() == [i for row in theirs for i in row]
    for text, row in zip(texts, theirs, strict=True):
        assert tok.encode(text) == row
        assert tok.decode(row) == text


def test_real_text(tok: Tokenizer) -> None:
    check(tok, list(real_texts(5_000_000)))


@pytest.mark.slow
def test_100_mb_of_real_text(tok: Tokenizer) -> None:
    roots = [Path(sysconfig.get_path("purelib")), Path("/usr/share"), Path("/usr/include")]
    batch: list[str] = []
    left = 100_000_000
    for path in (path for root in roots for path in sorted(root.rglob("*"))):
        if (
            path.suffix not in (".py", ".pyi", ".md", ".rst", ".txt", ".html", ".xml", ".h", ".json")
            or not path.is_file()
        ):
            continue
        try:
            batch.append(path.read_bytes().decode("utf-8"))
        except (UnicodeDecodeError, OSError):
            continue
        left -= len(batch[-1])
        if len(batch) == 200 or left < 0:
            check(tok, batch)
            batch = []
        if left < 0:
            return
    check(tok, batch)


def test_10_000_fuzzed_strings(tok: Tokenizer) -> None:
    check(tok, list(fuzzed(10_000)))


def check_any(text: str) -> None:
    for tok in (Tokenizer.gpt2(), gpt4_like()):
        assert tok.encode(text) == oracle_of(tok.vocabulary.pattern.name).encode_ordinary(text)


@settings(max_examples=400, deadline=None)
@given(text=st.text())
def test_any_text(text: str) -> None:
    check_any(text)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(text=st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join)))
def test_10_000_texts_by_hypothesis(text: str) -> None:
    check_any(text)


@cache
def oracle_of(name: str) -> tiktoken.Encoding:
    return oracle(Tokenizer.gpt2() if name == "gpt2" else gpt4_like())


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from([" ", "\n", "\t", "a", "!", "1", "\r", "\x1c"]), st.integers(1, 40)),
        max_size=8,
    )
)
@example(parts=[("\n", 3), (" ", 2), ("\n", 1), (" ", 2), ("a", 1), ("!", 1)])
@example(parts=[("!", 1), ("\n", 3), (" ", 2), ("\r", 1), ("\t", 3), ("a", 1)])
@example(parts=[(" ", 3), ("\x1c", 1), ("a", 1)])
@example(parts=[("\x1c", 1), ("\n", 3), ("a", 1)])
def test_whitespace_is_cut_where_the_pattern_cuts(parts: list[tuple[str, int]]) -> None:
    text = "".join(character * count for character, count in parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "LONG_RUN", re.compile(engines.WHITESPACE + "{3,}"))
        for tok in (Tokenizer.gpt2(), gpt4_like()):
            assert isinstance(tok.model, RankModel)
            assert tok.model.encode_cut(text) == oracle_of(tok.vocabulary.pattern.name).encode_ordinary(text)
            # A pre-token never crosses a cut.
            split = tok.vocabulary.pattern.split
            parts_of_text = engines.cut_long_runs(tok.vocabulary.pattern.name, text)
            assert [piece for part in parts_of_text for piece in split(part)] == list(split(text))


def test_whitespace_is_that_of_the_patterns() -> None:
    """For Python's `re`, U+001C to U+001F are whitespace too. For `regex` and Rust they are not."""
    ours, of_patterns = re.compile(engines.WHITESPACE), regex.compile(r"\s")
    text = "".join(map(chr, range(0x3001)))
    assert ours.findall(text) == of_patterns.findall(text)


MILLION = 1_000_000
RUNS = {
    "a": "a" * MILLION,
    "spaces": " " * MILLION,
    "spaces, letter": " " * MILLION + "a",
    "letter, spaces, letter": "a" + " " * MILLION + "a",
    "newlines": "\n" * MILLION,
    "spaces, newline, spaces, word": " " * MILLION + "\n" + " " * 5000 + "word",
    "punctuation, newlines, letter": "!" + "\n" * MILLION + "a",
    "carets": "^" * MILLION,
    "combining marks": "\u0301" * MILLION,
    "digits": "7" * MILLION,
    "tabs and newlines": "\t\n" * (MILLION // 2) + "x",
}


@pytest.mark.parametrize("name", RUNS)
def test_a_million_of_one_character(tok: Tokenizer, name: str) -> None:
    """tiktoken panics on some of these, so its ids are asked for piece by piece, as Python's `regex` cuts them."""
    text = RUNS[name]
    core = oracle_of(tok.vocabulary.pattern.name)._core_bpe
    expected = [
        i for piece in tok.vocabulary.pattern.split(text) for i in core.encode_single_piece(piece.encode())
    ]
    assert isinstance(tok.model, RankModel)
    assert tok.encode(text) == expected
    assert tok.model.encode_cut(text) == expected


def test_a_million_spaces_and_a_letter_that_engines_dispute(tok: Tokenizer) -> None:
    text = " " * MILLION + "\u088f"
    split = [" " * (MILLION - 1), " \u088f"]
    expected = [i for piece in split for i in oracle(tok)._core_bpe.encode_single_piece(piece.encode())]
    assert tok.encode_arrays([text, "b"])[0].tolist() == [*expected, *tok.encode("b")]
    assert tok.decode(expected) == text


def test_special_tokens_are_never_spelled_into_ids(tok: Tokenizer) -> None:
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "</s>"]
    rng = random.Random(7)
    texts = []
    for text in fuzzed(10_000, seed=5):
        at = rng.randint(0, len(text))
        texts.append(text[:at] + rng.choice(names) + text[at:])
    with_specials = Tokenizer(RankModel(_with_specials(tok, names)), "chat")
    ids = {*with_specials.special_tokens.values()}
    flat, _ = with_specials.encode_arrays(texts)
    assert not ids & set(flat.tolist())
    for text in texts[::10]:
        assert not ids & set(with_specials.encode(text))
    assert with_specials.encode("<|im_end|>", allowed_special={"<|im_end|>"}) == [
        with_specials.special_tokens["<|im_end|>"]
    ]


def _with_specials(tok: Tokenizer, names: list[str]) -> Vocabulary:
    tokens = tok.vocabulary.tokens
    specials = {name: len(tokens) + i for i, name in enumerate(names)}
    return Vocabulary(tok.vocabulary.pattern, tokens, specials, tok.vocabulary.merges)
