"""The numbers of one source tree, for same_numbers.py: prepares, trains, writes, scores, and goes on with old runs.

    PYTHONPATH=TREE/src python -P numbers_worker.py FOLDER [--items FILE] [--perturb]

FOLDER must exist; what is made goes there, and the numbers to FOLDER/numbers.json. The same program runs in both
trees, so it uses only the doors that both have. What differs between them stands in `moments`.
"""

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import pydoc_data.topics
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

import myna
from myna import GPT, GPTConfig, Tokenizer, generate
from myna.cli import main as myna_main
from myna.data.shards import open_dataset
from myna.evaluate.hellaswag import encode_items, read_items
from myna.evaluate.loss import validation_sums

try:
    from myna.evaluate.continuations import ending_nats
except ImportError:
    from myna.evaluate.hellaswag import ending_nats

try:
    from myna.evaluate.choices import choice_sums
except ImportError:
    from myna.evaluate.hellaswag import hellaswag_sums as choice_sums

Numbers = dict[str, Any]

OLD_RUNS = Path(__file__).resolve().parent / "run_before_networks"
TEXT_CHARACTERS = 150_000
STEPS = 40
LEARNING_RATE = 2e-3
PERTURBED = 1 + 1e-6  # a learning rate times this
LOUD, LOUD_PERTURBED = 8.0, 8.01  # initial weights times this, so that some ids are much likelier than others
COMMON = f"--steps {STEPS} --warmup-steps 5 --eval-every 20 --sample-every 0 --precision fp32 --device cpu --no-compile"
# Small shapes of two recipes, with dropout, and four and two micro-batches a step.
TRAININGS = {
    "shakespeare-char": (
        "bytes",
        "--n-layer 2 --n-head 3 --n-embd 48 --block-size 32 --sequence-length 32 "
        "--batch-tokens 512 --micro-batch 4 --dropout 0.1",
    ),
    "gpt2-124m": (
        "gpt2",
        "--n-layer 3 --n-head 2 --n-embd 32 --block-size 64 --sequence-length 64 "
        "--batch-tokens 512 --micro-batch 4 --dropout 0.2",
    ),
}


def command(*args: object) -> str:
    """What a `myna` command prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = myna_main([str(arg) for arg in args])
    assert code == 0, (args, code)
    return said.getvalue()


def hashed(array: np.ndarray) -> str:
    """Equal for equal bits, types and shapes."""
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"{array.dtype} {array.shape} {digest}"


def prepared(folder: Path) -> Numbers:
    """The shards of both tokenizers."""
    text = folder / "text.txt"
    text.write_text("\n".join(pydoc_data.topics.topics.values())[:TEXT_CHARACTERS], "utf-8")
    found: Numbers = {}
    for name in ("bytes", "gpt2"):
        command("prepare", text, "--out", folder / name, "--tokenizer", name, "--workers", 1)
        info = json.loads((folder / name / "dataset.json").read_text("utf-8"))
        found[name] = {split: info[split]["shards"] for split in ("train", "val")}
    return found


def moments(checkpoint: Path) -> Numbers:
    """Adam's moments (and the weights, where their average was saved as the model) by name, in our layout."""
    try:
        from myna.model.checkpoint import load_train_state
    except ImportError:  # since there are other networks and optimizers
        return _moments_by_name(checkpoint)
    kinds, state = load_train_state(checkpoint, GPT.from_pretrained(checkpoint))
    found: Numbers = {
        f"{kind} {name}": hashed(tensor.numpy())
        for kind, tensors in kinds.items()
        for name, tensor in tensors.items()
    }
    return found | {key: state[key] for key in ("step", "samples", "tokens")}


def _moments_by_name(checkpoint: Path) -> Numbers:
    from myna.model.checkpoint import load_train_files
    from myna.train.keep.checkpoints import named_tensors
    from myna.train.state import TrainState

    arrays, raw = load_train_files(checkpoint)
    state = TrainState.from_dict(raw, str(checkpoint))
    tensors = named_tensors(arrays, state, GPT.from_pretrained(checkpoint), str(checkpoint))
    named = {key.replace(".", " ", 1): tensor for key, tensor in tensors.items()}
    found: Numbers = {key: hashed(t.numpy()) for key, t in named.items() if not key.startswith("step ")}
    return found | {"step": state.step, "samples": state.samples, "tokens": state.tokens}


