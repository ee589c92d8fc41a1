"""The check that ids are of a model's vocabulary. (The rows that pad an embedding would take the ids after it.)"""

from collections.abc import Sequence

from torch import Tensor

from myna.errors import ModelError


def check_ids(ids: Tensor | Sequence[int], vocab_size: int, what: str = "id") -> None:
    """Reads every id. A tensor on a GPU would have to be waited for, so call it where the ids are on the CPU.

    Raises:
        ModelError: an id outside the vocabulary.

    >>> check_ids([0, 49], 50)
    """
    if isinstance(ids, Tensor):
        ids = [int(end) for end in ids.aminmax()] if ids.numel() else []
    if ids and (min(ids) < 0 or max(ids) >= vocab_size):
        raise ModelError(
            f"{what} {min(ids) if min(ids) < 0 else max(ids)} is outside the vocabulary (0 to {vocab_size - 1}); use "
            "this model's own tokenizer"
        )
