"""What may be given to an engine, checked before anything is computed."""

import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from myna.errors import ModelError
from myna.model.ids import check_ids
from myna.model.network import Network
from myna.settings import is_whole

Ids = Tensor | Sequence[Sequence[int]] | Sequence[int]


def check_rows(ids: Ids, vocab_size: int) -> list[list[int]]:
    """Prompt rows as lists, at least one row, each of at least one id, every id in the vocabulary.

    Raises:
        ModelError: what is wrong with them.
    """
    if isinstance(ids, Tensor):
        if ids.dim() != 2:
            raise ModelError(f"prompt ids have shape {tuple(ids.shape)}; give (rows, length)")
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise ModelError(f"prompt ids are {ids.dtype}; give integers")
        ids = ids.tolist()
    try:
        given = list(ids)
        if given and all(map(is_whole, given)):
            given = [given]  # one row
        rows = [[operator.index(id) for id in row] for row in given]
    except TypeError as error:
        raise ModelError(
            f"prompt ids are no rows of integers ({error}); give them as in [[1, 2, 3]], or one row as in [1, 2, 3]"
        ) from error
    if not rows or not all(rows):
        raise ModelError("a prompt is empty; give at least one token, such as the end-of-text id")
    for row in rows:
        check_ids(row, vocab_size, "prompt id")
    return rows


def checked_network(model: Network) -> Network:
    """
    Raises:
        ModelError: it is no network, such as the name of one.
    """
    if not hasattr(model, "hidden") or not hasattr(model, "config"):
        raise ModelError(
            f"the model is {type(model).__name__}; give a network, such as GPT.from_pretrained(DIR) returns"
        )
    return model
