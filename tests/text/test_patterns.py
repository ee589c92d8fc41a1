"""Each dialect of a pattern cuts alike, and blocks don't change the cuts."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myna.errors import TokenizerError
from myna.text import patterns
from myna.text.counting import segment_ends

CLASSICS = [patterns.GPT2, patterns.GPT4]
KNOWN = [*CLASSICS, patterns.O200K]
ascii_text = st.text(st.characters(max_codepoint=127), max_size=60)
tricky = st.lists(
    st.sampled_from(
        [*"abZ1 9!'\n\r\t", "  ", "'s", "'LL", "'ſ", "é", "中", "😀", "\u0301", "\u00a0", "\x85", "½"]
    ),
    max_size=40,
).map("".join)


@pytest.mark.parametrize("pattern", KNOWN, ids=lambda p: p.name)
@settings(max_examples=300)
@given(text=st.one_of(ascii_text, tricky, st.text()))
def test_pieces_are_the_split(pattern: patterns.Pattern, text: str) -> None:
    pieces = list(pattern.split(text))
    assert "".join(pieces) == text
    assert pattern.pieces(text) == pieces
    assert all(pieces)


@pytest.mark.parametrize("pattern", KNOWN, ids=lambda p: p.name)
@given(text=st.one_of(tricky, ascii_text))
def test_blocks_do_not_change_the_pieces(pattern: patterns.Pattern, text: str) -> None:
    blocks = list(patterns.blocks(pattern, text, block_characters=5))
    assert "".join(blocks) == text
    assert [piece for block in blocks for piece in pattern.split(block)] == list(pattern.split(text))


@pytest.mark.parametrize("pattern", KNOWN, ids=lambda p: p.name)
def test_both_sides_of_a_cut_are_split_alone(pattern: patterns.Pattern) -> None:
    """Each two ASCII characters that are cut, with what could bind them to what stands around."""
    pairs = [(a, b) for before, after in pattern.cuts for a in before for b in after]
    assert len(pairs) > 5000
    for a, b in pairs:
        for before, after in (("", ""), ("'", "s"), (" ", " "), ("\n", "\n"), ("é", "\u0301"), ("x'", "l")):
            left, right = before + a, b + after
            assert list(pattern.split(left + right)) == [*pattern.split(left), *pattern.split(right)]


@pytest.mark.slow
@pytest.mark.parametrize("pattern", KNOWN, ids=lambda p: p.name)
def test_segments_of_all_short_texts(pattern: patterns.Pattern) -> None:
    """A million texts of up to five characters, one of each kind that a pattern treats in its own way."""
    kinds = ["a", "s", "L", "1", " ", "\n", "\t", "\r", "'", ".", "/", "é", "\u0301", "\x1c", "\u00a0", "中"]
    for length in range(1, 6):
        for characters in product(kinds, repeat=length):
            text = "".join(characters)
            data = text.encode()
            ends = segment_ends(data, np.array([len(data)]), pattern).tolist()
            segments = [data[start:end].decode() for start, end in pairwise([0, *ends])]
            assert [piece for segment in segments for piece in pattern.pieces(segment)] == list(
                pattern.split(text)
            )


def test_long_text_is_cut_into_blocks() -> None:
    text = "word " * 100_000
    assert len(list(patterns.blocks(patterns.GPT2, text))) > 5
    assert list(patterns.blocks(patterns.custom(r"\w+|\W+"), text)) == [text]


def test_what_the_patterns_mean() -> None:
    assert list(patterns.GPT2.split("I'LL pay 12345  now\n")) == [
        "I",
        "'",
        "LL",
        " pay",
        " 12345",
        " ",
        " now",
        "\n",
    ]
    assert list(patterns.GPT4.split("I'LL pay 12345  now!\n")) == [
        "I", "'LL", " pay", " ", "123", "45", " ", " now", "!\n",
    ]  # fmt: skip


def test_own_pattern_loses_nothing() -> None:
    pattern = patterns.custom(r"[a-z]+")
    assert list(pattern.split("ab, cd!")) == ["ab", ", ", "cd", "!"]
    assert list(patterns.custom("x*").split("axxb")) == ["a", "xx", "b"]


def test_a_pattern_that_does_not_compile() -> None:
    with pytest.raises(TokenizerError, match="no regular expression"):
        patterns.named("(ab")


def test_a_pattern_that_backtracks_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS_AT_LEAST", 0.2)
    with pytest.raises(TokenizerError, match="backtracks without bound"):
        list(patterns.custom(r"(a|aa|a.)+$").split("a" * 60 + "b\n" * 2))


@pytest.mark.parametrize(
    "pattern", [*CLASSICS, patterns.NONE, patterns.custom(r"\w+|\W")], ids=lambda p: p.name
)
def test_pre_tokenizer_is_read_back(pattern: patterns.Pattern) -> None:
    assert patterns.from_pre_tokenizer(pattern.pre_tokenizer()) == pattern


@pytest.mark.parametrize(
    "section",
    [None, {}, {"type": "Metaspace"}, {"type": "ByteLevel", "add_prefix_space": True}, {"type": "Sequence"}],
)
def test_other_pre_tokenizers_are_not_ours(section: object) -> None:
    assert patterns.from_pre_tokenizer(section) is None
