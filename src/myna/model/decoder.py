"""What all networks here have in common: a decoder-only transformer, from ids to losses.

A network is a subclass. It says how ids become hidden states, which blocks the hidden states pass through, and which
weight is the head. This file computes the rest from that and from the parameters' shapes: losses, logits, the cache,
counts, files.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from myna.errors import ModelError
from myna.model.cache import KVCache, LayerCache
from myna.model.config import NetworkConfig
from myna.model.evaluation import evaluation_mode
from myna.model.ids import check_ids
from myna.model.layout import OwnLayout
from myna.model.loss import capped, head_nats, head_token_nats
from myna.model.matrix import Matrix, times
from myna.model.network import Layout, Network
from myna.model.open import find_model
from myna.model.weights import load_network, save_network
from myna.text.tokenizer import Tokenizer


def run_block(block: nn.Module, x: Tensor, cache: LayerCache | None = None, *shared: Tensor) -> Tensor:
    """Calls a block. The block is an argument, so that one compiled function serves all blocks: only weights differ."""
    return block(x, cache, *shared)


class Decoder(nn.Module):
    """The base of every network. See gpt2.py for the letters of the shapes.

    A subclass defines `__init__(config)`, `blocks`, `head_weight` and `hidden`, and sets the class attributes that
    follow here. It has no buffers: it computes everything that is not a parameter from ids and positions. So a network
    can be built on the meta device, where it takes no memory, and be sharded and copied.
    """

    # Parameters that are looked up and not multiplied: they cost no arithmetic.
    looked_up: tuple[str, ...] = ()
    # Parameters with a row for each id. Their rows from `vocab_size` on are padding, and stay zero. The first name is
    # that of the token embedding.
    vocabulary_rows: tuple[str, ...] = ("wte.weight",)
    # The c of c tanh(x / c), which bounds the logits x; None leaves the logits unchanged.
    softcap: float | None = None
    # The parameter with a learned vector for each position, (block_size, C). None: the network has no such parameter.
    position_embedding: str | None = None
    # How the network is written to disk: in Hugging Face's layout where there is an exporter, else in our own.
    layout: ClassVar[Layout] = OwnLayout()

    def __init__(self, config: NetworkConfig):
        super().__init__()
        if not isinstance(config, NetworkConfig):
            raise ModelError(
                f"{type(self).__name__} was given {type(config).__name__}; give a {NetworkConfig.__name__}, such as "
                "GPTConfig(n_layer=2)"
            )
        self.config = config
        # The weights' device after `store_weights` has stored them in fewer bytes. `device` reads it, since the
        # network may have no parameter left whose device it could read.
        self.stored_on: torch.device | None = None
        # In training, keep only each block's input, and compute its activations again in the backward pass.
        self.recompute = False

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, first to last. Each is called as `block(x, cache, *shared)`; x and the result are (B, T, C)."""
        raise ModelError(f"{type(self).__name__} does not define blocks")

    @property
    def head_weight(self) -> Tensor | Matrix:
        """The head's weight, (Vp, C), with the rows of padding. After `store_weights` it is a `Matrix`."""
        raise ModelError(f"{type(self).__name__} does not define head_weight")

    def hidden(
        self, ids: Tensor, cache: KVCache | None = None, *, through: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """What the head reads: the residual stream after the last norm.

        Args:
            through: the function that calls a block: `run_block` (None), or its compiled form.
        Shapes:
            ids      (B, T)  int64; with a cache, only the new tokens, which follow those in the cache
            returns  (B, T, C)
        Raises:
            ModelError: more positions than the model has, or ids of another shape.
        """
        raise ModelError(f"{type(self).__name__} does not define hidden")

    def positions(self, ids: Tensor, cache: KVCache | None) -> Tensor:
        """The positions of ids (B, T): int64 (T,), or (B, T) where the cache's rows are not equally long.

        This method also checks ids, since every network's `hidden` calls it. It looks for ids outside the vocabulary
        on a CPU only, and not in compiled code. On other devices this check would have to wait for the device.

        Raises:
            ModelError: more positions than the model has, ids of another type or shape, or outside the vocabulary.
        """
        if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
            given = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
            raise ModelError(f"ids are {given}; give a tensor of int64, (B, T)")
        if ids.dim() != 2 or 0 in ids.shape:
            raise ModelError(
                f"ids have shape {tuple(ids.shape)}; give (B, T), both at least 1; ids[None] makes one sequence a batch"
            )
        T = ids.shape[1]
        end = T if cache is None else cache.end(T)
        if end > self.config.block_size:
            raise ModelError(
                f"{end} positions are needed, and the model has {self.config.block_size}; shorten the text"
            )
        if ids.device.type == "cpu" and not torch.compiler.is_compiling():
            check_ids(ids, self.config.vocab_size)
        return torch.arange(T, device=ids.device) if cache is None else cache.positions(T)

    def run_blocks(
        self, x: Tensor, cache: KVCache | None, through: Callable[..., Tensor] | None, *shared: Tensor
    ) -> Tensor:
        """Runs x (B, T, C) through all blocks, which also fill the cache.

        Args:
            shared: further arguments of every block, such as rotary angles.
        """
        through = through or run_block
        for layer, block in enumerate(self.blocks):
            of_layer = None if cache is None else cache.layer(layer)
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(through, block, x, of_layer, *shared, use_reentrant=False)
            else:
                x = through(block, x, of_layer, *shared)
        if cache is not None:
            cache.advance(x.shape[1])
        return x

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits for the token after each position.

        Shapes:
            ids      (B, T)  int64
            returns  (B, T, V)
        """
        return self.logits(self.hidden(ids, cache))

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., C) to logits (..., V), padding cut off."""
        return capped(times(hidden, self.head_weight)[..., : self.config.vocab_size], self.softcap)

    def nats(self, hidden: Tensor, targets: Tensor, *, compiled: bool = False) -> Tensor:
        """The summed loss of a batch.

        Args:
            compiled: let torch.compile fuse the softmax's operations.
        Shapes:
            hidden   (B, T, C)
            targets  (B, T)  int64, or IGNORE
            returns  ()      float32 nats, differentiable once
        """
        return head_nats(
            hidden,
            self.head_weight,
            targets,
            self.config.vocab_size,
            softcap=self.softcap,
            compiled=compiled,
        )

    def token_nats(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The loss of each target by itself, without gradients.

        Shapes:
            hidden   (..., C)
            targets  (...)    int64, or IGNORE
            returns  (...)    float32 nats
        """
        return head_token_nats(
            hidden, self.head_weight, targets, self.config.vocab_size, softcap=self.softcap
        )

    def new_cache(self, rows: int, positions: int | None = None, dtype: torch.dtype | None = None) -> KVCache:
        """An empty cache.

        Args:
            positions: each row's capacity; None for block_size.
            dtype: of keys and values; None for that of the weights.
        """
        config = self.config
        room = config.block_size if positions is None else positions
        shape = (config.n_layer, rows, config.n_head, room, config.head_width)
        return KVCache(shape, self.device, dtype or self.head_weight.dtype)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        if self.stored_on is not None:
            return self.stored_on
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def n_parameters(self) -> int:
        """Weights, without the rows that pad the vocabulary."""
        return sum(self._size(name, p) for name, p in self.named_parameters())

    def flops_per_token(self, sequence_length: int) -> float:
        """Floating-point operations of one trained token, forward and backward.

        The formula is 6 N + 12 L C T. Each of N weights costs two operations (multiply, add) forward and four backward.
        Attention's products of queries, keys and values cost the rest. N leaves out parameters that are looked up
        (`looked_up`). A tied token embedding counts once, as the head. Attention counts in full, although a causal mask
        needs only half of it: published figures follow this convention.

        Source:
            PaLM, arXiv:2204.02311, appendix B.
        """
        multiplied = self.n_parameters() - sum(self._size(n, self.get_parameter(n)) for n in self.looked_up)
        return 6 * multiplied + 12 * self.config.n_layer * self.config.n_embd * sequence_length

    def _size(self, name: str, parameter: Tensor) -> int:
        padding = (
            self.config.padded_vocab_size - self.config.vocab_size if name in self.vocabulary_rows else 0
        )
        return parameter.numel() - padding * parameter[:1].numel() if padding else parameter.numel()

    def unpadded(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor shaped like the parameter of that name, without the rows that pad the vocabulary."""
        if name in self.vocabulary_rows and tensor.shape[:1] == (self.config.padded_vocab_size,):
            return tensor[: self.config.vocab_size]
        return tensor

    def padded(self, name: str, tensor: Tensor) -> Tensor:
        """The inverse of `unpadded`: adds rows of zeros."""
        if name not in self.vocabulary_rows or tensor.shape[:1] != (self.config.vocab_size,):
            return tensor
        missing = self.config.padded_vocab_size - self.config.vocab_size
        return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])])

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """Loads the network of a run, a checkpoint, a Hugging Face folder or the hub (`gpt2`), in evaluation mode.

        Raises:
            ModelError, CheckpointError, DownloadError: what is missing or wrong, and where.
        """
        path = find_model(source)
        network: Any = load_network(path)
        if not isinstance(network, cls):
            raise ModelError(f"{path} holds a {type(network).__name__}; load it with that class")
        return network.eval()

    def save_pretrained(self, directory: str | Path, tokenizer: Tokenizer | None = None) -> None:
        """Writes `config.json`, `model.safetensors` and, given a tokenizer, its files.

        A network with an exporter is written as transformers expects it. The directory may exist; each file in it is
        replaced atomically.

        Raises:
            OutputError: the place can't be written.
            ModelError: the tokenizer's size is not the model's, or the network does not compute what its files say.
        """
        save_network(Path(directory), self, tokenizer)


