"""Fill in the middle, in ids: three special tokens frame a prefix, a suffix, and the middle that a model is to write.

    prefix-suffix-middle   <|fim_prefix|> prefix <|fim_suffix|> suffix <|fim_middle|> middle
    suffix-prefix-middle   <|fim_prefix|> <|fim_suffix|> suffix <|fim_middle|> prefix middle

Training uses both (see data/fill.py), and a prompt is the first without its middle. The second is the first with an
empty prefix, and a middle that begins with the prefix: so what a model learns from one serves the other. What a person
wrote never becomes a special token: it is encoded as ordinary text, and the frames are put around it as ids.

Source: Bavarian et al. 2022, arXiv:2207.14255, section 3 (the orders are PSM and SPM there) and appendix D (of the two
variants of SPM, this is the second, which the paper trains jointly with PSM).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from myna.errors import TextError, TokenizerError
from myna.text.tokenizer import Tokenizer
from myna.text.vocabulary import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, FIM_TOKENS


def can_fill(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer has the special tokens that frame the parts."""
    return set(FIM_TOKENS) <= set(tokenizer.special_tokens)


def require_fill(tokenizer: Tokenizer, what: str) -> None:
    """Raises TokenizerError, which says how to get a model that can fill.

    Args:
        what: names the model.
    """
    if not can_fill(tokenizer):
        raise TokenizerError(
            f"{what} has no tokens to fill in the middle ({', '.join(FIM_TOKENS)}), so it can't write what stands "
            "before a suffix; train a model that can: myna train RECIPE --data DATA --fim-rate 0.5"
        )


def with_fim_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the three special tokens, whose ids follow all others; itself where it has them.

    Raises:
        TokenizerError: it has no end-of-text token, or is no byte-level BPE of ours.
    """
    _ = tokenizer.eot  # where a middle ends
    _ = tokenizer.vocabulary
    return tokenizer.with_special_tokens(FIM_TOKENS)


@dataclass(frozen=True)
class Frames:
    """The ids of the three tokens, and the two orders in which they frame the ids of a text's parts."""

    prefix: int
    middle: int
    suffix: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Frames":
        """Those of a tokenizer that `can_fill`."""
        return cls(*(tokenizer.special_tokens[name] for name in (FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX)))

    def prefix_first(self, prefix: Sequence[int], suffix: Sequence[int], middle: Sequence[int]) -> list[int]:
        """
        >>> Frames(prefix=7, middle=8, suffix=9).prefix_first([1], [3], [2])
        [7, 1, 9, 3, 8, 2]
        """
        return [self.prefix, *prefix, self.suffix, *suffix, self.middle, *middle]

    def suffix_first(self, prefix: Sequence[int], suffix: Sequence[int], middle: Sequence[int]) -> list[int]:
        """
        >>> Frames(prefix=7, middle=8, suffix=9).suffix_first([1], [3], [2])
        [7, 9, 3, 8, 1, 2]
        """
        return self.prefix_first([], suffix, [*prefix, *middle])


@dataclass(frozen=True)
class FillPrompt:
    """What a model is asked to go on from.

    Attributes:
        ids: the end-of-text id, as before every document; the prefix; the suffix; and the frame of the middle.
        prefix: the ids of the prefix that fit.
        cut: ids left out at the prefix's left end and at the suffix's right end.
    """

    ids: list[int]
    prefix: list[int]
    cut: tuple[int, int] = (0, 0)


def encode_fill(
    tokenizer: Tokenizer, prefix: str | Sequence[int], suffix: str, room: int | None = None
) -> FillPrompt:
    """The prompt for the middle between two texts.

    Where they don't fit, what is next to the middle stays: the prefix's right end and the suffix's left end. Each gets
    half of the room, and what the other doesn't need.

    Args:
        tokenizer: one that `can_fill`.
        prefix: a text, or ids.
        room: ids at most, frames and all; None for no limit.
    Raises:
        TextError: a lone surrogate, or a room that doesn't hold the frames.
    """
    before = tokenizer.encode(prefix) if isinstance(prefix, str) else list(prefix)
    after = tokenizer.encode(suffix)
    n_before, n_after = len(before), len(after)
    frames = 1 + len(FIM_TOKENS)
    if room is not None and frames + n_before + n_after > room:
        left = room - frames
        if left < 0:
            raise TextError(f"{room} tokens of context have no room for the {frames} that frame a middle")
        n_after = min(n_after, max(left // 2, left - n_before))
        n_before = min(n_before, left - n_after)
    cut = (len(before) - n_before, len(after) - n_after)
    before = before[cut[0] :]
    ids = [tokenizer.eot, *Frames.of(tokenizer).prefix_first(before, after[:n_after], [])]
    return FillPrompt(ids, before, cut)


def room_for_prompt(context: int, max_tokens: int) -> int:
    """Ids that a prompt may have so that the middle fits the context behind it; at least half of the context.

    >>> room_for_prompt(1024, 128), room_for_prompt(64, 128)
    (896, 32)
    """
    return max(context - max_tokens, context // 2)


def stop_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that end a middle."""
    return frozenset((tokenizer.eot, *(tokenizer.special_tokens[name] for name in FIM_TOKENS)))
