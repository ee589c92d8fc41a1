"""What `myna train` has settled before it builds the network."""

from dataclasses import dataclass

from myna.commands.train_call import Say, TrainCall
from myna.commands.train_resume import Stored
from myna.data.mixture import Mixture
from myna.device import Precision
from myna.run import Run
from myna.text.tokenizer import Tokenizer
from myna.train.laid_out import LaidOut
from myna.train.machines.ranks import Ranks
from myna.train.recipe import Recipe


@dataclass(frozen=True)
class RunParts:
    """All that a run starts from: settled before the network is built."""

    call: TrainCall
    run: Run
    recipe: Recipe
    stored: Stored | None  # where the folder holds a run already
    ranks: Ranks
    precision: Precision
    data: Mixture
    tokenizer: Tokenizer
    say: Say
    laid: LaidOut | None = None  # where this call has chosen the steps, for --minutes or --epochs
