"""What a text becomes in company against what it becomes alone, for each way to store weights.

    python benchmarks/company.py                                # a small model of random weights, 2,000 requests each
    python benchmarks/company.py --model runs/pydoc --weights fp32,int8

Random requests (prompts that begin alike or not, 1 to 24 new ids, every kind of sampling) each run through an engine of
their own. Then they run through one engine together: they join at random steps, up to 32 at once, some others come and
are taken out in the middle, prompts are computed in pieces, and earlier texts are used again.

The logits of each step are compared up to the first id that differs. In fp32 two things must hold. Logits in any
company are within 1e-4 of the lone run's. And at least 99.9% of the texts are equal, and each other one parts at a
near-tie: logits within 1e-4 of each other led to two different ids.
"""

import argparse
import contextlib
import copy
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import torch
from torch import Tensor

import myna.generate.engine
from myna.generate.engine import Engine, Slot
from myna.generate.sampling import Draw, Sampling
from myna.model.quantize import store_weights
from myna.settings import WeightsName

KINDS = get_args(WeightsName)[1:]  # without auto
TOLERANCE = 1e-4  # of logits, in fp32
TOGETHER = 32  # texts in an engine
GROUP = 64  # requests whose logits are kept at a time


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    ids: list[int]
    sampling: Sampling
    row: int


@dataclass
class Compared:
    """What a comparison found.

    Attributes:
        furthest: the largest difference of a logit, before the ids differ and where they begin to.
        parted: of each text that became another one, the largest difference of a logit at that step.
    """

    requests: int = 0
    ids: int = 0
    furthest: float = 0.0
    parted: list[float] = field(default_factory=list)

    def about(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "requests": self.requests,
            "ids": self.ids,
            "furthest_logit": self.furthest,
            "equal_texts": 1 - len(self.parted) / self.requests,
            "parted_at": self.parted,
        }

    @property
    def holds(self) -> bool:
        """Whether it is what fp32 must give."""
        return self.furthest <= TOLERANCE and len(self.parted) <= 0.001 * self.requests


