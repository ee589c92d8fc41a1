"""Validation loss and bits per byte, exact, as sums that ranks add before anyone divides.

The validation loss is the mean over the first min(10,485,760, all) targets of the validation split, each scored once,
in windows of the sequence length that don't overlap. (Within a window the first targets have little context; so the
loss depends on the sequence length, and only losses of the same one compare.)

Bits per byte is the same loss in a unit that doesn't depend on the tokenizer: the bits spent on the text, divided by
the UTF-8 bytes of that text. Targets that are special tokens (end of text) stand for no bytes; they count neither
above nor below the line. [UNK] counts as text. Where a tokenizer doesn't keep all of a text, no id stands for a fixed
number of bytes; then the bytes are those that the dataset counted, if all of its validation split is scored. Otherwise
bits per byte are left out.

Of conversations the targets are the scored ids alone: what the assistant says, and the end of its turn. They stand in
windows as in training (`myna.data.packing`), so each conversation sees only itself.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from myna.data.batches import VALIDATION_TARGETS, val_windows
from myna.data.packing import ConversationStream
from myna.data.split import Split
from myna.device import autocast
from myna.errors import DataError
from myna.evaluate.finite import finite
from myna.evaluate.rounds import in_rounds
from myna.model.loss import IGNORE
from myna.model.network import Network, evaluation_mode
from myna.model.packed import Packed
from myna.text.tokenizer import Tokenizer

BATCH_TOKENS = 8192


@torch.no_grad()
def validation_sums(
    model: Network,
    split: Split,
    id_bytes: np.ndarray | None,
    *,
    text_ids: np.ndarray | None = None,
    eot: int | None = None,
    sequence_length: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    limit: int = VALIDATION_TARGETS,
    rank: int = 0,
    world_size: int = 1,
    autocast_dtype: torch.dtype | None = None,
    on_targets: Callable[[int], None] | None = None,
    before_batch: Callable[[], None] | None = None,
) -> Tensor:
    """One rank's share of the validation sums.

    Args:
        model: the network itself, not its compiled or DDP wrapper. Put in evaluation mode, and back afterwards.
        id_bytes: (n_vocab,) int64 UTF-8 bytes an id stands for, 0 for special tokens: `Tokenizer.id_bytes()`; or None.
        text_ids: (n_vocab,) bool, which ids are text: `Tokenizer.text_ids()`. None: those that stand for bytes.
        eot: the id that begins a document; needed for conversations.
        sequence_length: ids a window; None is the model's block_size.
        batch_tokens: targets computed at once, at least a window of them; bounds the memory.
        limit: targets at most, over all ranks.
        autocast_dtype: compute in this precision where autocast allows; softmax and sums stay fp32 and fp64.
        on_targets: called with the number of targets done after each batch.
        before_batch: called before each batch, and equally often on every rank; it may raise to end the evaluation.
    Returns:
        (4,) float64 on the CPU: nats, targets, nats of text targets, bytes of text targets (NaN: unknown).
    Raises:
        DataError: nothing to score, or the split has more ids than the model.
    """
    if split.vocab_size > model.config.vocab_size:
        raise DataError(
            f"{split.place} is of {split.vocab_size:,} ids, and the model has {model.config.vocab_size:,}; use data "
            "made with the model's own tokenizer"
        )
    if split.n_tokens < 2:
        raise DataError(
            f"{split.place} has {split.n_tokens} ids, so nothing to score; prepare a larger share of it"
        )
    T = min(sequence_length or model.config.block_size, model.config.block_size)
    bytes_of, is_text = (
        None if table is None else torch.from_numpy(np.asarray(table, dtype=kind)).to(model.device)
        for table, kind in ((id_bytes, np.int64), (id_bytes if text_ids is None else text_ids, np.bool_))
    )
    if is_text is None:
        raise ValueError("validation_sums needs id_bytes or text_ids, to know which ids are text")
    batch_windows = max(1, batch_tokens // T)
    windows: Iterator[tuple[np.ndarray, ...]]
    if split.scored is None:
        windows = val_windows(split, T, limit, rank, world_size)
        rounds = most_batches(min(limit, split.n_tokens - 1), T, batch_windows, world_size)
    else:
        assert eot is not None
        stream = ConversationStream(split, T, 0, eot, limit)
        windows = (stream.window(n) for n in range(rank, stream.windows_per_epoch, world_size))
        rounds = most_batches(stream.windows_per_epoch * T, T, batch_windows, world_size)
    batches = _batches(windows, batch_windows)
    total = torch.zeros(4, dtype=torch.float64)
    with evaluation_mode(model), autocast(model.device, autocast_dtype):
        for batch in in_rounds(batches, rounds, before_batch):
            inputs, targets, *positions = (part.to(model.device) for part in batch)
            texts = Packed.side_by_side(*positions) if positions else None
            hidden = model.hidden(inputs, texts)[targets != IGNORE]  # (N, C)
            wanted = targets[targets != IGNORE]
            nats = model.token_nats(hidden, wanted)
            # To the CPU before the sums: not every device has float64.
            all_nats, text_nats = (
                torch.stack([nats, nats * is_text[wanted]]).cpu().double().sum(dim=1).tolist()
            )
            n_bytes = math.nan if bytes_of is None else int(bytes_of[wanted].sum())
            sums = [all_nats, wanted.numel(), text_nats, n_bytes]
            total += torch.tensor(sums, dtype=torch.float64)
            if on_targets:
                on_targets(wanted.numel())
    return total


def validation_rounds(
    split: Split, sequence_length: int, eot: int | None = None, *, world_size: int = 1
) -> int:
    """How many batches `validation_sums` goes through on every rank, with its own batch size and limit."""
    targets = min(VALIDATION_TARGETS, split.n_tokens - 1)
    if split.scored is not None:
        assert eot is not None
        stream = ConversationStream(split, sequence_length, 0, eot, VALIDATION_TARGETS)
        targets = stream.windows_per_epoch * sequence_length
    return most_batches(targets, sequence_length, max(1, BATCH_TOKENS // sequence_length), world_size)


def why_no_bits_per_byte(split: Split, tokenizer: Tokenizer, limit: int = VALIDATION_TARGETS) -> str | None:
    """Why a validation with this tokenizer can't give bits per byte, in a line; None where it can."""
    if tokenizer.is_exact or (split.stated_bytes is not None and split.n_tokens - 1 <= limit):
        return None
    unknown = f"bits per byte are left out: {tokenizer.name} doesn't say how many bytes of text an id stands for, and "
    if split.stated_bytes is None:
        return unknown + f"{split.place} doesn't state the bytes of its text; `myna prepare` counts them"
    return (
        unknown
        + f"{split.n_tokens - 1:,} targets are too many to score all; prepare at most {limit:,} for validation"
    )


