"""The Recipe: every number that a training run depends on, in one dataclass whose fields are the flags.

The defaults are those of GPT-2 124M; `myna.recipes` holds the named ones. Sources, by number:

    [1] GPT-2: Radford et al. 2019: architecture, 1024 positions, byte-level BPE of 50257 ids, batches of 512
        sequences (524,288 tokens).
    [2] GPT-3: Brown et al. 2020, arXiv:2005.14165, table 2.1 and appendix B: learning rates by size, Adam's betas
        0.9 and 0.95, epsilon 1e-8, clipping at 1.0, cosine decay to 10%, weight decay 0.1, linear warmup over 375
        million tokens (715 steps of 524,288). GPT-2's own were never published.
"""

import dataclasses
import difflib
import math
from dataclasses import dataclass
from typing import Any, Literal

from myna.errors import UsageError
from myna.model.config import GPTConfig

PrecisionName = Literal["auto", "fp32", "tf32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained, on what, and how. Raises UsageError where two numbers cannot go together."""

    name: str = "gpt2-124m"
    """The name under which the run is kept: runs/NAME."""
    corpus: tuple[str, ...] = ("fineweb-edu",)
    """What to read: named corpora, files, folders (see `myna prepare --help`)."""
    tokenizer: str = "gpt2"
    """gpt2, bytes, train:N (a vocabulary of N ids trained on the corpus), a tokenizer's folder, or from-data (take
    the dataset's own)."""

    n_layer: int = 12
    """Layers."""
    n_head: int = 12
    """Attention heads in a layer."""
    n_embd: int = 768
    """Width of the residual stream; a multiple of the heads."""
    block_size: int = 1024
    """Positions the model has, in tokens [1]."""
    dropout: float = 0.0
    """Fraction of activations dropped in training."""

    steps: int = 19_073
    """Optimizer steps. 19,073 of 524,288 tokens are 10 billion: one epoch of FineWeb-Edu's sample-10BT."""
    batch_tokens: int = 524_288
    """Tokens a step, over all ranks and micro-batches [1]."""
    micro_batch: Literal["auto"] | int = "auto"
    """Sequences that one rank computes at once; only speed and memory depend on it."""
    sequence_length: int = 1024
    """Tokens in a training sequence; at most block_size."""

    learning_rate: float = 6e-4
    """Peak learning rate [2]."""
    final_learning_rate_fraction: float = 0.1
    """Learning rate at the last step, as a fraction of the peak [2]."""
    warmup_steps: int = 715
    """Steps over which the learning rate grows linearly [2]."""
    weight_decay: float = 0.1
    """AdamW's decay, on matrices and embeddings only [2]."""
    beta1: float = 0.9
    """AdamW's decay of the gradient's mean [2]."""
    beta2: float = 0.95
    """AdamW's decay of the gradient's square [2]."""
    epsilon: float = 1e-8
    """AdamW's epsilon [2]."""
    clip_norm: float = 1.0
    """The gradient's norm over all parameters is scaled down to this [2]."""
    average_decay: float = 0.0
    """Decay of a moving average of the weights over the steps; 0 for none. The average is what is validated, sampled
    from and saved as the model, as if the learning rate had come down already; training goes on from the weights."""
    seed: int = 1337
    """Seeds the initial weights, the order of the samples, and dropout."""

    precision: PrecisionName = "auto"
    """What matrix products are computed in; auto: bf16 where the device is made for it, else fp32 (TF32 on CUDA)."""
    compile: bool = True
    """Compile the training step with torch.compile; where that fails, train without and say why."""

    eval_every: int = 250
    """Steps between validations; 0 for none."""
    sample_every: int = 250
    """Steps between samples; 0 for none."""
    sample_prompt: str = "Hello, I'm a language model,"
    """What the samples on the way continue."""
    sample_temperature: float = 0.8
    """Temperature of the samples; 0 takes the likeliest token each time."""
    hellaswag_every: int = 250
    """Steps between HellaSwag scores, where --hellaswag names the file; 0 for none."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; the last step is always saved. 0 for the last alone."""

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "sequence_length", "learning_rate", "clip_norm", "epsilon"):
            self._require(getattr(self, name) > 0, name, "give more than 0")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            self._require(
                not isinstance(value, float) or math.isfinite(value), field.name, "give a finite number"
            )
        self._require(self.steps > 0, "steps", "give 1 or more")
        self._require(self.seed < 1 << 63, "seed", "give less than 2^63")
        self._require(self._encodable(), "sample_prompt", "give text without lone surrogates")
        for name in ("warmup_steps", "weight_decay", "seed", "sample_temperature"):
            self._require(getattr(self, name) >= 0, name, "give 0 or more")
        for name in ("eval_every", "sample_every", "hellaswag_every", "checkpoint_every"):
            self._require(getattr(self, name) >= 0, name, "give a number of steps, or 0 for never")
        for name in ("beta1", "beta2", "average_decay"):
            self._require(
                0 <= getattr(self, name) < 1, name, "give a fraction from 0 up to, not including, 1"
            )
        self._require(
            0 <= self.final_learning_rate_fraction <= 1, "final_learning_rate_fraction", "give 0 to 1"
        )
        self._require(
            self.micro_batch == "auto" or self.micro_batch > 0, "micro_batch", "give auto, or 1 or more"
        )
        if self.sequence_length > self.block_size:
            raise UsageError(
                f"--sequence-length {self.sequence_length} is over the model's {self.block_size} positions; "
                f"give at most {self.block_size}, or raise --block-size"
            )
        if self.batch_tokens % self.sequence_length:
            low = self.batch_tokens // self.sequence_length * self.sequence_length
            near = [str(n) for n in (low, low + self.sequence_length) if n]
            raise UsageError(
                f"--batch-tokens {self.batch_tokens} is no multiple of --sequence-length {self.sequence_length}; "
                f"the nearest are {' and '.join(near)}"
            )
        self.model_config(vocab_size=1)  # refuses an impossible shape before anything is prepared

    def _encodable(self) -> bool:
        try:
            self.sample_prompt.encode("utf-8")
        except UnicodeEncodeError:
            return False
        return True

    def _require(self, condition: bool, name: str, what_to_do: str) -> None:
        if not condition:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(self, name)!r}; {what_to_do}")

    @property
    def batch_samples(self) -> int:
        """G, the sequences of a step over all ranks."""
        return self.batch_tokens // self.sequence_length

    def model_config(self, vocab_size: int) -> GPTConfig:
        """The shape of the network for a vocabulary."""
        return GPTConfig(
            n_layer=self.n_layer,
            n_head=self.n_head,
            n_embd=self.n_embd,
            block_size=self.block_size,
            vocab_size=vocab_size,
            dropout=self.dropout,
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self) | {"corpus": list(self.corpus)}


