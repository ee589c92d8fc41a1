"""Step 2 against Myna's tokenizer with GPT-2's pattern."""

import bpe_2_regex as pieces
import pytest
from bpe_text import TEXT

from myna import Tokenizer
from myna.text import patterns

N_MERGES = 40


@pytest.fixture(scope="module")
def tok():
    return Tokenizer.train([TEXT], vocab_size=256 + N_MERGES + 1, pattern="gpt2")


@pytest.mark.parametrize("text", [TEXT, "I'm 3 dogs.  ok", "a\n\n  b ", "x=1;y=22", ""])
def test_the_pattern_cuts_as_gpt2(text):
    assert pieces.split(text) == patterns.GPT2.pieces(text)


def test_training_and_encoding_give_mynas_ids(tok):
    merges = pieces.train(TEXT, N_MERGES)
    for text in (TEXT, "the weather there", "123 other cats' 안녕"):
        assert pieces.encode(text, merges) == tok.encode(text)


def test_decoding_gives_the_text_back():
    merges = pieces.train(TEXT, N_MERGES)
    assert pieces.decode(pieces.encode(TEXT, merges), merges) == TEXT
    assert pieces.decode([0xED], merges) == "\ufffd"  # the first of three bytes of a letter