def run_numbers(run: Path, after_step: int = 0) -> Numbers:
    """Losses and gradient norms of the steps, and what the last checkpoint holds."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    wanted = ("train_loss", "grad_norm", "learning_rate", "val_loss", "val_bits_per_byte")
    steps: Numbers = {}
    for record in records:
        if record["step"] > after_step:
            kept = {key: record[key] for key in wanted if key in record}
            steps.setdefault(f"step {record['step']}", {}).update(kept)
    newest = last_checkpoint(run)
    weights = safetensors.numpy.load_file(newest / "model.safetensors")
    return {
        "steps": steps,
        "weights": {name: hashed(array) for name, array in weights.items()},
        "moments": moments(newest),
    }


def last_checkpoint(run: Path) -> Path:
    """The folder of the last step."""
    return max((run / "checkpoints").glob("step_*"))


def trained(folder: Path, perturb: bool) -> Numbers:
    """Forty steps of each small shape."""
    rate = LEARNING_RATE * (PERTURBED if perturb else 1)
    found: Numbers = {}
    for recipe, (tokens, flags) in TRAININGS.items():
        where = ("--data", folder / tokens, "--out", folder / recipe, "--learning-rate", rate)
        command("train", recipe, *COMMON.split(), *flags.split(), *where)
        found[recipe] = run_numbers(folder / recipe)
    return found


def loud_model(vocab_size: int, block_size: int, perturb: bool) -> GPT:
    """A network that has an opinion without having been trained."""
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 32}
    model = GPT(GPTConfig(**shape, block_size=block_size, vocab_size=vocab_size)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(LOUD_PERTURBED if perturb else LOUD)
    return model


def generated(folder: Path, perturb: bool) -> Numbers:
    """New ids, past the window's end, in each way of choosing them."""
    sampled = {"seed": 11, "temperature": 0.8}
    ways: dict[str, dict[str, Any]] = {
        "greedy": {"temperature": 0.0},
        "sampled": {"seed": 11},
        "cooler": sampled,
        "top-k": sampled | {"top_k": 5},
        "top-p": sampled | {"top_p": 0.7},
        "top-k and top-p": sampled | {"top_k": 20, "top_p": 0.9},
        "stop ids": sampled | {"stop_ids": list(range(0, 257, 16))},
    }
    models = {
        "loud": loud_model(257, 32, perturb),
        "trained": GPT.from_pretrained(last_checkpoint(folder / "shakespeare-char")).eval(),
    }
    prompts = {
        "one row": [[72, 101, 108, 108, 111]],
        "four rows": [[256, 84, 104, 101 + row, 32] for row in range(4)],
        "longer than the window": [[(7 * n + row) % 256 for n in range(45)] for row in range(2)],
    }
    return {
        f"{which}, {way}, {what}": generate(model, torch.tensor(ids), max_tokens=80, **options)
        for which, model in models.items()
        for way, options in ways.items()
        for what, ids in prompts.items()
    }


def validated(folder: Path) -> Numbers:
    """Validation sums of the trained networks, and what `myna eval` makes of them."""
    found: Numbers = {}
    for recipe, (tokens, _) in TRAININGS.items():
        data = folder / tokens
        model = GPT.from_pretrained(last_checkpoint(folder / recipe)).eval()
        id_bytes = Tokenizer.load(data).id_bytes()
        options = ("--task", "val", "--data", data, "--device", "cpu", "--precision", "fp32", "--json")
        scores = json.loads(command("eval", folder / recipe, *options))
        found[recipe] = {
            "sums": validation_sums(model, open_dataset(data).val, id_bytes).tolist(),
            "myna eval": {key: value for key, value in scores.items() if key not in ("model", "data")},
        }
    return found


def context_length(question: Any) -> int:
    """Ids of a question's context that older code computes apart."""
    if hasattr(question, "shared"):
        return len(question.shared)
    return 0 if question.cut else len(question.rows[0]) - question.scored[0] - 1


def hellaswag(items: Path, perturb: bool) -> Numbers:
    """Right answers, and the cost of each ending: a question at a time, and those of one length together."""
    tokenizer = Tokenizer.gpt2()
    found: Numbers = {}
    for block_size in (128, 40):  # 40 cuts some
        model = loud_model(tokenizer.n_vocab, block_size, perturb)
        questions = encode_items(read_items(items), tokenizer, block_size)
        by_length = sorted(questions, key=context_length)
        groups = itertools.groupby(by_length, key=context_length)
        found[f"{block_size} positions"] = {
            "sums": choice_sums(model, questions).tolist(),
            "nats": [ending_nats(model, [question]).tolist() for question in questions],
            "nats together": [ending_nats(model, list(group)).tolist() for _, group in groups],
        }
    return found


def continued(folder: Path, perturb: bool) -> Numbers:
    """The second half of runs that older code began."""
    flags: Mapping[str, str] = json.loads((OLD_RUNS / "flags.json").read_text("utf-8"))
    found: Numbers = {}
    for name, given in flags.items():
        run = Path(shutil.copytree(OLD_RUNS / name, folder / "old runs" / name))
        begun_with = json.loads((run / "recipe.json").read_text("utf-8"))["learning_rate"]
        other = ("--learning-rate", begun_with * PERTURBED, "--override") if perturb else ()
        where = ("--data", OLD_RUNS / "data", "--out", run)
        command("train", "shakespeare-char", *given.split(), *where, *other)
        found[name] = run_numbers(run, after_step=12)
    return found


def main() -> None:
    """Writes the numbers of the tree that PYTHONPATH names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=Path, help="HellaSwag's items; without them they are left out")
    parser.add_argument(
        "--perturb", action="store_true", help="change one value in each section but `prepared`"
    )
    call = parser.parse_args()
    numbers: Numbers = {
        "prepared": prepared(call.folder),
        "trained": trained(call.folder, call.perturb),
        "generated": generated(call.folder, call.perturb),
        "validated": validated(call.folder),
        "continued": continued(call.folder, call.perturb),
    }
    if call.items:
        numbers["hellaswag"] = hellaswag(call.items, call.perturb)
    tree = Path(myna.__file__).resolve().parents[1]
    (call.folder / "numbers.json").write_text(json.dumps({"tree": str(tree), "numbers": numbers}), "utf-8")


if __name__ == "__main__":
    main()
