"""GPT-2 and its training step as the lecture "Let's reproduce GPT-2 (124M)" writes them, each rung a line of it.

Nothing of our own network, loss or step is in it, so that the yardstick stays where it is when ours moves. Only the
parameters' names are shared, so that all rungs begin with the same weights and must arrive at the same loss.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from myna.model.config import NetworkConfig

Batch = tuple[Tensor, Tensor]

FIRST_SCALE = 65536.0  # torch's default; it grows after 2,000 updates, more than are measured


def four_operations(q: Tensor, k: Tensor, v: Tensor, future: Tensor) -> Tensor:
    """Causal attention written out: scores, mask, softmax, product.

    Shapes:
        q, k, v  (B, H, T, D)
        future   (T, T) bool: what a position may not see
        returns  (B, H, T, D)
    """
    scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))  # (B, H, T, T)
    scores = scores.masked_fill(future, float("-inf"))
    return F.softmax(scores, dim=-1) @ v


def future_of(n: int, device: torch.device | str = "cpu") -> Tensor:
    """(n, n) bool: what a position may not see."""
    return torch.ones(n, n, dtype=torch.bool, device=device).triu(1)


class LectureAttention(nn.Module):
    """Causal self-attention: written out, or PyTorch's one call for it."""

    def __init__(self, config: NetworkConfig, flash: bool):
        super().__init__()
        self.n_head, self.flash = config.n_head, flash
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.future: Tensor
        self.register_buffer("future", future_of(config.block_size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, H, T, D)
            for part in self.c_attn(x).split(C, dim=2)
        )
        if self.flash:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            y = four_operations(q, k, v, self.future[:T, :T])
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class LectureMLP(nn.Module):
    """Four times wider in between."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.gelu = nn.GELU(approximate="tanh")
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.gelu(self.c_fc(x)))


class LectureBlock(nn.Module):
    """Attention, then the MLP, each added to what passes through."""

    def __init__(self, config: NetworkConfig, flash: bool):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = LectureAttention(config, flash)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = LectureMLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class LectureGPT(nn.Module):
    """The network with its loss at the end: all logits at once, then cross-entropy.

    Args:
        flash: attention in one call.
        padded: rows added to the embedding table up to a multiple of 128. The lecture lets the softmax learn that
            these ids never come; here their logits are minus infinity from the start, so that the loss is the same
            on every rung. It costs nothing: the head's product takes them as its bias.
    """

    def __init__(self, config: NetworkConfig, *, flash: bool, padded: bool):
        super().__init__()
        rows = config.padded_vocab_size if padded else config.vocab_size
        self.wte = nn.Embedding(rows, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList([LectureBlock(config, flash) for _ in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.n_embd)
        never = torch.zeros(rows, device="cpu")
        never[config.vocab_size :] = float("-inf")
        self.never: Tensor | None
        self.register_buffer("never", never if padded else None, persistent=False)

    @classmethod
    def with_weights(
        cls, config: NetworkConfig, weights: dict[str, Tensor], *, flash: bool, padded: bool
    ) -> "LectureGPT":
        """The network around weights that are there already (those of a GPT of that config), without a copy of them.

        Only the embedding table is copied, to have exactly its rows.
        """
        with torch.device("meta"):
            model = cls(config, flash=flash, padded=padded)
        table = weights["wte.weight"][: model.wte.num_embeddings].clone()
        model.load_state_dict({**weights, "wte.weight": table}, assign=True)
        return model.to(table.device)

    def logits(self, ids: Tensor) -> Tensor:
        """All logits of (B, T) ids: (B, T, V or its padding)."""
        x = self.wte(ids) + self.wpe(torch.arange(ids.size(1), device=ids.device))  # (B, T, C)
        for block in self.h:
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight, self.never)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The mean loss in nats of (B, T) targets."""
        logits = self.logits(ids)
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


def updates_skipped_by(scaler: torch.amp.GradScaler) -> int:
    """How often an update was left out because a gradient overflowed in fp16: each time the scaler halves its scale.

    >>> updates_skipped_by(torch.amp.GradScaler("cpu", enabled=False))
    0
    """
    return round(math.log2(FIRST_SCALE / scaler.get_scale())) if scaler.is_enabled() else 0


class LectureStep:
    """One update from a few micro-batches, the same ones each time.

    Args:
        dtype: what autocast computes matrix products in; None for no autocast. With fp16 goes a scaler: it multiplies
            the loss, so that small gradients do not become 0, divides the gradients again before they are clipped, and
            leaves an update out where one overflowed.
    """

    def __init__(
        self,
        model: LectureGPT,
        optimizer: torch.optim.Optimizer,
        batches: Sequence[Batch],
        *,
        dtype: torch.dtype | None,
        clip_norm: float,
    ):
        self.model, self.optimizer, self.batches = model, optimizer, batches
        self.dtype, self.clip_norm = dtype, clip_norm
        device = batches[0][0].device
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.network: nn.Module = model

    def compile(self) -> None:
        """From now on the network and its loss run compiled."""
        self.network = torch.compile(self.model)  # type: ignore[assignment]

    @property
    def compiled(self) -> bool:
        """Whether they do."""
        return self.network is not self.model

    def use_eager(self) -> None:
        """The plain way."""
        self.network = self.model

    def parts(self) -> dict[str, float]:
        """Its step is not timed in parts."""
        return {}

    def skipped_updates(self) -> int:
        """Updates that the scaler left out."""
        return updates_skipped_by(self.scaler)

    def __call__(self) -> float:
        """Makes a step and returns its loss, as it was before the update."""
        device = self.batches[0][0].device
        total = torch.zeros((), device=device)
        self.optimizer.zero_grad()
        for ids, targets in self.batches:
            with torch.autocast(device.type, self.dtype, enabled=self.dtype is not None):
                loss = self.network(ids, targets) / len(self.batches)
            total += loss.detach()
            self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total.item()
