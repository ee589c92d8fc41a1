"""The parts, in the order in which they run: what every claim about GPUs in docs/performance.md needs."""

from collections.abc import Callable, Sequence
from functools import partial

from gpu.part import Part, Setting, needs_hellaswag, needs_tf32, needs_transformers, needs_two_gpus

TINY_SHAPE = ["--layers", "1", "--sequence-length", "16", "--micro-batch", "2"]

# Fixed, so that two machines are compared on the same batch: of those that fit 80 GB by llm.c's and nanoGPT's use.
SIZES = {"gpt2-124m": 64, "gpt2-355m": 32, "gpt2-774m": 16, "gpt2-1558m": 8}


def bench(name: str, recipe: str, micro_batch: int, *more: str, setting: Setting) -> list[str]:
    """A call of `myna bench`. A tiny one has a recipe that compiles only where that is asked for."""
    tiny_recipe = "shakespeare" if "--compile-by" in more else "shakespeare-char"
    shape = ["--recipe", recipe, "--micro-batch", str(micro_batch), "--steps", "10"]
    if setting.tiny:
        shape = ["--recipe", tiny_recipe, *TINY_SHAPE, "--steps", "1"]
    return ["-m", "myna", "bench", *shape, *more, "--device", setting.device, "--out", name, "--json"]


def ours(name: str, recipe: str, micro_batch: int, *more: str) -> Callable[[Setting], Sequence[str]]:
    """`myna train`'s step alone."""
    return lambda setting: bench(name, recipe, micro_batch, "--rungs", "ours", *more, setting=setting)


def ladder(setting: Setting) -> list[str]:
    """The lecture's ladder with the lecture's micro-batch."""
    few = ["--rungs", "fp32,tf32,ours"] if setting.tiny else []
    return bench("ladder", "gpt2-124m", 16, *few, setting=setting)


def attention(setting: Setting) -> list[str]:
    """Ways to compute attention."""
    lengths = ["--lengths", "16,32"] if setting.tiny else []
    name = ["--recipe", "shakespeare-char" if setting.tiny else "gpt2-124m"]
    call = ["-m", "myna", "bench", "--attention", *name, *lengths]
    return [*call, "--device", setting.device, "--out", "attention", "--json"]


def ranks(setting: Setting) -> list[str]:
    """Our step on all GPUs."""
    count = 2 if setting.tiny else setting.gpus
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return [*torchrun, *bench("ranks", "gpt2-124m", 64, "--accumulate", "2", setting=setting)]


def own(script: str, setting: Setting, *more: str) -> list[str]:
    """A process of this folder."""
    return [
        "-m",
        f"gpu.measure_{script}",
        "--device",
        setting.device,
        *(["--tiny"] if setting.tiny else []),
        *more,
    ]


def route(setting: Setting) -> list[str]:
    """Text to a trained, scored and sampled model."""
    return own("route", setting, "--hellaswag", str(setting.hellaswag))


def script(name: str) -> Callable[[Setting], Sequence[str]]:
    """A process of this folder that needs no more."""
    return partial(own, name)


BATCHES = [
    Part(
        f"batch-{size}",
        f"124M, 8 x ({size} x 1024)",
        ours(f"batch-{size}", "gpt2-124m", size, "--accumulate", "8"),
    )
    for size in (16, 64, 256)
]
PIECES = [
    Part(
        f"compile-{by}",
        f"124M, 64 x 1024, compiled by the {by}",
        ours(f"compile-{by}", "gpt2-124m", 64, "--compile-by", by),
    )
    for by in ("network", "block")
]
MODELS = [
    Part(
        recipe.replace("gpt2", "size"),
        f"{recipe.removeprefix('gpt2-').upper()}, {micro_batch} x 1024",
        ours(recipe.replace("gpt2", "size"), recipe, micro_batch),
    )
    for recipe, micro_batch in SIZES.items()
]
CHOICES = [
    Part("fp16", "124M, 64 x 1024, fp16 with a scaler", ours("fp16", "gpt2-124m", 64, "--precision", "fp16")),
    Part("tf32", "124M, 64 x 1024, TF32", ours("tf32", "gpt2-124m", 64, "--precision", "tf32"), needs_tf32),
    # An option of torch's compiler that tries more shapes of each kernel. Off by default; this part only measures it.
    Part(
        "tuning",
        "124M, 64 x 1024, coordinate-descent tuning",
        ours("tuning", "gpt2-124m", 64),
        environment={"TORCHINDUCTOR_COORDINATE_DESCENT_TUNING": "1"},
    ),
]

PARTS: list[Part] = [
    Part(
        "machine",
        "this machine",
        lambda setting: ["-m", "myna", "device", "--device", setting.device, "--json"],
    ),
    Part("logits", "GPT-2 124M's logits", script("logits"), needs_transformers),
    Part("resume", "resume", script("resume")),
    *MODELS,
    Part("ladder", "ladder", ladder),
    *BATCHES,
    *PIECES,
    *CHOICES,
    Part("ranks", "all GPUs", ranks, needs_two_gpus),
    Part("kernels", "kernels of a step", script("kernels")),
    Part("route", "40 steps", route, needs_hellaswag),
    Part("generation", "generation", script("generation"), needs_transformers),
    Part("attention", "attention", attention),
]
