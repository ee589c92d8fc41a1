"""NanoChat: GPT-2 with newer parts, such as rotary positions. gpt2.py explains the letters of the shapes.

What differs from GPT-2 (`NanoChatOptions` can change some of it):

    rotary positions instead of learned ones        Su et al. 2021, arXiv:2104.09864
    RMSNorm without weights                         Zhang and Sennrich 2019, arXiv:1910.07467
    the same norm over queries and keys             Henry et al. 2020, arXiv:2010.04245 ("QK-norm")
    the square of ReLU in the MLP                   So et al. 2021, arXiv:2109.08668, section 3
    capped logits                                   Gemma 2, arXiv:2408.00118, section 2
    an untied head, which begins at zero            modded-nanogpt, record 8
    a norm right after the token embeddings         modded-nanogpt, record 8
    projections that begin at zero                  modded-nanogpt, record 5
    no biases

It computes what transformers' `NanoChatForCausalLM` computes. Parameters have the same names, without `model.` in
front. The initial weights are those of modded-nanogpt's records/track_3_optimization/train_gpt_simple.py.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from myna.model.attention import attention
from myna.model.cache import KVCache, LayerCache
from myna.model.config import NetworkConfig, nanochat_options
from myna.model.decoder import Decoder
from myna.model.matrix import Matrix
from myna.model.nanochat_layout import NanoChatLayout


def norm(x: Tensor, epsilon: float) -> Tensor:
    """x divided by its root mean square over the last axis."""
    return F.rms_norm(x, x.shape[-1:], eps=epsilon)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates each pair of numbers clockwise, by the angle of the pair at its position (see `NanoChat.angles`).

    Shapes:
        x         (B, H, T, D)  number i is paired with number i + D / 2
        cos, sin  (T, D / 2) or (B, 1, T, D / 2)
        returns   (B, H, T, D)  in the wider dtype of x and cos
    """
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=-1)


class Attention(nn.Module):
    """Causal self-attention. Queries and keys are rotated by their positions, then normalised (if `qk_norm`)."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        C = config.n_embd
        self.n_head, self.dropout = config.n_head, config.dropout
        options = nanochat_options(config)
        self.qk_norm, self.epsilon = options.qk_norm, options.norm_epsilon
        self.q_proj = nn.Linear(C, C, bias=False)
        self.k_proj = nn.Linear(C, C, bias=False)
        self.v_proj = nn.Linear(C, C, bias=False)
        self.o_proj = nn.Linear(C, C, bias=False)

    def forward(self, x: Tensor, cache: LayerCache | None, cos: Tensor, sin: Tensor) -> Tensor:
        heads = (f(x).unflatten(2, (self.n_head, -1)) for f in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (part.transpose(1, 2) for part in heads)  # each (B, H, T, D)
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        if self.qk_norm:
            q, k = norm(q, self.epsilon), norm(k, self.epsilon)
        # The angles are fp32, so q and k have become fp32.
        q, k = q.to(v.dtype), k.to(v.dtype)
        y = attention(q, k, v, dropout=self.dropout if self.training else 0.0, cache=cache)  # (B, T, C)
        return self.o_proj(y)


class MLP(nn.Module):
    """Two linear layers, C to 4C to C, with the activation between them."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.activation = nanochat_options(config).activation
        self.fc1 = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.fc2 = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.fc1(x)  # (B, T, 4C)
        active = F.relu(inner).square() if self.activation == "relu2" else F.gelu(inner, approximate="tanh")
        return self.fc2(active)


class Block(nn.Module):
    """Attention, then the MLP. Each reads a normalised copy of the residual stream and adds to the stream."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.epsilon = nanochat_options(config).norm_epsilon
        self.self_attn = Attention(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: LayerCache | None, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(norm(x, self.epsilon), cache, cos, sin)
        return x + self.mlp(norm(x, self.epsilon))


class NanoChat(Decoder):
    """Token ids in, logits for the next token out.

    >>> from myna.model.config import NanoChatConfig
    >>> model = NanoChat(NanoChatConfig(n_layer=1, n_head=2, n_embd=8, block_size=16, vocab_size=50))
    >>> model(torch.zeros(2, 5, dtype=torch.int64)).shape
    torch.Size([2, 5, 50])
    """

    layout = NanoChatLayout()

    def __init__(self, config: NetworkConfig):
        super().__init__(config)
        self.options = options = nanochat_options(config)
        self.softcap = options.softcap or None
        self.embed_tokens = nn.Embedding(config.padded_vocab_size, config.n_embd)
        self.layers = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.vocabulary_rows = ("embed_tokens.weight",)
        if not options.tied_head:
            self.lm_head = nn.Linear(config.n_embd, config.padded_vocab_size, bias=False)
            self.vocabulary_rows += ("lm_head.weight",)
            self.looked_up = ("embed_tokens.weight",)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial weights, drawn from torch's global generator.

        Weights are normal. Untied embeddings have standard deviation 1. Matrices with n inputs have standard deviation
        sqrt(0.33 / n), so their outputs have a third of the inputs' variance. An untied head and the projections into
        the residual stream are zero. So each block passes the stream on unchanged at first, and all ids are equally
        likely. Without `zero_projections`, the projections have the matrices' deviation divided by sqrt(2L), as in
        GPT-2, and an untied head has GPT-2's 0.02. Tied embeddings always have 0.02.
        """
        for name, parameter in self.named_parameters():
            fan_in = parameter.shape[1]
            into_stream = name.endswith(("o_proj.weight", "fc2.weight"))
            if name == "embed_tokens.weight":
                std = 0.02 if self.options.tied_head else 1.0
            elif self.options.zero_projections and (into_stream or name == "lm_head.weight"):
                std = 0.0
            elif name == "lm_head.weight":
                std = 0.02
            else:
                std = math.sqrt(0.33 / fan_in / (2 * self.config.n_layer if into_stream else 1))
            with torch.no_grad():
                parameter.normal_(std=std)
                if name in self.vocabulary_rows:
                    parameter[self.config.vocab_size :].zero_()

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers."""
        return self.layers

    @property
    def head_weight(self) -> Tensor | Matrix:
        """The head's own matrix; with a tied head, the token embeddings."""
        return self.embed_tokens.weight if self.options.tied_head else self.lm_head.weight

    def hidden(
        self, ids: Tensor, cache: KVCache | None = None, *, through: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """See `Decoder.hidden`."""
        cos, sin = self.angles(self.positions(ids, cache))
        x = self.embed_tokens(ids)  # (B, T, C)
        if self.options.embedding_norm:
            x = norm(x, self.options.norm_epsilon)
        return norm(self.run_blocks(x, cache, through, cos, sin), self.options.norm_epsilon)

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the angle by which each pair of numbers is rotated at each position.

        Shapes:
            positions  (T,) or (B, T)  int64
            returns    two of (T, D / 2) or (B, 1, T, D / 2)  fp32
        """
        D = self.config.head_width
        pairs = torch.arange(0, D, 2, device=positions.device, dtype=torch.float32) / D
        angles = positions[..., None] * (1 / self.options.rotary_base**pairs)
        if angles.dim() == 3:
            angles = angles[:, None]  # (B, 1, T, D / 2), the same for all heads
        return angles.cos(), angles.sin()