def random_requests(model: Any, count: int, chance: random.Random) -> Iterator[Request]:
    """Requests of every kind."""
    vocab_size, block_size = model.config.vocab_size, model.config.block_size
    beginnings = [[chance.randrange(vocab_size) for _ in range(block_size // 2)] for _ in range(4)]
    for _ in range(count):
        begin = chance.choice(beginnings)[: chance.choice((0, 3, block_size // 4, block_size // 2))]
        end = [chance.randrange(vocab_size) for _ in range(chance.randrange(1, max(2, block_size // 3)))]
        sampling = Sampling(
            max_tokens=chance.randrange(1, 25),
            temperature=chance.choice((0, 0, 0.7, 1.0)),
            top_k=chance.choice((None, None, 20)),
            top_p=chance.choice((None, None, 0.9)),
            min_p=chance.choice((None, None, 0.05)),
            repetition_penalty=chance.choice((1.0, 1.0, 1.2)),
            seed=chance.randrange(1 << 30),
            slide=chance.random() < 0.5,
        )
        yield Request(begin + end, sampling, row=chance.randrange(3))


@contextlib.contextmanager
def noting(noted: dict[Draw, list[Tensor]]) -> Iterator[None]:
    """Inside, engines note the logits that each text is drawn from."""
    choose = myna.generate.engine.choose

    def noting_choose(logits: Tensor, draws: list[Draw]) -> list[int]:
        for row, draw in zip(logits, draws, strict=True):
            if draw in noted:
                noted[draw].append(row.clone())
        return choose(logits, draws)

    myna.generate.engine.choose = noting_choose
    try:
        yield
    finally:
        myna.generate.engine.choose = choose


def add(engine: Engine, request: Request) -> Slot:
    """Hands a request over."""
    return engine.add(request.ids, request.sampling, first_row=request.row)[0]


def alone(model: Any, request: Request) -> tuple[list[int], list[Tensor]]:
    """The ids of a request in an engine of its own, and the logits of each."""
    engine = Engine(model)
    slot = add(engine, request)
    noted: dict[Draw, list[Tensor]] = {slot.draw: []}
    ids = []
    with noting(noted):
        while engine.busy:
            ids += [new.id for new in engine.step() if new.id is not None]
    return ids, noted[slot.draw]


def in_company(
    engine: Engine, requests: list[Request], chance: random.Random
) -> list[tuple[list[int], list[Tensor]]]:
    """The same of requests that come and go in one engine."""
    waiting, found, strangers = list(requests), {}, []
    noted: dict[Draw, list[Tensor]] = {}
    with noting(noted):
        while waiting or engine.busy:
            running = sum(slot.finish_reason is None for slot in (*found, *strangers))
            while waiting and running < TOGETHER and chance.random() < 0.7:
                request = waiting.pop(0)
                slot = add(engine, request)
                found[slot], noted[slot.draw], running = [], [], running + 1
                if chance.random() < 0.2:
                    stranger = replace(request, sampling=replace(request.sampling, seed=chance.randrange(99)))
                    strangers.append(add(engine, stranger))
            if strangers and chance.random() < 0.2:
                engine.remove(strangers.pop(chance.randrange(len(strangers))))
            for new in engine.step():
                if new.slot in found and new.id is not None:
                    found[new.slot].append(new.id)
    return [(ids, noted[slot.draw]) for slot, ids in found.items()]


def compare(model: Any, count: int, seed: int = 0) -> Compared:
    """Random requests alone and in company."""
    chance = random.Random(seed)
    engine = Engine(model, piece=max(4, model.config.block_size // 4), prefix_bytes=4 << 20)
    compared = Compared()
    requests = list(random_requests(model, count, chance))
    for begin in range(0, count, GROUP):
        group = requests[begin : begin + GROUP]
        lone = [alone(model, request) for request in group]
        for (ids, logits), (others, their_logits) in zip(
            lone, in_company(engine, group, chance), strict=True
        ):
            compared.requests += 1
            compared.ids += len(ids)
            pairs = [*zip(ids, others, strict=False)]
            parts = next((n for n, (id, other) in enumerate(pairs) if id != other), None)
            steps = len(pairs) if parts is None else parts + 1
            apart = [float((logits[n] - their_logits[n]).abs().max()) for n in range(steps)]
            compared.furthest = max([compared.furthest, *apart])
            if ids != others:
                compared.parted.append(apart[-1])
    return compared


def random_model() -> Any:
    """A GPT of random weights, large enough that its logits are as far apart as a trained model's."""
    from myna import GPT, GPTConfig

    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=4, n_head=4, n_embd=128, block_size=128, vocab_size=2048)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def show(kind: str, found: Compared) -> None:
    """A comparison in a line."""
    about = found.about()
    parted = ", ".join(f"{apart:.1e}" for apart in sorted(found.parted)[-5:])
    print(
        f"{kind}: {found.requests} texts, {found.ids} ids; {about['equal_texts']:.2%} of the texts equal; logits "
        f"differ by up to {found.furthest:.1e}" + (f", where texts part by {parted}" if parted else ""),
        flush=True,
    )


def main() -> None:
    """Prints a line for each kind of weights, and with --json an object. Exit code 1 where fp32 does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a run or a folder; by default random weights")
    parser.add_argument("--weights", type=lambda text: text.split(","), default=list(KINDS))
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    call = parser.parse_args()
    if call.model is None:
        model = random_model()
    else:
        from myna.model.open import open_model

        model = open_model(call.model).model.eval()
    found = {}
    for kind in call.weights:
        stored = copy.deepcopy(model)
        store_weights(stored, kind)
        found[kind] = compare(stored, call.requests)
        show(kind, found[kind])
    if call.json:
        json.dump({kind: one.about() for kind, one in found.items()}, sys.stdout)
        print()
    if "fp32" in found and not found["fp32"].holds:
        sys.exit(1)


if __name__ == "__main__":
    main()
