"""A model's weights in a network with more ids: how special tokens get their rows."""

import torch
from torch import Tensor

from myna.errors import ModelError
from myna.model.network import Network


def grown_state(base: Network, network: Network, n_known: int) -> dict[str, Tensor]:
    """The weights of `base`, shaped for `network`, which has the same sizes but for its vocabulary.

    The row of each id that the model does not know is the mean of those that it does. So a new token begins as no
    token in particular, and what the model says of all others stays nearly what it was.

    Args:
        n_known: ids that the model was trained with; more rows than that were padding.
    Raises:
        ModelError: another network or other sizes.

    Source:
        Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models".
    """
    state, wanted = base.state_dict(), network.state_dict()
    if set(state) != set(wanted):
        raise ModelError(f"a {type(base).__name__} can't be continued as a {type(network).__name__}")
    new = network.config.vocab_size - n_known
    for name in base.vocabulary_rows:
        rows = base.unpadded(name, state[name])[:n_known]
        grown = torch.cat([rows, rows.mean(dim=0, keepdim=True).expand(max(new, 0), *rows.shape[1:])])
        state[name] = network.padded(name, grown[: network.config.vocab_size])
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise ModelError(
                f"tensor {name!r} has shape {tuple(tensor.shape)}, and the network to be trained "
                f"{tuple(wanted[name].shape)}; leave the flags of the shape out"
            )
    return state
