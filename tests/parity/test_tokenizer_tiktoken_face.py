"""What tiktoken's own suite asks of an Encoding, asked of a Tokenizer with the same ranks, in our words.

The cases: round trips, batches, special tokens allowed or not, offsets, single tokens, bytes that are no UTF-8, copies.
"""

import copy
import itertools
import pickle
import unittest.mock
from functools import cache
from pydoc_data.topics import topics

import pytest
import tiktoken
import tiktoken_ext.openai_public as public
from hypothesis import given, settings
from hypothesis import strategies as st

from myna import Tokenizer
from myna.errors import TextError, TokenizerError
from myna.text import patterns

SPECIALS = ["<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>"]
TEXTS = [
    "It's 12345 tests, don't YOU think?\n\n  of\tspaces naïve 中文 실황 😀👍🏽 <|endoftext|>",
    "HTTPServer's ǅ IT'S ok",
]
few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
by_pattern = pytest.mark.parametrize("name", ["gpt2", "gpt4", "o200k"])


@cache
def both(name: str) -> tuple[Tokenizer, tiktoken.Encoding]:
    texts = [*(text * 20 for text in TEXTS), topics["with"], topics["lambda"]]
    tok = Tokenizer.train(texts, 420, name, special_tokens=SPECIALS[1:])
    with unittest.mock.patch.object(public, "load_tiktoken_bpe", return_value={}):
        published = {"gpt4": public.cl100k_base, "o200k": public.o200k_base}
        pattern = published[name]()["pat_str"] if name in published else public.r50k_pat_str
    ranks, specials = tok.vocabulary.ranks, tok.special_tokens
    encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials)
    made = Tokenizer.from_ranks(ranks, pattern, specials)
    assert made == tok
    assert made.vocabulary.pattern.name == name
    return made, encoding


def test_from_ranks_knows_published_patterns_and_refuses_what_is_no_table() -> None:
    ranks = Tokenizer.bytes().vocabulary.ranks
    assert Tokenizer.from_ranks(ranks, "none", {"<|endoftext|>": 256}) == Tokenizer.bytes()
    assert Tokenizer.from_ranks(ranks, r"\w+|\W").encode("ab c") == list(b"ab c")
    for bad, message in (
        ({**ranks, b"ab": 97}, "rank of its own"),
        ({**ranks, "ab": 256}, "no token"),
        ({b"a": 0}, "lacks 255 of the 256"),
    ):
        with pytest.raises(TokenizerError, match=message):
            Tokenizer.from_ranks(bad, "gpt2")  # type: ignore[arg-type]


@by_pattern
@few
@given(texts=st.lists(st.text() | st.sampled_from(TEXTS), max_size=4))
def test_texts_go_there_and_back(name: str, texts: list[str]) -> None:
    tok, encoding = both(name)
    rows = tok.encode_batch(texts)
    assert rows == encoding.encode_ordinary_batch(texts)
    assert rows == [tok.encode_ordinary(text) for text in texts]
    assert tok.decode_batch(rows) == texts == encoding.decode_batch(rows)
    assert [tok.decode_bytes(row) for row in rows] == encoding.decode_bytes_batch(rows)


@by_pattern
@few
@given(parts=st.lists(st.sampled_from([*SPECIALS, "<|endof", "a ", "\n", "naïve"]), max_size=8))
def test_special_tokens_where_they_are_allowed(name: str, parts: list[str]) -> None:
    tok, encoding = both(name)
    text = "".join(parts)
    assert tok.encode(text) == encoding.encode(text, disallowed_special=())
    assert tok.encode(text, allowed_special="all") == encoding.encode(text, allowed_special="all")
    some = {SPECIALS[1]}
    expected = encoding.encode(text, allowed_special=some, disallowed_special=())
    assert tok.encode(text, allowed_special=some) == expected
    assert tok.encode_batch([text, "b"], allowed_special="all") == encoding.encode_batch(
        [text, "b"], allowed_special="all"
    )
    assert tok.decode(tok.encode(text, allowed_special="all")) == text


@by_pattern
@few
@given(data=st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode()[:-1]))
def test_any_bytes_have_ids_that_decode_to_them(name: str, data: bytes) -> None:
    tok, encoding = both(name)
    ids = tok.encode_bytes(data)
    assert tok.decode_bytes(ids) == data
    assert ids == encoding._encode_bytes(data)


@by_pattern
def test_what_whitespace_joins_bytes_that_are_not_utf8(name: str) -> None:
    tokens = [*(bytes([byte]) for byte in range(256)), b"  ", b" \x1c", b"\n\x1c", b"\n\n", b" \xff"]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    pattern = both(name)[0].vocabulary.pattern
    tok = Tokenizer.from_ranks(ranks, pattern.python)
    encoding = tiktoken.Encoding(name, pat_str=pattern.rust, mergeable_ranks=ranks, special_tokens={})
    for characters in itertools.product(" \n\r\x1ca!\u3000", repeat=4):
        data = "".join(characters).encode() + b"\xff"
        assert tok.encode_bytes(data) == encoding._encode_bytes(data)


