"""What a run says of itself before it begins."""

from myna.commands.train_call import Say
from myna.commands.train_parts import RunParts
from myna.commands.train_records import checkpoint_bytes
from myna.commands.train_stream import tell_shares
from myna.data.batches import Stream
from myna.device import device_name
from myna.progress import counted
from myna.train.keep.saver import Saver
from myna.train.micro_batch import MicroBatch
from myna.train.optimizers import rate_note
from myna.train.recipe import Recipe
from myna.train.step import Stepper
from myna.train.tiles import tile_note


def describe(
    parts: RunParts,
    recipe: Recipe,
    stream: Stream,
    micro_batch: MicroBatch,
    stepper: Stepper,
    saver: Saver,
) -> None:
    """The run in a few lines, before it begins."""
    say, samples = parts.say, recipe.ramp.after(recipe.steps)
    epochs = samples / stream.windows_per_epoch
    of_data = (
        f", {parts.data.n_tokens:,} training tokens, {epochs:.2f} epochs in {counted(recipe.steps, 'step')} of "
        f"{recipe.batch_tokens:,} tokens"
    )
    parameters = f"{recipe.name}: {stepper.network.n_parameters():,} parameters"
    say(parameters if recipe.overfit else parameters + of_data)
    if not parts.data.is_one and not recipe.overfit:
        tell_shares(stream, parts.data, samples, say)
    elif epochs > 1 and not recipe.overfit:
        order = "in another order each time" if recipe.order == "shuffled" else "in the same order each time"
        say(f"the data will be gone through {epochs:.1f} times, {order}")
    if recipe.batch_ramp_tokens:
        tell_ramp(recipe, say)
    precision = stepper.precision
    say(
        f"on {device_name(parts.ranks.device)}, {precision.name} ({precision.reason}), "
        f"micro-batch {micro_batch.sequences} ({micro_batch.reason})"
    )
    notes = (
        tile_note(stepper.network.config, parts.ranks.device, precision),
        rate_note(recipe.optimizer, recipe.learning_rate),
    )
    for note in filter(None, notes):
        say(note)
    every = recipe.checkpoint_every or recipe.steps
    needed = saver.retention.most(recipe.steps, every) * checkpoint_bytes(stepper)
    free = parts.run.free_bytes()
    if parts.ranks.is_main and needed > free:
        say(
            f"the checkpoints will take up to {needed / 1e9:.1f} GB, and {parts.run.path} has {free / 1e9:.1f} GB "
            "left; --keep-last N keeps fewer"
        )


def tell_ramp(recipe: Recipe, say: Say) -> None:
    """Says how the batch grows, and to how many tokens all steps come."""
    ramp, length = recipe.ramp, recipe.sequence_length
    stages = list(ramp.stages())
    growing = sum(steps for _, steps in stages)
    taken = sum(size * steps for size, steps in stages) * length
    after = "" if growing <= recipe.steps else ", which is after the last step"
    say(
        f"the batch grows from {ramp.start * length:,} to {ramp.full * length:,} tokens over the first {growing:,} "
        f"steps ({taken:,} tokens){after}; {recipe.tokens:,} tokens in all"
    )
