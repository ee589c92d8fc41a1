"""A training run on so many GPUs, and what comes with it: the corpus, checkpoints, evaluation. Hours, bytes, money."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from myna.data.sources.corpora import tokens_of
from myna.errors import UsageError
from myna.plan.assumptions import Assumptions
from myna.plan.memory import GB, Fit, Shape, fit, shape_of
from myna.plan.traffic import Traffic, links, traffic
from myna.train.micro_batch import accumulation
from myna.train.recipe import Recipe

MOST_VAL_TOKENS = 10_485_760  # what a validation scores
WEB_VAL_FRACTION = 0.01
HELLASWAG_ITEMS = 10_042
# Ids that an item's rows come to: 16.5 GFLOP at GPT-2 124M (docs/performance.md, "HellaSwag").
HELLASWAG_TOKENS = 67
UPDATE_BYTES = 28  # AdamW reads and writes weight, gradient and two moments: 7 times 4 bytes a parameter
FINEWEB_EDU = ("fineweb-edu", "fineweb-edu:sample-100BT", "fineweb-edu:sample-350BT", "fineweb-edu:full")


@dataclass(frozen=True)
class Corpus:
    """The text that is prepared for a run, whole. Bytes are of all of it.

    Attributes:
        tokens: of GPT-2.
        hours: of downloading, then of tokenizing.
    """

    name: str
    tokens: float
    text_bytes: float
    download_bytes: float
    shard_bytes: float
    download_hours: float
    tokenize_hours: float


@dataclass(frozen=True)
class Plan:
    """What a run takes.

    Attributes:
        traffic: of a step, by link, the fastest first; empty on one GPU.
        train_hours: arithmetic, updates of the weights, and waiting for other GPUs.
        checkpoint_bytes: of one.
        epochs: passes over the corpus; None where its size is not known.
        usd: of the GPUs, the preparation and the storage; None where a price is not known.
    """

    recipe: Recipe
    shape: Shape
    gpus: int
    assumptions: Assumptions
    fit: Fit
    traffic: list[Traffic]
    flops: float
    compute_seconds: float  # of a step: forward and backward passes
    update_seconds: float | None  # of a step, at memory speed; None where that is not known
    waited_seconds: float  # of a step
    train_hours: float
    evaluations: int
    evaluation_hours: float
    checkpoints: int
    checkpoint_bytes: float
    corpus: Corpus | None
    epochs: float | None
    gpu_usd: float | None
    prepare_usd: float | None
    storage_usd: float

    @property
    def tokens(self) -> int:
        """That the run trains on."""
        return self.recipe.tokens

    @property
    def step_seconds(self) -> float:
        """Of a step, all together."""
        return self.compute_seconds + (self.update_seconds or 0) + self.waited_seconds

    @property
    def hours(self) -> float:
        """Of the GPUs: training and evaluation."""
        return self.train_hours + self.evaluation_hours

    @property
    def usd(self) -> float | None:
        """All of it; None where the GPU's price is not known."""
        if self.gpu_usd is None:
            return None
        return self.gpu_usd + (self.prepare_usd or 0) + self.storage_usd

    def with_mfu(self, mfu: float) -> "Plan":
        """The same run with another MFU."""
        numbers = dict(self.assumptions.numbers)
        numbers["mfu"] = replace(numbers["mfu"], value=mfu)
        setting = self.fit.setting
        return _plan(
            self.recipe, self.shape, setting.gpus, replace(self.assumptions, numbers=numbers), self.fit
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        own = (
            "flops", "tokens", "compute_seconds", "update_seconds", "waited_seconds", "step_seconds", "train_hours",
            "evaluations", "evaluation_hours", "hours", "checkpoints", "checkpoint_bytes", "epochs", "gpu_usd",
            "prepare_usd", "storage_usd", "usd",
        )  # fmt: skip
        setting = asdict(self.fit.setting)
        return {
            "recipe": self.recipe.name,
            "gpu": self.assumptions.gpu,
            "gpus": self.gpus,
            "precision": self.assumptions.precision,
            "steps": self.recipe.steps,
            "batch_tokens": self.recipe.batch_tokens,
            "network": asdict(self.shape),
            **{name: getattr(self, name) for name in own},
            "corpus": asdict(self.corpus) if self.corpus else None,
            "fits": self.fit.fits,
            "why": self.fit.why,
            "setting": setting,
            "memory_gb": self.fit.gb,
            "traffic": [one.to_dict() for one in self.traffic],
            "assumptions": self.assumptions.to_dict(),
        }


def recipe_for(recipe: Recipe, tokens: float | None) -> Recipe:
    """The recipe with as many steps as these tokens need, and FineWeb-Edu's part that has them.

    Raises:
        UsageError: fewer than a step has.
    """
    if tokens is None:
        return recipe
    if not recipe.batch_tokens <= tokens < 1e18:
        raise UsageError(
            f"--tokens is {tokens:g}; give at least the {recipe.batch_tokens:,} of a step, and less than 1e18"
        )
    corpus = recipe.corpus
    if corpus[0].partition(":")[0] == "fineweb-edu":
        part = next((name for name in FINEWEB_EDU if (tokens_of(name) or 0) >= tokens), FINEWEB_EDU[-1])
        corpus = (part,)
    beyond = int(tokens) // recipe.sequence_length + 1
    return replace(recipe, steps=recipe.ramp.steps_to(beyond) - 1, corpus=corpus)


def check_divides(recipe: Recipe, gpus: int) -> None:
    """Refuses GPUs among which a batch does not divide, as `myna train` does.

    Raises:
        UsageError: fewer sequences than GPUs, or a rest; says what would do.
    """
    if gpus < 1:
        raise UsageError(f"--gpus is {gpus}; give 1 or more")
    if gpus > recipe.ramp.unit:
        raise UsageError(
            f"a batch of {recipe.ramp.unit:,} sequences is less than one for each of {gpus:,} GPUs; give at most "
            f"--gpus {recipe.ramp.unit}, or --batch-tokens {gpus * recipe.sequence_length}"
        )
    accumulation(replace(recipe, micro_batch=1 if recipe.micro_batch == "auto" else recipe.micro_batch), gpus)


def plan(
    recipe: Recipe,
    vocab_size: int,
    gpus: int,
    assumptions: Assumptions,
    *,
    shard: str = "auto",
    recompute: bool = False,
) -> Plan:
    """Computes a plan.

    Args:
        shard: auto, ddp or fsdp.
        recompute: with activation checkpointing.
    Raises:
        UsageError: the batch does not divide among the GPUs.
        ModelError: no such network can be built.
    """
    check_divides(recipe, gpus)
    shape = shape_of(recipe, vocab_size)
    chosen = fit(
        shape,
        recipe,
        gpus,
        half=assumptions.precision in ("bf16", "fp16"),
        memory_gb=assumptions.get("memory_gb"),
        reserved_gb=assumptions["reserved_gb"],
        shard=shard,
        recompute=recompute,
    )
    return _plan(recipe, shape, gpus, assumptions, chosen)


def _plan(recipe: Recipe, shape: Shape, gpus: int, assumptions: Assumptions, chosen: Fit) -> Plan:
    flops_per_second = assumptions["peak_tflops"] * 1e12 * gpus
    flops = shape.flops_per_token * recipe.tokens
    # Activation checkpointing makes each forward pass twice: a third more than forward and backward.
    done = flops * (4 / 3 if chosen.setting.recompute else 1)
    compute = done / recipe.steps / (flops_per_second * assumptions["mfu"])
    sent = (
        [traffic(shape, chosen.setting, assumptions, compute, link) for link in links(assumptions)]
        if gpus > 1
        else []
    )
    waited = sent[0].waited if sent else 0.0
    corpus = _corpus(recipe, assumptions)
    evaluations, forward_flops = _evaluation(recipe, shape, corpus)
    evaluation_hours = forward_flops / (flops_per_second * assumptions["forward_mfu"]) / 3600
    checkpoints = recipe.steps // recipe.checkpoint_every if recipe.checkpoint_every else 0
    checkpoints += not recipe.checkpoint_every or recipe.steps % recipe.checkpoint_every > 0
    checkpoint_bytes = 4 * shape.parameters + shape.state_bytes
    stored = checkpoints * checkpoint_bytes + (corpus.shard_bytes if corpus else 0)
    price, bandwidth = assumptions.get("usd_per_gpu_hour"), assumptions.get("bandwidth_gb_per_s")
    update_bytes = UPDATE_BYTES * shape.weight_bytes / 4 / (gpus if chosen.setting.sharded else 1)
    update = update_bytes / GB / bandwidth if bandwidth and recipe.optimizer == "adamw" else None
    train_hours = recipe.steps * (compute + (update or 0) + waited) / 3600
    return Plan(
        recipe=recipe,
        shape=shape,
        gpus=gpus,
        assumptions=assumptions,
        fit=chosen,
        traffic=sent,
        flops=flops,
        compute_seconds=compute,
        update_seconds=update,
        waited_seconds=waited,
        train_hours=train_hours,
        evaluations=evaluations,
        evaluation_hours=evaluation_hours,
        checkpoints=checkpoints,
        checkpoint_bytes=checkpoint_bytes,
        corpus=corpus,
        epochs=recipe.tokens / corpus.tokens if corpus else None,
        gpu_usd=None if price is None else (train_hours + evaluation_hours) * gpus * price,
        prepare_usd=_prepare_usd(corpus, assumptions),
        storage_usd=stored / GB * assumptions["usd_per_gb_month"] * assumptions["months"],
    )


def _corpus(recipe: Recipe, assumptions: Assumptions) -> Corpus | None:
    """None where nobody has said how much text it is, or its tokens are not GPT-2's."""
    tokens = sum(tokens_of(name) or 0 for name in recipe.corpus)
    if not tokens or recipe.tokenizer != "gpt2":
        return None
    text, download = (
        tokens * assumptions["bytes_per_token"],
        tokens * assumptions["download_bytes_per_token"],
    )
    rate = assumptions["prepare_mb_per_s"] * 1e6 * assumptions["prepare_cores"]
    return Corpus(
        name=", ".join(recipe.corpus),
        tokens=tokens,
        text_bytes=text,
        download_bytes=download,
        shard_bytes=2 * tokens,
        download_hours=download / (assumptions["download_mb_per_s"] * 1e6) / 3600,
        tokenize_hours=text / rate / 3600,
    )


def _prepare_usd(corpus: Corpus | None, assumptions: Assumptions) -> float | None:
    if corpus is None:
        return None
    core_hours = (corpus.download_hours + corpus.tokenize_hours) * assumptions["prepare_cores"]
    return core_hours * assumptions["usd_per_core_hour"]


def _evaluation(recipe: Recipe, shape: Shape, corpus: Corpus | None) -> tuple[int, float]:
    """How often a run is validated, and the FLOPs of all validations and HellaSwag scores. All ranks share them."""

    def times(every: int) -> int:
        """Every so many steps, and after the last."""
        return recipe.steps // every + (recipe.steps % every > 0) if every else 0

    val_tokens = MOST_VAL_TOKENS
    if corpus is not None:
        val_tokens = min(val_tokens, int(WEB_VAL_FRACTION * corpus.tokens))
    validation = times(recipe.eval_every) * val_tokens * shape.flops_per_token / 3
    items = times(recipe.hellaswag_every) * HELLASWAG_ITEMS
    return times(recipe.eval_every), validation + items * HELLASWAG_TOKENS * 2 * shape.multiplied
