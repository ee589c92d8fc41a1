"""`myna train`: composes the whole route, from a recipe's corpus to a report."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from myna.commands import parse
from myna.errors import DataError, OutputError, UsageError
from myna.files import ensure_writable_directory, json_bytes, sha256_bytes, sha256_file
from myna.recipes import RECIPES, SELF_PREPARING, named
from myna.run import Run
from myna.train.recipe import Recipe, changed_fields

if TYPE_CHECKING:
    import torch

    from myna.data.shards import Dataset
    from myna.model.gpt2 import GPT
    from myna.text.tokenizer import Tokenizer
    from myna.train.loop import Hook, Training
    from myna.train.ranks import Precision, Ranks

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainCall:
    """Train a model from a recipe: `myna train RECIPE [OPTIONS]`; without RECIPE, pydoc.

    A run that was stopped goes on from its newest sound checkpoint when the same command is given again.
    """

    settings: tyro.conf.OmitArgPrefixes[Recipe] = field(default_factory=RECIPES["pydoc"])
    data: Path | None = None
    """Folder of a prepared dataset (see `myna prepare`). pydoc and shakespeare prepare theirs under data/."""
    out: Path | None = None
    """Folder of the run; runs/RECIPE if not given."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    resume: Literal["auto", "never"] = "auto"
    """auto goes on with the run in --out; never refuses a folder that holds one."""
    hellaswag: Path | None = None
    """HellaSwag's JSONL file, to be scored on the way."""
    timeout_s: Annotated[float, tyro.conf.arg(name="timeout-s")] = 600.0
    """Seconds to wait for the other ranks."""


def main(args: Sequence[str]) -> None:
    """See `TrainCall`."""
    recipe_given = bool(args) and not args[0].startswith("-")
    recipe = named(args[0] if recipe_given else "pydoc")
    call = parse(
        TrainCall,
        args[1:] if recipe_given else args,
        command="train",
        default=TrainCall(settings=recipe),
        description=f"{cleandoc(TrainCall.__doc__ or '')}\n\nRecipes: {', '.join(RECIPES)}.",
    )
    from myna.train.ranks import process_environment, start_ranks

    with start_ranks(process_environment(), call.device, call.timeout_s) as ranks:
        say: Say = (lambda text: print(text, flush=True)) if ranks.is_main else (lambda text: None)
        train(call, ranks, say)


def train(call: TrainCall, ranks: "Ranks", say: Say) -> None:
    """The route: data, model, step, loop, report."""
    from myna.data.batches import TrainStream
    from myna.train.flops import count_parameters
    from myna.train.loop import Training, compile_or_say_why
    from myna.train.ranks import apply_precision, resolve_precision

    run = Run(call.out or Path("runs") / call.settings.name)
    stored = stored_recipe(run, call)
    recipe = call.settings
    precision = resolve_precision(recipe.precision, ranks.device)
    apply_precision(precision)
    dataset, tokenizer = open_data(call, recipe, ranks, say)
    stream = TrainStream(dataset.train, recipe.sequence_length, recipe.seed)

    model = new_model(recipe, tokenizer.n_vocab, ranks.device)
    training = Training(
        model=model,
        tokenizer=tokenizer,
        recipe=recipe,
        run=run,
        stream=stream,
        dataset_id=dataset_identity(dataset),
        ranks=ranks,
        precision=precision,
        hooks=make_hooks(call, recipe, run, dataset, tokenizer, ranks, precision),
    )
    recipe = settle_micro_batch(training, stored)
    if ranks.is_main:
        ensure_writable_directory(run.path)
    ranks.barrier()
    epochs = recipe.steps * recipe.batch_tokens / dataset.train.n_tokens
    say(
        f"{recipe.name}: {count_parameters(model):,} parameters, {dataset.train.n_tokens:,} training tokens, "
        f"{epochs:.2f} epochs in {recipe.steps:,} steps of {recipe.batch_tokens:,} tokens"
    )
    say(
        f"on {device_name(ranks.device)}, {precision.name} ({precision.reason}), micro-batch {recipe.micro_batch}"
    )
    training.resume(say)
    if training.finished_steps >= recipe.steps:
        say(
            f"{run.path} is finished: {training.finished_steps} of {recipe.steps} steps. Nothing is left to do."
        )
        return
    if ranks.is_main:
        run.write_recipe(recipe.to_dict())
        run.write_environment(environment(ranks, precision))
    if recipe.compile:
        compile_or_say_why(training.stepper, training.first_batch(training.micro_batch), say)
    training.train()
    if ranks.is_main:
        finish(run, dataset, tokenizer, say)