def check_network(network: Network) -> None:
    """Runs a few ids through a network, and refuses one that breaks the rules of `Decoder`.

    It checks shapes, names, gradients, the cache and causality. Without it, some errors would only show when a run is
    resumed.

    Raises:
        ModelError: names what is wrong.
    """
    config, T = network.config, min(3, network.config.block_size)
    ids = torch.arange(2 * T, device=network.device).view(2, T) % config.vocab_size
    name = type(network).__name__

    def require(method: str, result: Any, *shape: int) -> Tensor:
        if not isinstance(result, Tensor) or result.shape != shape:
            given = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
            raise ModelError(
                f"{name}.{method} gives {given} for 2 x {T} ids, where shape {shape} is needed; mend the network"
            )
        return result

    _check_names(network)
    with evaluation_mode(network):
        hidden = require("hidden", network.hidden(ids), 2, T, config.n_embd)
        require("logits", network.logits(hidden), 2, T, config.vocab_size)
        require("token_nats", network.token_nats(hidden, ids), 2, T)
        require("nats", network.nats(hidden, ids)).backward()
        without = [n for n, p in network.named_parameters() if p.grad is None]
        for parameter in network.parameters():
            parameter.grad = None
        if without:
            raise ModelError(f"{name} does not use its parameter {without[0]}; remove it, or use it")
        with torch.no_grad():
            cache = network.new_cache(2)
            parts = [network.hidden(part, cache) for part in ids.split(1, dim=1)]
            cached = require("hidden with a cache", torch.cat(parts, dim=1), 2, T, config.n_embd)
            first = network.hidden(ids[:, :1])
    limit = 0.02 * float(hidden.detach().abs().max())
    if not float((cached - hidden).detach().abs().max()) <= limit:
        raise ModelError(f"{name}.hidden gives other numbers with a cache than without; mend the network")
    if not float((first - hidden[:, :1]).detach().abs().max()) <= limit:
        raise ModelError(f"{name}.hidden lets a position see the positions after it; mend the network")


