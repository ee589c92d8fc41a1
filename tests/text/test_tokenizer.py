"""The public face: what encode, decode and the rest promise."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myna import Tokenizer
from myna.errors import TextError, TokenizerError
from myna.text import patterns
from myna.text.engines import RankModel
from myna.text.vocabulary import Vocabulary

GPT2 = Tokenizer.gpt2()
GPT4_LIKE = Tokenizer.train(
    ["<|endoftext|> it's 1234567 spaces   and\n\n lines <|endoftext|>"] * 3, 280, "gpt4"
)
BYTES = Tokenizer.bytes()
ALL = [GPT2, GPT4_LIKE, BYTES]
all_tokenizers = pytest.mark.parametrize("tok", ALL, ids=lambda tok: tok.name)


def test_gpt2() -> None:
    assert (GPT2.n_vocab, GPT2.eot, GPT2.name) == (50257, 50256, "gpt2")
    assert GPT2.special_tokens == {"<|endoftext|>": 50256}
    assert GPT2.encode("Hello, I'm a language model,") == [15496, 11, 314, 1101, 257, 3303, 2746, 11]


def test_bytes() -> None:
    assert (BYTES.n_vocab, BYTES.eot) == (257, 256)
    assert BYTES.encode("é\0") == [0xC3, 0xA9, 0]


@all_tokenizers
@settings(max_examples=200)
@given(text=st.text())
def test_text_survives(tok: Tokenizer, text: str) -> None:
    ids = tok.encode(text)
    assert tok.decode(ids) == text
    assert tok.decode_bytes(ids) == text.encode()
    assert sum(tok.id_bytes()[ids]) == len(text.encode())


def test_bytes_under_other_ids() -> None:
    vocabulary = Vocabulary(patterns.NONE, (None, *BYTES.vocabulary.tokens), {"<|pad|>": 0})
    tok = Tokenizer(RankModel(vocabulary), "bytes from 1")
    long = "ab" * 100
    assert tok.encode("a") == [98]
    assert tok.encode(long) == [98, 99] * 100
    assert tok.encode_arrays(["", "a", long])[0].tolist() == [98, *[98, 99] * 100]
    assert tok.decode(tok.encode(long)) == long


@all_tokenizers
@given(texts=st.lists(st.text(max_size=20), max_size=6))
def test_batch_and_arrays_are_encode(tok: Tokenizer, texts: list[str]) -> None:
    rows = [tok.encode(text) for text in texts]
    assert tok.encode_batch(texts) == rows
    ids, lengths = tok.encode_arrays(texts)
    assert ids.tolist() == [i for row in rows for i in row]
    assert lengths.tolist() == [len(row) for row in rows]
    assert ids.dtype == np.uint16
    assert lengths.dtype == np.int64


@all_tokenizers
def test_an_iterator_of_texts_is_read_once(tok: Tokenizer) -> None:
    texts = ["a", "", "it's\n"]
    assert tok.encode_batch(iter(texts)) == tok.encode_batch(texts) == [tok.encode(text) for text in texts]
    assert tok.encode_arrays(text for text in texts)[1].tolist() == tok.encode_arrays(texts)[1].tolist()
    assert tok.encode_batch(iter([])) == []


def test_arrays_of_a_large_vocabulary_are_uint32() -> None:
    vocabulary = GPT2.vocabulary
    large = Tokenizer(
        RankModel(Vocabulary(vocabulary.pattern, vocabulary.tokens, {"<|endoftext|>": 70_000})), "large"
    )
    assert large.n_vocab == 70_001
    assert large.encode_arrays(["a"])[0].dtype == np.uint32


@all_tokenizers
def test_special_tokens_only_when_allowed(tok: Tokenizer) -> None:
    text = "a<|endoftext|>b"
    assert tok.eot not in tok.encode(text)
    assert tok.eot not in tok.encode_arrays([text] * 50)[0]
    assert tok.encode(text, allowed_special={"<|endoftext|>"}) == [
        *tok.encode("a"),
        tok.eot,
        *tok.encode("b"),
    ]
    assert tok.encode("<|endoftext|>" * 2, allowed_special=["<|endoftext|>"]) == [tok.eot] * 2
    assert tok.decode([tok.eot]) == "<|endoftext|>"


def test_longest_special_token_wins() -> None:
    vocabulary = Vocabulary(BYTES.vocabulary.pattern, BYTES.vocabulary.tokens, {"<|a|>": 256, "<|a|>b": 257})
    tok = Tokenizer(RankModel(vocabulary), "two")
    assert tok.encode("<|a|>b<|a|>", allowed_special=tok.special_tokens) == [257, 256]
    assert tok.encode("<|a|>b", allowed_special={"<|a|>"}) == [256, ord("b")]


def test_allowing_what_is_not_special() -> None:
    with pytest.raises(TokenizerError, match="no special token of gpt2"):
        GPT2.encode("x", allowed_special={"<|im_start|>"})
    with pytest.raises(TokenizerError, match="takes a set of names"):
        GPT2.encode("x", allowed_special="<|endoftext|>")


@all_tokenizers
@pytest.mark.parametrize("text", ["\ud800", "ok \udfff ok", "\udcff" * 20_000])
def test_lone_surrogates_are_refused(tok: Tokenizer, text: str) -> None:
    for call in (tok.encode, lambda t: tok.encode_batch([t]), lambda t: tok.encode(t, {"<|endoftext|>"})):
        with pytest.raises(TextError, match="lone surrogate"):
            call(text)


@all_tokenizers
@pytest.mark.parametrize("i", [-1, 10**6])
def test_ids_outside_the_vocabulary(tok: Tokenizer, i: int) -> None:
    with pytest.raises(TokenizerError, match="outside the vocabulary"):
        tok.decode([0, i])


def test_numpy_ids_decode() -> None:
    assert GPT2.decode(np.array([15496, 995], dtype=np.uint16)) == "Hello world"


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    assert BYTES.decode([0xFF, 65]) == "\ufffdA"
    assert BYTES.decode_bytes([0xFF, 65]) == b"\xffA"


@all_tokenizers
def test_id_bytes(tok: Tokenizer) -> None:
    lengths = tok.id_bytes()
    assert lengths.shape == (tok.n_vocab,)
    assert lengths.dtype == np.int64
    assert lengths[tok.eot] == 0
    assert all(lengths[i] == len(tok.token_bytes(i)) for i in range(0, tok.eot, 7))


@all_tokenizers
def test_a_process_can_be_sent_one(tok: Tokenizer) -> None:
    copy = pickle.loads(pickle.dumps(tok))
    assert copy.encode("some text, é") == tok.encode("some text, é")
    assert (copy.sha256, copy.name) == (tok.sha256, tok.name)


def test_open() -> None:
    assert Tokenizer.open("gpt2").n_vocab == 50257
    assert Tokenizer.open("bytes").n_vocab == 257
    with pytest.raises(TokenizerError, match="no tokenizer 'gpt5'"):
        Tokenizer.open("gpt5")
    with pytest.raises(TokenizerError, match="File name too long"):
        Tokenizer.open("x" * 5000)
    with pytest.raises(TokenizerError, match="r50k_base is GPT-2's tokenizer, which is bundled; give gpt2"):
        Tokenizer.open("r50k_base")


def test_what_is_no_text_is_refused():
    for call in (Tokenizer.bytes().encode, lambda x: Tokenizer.bytes().encode_batch([x])):
        for wrong in (5, b"bytes", None):
            with pytest.raises(TextError, match=f"as str, not {type(wrong).__name__}"):
                call(wrong)


@pytest.mark.parametrize("texts", [[], [""]])
def test_no_text_to_learn_from(texts):
    with pytest.raises(TokenizerError, match="no text to learn from"):
        Tokenizer.train(texts, vocab_size=257)


def test_what_a_recipe_says_is_no_tokenizer():
    with pytest.raises(TokenizerError, match="myna tokenizer train FILES --vocab-size 300"):
        Tokenizer.open("train:300")
