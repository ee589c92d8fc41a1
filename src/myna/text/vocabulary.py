"""What a byte-level BPE tokenizer is, apart from the engines that run it."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from myna.errors import TokenizerError
from myna.text import bpe
from myna.text.patterns import Pattern

Merge = tuple[bytes, bytes]
END_OF_TEXT = "<|endoftext|>"
# What frames a turn of a conversation: see chat.py.
TURN_START, TURN_END = CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
# What frames the parts of a text whose middle is to be written: see fim.py. Names and order are those of cl100k_base.
FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX = FIM_TOKENS = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
# The rule of chat.py in Jinja, for transformers.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Names under which vocabularies keep the token that ends a text, the likeliest first. A tokenizer.json doesn't say
# which of its special tokens that is, and the same file must always give the same answer.
END_OF_TEXT_NAMES = (
    END_OF_TEXT,
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
    "[EOS]",
    "<|im_end|>",
    "[SEP]",
    # nanochat's: it begins each document, as the end of the one before does here.
    "<|bos|>",
)


def find_end_of_text(names: Iterable[str]) -> str | None:
    """The special token that ends a text, by its name."""
    present = set(names)
    return next((name for name in END_OF_TEXT_NAMES if name in present), None)


def tokens_by_id(by_id: Mapping[int, bytes]) -> tuple[bytes | None, ...]:
    """The bytes of each id from 0 on; None for an id that has no token.

    Raises:
        TokenizerError: there is no token, or ids so large and few are in no vocabulary.
    """
    last = max(by_id, default=0)
    if not by_id or last > 16 * len(by_id) + 1024:
        raise TokenizerError(f"{len(by_id):,} tokens with ids up to {last:,} are no vocabulary")
    return tuple(by_id.get(i) for i in range(last + 1))


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE vocabulary: ids in the order of merging.

    Attributes:
        pattern: where text is cut before merging.
        tokens: the bytes of each ordinary id; None where an id is free or special.
        special_tokens: name -> id.
        known_merges: the merges in order where they are known already; `merges` works them out otherwise.
    Raises:
        TokenizerError: a byte is missing, a token is there twice, or an id is both ordinary and special.
    """

    pattern: Pattern
    tokens: tuple[bytes | None, ...]
    special_tokens: Mapping[str, int]
    known_merges: tuple[Merge, ...] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        used = [token for token in self.tokens if token is not None]
        if len(set(used)) != len(used) or b"" in used:
            raise TokenizerError("the vocabulary has an empty token, or one token under two ids")
        if missing := {bytes([byte]) for byte in range(256)} - set(used):
            shown = ", ".join(f"0x{byte[0]:02x}" for byte in sorted(missing)[:4])
            raise TokenizerError(
                f"the vocabulary lacks {len(missing)} of the 256 single bytes ({shown}): some text would have no ids"
            )
        for name, i in self.special_tokens.items():
            if not name or i < 0 or (i < len(self.tokens) and self.tokens[i] is not None):
                raise TokenizerError(
                    f"the special token {name!r} can't have the id {i}, which is taken or negative"
                )
        if len(set(self.special_tokens.values())) != len(self.special_tokens):
            raise TokenizerError("two special tokens have the same id")

    @functools.cached_property
    def ranks(self) -> dict[bytes, int]:
        """token -> id."""
        return {token: i for i, token in enumerate(self.tokens) if token is not None}

    def with_special_tokens(self, names: Iterable[str]) -> "Vocabulary":
        """This vocabulary with more special tokens, whose ids follow all others; those that it has keep theirs."""
        special = dict(self.special_tokens)
        for name in names:
            special.setdefault(name, max(len(self.tokens) - 1, *special.values(), -1) + 1)
        return replace(self, special_tokens=special)

    @functools.cached_property
    def merges(self) -> tuple[Merge, ...]:
        """The merge that makes each token of two bytes or more, in order of ids.

        A token that no merge of earlier ones can make is left out: some rank files have such, and tiktoken gives
        them only to a pre-token that is that token exactly.
        """
        if self.known_merges is not None:
            return self.known_merges
        return tuple(
            (parts[0], parts[1])
            for rank, token in enumerate(self.tokens)
            if token is not None
            and len(token) > 1
            and len(parts := bpe.parts(token, self.ranks, below=rank)) == 2
        )

    @property
    def is_complete(self) -> bool:
        """Whether each token of two bytes or more is made by a merge."""
        return len(self.merges) == len(self.ranks) - 256