def validation_scores(sums: Tensor, split: Split | None = None) -> dict[str, float]:
    """Sums, added over the ranks, to the keys of metrics.jsonl; without bits per byte where the bytes aren't known.

    Args:
        split: what was scored. Its own count of bytes is taken where the ids don't tell, if all of it was scored.

    Raises:
        ModelError: the loss is not finite.

    >>> validation_scores(torch.tensor([8 * math.log(2), 4, 6 * math.log(2), 3], dtype=torch.float64))
    {'val_loss': 1.3862943611198906, 'val_bits_per_byte': 2.0}
    """
    nats, targets, text_nats, text_bytes = _with_bytes(sums, split).tolist()
    scores = {"val_loss": nats / targets}
    if text_bytes > 0:
        scores["val_bits_per_byte"] = text_nats / (math.log(2) * text_bytes)
    return finite(scores)


def mixture_scores(
    sums: Mapping[str, Tensor], splits: Mapping[str, Split], shares: Mapping[str, float]
) -> dict[str, float]:
    """The same of several sources: each one's loss, and both measures of a text that is mixed of them.

    Args:
        sums: of each source, by its name, added over the ranks.
        shares: of each source in the targets of that text.
    Returns:
        val_loss is the mean of the sources' losses by their shares; `val_loss/NAME` each one's.
    Raises:
        ModelError: a loss is not finite.

    >>> one = torch.tensor([8, 4, 6, 3], dtype=torch.float64)
    >>> mixture_scores({"a": one, "b": 2 * one}, {}, {"a": 0.75, "b": 0.25})["val_loss"]
    2.0
    """
    whole = sum(shares[name] for name in sums)
    each = {name: _with_bytes(one, splits.get(name)) for name, one in sums.items()}
    mixed = sum(shares[name] / whole * one / one[1] for name, one in each.items())
    losses = {f"val_loss/{name}": float(one[0] / one[1]) for name, one in each.items()}
    return finite(validation_scores(torch.as_tensor(mixed)) | losses)


def _with_bytes(sums: Tensor, split: Split | None) -> Tensor:
    """Sums whose bytes of text, where the ids don't tell, are the dataset's own count; NaN where that is not known."""
    if split is None or not math.isnan(sums[3]) or not split.stated_bytes:
        return sums
    stated = split.stated_bytes if sums[1] == split.n_tokens - 1 else math.nan
    return torch.cat([sums[:3], torch.tensor([stated], dtype=sums.dtype)])


def most_batches(targets: int, sequence_length: int, batch_windows: int, world_size: int) -> int:
    """The most batches that any rank of a world has, when windows are dealt to the ranks in turn.

    >>> most_batches(targets=33, sequence_length=8, batch_windows=4, world_size=1)  # 4 windows, and a short one
    2
    """
    whole, rest = divmod(targets, sequence_length)

    def batches(rank: int) -> int:
        mine = len(range(rank, whole, world_size))
        # The short window is the last of all, and a batch by itself.
        return -(-mine // batch_windows) + (rest > 0 and rank == whole % world_size)

    return max(batches(rank) for rank in range(world_size))


def _batches(windows: Iterator[tuple[np.ndarray, ...]], batch_windows: int) -> Iterator[tuple[Tensor, ...]]:
    """Consecutive windows of equal length, stacked: each part (B, T) int64. A short last one is by itself."""
    held: list[tuple[np.ndarray, ...]] = []

    def stacked() -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(np.stack(part)) for part in zip(*held, strict=True))

    for window in windows:
        if held and (len(held) == batch_windows or len(window[0]) != len(held[0][0])):
            yield stacked()
            held = []
        held.append(window)
    if held:
        yield stacked()
