"""Split patterns: where a text is cut into pre-tokens before any byte pair is merged.

No merge crosses a cut, so a pattern decides what a token may be: "dog", " dog" but never "dog.". The patterns of GPT-2,
GPT-4 and GPT-4o are here, and any other regular expression can be given. A pattern is written in several dialects,
because several regex engines read it: Python's `regex` (training, the reference), Rust's (tiktoken), Oniguruma (Hugging
Face's tokenizer.json), and Python's `re`, which is faster.
"""

import functools
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import regex

from myna.errors import TokenizerError

# These are the forms that tiktoken 0.9 and later use. They cut where the forms before them cut, but GPT-4's new form
# keeps the whitespace at the end of a text in one pre-token. Their quantifiers are possessive. So only two parts can
# backtrack over more than one character: `\s+(?!\S)`, and `\s*[\r\n]` in GPT-4's pattern. Sources:
# https://github.com/openai/gpt-2/blob/master/src/encoder.py
# https://github.com/openai/tiktoken/blob/main/tiktoken_ext/openai_public.py (r50k_pat_str, cl100k_base)
GPT2_RUST = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
GPT4_RUST = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
# Oniguruma reads `{1,3}+` as "one or more times {1,3}", which glues a long number into one pre-token. So these forms
# have no such `+`. Their quantifiers are greedy and not possessive, but they cut in the same places as the forms above:
# nothing that follows could make them backtrack. In Oniguruma `$` means the end of a line, and `\z` the end of the
# text.
GPT2_ONIGURUMA = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT4_ONIGURUMA = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s+\z|\s*[\r\n]|\s+(?!\S)|\s"
)
# The pattern of GPT-4o and later models, as tiktoken's o200k_base spells it. It has no possessive quantifier and no
# `$`, so every engine reads the same spelling.
_CASELESS, _CONTRACTION = r"\p{Lm}\p{Lo}\p{M}", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K_PATTERN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}{_CASELESS}]*[\p{{Ll}}{_CASELESS}]+{_CONTRACTION}"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}{_CASELESS}]+[\p{{Ll}}{_CASELESS}]*{_CONTRACTION}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What transformers' Qwen2Tokenizer splits by.
QWEN2_ONIGURUMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The spelling of GPT-2's first release. (That of cl100k is not here: it cuts whitespace at the end of a text
# differently.)
GPT2_FIRST = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# For text that is all ASCII, Python's `re` splits twice as fast as `regex`. But it has no \p{L} and no \p{N}, and
# its \s also matches U+001C to U+001F. So these patterns spell the characters out.
GPT2_ASCII = (
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]++| ?[0-9]++| ?[^\t-\r A-Za-z0-9]++"
    r"|[\t-\r ]++\Z|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]"
)
GPT4_ASCII = (
    r"'(?:[sdmtSDMT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\nA-Za-z0-9]?+[A-Za-z]++|[0-9]{1,3}+"
    r"| ?[^\t-\r A-Za-z0-9]++[\r\n]*+|[\t-\r ]++\Z|[\t-\r ]*[\r\n]|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]"
)
# In tokenizer.json this regex comment stands before a custom pattern. It says that the pattern is in the syntax of
# Python's `regex`, and `from_pre_tokenizer` reads it so.
CUSTOM_MARK = "(?#myna)"
# A sane pattern splits some 10 MB a second. One that is a thousand times slower is taken to backtrack without bound.
SECONDS_PER_MEGACHARACTER = 100.0
SECONDS_AT_LEAST = 5.0
SAFE_CUT = re.compile(r"[0-9A-Za-z](?=[ \n])")
# Each pair in GPT2_CUTS and the others holds two strings of ASCII characters. The pattern always cuts between a
# character of the first string and a character of the second. The text before such a cut and the text after it can be
# split separately, and the pre-tokens stay the same. The reason is that no pre-token crosses the cut, and that nothing
# before the cut depends on the text after it: patterns look ahead only after whitespace, and the character before the
# cut is never whitespace. A slow test tries all short texts.
LETTERS, DIGITS, SIGNS, SPACES = string.ascii_letters, string.digits, string.punctuation, "\t\n\v\f\r "
NO_LETTERS = "".join(chr(code) for code in range(128) if chr(code) not in LETTERS)
NO_DIGITS = "".join(chr(code) for code in range(128) if chr(code) not in DIGITS)
GPT2_CUTS = (
    (LETTERS, NO_LETTERS),
    (DIGITS, NO_DIGITS),
    (SIGNS, SPACES + DIGITS),
    (SIGNS.replace("'", ""), LETTERS),  # 's is one pre-token
)
# A sign belongs to the letters after it, and a line break to the signs before it.
GPT4_CUTS = ((LETTERS, NO_LETTERS), (DIGITS, NO_DIGITS), (SIGNS, "\t " + DIGITS))
# "it's" is one pre-token.
O200K_CUTS = ((LETTERS, NO_LETTERS.replace("'", "")), *GPT4_CUTS[1:])


