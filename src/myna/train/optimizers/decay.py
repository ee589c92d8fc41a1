"""Which parameters decay: the choice that AdamW, Adam and SGD share."""

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from myna.model.network import Network

Decays = Literal["matrices", "all"]


def decay_groups(network: "Network", weight_decay: float, decays: Decays) -> list[dict[str, Any]]:
    """Two groups: what multiplies (matrices, embeddings) decays; what shifts or scales (biases, norms) decays or not.

    A gain or a bias that is pulled to 0 is no simpler: it only computes something else.
    """
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {
            "params": [p for p in parameters if p.dim() < 2],
            "weight_decay": weight_decay if decays == "all" else 0.0,
        },
    ]
    return [group for group in groups if group["params"]]
