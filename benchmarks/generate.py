"""Writing with GPT-2's shape: transformers and ours in turn, against what the memory and the products allow.

    python benchmarks/generate.py                          # GPT-2 124M, batches of 1 and 16
    python benchmarks/generate.py --layers 2 --tokens 16   # quick

Random weights: what is written does not matter for the time. Each side writes greedily from a prompt of 64 ids, and
never ends early. The sides take turns in one process, and the median is compared. A cached `generate` of transformers
runs in fp32 and in bf16; ours with its weights in fp32, bf16, fp16 and int8, and for several texts with a compiled
step too (`--compile` of sample and serve; compiling is not counted).

Two limits stand beside the figures. *Memory*: the bytes of the weights over what a large copy moves in a second, read
and written together; an id cannot take less time than reading each weight once. *Products*: the network's matrix
products alone, by the kernels that ours uses, one after the other, with nothing between them.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from myna.device import processor_name
from myna.generate.engine import Engine, generate, run
from myna.generate.sampling import Sampling
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.model.matrix import Matrix
from myna.model.quantize import StoredLinear, store_weights
from myna.train.machines.speed import copy_bytes_per_s


def seconds(work: Callable[[], object]) -> float:
    """What one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def hugging_face_copy(model: GPT, dtype: torch.dtype):
    """The same weights in transformers' network."""
    import transformers

    config = transformers.GPT2Config(**model.layout.config_json(model, eot=None))
    arrays = model.layout.to_file(model, model.state_dict())
    with torch.device("meta"):
        theirs = transformers.GPT2LMHeadModel(config)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()}, strict=False, assign=True)
    theirs.tie_weights()
    return theirs.eval().to(dtype)


def theirs(model, ids: torch.Tensor, tokens: int) -> None:
    """transformers' generate."""
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )


def write(engine: Engine, rows: list[list[int]], tokens: int) -> None:
    """The same by an engine that stands already."""
    for row in rows:
        engine.add(row, Sampling(max_tokens=tokens, temperature=0))
    for _ in run(engine):
        pass


def matrices(model: GPT) -> list[Matrix | torch.nn.Linear]:
    """What an id is multiplied with, in order; the head last."""
    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear | StoredLinear)]
    return [*(m.weight if isinstance(m, StoredLinear) else m for m in linears), model.head_weight]


@torch.no_grad()
def products(model: GPT, batch: int) -> None:
    """The products of one id a row, alone."""
    for one in matrices(model):
        if isinstance(one, Matrix):
            one.product(torch.ones(batch, one.n_columns))
        else:
            weight = one if isinstance(one, torch.Tensor) else one.weight
            torch.nn.functional.linear(torch.ones(batch, weight.shape[1]), weight)


def weight_bytes(model: GPT, kind: str) -> int:
    """Bytes of what an id is multiplied with."""
    count = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and n != "wpe.weight")
    return count * {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}[kind]


def compare(
    ours: dict[str, GPT], others: dict[str, object], batch: int, call: argparse.Namespace, copied: float
) -> list[dict[str, object]]:
    """Prints one batch's table; returns its lines."""
    ids = torch.randint(0, ours["fp32"].config.vocab_size, (batch, call.prompt))
    rows = ids.tolist()
    sides: dict[str, Callable[[], object]] = {}
    for kind, other in others.items():
        sides[f"transformers {kind}"] = partial(theirs, other, ids, call.tokens)
    for kind, one in ours.items():
        sides[f"ours {kind}"] = partial(generate, one, rows, max_tokens=call.tokens, temperature=0)
        if batch > 1:
            engine = Engine(one)
            failure = engine.compile_step()
            assert failure is None, failure
            sides[f"ours {kind}, compiled"] = partial(write, engine, rows, call.tokens)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for work in sides.values():  # once without the clock: memory is asked for, kernels are chosen
        work()
    for _ in range(call.turns):
        for name, work in sides.items():
            times[name].append(seconds(work))
    speed = {name: batch * call.tokens / statistics.median(taken) for name, taken in times.items()}
    best = max(value for name, value in speed.items() if name.startswith("transformers"))
    print(f"\nbatch {batch}, prompt {call.prompt}, {call.tokens} new ids")
    print(f"{'':<22} {'ids/s':>8} {'ratio':>6} {'of memory':>10} {'of products':>12}")
    lines = []
    for name, value in speed.items():
        kind = name.split()[1].rstrip(",")
        line = {"batch": batch, "side": name, "ids_per_s": value, "ratio": value / best}
        if name.startswith("ours"):
            alone = statistics.median(seconds(partial(products, ours[kind], batch)) for _ in range(15))
            line["of_memory"] = value / batch * weight_bytes(ours["fp32"], kind) / copied
            line["of_products"] = value / batch * alone
        shares = [f"{line[k]:.0%}" if k in line else "" for k in ("of_memory", "of_products")]
        print(f"{name:<22} {value:>8.1f} {value / best:>6.2f} {shares[0]:>10} {shares[1]:>12}", flush=True)
        lines.append(line)
    return lines


def main() -> None:
    """Prints the table, and with --json an object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=192)
    parser.add_argument("--batches", type=lambda text: [int(n) for n in text.split(",")], default=[1, 16])
    parser.add_argument("--turns", type=int, default=3)
    kinds = {"type": lambda text: text.split(",")}
    parser.add_argument(
        "--ours", default=["bf16", "fp16", "int8"], help="kinds of weights beside fp32", **kinds
    )
    parser.add_argument("--theirs", default=["fp32", "bf16"], help="precisions of transformers", **kinds)
    parser.add_argument("--json", action="store_true")
    call = parser.parse_args()
    torch.manual_seed(0)
    shape = GPTConfig(n_layer=call.layers, n_embd=call.width, n_head=max(1, call.width // 64))
    model = GPT(shape).eval()
    copied = copy_bytes_per_s(torch.device("cpu"))
    ours = {"fp32": model}
    for kind in call.ours:
        if kind == "fp32":
            continue
        ours[kind] = copy.deepcopy(model)
        store_weights(ours[kind], kind)  # type: ignore[arg-type]
    dtypes = {kind: {"fp32": torch.float32, "bf16": torch.bfloat16}[kind] for kind in call.theirs}
    others = {kind: hugging_face_copy(model, dtype) for kind, dtype in dtypes.items()}
    print(f"{processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"a large copy moves {copied / 1e9:.1f} GB/s")
    found = []
    for batch in call.batches:
        found += compare(ours, others, batch, call, copied)
    if call.json:
        json.dump(found, sys.stdout)
        print()


if __name__ == "__main__":
    main()