def stored_recipe(run: Run, call: TrainCall) -> dict[str, Any] | None:
    """The recipe of the run that is already in the folder, if there is one that may go on.

    Raises:
        OutputError: `--resume never`, and the folder holds a run. UsageError: another recipe than the run's.
    """
    if not run.exists():
        return None
    if call.resume == "never":
        raise OutputError(f"{run.path} holds a run already, and --resume is never; give another --out")
    stored = run.recipe()
    asked = call.settings
    if asked.micro_batch == "auto":
        asked = replace(asked, micro_batch=stored["micro_batch"])
    if asked.tokenizer == "from-data":
        asked = replace(asked, tokenizer=stored["tokenizer"])
    if changes := changed_fields(asked, stored):
        raise UsageError(
            f"{run.path} holds a run of another recipe ({'; '.join(changes)}); give another --out"
        )
    return stored


def open_data(call: TrainCall, recipe: Recipe, ranks: "Ranks", say: Say) -> "tuple[Dataset, Tokenizer]":
    """The dataset to train on, verified, and the tokenizer that made it; prepared first where a recipe can.

    Raises:
        UsageError: there is no data, and this recipe's is too large to fetch unasked.
        DataError: damaged, or made with another tokenizer.
    """
    from myna.data.shards import open_dataset
    from myna.text.tokenizer import Tokenizer

    path = call.data
    if path is None:
        path = Path("data") / recipe.name
        if ranks.is_main:
            prepare_own(recipe, path, say)
        ranks.barrier()
    if recipe.tokenizer == "from-data" or recipe.tokenizer.startswith("train:"):
        if not (path / "tokenizer.json").exists():
            raise DataError(f"{path} holds no tokenizer.json; name its tokenizer with --tokenizer")
        tokenizer = Tokenizer.load(path)
        if recipe.tokenizer != "from-data" and tokenizer.n_vocab != trained_size(recipe.tokenizer):
            raise DataError(
                f"{path} was made with a tokenizer of {tokenizer.n_vocab} ids, and the recipe says {recipe.tokenizer}; "
                "use --tokenizer from-data, or prepare it again"
            )
    else:
        tokenizer = Tokenizer.open(recipe.tokenizer)
    if ranks.is_main:
        open_dataset(path, tokenizer=tokenizer)  # hashes everything; the other ranks find it done
    ranks.barrier()
    return open_dataset(path, tokenizer=tokenizer), tokenizer


def prepare_own(recipe: Recipe, path: Path, say: Say) -> None:
    """Prepares the corpus of a recipe that can do so unasked; nothing where it is prepared already.

    Raises:
        UsageError: this recipe's corpus is large: prints the command that prepares it.
    """
    from myna.data.documents import documents
    from myna.data.prepare import prepare
    from myna.text.tokenizer import Tokenizer

    if not set(recipe.corpus) <= SELF_PREPARING:
        raise UsageError(
            f"{recipe.name} trains on {' '.join(recipe.corpus)}, which is not prepared yet: "
            f"myna prepare {' '.join(recipe.corpus)} --out data/{recipe.name} --tokenizer {recipe.tokenizer}, "
            f"then myna train {recipe.name} --data data/{recipe.name}"
        )
    if (path / "dataset.json").exists():
        return
    if recipe.tokenizer.startswith("train:"):
        size = trained_size(recipe.tokenizer)
        say(f"training a tokenizer of {size:,} ids on {' '.join(recipe.corpus)}")
        tokenizer = Tokenizer.train(documents(recipe.corpus, split="train"), vocab_size=size)
    elif recipe.tokenizer == "from-data":
        raise UsageError("--tokenizer from-data needs --data, a prepared dataset")
    else:
        tokenizer = Tokenizer.open(recipe.tokenizer)
    dataset = prepare(recipe.corpus, path, tokenizer)
    say(
        f"prepared {path}: {dataset.train.n_tokens:,} training and {dataset.val.n_tokens:,} validation tokens "
        f"from {dataset.train.n_documents + dataset.val.n_documents:,} documents"
    )


def trained_size(spec: str) -> int:
    """The N of `train:N`."""
    try:
        return int(spec.removeprefix("train:"))
    except ValueError as error:
        raise UsageError(
            f"--tokenizer {spec}: give train:N with a number of ids, such as train:4096"
        ) from error


def new_model(recipe: Recipe, vocab_size: int, device: "torch.device") -> "GPT":
    """Fresh weights: drawn on the CPU, so that a seed gives the same ones on every device."""
    import torch

    from myna.model.gpt2 import GPT

    torch.manual_seed(recipe.seed)
    return GPT(recipe.model_config(vocab_size)).to(device)


def settle_micro_batch(training: "Training", stored: dict[str, Any] | None) -> Recipe:
    """The training's recipe with a number where it says auto; a resumed run keeps its own."""
    from myna.train.micro_batch import choose_micro_batch

    recipe = training.recipe
    if recipe.micro_batch == "auto":
        chosen = (
            stored["micro_batch"] if stored else choose_micro_batch(recipe, training.ranks, training.try_out)
        )
        recipe = replace(recipe, micro_batch=chosen)
    training.settle(recipe)
    return recipe