@dataclass(frozen=True)
class Pattern:
    """A split pattern in its dialects; `name` is "gpt2", "gpt4", "o200k", "none" (no cut at all) or "custom".

    Attributes:
        cuts: where it is known to cut, see GPT2_CUTS. Of a custom pattern nothing is known.
    """

    name: str
    python: str
    rust: str
    oniguruma: str
    ascii: str = ""
    cuts: tuple[tuple[str, str], ...] = ()

    @property
    def is_classic(self) -> bool:
        """Whether it is GPT-2's or GPT-4's, for which the engines have faster ways."""
        return self.name in ("gpt2", "gpt4")

    @functools.cached_property
    def compiled(self) -> "regex.Pattern[str]":
        """The pattern for Python's `regex`."""
        return _compile(self.python)

    def split(self, text: str) -> Iterator[str]:
        """The pre-tokens of a text, in order; joined, they are the text.

        Raises:
            TokenizerError: a custom pattern backtracks without bound on this text.

        >>> list(GPT2.split("I'm 3 dogs.  ok"))
        ['I', "'m", ' 3', ' dogs', '.', ' ', ' ok']
        """
        if self.name == "none":
            if text:
                yield text
            return
        end = 0
        budget_s = SECONDS_AT_LEAST + SECONDS_PER_MEGACHARACTER * len(text) / 1e6
        try:
            for match in self.compiled.finditer(text, timeout=budget_s):
                # Text that the pattern passes over is a pre-token too: nothing is lost.
                if match.start() > end:
                    yield text[end : match.start()]
                if match.group():
                    yield match.group()
                end = match.end()
        except TimeoutError:
            raise TokenizerError(
                f"the split pattern {self.python!r} backtracks without bound (no end after {budget_s:.0f} s on "
                f"{len(text):,} characters); make its quantifiers possessive (`++`) or use gpt2 or gpt4"
            ) from None
        if end < len(text):
            yield text[end:]

    @functools.cached_property
    def _compiled_ascii(self) -> "re.Pattern[str]":
        return re.compile(self.ascii)

    def pieces(self, text: str) -> list[str]:
        """The same as `split`, as a list and faster."""
        if not self.cuts:
            return list(self.split(text))
        return (self._compiled_ascii if self.ascii and text.isascii() else self.compiled).findall(text)

    def pre_tokenizer(self) -> dict[str, Any]:
        """The `pre_tokenizer` section of a Hugging Face tokenizer.json that cuts as this pattern does."""
        if self.name == "none":
            return byte_level(use_regex=False)
        if self.name == "gpt2":  # the split that is built into Hugging Face's ByteLevel
            return byte_level(use_regex=True)
        return split_then_byte_level(self.oniguruma)


