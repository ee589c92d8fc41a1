"""Where a run of `myna train` stands: at its beginning, or where its newest checkpoint left it."""

from pathlib import Path

from myna.commands.train_about import MIXTURE, about_data, mixture_changed
from myna.commands.train_parts import RunParts
from myna.errors import UsageError
from myna.train.keep.checkpoints import load_checkpoint
from myna.train.spike import SpikeRule
from myna.train.state import TrainState
from myna.train.step import Stepper


def resumed(
    parts: RunParts, newest: Path | None, stepper: Stepper, spikes: SpikeRule, init_ids: int
) -> TrainState:
    """Where the run stands: a new one's beginning, or its newest checkpoint, loaded.

    Args:
        init_ids: of a new one, see `TrainState`.
    Raises:
        UsageError: it was trained on other data, without `--override`.
        CheckpointError: it is not of this network and optimizer.
    """
    identity, ranks, say = parts.data.identity, parts.ranks, parts.say
    if newest is None:
        require_same_mixture(parts)
        rng = {"seeded_by": "seed, step, rank", "seed": parts.recipe.seed}
        return TrainState(
            identity, parts.recipe.to_dict(), init_ids=init_ids, world_size=ranks.world_size, rng=rng
        )
    state = load_checkpoint(newest, stepper.network, stepper.optimizer, stepper.average)
    if state.dataset != identity:
        stored = parts.stored.recipe if parts.stored else {}
        changed = f"dataset {state.dataset[:12]}, now {identity[:12]}"
        if words := mixture_changed(stored, parts.data):
            changed = f"{words}; {changed}"
        if not parts.call.override:
            raise UsageError(
                f"{newest} was trained on other data ({changed}); give the same --data or another --out, "
                "or go on with --override"
            )
        say(f"going on with other data: {changed}")
    if state.scaler:  # empty where it was off; then one that is on now begins as in a new run
        stepper.scaler.load_state_dict(state.scaler)
    spikes.load(state.spikes)
    if not state.is_done(parts.recipe.steps):
        say(f"resuming after step {state.step} from {newest}")
    if state.world_size != ranks.world_size:
        say(f"ranks: {state.world_size} before, {ranks.world_size} now; the batches are the same")
    state.dataset, state.world_size = identity, ranks.world_size
    return state


def require_same_mixture(parts: RunParts) -> None:
    """Refuses another mixture for a run that was begun and has no checkpoint yet; its records are of the first.

    Raises:
        UsageError: it is another, without `--override`.
    """
    if parts.stored is None or parts.call.override:
        return
    stored = parts.stored.recipe
    if stored.get(MIXTURE) != about_data(parts.data).get(MIXTURE):
        raise UsageError(
            f"{parts.run.path} was begun on other data ({mixture_changed(stored, parts.data)}); give the same "
            "--data or another --out, or go on with --override"
        )