def test_cut_off_text_has_the_ids_of_its_beginning() -> None:
    tok = Tokenizer.gpt2()
    assert tok.encode_bytes("a 😀".encode()[:-1]) == tok.encode("a 😀")[:-1]
    assert Tokenizer.bytes().encode_bytes(b"\xff\x00") == [255, 0]
    assert tok.encode_bytes(b"") == []
    with pytest.raises(TextError, match="takes bytes, not str"):
        tok.encode_bytes("text")  # type: ignore[arg-type]


@by_pattern
@few
@given(text=st.text() | st.sampled_from([*TEXTS, "我非常渴望与人工智能", "நடிகர்"]))
def test_offsets_are_tiktokens(name: str, text: str) -> None:
    tok, encoding = both(name)
    ids = tok.encode(text, allowed_special="all")
    assert tok.decode_with_offsets(ids) == encoding.decode_with_offsets(ids)


@few
@given(ids=st.lists(st.integers(0, 256), max_size=30))
def test_offsets_of_any_ids_point_into_the_text(ids: list[int]) -> None:
    tok = Tokenizer.bytes()
    text, offsets = tok.decode_with_offsets(ids)
    assert text == tok.decode(ids)
    assert len(offsets) == len(ids)
    assert offsets == sorted(offsets)
    assert all(0 <= offset < len(text) for offset in offsets)
    for number, offset in enumerate(offsets):  # a text that ends before the id is at most one character off
        assert offset <= len(tok.decode(ids[:number])) <= offset + 1


@by_pattern
def test_each_id_is_one_token(name: str) -> None:
    tok, encoding = both(name)
    for i in range(tok.n_vocab):
        data = tok.token_bytes(i)
        special = data.decode() if i in tok.special_tokens.values() else None
        assert tok.encode_single_token(special or data) == i == encoding.encode_single_token(special or data)
        assert data == encoding.decode_single_token_bytes(i)
    assert tok.encode_single_token("It") == tok.encode("It")[0]
    for absent in ("It is", b"\xff\xff", "", "<|nope|>"):
        with pytest.raises(TokenizerError, match="not one token"):
            tok.encode_single_token(absent)


@by_pattern
def test_what_a_tokenizer_says_of_itself(name: str) -> None:
    tok, encoding = both(name)
    assert tok.n_vocab == tok.vocab_size == len(tok) == encoding.n_vocab == 420
    assert tok.eot == encoding.eot_token
    assert set(tok.special_tokens) == encoding.special_tokens_set
    assert list(tok.special_tokens.values()) == [417, 418, 419]  # end of text, then the others in order
    for same in (copy.deepcopy(tok), pickle.loads(pickle.dumps(tok))):
        assert same == tok
        assert hash(same) == hash(tok)
    assert tok != Tokenizer.bytes()
    assert tok != encoding


def test_errors_of_decoding() -> None:
    tok = Tokenizer.bytes()
    ids = [0x61, 0xFF, 0x62]
    assert tok.decode(ids) == "a\ufffdb"
    assert tok.decode(ids, errors="ignore") == "ab"
    with pytest.raises(TextError, match=r"byte 1 .* no UTF-8"):
        tok.decode(ids, errors="strict")
    with pytest.raises(TextError, match="errors takes"):
        tok.decode(ids, errors="nosuch")
    for bad in ([257], [-1], ["a"], [1.5], [None]):
        with pytest.raises(TokenizerError, match="outside the vocabulary"):
            tok.decode(bad)  # type: ignore[arg-type]
    for bad_rows in (5, "ab", None):
        with pytest.raises(TextError, match="give a list"):
            tok.decode(bad_rows)  # type: ignore[arg-type]


def test_one_text_instead_of_many_is_refused() -> None:
    tok = Tokenizer.gpt2()
    for call in (
        lambda: tok.encode_batch("abc"),
        lambda: tok.encode_batch("abc", allowed_special="all"),
        lambda: tok.encode_batch(None),
        lambda: tok.encode_arrays(b"abc"),
        lambda: Tokenizer.train("one long text " * 20, 260),
    ):
        with pytest.raises(TextError, match="give a list"):
            call()


def test_names_of_special_tokens_that_training_refuses() -> None:
    for names, message in (
        ("<|pad|>", "takes a list"),
        (["a", "a"], "there already"),
        (["<|endoftext|>"], "there already"),
        ([""], "not empty"),
        ([3], "not empty"),
    ):
        with pytest.raises(TokenizerError, match=message):
            Tokenizer.train(TEXTS, 300, special_tokens=names)  # type: ignore[arg-type]
    with pytest.raises(TokenizerError, match="make 259"):
        Tokenizer.train(TEXTS, 258, special_tokens=["a", "b"])


@few
@given(text=st.text() | st.lists(st.sampled_from([*"aA'sS1 \n/!ǅʰ中\u0301"]), max_size=30).map("".join))
def test_o200k_cuts_as_tiktoken_does(text: str) -> None:
    pieces = patterns.O200K.pieces(text)
    assert "".join(pieces) == text
    tok, encoding = both("o200k")
    assert tok.encode(text) == encoding.encode_ordinary(text)


def test_a_million_of_one_character_under_o200k() -> None:
    tok, _ = both("o200k")
    for text in (" " * 1_000_000 + "a", "A" * 1_000_000, "\u0301" * 1_000_000, "a" + "\n" * 1_000_000 + " b"):
        assert tok.decode(tok.encode(text)) == text
