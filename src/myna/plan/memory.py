"""Does a model fit a GPU? What it takes under DDP and under FSDP, part by part. All of it is computed."""

from collections.abc import Sequence
from dataclasses import dataclass

from myna.data.ramp import divisors
from myna.model.loss import CHUNK_BYTES
from myna.model.network import Network, network_kind
from myna.model.weights import build_without_memory
from myna.train.build import new_optimizer
from myna.train.recipe import Recipe

GB = 1e9
# On a GPU the head holds logits of that part of its memory, at least CHUNK_BYTES (see myna.model.loss).
LOGITS_SHARE = 64
# Bytes that a block keeps for its backward pass, for each token and unit of width, where products are of 16 bits and
# attention keeps no scores: equation 2 of Korthikanti et al. 2022, arXiv:2205.05198, without its last term.
BLOCK_BYTES = 34


@dataclass(frozen=True)
class Shape:
    """What a plan needs to know of a network and its optimizer. Bytes are of fp32."""

    parameters: int
    flops_per_token: float
    multiplied: float  # parameters: all that are not looked up
    weight_bytes: int  # with the rows that pad the vocabulary
    block_bytes: int  # of one block's weights
    root_bytes: int  # of all weights outside the blocks
    head_bytes: int  # of the head's weight
    state_bytes: int  # of the optimizer
    average_bytes: int
    width: int
    layers: int
    padded_vocab_size: int


def shape_of(recipe: Recipe, vocab_size: int) -> Shape:
    """Counts a recipe's network, which gets no memory.

    Raises:
        ModelError: no such network can be built.
    """
    network: Network = build_without_memory(network_kind(recipe.network), recipe.network_config(vocab_size))
    weight_bytes = sum(4 * p.numel() for p in network.parameters())
    blocks = [sum(4 * p.numel() for p in block.parameters()) for block in network.blocks]
    return Shape(
        parameters=network.n_parameters(),
        flops_per_token=network.flops_per_token(recipe.sequence_length),
        multiplied=network.flops_per_token(0) / 6,
        weight_bytes=weight_bytes,
        block_bytes=max(blocks),
        root_bytes=weight_bytes - sum(blocks),
        head_bytes=4 * network.config.padded_vocab_size * recipe.n_embd,
        state_bytes=new_optimizer(recipe, network).memory_bytes(),
        average_bytes=weight_bytes if recipe.average_decay else 0,
        width=recipe.n_embd,
        layers=recipe.n_layer,
        padded_vocab_size=network.config.padded_vocab_size,
    )


@dataclass(frozen=True)
class Setting:
    """How a run computes: what memory and traffic depend on."""

    gpus: int
    sharded: bool
    recompute: bool  # --activation-checkpointing
    micro_batch: int
    accumulate: int
    sequence_length: int
    half: bool  # products of 16 bits

    @property
    def micro_tokens(self) -> int:
        """Tokens that a GPU computes at once."""
        return self.micro_batch * self.sequence_length


def parts(shape: Shape, setting: Setting, memory_gb: float | None, reserved_gb: float) -> dict[str, float]:
    """GB on one GPU in the backward pass, by what they are for.

    Under FSDP a whole copy of the weights, which validation makes, may be more than gradients and activations: then
    it takes their place.
    """
    share = setting.gpus if setting.sharded else 1
    wide = 1 if setting.half else 2
    present = shape.weight_bytes  # of which a 16-bit copy is made
    gathered = 0.0
    if setting.sharded:  # the embeddings, and the block that computes beside the next one
        present = shape.root_bytes + 2 * shape.block_bytes
        gathered = present
    # Micro-batches before the last keep their gradients whole.
    gradients = shape.weight_bytes / (share if setting.accumulate == 1 else 1)
    kept = BLOCK_BYTES * wide * shape.width * setting.micro_tokens  # of one block
    blocks = kept * shape.layers
    if setting.recompute:
        blocks = 4 * shape.width * setting.micro_tokens * shape.layers + kept
    logits_most = max(CHUNK_BYTES, (memory_gb or 0) * GB / LOGITS_SHARE)
    logits = min(2 * wide * shape.padded_vocab_size * setting.micro_tokens, logits_most)
    training = {
        "gradients": gradients,
        "activations": blocks,
        "logits, the head's gradient": logits + shape.head_bytes,
    }
    if setting.half:
        training["16-bit copy of the weights"] = present / 2
    if gathered:
        training["gathered weights"] = gathered
    copy = shape.weight_bytes if setting.sharded else 0
    if copy > sum(training.values()):
        training = {"whole copy for validation": copy}
    always = {"weights": shape.weight_bytes / share, "optimizer": shape.state_bytes / share}
    if shape.average_bytes:
        always["average of the weights"] = shape.average_bytes / share
    found = {name: size / GB for name, size in {**always, **training}.items()}
    return found | {"reserved": reserved_gb}


@dataclass(frozen=True)
class Fit:
    """A setting and what it takes.

    Attributes:
        gb: by part; see `parts`.
        fits: None where nobody said how much memory there is.
        why: for people.
    """

    setting: Setting
    gb: dict[str, float]
    fits: bool | None
    why: str

    @property
    def total_gb(self) -> float:
        """All parts together."""
        return sum(self.gb.values())


def fit(
    shape: Shape,
    recipe: Recipe,
    gpus: int,
    *,
    half: bool,
    memory_gb: float | None,
    reserved_gb: float,
    shard: str = "auto",
    recompute: bool = False,
) -> Fit:
    """The first that fits, with the largest micro-batch: DDP, FSDP, then both with activation checkpointing.

    Where none fits, the one that takes the least, with a micro-batch of 1.

    Args:
        recipe: its batch divides among the GPUs.
        shard: auto, ddp or fsdp.
        recompute: activation checkpointing was asked for.
    """
    share, most = recipe.batch_samples // gpus, recipe.ramp.unit // gpus
    sizes = divisors(most) if recipe.micro_batch == "auto" else [recipe.micro_batch]
    if memory_gb is None and recipe.micro_batch == "auto":
        sizes = [1]
    modes: Sequence[bool] = {"ddp": [False], "fsdp": [gpus > 1]}.get(shard, [False, True][: 1 + (gpus > 1)])
    least: Fit | None = None
    for again in [True] if recompute else [False, True]:
        for sharded in modes:
            for size in sizes:
                setting = Setting(gpus, sharded, again, size, share // size, recipe.sequence_length, half)
                gb = parts(shape, setting, memory_gb, reserved_gb)
                found = Fit(setting, gb, None if memory_gb is None else sum(gb.values()) <= memory_gb, "")
                if found.fits is not False:
                    return Fit(setting, gb, found.fits, _why(shard, setting, recompute, memory_gb))
                if least is None or found.total_gb < least.total_gb:
                    least = found
    assert least is not None
    return Fit(least.setting, least.gb, False, "nothing fits; this is what takes the least")


def _why(shard: str, setting: Setting, recompute: bool, memory_gb: float | None) -> str:
    if memory_gb is None:
        return "give --memory-gb to learn whether it fits; a micro-batch of 1 is taken"
    if setting.recompute and not recompute:
        return "fits with --activation-checkpointing alone"
    if setting.sharded and shard == "auto":
        return "DDP does not fit"
    return "asked for" if shard != "auto" else "all weights fit each GPU" if setting.gpus > 1 else "one GPU"
