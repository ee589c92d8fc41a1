"""`myna` whose main rank finds that 12 steps fit into any minutes; another rank has nothing to find.

Used as a program, under torchrun: the arguments of `myna`.
"""

from myna.commands import train_minutes
from myna.train.laid_out import LaidOut
from myna.train.machines.torchrun import process_environment
from myna.train.recipe import Recipe

STEPS = 12

if __name__ == "__main__":
    from myna.cli import entry

    def lay_out(minutes: float, recipe: Recipe, *measured: object) -> LaidOut:
        assert process_environment()["RANK"] == "0"
        return LaidOut(minutes, recipe.steps, STEPS)

    train_minutes.lay_out = lay_out
    entry()