def _check_names(network: Network) -> None:
    parameters, kind = dict(network.named_parameters()), type(network)
    buffers = [name for name, _ in network.named_buffers()]
    if buffers:
        raise ModelError(
            f"{kind.__name__} keeps the buffer {buffers[0]}; compute it from the positions, since a network is "
            "loaded, copied and sharded by its parameters alone"
        )
    positions = network.position_embedding
    for name in (*network.looked_up, *network.vocabulary_rows, *([positions] if positions else [])):
        if name not in parameters:
            raise ModelError(
                f"{kind.__name__} has no parameter {name!r}, but looked_up, vocabulary_rows or position_embedding "
                "lists it; correct the list"
            )
    shape = (network.config.block_size, network.config.n_embd)
    if positions and parameters[positions].shape != shape:
        raise ModelError(
            f"{kind.__name__}.{positions} has shape {tuple(parameters[positions].shape)}, and position_embedding names "
            f"it; give it shape {shape}, or leave position_embedding out"
        )
    for name in network.vocabulary_rows:
        if len(parameters[name]) != network.config.padded_vocab_size:
            raise ModelError(
                f"{kind.__name__}.{name} has {len(parameters[name])} rows; give it padded_vocab_size rows "
                f"({network.config.padded_vocab_size}), or leave it out of vocabulary_rows"
            )
