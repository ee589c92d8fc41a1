"""Step 4 against Myna's tokenizer with GPT-4's pattern; against GPT-4's own where its file is named in CL100K."""

import os

import bpe_4_gpt4 as gpt4
import pytest
from bpe_text import TEXT

from myna import Tokenizer
from myna.text import patterns

TEXTS = [TEXT, "I'M 3 dogs.  ok", "1234567", "a.b\n\n\n  c\r\n", "$name = 'x';  ", ""]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small tokenizer of GPT-4's kind, and its ranks in a file."""
    path = tmp_path_factory.mktemp("ranks") / "small.tiktoken"
    tok = Tokenizer.train([TEXT * 3], vocab_size=330, pattern="gpt4")
    tok.save(path)
    return tok, path


@pytest.mark.parametrize("text", TEXTS)
def test_the_pattern_cuts_as_gpt4(text):
    assert gpt4.PATTERN.findall(text) == patterns.GPT4.pieces(text)


def test_ranks_are_read(small):
    tok, path = small
    assert gpt4.read_ranks(path) == tok.vocabulary.ranks


@pytest.mark.parametrize("text", TEXTS)
def test_encoding_gives_mynas_ids(small, text):
    tok, path = small
    ids = gpt4.encode(text, gpt4.read_ranks(path))
    assert ids == tok.encode(text)
    assert gpt4.decode(ids, gpt4.read_ranks(path)) == text


def test_gpt2s_50000_merges_work_by_rank_alone():
    tok = Tokenizer.gpt2()
    for piece in (" world", " antidisestablishmentarianism", "안녕하세요", " SolidGoldMagikarp"):
        assert gpt4.encode_piece(piece.encode(), tok.vocabulary.ranks) == tok.encode(piece)


@pytest.mark.skipif("CL100K" not in os.environ, reason="CL100K names no cl100k_base.tiktoken")
@pytest.mark.parametrize("text", TEXTS)
def test_encoding_gives_gpt4s_ids(text):
    path = os.environ["CL100K"]
    assert gpt4.encode(text, gpt4.read_ranks(path)) == Tokenizer.load(path).encode(text)
