"""The rungs by name, in the lecture's order, and which of them a machine has. No torch: listing them takes no time."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from myna.errors import UsageError, unknown_name
from myna.model.config import NetworkConfig
from myna.train.recipe import Recipe


@dataclass(frozen=True)
class Rung:
    """One step up: everything of the rungs before it, and one change."""

    name: str  # as --rungs takes it
    title: str  # for people
    change: str


LADDER = (
    Rung("fp32", "fp32", "GPT-2 written out, every product in full fp32"),
    Rung("tf32", "TF32", "the GPU's matrix units multiply fp32 with 10 bits of mantissa"),
    Rung(
        "fp16",
        "fp16",
        "autocast: matrix products in fp16; a scaler keeps small gradients from becoming 0",
    ),
    Rung("bf16", "bf16", "bf16 in place of fp16, without a scaler; weights, sums and optimizer stay fp32"),
    Rung("compile", "compile", "torch.compile: neighbouring operations become one kernel"),
    Rung("flash-attention", "flash attention", "scores, mask, softmax and product become one call"),
    Rung(
        "padded-vocabulary",
        "padded vocabulary",
        "rows added up to a multiple of 128; no token's loss changes",
    ),
    Rung("fused-adamw", "fused AdamW", "one kernel updates all parameters"),
    Rung("ours", "ours", "what `myna train` runs"),
)
COMPILE, OURS = "compile", "ours"
# A rung's change that a later rung's takes the place of. A machine without the later one keeps the earlier.
REPLACED = {"fp16": "bf16"}

WARM_UP_STEPS = 2  # after the first, which compiles


@dataclass(frozen=True)
class Machine:
    """What the rungs depend on, and what a reader of the figures must know."""

    device: str  # cpu, cuda or mps
    name: str
    capability: tuple[int, int] | None  # of a CUDA GPU
    bf16_instructions: tuple[str, ...]  # of a CPU
    fp16_instructions: tuple[str, ...]  # of a CPU
    torch: str
    threads: int
    matrix_flops: float  # FLOP/s of a large matrix product, measured
    matrix_about: str  # its dtype and size

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Machine":
        """The inverse of `dataclasses.asdict` and JSON, which has no tuples."""
        capability = value["capability"]
        return cls(
            **{
                **value,
                "capability": None if capability is None else (capability[0], capability[1]),
                "bf16_instructions": tuple(value["bf16_instructions"]),
                "fp16_instructions": tuple(value["fp16_instructions"]),
            }
        )


@dataclass(frozen=True)
class Switches:
    """What is on at a rung of the lecture's; the fields are in the ladder's order."""

    tf32: bool = False
    fp16: bool = False  # bf16 takes its place where both are on
    bf16: bool = False
    compile: bool = False
    flash_attention: bool = False
    padded_vocabulary: bool = False
    fused_adamw: bool = False


def switches(name: str, without: Collection[str] = ()) -> Switches:
    """What is on at that rung: the change of each rung up to it, less what the machine is `without`.

    >>> switches("compile", without=["tf32", "fp16"])  # doctest: +NORMALIZE_WHITESPACE
    Switches(tf32=False, fp16=False, bf16=True, compile=True, flash_attention=False, padded_vocabulary=False,
             fused_adamw=False)
    """
    names = [rung.name for rung in LADDER]
    on = names[1 : names.index(name) + 1]
    return Switches(**{n.replace("-", "_"): n not in without for n in on if n != OURS})


def left_out(rung: Rung, without: Collection[str]) -> list[str]:
    """The changes of earlier rungs that this one goes without; what is ours decides for itself.

    >>> left_out(LADDER[-2], without=["tf32", "fp16"]), left_out(LADDER[-2], without=["fp16", "bf16"])
    (['tf32'], ['fp16', 'bf16'])
    """
    if rung.name == OURS:
        return []
    names = [above.name for above in LADDER[: LADDER.index(rung) + 1]]
    on = set(names) - set(without)
    return [name for name in names[:-1] if name in without and REPLACED.get(name) not in on]


def missing(rung: Rung, machine: Machine, config: NetworkConfig) -> str | None:
    """Why a machine (or a model) does not have that rung; None where it does. A compiler is only known by trying it."""
    if rung.name == "tf32":
        if machine.capability is None:
            return f"a mode of CUDA GPUs, and the device is {machine.device}"
        if machine.capability < (8, 0):
            return f"needs compute capability 8.0, and {machine.name} has {_dotted(machine.capability)}"
    if rung.name == "fp16":
        if machine.device == "cpu" and not machine.fp16_instructions:
            return f"{machine.name} has no instructions for it (AMX or AVX512-FP16)"
        if machine.device == "mps":
            return "`myna train` computes in fp32 on mps"
    if rung.name == "bf16":
        if machine.capability is not None and machine.capability < (8, 0):
            return f"needs compute capability 8.0, and {machine.name} has {_dotted(machine.capability)}"
        if machine.device == "cpu" and not machine.bf16_instructions:
            return f"{machine.name} has no instructions for it (AMX or AVX512-BF16)"
        if machine.device == "mps":
            return "the ladder was never run on mps, where `myna train` tries bf16 first"
    if rung.name == "padded-vocabulary" and config.padded_vocab_size == config.vocab_size:
        return f"{config.vocab_size:,} ids are a multiple of 128 already"
    return None


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def why_only_ours(recipe: Recipe) -> str | None:
    """Why the lecture's rungs are not there for a recipe, for people; None where they are."""
    if (recipe.network, recipe.optimizer) == ("gpt2", "adamw"):
        return None
    return f"the lecture's rungs are GPT-2 with AdamW, and this is {recipe.network} with {recipe.optimizer}"


def chosen(names: str | None, only_ours: str | None = None) -> tuple[Rung, ...]:
    """The rungs of a list such as `fp32,bf16,ours`, in the ladder's order; all for None.

    Args:
        only_ours: why there is no rung but ours; None where there are all.
    Raises:
        UsageError: one is not on the ladder, or none is named.
    """
    if names is None:
        return LADDER if only_ours is None else tuple(rung for rung in LADDER if rung.name == OURS)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [rung.name for rung in LADDER]
    for name in wanted:
        if name not in known:
            raise unknown_name("rung", name, known)
    if not wanted:
        raise UsageError(f"--rungs names none; give some of {','.join(known)}")
    if only_ours is not None and set(wanted) != {OURS}:
        raise UsageError(
            f"--rungs is {names}: {only_ours}; leave --rungs out, or give {OURS}, or --network gpt2 "
            "--optimizer adamw"
        )
    return tuple(rung for rung in LADDER if rung.name in wanted)


def compared(records: Sequence[dict[str, Any]], matrix_flops: float) -> list[dict[str, Any]]:
    """Adds to each measured rung its `ratio`, how many times as fast as the first it is, and its `share_of_limit`.

    >>> slow = {"ms_per_step": 9.0, "flops": 2e9}
    >>> compared([{"skipped": "no"}, slow, {"ms_per_step": 6.0, "flops": 3e9}], 4e9)[2]
    {'ms_per_step': 6.0, 'flops': 3000000000.0, 'ratio': 1.5, 'share_of_limit': 0.75}
    """
    times = [record["ms_per_step"] for record in records if "ms_per_step" in record]
    return [
        record | {"ratio": times[0] / record["ms_per_step"], "share_of_limit": record["flops"] / matrix_flops}
        if "ms_per_step" in record
        else dict(record)
        for record in records
    ]
