"""The samples of a run: which stream of windows its data and its recipe ask for."""

from myna.commands.train_call import Say
from myna.data.batches import Stream, TrainStream
from myna.data.packing import ConversationStream
from myna.data.split import Dataset
from myna.text.tokenizer import Tokenizer
from myna.train.recipe import Recipe


def stream_of(recipe: Recipe, dataset: Dataset, tokenizer: Tokenizer, say: Say) -> Stream:
    """The stream, with a word on what of the data it does not use.

    Raises:
        DataError: the data has too little for one window.
    """
    length, seed = recipe.sequence_length, recipe.seed
    if not dataset.has_conversations:
        return TrainStream(dataset.train, length, seed)
    stream = ConversationStream(dataset.train, length, seed, tokenizer.eot)
    found = stream.conversations
    used = (found.lengths - 1).sum() / (stream.windows_per_epoch * length)
    say(
        f"{len(found.starts):,} conversations in {stream.windows_per_epoch:,} windows of {length:,} tokens, "
        f"{used:.1%} of them used; {stream.scored.sum():,} scored tokens"
    )
    if found.n_cut:
        say(f"{found.n_cut:,} conversations are longer than a window: they lose their last turns")
    if found.n_left_out:
        say(f"{found.n_left_out:,} conversations are left out: not even their first answer fits a window")
    return stream
