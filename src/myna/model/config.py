"""The shape of a network: the sizes that every network here has, and its own options beside them."""

from dataclasses import dataclass
from typing import Literal

from myna.errors import ModelError
from myna.settings import ABOVE_0, AT_LEAST_0, NO_OPTIONS, Options, is_number, is_whole, setting

# Matrix products are fastest when their sides are multiples of a power of two; 50257 is odd. (The lecture pads to
# 50304, which is 393 * 128.)
VOCABULARY_MULTIPLE = 128

# Ten times GPT-3's. More is a typing error, and would build modules for minutes.
MOST_LAYERS = 1000
# The largest value of each other size below. The product of two still fits in int64.
LARGEST = 1 << 31


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The shape of a network. The defaults are GPT-2 124M's.

    >>> NetworkConfig().padded_vocab_size
    50304

    Raises:
        ModelError: an impossible shape.
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
            # A NumPy number would not go into config.json.
            object.__setattr__(self, name, int(value))
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
        """How many rows the embedding has in memory. Those from `vocab_size` on are padding, and stand for no token."""
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


ActivationName = Literal["relu2", "gelu"]


@dataclass(frozen=True, kw_only=True)
class NanoChatOptions(Options):
    """NanoChat's own options. The defaults are those of transformers' class."""

    softcap: float = setting(15.0, AT_LEAST_0, resume="never")
    """c: a logit x becomes c tanh(x / c), which lies between -c and c. 0 leaves the logits as they are."""
    qk_norm: bool = setting(True, resume="never")
    """Norm each head's queries and keys, so that attention's scores stay bounded."""
    embedding_norm: bool = setting(True, resume="never")
    """Norm the token embeddings before the first block."""
    activation: ActivationName = setting("relu2", resume="never")
    """The MLP's activation: relu2, the square of ReLU; or gelu, GPT-2's (the tanh form)."""
    tied_head: bool = setting(False, resume="never")
    """The token embeddings are the head, too, as in GPT-2."""
    zero_projections: bool = setting(True, resume="never")
    """The untied head, and the projections into the residual stream, begin as zeros; else as small noise."""
    rotary_base: float = setting(10_000.0, ABOVE_0, resume="never")
    """With a larger base, the longest wavelength of the rotary positions is longer. In tokens it is below 6.28 times
    the base: 4.7 times with the default and heads 64 wide."""
    norm_epsilon: float = setting(1e-6, ABOVE_0, resume="never")
    """Added to the mean square in every norm."""


NANOCHAT = NanoChatOptions()


@dataclass(frozen=True, kw_only=True)
class NanoChatConfig(NetworkConfig):
    """The shape of a NanoChat.

    Raises:
        ModelError: an impossible shape; the rotary positions need heads of even width.
    """

    options: Options = NANOCHAT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_width % 2:
            raise ModelError(
                f"model shape: heads are {self.head_width} wide (n_embd {self.n_embd} / n_head {self.n_head}), and "
                "rotary positions turn pairs of numbers; give sizes that make heads of even width"
            )


def nanochat_options(config: NetworkConfig) -> NanoChatOptions:
    """The options of a NanoChat of that shape; the defaults where the config has none."""
    return config.options if isinstance(config.options, NanoChatOptions) else NANOCHAT


@dataclass(frozen=True, kw_only=True)
class VariantsOptions(Options):
    """The choices by which a network can differ from GPT-2. The defaults are GPT-2's."""

    norm: Literal["pre", "post"] = setting("pre", resume="never")
    """Where the layer norms stand: pre, before attention and MLP, and one at the end; post, after each of them."""
    residual_scaling: bool = setting(True, resume="never")
    """The projections into the residual stream begin 1/sqrt(2L) as large as other weights, for L layers."""
    activation: Literal["tanh-gelu", "gelu", "relu"] = setting("tanh-gelu", resume="never")
    """The MLP's activation: tanh-gelu, GPT-2's approximation of GELU; gelu, by the error function; or relu."""
    positions: Literal["learned", "sinusoidal", "none"] = setting("learned", resume="never")
    """What is added to a token for its position: a learned vector, sines and cosines, or nothing."""
    tied_head: bool = setting(True, resume="never")
    """The token embeddings are the head, too; else the head is a matrix of its own."""


VARIANTS = VariantsOptions()


@dataclass(frozen=True, kw_only=True)
class VariantsConfig(NetworkConfig):
    """The shape of a GPT-2 with choices."""

    options: Options = VARIANTS


def variants_options(config: NetworkConfig) -> VariantsOptions:
    """The options of such a network; GPT-2's where the config has none."""
    return config.options if isinstance(config.options, VariantsOptions) else VARIANTS
