"""What `myna train` learns from, sample by sample, and the tokenizer of its ids."""

import functools

from myna.commands.train_call import Say
from myna.commands.train_resume import Stored
from myna.data.batches import Stream, TrainStream
from myna.data.fill import MEASURED_WINDOWS, FillStream
from myna.data.mixture import Mixture, MixtureStream, Part
from myna.data.packing import ConversationStream
from myna.data.split import Dataset
from myna.errors import TokenizerError, UsageError
from myna.text.fim import can_fill, with_fim_tokens
from myna.text.tokenizer import Tokenizer
from myna.train.recipe import Recipe


def run_tokenizer(recipe: Recipe, data: Mixture, tokenizer: Tokenizer, stored: Stored | None) -> Tokenizer:
    """The run's tokenizer: the data's own, with the tokens that the recipe needs besides.

    Args:
        stored: what the run that is in the folder already was trained with.
    Raises:
        UsageError: `--fim-rate`, and the data are conversations, the tokenizer is no byte-level BPE of ours, or the
            run has another vocabulary.
    """
    if recipe.fim_rate and data.has_conversations:
        raise UsageError(
            f"--fim-rate {recipe.fim_rate:g} is for text, and {data} holds conversations; leave it out"
        )
    before = stored.recipe.get("fim_rate", 0.0) if stored else recipe.fim_rate
    if bool(before) != bool(recipe.fim_rate) and not can_fill(tokenizer):
        raise UsageError(
            f"--fim-rate was {before:g}, now {recipe.fim_rate:g}: the run's vocabulary would change, which it can't; "
            f"give {'a rate over 0' if before else '0'}, or another --out"
        )
    if not recipe.fim_rate:
        return tokenizer
    try:
        return with_fim_tokens(tokenizer)
    except TokenizerError as error:
        raise UsageError(
            f"--fim-rate {recipe.fim_rate:g} needs byte-level BPE with an end-of-text token, for it cuts documents at "
            f"characters: {error}; prepare the data with such a tokenizer, as gpt2 is, or leave --fim-rate out"
        ) from error


def stream_of(recipe: Recipe, data: Mixture, tokenizer: Tokenizer) -> Stream:
    """The samples of a run.

    Args:
        tokenizer: the run's, see `run_tokenizer`.
    Raises:
        DataError: a dataset has too little for one window.
    """
    if data.is_one:
        return stream_of_one(recipe, data.sources[0].dataset, tokenizer)
    return MixtureStream(
        [
            Part(source.name, stream_of_one(recipe, source.dataset, tokenizer), source.parts)
            for source in data.trained
        ]
    )


def stream_of_one(recipe: Recipe, dataset: Dataset, tokenizer: Tokenizer) -> Stream:
    """The samples of one dataset, in the recipe's order."""
    split, length, seed = dataset.train, recipe.sequence_length, recipe.seed
    if dataset.has_conversations:
        return ConversationStream(split, length, seed, tokenizer.eot, order=recipe.order)
    if recipe.fim_rate:
        return FillStream(split, length, seed, tokenizer=tokenizer, rate=recipe.fim_rate, order=recipe.order)
    return TrainStream(split, length, seed, order=recipe.order)


def tell_shares(stream: Stream, data: Mixture, samples: int, say: Say) -> None:
    """Says how often a run goes through each dataset of a mixture.

    Args:
        samples: of the run.
    """
    assert isinstance(stream, MixtureStream)
    say(
        f"a mixture of {len(data.sources)} datasets; an epoch is {stream.windows_per_epoch:,} windows, as many as "
        "those that are trained on have together"
    )
    windows = {part.name: part.stream.windows_per_epoch for part in stream.parts}
    for source in data.sources:
        share = data.shares[source.name]
        does = (
            f"gone through {samples * share / windows[source.name]:.2f} times" if share else "validated only"
        )
        say(
            f"{source.name}: {share:.2%} of the windows, {source.dataset.train.n_tokens:,} training tokens, {does}"
        )


def tell_of(stream: Stream, say: Say) -> None:
    """Says what the stream does to the data, where it does anything."""
    if isinstance(stream, MixtureStream):
        for part in stream.parts:
            tell_of(part.stream, functools.partial(_say_of, part.name, say))
    if isinstance(stream, FillStream):
        moved, cut = stream.measured()
        say(
            f"fill in the middle: {moved:.0%} of the documents have their middle at their end; {cut:.1%} of the ids no "
            f"longer fit their window (measured on the first {MEASURED_WINDOWS} windows)"
        )
    if isinstance(stream, ConversationStream):
        found, windows = stream.conversations, stream.windows_per_epoch
        used = (found.lengths - 1).sum() / (windows * stream.sequence_length)
        say(
            f"{len(found.starts):,} conversations in {windows:,} windows of {stream.sequence_length:,} tokens, "
            f"{used:.1%} of them used; {stream.scored.sum():,} tokens are scored"
        )
        if found.n_cut:
            say(f"{found.n_cut:,} conversations are longer than a window: they lose their last turns")
        if found.n_left_out:
            say(f"{found.n_left_out:,} conversations are left out: not even their first answer fits a window")


def _say_of(name: str, say: Say, text: str) -> None:
    say(f"{name}: {text}")
