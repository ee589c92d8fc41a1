"""A program for torchrun: trains once for each poison, which makes a loss or a gradient of one rank not finite.

    torchrun ... poisoned.py FOLDER STEP:RANK:loss|gradient ... -- ARGUMENTS OF MYNA TRAIN

Each rank writes FOLDER/RANK.json: per poison the error it met and the steps saved.
"""

import json
import sys
from pathlib import Path

from myna.commands.train import train
from myna.commands.train_call import TrainCall
from myna.errors import DivergedError
from myna.files import sha256_file
from myna.model.checkpoint import list_checkpoints
from myna.recipes import named
from myna.train import step
from myna.train.machines.ranks import start_ranks
from myna.train.machines.torchrun import process_environment
from myna.train.machines.watch import Watch


def poison(at: int, whose: int, where: str, rank: int):
    """Makes this rank's part of a step's loss, or of its gradient, not finite."""
    backward, seed_step = step.Stepper.backward, step.Stepper.seed_step
    now = [0]

    def noted(self, number):
        now[0] = number + 1
        seed_step(self, number)

    def hit():
        return now[0] == at and rank == whose

    def poisoned(self, batch, scale):
        if hit() and where == "loss":
            return backward(self, batch, scale * float("nan")) * float("nan")
        return backward(self, batch, scale)

    def forward(self, ids, targets):
        nats = original(self, ids, targets)
        if hit() and where == "gradient":
            nats.register_hook(lambda gradient: gradient * float("inf"))
        return nats

    original = step.SummedLoss.forward
    step.Stepper.backward, step.Stepper.seed_step, step.SummedLoss.forward = poisoned, noted, forward

    def undo():
        step.Stepper.backward, step.Stepper.seed_step = backward, seed_step
        step.SummedLoss.forward = original

    return undo


def main():
    folder, rest = Path(sys.argv[1]), sys.argv[2:]
    poisons, arguments = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    from myna.commands import parse

    met = []
    with start_ranks(process_environment(), "cpu", 60) as ranks, Watch(ranks, 60) as watch:
        for number, text in enumerate(poisons):
            at, whose, where = text.split(":")
            out = folder / f"run{number}"
            call = parse(TrainCall, [*arguments, "--out", str(out)], command="train",
                         default=TrainCall(settings=named("shakespeare-char")))  # fmt: skip
            undo = poison(int(at), int(whose), where, ranks.rank)
            error = ""
            try:
                train(call, ranks, watch, lambda text: None)
            except DivergedError as caught:
                error = str(caught)
            undo()
            ranks.barrier()
            saved = list_checkpoints(out / "checkpoints")
            met.append([error, [int(p.name[5:]) for p in saved], sha256_file(saved[0] / "model.safetensors")])
    (folder / f"{ranks.rank}.json").write_text(json.dumps(met))


if __name__ == "__main__":
    main()
