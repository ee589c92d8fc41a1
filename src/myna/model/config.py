"""The shape of a GPT-2, and the parameters that follow from it."""

from dataclasses import dataclass

from myna.errors import ModelError

# Matrix products are fastest when their sides are multiples of a power of two; 50257 is odd. (The lecture pads to
# 50304, which is 393 * 128.)
VOCABULARY_MULTIPLE = 128


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """The shape of the network. The defaults are GPT-2 124M's.

    >>> GPTConfig().padded_vocab_size
    50304

    Raises:
        ModelError: a shape that cannot be.
    """

    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    block_size: int = 1024  # T at most: there are as many position embeddings
    vocab_size: int = 50257  # V: the ids the tokenizer knows
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size"):
            if getattr(self, name) < 1:
                raise ModelError(f"model shape: {name} is {getattr(self, name)}; give 1 or more")
        if self.n_embd % self.n_head:
            raise ModelError(
                f"model shape: width n_embd {self.n_embd} does not divide into n_head {self.n_head} heads; "
                f"give a multiple of {self.n_head}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ModelError(
                f"model shape: dropout is {self.dropout}; give a fraction from 0 up to, not including, 1"
            )

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding as computed with; those from `vocab_size` on stand for no token."""
        return -(-self.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE

    @property
    def n_parameters(self) -> int:
        """Numbers in all weights, the rows that pad the vocabulary included.

        >>> import math
        >>> config = GPTConfig()
        >>> config.n_parameters == sum(math.prod(shape) for shape in parameter_shapes(config).values())
        True
        """
        C = self.n_embd
        block = 12 * C * C + 13 * C  # four matrices with biases, two norms
        return (self.padded_vocab_size + self.block_size) * C + self.n_layer * block + 2 * C


def parameter_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Every parameter of the network by name, in our layout: matrices are (out, in), as nn.Linear has them.

    >>> shapes = parameter_shapes(GPTConfig())
    >>> shapes["wte.weight"], shapes["h.11.mlp.c_fc.weight"], len(shapes)
    ((50304, 768), (3072, 768), 148)
    """
    C = config.n_embd
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.padded_vocab_size, C),
        "wpe.weight": (config.block_size, C),
    }
    for layer in range(config.n_layer):
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"h.{layer}.{norm}.weight": (C,), f"h.{layer}.{norm}.bias": (C,)}
        for name, out_width, in_width in (
            ("attn.c_attn", 3 * C, C),  # queries, keys and values side by side
            ("attn.c_proj", C, C),
            ("mlp.c_fc", 4 * C, C),
            ("mlp.c_proj", C, 4 * C),
        ):
            shapes |= {
                f"h.{layer}.{name}.weight": (out_width, in_width),
                f"h.{layer}.{name}.bias": (out_width,),
            }
    return shapes | {"ln_f.weight": (C,), "ln_f.bias": (C,)}
