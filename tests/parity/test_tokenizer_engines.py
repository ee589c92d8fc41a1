"""gigatoken and tiktoken are built on different versions of Unicode: where they differ, we know it."""

import pytest

from myna.text import patterns
from myna.text.characters import is_disputed
from myna.text.engines import RankModel
from myna.text.vocabulary import Vocabulary

SURROGATES = range(0xD800, 0xE000)
PLANE = 0x10000


def probing_model(characters: list[str], pattern: patterns.Pattern) -> RankModel:
    """A vocabulary in which a character and the "a", "1" or "!" after it are one token, unless a cut divides them."""
    tokens = dict.fromkeys(bytes([byte]) for byte in range(256))
    for character in characters:
        spelled = character.encode()
        tokens.update(dict.fromkeys(spelled[:end] for end in range(2, len(spelled) + 1)))
    for character in characters:
        tokens.update(dict.fromkeys(character.encode() + after for after in (b"a", b"1", b"!")))
    return RankModel(Vocabulary(pattern, tuple(tokens), {}))


def disputes(first: int, last: int, pattern: patterns.Pattern) -> list[str]:
    """Undisputed characters in a range of code points that the engines cut differently."""
    found = []
    for start in range(first, last, 20_000):
        codes = (code for code in range(start, min(start + 20_000, last)) if code not in SURROGATES)
        characters = [character for character in map(chr, codes) if not is_disputed(character)]
        model = probing_model(characters, pattern)
        texts = [character + after for character in characters for after in "a1!"]
        ids, lengths = model.encode_arrays(texts)
        ends = lengths.cumsum().tolist()
        rows = [tuple(ids[a:b].tolist()) for a, b in zip([0, *ends], ends, strict=False)]
        theirs = [tuple(row) for row in map(model._tiktoken.encode_ordinary, texts)]
        found += [f"U+{ord(t[0]):04X}" for t, a, b in zip(texts, rows, theirs, strict=True) if a != b]
    return found


@pytest.mark.parametrize("pattern", [patterns.GPT2, patterns.GPT4], ids=lambda p: p.name)
def test_engines_agree_on_the_code_points_in_use(pattern: patterns.Pattern) -> None:
    assert disputes(0, 0x3100, pattern) == []
    assert disputes(0xA000, 0xB000, pattern) == []
    assert disputes(0x10000, 0x13000, pattern) == []


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [patterns.GPT2, patterns.GPT4], ids=lambda p: p.name)
def test_engines_agree_on_every_code_point(pattern: patterns.Pattern) -> None:
    assert disputes(0, 17 * PLANE, pattern) == []


def test_disputed_text_takes_the_ids_of_tiktoken() -> None:
    characters = ["\u088f", "\U000323b0", "\u0c5c"]
    for pattern in (patterns.GPT2, patterns.GPT4):
        model = probing_model(characters, pattern)
        for character in characters:
            text = f"{character}a " * 10_000
            expected = model._tiktoken.encode_ordinary(text)
            assert model.encode(text) == expected
            assert model.encode_arrays([text])[0].tolist() == expected


@pytest.mark.parametrize("text", ["", "plain", "é “quoted” 中文 😀 ह ไทย", "\u20ac\u2080"])
def test_everyday_text_is_not_disputed(text: str) -> None:
    assert not is_disputed(text)
    assert is_disputed(text + "\u088f")
    assert is_disputed("\U00033479" + text)
