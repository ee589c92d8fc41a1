"""The frames of a middle: what a person typed stays text, and what does not fit loses its far ends."""

import pytest

from myna import Tokenizer
from myna.errors import TextError, TokenizerError
from myna.text.fim import (
    Frames,
    can_fill,
    encode_fill,
    require_fill,
    room_for_prompt,
    stop_ids,
    with_fim_tokens,
)
from myna.text.vocabulary import FIM_TOKENS

BYTES = with_fim_tokens(Tokenizer.bytes())
EOT, PREFIX, MIDDLE, SUFFIX = 256, 257, 258, 259


def test_a_prompt_is_framed_by_ids_that_no_text_becomes():
    typed = "<|fim_suffix|>"
    found = encode_fill(BYTES, "a" + typed, typed + "b").ids
    assert found == [EOT, PREFIX, *b"a", *typed.encode(), SUFFIX, *typed.encode(), *b"b", MIDDLE]
    assert encode_fill(BYTES, [97, 256], "").ids == [EOT, PREFIX, 97, 256, SUFFIX, MIDDLE]
    assert stop_ids(BYTES) == {EOT, PREFIX, MIDDLE, SUFFIX}


def test_both_orders():
    frames = Frames.of(BYTES)
    assert frames.prefix_first(b"p", b"s", b"m") == [PREFIX, *b"p", SUFFIX, *b"s", MIDDLE, *b"m"]
    assert frames.suffix_first(b"p", b"s", b"m") == [PREFIX, SUFFIX, *b"s", MIDDLE, *b"pm"]


@pytest.mark.parametrize(
    ("prefix", "suffix", "room", "kept"),
    [
        ("abcd", "wxyz", 12, ("abcd", "wxyz")),
        ("abcd", "wxyz", 10, ("bcd", "wxy")),
        ("abcd", "wxyz", 9, ("bcd", "wx")),
        ("abcdefgh", "z", 8, ("fgh", "z")),
        ("a", "stuvwxyz", 8, ("a", "stu")),
        ("abcd", "wxyz", 4, ("", "")),
    ],
)
def test_what_is_next_to_the_middle_is_kept(prefix, suffix, room, kept):
    found = encode_fill(BYTES, prefix, suffix, room)
    assert found.ids == encode_fill(BYTES, *kept).ids
    assert found.prefix == list(kept[0].encode())
    assert found.cut == (len(prefix) - len(kept[0]), len(suffix) - len(kept[1]))
    assert len(found.ids) <= room


def test_no_room_for_the_frames():
    with pytest.raises(TextError, match="3 tokens of context have no room for the 4"):
        encode_fill(BYTES, "a", "b", 3)
    assert room_for_prompt(4, 100) == 2


def test_the_tokens_follow_all_others_and_are_added_once():
    grown = with_fim_tokens(Tokenizer.gpt2())
    assert [grown.special_tokens[name] for name in FIM_TOKENS] == [50257, 50258, 50259]
    assert grown.extends(Tokenizer.gpt2())
    assert with_fim_tokens(grown) is grown
    assert can_fill(grown)
    assert not can_fill(Tokenizer.gpt2())
    with pytest.raises(TokenizerError, match=r"m has no tokens to fill in the middle .*--fim-rate 0\.5"):
        require_fill(Tokenizer.gpt2(), "m")


def test_a_tokenizer_without_an_end_of_text_can_get_none():
    ranks = {bytes([byte]): byte for byte in range(256)}
    with pytest.raises(TokenizerError, match="no end-of-text token"):
        with_fim_tokens(Tokenizer.from_ranks(ranks, "none"))