def dataset_identity(dataset: "Dataset") -> str:
    """What identifies a dataset: the hash of its dataset.json, which holds the hash of each shard."""
    described = dataset.path / "dataset.json"
    if described.exists():
        return sha256_file(described)
    return sha256_bytes(json_bytes([dataset.tokenizer_sha256, dataset.train.n_tokens, dataset.val.n_tokens]))


def make_hooks(
    call: TrainCall,
    recipe: Recipe,
    run: Run,
    dataset: "Dataset",
    tokenizer: "Tokenizer",
    ranks: "Ranks",
    precision: "Precision",
) -> "list[Hook]":
    """What runs during training. Each works on the network itself, compiled step or not."""
    from myna.evaluate.hellaswag import encode_items, hellaswag_scores, hellaswag_sums, read_items
    from myna.evaluate.loss import validation_scores, validation_sums
    from myna.generate.text import continue_text
    from myna.train.loop import Hook

    share: dict[str, Any] = {
        "rank": ranks.rank,
        "world_size": ranks.world_size,
        "autocast_dtype": precision.dtype,
    }
    id_bytes = tokenizer.id_bytes()

    def validate(model: "GPT", step: int) -> dict[str, float]:
        sums = validation_sums(model, dataset.val, id_bytes, sequence_length=recipe.sequence_length, **share)
        return validation_scores(added(sums, ranks))

    def sample(model: "GPT", step: int) -> None:
        if ranks.is_main:
            (text,) = continue_text(
                model,
                tokenizer,
                recipe.sample_prompt,
                max_tokens=64,
                temperature=0.8,
                top_k=50,
                seed=recipe.seed,
                autocast_dtype=precision.dtype,
            )
            run.append_sample({"step": step, "prompt": recipe.sample_prompt, "text": text})

    hooks = [Hook(recipe.sample_every, sample)]
    if dataset.val.n_tokens > 1:
        hooks.insert(0, Hook(recipe.eval_every, validate))
    if call.hellaswag is not None:
        questions = encode_items(read_items(call.hellaswag), tokenizer, recipe.block_size)

        def score(model: "GPT", step: int) -> dict[str, float]:
            return hellaswag_scores(added(hellaswag_sums(model, questions, **share), ranks))

        hooks.append(Hook(recipe.hellaswag_every, score))
    return hooks


def added(sums: "torch.Tensor", ranks: "Ranks") -> "torch.Tensor":
    """Sums over the ranks: on the device for the network, then back on the CPU."""
    if ranks.world_size == 1:
        return sums
    return ranks.sum_(sums.to(ranks.device)).cpu()


def device_name(device: "torch.device") -> str:
    """The device for people."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return device.type


def environment(ranks: "Ranks", precision: "Precision") -> dict[str, Any]:
    """What the run stands on: enough to tell why two runs differ."""
    from importlib.metadata import version

    import torch

    return {
        "myna": version("myna"),
        "commit": source_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "device": device_name(ranks.device),
        "world_size": ranks.world_size,
        "precision": precision.name,
        "precision_reason": precision.reason,
        "command": sys.argv[1:],
    }


def source_commit() -> str | None:
    """The commit of the checkout this code runs from; None where it is installed without one."""
    try:
        found = subprocess.run(
            ["git", "-C", os.path.dirname(__file__), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def finish(run: Run, dataset: "Dataset", tokenizer: "Tokenizer", say: Say) -> None:
    """Draws the report, compares with bzip2, and says where everything lies and what to try next."""
    from myna.evaluate.compression import bz2_bits_per_byte
    from myna.evaluate.report import report
    from myna.model.checkpoint import list_checkpoints

    report([run.path], run.report_path)
    for sample in run.samples()[-1:]:
        say(f"\n{run.path} writes on:\n\n{sample['prompt']}{sample['text']}\n")
    reached = [record["val_bits_per_byte"] for record in run.metrics() if "val_bits_per_byte" in record]
    yardstick = bz2_bits_per_byte(dataset.val, tokenizer)
    if reached and yardstick:
        say(f"bits per byte of the validation text ({yardstick[1]:,} bytes):")
        say(f"  this model  {reached[-1]:.3f}\n  bz2 -9      {yardstick[0]:.3f}\n")
    say(f"checkpoint  {list_checkpoints(run.checkpoints)[0]}")
    say(f"metrics     {run.metrics_path}\nsamples     {run.samples_path}\nreport      {run.report_path}\n")
    say("what to try next:")
    say(f'  myna sample {run.path} --prompt "The "')
    say(f"  myna eval {run.path} --task val --data {dataset.path}")
    say(f"  myna data show {dataset.path}")
