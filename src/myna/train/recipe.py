"""The Recipe: every number that a training run depends on, in one dataclass whose fields are the flags.

Each field is declared here once, with its type, its default, its check and whether a resume may change it. The text
below a field gives its unit, and `--help` shows this text. The defaults are those of GPT-2 124M; `myna.recipes` holds
the named recipes.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from myna.data.ramp import Ramp
from myna.errors import UsageError
from myna.model.config import NetworkConfig
from myna.model.network import network_kind
from myna.settings import (
    ABOVE_0,
    AT_LEAST_0,
    AT_LEAST_1,
    BELOW_1,
    NO_OPTIONS,
    STEPS_OR_NEVER,
    UP_TO_1,
    Check,
    Options,
    Order,
    PrecisionName,
    ResumeRule,
    check_settings,
    flag,
    read_options,
    resume_rules,
    setting,
)
from myna.train.optimizers import optimizer_kind
from myna.train.schedule import Decay

SOURCES = """Sources:
[1] GPT-2: Radford et al. 2019: architecture, 1024 positions, byte-level BPE of 50257 ids, batches of 512 sequences (524,288 tokens).
[2] GPT-3: Brown et al. 2020, arXiv:2005.14165, table 2.1 and appendix B: learning rates by size, Adam's betas 0.9 and 0.95, epsilon 1e-8, clipping at 1.0, cosine decay to 10%, weight decay 0.1, linear warmup over 375 million tokens (715 steps of 524,288), a batch that grows from 32 thousand tokens over the first 4 to 12 billion. GPT-2's paper gives none of these.
[6] modded-nanogpt (github.com/KellerJordan/modded-nanogpt), records/track_3_optimization, the plain script at 3,250 steps: the numbers of Muon, and of the AdamW that is used beside it."""  # noqa: E501 (a terminal wraps it)

_SEED = Check(lambda value: 0 <= value < 1 << 63, "give 0 or more, and less than 2^63")
_MICRO_BATCH = Check(lambda value: value == "auto" or value > 0, "give auto, or 1 or more")


def _encodable(text: str) -> bool:
    return not any(0xD800 <= ord(character) < 0xE000 for character in text)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained, on what, and how. Raises UsageError if two numbers contradict each other."""

    name: str = setting("gpt2-124m", resume="free")
    """The run's name. Its folder is runs/NAME."""
    corpus: tuple[str, ...] = ("fineweb-edu",)
    """What to read: named corpora, files, folders (see `myna prepare --help`)."""
    tokenizer: str = setting("gpt2", resume="never")
    """gpt2, bytes, train:N (a vocabulary of N ids trained on the corpus), a tokenizer's folder, from-data (take
    the dataset's own), or from-init (take the tokenizer of --init)."""
    conversations: bool = setting(False, resume="free")
    """Prepare the corpus as conversations (see `myna prepare --help`)."""

    init: str = ""
    """Start from the weights and the tokenizer of this MODEL (a run, a checkpoint, a Hugging Face folder, or a hub name
    such as gpt2), with a fresh optimizer. The run takes the model's shape. The data's tokenizer may have more special
    tokens; the model's embedding and head then get a row for each of them. The learning rate is a tenth of the
    recipe's, unless the recipe itself has an --init."""
    train_only: Literal["all", "new-tokens"] = "all"
    """With --init, the weights to train: all; or new-tokens, only the rows that the model gets for new special
    tokens."""

    network: str = setting("gpt2", resume="never")
    """The network, by its name in the table NETWORKS. Its own options are --network.OPTION."""
    network_options: Annotated[Options, tyro.conf.arg(name="network")] = setting(NO_OPTIONS, resume="never")
    """Options of the network."""
    n_layer: int = setting(12, resume="never")
    """Layers."""
    n_head: int = setting(12, resume="never")
    """Attention heads in a layer."""
    n_embd: int = setting(768, resume="never")
    """Width of the residual stream; a multiple of n_head."""
    block_size: int = setting(1024, resume="never")
    """Positions of the model: the most tokens that it sees at once [1]."""
    dropout: float = 0.0
    """Fraction of activations dropped in training."""

    steps: int = setting(19_073, AT_LEAST_1)
    """Optimizer steps. 19,073 steps, of 524,288 tokens each, are 10 billion tokens: one epoch of FineWeb-Edu's
    sample-10BT."""
    batch_tokens: int = setting(524_288, ABOVE_0)
    """Tokens in a step, over all ranks and micro-batches [1]."""
    batch_ramp_tokens: int = setting(0, AT_LEAST_0)
    """The number of training tokens over which the batch grows linearly, from --batch-ramp-start-tokens to
    --batch-tokens; 0 for a constant batch. GPT-3 took 4 to 12 billion [2]. --steps, the warmup and the decay still
    count steps."""
    batch_ramp_start_tokens: int = setting(32_768, ABOVE_0)
    """With --batch-ramp-tokens: tokens of the first step, and the unit by which the batch grows [2]. It must divide
    --batch-tokens. Its number of sequences must be a multiple of ranks times micro-batch."""
    micro_batch: Literal["auto"] | int = setting("auto", _MICRO_BATCH)
    """Sequences that one rank computes at once. Speed and memory depend on it; it changes the weights only by
    rounding. auto measures several and takes the fastest. Set a number when two runs must be identical."""
    sequence_length: int = setting(1024, ABOVE_0)
    """Tokens in a training sequence; at most block_size."""

    optimizer: str = setting("adamw", resume="never")
    """The optimizer, by its name in the table OPTIMIZERS. Its own options are --optimizer.OPTION."""
    optimizer_options: Annotated[Options, tyro.conf.arg(name="optimizer")] = NO_OPTIONS
    """Options of the optimizer."""
    learning_rate: float = setting(6e-4, ABOVE_0)
    """Peak learning rate [2]."""
    final_learning_rate_fraction: float = setting(0.1, UP_TO_1)
    """Learning rate at the end of the decay, as a fraction of the peak [2]."""
    warmup_steps: int = setting(715, AT_LEAST_0)
    """Steps over which the learning rate grows linearly [2]."""
    decay: Decay = "cosine"
    """How the learning rate comes down: cosine, along half a cosine [2]; linear, along a straight line; constant, not
    at all."""
    decay_steps: int = setting(0, AT_LEAST_0)
    """The step at which the decay ends. Later steps keep the learning rate of this step. 0: the last step."""
    constant_fraction: float = setting(0.0, UP_TO_1)
    """When the learning rate begins to decay: after this fraction, 0 to 1, of the steps up to the end of the decay
    (not of --steps). The warmup counts as a part of this fraction."""
    clip_norm: float = setting(1.0, AT_LEAST_0)
    """Largest norm of the gradient over all parameters. A larger gradient is scaled down to it [2]. 0 never scales."""
    average_decay: float = setting(0.0, BELOW_1)
    """Decay of a moving average of the weights over the steps; 0 for none. Validation, samples and the saved model use
    the average. It is about as good as the weights would be if the learning rate had already come down. Training itself
    goes on from the weights, not from their average."""
    order: Order = "shuffled"
    """The order in which training reads the windows of the text: shuffled, in a new order each epoch; or sequential,
    from the first to the last, as the lecture's loader does."""
    overfit: bool = setting(False, resume="never")
    """Train on a single batch again and again, until its loss is less than 0.01 nats above the lowest possible loss
    (usually 0). This tests the setup: if it is correct, the loss gets that low. Unless you set them, --steps is at most
    1,000, the batch is 4 sequences, the learning rate is constant after at most 10 steps of warmup, and dropout and
    --average-decay are 0. Default --out: runs/RECIPE-overfit."""
    seed: int = setting(1337, _SEED)
    """Seeds the initial weights, the order of the samples, dropout, and the random choices of --fim-rate."""
    fim_rate: float = setting(0.0, UP_TO_1)
    """Fill in the middle: the fraction of documents, 0 to 1, whose middle part moves to their end for training. So the
    model learns to write what stands between two texts. Adds three tokens to the vocabulary. 0.5 is usual."""

    precision: PrecisionName = "auto"
    """What matrix products are computed in. auto: bf16 on a device that is made for it; fp16 on older CUDA GPUs; on
    Apple GPUs, the first of bf16, fp16 and fp32 that works in a trial; fp32 on all other devices."""
    compile: bool = setting(True, resume="free")
    """Compile the training step with torch.compile; if that fails, train without it and say why."""

    eval_every: int = setting(250, STEPS_OR_NEVER, resume="free")
    """Steps between validations; 0 for none."""
    sample_every: int = setting(250, STEPS_OR_NEVER, resume="free")
    """Steps between samples; 0 for none."""
    sample_prompt: str = setting(
        "Hello, I'm a language model,", Check(_encodable, "give text without lone surrogates"), resume="free"
    )
    """The text that the samples during training continue."""
    sample_temperature: float = setting(0.8, AT_LEAST_0, resume="free")
    """Temperature of the samples; 0 always takes the most likely token."""
    hellaswag_every: int = setting(250, STEPS_OR_NEVER, resume="free")
    """Steps between HellaSwag scores; 0 for none. Without --hellaswag there are none."""
    checkpoint_every: int = setting(1000, STEPS_OR_NEVER, resume="free")
    """Steps between checkpoints. 0 saves only the last step, which is always saved."""

    def __post_init__(self) -> None:
        check_settings(self)
        self._settle_options("network", network_kind(self.network).options_class())
        self._settle_options("optimizer", optimizer_kind(self.optimizer).options)
        if self.sequence_length > self.block_size:
            raise UsageError(
                f"--sequence-length {self.sequence_length} is over the model's {self.block_size} positions; "
                f"give at most {self.block_size}, or raise --block-size"
            )
        if self.train_only != "all" and not self.init:
            raise UsageError(
                "--train-only new-tokens needs --init MODEL: it trains the tokens that MODEL lacks"
            )
        if self.tokenizer == "from-init" and not self.init:
            raise UsageError("--tokenizer from-init needs --init MODEL: it takes that model's tokenizer")
        if self.batch_tokens % self.sequence_length:
            low = self.batch_tokens // self.sequence_length * self.sequence_length
            near = [str(n) for n in (low, low + self.sequence_length) if n]
            raise UsageError(
                f"--batch-tokens {self.batch_tokens} is no multiple of --sequence-length {self.sequence_length}; "
                f"the nearest are {' and '.join(near)}"
            )
        self._check_ramp()
        # Refuse an impossible shape before anything is prepared.
        self.network_config(vocab_size=1)

    def _check_ramp(self) -> None:
        start, length = self.batch_ramp_start_tokens, self.sequence_length
        if not self.batch_ramp_tokens or (
            start < self.batch_tokens and start % length == 0 and self.batch_tokens % start == 0
        ):
            return
        if self.batch_samples == 1:
            raise UsageError(
                "--batch-ramp-tokens: a batch of one sequence has nothing to grow from; leave it out"
            )
        fitting = math.gcd(max(1, start // length), self.batch_samples)
        if fitting == self.batch_samples:
            fitting = 1 if fitting % 2 else fitting // 2
        raise UsageError(
            f"--batch-ramp-start-tokens is {start:,}; it must be a multiple of --sequence-length {length:,}, and a "
            f"divisor of --batch-tokens {self.batch_tokens:,} that is smaller than it; give {fitting * length}"
        )

    def _settle_options(self, which: Literal["network", "optimizer"], kind: type[Options]) -> None:
        """Sets the kind's default options if none were given, and refuses the options of another kind."""
        options = getattr(self, f"{which}_options")
        if type(options) is Options:
            options = kind()
            # A frozen dataclass can set its own fields only this way.
            object.__setattr__(self, f"{which}_options", options)
        if type(options) is not kind:
            raise UsageError(
                f"{which}_options are {type(options).__name__}, and {getattr(self, which)} takes {kind.__name__}; give "
                "those"
            )
        check_settings(options, prefix=f"{which}.")

    @property
    def batch_samples(self) -> int:
        """G, the sequences of a step over all ranks, once the batch has grown to its full size."""
        return self.batch_tokens // self.sequence_length

    @property
    def ramp(self) -> Ramp:
        """The sequences of each step over all ranks."""
        full = self.batch_samples
        if not self.batch_ramp_tokens:
            return Ramp(full, full)
        over = -(-self.batch_ramp_tokens // self.sequence_length)
        return Ramp(self.batch_ramp_start_tokens // self.sequence_length, full, over)

    @property
    def tokens(self) -> int:
        """The tokens of all steps."""
        return self.ramp.after(self.steps) * self.sequence_length

    def network_config(self, vocab_size: int) -> NetworkConfig:
        """The network's config for a vocabulary of this size."""
        return network_kind(self.network).config(
            n_layer=self.n_layer,
            n_head=self.n_head,
            n_embd=self.n_embd,
            block_size=self.block_size,
            vocab_size=vocab_size,
            dropout=self.dropout,
            options=self.network_options,
        )

    def to_dict(self) -> dict[str, Any]:
        """The recipe as a dict that JSON can hold."""
        return dataclasses.asdict(self) | {"corpus": list(self.corpus)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Recipe":
        """The inverse of `to_dict`. It ignores keys that it doesn't know.

        It also reads recipes of older versions. They lack newer fields and options, so the default of each new one must
        stand for what runs did before it existed.

        Raises:
            UsageError, ModelError: a value is not possible.
        """
        values = {field.name: stored[field.name] for field in dataclasses.fields(cls) if field.name in stored}
        known = upgraded(values | {key: stored[key] for key in _ADAMW_BEFORE if key in stored})
        network, optimizer = (
            str(known.get("network", cls.network)),
            str(known.get("optimizer", cls.optimizer)),
        )
        known["network_options"] = read_options(
            network_kind(network).options_class(), known.get("network_options", {})
        )
        known["optimizer_options"] = read_options(
            optimizer_kind(optimizer).options, known.get("optimizer_options", {})
        )
        if isinstance(known.get("corpus"), list):
            known["corpus"] = tuple(known["corpus"])
        return cls(**known)


# AdamW's options. Before there were other optimizers, they were fields of the recipe itself.
_ADAMW_BEFORE = ("weight_decay", "beta1", "beta2", "epsilon")


def upgraded(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored recipe with today's names of its fields.

    >>> upgraded({"n_layer": 2, "beta1": 0.8})
    {'n_layer': 2, 'optimizer_options': {'beta1': 0.8}}
    """
    recipe = dict(stored)
    before = {name: recipe.pop(name) for name in _ADAMW_BEFORE if name in recipe}
    return recipe | {"optimizer_options": before} if before else recipe


@dataclass(frozen=True)
class Change:
    """A field whose value differs from the stored one.

    Attributes:
        text: the flag with both values.
    """

    rule: ResumeRule
    text: str


def changed_fields(recipe: Recipe, stored: Mapping[str, Any]) -> dict[str, Change]:
    """By name, the fields in which a recipe differs from a stored one, without those that may change at any time.

    An older recipe lacks newer fields and options. Their defaults say what runs of that time did.

    Raises:
        UsageError, ModelError: a stored value is not possible.
    """
    now, before = recipe.to_dict(), Recipe.from_dict(stored).to_dict()
    changes = _changes(now, before, resume_rules(recipe), "")
    for which in ("network", "optimizer"):
        key = f"{which}_options"
        changes.pop(key, None)
        if now[which] == before[which]:
            rules = resume_rules(getattr(recipe, key))
            changes |= _changes(now[key], before[key], rules, f"{which}.")
    return changes


def _changes(
    now: Mapping[str, Any], before: Mapping[str, Any], rules: Mapping[str, ResumeRule], prefix: str
) -> dict[str, Change]:
    return {
        prefix + name: Change(rules[name], f"{flag(name, prefix)} was {before[name]!r}, now {value!r}")
        for name, value in now.items()
        if before[name] != value and rules[name] != "free"
    }
