"""Step 3 against Myna's special tokens."""

import bpe_2_regex as pieces
import bpe_3_special as special
import pytest
from bpe_text import TEXT

from myna import Tokenizer

N_MERGES = 40
TEXTS = ["hi<|endoftext|>you", "<|user|>hi<|user|> there<|endoftext|>", "no special token", "<|user|", ""]


@pytest.fixture(scope="module")
def tok():
    return Tokenizer.train([TEXT], vocab_size=256 + N_MERGES + 2, special_tokens=["<|user|>"])


@pytest.fixture(scope="module")
def merges():
    return pieces.train(TEXT, N_MERGES)


def test_a_text_is_cut_around_special_tokens():
    assert special.cut_at_special("hi<|end|>you", {"<|end|>"}) == ["hi", "<|end|>", "you"]
    assert special.cut_at_special("a||b|", {"|", "||"}) == ["a", "||", "b", "|"]
    assert special.cut_at_special("hi", set()) == ["hi"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("allowed", [set(), {"<|user|>"}, {"<|user|>", "<|endoftext|>"}])
def test_only_allowed_names_become_special_tokens(tok, merges, text, allowed):
    ids = special.encode(text, merges, tok.special_tokens, allowed)
    assert ids == tok.encode(text, allowed_special=allowed)
    assert special.decode(ids, merges, tok.special_tokens) == text


def test_an_unknown_name_is_refused(tok, merges):
    with pytest.raises(ValueError, match="nobody"):
        special.encode("hi", merges, tok.special_tokens, {"<|nobody|>"})
