"""The shape of a network: the sizes that every network here has, and its own options beside them."""

from dataclasses import dataclass
from typing import Literal

from myna.errors import ModelError
from myna.settings import NO_OPTIONS, Options, is_number, is_whole, setting

# Matrix products are fastest when their sides are multiples of a power of two; 50257 is odd. (The lecture pads to
# 50304, which is 393 * 128.)
VOCABULARY_MULTIPLE = 128

MOST_LAYERS = 1000  # ten times GPT-3's: more is a slip of the finger, and would build modules for minutes
LARGEST = 1 << 31  # of any size; a product of two of them still fits torch's 64 bits


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The shape of a network. The defaults are GPT-2 124M's.

    >>> NetworkConfig().padded_vocab_size
    50304

    Raises:
        ModelError: a shape that cannot be.
    """

    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    block_size: int = 1024  # T at most
    vocab_size: int = 50257  # V: the ids the tokenizer knows
    dropout: float = 0.0
    options: Options = NO_OPTIONS  # what this kind of network has besides

    def __post_init__(self) -> None:
        for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size"):
            value = getattr(self, name)
            if not is_whole(value):
                raise ModelError(f"model shape: {name} is {value!r}; give a whole number")
            most = MOST_LAYERS if name == "n_layer" else LARGEST
            if not 1 <= value <= most:
                raise ModelError(f"model shape: {name} is {value}; give 1 to {most:,}")
            object.__setattr__(self, name, int(value))  # a NumPy number would not go into config.json
        if self.n_embd % self.n_head:
            raise ModelError(
                f"model shape: width n_embd {self.n_embd} does not divide into n_head {self.n_head} heads; "
                f"give a multiple of {self.n_head}"
            )
        if not is_number(self.dropout) or not 0.0 <= self.dropout < 1.0:
            raise ModelError(
                f"model shape: dropout is {self.dropout!r}; give a fraction from 0 up to, not including, 1"
            )

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding as computed with; those from `vocab_size` on stand for no token."""
        return -(-self.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE

    @property
    def head_width(self) -> int:
        """D, the width of an attention head."""
        return self.n_embd // self.n_head


GeluName = Literal["tanh", "exact"]


@dataclass(frozen=True, kw_only=True)
class GPTOptions(Options):
    """GPT-2's own options."""

    gelu: GeluName = setting("tanh", resume="never")
    """The activation: tanh, GPT-2's approximation of GELU; or exact, by the error function, as nanoGPT trains."""


GPT2 = GPTOptions()


@dataclass(frozen=True, kw_only=True)
class GPTConfig(NetworkConfig):
    """The shape of a GPT-2 or GPT-3."""

    options: Options = GPT2


def gelu_of(config: NetworkConfig) -> GeluName:
    """The activation of a GPT-2 of that shape; GPT-2's own where the options don't say."""
    return config.options.gelu if isinstance(config.options, GPTOptions) else GPT2.gelu