# What may change between a run and its resumption without changing the weights it leads to.
FREE_ON_RESUME = frozenset(
    {
        "eval_every",
        "sample_every",
        "sample_prompt",
        "sample_temperature",
        "hellaswag_every",
        "checkpoint_every",
        "name",
        "compile",
    }
)


# What a run's checkpoints are made for: it cannot change.
SHAPE = frozenset({"n_layer", "n_head", "n_embd", "block_size", "tokenizer"})


def changed_fields(recipe: Recipe, stored: dict[str, Any]) -> dict[str, str]:
    """The fields in which a recipe would lead to other weights than the stored one: name -> flag with both values."""
    now = recipe.to_dict()
    return {
        key: f"--{key.replace('_', '-')} was {stored[key]!r}, now {now[key]!r}"
        for key in now
        if key in stored and stored[key] != now[key] and key not in FREE_ON_RESUME
    }


def unknown_name(kind: str, name: str, known: list[str]) -> UsageError:
    """The error for a name that is not there, with the nearest that is.

    >>> str(unknown_name("recipe", "gpt2-142m", ["pydoc", "gpt2-124m"]))
    "there is no recipe 'gpt2-142m'; did you mean gpt2-124m? There are: pydoc, gpt2-124m"
    """
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {near[0]}? There" if near else "there"
    return UsageError(f"there is no {kind} {name!r}; {hint} are: {', '.join(known)}")