def byte_level(use_regex: bool, add_prefix_space: bool = False) -> dict[str, Any]:
    """Hugging Face's pre-tokenizer that turns bytes into characters, and splits as GPT-2 does if `use_regex`."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def split_then_byte_level(expression: str, add_prefix_space: bool = False) -> dict[str, Any]:
    """The pre-tokenizer of Hugging Face that splits by an expression, in the dialect of Oniguruma."""
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, byte_level(False, add_prefix_space)]}


def blocks(pattern: Pattern, text: str, block_characters: int = 1 << 16) -> Iterator[str]:
    """Cuts a long text into blocks whose pre-tokens, block after block, are those of the text.

    It cuts before a space or newline that follows an ASCII letter or digit, since every pattern with `cuts` cuts there.
    With a pattern that has no `cuts`, the text is one block.
    """
    start = 0
    while pattern.cuts and len(text) - start > block_characters:
        cut = SAFE_CUT.search(text, start + block_characters)
        if cut is None:
            break
        yield text[start : cut.end()]
        start = cut.end()
    yield text[start:] if start else text


def _compile(expression: str) -> "regex.Pattern[str]":
    try:
        return regex.compile(expression)
    except regex.error as error:
        raise TokenizerError(f"the split pattern {expression!r} is no regular expression: {error}") from None


NONE = Pattern("none", "", "", "")
GPT2 = Pattern("gpt2", GPT2_RUST.replace("$", r"\Z"), GPT2_RUST, GPT2_ONIGURUMA, GPT2_ASCII, GPT2_CUTS)
GPT4 = Pattern("gpt4", GPT4_RUST.replace("$", r"\Z"), GPT4_RUST, GPT4_ONIGURUMA, GPT4_ASCII, GPT4_CUTS)
O200K = Pattern("o200k", O200K_PATTERN, O200K_PATTERN, O200K_PATTERN, cuts=O200K_CUTS)
BY_NAME = {"gpt2": GPT2, "gpt4": GPT4, "o200k": O200K, "none": NONE}
# The same patterns, by the expressions that other programs use for them. For tiktoken (Rust), `$` means the end of the
# text. In Python, `$` also matches before a last line break, so ours has \Z.
BY_SPELLING = {
    spelling: pattern
    for pattern, spellings in (
        (GPT2, (GPT2.rust, GPT2.python, GPT2.oniguruma, GPT2_FIRST)),
        (GPT4, (GPT4.rust, GPT4.python, GPT4.oniguruma)),
        (O200K, (O200K.python,)),
    )
    for spelling in spellings
}


def custom(expression: str) -> Pattern:
    """The user's own pattern, in the syntax of Python's `regex`.

    Raises:
        TokenizerError: it doesn't compile.
    """
    _compile(expression)
    return Pattern("custom", expression, expression, CUSTOM_MARK + expression)


def named(pattern: str) -> Pattern:
    """A pattern by name ("gpt2", "gpt4", "o200k", "none") or published expression, or a custom one.

    Raises:
        TokenizerError: neither a name nor an expression that compiles.
    """
    return BY_NAME.get(pattern) or BY_SPELLING.get(pattern) or custom(pattern)


def from_pre_tokenizer(section: Any) -> Pattern | None:
    """The pattern that a tokenizer.json's `pre_tokenizer` means, or None if `Pattern.pre_tokenizer` never writes it."""
    if not isinstance(section, dict):
        return None
    if section.get("type") == "ByteLevel":
        if section.get("add_prefix_space", True):
            return None
        return GPT2 if section.get("use_regex", True) else NONE
    for pattern in (GPT2, GPT4, O200K):
        if section == split_then_byte_level(pattern.oniguruma):
            return pattern
    try:
        expression = section["pretokenizers"][0]["pattern"]["Regex"]
    except (KeyError, IndexError, TypeError):
        return None
    if isinstance(expression, str) and expression.startswith(CUSTOM_MARK):
        pattern = custom(expression.removeprefix(CUSTOM_MARK))
        if section == pattern.pre_tokenizer():
            return pattern
    return None
